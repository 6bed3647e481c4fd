"""Recordings of any length and number: cut where nobody speaks, heard in batches, put together again.

A recording is read once, from front to back, and never as a whole in memory. Up to ``LONGEST_SECONDS``
it is heard in one piece. A longer one is cut at its pauses, and where the voice changes within a piece, each
voice is heard alone. Speech without a pause is cut into pieces that overlap, because a bidirectional
encoder needs what comes before and behind. It is the log-probs that are joined again, not the words: those of
overlapping pieces where both are sure that no token is, so that no word is lost or doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from asr.audio.reading import AudioError, Source, stream_audio
from asr.audio.turns import find_turns
from asr.audio.vad import HOP_SECONDS, assume_speech, detect_speech, find_runs, find_speech, hop_samples
from asr.core.config import option
from asr.text.tokenizer import BLANK_TOKEN
from asr.transcript.values import Hypothesis, Segment, Transcript, inside

LONGEST_SECONDS = 30.0  # that the model hears at once; it learned from utterances that are hardly longer
PAUSE_SECONDS = 0.3  # without speech: a segment ends, for behind it somebody else may speak
SHORTEST_PAUSE_SECONDS = 0.2  # the longest of these is cut at where no longer one comes in time
PADDING_SECONDS = 0.3  # of a pause, or half of it, are kept at either end: weak sounds begin and end words
CONTEXT_SECONDS = 2.0  # that every frame has on both sides of it, where the speech goes on
OVERLAP_SECONDS = 5.0  # of two pieces: the context of both, and a second to choose the seam from
LONGEST_JOINED_SECONDS = 200.0  # of log-probs put together, however long nobody pauses
BATCH_SECONDS = 40.0  # that the model hears at the same time, however many segments: they take memory
POOL = 4  # batches that are read before they are sorted by length

# In frames of speech detection.
LONGEST = round(LONGEST_SECONDS / HOP_SECONDS)
PAUSE = round(PAUSE_SECONDS / HOP_SECONDS)
SHORTEST_PAUSE = round(SHORTEST_PAUSE_SECONDS / HOP_SECONDS)
PADDING = round(PADDING_SECONDS / HOP_SECONDS)


@dataclass(frozen=True)
class LongformConfig:
    """How recordings are cut and heard."""

    vad: bool = option(True, "Leave out what is no speech.")
    batch_size: int = option(8, "Segments that the model hears at the same time, at most.")


class Listener(Protocol):
    """What a recogniser is here: samples to log-probs, and log-probs to hypotheses."""

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


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples that the model hears at once."""

    begin: int  # samples of the recording before it
    samples: np.ndarray
    joined: bool = False  # it overlaps the piece before it, in which the same speech began
    follows: bool = False  # it begins where the piece before it ends, with another voice

    @property
    def end(self) -> int:
        return self.begin + len(self.samples)


@dataclass(frozen=True)
class End:
    """No more pieces of a recording come: it was read to its end, or it cannot be read."""

    name: str
    samples: int = 0
    error: AudioError | None = None


@dataclass(frozen=True, eq=False)
class Stretch:
    """Log-probs ``(frames, vocabulary)`` of speech from sample ``begin`` to sample ``end``."""

    begin: int
    end: int
    log_probs: np.ndarray


def transcripts(
    listener: Listener,
    sources: Iterable[Source],
    config: LongformConfig = LongformConfig(),
    progress: Callable[[float], object] = lambda seconds: None,
) -> Iterator[Transcript | AudioError]:
    """What was said in each recording, or why it cannot be read, in the order of ``sources``.

    Pieces of several recordings are heard together, so that a few recordings more have been read than
    have come out. ``progress`` is told how many seconds of audio the model has heard since last time.
    """
    settings = listener.settings | asdict(config)
    rate = listener.sample_rate
    segments: list[Segment] = []
    for done in stretches(listener, sources, config, progress):
        hypotheses = iter(listener.search([part.log_probs for part in done if isinstance(part, Stretch)]))
        for part in done:
            if isinstance(part, Stretch):
                segments += segment(part, next(hypotheses), rate)
            else:
                duration = part.samples / rate
                yield part.error or Transcript(part.name, duration, tuple(segments), listener.name, settings)
                segments = []


def whole_log_probs(
    listener: Listener, source: Source, progress: Callable[[float], object] = lambda seconds: None
) -> tuple[np.ndarray, int]:
    """Log-probs ``(frames, vocabulary)`` of a whole recording, silence included, and how many samples it has.

    ``progress`` is told how many seconds of audio the model has heard since last time.
    Raises ``AudioError`` when it cannot be read.
    """
    rows: list[np.ndarray] = []
    for done in stretches(listener, [source], LongformConfig(vad=False), progress):
        for part in done:
            if isinstance(part, Stretch):
                rows.append(part.log_probs)
            elif part.error:
                raise part.error
            else:
                samples = part.samples
    if not rows:  # none is left at the model's rate
        raise AudioError(f"{name_of(source)}: holds no samples")
    return np.concatenate(rows), samples


def stretches(
    listener: Listener,
    sources: Iterable[Source],
    config: LongformConfig,
    progress: Callable[[float], object] = lambda seconds: None,
) -> Iterator[list[Stretch | End]]:
    """The log-probs of the speech in each recording, then its end, in order; what a pool completes at once.

    The arguments are those of ``transcripts``.
    """
    stitching = Stitching(listener.frame_samples, listener.sample_rate)
    for pool in pools(work(listener, sources, config.vad), POOL * config.batch_size):
        scores = iter(scored(listener, pool, config.batch_size, progress))
        done: list[Stretch | End] = []
        for item in pool:
            if isinstance(item, Piece):
                done += stitching.add(item, next(scores))
            else:
                done += [*stitching.rest(), item]
        yield done


def work(listener: Listener, sources: Iterable[Source], vad: bool) -> Iterator[Piece | End]:
    """The pieces of each recording and its end."""
    rate = listener.sample_rate
    for source in sources:
        name = name_of(source)
        blocks = stream_audio(source, rate)
        speech = detect_speech(blocks, rate) if vad else assume_speech(blocks, rate)
        try:
            samples = yield from pieces(speech, rate, listener.frame_samples, by_voice=vad)
        except AudioError as error:
            yield End(name, error=error)
        else:
            yield End(name, samples)


def name_of(source: Source) -> str:
    """What a transcript calls its recording."""
    return str(source) if isinstance(source, str | Path) else "-"


def pools(items: Iterable[Piece | End], size: int) -> Iterator[list[Piece | End]]:
    """``items`` in lists with ``size`` pieces each, the last one perhaps with fewer."""
    pool: list[Piece | End] = []
    count = 0
    for item in items:
        if isinstance(item, Piece):
            if count == size:
                yield pool
                pool, count = [], 0
            count += 1
        pool.append(item)
    if pool:
        yield pool


def scored(
    listener: Listener, pool: Sequence[Piece | End], batch_size: int, progress: Callable[[float], object]
) -> list[np.ndarray]:
    """The log-probs of each piece in ``pool``; those that are heard together are about equally long."""
    pieces = [item.samples for item in pool if isinstance(item, Piece)]
    found: dict[int, np.ndarray] = {}
    plan = list(batches([len(piece) / listener.sample_rate for piece in pieces], batch_size))
    scores = listener.log_probs([[pieces[index] for index in indices] for indices in plan])
    for indices, arrays in zip(plan, scores, strict=True):
        found.update(zip(indices, arrays, strict=True))
        progress(sum(len(pieces[index]) for index in indices) / listener.sample_rate)
    return [found[index] for index in range(len(pieces))]


def batches(seconds: Sequence[float], size: int) -> Iterator[list[int]]:
    """Indices of pieces, longest first, at most ``size`` and ``BATCH_SECONDS`` together, padding included."""
    batch: list[int] = []
    for index in sorted(range(len(seconds)), key=lambda index: -seconds[index]):
        if batch and (len(batch) == size or seconds[batch[0]] * (len(batch) + 1) > BATCH_SECONDS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def segment(stretch: Stretch, hypothesis: Hypothesis, rate: int) -> list[Segment]:
    """What was said in a stretch, with times of the recording; nothing where nothing was."""
    if not hypothesis.text:
        return []
    begin, end = stretch.begin / rate, stretch.end / rate
    words = inside(hypothesis.words, end - begin)
    moved = tuple(replace(word, start=begin + word.start, end=begin + word.end) for word in words)
    return [Segment(begin, end, hypothesis.text, moved)]


# --- cutting --------------------------------------------------------------------------------------


def pieces(
    speech: Iterable[tuple[np.ndarray, np.ndarray]], rate: int, frame: int, by_voice: bool = False
) -> Generator[Piece, None, int]:
    """A recording as pieces with speech in them; returns how many samples it has.

    Args:
        speech: samples with a decision for each frame, as ``asr.audio.vad.detect_speech`` yields them.
        rate: their sampling rate in hertz.
        frame: samples from one row of log-probs to the next; overlapping pieces begin whole rows apart.
        by_voice: a piece ends where the voice changes, too, if the recording is cut at all.
    """
    waiting = Waiting(rate)

    def cut(final: bool = False) -> Iterator[Piece]:
        for piece in waiting.cut(frame, final):
            yield from parts(piece, rate, frame) if by_voice else [piece]

    longest = round(LONGEST_SECONDS * rate)
    for samples, flags in speech:
        waiting.add(samples, flags)
        if waiting.end > longest:
            yield from cut()
    if waiting.end > longest:
        yield from cut(final=True)
    elif waiting.end and (find_speech(waiting.flags) or waiting.flags.all()):  # the latter however short
        yield Piece(0, waiting.samples)
    return waiting.end


class Waiting:
    """The part of a recording that is read and not cut yet."""

    def __init__(self, rate: int) -> None:
        self.rate, self.hop = rate, hop_samples(rate)
        self.begin = 0  # samples of the recording behind which the next piece begins
        self.joined = False  # whether that is inside the piece before it
        self.first = 0  # samples of the recording that are no longer kept, a multiple of the hop
        self.samples = np.zeros(0, np.float32)
        self.flags = np.zeros(0, bool)  # one for each hop

    @property
    def end(self) -> int:
        """Samples of the recording that are read."""
        return self.first + len(self.samples)

    def add(self, samples: np.ndarray, flags: np.ndarray) -> None:
        """What is read next."""
        self.samples = np.concatenate([self.samples, samples])
        self.flags = np.concatenate([self.flags, flags])

    def cut(self, frame: int, final: bool = False) -> Iterator[Piece]:
        """The pieces that can be told from what is read; all there are when that is ``final``."""
        while len(self.samples) and (cut := next_cut(self.flags, self.joined, final)):
            begin = self.begin if self.joined else self.first + cut.begin * self.hop
            end = min(self.first + cut.end * self.hop, self.end)
            if end > begin:
                yield Piece(begin, self.samples[begin - self.first : end - self.first].copy(), self.joined)
            self.joined = cut.overlapping
            self.begin = end
            if cut.overlapping:
                rows = (end - begin - round(OVERLAP_SECONDS * self.rate)) // frame
                self.begin = begin + rows * frame
            self.let_go()

    def let_go(self) -> None:
        """Forget what lies before ``begin``, in whole frames of speech detection."""
        count = (self.begin - self.first) // self.hop if self.begin < self.end else len(self.flags)
        self.first = min(self.first + count * self.hop, self.end)
        self.samples, self.flags = self.samples[count * self.hop :].copy(), self.flags[count:].copy()


def parts(piece: Piece, rate: int, frame: int) -> Iterator[Piece]:
    """A piece divided where the voice changes, whole rows of log-probs from its beginning.

    Not where it overlaps the piece before it: there both must have heard enough to be joined.
    """
    overlap = round(OVERLAP_SECONDS * rate) if piece.joined else 0
    places = [place // frame * frame for place in find_turns(piece.samples, rate)]
    edges = [0, *(place for place in places if place > overlap), len(piece.samples)]
    for begin, end in pairwise(edges):
        samples = piece.samples[begin:end]
        yield replace(
            piece,
            begin=piece.begin + begin,
            samples=samples,
            joined=piece.joined and not begin,
            follows=begin > 0,
        )


@dataclass(frozen=True)
class Cut:
    """A decision in frames of speech detection: the next piece, which may be empty, and how it ends."""

    begin: int
    end: int
    overlapping: bool = False  # the speech goes on, and the piece after this begins inside it


def next_cut(flags: np.ndarray, joined: bool, final: bool) -> Cut | None:
    """How to cut what ``flags`` describe: ``None`` as long as that takes more of the recording.

    Args:
        flags: one for each frame that waits; true where there is speech.
        joined: the first of them are in the piece before, too.
        final: no more come.
    """
    speech = find_speech(flags)
    if not speech and not joined:
        end = len(flags) if final else max(0, len(flags) - PADDING)
        return Cut(end, end) if end else None
    begin = 0 if joined else max(0, speech[0][0] - PADDING)
    ends = [end for _, end in speech]
    pauses = list(zip(ends, [first for first, _ in speech[1:]] + [len(flags)], strict=True))
    for first, last in pauses:
        kept = min(PADDING, (last - first) // 2)
        ended = last < len(flags) or kept == PADDING
        if last - first >= PAUSE and ended and first + kept <= begin + LONGEST:
            return Cut(begin, first + kept)
    if len(flags) >= begin + LONGEST:
        middles = [
            (last - first, (first + last) // 2) for first, last in pauses if last - first >= SHORTEST_PAUSE
        ]
        fitting = [pause for pause in middles if LONGEST // 3 <= pause[1] - begin <= LONGEST]
        if fitting:
            return Cut(begin, max(fitting)[1])
        return Cut(begin, begin + LONGEST, overlapping=True)
    return Cut(begin, min(len(flags), ends[-1] + PADDING) if ends else len(flags)) if final else None


# --- putting together -----------------------------------------------------------------------------


class Stitching:
    """Puts the log-probs of pieces that overlap, or follow each other, together to stretches of speech."""

    def __init__(self, frame: int, rate: int) -> None:
        self.frame = frame  # samples from one row to the next
        self.longest = round(LONGEST_JOINED_SECONDS * rate)  # samples in a stretch that is not cut
        self.margin = round(CONTEXT_SECONDS * rate / frame)
        self.open: Stretch | None = None

    def add(self, piece: Piece, log_probs: np.ndarray) -> list[Stretch]:
        """Stretches that are complete now that the next piece is heard."""
        before = self.open
        if before is not None and piece.follows:
            self.open = Stretch(before.begin, piece.end, np.concatenate([before.log_probs, log_probs]))
            return []
        if before is None or not piece.joined:
            self.open = Stretch(piece.begin, piece.end, log_probs)
            return [] if before is None else [before]
        offset = (piece.begin - before.begin) // self.frame
        place = seam(before.log_probs[offset:], log_probs, self.margin)
        left, right = before.log_probs[: offset + place], log_probs[place:]
        middle = piece.begin + place * self.frame
        if piece.end - before.begin > self.longest:
            self.open = Stretch(middle, piece.end, right)
            return [Stretch(before.begin, middle, left)]
        self.open = Stretch(before.begin, piece.end, np.concatenate([left, right]))
        return []

    def rest(self) -> list[Stretch]:
        """What is left when a recording ends."""
        before, self.open = self.open, None
        return [] if before is None else [before]


def seam(before: np.ndarray, after: np.ndarray, margin: int) -> int:
    """The row of ``after`` from which on it takes over from ``before``.

    Args:
        before: ``(rows, vocabulary)`` log-probs that know nothing of what comes behind them.
        after: log-probs that begin at the same time and know nothing of what came before.
        margin: rows at the end of the one and at the beginning of the other that are not to be trusted.

    The middle of the longest time in which both find the blank most probable: a token that one of them
    places a little earlier than the other is then still on the same side of the seam for both.
    """
    rows = min(len(before), len(after))
    margin = min(margin, max(0, rows - 1) // 2)
    shared = slice(margin, rows - margin)
    blank = (before[shared].argmax(axis=1) == BLANK_TOKEN) & (after[shared].argmax(axis=1) == BLANK_TOKEN)
    silences = find_runs(blank)
    if silences:
        first, last = max(silences, key=lambda run: run[1] - run[0])
        return margin + (first + last) // 2
    least = np.minimum(before[shared, BLANK_TOKEN], after[shared, BLANK_TOKEN])
    return margin + int(least.argmax()) if len(least) else margin
