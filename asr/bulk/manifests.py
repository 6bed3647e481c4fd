"""A manifest cut into shards: JSONL or Parquet, one file or several, here or behind a URL.

Where a shard begins and ends follows from the manifest and the size alone, not from how many work on it, so
that a shard is the same whoever takes it. Manifests are read row by row; a shard's rows are read again where
it is worked on.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from asr.core.files import quote_path
from asr.core.places import expand_place, open_place
from asr.data.manifest import ManifestError, Utterance, make_utterance, parse_object
from asr.errors import UserError

ENDINGS = (".jsonl", ".json", ".parquet")
MOST_SECONDS = 4 * 3600.0  # of audio in a shard, where the manifest tells: a kill costs no more than one
LONGEST_LINE = 1 << 24  # bytes
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Shard:
    """Rows of a manifest that belong to one file of results.

    ``first`` is the number of its first row in ``manifest``, counted from 1 (in JSONL that of a line);
    ``begin`` and ``end`` are bytes in a JSONL file. ``seconds`` are those that the manifest states.
    """

    number: int
    manifest: str
    first: int
    rows: int
    begin: int = 0
    end: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The shards of a manifest; ``digest`` changes when an utterance or their order does."""

    shards: tuple[Shard, ...]
    digest: str

    @property
    def rows(self) -> int:
        """Utterances in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def hours(self) -> float:
        """Of audio, as far as the manifest tells."""
        return sum(shard.seconds for shard in self.shards) / 3600


@dataclass(frozen=True)
class Row:
    """A row of a manifest: its keys as they stand there, the utterance, and its first and last byte."""

    number: int
    keys: dict[str, Any]
    utterance: Utterance
    begin: int = 0
    end: int = 0


def plan_shards(manifest: str, size: int) -> Plan:
    """Cut a manifest into shards of at most ``size`` utterances and ``MOST_SECONDS``.

    ``manifest`` may be a file, a pattern, or a folder of files in one of ``ENDINGS``. Raises
    ``ManifestError`` at the first row that is none, ``UserError`` where a file cannot be read or nothing is
    listed.
    """
    files = expand_place(manifest, *ENDINGS)
    shards: list[Shard] = []
    digest = hashlib.sha256()
    for file in files:
        rows: list[Row] = []
        seconds = 0.0
        for row in read_rows(file):
            length = row.utterance.duration or 0.0
            if rows and (len(rows) == size or seconds + length > MOST_SECONDS):
                shards.append(make_shard(len(shards), file, rows, seconds))
                rows, seconds = [], 0.0
            rows.append(replace(row, keys={}))
            seconds += length
            u = row.utterance
            known = [u.id, row.keys["audio_filepath"], u.start, u.duration]  # the folder may be moved
            digest.update(json.dumps(known).encode() + b"\n")
        if rows:
            shards.append(make_shard(len(shards), file, rows, seconds))
    if not shards:
        raise ManifestError(f"{quote_path(manifest)}: lists no utterances")
    return Plan(tuple(shards), digest.hexdigest())


def make_shard(number: int, manifest: str, rows: list[Row], seconds: float) -> Shard:
    """Make the shard of these rows."""
    first, last = rows[0], rows[-1]
    return Shard(number, manifest, first.number, len(rows), first.begin, last.end, round(seconds, 3))


def read_shard(shard: Shard) -> list[Row]:
    """Read the rows of a shard again; raises as ``plan_shards``, also where the manifest has changed."""
    if is_parquet(shard.manifest):
        rows = list(read_parquet(shard.manifest, shard.first - 1, shard.rows))
    else:
        with open_place(shard.manifest) as file:
            file.seek(shard.begin)
            content = io.BytesIO(file.read(shard.end - shard.begin))
        rows = list(read_lines(content, shard.manifest, shard.first, shard.begin))
    if len(rows) != shard.rows:
        raise ManifestError(f"{quote_path(shard.manifest)}: has changed while it was worked on; start again")
    return rows


def is_parquet(manifest: str) -> bool:
    """Whether a manifest's name ends as a Parquet file's."""
    return manifest.lower().endswith(".parquet")


def read_rows(manifest: str) -> Iterator[Row]:
    """Read all rows of one file."""
    if is_parquet(manifest):
        yield from read_parquet(manifest)
        return
    with open_place(manifest) as file:
        yield from read_lines(file, manifest)


def read_lines(file: Any, manifest: str, first: int = 1, place: int = 0) -> Iterator[Row]:
    """Read rows from a file of JSONL whose first line has the number ``first`` and begins at ``place``."""
    number = first
    while line := file.readline(LONGEST_LINE):
        where = f"{quote_path(manifest)}:{number}"
        begin, place = place, place + len(line)
        if not line.endswith(b"\n") and len(line) == LONGEST_LINE:
            raise ManifestError(f"{where}: is too long for a line of a manifest")
        line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
        if line.strip():
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise ManifestError(f"{where}: is not UTF-8 text") from error
            keys = parse_object(text, where)
            yield Row(number, keys, make_utterance(keys, manifest, number), begin, place)
        number += 1


def read_parquet(manifest: str, begin: int = 0, count: int | None = None) -> Iterator[Row]:
    """Read ``count`` rows, or all, of a Parquet file from row ``begin`` on, counted from 0."""
    parquet = import_parquet()
    with open_place(manifest) as source:
        try:
            file = parquet.ParquetFile(source)
            row = 0
            end = file.metadata.num_rows if count is None else begin + count
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if row + size > begin and row < end:
                    table = file.read_row_group(group)
                    for offset in range(max(0, begin - row), min(size, end - row), 1024):
                        part = table.slice(offset, min(1024, end - row - offset, size - offset))
                        for keys in part.to_pylist():
                            number = row + offset + 1
                            yield Row(number, keys, make_utterance(keys, manifest, number))
                            offset += 1
                row += size
        except (OSError, ValueError) as error:  # pyarrow.ArrowInvalid is a ValueError
            raise ManifestError(f"{quote_path(manifest)}: is no Parquet file: {error}") from error


def import_parquet() -> Any:
    """The module ``pyarrow.parquet``; raises ``UserError`` where it is missing."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UserError("Parquet needs pyarrow: pip install 'asr[cluster]'") from error
    return pyarrow.parquet
