"""Transcripts of recordings of any length and number.

Each recording is read once, from front to back, and never as a whole in memory: `cutting` makes chunks of it,
the network gets chunks of several recordings in batches of similar length, `stitching` puts their log-probs
together, and each segment of speech is searched as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from asr.audio.reading import AudioError, Source, stream_audio
from asr.audio.vad import assume_speech, detect_speech
from asr.core.config import option
from asr.longform.cutting import Chunk, cut_into_chunks
from asr.longform.stitching import SpeechSegment, Stitcher
from asr.text.tokenizer import BLANK_TOKEN
from asr.transcript.values import Hypothesis, Segment, Transcript, clip_words

BATCH_SECONDS = 40.0  # of audio in a batch, however many chunks it could have: they take memory
POOL = 4  # batches that are read before they are sorted by length
DOUBTFUL_SECONDS = 2.0  # from a segment this long speech gives tokens; of a shorter one that is not certain
TOKENS_PER_SECOND = 1.0  # and no fewer than so many: what gives fewer is hardly speech
UNSAID = -10.0  # log-prob of every token but the blank where there is no speech

Progress = Callable[[float], object]  # is told the seconds of audio that are done since the last call


@dataclass(frozen=True)
class LongformConfig:
    """How recordings are cut and batched."""

    vad: bool = option(True, "Leave out what is no speech.")
    batch_size: int = option(8, "Segments that the model hears at the same time, at most.")


class ChunkRecogniser(Protocol):
    """What a recogniser must do here: samples to log-probs, and log-probs to hypotheses."""

    @property
    def name(self) -> str: ...

    @property
    def sample_rate(self) -> int:
        """Hertz."""

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""

    @property
    def settings(self) -> dict[str, object]:
        """How it searches, and whatever else its results depend on."""

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order."""

    def search(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best hypothesis for each array of log-probs."""


@dataclass(frozen=True)
class RecordingEnd:
    """No more chunks of a recording come: it was read to its end, or it cannot be read."""

    name: str
    samples: int = 0
    error: AudioError | None = None


def transcribe_recordings(
    recogniser: ChunkRecogniser,
    sources: Iterable[Source],
    config: LongformConfig = LongformConfig(),
    progress: Progress = lambda seconds: None,
) -> Iterator[Transcript | AudioError]:
    """Yield the transcript of each recording, or why it cannot be read, in the order of ``sources``.

    Chunks of several recordings share batches, so that a few recordings more have been read than have come
    out. ``progress`` is told how many seconds of audio went through the network since the last call.
    """
    settings = recogniser.settings | asdict(config)
    rate = recogniser.sample_rate
    segments: list[Segment] = []
    for parts in compute_segments(recogniser, sources, config, progress):
        speech = [part for part in parts if isinstance(part, SpeechSegment)]
        hypotheses = iter(recogniser.search([segment.log_probs for segment in speech]))
        for part in parts:
            if isinstance(part, SpeechSegment):
                segments += make_segments(part, next(hypotheses), rate)
            else:
                duration = part.samples / rate
                yield part.error or Transcript(
                    part.name, duration, tuple(segments), recogniser.name, settings
                )
                segments = []


def transcribe_in_segments(
    recogniser: ChunkRecogniser,
    source: Source,
    config: LongformConfig = LongformConfig(),
    progress: Progress = lambda seconds: None,
) -> Iterator[Segment]:
    """Yield the segments of one recording as they are found, in order.

    ``progress`` is told how many seconds of audio went through the network since the last call.
    Raises ``AudioError`` when the recording cannot be read.
    """
    for parts in compute_segments(recogniser, [source], config, progress):
        speech = [part for part in parts if isinstance(part, SpeechSegment)]
        hypotheses = recogniser.search([segment.log_probs for segment in speech])
        for segment, hypothesis in zip(speech, hypotheses, strict=True):
            yield from make_segments(segment, hypothesis, recogniser.sample_rate)
        for part in parts:
            if isinstance(part, RecordingEnd) and part.error:
                raise part.error


def compute_whole_log_probs(
    recogniser: ChunkRecogniser,
    source: Source,
    progress: Progress = lambda seconds: None,
    vad: bool = True,
) -> tuple[np.ndarray, int]:
    """Compute log-probs ``(frames, vocabulary)`` of a whole recording, silence included; count its samples.

    Where ``vad`` finds no speech the blank is nearly certain; where it finds none at all, the network hears
    everything. ``progress`` is told how many seconds of audio went through the network since the last call.
    Raises ``AudioError`` when the recording cannot be read or holds no samples.
    """
    segments: list[SpeechSegment] = []
    for parts in compute_segments(recogniser, [source], LongformConfig(vad=vad), progress):
        for part in parts:
            if isinstance(part, SpeechSegment):
                segments.append(part)
            elif part.error:
                raise part.error
            else:
                samples = part.samples
    if not segments and vad:
        return compute_whole_log_probs(recogniser, source, progress, vad=False)
    if not segments:  # no sample is left at the model's rate
        raise AudioError(f"{name_source(source)}: holds no samples")
    if not vad:
        return np.concatenate([segment.log_probs for segment in segments]), samples
    return fill_silence(segments, -(-samples // recogniser.frame_samples), recogniser.frame_samples), samples


def fill_silence(segments: Sequence[SpeechSegment], rows: int, frame: int) -> np.ndarray:
    """Put the log-probs of segments in their places among ``rows`` of silence, ``frame`` samples each."""
    vocabulary = segments[0].log_probs.shape[1]
    silence = np.full(vocabulary, UNSAID, np.float32)
    silence[BLANK_TOKEN] = np.log1p(-np.exp(UNSAID) * (vocabulary - 1))
    filled = np.tile(silence, (rows, 1))
    end = 0
    for segment in segments:
        begin = max(end, round(segment.begin / frame))
        log_probs = segment.log_probs[: rows - begin]
        end = begin + len(log_probs)
        filled[begin:end] = log_probs
    return filled


def compute_segments(
    recogniser: ChunkRecogniser, sources: Iterable[Source], config: LongformConfig, progress: Progress
) -> Iterator[list[SpeechSegment | RecordingEnd]]:
    """Yield the speech of each recording with its log-probs, then its end, in order; a list for each pool."""
    stitcher = Stitcher(recogniser.frame_samples, recogniser.sample_rate)
    for pool in fill_pools(read_chunks(recogniser, sources, config.vad), POOL * config.batch_size):
        log_probs = iter(compute_log_probs(recogniser, pool, config.batch_size, progress))
        done: list[SpeechSegment | RecordingEnd] = []
        for item in pool:
            if isinstance(item, Chunk):
                done += stitcher.add(item, next(log_probs))
            else:
                done += [*stitcher.finish(), item]
        yield done


def make_segments(speech: SpeechSegment, hypothesis: Hypothesis, rate: int) -> list[Segment]:
    """Turn a hypothesis into a segment with times of the recording; none where nothing was said.

    The fewer tokens a long segment has, the less it is speech: the confidence of its words falls with them.
    """
    if not hypothesis.text:
        return []
    begin, end = speech.begin / rate, speech.end / rate
    density = len(hypothesis.tokens) / (end - begin) / TOKENS_PER_SECOND
    belief = min(1.0, density) if end - begin >= DOUBTFUL_SECONDS else 1.0
    moved = tuple(
        replace(word, start=begin + word.start, end=begin + word.end, confidence=belief * word.confidence)
        for word in clip_words(hypothesis.words, end - begin)
    )
    return [Segment(begin, end, hypothesis.text, moved)]


def name_source(source: Source) -> str:
    """Return what a transcript calls its recording: the path, or ``-`` for bytes and files without one."""
    return str(source) if isinstance(source, str | Path) else "-"


# --- chunks and batches -----------------------------------------------------------------------------


def read_chunks(
    recogniser: ChunkRecogniser, sources: Iterable[Source], vad: bool
) -> Iterator[Chunk | RecordingEnd]:
    """Read one recording after the other and yield its chunks, then its end."""
    rate = recogniser.sample_rate
    for source in sources:
        name = name_source(source)
        blocks = stream_audio(source, rate)
        speech = detect_speech(blocks, rate) if vad else assume_speech(blocks, rate)
        try:
            samples = yield from cut_into_chunks(speech, rate, recogniser.frame_samples, by_voice=vad)
        except AudioError as error:
            yield RecordingEnd(name, error=error)
        else:
            yield RecordingEnd(name, samples)


def fill_pools(items: Iterable[Chunk | RecordingEnd], size: int) -> Iterator[list[Chunk | RecordingEnd]]:
    """Gather ``items`` in lists with ``size`` chunks each, the last one perhaps with fewer."""
    pool: list[Chunk | RecordingEnd] = []
    count = 0
    for item in items:
        if isinstance(item, Chunk):
            if count == size:
                yield pool
                pool, count = [], 0
            count += 1
        pool.append(item)
    if pool:
        yield pool


def compute_log_probs(
    recogniser: ChunkRecogniser, pool: Sequence[Chunk | RecordingEnd], batch_size: int, progress: Progress
) -> list[np.ndarray]:
    """Return the log-probs of each chunk in ``pool``; those of similar length share a batch."""
    chunks = [item.samples for item in pool if isinstance(item, Chunk)]
    results: dict[int, np.ndarray] = {}
    plan = list(plan_batches([len(chunk) / recogniser.sample_rate for chunk in chunks], batch_size))
    batches = recogniser.log_probs([[chunks[index] for index in indices] for indices in plan])
    for indices, arrays in zip(plan, batches, strict=True):
        results.update(zip(indices, arrays, strict=True))
        progress(sum(len(chunks[index]) for index in indices) / recogniser.sample_rate)
    return [results[index] for index in range(len(chunks))]


def plan_batches(seconds: Sequence[float], size: int) -> Iterator[list[int]]:
    """Plan batches of chunk indices, longest first: at most ``size`` and ``BATCH_SECONDS``, with padding."""
    batch: list[int] = []
    for index in sorted(range(len(seconds)), key=lambda index: -seconds[index]):
        if batch and (len(batch) == size or seconds[batch[0]] * (len(batch) + 1) > BATCH_SECONDS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
