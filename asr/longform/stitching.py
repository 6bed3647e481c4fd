"""How a recording is put together again: the log-probs of its chunks become those of segments of speech.

Log-probs are stitched, not words: the seam lies where both of two overlapping chunks are sure that there
is no token, so that no word is lost or doubled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr.audio.vad import find_runs
from asr.longform.cutting import Chunk
from asr.text.tokenizer import BLANK_TOKEN

CONTEXT_SECONDS = 2.0  # what every frame has on both sides of it, where the speech goes on
LONGEST_SEGMENT_SECONDS = 200.0  # of log-probs put together, however long nobody pauses


@dataclass(frozen=True, eq=False)
class SpeechSegment:
    """Log-probs ``(frames, vocabulary)`` of speech from sample ``begin`` to sample ``end`` of a recording."""

    begin: int
    end: int
    log_probs: np.ndarray


class Stitcher:
    """Puts the log-probs of chunks that overlap or adjoin together to segments of speech.

    Args:
        frame: samples from one row of log-probs to the next.
        rate: sampling rate in hertz.
    """

    def __init__(self, frame: int, rate: int) -> None:
        self.frame = frame
        self.longest = round(LONGEST_SEGMENT_SECONDS * rate)  # samples
        self.margin = round(CONTEXT_SECONDS * rate / frame)  # rows
        self.unfinished: SpeechSegment | None = None

    def add(self, chunk: Chunk, log_probs: np.ndarray) -> list[SpeechSegment]:
        """Take the next chunk and its log-probs; return the segments that are complete by that."""
        before = self.unfinished
        if before is not None and chunk.adjoins:
            rows = np.concatenate([before.log_probs, log_probs])
            self.unfinished = SpeechSegment(before.begin, chunk.end, rows)
            return []
        if before is not None and chunk.overlaps:
            return self._stitch(before, chunk, log_probs)
        self.unfinished = SpeechSegment(chunk.begin, chunk.end, log_probs)
        return [] if before is None else [before]

    def finish(self) -> list[SpeechSegment]:
        """Return what is left when a recording ends."""
        before, self.unfinished = self.unfinished, None
        return [] if before is None else [before]

    def _stitch(self, before: SpeechSegment, chunk: Chunk, log_probs: np.ndarray) -> list[SpeechSegment]:
        """Join a chunk to the segment it overlaps, or end the segment at the seam when it gets too long."""
        offset = (chunk.begin - before.begin) // self.frame
        place = find_seam(before.log_probs[offset:], log_probs, self.margin)
        left, right = before.log_probs[: offset + place], log_probs[place:]
        if chunk.end - before.begin > self.longest:
            middle = chunk.begin + place * self.frame
            self.unfinished = SpeechSegment(middle, chunk.end, right)
            return [SpeechSegment(before.begin, middle, left)]
        self.unfinished = SpeechSegment(before.begin, chunk.end, np.concatenate([left, right]))
        return []


def find_seam(before: np.ndarray, after: np.ndarray, margin: int) -> int:
    """Find the row of ``after`` from which on it takes over from ``before``.

    It is the middle of the longest time in which both find the blank most probable: a token that one of
    them places a little earlier than the other is then still on the same side of the seam for both.

    Args:
        before: log-probs ``(rows, vocabulary)`` that know nothing of what comes after them.
        after: log-probs that begin at the same time and know nothing of what came before.
        margin: rows at the end of the one and at the beginning of the other that are not to be trusted.
    """
    rows = min(len(before), len(after))
    margin = min(margin, max(0, rows - 1) // 2)
    shared = slice(margin, rows - margin)
    is_blank = (before[shared].argmax(axis=1) == BLANK_TOKEN) & (after[shared].argmax(axis=1) == BLANK_TOKEN)
    silences = find_runs(is_blank)
    if silences:
        first, last = max(silences, key=lambda run: run[1] - run[0])
        return margin + (first + last) // 2
    least = np.minimum(before[shared, BLANK_TOKEN], after[shared, BLANK_TOKEN])
    return margin + int(least.argmax()) if len(least) else margin
