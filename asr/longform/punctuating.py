"""Segments become readable: each is punctuated with what was said before and after it, and its pauses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from asr.text.punctuation import CONTEXT, Tagger
from asr.transcript.values import Segment, Word

End = TypeVar("End")


@dataclass(frozen=True)
class Passage:
    """A segment among the words that are read with it."""

    segment: Segment
    before: Sequence[str]
    after: Sequence[str]  # none where the text ends, or where nobody knows
    pauses: Sequence[float]  # seconds behind each word of the segment
    punctuator: Punctuator  # of its recording

    @property
    def words(self) -> list[str]:
        """All words that are read."""
        return [*self.before, *(word.text for word in self.segment.words), *self.after]


class Punctuator:
    """Punctuates the segments of one recording or stream, one after the other."""

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger
        self._before: list[str] = []
        self._begins = True  # whether the next word begins a sentence

    def punctuate(self, segment: Segment) -> Segment:
        """Give a segment of a stream its written words: what comes next is not known."""
        if not segment.words:
            return segment
        passage = self.place(segment)
        return self.write(passage, self._tagger.tag_texts([passage.words])[0])

    def place(self, segment: Segment, following: Segment | None = None) -> Passage:
        """Put the next segment among its neighbours; ``following`` comes behind it, if it is known."""
        behind = following.words[:CONTEXT] if following is not None else ()
        pauses = measure_pauses(segment.words, behind[:1])
        passage = Passage(segment, self._before, [word.text for word in behind], pauses, self)
        self._before = [*self._before, *(word.text for word in segment.words)][-CONTEXT:]
        return passage

    def write(self, passage: Passage, log_probs: np.ndarray) -> Segment:
        """Give the segment of a passage its written words; ``log_probs`` are those of all of its words."""
        words = [word.text for word in passage.segment.words]
        own = log_probs[len(passage.before) : len(passage.before) + len(words)]
        written = self._tagger.write(words, own, not passage.after, self._begins, passage.pauses)
        self._begins = written[-1][-1] in ".?" if written else self._begins
        return replace(passage.segment, written=tuple(written))


def measure_pauses(words: Sequence[Word], after: Sequence[Word] = ()) -> list[float]:
    """Measure the seconds behind each of some words; NaN behind the last where no word is known ``after``."""
    starts = [word.start for word in [*words, *after][1 : len(words) + 1]]
    pauses = [max(0.0, start - word.end) for word, start in zip(words, starts, strict=False)]
    return [*pauses, *[math.nan] * (len(words) - len(pauses))]


def punctuate_segments(
    rounds: Iterable[Sequence[Segment | End]], tagger: Tagger | None
) -> Iterator[Segment | End]:
    """Punctuate segments among parts of another kind, each of which ends a recording.

    Those of a round are read side by side. A segment comes when the next part is known. Without a tagger
    nothing changes.
    """
    if tagger is None:
        for parts in rounds:
            yield from parts
        return
    punctuator: Punctuator = Punctuator(tagger)
    waiting: Segment | None = None
    for parts in rounds:
        placed: list[Passage | End] = []
        for part in parts:
            following = part if isinstance(part, Segment) else None
            if waiting is not None:
                placed.append(punctuator.place(waiting, following))
            waiting = following
            if not isinstance(part, Segment):
                placed.append(part)
                punctuator = Punctuator(tagger)
        tagged = iter(tagger.tag_texts([one.words for one in placed if isinstance(one, Passage)]))
        for one in placed:
            yield one.punctuator.write(one, next(tagged)) if isinstance(one, Passage) else one
