"""Common Voice: the CSV files of its first release, the TSV files of all later ones, spontaneous speech."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

from asr.data.corpora.recordings import CorpusError, find_recordings
from asr.data.manifest import Utterance

log = logging.getLogger(__name__)


class UnquotedTabs(csv.excel_tab):
    """How the later releases are written: quotation marks belong to the sentence."""

    quoting = csv.QUOTE_NONE


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """One split per table that lists recordings with their sentences, named after the table.

    Spontaneous speech has one table and its splits in a column; answers that nobody has written down are
    left out. A table of which no recording is there is left out with a warning, unless all are.
    """
    splits: dict[str, list[Utterance]] = {}
    missing: list[CorpusError] = []
    for table in sorted([*corpus.glob("*.csv"), *corpus.glob("*.tsv")]):
        listed = {
            table.stem: _read_first_release(table) if table.suffix == ".csv" else _read_later_release(table)
        }
        if not any(listed.values()):
            listed = _read_spontaneous(table)
        for split, utterances in listed.items():
            try:
                if utterances:
                    splits[split] = splits.get(split, []) + find_recordings(utterances)
            except CorpusError as error:
                missing.append(error)
    if not splits:
        if missing:
            raise missing[0]
        raise CorpusError(
            f"{corpus}: is not a Common Voice folder: expected a .tsv with the columns path and sentence "
            "(the folder of one language) or audio_file and transcription (spontaneous speech), or a .csv "
            "with the columns filename and text"
        )
    for fault in missing:
        log.warning("left out: %s", fault)
    return splits


def _read_first_release(table: Path) -> list[Utterance]:
    """Rows of ``filename,text,...``; who speaks was not published."""
    return [
        Utterance(Path(row["filename"]).stem, str(table.parent / row["filename"]), text=row["text"])
        for row in _read_rows(table, {"filename", "text"}, csv.excel)
    ]


def _read_later_release(table: Path) -> list[Utterance]:
    """Rows of ``client_id, path, sentence, ...``."""
    return [
        Utterance(
            id=Path(row["path"]).stem,
            audio=str(table.parent / "clips" / row["path"]),
            text=row["sentence"],
            speaker=row.get("client_id") or "",
        )
        for row in _read_rows(table, {"path", "sentence"}, UnquotedTabs)
    ]


def _read_spontaneous(table: Path) -> dict[str, list[Utterance]]:
    """Rows of ``client_id, audio_id, audio_file, ..., transcription, ..., split``, by split."""
    splits: dict[str, list[Utterance]] = {}
    for row in _read_rows(table, {"audio_file", "transcription"}, UnquotedTabs):
        utterance = Utterance(
            id=Path(row["audio_file"]).stem,
            audio=str(table.parent / "audios" / row["audio_file"]),
            text=row["transcription"],
            speaker=row.get("client_id") or "",
            extra={"prompt": row["prompt"]} if row.get("prompt") else {},
        )
        if row["transcription"].strip():
            splits.setdefault((row.get("split") or table.stem).replace("/", "-"), []).append(utterance)
    return splits


def _read_rows(table: Path, needed: set[str], dialect: type[csv.Dialect]) -> list[dict[str, str]]:
    """The rows of a table as dictionaries; none when it lacks one of the columns ``needed``."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, dialect=dialect)
            if not needed <= set(reader.fieldnames or ()):
                return []  # corpora have tables of other things, too
            rows = []
            for row in reader:
                if any(row[column] is None for column in needed):
                    raise CorpusError(f"{table}:{reader.line_num}: has fewer columns than the first line")
                rows.append(row)
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{table}: cannot be read as a table: {error}") from error
