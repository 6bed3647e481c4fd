"""Segments become readable: each is punctuated with what was said before and after it, and its pauses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from asr.text.punctuation import CONTEXT, Tagger
from asr.transcript.values import Segment, Word

End = TypeVar("End")


class Punctuator:
    """Punctuates the segments of one recording or stream, one after the other."""

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger
        self._before: list[str] = []
        self._begins = True  # whether the next word begins a sentence

    def write(self, segment: Segment, following: Segment | None = None) -> Segment:
        """Give a segment its written words; ``following`` is the next one, where it is known."""
        words = [word.text for word in segment.words]
        after = [word.text for word in following.words[:CONTEXT]] if following is not None else []
        pauses = measure_pauses(segment.words, following.words[:1] if following is not None else ())
        written = self._tagger.punctuate(words, self._before, after, self._begins, pauses)
        self._before = [*self._before, *words][-CONTEXT:]
        self._begins = written[-1][-1] in ".?" if written else self._begins
        return replace(segment, written=tuple(written))


def measure_pauses(words: Sequence[Word], after: Sequence[Word] = ()) -> list[float]:
    """Measure the seconds behind each of some words; NaN behind the last where no word is known ``after``."""
    starts = [word.start for word in [*words, *after][1 : len(words) + 1]]
    pauses = [max(0.0, start - word.end) for word, start in zip(words, starts, strict=False)]
    return [*pauses, *[math.nan] * (len(words) - len(pauses))]


def punctuate_segments(parts: Iterable[Segment | End], tagger: Tagger | None) -> Iterator[Segment | End]:
    """Punctuate segments among parts of another kind, each of which ends a recording.

    A segment comes when the next part is known. Without a tagger nothing changes.
    """
    if tagger is None:
        yield from parts
        return
    punctuator, waiting = Punctuator(tagger), None
    for part in parts:
        if isinstance(part, Segment):
            if waiting is not None:
                yield punctuator.write(waiting, part)
            waiting = part
            continue
        if waiting is not None:
            yield punctuator.write(waiting)
        punctuator, waiting = Punctuator(tagger), None
        yield part
