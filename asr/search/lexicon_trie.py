"""The words of a search as a trie of bytes, with the best score that can still be reached from each node."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_function, compile_inline

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
    return LexiconTrie(*_grow_trie(letters, bounds, numbers, log_probs))


@compile_inline
def find_child(lexicon: LexiconTrie, node: int, letter: int) -> int:
    """Find the child of ``node`` by ``letter``, or ``OUT``."""
    if node < 0:
        return OUT
    low, high = lexicon.first_child[node], lexicon.first_child[node + 1]
    end = high
    while high - low > 4:
        middle = (low + high) >> 1
        if lexicon.letters[middle] <= letter:
            low = middle
        else:
            high = middle
    while low < end and lexicon.letters[low] < letter:
        low += 1
    return low if low < end and lexicon.letters[low] == letter else OUT


@compile_function
def _grow_trie(
    letters: np.ndarray, bounds: np.ndarray, numbers: np.ndarray, log_probs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    most = len(letters) + 1
    first_child = np.zeros(most + 1, np.int32)
    label = np.zeros(most, np.uint8)
    words = np.full(most, -1, np.int32)
    ahead = np.full(most, -np.inf, np.float32)
    parents = np.zeros(most, np.int32)
    # Node n spells the first depth letters of the words low[n] to high[n].
    low, high = np.zeros(most, np.int32), np.zeros(most, np.int32)
    depth = np.zeros(most, np.int32)
    high[0] = len(bounds) - 1
    nodes, node = 1, 0
    while node < nodes:
        first_child[node] = nodes
        word, last, at = low[node], high[node], depth[node]
        if word < last and bounds[word] + at == bounds[word + 1]:
            words[node] = numbers[word]
            ahead[node] = log_probs[word]
            word += 1
        while word < last:
            letter = letters[bounds[word] + at]
            low[nodes] = word
            while word < last and letters[bounds[word] + at] == letter:
                word += 1
            high[nodes], depth[nodes], label[nodes], parents[nodes] = word, at + 1, letter, node
            nodes += 1
        node += 1
    first_child[nodes] = nodes
    for node in range(nodes - 1, 0, -1):
        ahead[parents[node]] = max(ahead[parents[node]], ahead[node])
    return (
        first_child[: nodes + 1].copy(),
        label[:nodes].copy(),
        depth[:nodes].copy(),
        words[:nodes].copy(),
        ahead[:nodes].copy(),
    )
