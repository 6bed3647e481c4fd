"""N-grams in any sequence become the trie of ``asr.lm.model``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asr.core.compiled import compile_function
from asr.lm.model import Trie, find_word, score_word


@dataclass(frozen=True)
class Level:
    """The n-grams of one order as a file has them: ``words`` is ``(count, order)``, natural logs."""

    words: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray
    first_line: int


class RepeatedError(Exception):
    """An n-gram that is there twice."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def build_trie(levels: list[Level]) -> tuple[Trie, tuple[int, ...]]:
    """The n-grams of each order, in any sequence, as a trie, and how many there are of each order.

    Raises ``RepeatedError`` for an n-gram that is there twice.
    """
    vocabulary = len(levels[0].words)
    # Where each n-gram's context stands, counted within the context's order; step by step longer.
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
                return build_trie(add_missing_contexts(levels))
        first_child.append(start + bounds[:-1])
        last_words.append(words)
        log_probs.append(level.log_probs[order])
        backoffs.append(level.backoffs[order])
        start, width = start + len(order), len(order)
    trie = link_trie(
        np.concatenate([*first_child, [start]]).astype(np.int32),
        np.concatenate(last_words),
        np.concatenate(log_probs),
        np.concatenate(backoffs[:-1]),
    )
    return trie, tuple(len(level.words) for level in levels)


@compile_function
def _find_places(
    bounds: np.ndarray, words: np.ndarray, contexts: np.ndarray, nexts: np.ndarray
) -> np.ndarray:
    """Where each context followed by its next word stands among ``words``; -1 where it does not."""
    places = np.empty(len(contexts), np.int32)
    for i in range(len(contexts)):
        places[i] = find_word(words, bounds[contexts[i]], bounds[contexts[i] + 1], nexts[i])
    return places


def add_missing_contexts(levels: list[Level]) -> list[Level]:
    """The same n-grams and every beginning of one that is not there, its probability NaN."""
    levels = list(levels)
    for order in range(len(levels) - 1, 1, -1):
        contexts = set(map(tuple, levels[order].words[:, :-1].tolist()))
        missing = sorted(contexts - set(map(tuple, levels[order - 1].words.tolist())))
        levels[order - 1] = add_ngrams(
            levels[order - 1], np.array(missing, np.int32).reshape(-1, order), np.nan
        )
    return levels


def add_ngrams(level: Level, words: np.ndarray, log_prob: float) -> Level:
    """``level`` and more n-grams, all with one probability and no back-off."""
    return replace(
        level,
        words=np.concatenate([level.words, words]),
        log_probs=np.append(level.log_probs, np.full(len(words), log_prob, np.float32)),
        backoffs=np.append(level.backoffs, np.zeros(len(words), np.float32)),
    )


def link_trie(
    first_child: np.ndarray, words: np.ndarray, log_probs: np.ndarray, backoffs: np.ndarray
) -> Trie:
    """The trie of nodes that are in order; probabilities that are NaN are put in by backing off."""
    states = np.zeros(len(words), np.int32)
    suffixes = np.zeros(len(backoffs), np.int32)
    trie = Trie(first_child, words, log_probs, states, backoffs, suffixes)
    _link(trie)
    for array in trie:
        array.setflags(write=False)
    return trie


@compile_function
def _link(trie: Trie) -> None:
    """Fill ``states``, ``suffixes`` and missing probabilities, shorter n-grams first."""
    inner = len(trie.backoffs)
    for parent in range(inner):
        context = trie.suffixes[parent]
        place, end = trie.first_child[context], trie.first_child[context + 1]
        for node in range(trie.first_child[parent], trie.first_child[parent + 1]):
            word, suffix = trie.words[node], 0
            if parent > 0:
                # Most n-grams are there without their first word; the words of a context are sorted, so
                # that each one is sought behind the one before.
                same = 1 + word if context == 0 else find_word(trie.words, place, end, word)
                if same >= 0:
                    place, suffix = same, trie.states[same]
                else:
                    _, suffix = score_word(trie, context, word)
            if np.isnan(trie.log_probs[node]):
                trie.log_probs[node] = trie.backoffs[parent] + score_word(trie, context, word)[0]
            live = node < inner and (
                trie.first_child[node] < trie.first_child[node + 1] or trie.backoffs[node] != 0.0
            )
            trie.states[node] = node if live else suffix
            if node < inner:
                trie.suffixes[node] = suffix
