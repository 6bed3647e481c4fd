"""How well marks and capitals are placed: precision, recall and F1, word by word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from asr.scoring.counts import align_items
from asr.text.marks import LOWER, MARKS, NONE, QUESTION, STOP, MarkedWord

CAPITALS = "capitals"
NAMES = {",": "comma", ".": "full stop", "?": "question mark"}


@dataclass(frozen=True)
class MarkCounts:
    """How often something was found where it belongs, where it does not, and not where it belongs."""

    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """The share of those found that belong there; 0 where none was found."""
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        """The share of those that belong somewhere that were found; 0 where there are none."""
        return self.right / max(1, self.right + self.missed)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / max(1, 2 * self.right + self.wrong + self.missed)


def count_marks(
    texts: Sequence[tuple[Sequence[MarkedWord], Sequence[MarkedWord]]],
) -> dict[str, MarkCounts]:
    """Count the marks and capitals of texts, pairs of reference and hypothesis, by name.

    Words are aligned; a mark or capital of one that has no partner is missed or wrong. Words that begin a
    sentence count among the capitals.
    """
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for reference, hypothesis in texts:
        for expected, found in pair_features(reference, hypothesis):
            right.update(expected & found)
            wrong.update(found - expected)
            missed.update(expected - found)
    names = [*NAMES.values(), CAPITALS]
    return {name: MarkCounts(right[name], wrong[name], missed[name]) for name in names}


def pair_features(
    reference: Sequence[MarkedWord], hypothesis: Sequence[MarkedWord]
) -> list[tuple[set[str], set[str]]]:
    """Pair what stands at each word of the reference with what stands at the word aligned with it."""
    expected, found = list_features(reference), list_features(hypothesis)
    steps = align_items([word.text for word in reference], [word.text for word in hypothesis])
    ahead, behind = iter(expected), iter(found)
    return [
        (
            next(ahead) if step.kind != "insertion" else set(),
            next(behind) if step.kind != "deletion" else set(),
        )
        for step in steps
    ]


def list_features(words: Sequence[MarkedWord]) -> list[set[str]]:
    """What stands at each word: the name of its mark, and whether it has a capital."""
    features, begins = [], True
    for word in words:
        here = {NAMES[MARKS[word.mark]]} if word.mark != NONE else set()
        features.append(here | ({CAPITALS} if begins or word.case != LOWER else set()))
        begins = word.mark in (STOP, QUESTION)
    return features
