"""Where a recording is cut: samples and speech detection in, chunks for the network out.

A recording of up to ``LONGEST_CHUNK_SECONDS`` is one chunk. A longer one is cut at its pauses, and a chunk
with several voices is divided so that each voice is heard alone. Speech without a pause is cut into chunks
that overlap, because a bidirectional encoder needs what comes before and after. No more than about a minute
of samples is kept in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from asr.audio.turns import find_turns
from asr.audio.vad import HOP_SECONDS, find_speech, hop_samples

LONGEST_CHUNK_SECONDS = 30.0  # the network learned from utterances that are hardly longer
PAUSE_SECONDS = 0.3  # a pause this long ends a segment, because somebody else may speak after it
SHORTEST_PAUSE_SECONDS = 0.2  # where no longer pause comes in time, the longest of these is cut
PADDING_SECONDS = 0.3  # of a pause, or half of it, stay at either end: weak sounds begin and end words
OVERLAP_SECONDS = 5.0  # of two chunks: stitching.CONTEXT_SECONDS for each, and a second to choose the seam

# The same in frames of speech detection.
LONGEST_CHUNK = round(LONGEST_CHUNK_SECONDS / HOP_SECONDS)
PAUSE = round(PAUSE_SECONDS / HOP_SECONDS)
SHORTEST_PAUSE = round(SHORTEST_PAUSE_SECONDS / HOP_SECONDS)
PADDING = round(PADDING_SECONDS / HOP_SECONDS)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Samples that the network is given at once.

    ``begin`` counts the samples of the recording before the chunk. ``overlaps``: it begins inside the chunk
    before it, because the speech goes on. ``adjoins``: it begins where the chunk before it ends, with
    another voice.
    """

    begin: int
    samples: np.ndarray
    overlaps: bool = False
    adjoins: bool = False

    @property
    def end(self) -> int:
        """Samples of the recording up to the end of the chunk."""
        return self.begin + len(self.samples)


def cut_into_chunks(
    speech: Iterable[tuple[np.ndarray, np.ndarray]], rate: int, frame: int, by_voice: bool = False
) -> Generator[Chunk, None, int]:
    """Yield the chunks of a recording that have speech in them; return how many samples the recording has.

    Args:
        speech: samples ``(n,)`` with a decision for each frame of speech detection, block by block, as
            ``asr.audio.vad`` yields them.
        rate: sampling rate in hertz.
        frame: samples from one row of log-probs to the next; overlapping chunks begin whole rows apart.
        by_voice: also end a chunk where the voice changes, if the recording is cut at all.
    """
    buffer = ChunkBuffer(rate)

    def cut(final: bool = False) -> Iterator[Chunk]:
        for chunk in buffer.cut(frame, final):
            yield from split_by_voice(chunk, rate, frame) if by_voice else [chunk]

    longest = round(LONGEST_CHUNK_SECONDS * rate)
    for samples, flags in speech:
        buffer.add(samples, flags)
        if buffer.end > longest:
            yield from cut()
    if buffer.end > longest:
        yield from cut(final=True)
    elif buffer.end and (find_speech(buffer.flags) or buffer.flags.all()):  # the latter however short
        yield Chunk(0, buffer.samples)
    return buffer.end


class ChunkBuffer:
    """The part of a recording that has been read and not yet cut."""

    def __init__(self, rate: int) -> None:
        self.rate, self.hop = rate, hop_samples(rate)
        self.begin = 0  # samples of the recording before the next chunk
        self.overlaps = False  # whether the next chunk begins inside the one before it
        self.first = 0  # samples of the recording that are no longer kept, a multiple of the hop
        self.samples = np.zeros(0, np.float32)
        self.flags = np.zeros(0, bool)  # one for each hop

    @property
    def end(self) -> int:
        """Samples of the recording that have been read."""
        return self.first + len(self.samples)

    def add(self, samples: np.ndarray, flags: np.ndarray) -> None:
        """Append the next samples and their speech decisions."""
        self.samples = np.concatenate([self.samples, samples])
        self.flags = np.concatenate([self.flags, flags])

    def cut(self, frame: int, final: bool = False) -> Iterator[Chunk]:
        """Yield the chunks that are already certain; all that is left when ``final``."""
        while len(self.samples) and (cut := find_next_cut(self.flags, self.overlaps, final)):
            begin = self.begin if self.overlaps else self.first + cut.begin * self.hop
            end = min(self.first + cut.end * self.hop, self.end)
            if end > begin:
                yield Chunk(begin, self.samples[begin - self.first : end - self.first].copy(), self.overlaps)
            self.overlaps = cut.speech_goes_on
            self.begin = end
            if cut.speech_goes_on:
                rows = (end - begin - round(OVERLAP_SECONDS * self.rate)) // frame
                self.begin = begin + rows * frame
            self.drop_used()

    def drop_used(self) -> None:
        """Forget what lies before ``begin``, in whole frames of speech detection."""
        count = (self.begin - self.first) // self.hop if self.begin < self.end else len(self.flags)
        self.first = min(self.first + count * self.hop, self.end)
        self.samples, self.flags = self.samples[count * self.hop :].copy(), self.flags[count:].copy()


def split_by_voice(chunk: Chunk, rate: int, frame: int) -> Iterator[Chunk]:
    """Divide a chunk where the voice changes, whole rows of log-probs from its beginning.

    It is not divided where it overlaps the chunk before it: there both need context to be stitched.
    """
    overlap = round(OVERLAP_SECONDS * rate) if chunk.overlaps else 0
    places = [place // frame * frame for place in find_turns(chunk.samples, rate)]
    edges = [0, *(place for place in places if place > overlap), len(chunk.samples)]
    for begin, end in pairwise(edges):
        yield replace(
            chunk,
            begin=chunk.begin + begin,
            samples=chunk.samples[begin:end],
            overlaps=chunk.overlaps and not begin,
            adjoins=begin > 0,
        )


# --- one decision -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A decision in frames of speech detection: the next chunk, which may be empty, and how it ends.

    ``speech_goes_on``: the chunk ends in the middle of speech, so that the next one begins inside it.
    """

    begin: int
    end: int
    speech_goes_on: bool = False


def find_next_cut(flags: np.ndarray, overlaps: bool, final: bool) -> Cut | None:
    """Decide where the next chunk begins and ends; ``None`` while that takes more of the recording.

    A pause of ``PAUSE_SECONDS`` ends a chunk. Where none comes within ``LONGEST_CHUNK_SECONDS``, the longest
    shorter pause does, and where there is none either, the chunk ends in the middle of speech.

    Args:
        flags: one for each frame of speech detection in the buffer; true where there is speech.
        overlaps: the first of them are in the chunk before, too.
        final: no more come.
    """
    speech = find_speech(flags)
    if not speech and not overlaps:
        silence = len(flags) if final else max(0, len(flags) - PADDING)
        return Cut(silence, silence) if silence else None
    begin = 0 if overlaps else max(0, speech[0][0] - PADDING)
    pauses = list_pauses(speech, len(flags))
    if (end := find_long_pause(pauses, begin, len(flags))) is not None:
        return Cut(begin, end)
    if len(flags) >= begin + LONGEST_CHUNK:
        end = find_short_pause(pauses, begin)
        return Cut(begin, begin + LONGEST_CHUNK, speech_goes_on=True) if end is None else Cut(begin, end)
    if not final:
        return None
    return Cut(begin, min(len(flags), speech[-1][1] + PADDING) if speech else len(flags))


def list_pauses(speech: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """List the pauses after each run of speech, the last one up to the ``count`` frames there are."""
    starts = [*(first for first, _ in speech[1:]), count]
    return [(end, start) for (_, end), start in zip(speech, starts, strict=False)]


def find_long_pause(pauses: Sequence[tuple[int, int]], begin: int, count: int) -> int | None:
    """Find the frame at which the first long enough pause ends the chunk from ``begin`` on.

    The last pause is long enough only once it is over or has given the chunk its padding.
    """
    for first, last in pauses:
        kept = min(PADDING, (last - first) // 2)
        is_certain = last < count or kept == PADDING
        if last - first >= PAUSE and is_certain and first + kept <= begin + LONGEST_CHUNK:
            return first + kept
    return None


def find_short_pause(pauses: Sequence[tuple[int, int]], begin: int) -> int | None:
    """Find the middle of the longest short pause that leaves the chunk a third of ``LONGEST_CHUNK``."""
    middles = [
        (last - first, (first + last) // 2) for first, last in pauses if last - first >= SHORTEST_PAUSE
    ]
    fitting = [pause for pause in middles if LONGEST_CHUNK // 3 <= pause[1] - begin <= LONGEST_CHUNK]
    return max(fitting)[1] if fitting else None
