"""Alignment and counts: the only place where errors are counted.

Texts are compared as they are given, code point by code point: ``é`` in one character differs from
``é`` in two, and ``The`` from ``the``. To ignore such differences, normalise both sides first
(``asr.text.normalise.NORMALISERS``). Words are what ``str.split`` makes of a text.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat, zip_longest
from typing import Any, Literal, NamedTuple

import numpy as np

from asr.errors import UserError

try:
    from rapidfuzz.distance import Levenshtein
except ImportError:  # a machine that only trains
    from asr.scoring import levenshtein as Levenshtein  # type: ignore[no-redef]

Kind = Literal["equal", "substitution", "deletion", "insertion"]

KINDS: dict[str, Kind] = {  # from rapidfuzz's names to the field's
    "equal": "equal",
    "replace": "substitution",
    "delete": "deletion",
    "insert": "insertion",
}
MOST_NAMES = 5  # ids in an error message


class ScoringError(UserError):
    """References and hypotheses that cannot be compared."""


@dataclass(frozen=True)
class ErrorCounts:
    """Errors of one or many utterances; they add up with ``+``, from ``ErrorCounts()`` on.

    ``reference_length`` counts words or characters; ``wrong_utterances`` of the ``utterances`` have at least
    one error.
    """

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0
    utterances: int = 0
    wrong_utterances: int = 0

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
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
    def hits(self) -> int:
        """Words or characters of the reference that were recognised."""
        return self.reference_length - self.substitutions - self.deletions

    @property
    def hypothesis_length(self) -> int:
        """Words or characters of the hypotheses."""
        return self.hits + self.substitutions + self.insertions

    @property
    def error_rate(self) -> float:
        """Errors per word or character of the reference; above 1 when much is inserted.

        Raises ``ScoringError`` for an empty reference.
        """
        if self.reference_length == 0:
            raise ScoringError("the reference is empty: an error rate is not defined")
        return self.errors / self.reference_length

    @property
    def match_error_rate(self) -> float:
        """Share of aligned pairs that are errors, between 0 and 1 (Morris, Maier & Green 2004).

        Raises ``ScoringError`` when both sides are empty.
        """
        if self.reference_length + self.insertions == 0:
            raise ScoringError("both sides are empty: a match error rate is not defined")
        return self.errors / (self.hits + self.errors)

    @property
    def word_information_lost(self) -> float:
        """1 - hits² / (reference length x hypothesis length) (Morris, Maier & Green 2004).

        All is lost when one side is empty; raises ``ScoringError`` when both are.
        """
        if self.reference_length + self.insertions == 0:
            raise ScoringError("both sides are empty: no information can be lost")
        product = self.reference_length * self.hypothesis_length
        return 1 - self.hits**2 / product if product else 1.0

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


def align_items(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Operation]:
    """Align two sequences at the lowest cost, each error costing 1 (Levenshtein 1966).

    Of several equally cheap alignments it is rapidfuzz's. The sum of the errors is the same in all of them,
    but how many of them are substitutions is not. NIST's ``sclite`` charges 4 for a substitution and 3
    for the others: where both split a sum, it may have a deletion and an insertion for two substitutions
    here. On texts that have little in common it may even count more errors than necessary, because
    three deletions and three insertions (18) are cheaper to it than five substitutions (20).
    """
    return expand_edits(Levenshtein.editops(reference, hypothesis), reference, hypothesis)


def expand_edits(edits: Any, reference: Sequence[str], hypothesis: Sequence[str]) -> list[Operation]:
    """Turn rapidfuzz's ``Editops`` of two sequences into an operation for each item, equal ones included."""
    return [
        Operation(KINDS[step.tag], left, right)
        for step in edits.as_opcodes()
        for left, right in zip_longest(
            reference[step.src_start : step.src_end],
            hypothesis[step.dest_start : step.dest_end],
            fillvalue="",
        )
    ]


def count_pair(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCounts:
    """Count the errors of one utterance."""
    return sum_counts(count_pairs([(reference, hypothesis)]))


def count_pairs(
    pairs: Iterable[tuple[Sequence[str], Sequence[str]]], edits: list[Any] | None = None
) -> np.ndarray:
    """Count the errors of many pairs of reference and hypothesis at once.

    Returns ``(pairs, 4)`` integers: substitutions, deletions, insertions, reference length. rapidfuzz's
    ``Editops`` of each pair are appended to ``edits``, ``None`` for pairs without errors.
    """
    flat = array("q")
    extend, editops = flat.extend, Levenshtein.editops  # looked up once: the loop is short
    for reference, hypothesis in pairs:
        length = len(reference)
        if reference == hypothesis:
            extend((0, 0, 0, length))
            if edits is not None:
                edits.append(None)
            continue
        steps = editops(reference, hypothesis)
        if edits is not None:
            edits.append(steps)
        errors, gap = len(steps), length - len(hypothesis)
        # Deletions less insertions make the gap, so that one error beyond it is a substitution; only
        # more of them have to be looked at.
        substitutions = errors - abs(gap)
        if substitutions > 1:
            substitutions = 0
            for tag, _, _ in steps.as_list():
                if tag == "replace":
                    substitutions += 1
        deletions = (errors - substitutions + gap) >> 1
        extend((substitutions, deletions, deletions - gap, length))
    return np.frombuffer(flat, dtype=np.int64).reshape(-1, 4) if flat else np.zeros((0, 4), dtype=np.int64)


def sum_counts(counts: np.ndarray) -> ErrorCounts:
    """Add up the rows of ``count_pairs``."""
    substitutions, deletions, insertions, length = counts.sum(axis=0).tolist()
    wrong = int(counts[:, :3].any(axis=1).sum())
    return ErrorCounts(substitutions, deletions, insertions, length, len(counts), wrong)


def split_words(text: str) -> list[str]:
    """Split a text into its words, which white space separates."""
    return text.split()


def squeeze_spaces(text: str) -> str:
    """Make every run of white space one space, with none at the ends."""
    return " ".join(text.split())


@dataclass(frozen=True)
class Comparison:
    """All references and their hypotheses, by utterance id, and the errors between them.

    The counts are ``(utterances, 4)``, as ``count_pairs`` returns them, in the order of the references. Each
    pair of texts is aligned once. ``spared`` has the optional words of an utterance that one side leaves
    out: they are in neither text and count as right, as in NIST's ``sclite -D``. ``spell`` returns the
    characters of a text.
    """

    references: Mapping[str, str]
    hypotheses: Mapping[str, str]
    spared: Mapping[str, str] = field(default_factory=dict)
    spell: Callable[[str], str] = squeeze_spaces

    @property
    def word_counts(self) -> np.ndarray:
        """Errors in words, by utterance."""
        return self._word_edits[0]

    @cached_property
    def _word_edits(self) -> tuple[np.ndarray, list[Any]]:
        """Errors in words, and the edits of every utterance that has some."""
        edits: list[Any] = []
        # str.split is split_words without a call in Python for each text.
        counts = count_pairs(self._pairs(str.split), edits)
        return self._add_spared(counts, split_words), edits

    @cached_property
    def character_counts(self) -> np.ndarray:
        """Errors in characters, by utterance; as slow again as all the rest, so counted when asked for."""
        return self._add_spared(count_pairs(self._pairs(self.spell)), self.spell)

    def _add_spared(self, counts: np.ndarray, items: Callable[[str], Sequence[str]]) -> np.ndarray:
        """Add what is spared to the lengths of the references."""
        if not self.spared:
            return counts
        added = [len(items(self.spared.get(name, ""))) for name in self.references]
        return counts + np.array([[0, 0, 0, length] for length in added]).reshape(-1, 4)

    def _pairs(self, items: Callable[[str], Sequence[str]]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        hypotheses = map(self.hypotheses.get, self.references, repeat(""))
        return zip(map(items, self.references.values()), map(items, hypotheses), strict=True)

    @cached_property
    def words(self) -> ErrorCounts:
        """The errors in words of all utterances."""
        return sum_counts(self.word_counts)

    @cached_property
    def characters(self) -> ErrorCounts:
        """The errors in characters of all utterances."""
        return sum_counts(self.character_counts)

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids of references without a hypothesis, all of whose words are deletions."""
        return tuple(name for name in self.references if name not in self.hypotheses)

    @property
    def rates(self) -> dict[str, float | None]:
        """WER, CER and SER as shares; ``None`` where the references have no words."""
        return {
            "wer": self.words.error_rate if self.words.reference_length else None,
            "cer": self.characters.error_rate if self.characters.reference_length else None,
            "ser": self.words.sentence_error_rate if self.words.utterances else None,
        }

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each utterance in the counts."""
        return {name: row for row, name in enumerate(self.references)}

    def count_utterance(self, utterance: str) -> ErrorCounts:
        """Count the errors in the words of one utterance."""
        row = self.rows[utterance]
        return sum_counts(self.word_counts[row : row + 1])

    @property
    def worst_first(self) -> list[str]:
        """The ids of the utterances with errors, those with the most wrong words first."""
        names = list(self.references)
        errors = self.word_counts[:, :3].sum(axis=1)
        return [names[row] for row in np.argsort(-errors, kind="stable").tolist() if errors[row]]

    def align(self, utterance: str) -> list[Operation]:
        """Align the words of one utterance with those of its hypothesis."""
        words, edits = split_words(self.references[utterance]), self._word_edits[1][self.rows[utterance]]
        if edits is None:
            return [Operation("equal", word, word) for word in words]
        return expand_edits(edits, words, split_words(self.hypotheses.get(utterance, "")))

    def count_by_group(self, groups: Mapping[str, str]) -> dict[str, ErrorCounts]:
        """Count the errors in words of each group of utterances, groups sorted by name.

        ``groups`` names the group of each utterance; utterances without one are left out.
        """
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.references):
            if name in groups:
                rows.setdefault(groups[name], []).append(row)
        return {group: sum_counts(self.word_counts[rows[group]]) for group in sorted(rows)}

    def count_confusions(self) -> Confusions:
        """Count which words were substituted for which, deleted and inserted, in all utterances."""
        confusions = Confusions(Counter(), Counter(), Counter())
        for name in self.worst_first:
            for kind, reference, hypothesis in self.align(name):
                if kind == "substitution":
                    confusions.substitutions[reference, hypothesis] += 1
                elif kind == "deletion":
                    confusions.deletions[reference] += 1
                elif kind == "insertion":
                    confusions.insertions[hypothesis] += 1
        return confusions


class Confusions(NamedTuple):
    """How often each word was substituted, deleted and inserted."""

    substitutions: Counter[tuple[str, str]]  # reference, hypothesis
    deletions: Counter[str]
    insertions: Counter[str]


def compare_texts(
    references: Mapping[str, str],
    hypotheses: Mapping[str, str],
    spared: Mapping[str, str] | None = None,
    spell: Callable[[str], str] = squeeze_spaces,
) -> Comparison:
    """Compare texts paired by utterance id.

    A reference without a hypothesis is compared with nothing and listed in ``missing``. Raises
    ``ScoringError`` for a hypothesis that has no reference.
    """
    strangers = [name for name in hypotheses if name not in references]
    if strangers:
        raise ScoringError(f"no reference for {list_names(strangers)}")
    return Comparison(references, hypotheses, spared or {}, spell)


def index_by_id(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map utterance ids to texts; raises ``ScoringError`` for ids that come twice."""
    texts = list(texts)
    repeated = [name for name, count in Counter(name for name, _ in texts).items() if count > 1]
    if repeated:
        raise ScoringError(f"more than one text for {list_names(repeated)}")
    return dict(texts)


def list_names(names: Sequence[str]) -> str:
    """List the first few names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(map(repr, names[:MOST_NAMES])) + (f" and {more} more" if more > 0 else "")
