"""The files that ``asr score`` reads: the formats of the field, and all that ``asr transcribe`` writes.

========= ======================================================================================
format    a text
========= ======================================================================================
``jsonl`` a JSON object per line with ``id`` and ``text``; a manifest, what ``--hyp-out`` writes,
          transcripts; also one object, or a list of them
``kaldi`` ``id word word ...``; ``utt2spk`` and ``segments`` beside the file are read too
``trn``   ``word word ... (id)``, as NIST's ``sclite`` reads it
``stm``   ``recording channel speaker start end [<labels>] word word ...`` (NIST; references)
``ctm``   ``recording channel start duration word [confidence]``, one per line (NIST; hypotheses)
``csv``   a line of column names, among them those of an id or a recording and of a text
``tsv``   the same with tabs and without quotes; or, with no such names, ``id`` tab ``text``
``lines`` a line is a text; paired by position
``srt``   subtitles: all of a file is the text of one recording, whose name the file has
``vtt``   the same
``whole`` the same without times
========= ======================================================================================

A folder holds a file for each recording.
"""

from __future__ import annotations

import html
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asr.data.manifest import ManifestError, Utterance, parse_line, parse_object
from asr.data.tables import (
    AUDIO_NAMES,
    ID_NAMES,
    SPEAKER_NAMES,
    TEXT_NAMES,
    find_name,
    find_place,
    read_rows,
)
from asr.scoring.counts import ScoringError, index_by_id, list_names
from asr.scoring.lines import STDIN, Document, parse_seconds, read_document
from asr.scoring.nist import is_ignored, read_ctm, read_stm, read_trn

ENDINGS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".trn": "trn",
    ".stm": "stm",
    ".ctm": "ctm",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "lines",
    ".lines": "lines",
    ".kaldi": "kaldi",
    ".srt": "srt",
    ".vtt": "vtt",
}
# What a folder holds for each recording: the first ending of which there is any.
IN_FOLDERS = {
    ".json": "jsonl",
    ".txt": "whole",
    ".lab": "whole",
    ".vtt": "vtt",
    ".srt": "srt",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ctm": "ctm",
}

PREDICTED = "pred_text"  # what was recognised, in transcribed manifests as NeMo writes them, too


@dataclass(frozen=True)
class Texts:
    """The texts of one file in its order; the ids of plain lines are their numbers.

    What ``Utterance`` has no field for is in its ``extra``: ``recording`` and ``channel``, the ``words`` of
    a CTM file with their times, further columns and keys. ``ignored`` are the stretches that an STM file
    excludes from scoring.
    """

    path: Path
    format: str
    utterances: list[Utterance]
    ignored: Sequence[Utterance] = ()

    @property
    def by_id(self) -> dict[str, str]:
        """The text of each utterance; raises ``ScoringError`` for ids that come twice."""
        return index_by_id((utterance.id, utterance.text) for utterance in self.utterances)


@dataclass(frozen=True)
class Keys:
    """Which keys or columns to read, where the usual ones are not wanted."""

    id: str | None = None
    text: str | None = None


def read_texts(
    path: Path, format: str | None = None, text_key: str | None = None, id_key: str | None = None
) -> Texts:
    """Read a file or a folder in one of ``FORMATS``, guessed where none is given; ``-`` is stdin.

    Args:
        text_key: key (jsonl) or column (csv, tsv) of the text.
        id_key: the same of the id.

    Raises:
        ManifestError: the file cannot be read, or a line is not in the format.
        ScoringError: the format cannot be guessed, or has no keys or columns to choose from.
    """
    keys = Keys(id_key, text_key)
    if path.is_dir():
        return read_folder(path, format, keys)
    document = read_document(path)
    format = format or guess_format(document)
    chosen = [key for key in (text_key, id_key) if key is not None]
    if chosen and format not in KEYED_FORMATS:
        raise ScoringError(f"{path}: {format} has no keys or columns: {chosen[0]!r} cannot be chosen")
    if format in KEYED_FORMATS:
        return Texts(path, format, list(KEYED_FORMATS[format](document, keys)))
    utterances = list(PLAIN_FORMATS[format](document))
    if format == "stm":
        ignored = [segment for segment in utterances if is_ignored(segment.text)]
        scored = [segment for segment in utterances if not is_ignored(segment.text)]
        return Texts(path, format, scored, ignored)
    return Texts(path, format, utterances)


def read_hypotheses(
    path: Path, format: str | None = None, text_key: str | None = None, id_key: str | None = None
) -> Texts:
    """Read texts that were recognised, as ``read_texts``; ``pred_text``, where they have one, is the text.

    A manifest that was transcribed keeps its own ``text``, that of the reference.
    """
    texts = read_texts(path, format, text_key, id_key)
    if text_key is not None or not all(isinstance(row.extra.get(PREDICTED), str) for row in texts.utterances):
        return texts
    predicted = [replace(row, text=str(row.extra[PREDICTED])) for row in texts.utterances]
    return replace(texts, utterances=predicted)


def guess_format(document: Document) -> str:
    """Guess the format from a file's name, or else from how it begins; raises ``ScoringError``."""
    path = document.path
    if path.name == "text":
        return "kaldi"
    if path.suffix.lower() in ENDINGS:
        return ENDINGS[path.suffix.lower()]
    for beginning, format in BEGINNINGS.items():
        if re.match(beginning, document.text):
            return format
    name = "stdin" if path == STDIN else path
    raise ScoringError(
        f"{name}: the name does not tell the format: give --ref-format or --hyp-format, one of "
        + ", ".join(FORMATS)
    )


BEGINNINGS = {
    r"\s*[\[{]": "jsonl",
    r"WEBVTT\b": "vtt",
    r"\s*\d+\r?\n[\d:,. ]+-->": "srt",
    r"start\tend\ttext\r?\n": "tsv",
}


def read_folder(path: Path, format: str | None, keys: Keys) -> Texts:
    """Read a folder with a file for each recording; an id is the path below it without the ending.

    Raises ``ScoringError`` for a folder without such files.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    for ending, usual in IN_FOLDERS.items():
        wanted = [file for file in files if file.suffix.lower() == ending]
        if wanted and format in (None, usual):
            return Texts(path, format or usual, [_join_file(path, file, usual, keys) for file in wanted])
    raise ScoringError(
        f"{path}: holds no files of one recording each"
        + (f" in {format}" if format else f", which end in {', '.join(IN_FOLDERS)}")
    )


def _join_file(folder: Path, file: Path, format: str, keys: Keys) -> Utterance:
    """Make one utterance of all that a file of one recording holds."""
    found = read_texts(file, format, keys.text if format in KEYED_FORMATS else None).utterances
    text = " ".join(utterance.text for utterance in found if utterance.text)
    name = file.relative_to(folder).with_suffix("").as_posix()
    first = found[0] if len(found) == 1 else Utterance(name, "")
    return replace(first, id=name, text=text)


# Formats with keys or columns


def read_json(document: Document, keys: Keys) -> Iterator[Utterance]:
    """Read an object a line, or all of a file as one value: an object, several, or a list of them."""
    lines = list(document.number_filled_lines())
    try:
        is_lines = all(_is_entry(json.loads(line), keys) for _, line in lines[:1])
    except (ValueError, RecursionError):
        is_lines = False
    if not is_lines:
        yield from _read_values(document, keys)
        return
    for number, line in lines:
        values = parse_object(line, f"{document.path}:{number}")
        if "audio_filepath" in values and keys == Keys():
            yield parse_line(line, document.path, number)
        else:
            yield make_utterance(values, keys, document.path, number, alone=len(lines) == 1)


def _read_values(document: Document, keys: Keys) -> Iterator[Utterance]:
    """Read JSON values that follow each other, each an object, or a list or a mapping of them."""
    values: list[tuple[int, Any]] = []
    decoder, place, text = json.JSONDecoder(), 0, document.text
    while match := re.compile(r"\s*(?=\S)").match(text, place):
        number = text.count("\n", 0, match.end()) + 1
        try:
            value, place = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError) as error:
            if document.path.suffix.lower() != ".json":  # meant as an object a line
                number, line = next(document.number_filled_lines())
                parse_object(line, f"{document.path}:{number}")
            where = f"{document.path}:{getattr(error, 'lineno', number)}"
            raise ManifestError(f"{where}: is not JSON ({error})") from error
        values += [(number, entry) for entry in _list_entries(value, keys)]
    for number, value in values:
        if not isinstance(value, dict):
            raise ManifestError(f"{document.path}:{number}: is not a JSON object, nor a list of them")
        yield make_utterance(dict(value), keys, document.path, number, alone=len(values) == 1)


def _is_entry(value: Any, keys: Keys) -> bool:
    """Whether a JSON value is an utterance and not what holds several of them."""
    names = (*ID_NAMES, *AUDIO_NAMES, *TEXT_NAMES)
    return isinstance(value, dict) and (keys.text in value or find_name(value, names) is not None)


def _list_entries(value: Any, keys: Keys) -> list[Any]:
    """List what is in a list, in a mapping from ids to texts or objects, or in an object around a list."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value or _is_entry(value, keys):
        return [value]
    if len(value) == 1 and all(isinstance(entries, list) for entries in value.values()):
        return list(*value.values())
    if all(isinstance(text, str) for text in value.values()):
        return [{"id": name, "text": text} for name, text in value.items()]
    if all(isinstance(entry, dict) for entry in value.values()):
        return [{"id": name} | entry for name, entry in value.items()]
    return [value]


def make_utterance(
    keys: dict[str, Any], wanted: Keys, path: Path, number: int, alone: bool = False
) -> Utterance:
    """Make an utterance from one line's keys; an id that is a number is taken as written.

    Without an id, the name of the recording is one; one that is ``alone`` in a ``.json`` has that file's.
    """
    where = f"{path}:{number}"
    text_key = wanted.text or find_name(keys, TEXT_NAMES) or "text"
    audio_key = find_name((key for key in keys if find_place(keys, key)), AUDIO_NAMES)
    id_key = wanted.id or find_name(keys, ID_NAMES)
    audio = find_place(keys, audio_key)
    name = keys.get(id_key) if id_key else None
    if id_key is None or (name is None and wanted.id is None):
        if audio_key == "audio_filepath":
            name = f"{path.stem}-{number:06d}"  # as parse_line calls it
        else:
            name = audio or (path.stem if alone and path.suffix.lower() == ".json" else None)
    if type(name) is int:
        name = str(name)
    if not isinstance(name, str) or not name.strip():
        raise ManifestError(f"{where}: {id_key or 'id'!r} is missing, empty or not a string")
    text = keys.get(text_key)
    if not isinstance(text, str):
        raise ManifestError(f"{where}: {text_key!r} is missing or not a string")
    speaker_key = find_name(keys, SPEAKER_NAMES) or "speaker"
    speaker = keys.get(speaker_key, "")
    words = _gather_words(keys.get("segments"))
    known = {id_key, audio_key, text_key, "speaker", "offset", "duration"}
    extra = {key: value for key, value in keys.items() if key not in known}
    return Utterance(
        id=name.strip(),
        audio=str(path.parent / audio) if audio else "",
        start=parse_seconds(keys.get("offset")) or 0.0,
        duration=parse_seconds(keys.get("duration")),
        text=text,
        speaker=str(speaker) if isinstance(speaker, str | int) else "",
        extra=extra | ({"words": words} if words else {}),
    )


def _gather_words(segments: object) -> list[dict[str, Any]]:
    """Gather the words of a transcript's segments."""
    return [
        word
        for segment in (segments if isinstance(segments, list) else ())
        if isinstance(segment, dict) and isinstance(segment.get("words"), list)
        for word in segment["words"]
        if isinstance(word, dict) and isinstance(word.get("text"), str)
    ]


def read_table(document: Document, keys: Keys) -> Iterator[Utterance]:
    """Yield the rows below a row of column names, or rows of an id and a text.

    A table with times and texts alone is the transcript of one recording.
    """
    path = document.path
    rows = read_rows(path, document.text)
    first = next(rows, None)
    if first is None:
        return
    names = [name.strip() for name in first[1]]
    text_name = keys.text or find_name(names, TEXT_NAMES)
    id_name = keys.id or find_name(names, ID_NAMES) or find_name(names, AUDIO_NAMES)
    if keys == Keys() and [name.casefold() for name in names] == ["start", "end", "text"]:
        cells = [_make_row(names, row, path, number)[names[2]] for number, row in rows]
        yield Utterance(path.stem, "", text=" ".join(filter(None, map(str.strip, cells))))
        return
    if text_name not in names or id_name not in names:
        if keys == Keys() and path.suffix.lower() != ".csv" and len(names) == 2:
            for number, row in (first, *rows):
                yield make_utterance(_make_row(["id", "text"], row, path, number), Keys(), path, number)
            return
        raise ManifestError(f"{path}:{first[0]}: {_explain_columns(names, keys, text_name, id_name)}")
    for number, row in rows:
        yield make_utterance(_make_row(names, row, path, number), Keys(id_name, text_name), path, number)


def _make_row(names: Sequence[str], row: list[str], path: Path, number: int) -> dict[str, Any]:
    if len(row) != len(names):
        raise ManifestError(f"{path}:{number}: has {len(row)} columns instead of {len(names)}")
    return dict(zip(names, row, strict=True))


def _explain_columns(names: list[str], keys: Keys, text_name: str | None, id_name: str | None) -> str:
    """Explain which column lacks, and how another one is chosen."""
    lacking = []
    if id_name not in names:
        lacking.append(f"{keys.id!r}" if keys.id else "of ids or recordings, such as 'id' (or give --ref-id)")
    if text_name not in names:
        lacking.append(f"{keys.text!r}" if keys.text else "of texts, such as 'text' (or give --ref-text)")
    return f"has no column {' and no column '.join(lacking)}; there is {', '.join(map(repr, names))}"


# Formats without


def read_kaldi(document: Document) -> Iterator[Utterance]:
    speakers = {fields[0]: fields[1] for fields in read_table_beside(document.path, "utt2spk", 2)}
    segments = {fields[0]: fields[1:] for fields in read_table_beside(document.path, "segments", 4)}
    for _, line in document.number_filled_lines():
        name, *rest = line.split(maxsplit=1)
        recording, start, end = segments.get(name, ("", "", ""))
        first, last = parse_seconds(start), parse_seconds(end)
        yield Utterance(
            id=name,
            audio="",
            start=first or 0.0,
            duration=None if first is None or last is None else last - first,
            text="".join(rest),
            speaker=speakers.get(name, ""),
            extra={"recording": recording} if recording else {},
        )


def read_table_beside(path: Path, name: str, columns: int) -> Iterator[list[str]]:
    """Yield the rows of another file of the same Kaldi data directory; none where it does not exist."""
    table = path.with_name(name)
    if path.name != "text" or not table.exists():
        return
    for number, line in read_document(table).number_filled_lines():
        fields = line.split()
        if len(fields) != columns:
            raise ManifestError(f"{table}:{number}: has {len(fields)} fields instead of {columns}")
        yield fields


def read_lines(document: Document) -> Iterator[Utterance]:
    for number, line in document.number_lines():
        yield Utterance(id=str(number), audio="", text=line)


def read_whole(document: Document) -> Iterator[Utterance]:
    lines = (line.strip() for _, line in document.number_filled_lines())
    yield Utterance(document.path.stem, "", text=" ".join(lines))


def read_srt(document: Document) -> Iterator[Utterance]:
    text = " ".join(
        re.sub(r"</?(?:b|i|u|s|font)\b[^<>]*>|\{\\[^{}]*\}", "", line) for line in _read_cues(document)
    )
    yield Utterance(document.path.stem, "", text=text)


def read_vtt(document: Document) -> Iterator[Utterance]:
    text = " ".join(html.unescape(re.sub(r"<[^<>]*>", "", line)) for line in _read_cues(document))
    yield Utterance(document.path.stem, "", text=text)


def _read_cues(document: Document) -> Iterator[str]:
    """Yield the lines of subtitles: from below a line of times to the next blank one."""
    is_inside, is_found = False, False
    for _, line in document.number_lines():
        if not is_inside and re.match(r"\s*[\d:.,]+\s*-->\s*[\d:.,]+", line):
            is_inside = is_found = True
        elif not line.strip():
            is_inside = False
        elif is_inside:
            yield line.strip()
    is_empty = next(document.number_filled_lines(), None) is None or document.text.startswith("WEBVTT")
    if not is_found and not is_empty:
        raise ManifestError(f"{document.path}: is not subtitles: it has no line of times, as 0:01 --> 0:02")


KEYED_FORMATS: dict[str, Callable[[Document, Keys], Iterator[Utterance]]] = {
    "jsonl": read_json,
    "csv": read_table,
    "tsv": read_table,
}
PLAIN_FORMATS: dict[str, Callable[[Document], Iterator[Utterance]]] = {
    "kaldi": read_kaldi,
    "trn": read_trn,
    "stm": read_stm,
    "ctm": read_ctm,
    "lines": read_lines,
    "srt": read_srt,
    "vtt": read_vtt,
    "whole": read_whole,
}
FORMATS = (*KEYED_FORMATS, *PLAIN_FORMATS)


# Groups


BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)  # seconds


def name_duration_bucket(duration: float) -> str:
    """Name the bucket of a duration in seconds, so that names sort by time."""
    at = bisect_right(BUCKETS, duration)
    if at == len(BUCKETS):
        return f"{BUCKETS[-1]:>2.0f} s and more"
    return f"{0 if at == 0 else BUCKETS[at - 1]:>2.0f} to {BUCKETS[at]:.0f} s"


def group_utterances(references: Texts, key: str) -> dict[str, str]:
    """Map utterance ids to groups: the ``speaker``, ``recording``, ``duration`` bucket or any other key.

    Utterances without the key are left out; raises ``ScoringError`` when none has it.
    """
    groups = {utterance.id: get_group(utterance, key) for utterance in references.utterances}
    named = {name: group for name, group in groups.items() if group is not None}
    if not named:
        known = sorted({name for utterance in references.utterances for name in utterance.extra})
        raise ScoringError(
            f"{references.path}: no reference has {key!r}"
            + (f"; there is {', '.join(map(repr, known))}" if known else "")
        )
    return named


def get_group(utterance: Utterance, key: str) -> str | None:
    if key == "speaker":
        return utterance.speaker or None
    if key == "duration":
        return None if utterance.duration is None else name_duration_bucket(utterance.duration)
    if key == "recording":
        return utterance.extra.get("recording") or utterance.audio or None
    value = utterance.extra.get(key)
    return None if value is None else str(value)


def take_speakers_from_ids(references: Texts, pattern: re.Pattern[str]) -> Texts:
    """Take the speaker of each reference from its id: what the first group of ``pattern`` matches.

    Raises ``ScoringError`` for ids that do not match.
    """
    matches = {utterance.id: pattern.search(utterance.id) for utterance in references.utterances}
    without = [name for name, match in matches.items() if match is None]
    if without:
        raise ScoringError(f"{references.path}: {pattern.pattern!r} is not found in {list_names(without)}")
    named = [
        Utterance(u.id, u.audio, u.start, u.duration, u.text, _get_first_group(matches[u.id]), u.extra)
        for u in references.utterances
    ]
    return Texts(references.path, references.format, named)


def _get_first_group(match: re.Match[str] | None) -> str:
    assert match is not None
    return match[1] if match.re.groups else match[0]
