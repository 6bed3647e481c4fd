"""The files that ``asr score`` reads: texts in the formats of the field, and how they are paired.

========= ======================================================================================
format    a text
========= ======================================================================================
``jsonl`` a JSON object per line with ``id`` and ``text``; a manifest, or what ``--hyp-out`` writes
``kaldi`` ``id word word ...``; ``utt2spk`` and ``segments`` beside the file are read too
``trn``   ``word word ... (id)``, as NIST's ``sclite`` reads it
``stm``   ``recording channel speaker start end [<labels>] word word ...`` (NIST; references)
``ctm``   ``recording channel start duration word [confidence]``, one per line (NIST; hypotheses)
``csv``   comma-separated with a line of column names, among them ``id`` and ``text``
``tsv``   the same with tabs and without quotes; or, with no such names, ``id`` tab ``text``
``lines`` a line is a text; paired by position
========= ======================================================================================
"""

from __future__ import annotations

import csv
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr.data.manifest import ManifestError, Utterance, parse_line, parse_object
from asr.scoring.alternatives import NIST_FORMATS
from asr.scoring.counts import ScoringError, index_by_id, list_names
from asr.scoring.lines import number_filled_lines, number_lines, parse_seconds
from asr.scoring.nist import is_ignored, pair_by_time, pair_in_any_case, read_ctm, read_stm, read_trn

ID_COLUMNS = ("id", "utterance", "utt_id", "audio_filepath", "filename", "file", "path")
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription")
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
}


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


def read_texts(path: Path, format: str | None = None, text_key: str | None = None) -> Texts:
    """Read a file in one of ``FORMATS``, guessed from its name where none is given.

    Args:
        text_key: key (jsonl) or column (csv, tsv) of the text.

    Raises:
        ManifestError: the file cannot be read, or a line is not in the format.
        ScoringError: the format cannot be guessed, or has no keys or columns to choose from.
    """
    format = format or guess_format(path)
    if text_key is not None and format not in KEYED_FORMATS:
        raise ScoringError(f"{path}: {format} has no keys or columns: {text_key!r} cannot be chosen")
    if format in KEYED_FORMATS:
        return Texts(path, format, list(KEYED_FORMATS[format](path, text_key)))
    utterances = list(PLAIN_FORMATS[format](path))
    if format == "stm":
        ignored = [segment for segment in utterances if is_ignored(segment.text)]
        scored = [segment for segment in utterances if not is_ignored(segment.text)]
        return Texts(path, format, scored, ignored)
    return Texts(path, format, utterances)


def guess_format(path: Path) -> str:
    """Guess the format from a file's name; raises ``ScoringError`` for a name that does not tell."""
    if path.name == "text":
        return "kaldi"
    if path.suffix.lower() not in ENDINGS:
        raise ScoringError(
            f"{path}: the name does not tell the format: give --ref-format or --hyp-format, one of "
            + ", ".join(FORMATS)
        )
    return ENDINGS[path.suffix.lower()]


# Formats with keys or columns


def read_jsonl(path: Path, text_key: str | None) -> Iterator[Utterance]:
    for number, line in number_filled_lines(path):
        where = f"{path}:{number}"
        keys = parse_object(line, where)
        if "audio_filepath" in keys and text_key is None:
            yield parse_line(line, path, number)
            continue
        yield make_utterance(keys, text_key or "text", path, number)


def make_utterance(keys: dict[str, Any], text_key: str, path: Path, number: int) -> Utterance:
    """Make an utterance from one line's keys; an id that is a number is taken as written."""
    where = f"{path}:{number}"
    name, text = keys.pop("id", None), keys.get(text_key)
    audio = keys.pop("audio_filepath", None)
    if name is None and isinstance(audio, str):
        name = f"{path.stem}-{number:06d}"  # as parse_line calls it
    if type(name) is int:
        name = str(name)
    if not isinstance(name, str) or not name:
        raise ManifestError(f"{where}: 'id' is missing, empty or not a string")
    if not isinstance(text, str):
        raise ManifestError(f"{where}: {text_key!r} is missing or not a string")
    del keys[text_key]
    speaker = keys.pop("speaker", "")
    return Utterance(
        id=name,
        audio=str(path.parent / audio) if isinstance(audio, str) and audio else "",
        start=parse_seconds(keys.pop("offset", None)) or 0.0,
        duration=parse_seconds(keys.pop("duration", None)),
        text=text,
        speaker=str(speaker) if isinstance(speaker, str | int) else "",
        extra=keys,
    )


def read_csv(path: Path, text_key: str | None) -> Iterator[Utterance]:
    csv.field_size_limit(sys.maxsize)  # a text may be longer than the 128 KiB it starts with
    rows = csv.reader(line + "\n" for _, line in number_lines(path))
    try:
        yield from read_rows(((rows.line_num, row) for row in rows), path, text_key)
    except csv.Error as error:
        raise ManifestError(f"{path}:{rows.line_num}: is not CSV ({error})") from error


def read_tsv(path: Path, text_key: str | None) -> Iterator[Utterance]:
    return read_rows(((number, line.split("\t")) for number, line in number_lines(path)), path, text_key)


def read_rows(rows: Iterable[tuple[int, list[str]]], path: Path, text_key: str | None) -> Iterator[Utterance]:
    """Yield the rows below a row of column names, or rows of an id and a text."""
    filled = ((number, row) for number, row in rows if any(cell.strip() for cell in row))
    first = next(filled, None)
    if first is None:
        return
    names = [name.strip() for name in first[1]]
    text_name = text_key or next((name for name in TEXT_COLUMNS if name in names), None)
    id_name = next((name for name in ID_COLUMNS if name in names), None)
    if text_name not in names or id_name is None:
        if text_key is None and path.suffix.lower() != ".csv" and len(names) == 2:
            for number, row in (first, *filled):
                yield make_row_utterance(("id", "text"), row, "id", "text", path, number)
            return
        raise ManifestError(
            f"{path}:{first[0]}: needs a column {text_key or 'text'!r} and a column 'id', and has "
            f"{', '.join(map(repr, names))}"
        )
    for number, row in filled:
        yield make_row_utterance(names, row, id_name, str(text_name), path, number)


def make_row_utterance(
    names: Iterable[str], row: list[str], id_name: str, text_name: str, path: Path, number: int
) -> Utterance:
    names = tuple(names)
    if len(row) != len(names):
        raise ManifestError(f"{path}:{number}: has {len(row)} columns instead of {len(names)}")
    keys: dict[str, Any] = dict(zip(names, row, strict=True))
    return make_utterance({**keys, "id": keys[id_name].strip()}, text_name, path, number)


# Formats without


def read_kaldi(path: Path) -> Iterator[Utterance]:
    speakers = {fields[0]: fields[1] for fields in read_table_beside(path, "utt2spk", 2)}
    segments = {fields[0]: fields[1:] for fields in read_table_beside(path, "segments", 4)}
    for _, line in number_filled_lines(path):
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
    for number, line in number_filled_lines(table):
        fields = line.split()
        if len(fields) != columns:
            raise ManifestError(f"{table}:{number}: has {len(fields)} fields instead of {columns}")
        yield fields


def read_lines(path: Path) -> Iterator[Utterance]:
    for number, line in number_lines(path):
        yield Utterance(id=str(number), audio="", text=line)


KEYED_FORMATS: dict[str, Callable[[Path, str | None], Iterator[Utterance]]] = {
    "jsonl": read_jsonl,
    "csv": read_csv,
    "tsv": read_tsv,
}
PLAIN_FORMATS: dict[str, Callable[[Path], Iterator[Utterance]]] = {
    "kaldi": read_kaldi,
    "trn": read_trn,
    "stm": read_stm,
    "ctm": read_ctm,
    "lines": read_lines,
}
FORMATS = (*KEYED_FORMATS, *PLAIN_FORMATS)


# Pairing


def pair_texts(references: Texts, hypotheses: Texts) -> Texts:
    """Give hypotheses the ids of their references.

    Plain lines are paired by position and must be as many as the references; the words of a CTM file are
    paired with the segments of an STM file by the time of their middle; all others are paired by id, in
    NIST's formats in any case.
    Raises ``ScoringError`` for files that do not belong together.
    """
    if "lines" in (references.format, hypotheses.format):
        return pair_by_position(references, hypotheses)
    if references.format == "stm":
        if hypotheses.format == "ctm":
            paired = pair_by_time(references.utterances, references.ignored, hypotheses.utterances)
            return Texts(hypotheses.path, hypotheses.format, paired)
        raise ScoringError("references in STM are paired by time and need hypotheses in CTM")
    if references.format in NIST_FORMATS or hypotheses.format in NIST_FORMATS:
        paired = pair_in_any_case(references.utterances, hypotheses.utterances)
        return Texts(hypotheses.path, hypotheses.format, paired)
    return hypotheses


def pair_by_position(references: Texts, hypotheses: Texts) -> Texts:
    """Give the n-th hypothesis the id of the n-th reference."""
    wanted, found = len(references.utterances), len(hypotheses.utterances)
    if wanted != found:
        raise ScoringError(
            f"{found} texts for {wanted} references: plain lines are paired by position and must be as many"
        )
    pairs = zip(references.utterances, hypotheses.utterances, strict=True)
    renamed = [
        Utterance(left.id, right.audio, right.start, right.duration, right.text, right.speaker, right.extra)
        for left, right in pairs
    ]
    return Texts(hypotheses.path, hypotheses.format, renamed)


def looks_like_kaldi(references: Texts, hypotheses: Texts) -> bool:
    """Whether most plain lines begin with ids of the other file, or in both files with the same ids.

    In any order; at least two, all different and each with a digit, so that no words are taken for ids.
    """
    if "lines" not in (references.format, hypotheses.format):
        return False
    left, right = (
        [utterance.text.split(maxsplit=1)[:1] for utterance in texts.utterances]
        if texts.format == "lines"
        else [[utterance.id] for utterance in texts.utterances]
        for texts in (references, hypotheses)
    )
    distinct = [{name for names in every for name in names} for every in (left, right)]
    if [*map(len, distinct)] != [len(left), len(right)]:
        return False
    shared = distinct[0] & distinct[1]
    numbered = all(re.search(r"\d", name) for name in shared)
    return numbered and len(shared) > max(1, len(left) / 2, len(right) / 2)


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
