"""Tables of others: a row for each recording, its file and its text in columns of any usual name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.data.corpora.recordings import CorpusError, find_recordings, is_recording
from asr.data.manifest import Utterance, read_numbered_lines
from asr.data.tables import AUDIO_NAMES, ID_NAMES, SPEAKER_NAMES, TEXT_NAMES, find_name, find_place, read_rows

START_NAMES = ("offset", "start", "start_time", "begin")
DURATION_NAMES = ("duration", "duration_s", "seconds")
FOLDERS = (
    "",
    "clips",
    "wavs",
    "wav",
    "audio",
    "audios",
)  # where, beside the table, recordings are looked for


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """One split for each table, named after it, or for each value of a column ``split``.

    ``corpus`` is a table, or a folder with ``.csv`` and ``.tsv`` files. Raises ``CorpusError`` where there
    is no table of recordings and texts.
    """
    tables = [corpus] if corpus.is_file() else sorted([*corpus.glob("*.csv"), *corpus.glob("*.tsv")])
    splits: dict[str, list[Utterance]] = {}
    for table in tables:
        for number, keys in read_keys(table):
            if keys is None:
                break
            utterance = make_utterance(keys, f"{table}:{number}")
            split = str(keys.get(find_name(keys, ("split",)) or "") or "") or table.stem
            splits.setdefault(split.replace("/", "-"), []).append(utterance)
    if not splits:
        raise CorpusError(
            f"{corpus}: is no table of recordings: expected a .csv or .tsv with a column of files, such as "
            "'audio' or 'file_name', and one of texts, such as 'text' or 'sentence'"
        )
    parents = dict.fromkeys(table.parent for table in tables)
    folders = [*(parent / name for parent in parents for name in FOLDERS), Path()]
    return {split: make_ids_distinct(find_recordings(splits[split], folders)) for split in splits}


def read_keys(table: Path) -> list[tuple[int, dict[str, str] | None]]:
    """Read the rows of a table by their columns; ``None`` for a table of other things.

    A table without names of columns has a recording in the first and its text in the second.
    """
    rows = list(read_rows(table))
    if not rows:
        return []
    names = [name.strip() for name in rows[0][1]]
    if find_name(names, TEXT_NAMES) and find_name(names, (*AUDIO_NAMES, *ID_NAMES)):
        rows = rows[1:]
    elif len(names) >= 2 and is_recording(Path(names[0])):
        names = ["audio", "text", *(f"column {n}" for n in range(3, len(names) + 1))]
    else:
        return [(rows[0][0], None)]
    for number, row in rows:
        if len(row) != len(names):
            raise CorpusError(f"{table}:{number}: has {len(row)} columns instead of {len(names)}")
    return [(number, dict(zip(names, row, strict=True))) for number, row in rows]


def make_utterance(keys: dict[str, Any], where: str) -> Utterance:
    """Make an utterance of a row; further columns are kept. Raises ``CorpusError``, which says ``where``."""
    id_key, audio_key, text_key, start_key, duration_key, speaker_key = (
        find_name(keys, known)
        for known in (ID_NAMES, AUDIO_NAMES, TEXT_NAMES, START_NAMES, DURATION_NAMES, SPEAKER_NAMES)
    )
    audio = find_place(keys, audio_key) or find_place(keys, id_key)
    text = keys.get(text_key) if text_key else None
    if not audio or not isinstance(text, str):
        raise CorpusError(f"{where}: names no recording" if not audio else f"{where}: has no text")
    if text.endswith(".txt") and Path(text).is_file():
        text = " ".join(line.strip() for _, line in read_numbered_lines(Path(text)))
    name = keys.get(id_key) if id_key else None
    known = {id_key, audio_key, text_key, start_key, duration_key, speaker_key}
    return Utterance(
        id=str(name).strip() if name not in (None, "") else Path(audio).with_suffix("").as_posix(),
        audio=audio,
        start=_parse_seconds(keys, start_key, where) or 0.0,
        duration=_parse_seconds(keys, duration_key, where) if start_key else None,
        text=text.strip(),
        speaker=str(keys.get(speaker_key) or "") if speaker_key else "",
        extra={key: value for key, value in keys.items() if key and key not in known and value != ""},
    )


def _parse_seconds(keys: dict[str, Any], name: str | None, where: str) -> float | None:
    value = keys.get(name) if name else None
    if value in (None, ""):
        return None
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise CorpusError(f"{where}: {name!r} is {value!r}, not a number of seconds")
    return seconds


def make_ids_distinct(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Number the utterances whose ids come more than once."""
    counts, seen = Counter(utterance.id for utterance in utterances), Counter[str]()
    distinct = []
    for utterance in utterances:
        seen[utterance.id] += 1
        again = counts[utterance.id] > 1
        distinct.append(replace(utterance, id=f"{utterance.id}-{seen[utterance.id]}") if again else utterance)
    return distinct
