"""What a test set can tell: intervals around error rates, and which differences are significant.

Every number here answers: what if other utterances had been recorded? Those of one speaker are not
independent, so an interval by utterance is too narrow where speakers differ; where there is an interval by
speaker, believe that one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from asr.scoring.counts import Operation
from asr.scoring.distributions import (
    compute_heads_share,
    compute_normal_share,
    compute_student_share,
    find_student_quantile,
)

DRAWS = 1000
LEVEL = 0.95
PICKED_ROWS = 5000  # up to so many rows, picking them one by one is faster
FEW_SPEAKERS = 10  # below it an interval by speaker is a rough guess


@dataclass(frozen=True)
class Interval:
    """Where a rate, or a difference of two rates, lies with the confidence ``level``; as shares.

    ``units`` is the number of utterances or speakers that were drawn from.
    """

    low: float
    high: float
    units: int
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference of 0 is outside."""
        return not self.low <= 0 <= self.high


def bootstrap_interval(
    numerators: np.ndarray, denominators: np.ndarray, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Interval | None:
    """Compute the bootstrap interval of ``sum(numerators) / sum(denominators)`` over units drawn together.

    Errors over words give a rate (Bisani & Ney 2004), differences of errors over words a paired
    difference. Units are drawn with replacement; the ends are percentiles, moved outwards as far as
    Student's t is wider than the normal distribution, because percentiles alone are too narrow for few
    units (Hesterberg 2015, *What Teachers Should Know about the Bootstrap*, section 5.1).

    Args:
        numerators, denominators: ``(units,)``, such as the errors and the words of each utterance.

    Returns ``None`` when there is only one unit, or nothing to divide by.
    """
    units = len(numerators)
    if units < 2 or not denominators.any():
        return None
    sums = draw_sums(np.stack([numerators, denominators], axis=1), draws, seed)
    sums = sums[sums[:, 1] > 0]
    tail = widen_tail((1 - level) / 2, units)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [tail, 1 - tail])
    return Interval(float(low), float(high), units, level)


def draw_sums(rows: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Draw as many rows as there are, with replacement, and sum their columns: ``(draws, columns)``."""
    generator = np.random.default_rng(seed)
    count = len(rows)
    if count <= PICKED_ROWS:
        picked = generator.integers(count, size=(draws, count), dtype=np.int32)
        return np.stack([column[picked].sum(axis=1) for column in rows.T], axis=1)
    # Drawing from many rows of which most are alike is drawing how often each kind comes.
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    return np.stack([generator.multinomial(count, counts / count) @ kinds for _ in range(draws)])


def widen_tail(tail: float, units: int) -> float:
    """Return the percentile at which an interval of ``units`` drawn units ends instead of at ``tail``."""
    return compute_normal_share(math.sqrt(units / (units - 1)) * find_student_quantile(units - 1, tail))


def sum_by_label(values: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Sum the rows of ``values`` that have equal labels."""
    names, places = np.unique(np.asarray(labels, dtype=object), return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]), dtype=values.dtype)
    np.add.at(sums, places, values)
    return sums


# Two systems


@dataclass(frozen=True)
class SegmentTest:
    """The matched-pairs sentence-segment word error test (Gillick & Cox 1989).

    ``z`` is the mean difference of errors in a segment over its standard error, the figure of NIST's
    ``sc_stats``; ``p`` is two-sided, by Student's t, which is NIST's normal distribution from some
    fifty segments on and more careful below.
    """

    segments: int
    z: float
    p: float


def run_segment_test(differences: np.ndarray) -> SegmentTest:
    """Run the test on the difference of errors in each segment."""
    count = len(differences)
    if count < 2 or not differences.any():
        return SegmentTest(count, 0.0, 1.0)
    deviation = float(differences.std(ddof=1))
    if deviation == 0:  # the same difference everywhere: as likely as heads every time
        return SegmentTest(count, math.copysign(math.inf, differences[0]), 2 * 0.5**count)
    z = float(differences.mean()) / (deviation / math.sqrt(count))
    return SegmentTest(count, z, 2 * compute_student_share(count - 1, -abs(z)))


def find_segment_differences(pairs: Iterable[tuple[Sequence[Operation], Sequence[Operation]]]) -> np.ndarray:
    """Subtract the errors of a second system from those of a first in every segment of every utterance.

    A pair has the alignments of one reference with either hypothesis. A segment ends where both systems
    have two words in a row right, with nothing inserted; segments without errors do not count. So far
    apart, the errors of one segment are independent of those of the next. Where the systems have different
    readings of a reference with alternatives, the utterance is one segment.
    """
    return np.array([a - b for first, second in pairs for a, b in count_segments(first, second)])


def count_segments(first: Sequence[Operation], second: Sequence[Operation]) -> list[tuple[int, int]]:
    """Count the errors of two systems in each segment of one utterance, from the alignment of each."""
    places = (locate_errors(first), locate_errors(second))
    words = [[step.reference for step in steps if step.kind != "insertion"] for steps in (first, second)]
    return split_at_matches(*places) if words[0] == words[1] else [(sum(places[0]), sum(places[1]))]


def locate_errors(alignment: Sequence[Operation]) -> list[int]:
    """Count the errors at each place of a reference: before its first word, at it, before its second, ..."""
    places = [0]
    for step in alignment:
        if step.kind == "insertion":
            places[-1] += 1
        else:
            places += [int(step.kind != "equal"), 0]
    return places


def split_at_matches(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    """Count the errors of two systems in each segment of one utterance, from ``locate_errors`` of each."""
    segments: list[tuple[int, int]] = []
    errors, right = [0, 0], 0
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        if one or other:
            errors[0] += one
            errors[1] += other
            right = 0
        elif place % 2:  # a word
            right += 1
            if right == 2 and any(errors):
                segments.append((errors[0], errors[1]))
                errors = [0, 0]
    return [*segments, (errors[0], errors[1])] if any(errors) else segments


@dataclass(frozen=True)
class SentenceTest:
    """McNemar's exact test on sentences (McNemar 1947; Gillick & Cox 1989).

    Only those sentences matter that one system has right and the other has wrong.
    """

    only_first_right: int
    only_second_right: int
    p: float


def run_sentence_test(first_wrong: np.ndarray, second_wrong: np.ndarray) -> SentenceTest:
    """Run the test on which sentences either system has wrong, ``(sentences,)`` booleans each."""
    first, second = int((~first_wrong & second_wrong).sum()), int((first_wrong & ~second_wrong).sum())
    p = min(1.0, 2 * compute_heads_share(min(first, second), first + second)) if first + second else 1.0
    return SentenceTest(first, second, p)


@dataclass(frozen=True)
class Difference:
    """Two systems on the same references, and whether they differ.

    ``difference`` is the error rate of the first minus that of the second, as a share. ``comparisons`` is
    how many pairs of systems are compared on these references; the level of each is divided by it
    (Bonferroni), because among many pairs some differ by chance.
    """

    first: str
    second: str
    difference: float
    by_utterance: Interval | None
    by_speaker: Interval | None
    words: SegmentTest
    sentences: SentenceTest
    comparisons: int = 1

    @property
    def threshold(self) -> float:
        """The p below which a difference is significant."""
        return (1 - LEVEL) / self.comparisons

    @property
    def interval(self) -> Interval | None:
        """The interval to believe: by speaker where speakers are known, else by utterance."""
        return self.by_speaker or self.by_utterance

    @property
    def is_significant(self) -> bool | None:
        """Whether the interval and the segment test both say so; ``None`` when they contradict each other."""
        says = {self.words.p < self.threshold, self.interval is not None and self.interval.excludes_zero}
        return says.pop() if len(says) == 1 else None

    @property
    def verdict(self) -> str:
        """What to conclude, in a sentence or two."""
        return " ".join([self._conclude(), *self._list_cautions()])

    def _conclude(self) -> str:
        better, worse = (self.second, self.first) if self.difference > 0 else (self.first, self.second)
        points = f"{100 * abs(self.difference):.2f} points"
        interval = self.interval
        evidence = f"p = {self.words.p:.3g}"
        if interval is not None:
            span = format_interval(interval, self.difference)
            evidence = f"{100 * interval.level:.3g} % interval {span}, {evidence}"
        if self.difference == 0:
            return f"{self.first} and {self.second} have the same word error rate."
        if self.is_significant:
            return f"The difference is significant: {better} beats {worse} by {points} ({evidence})."
        ahead = f"{better} is ahead of {worse} by {points} ({evidence})"
        if self.is_significant is None:
            tests = ["the segment test", "the interval"]
            believes, doubts = tests if self.words.p < self.threshold else reversed(tests)
            return f"Undecided: {ahead}; {believes} finds that significant, {doubts} does not."
        return f"The difference is not significant: {ahead}; equally good systems differ this much by chance."

    def _list_cautions(self) -> list[str]:
        cautions = []
        if self.by_speaker is None:
            cautions.append("The speakers are not known: if there are few, trust this less.")
        elif self.by_speaker.units < FEW_SPEAKERS:
            cautions.append(
                f"There are only {self.by_speaker.units} speakers: others could change the result."
            )
        if self.comparisons > 1:
            cautions.append(
                f"One of {self.comparisons} comparisons, each tested at p < {self.threshold:.2g}."
            )
        return cautions


def format_interval(interval: Interval, sign: float = 1.0) -> str:
    """Format an interval in points, seen from the system that is ahead."""
    ends = (interval.low, interval.high) if sign >= 0 else (-interval.high, -interval.low)
    return f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"
