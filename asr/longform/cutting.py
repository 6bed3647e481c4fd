"""Where a recording is cut: samples and speech detection in, chunks for the network out.

What is typical of a voice, a network measures in the chunk that it is given. So every recording, however
short, is cut at its pauses, the silence between is left out, and a chunk with several voices, or with a faint
one after a loud one, is divided so that each is heard alone. Speech without a pause is cut into chunks that
overlap, because a bidirectional encoder needs what comes before and after. No more than about a minute of
samples is kept in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from asr.audio.turns import find_turns
from asr.audio.vad import HOP_SECONDS, find_speech, hop_samples, measure_loudness

LONGEST_CHUNK_SECONDS = 30.0  # the network learned from utterances that are hardly longer
PAUSE_SECONDS = 1.0  # a pause this long ends a segment; shorter ones are within what somebody says
SHORTEST_PAUSE_SECONDS = 0.2  # where no longer pause comes in time, the longest of these is cut
PADDING_SECONDS = 0.3  # of a pause, or half of it, stay at either end: weak sounds begin and end words
LOUDNESS_DB = 12.0  # louder or fainter than what was said before: somebody else, or farther away
NOTHING_DB = 65.0  # below the loudness of speech: no microphone's noise, but silence put there by a program
NOISE_DB = 60.0  # below it: what takes its place
OVERLAP_SECONDS = 5.0  # of two chunks: stitching.CONTEXT_SECONDS for each, and a second to choose the seam

# The same in frames of speech detection.
LONGEST_CHUNK = round(LONGEST_CHUNK_SECONDS / HOP_SECONDS)
PAUSE = round(PAUSE_SECONDS / HOP_SECONDS)
SHORTEST_PAUSE = round(SHORTEST_PAUSE_SECONDS / HOP_SECONDS)
PADDING = round(PADDING_SECONDS / HOP_SECONDS)
LEAST_LOUDNESS = 25  # frames of speech on either side of a pause, by which their loudness is compared
LOUDNESS_FRAMES = 100  # no more of them behind the pause
LOUD_SHARE = 0.8  # of the frames are at most as loud as what counts as loudness


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
        by_voice: also end a chunk where the voice or its loudness changes.
    """
    buffer = ChunkBuffer(rate)
    for samples, flags in speech:
        buffer.add(samples, flags)
        yield from buffer.cut(frame, by_voice)
    yield from buffer.cut(frame, by_voice, final=True)
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

    def cut(self, frame: int, by_voice: bool = False, final: bool = False) -> Iterator[Chunk]:
        """Yield the chunks that are already certain; all that is left when ``final``."""
        while len(self.samples) and (cut := find_next_cut(self.flags, self.overlaps, final)):
            begin = self.begin if self.overlaps else self.first + cut.begin * self.hop
            end = min(self.first + cut.end * self.hop, self.end)
            if end > begin:
                chunk = Chunk(
                    begin, self.samples[begin - self.first : end - self.first].copy(), self.overlaps
                )
                flags = self.flags[(begin - self.first) // self.hop : cut.end]
                yield from split_by_voice(chunk, flags, self.rate, frame) if by_voice else [chunk]
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


def split_by_voice(chunk: Chunk, flags: np.ndarray, rate: int, frame: int) -> Iterator[Chunk]:
    """Divide a chunk where the voice or its loudness changes, whole rows of log-probs from its beginning.

    Silence that a program put there becomes noise (``fill_nothing``).
    ``flags`` are the decisions of speech detection, the first for where the chunk begins. It is not divided
    where it overlaps the chunk before it: there both need context to be stitched.
    """
    overlap = round(OVERLAP_SECONDS * rate) if chunk.overlaps else 0
    louder = find_loudness_changes(chunk.samples, flags, rate)
    ends = [0, *louder, len(chunk.samples)]
    turns = [
        begin + place for begin, end in pairwise(ends) for place in find_turns(chunk.samples[begin:end], rate)
    ]
    places = sorted({place // frame * frame for place in [*louder, *turns]})
    edges = [0, *(place for place in places if place > overlap), len(chunk.samples)]
    for begin, end in pairwise(edges):
        yield replace(
            chunk,
            begin=chunk.begin + begin,
            samples=fill_nothing(chunk.samples[begin:end], rate),
            overlaps=chunk.overlaps and not begin,
            adjoins=begin > 0,
        )


def fill_nothing(samples: np.ndarray, rate: int) -> np.ndarray:
    """Put noise where there is not even that: its logarithm would outweigh what is typical of speech.

    It is as faint beside the speech as that of a good microphone, and the same every time.
    """
    hop = hop_samples(rate)
    frames = np.pad(samples, (0, -len(samples) % hop)).reshape(-1, hop)
    power = (frames.astype(np.float64) ** 2).mean(axis=1)
    loud = np.quantile(power, LOUD_SHARE)
    is_nothing = power < loud * 10 ** (-NOTHING_DB / 10)
    if not is_nothing.any():
        return samples
    noise = np.random.default_rng(0).standard_normal(len(samples))
    noise *= np.sqrt(loud) * 10 ** (-NOISE_DB / 20)
    return (samples + noise * np.repeat(is_nothing, hop)[: len(samples)]).astype(np.float32)


def find_loudness_changes(samples: np.ndarray, flags: np.ndarray, rate: int) -> list[int]:
    """Find the middles of pauses with speech before and behind that is louder or fainter by ``LOUDNESS_DB``.

    ``samples`` may begin or end in the middle of the first or the last of the frames that ``flags`` are for.
    """
    speech = find_speech(flags)
    loudness = measure_loudness(samples, rate)[: len(flags)]
    places: list[int] = []
    begin = 0  # of what is said equally loud
    for (_, first), (last, _) in pairwise(speech):
        before, after = (
            loudness[span][flags[span][: len(loudness[span])]]
            for span in (slice(begin, first), slice(last, len(flags)))
        )
        after = after[:LOUDNESS_FRAMES]
        if last - first < SHORTEST_PAUSE or min(len(before), len(after)) < LEAST_LOUDNESS:
            continue
        if abs(np.quantile(before, LOUD_SHARE) - np.quantile(after, LOUD_SHARE)) >= LOUDNESS_DB:
            places.append((first + last) // 2 * hop_samples(rate))
            begin = last
    return places


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
    if final and len(flags) <= LONGEST_CHUNK and flags.all():  # however short
        return Cut(0, len(flags)) if len(flags) else None
    speech = find_speech(flags)
    if not speech and not overlaps:
        silence = len(flags) if final else max(0, len(flags) - PADDING)
        return Cut(silence, silence) if silence else None
    begin = 0 if overlaps else max(0, speech[0][0] - PADDING)
    pauses = list_pauses(speech, len(flags))
    if (end := find_long_pause(pauses, begin, len(flags))) is not None:
        return Cut(begin, end)
    if len(flags) > begin + LONGEST_CHUNK:
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
