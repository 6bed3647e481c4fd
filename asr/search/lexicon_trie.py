"""The words of a search as a trie of bytes, with the best score that can still be reached from each node."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from asr.text.pronunciations import grow_trie

OUT = -1  # the place of a prefix whose letters begin no known word
ROOT = 0  # the place of a prefix that has not begun a word


class LexiconTrie(NamedTuple):
    """A trie in the order of breadth-first search, so that the children of a node stand side by side.

    first_child: ``(nodes + 1,)`` int32; node ``n`` has children ``first_child[n]:first_child[n + 1]``.
    letters: ``(nodes,)`` uint8, the byte that leads to the node; sorted among siblings.
    depths: ``(nodes,)`` int32, how many bytes lead to the node.
    words: ``(nodes,)`` int32, the language model's number of the word that ends here, or -1.
    ahead: ``(nodes,)`` float32, the highest log probability among the words that end here or below.
    """

    first_child: np.ndarray
    letters: np.ndarray
    depths: np.ndarray
    words: np.ndarray
    ahead: np.ndarray


def make_empty_trie() -> LexiconTrie:
    """Make a trie without words: every letter leads out of it."""
    nothing = np.zeros(1, np.int32)
    return LexiconTrie(
        np.ones(2, np.int32), np.zeros(1, np.uint8), nothing, nothing - 1, np.zeros(1, np.float32)
    )


def build_lexicon_trie(
    letters: np.ndarray, bounds: np.ndarray, numbers: np.ndarray, log_probs: np.ndarray
) -> LexiconTrie:
    """Build the trie of distinct words that are sorted by their bytes.

    Args:
        letters, bounds: word ``w`` is ``letters[bounds[w]:bounds[w + 1]]``, uint8 and int64.
        numbers: int32, the language model's number of each word.
        log_probs: float32, natural logarithm of each word's probability without context.
    """
    first_child, labels, depths, ends = grow_trie(letters, bounds)
    words = np.where(ends < 0, -1, numbers[ends]) if len(numbers) else ends
    return LexiconTrie(
        first_child, labels, depths, words.astype(np.int32), look_ahead(first_child, ends, log_probs)
    )


def look_ahead(first_child: np.ndarray, ends: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """Find the highest of ``log_probs`` among the words that end at each node or below, float32.

    ``ends`` has the place of the word that ends at a node, or -1.
    """
    ahead = np.full(len(ends), -np.inf, np.float32)
    ahead[ends >= 0] = log_probs[ends[ends >= 0]]
    borders = [0, 1]  # where each level begins
    while first_child[borders[-1]] > borders[-1]:
        borders.append(int(first_child[borders[-1]]))
    for begin, end in reversed(list(pairwise(borders))):
        firsts = first_child[begin : end + 1]
        inner = begin + np.flatnonzero(firsts[1:] > firsts[:-1])
        if len(inner):
            below = ahead[firsts[0] : firsts[-1]]
            best = np.maximum.reduceat(below, first_child[inner] - firsts[0])
            ahead[inner] = np.maximum(ahead[inner], best)
    return ahead
