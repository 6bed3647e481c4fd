"""What one worker does: a shard's recordings to rows of results and rows of errors."""

from __future__ import annotations

import io
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asr.audio.arrays import to_wav
from asr.audio.reading import read_audio, read_stated_duration
from asr.audio.sources import AudioError, Source
from asr.bulk.manifests import Row, Shard, read_shard
from asr.bulk.output import Output, write_results
from asr.core.places import PlaceError, is_url, measure_place, open_place, read_place
from asr.data.manifest import DURATION_TOLERANCE, Utterance
from asr.data.tars import split_member, to_source
from asr.longform.transcripts import ChunkRecogniser, LongformConfig, transcribe_recordings
from asr.recognition.recognizer import Recognizer, open_recognizer
from asr.transcript.formats import make_table
from asr.transcript.values import Transcript

MOST_BYTES = 1 << 26  # of a recording behind a URL that is fetched as a whole


@dataclass(frozen=True)
class Job:
    """How shards are transcribed: what opens a recogniser, how recordings are cut, where results go."""

    model: str
    output: Output
    device: str = "auto"
    compute_type: str = "float32"
    threads: int = 1
    lm: str | None = None
    hotwords: str = ""
    search: Mapping[str, Any] = field(default_factory=dict)
    longform: LongformConfig = field(default_factory=LongformConfig)

    def open(self) -> Recognizer:
        """Open the recogniser."""
        return open_recognizer(
            self.model, self.device, lm=self.lm, hotwords=self.hotwords, compute_type=self.compute_type,
            threads=self.threads, **self.search,
        )  # fmt: skip


@dataclass(frozen=True)
class ShardSummary:
    """What became of a shard: ``seconds`` of audio, ``elapsed`` on the clock and of the ``processor``."""

    number: int
    results: int
    errors: int
    seconds: float
    elapsed: float
    processor: float = 0.0
    problem: str = ""  # why it was not done
    worker: int = 0  # the process that did it


def transcribe_shard(recognizer: ChunkRecogniser, shard: Shard, job: Job) -> ShardSummary:
    """Transcribe a shard's recordings and write its tables; raises ``UserError`` where that is impossible."""
    started, worked = time.monotonic(), time.process_time()
    rows = read_shard(shard)
    outcomes = transcribe_rows(recognizer, [row.utterance for row in rows], job.longform)
    results, errors = [], []
    seconds = 0.0
    for row, outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, Transcript):
            results.append(make_result(row, outcome))
            seconds += outcome.duration
        else:
            errors.append({**row.keys, "id": row.utterance.id, "error": outcome})
    write_results(job.output, shard.number, results, errors)
    elapsed, processor = time.monotonic() - started, time.process_time() - worked
    return ShardSummary(
        shard.number, len(results), len(errors), seconds, elapsed, processor, worker=os.getpid()
    )


def transcribe_rows(
    recognizer: ChunkRecogniser, utterances: Sequence[Utterance], config: LongformConfig
) -> list[Transcript | str]:
    """The transcript of each utterance, or why there is none.

    They go through the network from short to long, so that a batch holds such of like length.
    """
    outcomes: list[Transcript | str] = [""] * len(utterances)
    waiting: deque[int] = deque()

    def open_sources() -> Iterator[Source]:
        for index in sorted(range(len(utterances)), key=lambda index: utterances[index].duration or 0.0):
            try:
                source = find_source(utterances[index], recognizer.sample_rate, config)
            except (AudioError, PlaceError) as error:
                outcomes[index] = str(error)
                continue
            waiting.append(index)
            yield source

    for outcome in transcribe_recordings(recognizer, open_sources(), config):
        index = waiting.popleft()
        outcomes[index] = outcome if isinstance(outcome, Transcript) else str(outcome)
    return outcomes


def find_source(utterance: Utterance, rate: int, config: LongformConfig) -> Source:
    """What to transcribe of an utterance: its recording, or samples where it is a stretch of one.

    Raises ``AudioError`` or ``PlaceError``.
    """
    new_source = find_recording(utterance.audio)
    if is_whole(utterance, new_source()):
        return new_source()
    if config.channels != "mix":
        raise AudioError(f"{utterance.audio}: of a stretch of a recording the channels are mixed")
    return to_wav(read_audio(new_source(), rate, utterance.start, utterance.duration), rate)


def find_recording(place: str) -> Callable[[], Source]:
    """A function that gives the recording at ``place`` anew; a short one behind a URL is fetched once."""
    if split_member(place) is not None:
        member = to_source(place)
        return lambda: member
    if not is_url(place):
        return lambda: place
    if measure_place(place) > MOST_BYTES:
        return lambda: open_place(place)
    content = read_place(place)
    return lambda: io.BytesIO(content)


def is_whole(utterance: Utterance, source: Source) -> bool:
    """Whether an utterance is all of its recording."""
    if utterance.start:
        return False
    if utterance.duration is None:
        return True
    stated = read_stated_duration(source)
    return stated is not None and abs(stated - utterance.duration) <= DURATION_TOLERANCE


def make_result(row: Row, transcript: Transcript) -> dict[str, Any]:
    """The manifest's keys, and behind them what was said and when, in seconds of the recording."""
    table = make_table(transcript)
    start = row.utterance.start
    segments: list[dict[str, Any]] = table["segments"]  # type: ignore[assignment]
    for part in [*segments, *(word for segment in segments for word in segment["words"])]:
        part["start"], part["end"] = round(start + part["start"], 4), round(start + part["end"], 4)
    return {
        **row.keys,
        "id": row.utterance.id,
        "duration": table["duration"] if row.utterance.duration is None else row.utterance.duration,
        "pred_text": table["text"],
        "segments": segments,
        "faults": list(transcript.faults),
    }
