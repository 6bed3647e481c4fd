"""Alignment and counts: the only place where errors are counted.

Texts are compared as they are given, code point by code point; who wants case or punctuation to be
ignored normalises first (``asr.text.NORMALISERS``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

from asr.errors import UserError


class ScoringError(UserError):
    """References and hypotheses that cannot be compared."""


@dataclass(frozen=True)
class Score:
    """Counted errors; scores of different utterances add up with ``+``."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0
    utterances: int = 0
    wrong_utterances: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.reference_length + other.reference_length,
            self.utterances + other.utterances,
            self.wrong_utterances + other.wrong_utterances,
        )

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def error_rate(self) -> float:
        """Errors per reference item, as a share; raises ``ScoringError`` on an empty reference."""
        if self.reference_length == 0:
            raise ScoringError("the references have no words: an error rate is not defined")
        return self.errors / self.reference_length

    @property
    def sentence_error_rate(self) -> float:
        """Share of utterances with any error; raises ``ScoringError`` when there are none."""
        if self.utterances == 0:
            raise ScoringError("there are no utterances: a sentence error rate is not defined")
        return self.wrong_utterances / self.utterances


@dataclass(frozen=True)
class Operation:
    """One step of an alignment; ``reference`` or ``hypothesis`` is empty where there is none."""

    kind: Literal["equal", "substitution", "deletion", "insertion"]
    reference: str
    hypothesis: str


def aligned(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Operation]:
    """A cheapest alignment of two sequences of items, each error costing 1 (Levenshtein 1966)."""
    operations: list[Operation] = []
    for step in Levenshtein.opcodes(reference, hypothesis):
        left = reference[step.src_start : step.src_end]
        right = hypothesis[step.dest_start : step.dest_end]
        if step.tag == "insert":
            operations += [Operation("insertion", "", item) for item in right]
        elif step.tag == "delete":
            operations += [Operation("deletion", item, "") for item in left]
        else:
            kind: Literal["equal", "substitution"] = "equal" if step.tag == "equal" else "substitution"
            operations += [Operation(kind, a, b) for a, b in zip(left, right, strict=True)]
    return operations


def counted(reference: Sequence[str], hypothesis: Sequence[str]) -> Score:
    """The score of one utterance."""
    counts = {"replace": 0, "delete": 0, "insert": 0}
    for edit in Levenshtein.editops(reference, hypothesis):
        counts[edit.tag] += 1
    wrong = int(any(counts.values()))
    return Score(counts["replace"], counts["delete"], counts["insert"], len(reference), 1, wrong)


def words_of(text: str) -> list[str]:
    """The words of a text: what stands between white space."""
    return text.split()


def characters_of(text: str) -> list[str]:
    """The characters of a text; a run of white space is one space, none at the ends."""
    return list(" ".join(text.split()))


@dataclass(frozen=True)
class Comparison:
    """All references against their hypotheses."""

    references: Mapping[str, str]
    hypotheses: Mapping[str, str]
    words: Score
    characters: Score
    missing: tuple[str, ...]  # references without a hypothesis, counted as deletions

    def alignment(self, utterance: str) -> list[Operation]:
        """The words of one utterance and of its hypothesis side by side."""
        hypothesis = self.hypotheses.get(utterance, "")
        return aligned(words_of(self.references[utterance]), words_of(hypothesis))


def score_texts(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> Comparison:
    """Compare texts paired by utterance id.

    A reference without a hypothesis counts as all deleted and is listed in ``missing``. Raises
    ``ScoringError`` for a hypothesis that has no reference.
    """
    strangers = [name for name in hypotheses if name not in references]
    if strangers:
        raise ScoringError(f"hypothesis {strangers[0]!r} has no reference ({len(strangers)} such hypotheses)")
    words, characters = Score(), Score()
    for name, reference in references.items():
        hypothesis = hypotheses.get(name, "")
        words += counted(words_of(reference), words_of(hypothesis))
        characters += counted(characters_of(reference), characters_of(hypothesis))
    missing = tuple(name for name in references if name not in hypotheses)
    return Comparison(references, hypotheses, words, characters, missing)
