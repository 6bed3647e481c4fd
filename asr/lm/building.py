"""N-grams in any sequence become nodes in order, from which ``asr.lm.packed`` makes a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asr.core.compiled import compile_function
from asr.lm.packed import Nodes


@dataclass(frozen=True)
class Level:
    """The n-grams of one order as a file has them: ``words`` is ``(count, order)``, natural logs."""

    words: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray
    first_line: int


class MissingSuffixError(Exception):
    """An n-gram is there, but not without its first word."""


class RepeatedError(Exception):
    """An n-gram that is there twice."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def build_nodes(levels: list[Level]) -> tuple[Nodes, tuple[int, ...]]:
    """The n-grams of each order, in any sequence, as nodes, and how many there are of each order.

    Raises ``RepeatedError`` for an n-gram that is there twice.
    """
    vocabulary = len(levels[0].words)
    # The place of each n-gram's context within the context's order, step by step longer.
    contexts = [np.zeros(len(level.words), np.int32) for level in levels]
    start, width = 1, 1  # the first node of this order; how many n-grams the order below has
    nothing = np.zeros(1, np.float32)  # of the empty context
    first_child, last_words, log_probs, backoffs = [], [np.array([-1], np.int32)], [nothing], [nothing]
    for place, level in enumerate(levels):
        keys = contexts[place] * np.int64(vocabulary) + level.words[:, place]
        order = np.argsort(keys)
        same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
        if len(same):
            raise RepeatedError(level.first_line + int(np.maximum(order[same], order[same + 1]).min()))
        bounds = np.concatenate([[0], np.cumsum(np.bincount(contexts[place], minlength=width))])
        words = level.words[order, place]
        for longer in range(place + 1, len(levels)):
            contexts[longer] = _find_places(bounds, words, contexts[longer], levels[longer].words[:, place])
            if contexts[longer].min(initial=0) < 0:
                return build_nodes(add_missing_contexts(levels))
        first_child.append(start + bounds[:-1])
        last_words.append(words)
        log_probs.append(level.log_probs[order])
        backoffs.append(level.backoffs[order])
        start, width = start + len(order), len(order)
    try:
        nodes = link_nodes(
            np.concatenate([*first_child, [start]]).astype(np.int32),
            np.concatenate(last_words),
            np.concatenate(log_probs),
            np.concatenate(backoffs[:-1]),
        )
    except MissingSuffixError:
        return build_nodes(add_missing_suffixes(levels))
    return nodes, tuple(len(level.words) for level in levels)


@compile_function
def find_word(words: np.ndarray, low: int, high: int, word: int) -> int:
    """Where ``word`` stands in the sorted ``words[low:high]``, or -1."""
    end = high
    while low < high:
        middle = (low + high) >> 1
        if words[middle] < word:
            low = middle + 1
        else:
            high = middle
    return low if low < end and words[low] == word else -1


@compile_function
def _find_places(
    bounds: np.ndarray, words: np.ndarray, contexts: np.ndarray, nexts: np.ndarray
) -> np.ndarray:
    """Find the place of each context followed by its next word among ``words``; -1 where there is none."""
    places = np.empty(len(contexts), np.int32)
    for i in range(len(contexts)):
        places[i] = find_word(words, bounds[contexts[i]], bounds[contexts[i] + 1], nexts[i])
    return places


def add_missing_contexts(levels: list[Level]) -> list[Level]:
    """Add every beginning of an n-gram that is missing, with the probability NaN."""
    return _add_missing_parts(levels, slice(None, -1))


def add_missing_suffixes(levels: list[Level]) -> list[Level]:
    """The same n-grams and every end of one that is not there, its probability NaN."""
    return _add_missing_parts(levels, slice(1, None))


def _add_missing_parts(levels: list[Level], part: slice) -> list[Level]:
    levels = list(levels)
    for order in range(len(levels) - 1, 1, -1):
        missing = find_missing_rows(levels[order].words[:, part], levels[order - 1].words)
        levels[order - 1] = add_ngrams(levels[order - 1], missing, np.nan)
    return levels


def find_missing_rows(wanted: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The different rows of ``wanted`` that ``present`` lacks, both ``(rows, columns)`` of numbers from 0."""
    both = np.concatenate([wanted, present])
    keys = np.zeros(len(both), np.int64)
    for column in both.T:  # two columns become one number, which is again from 0 to less than the rows
        keys = np.unique(keys * (int(both.max(initial=0)) + 1) + column, return_inverse=True)[1]
    first = np.unique(keys[: len(wanted)], return_index=True)[1]
    return wanted[first[~np.isin(keys[first], keys[len(wanted) :])]]


def add_ngrams(level: Level, words: np.ndarray, log_prob: float) -> Level:
    """Add n-grams to a level, all with one probability and no back-off."""
    return replace(
        level,
        words=np.concatenate([level.words, words]),
        log_probs=np.append(level.log_probs, np.full(len(words), log_prob, np.float32)),
        backoffs=np.append(level.backoffs, np.zeros(len(words), np.float32)),
    )


def link_nodes(
    first_child: np.ndarray, words: np.ndarray, log_probs: np.ndarray, backoffs: np.ndarray
) -> Nodes:
    """The nodes with their suffixes; probabilities that are NaN are put in by backing off.

    Raises ``MissingSuffixError`` when an n-gram without its first word is no n-gram of the model.
    """
    suffixes = np.zeros(len(words), np.int32)
    nodes = Nodes(first_child, words, log_probs, backoffs, suffixes)
    if not _link(nodes):
        raise MissingSuffixError
    return nodes


def complete_nodes(
    first_child: np.ndarray,
    words: np.ndarray,
    log_probs: np.ndarray,
    backoffs: np.ndarray,
    counts: tuple[int, ...],
) -> tuple[Nodes, tuple[int, ...]]:
    """As ``linked``, with what suffixes are missing put in; and how many n-grams of each order there are."""
    try:
        return link_nodes(first_child, words, log_probs, backoffs), counts
    except MissingSuffixError:
        loose = Nodes(first_child, words, log_probs, backoffs, np.zeros(0, np.int32))
        return build_nodes(add_missing_suffixes(list_levels(loose, counts)))


@compile_function
def _link(nodes: Nodes) -> bool:
    """Fill ``suffixes`` and missing probabilities, shorter n-grams first; False where a suffix is missing."""
    for parent in range(1, len(nodes.backoffs)):
        context = nodes.suffixes[parent]
        place, end = nodes.first_child[context], nodes.first_child[context + 1]
        for node in range(nodes.first_child[parent], nodes.first_child[parent + 1]):
            # The words of a context are sorted, so that each one is sought behind the one before.
            word = nodes.words[node]
            place = 1 + word if context == 0 else find_word(nodes.words, place, end, word)
            if place < 0:
                return False
            nodes.suffixes[node] = place
            if np.isnan(nodes.log_probs[node]):
                nodes.log_probs[node] = nodes.backoffs[parent] + nodes.log_probs[place]
    return True


def list_levels(nodes: Nodes, counts: tuple[int, ...]) -> list[Level]:
    """The n-grams of nodes as a file has them."""
    contexts = np.repeat(np.arange(len(nodes.backoffs)), np.diff(nodes.first_child))
    levels, begin = [], 1
    words = np.zeros((1, 0), np.int32)
    for order, count in enumerate(counts):
        end = begin + count
        parents = contexts[begin - 1 : end - 1] - (begin - counts[order - 1] if order else 0)
        words = np.column_stack([words[parents], nodes.words[begin:end]])
        inner = order + 1 < len(counts)
        backoffs = nodes.backoffs[begin:end] if inner else np.zeros(count, np.float32)
        levels.append(Level(words, nodes.log_probs[begin:end], backoffs, 0))
        begin = end
    return levels
