"""Interpolated modified Kneser-Ney estimation of n-gram models, with count pruning.

Chen & Goodman 1998, "An Empirical Study of Smoothing Techniques for Language Modeling" (TR-10-98),
section 3; unigrams are interpolated with the uniform distribution and pruning is by counts, both as
KenLM's ``lmplz`` does them (Heafield et al. 2013).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from asr.core.compiled import compile_function
from asr.core.config import option
from asr.errors import UserError
from asr.lm.building import complete_nodes
from asr.lm.counting import Corpus, NgramCounts, count_ngrams, read_corpus
from asr.lm.model import MAX_ORDER, NgramModel
from asr.lm.packed import LARGEST_VALUE, Nodes, pack_nodes
from asr.lm.vocabulary import BEGIN, END, UNKNOWN, Vocabulary, build_vocabulary

FALLBACK = (0.5, 1.0, 1.5)  # the discounts that lmplz falls back to on request


class EstimationError(UserError):
    """Options that exclude each other, or a text from which no model can be estimated."""


@dataclass(frozen=True)
class EstimationConfig:
    """How a model is estimated."""

    order: int = option(3, "Words in the longest n-grams, 1 to 6.")
    prune: tuple[int, ...] = option(
        (0,), "N-grams seen so often or less are left out, one number for each order; the last goes on."
    )
    vocabulary_size: int | None = option(None, "Keep only the most frequent words; the others are <unk>.")
    discount_fallback: tuple[float, ...] = option(
        (),
        "Discounts for counts of 1, 2 and more where none can be estimated, as in text that is artificial.",
    )

    def __post_init__(self) -> None:
        if not 1 <= self.order <= MAX_ORDER:
            raise EstimationError(f"order is {self.order}: it must be 1 to {MAX_ORDER}")
        if (
            not 1 <= len(self.prune) <= self.order
            or list(self.prune) != sorted(self.prune)
            or self.prune[0] < 0
        ):
            raise EstimationError(
                f"prune is {' '.join(map(str, self.prune))}: up to {self.order} numbers are needed, "
                "none below the one before it"
            )
        if self.vocabulary_size is not None and self.vocabulary_size < 1:
            raise EstimationError(f"vocab is {self.vocabulary_size}: at least one word is needed")
        pairs = zip(self.discount_fallback, (1, 2, 3), strict=False)
        if len(self.discount_fallback) not in (0, 3) or not all(0 <= d <= j for d, j in pairs):
            raise EstimationError("discount_fallback must be three numbers, at most 1, 2 and 3")

    def threshold(self, order: int) -> int:
        """Return the count up to which n-grams of ``order`` are left out."""
        return self.prune[min(order, len(self.prune)) - 1]


@dataclass(frozen=True, eq=False)
class Estimate:
    """The n-grams of a model as nodes, its words, and how many n-grams of each order it has."""

    nodes: Nodes
    vocabulary: Vocabulary
    counts: tuple[int, ...]

    def pack(self) -> NgramModel:
        """Pack them: what an ARPA file does not need takes a quarter of the time."""
        return NgramModel(pack_nodes(self.nodes, self.counts), self.vocabulary, self.counts)


def estimate(blocks: Iterable[bytes], config: EstimationConfig) -> NgramModel:
    """Estimate the model of a text: UTF-8, a sentence per line, in blocks of whole lines.

    Raises ``EstimationError`` when the text has no words, or too few for Kneser-Ney's discounts.
    """
    return estimate_ngrams(blocks, config).pack()


def estimate_ngrams(blocks: Iterable[bytes], config: EstimationConfig) -> Estimate:
    """Estimate the n-grams of a text as ``estimate`` does, before they are packed."""
    corpus = read_corpus(blocks, config.vocabulary_size)
    if not len(corpus.tokens):
        raise EstimationError("the text has no words")
    return estimate_from_corpus(corpus, config)


def estimate_from_corpus(corpus: Corpus, config: EstimationConfig) -> Estimate:
    """Estimate the n-grams of a text in numbers."""
    levels = count_ngrams(corpus, config.order)
    specials = [corpus.vocabulary.find(word) for word in (UNKNOWN, BEGIN, END)]
    kept = [level.counts > config.threshold(order) for order, level in enumerate(levels, start=1)]
    kept[0][specials] = True
    begin = specials[1]
    probabilities = [np.array([1 / (np.count_nonzero(kept[0]) - 1)])]  # uniform; <s> is never predicted
    weights = []
    adjusted = adjust_counts(levels, begin)
    for order, (level, counts, keep) in enumerate(zip(levels, adjusted, kept, strict=True), start=1):
        discounts = estimate_discounts(counts, order, config.discount_fallback)
        smoothed, weight = _smooth(level.bounds, counts, keep, discounts, probabilities[-1], level.suffixes)
        probabilities.append(smoothed)
        weights.append(weight)
    probabilities[1][begin] = 1  # as lmplz has it: <s> is given and costs nothing
    return assemble_nodes(corpus.vocabulary, levels, kept, probabilities[1:], weights)


def assemble_nodes(
    vocabulary: Vocabulary,
    levels: list[NgramCounts],
    kept: list[np.ndarray],
    probabilities: list[np.ndarray],
    weights: list[np.ndarray],
) -> Estimate:
    """Assemble the nodes of the n-grams kept; ``weights`` are those of the contexts of each order."""
    rank = np.cumsum(kept[0], dtype=np.int32) - 1  # the new number of a word
    contexts, start = np.array([True]), 1
    places = np.zeros(0, np.int32)  # of the n-grams of the order before among all nodes; -1: left out
    nothing = np.zeros(1, np.float32)  # of the empty context
    first_child, words, log_probs, backoffs = [], [np.array([-1], np.int32)], [nothing], [nothing]
    suffixes = [np.zeros(1 + np.count_nonzero(kept[0]), np.int32)]
    for order, (level, keep) in enumerate(zip(levels, kept, strict=True)):
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int32)])
        first_child.append(start + before[level.bounds[:-1]][contexts])
        words.append(rank[level.words[keep]])
        if order:
            suffixes.append(places[level.suffixes[keep]])
        places = np.where(keep, np.int32(start) + before[:-1], np.int32(-1))
        with np.errstate(divide="ignore"):  # a discount of 0 leaves nothing to lower orders
            log_probs.append(np.log(probabilities[order][keep]).astype(np.float32))
            if order:
                backoffs.append(np.log(weights[order][contexts]).astype(np.float32))
        contexts, start = keep, start + int(np.count_nonzero(keep))
    nodes = Nodes(
        np.concatenate([*first_child, [start]]).astype(np.int32),
        np.concatenate(words),
        np.minimum(np.concatenate(log_probs), 0),
        np.concatenate(backoffs),
        np.concatenate(suffixes),
    )
    counts = tuple(int(np.count_nonzero(keep)) for keep in kept)
    if (nodes.suffixes < 0).any():
        nodes, counts = complete_nodes(*nodes[:4], counts)
    nodes = nodes._replace(
        log_probs=np.clip(nodes.log_probs, -LARGEST_VALUE, LARGEST_VALUE),
        backoffs=np.clip(nodes.backoffs, -LARGEST_VALUE, LARGEST_VALUE),
    )
    return Estimate(nodes, prune_vocabulary(vocabulary, kept[0]), counts)


def prune_vocabulary(vocabulary: Vocabulary, keep: np.ndarray) -> Vocabulary:
    """Leave out the words that are pruned."""
    if keep.all():
        return vocabulary
    return build_vocabulary(word.encode() for word, kept in zip(vocabulary.words, keep, strict=True) if kept)


def adjust_counts(levels: list[NgramCounts], begin: int) -> list[np.ndarray]:
    """Compute the counts that Kneser-Ney discounts: how many different words precede each n-gram.

    The longest n-grams keep their counts, and so do those that begin with ``<s>``, which nothing precedes;
    ``<s>`` itself has none.
    """
    adjusted = []
    first, last = begin, begin + 1  # the n-grams that begin with <s>
    for order, level in enumerate(levels, start=1):
        counts = level.counts
        if order < len(levels):
            counts = np.bincount(levels[order].suffixes, minlength=len(level.counts))
            counts[first:last] = level.counts[first:last]
            first, last = levels[order].bounds[first], levels[order].bounds[last]
        if order == 1:
            counts[begin] = 0
        adjusted.append(counts)
    return adjusted


def estimate_discounts(counts: np.ndarray, order: int, fallback: tuple[float, ...]) -> np.ndarray:
    """Estimate the discounts for counts of 0, 1, 2, and 3 or more (Chen & Goodman 1998, equation 26).

    ``fallback`` has those for 1, 2 and more to use where the equation gives none; without it,
    ``EstimationError`` is raised there.
    """
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].tolist()
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        discounts = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
        if all(0 <= discount <= j for j, discount in enumerate(discounts, start=1)):
            return np.array([0, *discounts])
    if fallback:
        return np.array([0, *fallback])
    raise EstimationError(
        f"no discounts can be estimated for {order}-grams: {n1}, {n2}, {n3} and {n4} of them have the "
        "adjusted count 1, 2, 3 and 4; is the text small, artificial or full of repeated lines? "
        "--discount-fallback uses fixed ones instead"
    )


@compile_function
def _smooth(
    bounds: np.ndarray,
    counts: np.ndarray,
    keep: np.ndarray,
    discounts: np.ndarray,
    lower: np.ndarray,
    suffixes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the interpolated probability of every n-gram kept, and each context's back-off weight.

    ``lower`` has the probabilities of the order below. A context's weight is what discounting and pruning
    take from its n-grams, so that its probabilities sum to 1; a context without n-grams has 1.
    """
    probabilities, weights = np.zeros(len(counts)), np.ones(len(bounds) - 1)
    for context in range(len(bounds) - 1):
        total, spare = 0.0, 0.0
        for i in range(bounds[context], bounds[context + 1]):
            total += counts[i]
            spare += discounts[min(counts[i], 3)] if keep[i] else counts[i]
        if total == 0:
            continue
        weights[context] = spare / total
        for i in range(bounds[context], bounds[context + 1]):
            if keep[i]:
                probability = (counts[i] - discounts[min(counts[i], 3)]) / total
                probabilities[i] = probability + weights[context] * lower[suffixes[i]]
    return probabilities, weights
