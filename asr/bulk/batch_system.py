"""One process among several that know nothing of each other, as the tasks of a Slurm array."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from asr.bulk.manifests import Shard
from asr.bulk.output import list_finished
from asr.bulk.work import Job, ShardSummary, transcribe_shard
from asr.errors import UserError
from asr.recognition.recognizer import Recognizer


@dataclass(frozen=True)
class Part:
    """The ``number``-th of ``count`` processes, counted from 1."""

    number: int
    count: int

    def choose(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards of this process; together the processes have each shard once."""
        return [shard for shard in shards if shard.number % self.count == self.number - 1]


def parse_part(text: str) -> Part:
    """Parse ``I/N``; raises ``UserError`` unless I is one of 1 to N."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    part = Part(int(match[1]), int(match[2])) if match else Part(0, 0)
    if not 1 <= part.number <= part.count:
        raise UserError(f"--shard: {text!r} is not I/N with I from 1 to N, such as 3/16")
    return part


def transcribe_part(
    shards: Sequence[Shard], job: Job, open_recognizer: Callable[[], Recognizer]
) -> Iterator[ShardSummary]:
    """Transcribe those of ``shards`` whose results are not there yet; opens no model where none is left."""
    finished = list_finished(job.output)
    left = [shard for shard in shards if shard.number not in finished]
    if not left:
        return
    recognizer = open_recognizer()
    for shard in left:
        yield transcribe_shard(recognizer, shard, job)
