"""Tables of recordings and texts as others write them: names of columns, and how cells are parted."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asr.core.files import read_text
from asr.data.manifest import ManifestError

ID_NAMES = ("id", "utterance", "utt_id", "utterance_id", "utt", "uttid", "key")
AUDIO_NAMES = (
    *("audio_filepath", "audio", "audio_path", "audio_file", "audio_filename", "file_name", "filename"),
    *("file", "path", "wav_filename", "wav_path", "wav", "recording"),
)
TEXT_NAMES = ("text", "sentence", "transcript", "transcription", "txt", "wrd")
SPEAKER_NAMES = ("speaker", "speaker_id", "spk_id", "client_id")


def find_name(names: Iterable[str], known: Sequence[str]) -> str | None:
    """Find the first of the ``known`` names of a column or key, in any case."""
    by_case = {name.strip().casefold(): name for name in names}
    return next((by_case[name] for name in known if name in by_case), None)


def find_place(keys: dict[str, Any], name: str | None) -> str:
    """Return the path in ``keys[name]``, also from an object with a ``path``; empty where there is none."""
    value = keys.get(name) if name else None
    if isinstance(value, dict):
        value = value.get("path")
    return value.strip() if isinstance(value, str) else ""


def read_rows(path: Path, text: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table that are not blank, with their line numbers; ``text`` is that of the file.

    Cells of ``.tsv`` are parted by tabs and have no quotes; those of all others by tabs, bars, semicolons or
    commas, whichever the first line has. Raises ``ManifestError``.
    """
    content = read_text(path, ManifestError, newline="\n") if text is None else text
    csv.field_size_limit(sys.maxsize)  # a text may be longer than the 128 KiB it starts with
    if path.suffix.lower() == ".tsv":
        lines = enumerate(content.split("\n"), start=1)
        rows: Iterable[tuple[int, list[str]]] = (
            (n, line.removesuffix("\r").split("\t")) for n, line in lines
        )
    else:
        rows = _read_quoted(path, content)
    return ((number, row) for number, row in rows if any(cell.strip() for cell in row))


def _read_quoted(path: Path, content: str) -> Iterator[tuple[int, list[str]]]:
    first = next((line for line in content.split("\n") if line.strip()), "")
    # Texts, of which a table without names of columns has one in its first line, have no tabs or bars.
    delimiter = next((mark for mark in "\t|" if mark in first), None) or max(",;", key=first.count)
    rows = csv.reader((line + "\n" for line in content.split("\n")), delimiter=delimiter)
    try:
        for row in rows:
            yield rows.line_num, row
    except csv.Error as error:
        raise ManifestError(f"{path}:{rows.line_num}: is not CSV ({error})") from error
