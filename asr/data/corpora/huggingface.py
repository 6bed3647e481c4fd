"""Hugging Face's folders of audio: recordings, and ``metadata.csv`` or ``metadata.jsonl`` beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from asr.data.corpora.folder import group_by_split
from asr.data.corpora.recordings import CorpusError, find_recordings
from asr.data.corpora.table import make_ids_distinct, make_utterance, read_keys
from asr.data.manifest import Utterance, parse_object, read_numbered_lines


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """The one split ``all`` or, where all is below folders of such names, train, validation and test.

    An id is the path below ``corpus`` without its ending. Raises ``CorpusError`` for a folder without such
    tables, and for Parquet files, which hold the recordings themselves.
    """
    tables = sorted([*corpus.rglob("metadata.csv"), *corpus.rglob("metadata.jsonl")])
    if not tables:
        packed = next(corpus.rglob("*.parquet"), None) or next(corpus.rglob("*.arrow"), None)
        raise CorpusError(
            f"{corpus}: is no folder of audio: expected metadata.csv or metadata.jsonl, with a file_name and "
            "a text in each row"
            + (f"; {packed.name} holds recordings itself: write them as files first" if packed else "")
        )
    utterances = []
    for table in tables:
        folder = table.parent.relative_to(corpus)
        found = [
            replace(utterance, id=(folder / utterance.id).as_posix()) for utterance in read_metadata(table)
        ]
        utterances += find_recordings(found, [table.parent])
    return group_by_split(make_ids_distinct(utterances))


def read_metadata(table: Path) -> list[Utterance]:
    """Read the rows of one table; raises ``CorpusError`` for one that names no recordings or no texts."""
    if table.suffix == ".jsonl":
        lines = [(n, parse_object(line, f"{table}:{n}")) for n, line in read_numbered_lines(table)]
        return [make_utterance(keys, f"{table}:{number}") for number, keys in lines]
    utterances = []
    for number, keys in read_keys(table):
        if keys is None:
            raise CorpusError(f"{table}:{number}: needs the columns file_name and, say, transcription")
        utterances.append(make_utterance(keys, f"{table}:{number}"))
    return utterances
