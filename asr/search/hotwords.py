"""Phrases that get a bonus wherever they are said, as one automaton that reads bytes.

The automaton of Aho & Corasick (1975): however many phrases there are, a prefix stands in one
state, and the bonus of a prefix depends on its letters alone. A phrase counts only between the
borders of words: it is looked for with a space before and behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SPACE = 0x20


class HotWords(NamedTuple):
    """States are numbers; 0 has read nothing that matters.

    following: ``(states, 256)`` int32, the state after a byte.
    gains: ``(states,)`` float64, what arriving in the state adds to a prefix's score for good.
    ahead: ``(states,)`` float64, what the phrase begun here adds to its rank in the beam meanwhile.
    """

    following: np.ndarray
    gains: np.ndarray
    ahead: np.ndarray

    @property
    def start(self) -> int:
        """The state at the beginning of a text, where a word may begin."""
        return int(self.following[0, SPACE])


def hot_words(phrases: Sequence[str], weight: float) -> HotWords:
    """The automaton of ``phrases``, each worth ``weight`` (natural log) for every word it has.

    The part of the weight that ranks a prefix ahead of the phrase's end grows with every letter
    read, so that the beam keeps it; it is no part of the score.
    """
    trie: list[dict[int, int]] = [{}]
    own_gain, own_ahead = [0.0], [0.0]
    for words in sorted({tuple(phrase.split()) for phrase in phrases} - {()}):
        spelled = f" {' '.join(words)} ".encode()
        worth = weight * len(words)
        node = 0
        for depth, letter in enumerate(spelled):
            if letter not in trie[node]:
                trie[node][letter] = len(trie)
                trie.append({})
                own_gain.append(0.0)
                own_ahead.append(0.0)
            node = trie[node][letter]
            if depth + 1 < len(spelled):
                own_ahead[node] = max(own_ahead[node], worth * depth / (len(spelled) - 1))
        own_gain[node] += worth
    following = np.zeros((len(trie), 256), np.int32)
    gains, ahead = np.array(own_gain), np.array(own_ahead)
    queue = deque([(0, 0)])  # a node and the longest shorter one that ends alike
    while queue:
        node, shorter = queue.popleft()
        if node:
            following[node] = following[shorter]
            gains[node] += gains[shorter]
            ahead[node] = max(ahead[node], ahead[shorter])
        for letter, child in trie[node].items():
            queue.append((child, int(following[node, letter])))
            following[node, letter] = child
    return HotWords(following, gains, ahead)
