"""Alignment and counts: the only place where errors are counted.

Texts are compared as they are given, code point by code point: ``é`` in one character differs from
``é`` in two, and ``The`` from ``the``. Who wants such things ignored normalises both sides first
(``asr.text.NORMALISERS``). White space is what ``str.split`` takes for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, NamedTuple

from asr.errors import UserError

try:
    from rapidfuzz.distance import Levenshtein
except ImportError:  # a machine that only trains
    from asr import levenshtein as Levenshtein  # type: ignore[no-redef]

Kind = Literal["equal", "substitution", "deletion", "insertion"]

KINDS: dict[str, Kind] = {  # rapidfuzz's names in our words
    "equal": "equal",
    "replace": "substitution",
    "delete": "deletion",
    "insert": "insertion",
}
NAMED_AT_MOST = 5  # ids in an error message


class ScoringError(UserError):
    """References and hypotheses that cannot be compared."""


@dataclass(frozen=True)
class Score:
    """Counted errors. Scores add up with ``+``, and ``sum(scores, Score())`` is the score of all.

    ``reference_length`` counts items, words or characters; ``wrong_utterances`` are those of the
    ``utterances`` that have at least one error.
    """

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
        """Errors per reference item, above 1 when much is inserted.

        Raises ``ScoringError`` on an empty reference.
        """
        if self.reference_length == 0:
            raise ScoringError("the reference is empty: an error rate is not defined")
        return self.errors / self.reference_length

    @property
    def sentence_error_rate(self) -> float:
        """Share of utterances with any error; raises ``ScoringError`` when there are no utterances."""
        if self.utterances == 0:
            raise ScoringError("there are no utterances: a sentence error rate is not defined")
        return self.wrong_utterances / self.utterances


class Operation(NamedTuple):
    """One step of an alignment; ``reference`` or ``hypothesis`` is empty where there is none."""

    kind: Kind
    reference: str
    hypothesis: str


def aligned(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Operation]:
    """A cheapest alignment of two sequences of items, each error costing 1 (Levenshtein 1966).

    Of several equally cheap ones it is rapidfuzz's. The sum of the errors is the same in all of them,
    but how many of them are substitutions is not.
    """
    return [
        Operation(KINDS[step.tag], left, right)
        for step in Levenshtein.opcodes(reference, hypothesis)
        for left, right in zip_longest(
            reference[step.src_start : step.src_end],
            hypothesis[step.dest_start : step.dest_end],
            fillvalue="",
        )
    ]


def counted(reference: Sequence[str], hypothesis: Sequence[str]) -> Score:
    """The score of one utterance: the errors of ``aligned``, without the walk past what is equal."""
    kinds = Counter(KINDS[edit.tag] for edit in Levenshtein.editops(reference, hypothesis))
    return Score(
        substitutions=kinds["substitution"],
        deletions=kinds["deletion"],
        insertions=kinds["insertion"],
        reference_length=len(reference),
        utterances=1,
        wrong_utterances=1 if kinds else 0,
    )


def words_of(text: str) -> list[str]:
    """The words of a text: what stands between white space."""
    return text.split()


def characters_of(text: str) -> str:
    """The characters of a text; a run of white space is one space, none at the ends."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Comparison:
    """All references and their hypotheses, keyed by utterance id, and the errors between them."""

    references: Mapping[str, str]
    hypotheses: Mapping[str, str]
    words_by_utterance: Mapping[str, Score]
    words: Score
    characters: Score
    missing: tuple[str, ...]  # references without a hypothesis: all their words are deletions

    @property
    def rates(self) -> dict[str, float | None]:
        """WER, CER and SER as shares; ``None`` where there is nothing to be wrong about."""
        return {
            "wer": self.words.error_rate if self.words.reference_length else None,
            "cer": self.characters.error_rate if self.characters.reference_length else None,
            "ser": self.words.sentence_error_rate if self.words.utterances else None,
        }

    @property
    def wrong(self) -> list[str]:
        """The ids of the utterances with errors, those with the most wrong words first."""
        errors = {name: score.errors for name, score in self.words_by_utterance.items() if score.errors}
        return sorted(errors, key=errors.__getitem__, reverse=True)

    def alignment(self, utterance: str) -> list[Operation]:
        """The words of one utterance and of its hypothesis side by side."""
        hypothesis = self.hypotheses.get(utterance, "")
        return aligned(words_of(self.references[utterance]), words_of(hypothesis))


def score_texts(references: Mapping[str, str], hypotheses: Mapping[str, str]) -> Comparison:
    """Compare texts paired by utterance id.

    A reference without a hypothesis is compared with nothing and listed in ``missing``. Raises
    ``ScoringError`` for a hypothesis that has no reference.
    """
    strangers = [name for name in hypotheses if name not in references]
    if strangers:
        raise ScoringError(f"no reference for {listed(strangers)}")
    pairs = {name: (reference, hypotheses.get(name, "")) for name, reference in references.items()}
    words = {name: counted(words_of(left), words_of(right)) for name, (left, right) in pairs.items()}
    characters = (counted(characters_of(left), characters_of(right)) for left, right in pairs.values())
    return Comparison(
        references=references,
        hypotheses=hypotheses,
        words_by_utterance=words,
        words=sum(words.values(), Score()),
        characters=sum(characters, Score()),
        missing=tuple(name for name in references if name not in hypotheses),
    )


def keyed(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Pairs of utterance id and text as a mapping; raises ``ScoringError`` for ids that come twice."""
    texts = list(texts)
    repeated = [name for name, count in Counter(name for name, _ in texts).items() if count > 1]
    if repeated:
        raise ScoringError(f"more than one text for {listed(repeated)}")
    return dict(texts)


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - NAMED_AT_MOST
    return ", ".join(map(repr, names[:NAMED_AT_MOST])) + (f" and {more} more" if more > 0 else "")
