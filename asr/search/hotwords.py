"""Phrases that get a bonus wherever they are said, as one automaton that reads bytes or words.

The automaton of Aho & Corasick (1975): however many phrases there are, a prefix is in one state, which
depends only on what it has read and determines its bonus. A phrase counts only between the borders of words:
among bytes it is searched for with a space before and after it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from asr.core.files import read_text
from asr.errors import UserError
from asr.search.config import HIGHEST, Phrases, SearchError

SPACE = 0x20
WEIGHED = re.compile(r"(.*\S)(?: *\t\s*:?| +:)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
MOST_CELLS = 1 << 26  # of the automaton's table, 4 bytes each


class HotWordAutomaton(NamedTuple):
    """States are numbers; in state 0 no phrase has begun.

    following: ``(states, symbols)`` int32, the state after a symbol.
    gains: ``(states,)`` float64, what arriving in the state adds to a prefix's score for good.
    ahead: ``(states,)`` float64, what the phrase begun here adds to its rank in the beam meanwhile.
    """

    following: np.ndarray
    gains: np.ndarray
    ahead: np.ndarray

    @property
    def start(self) -> int:
        """The state at the beginning of a text, where a word may begin, of an automaton that reads bytes."""
        return int(self.following[0, SPACE])


class Phrase(NamedTuple):
    """What an automaton searches for: ``ahead[i]`` ranks a prefix that has read ``symbols[: i + 1]``."""

    symbols: Sequence[int]
    gain: float
    ahead: Sequence[float]


def build_byte_automaton(phrases: Phrases, weight: float) -> HotWordAutomaton:
    """Build the automaton that reads the bytes of a text.

    Each phrase is worth its own weight, or ``weight`` (natural log), for each of its words. The part of the
    weight that ranks a prefix before the phrase ends grows with every letter read, so that the beam keeps
    it; it is no part of the score.
    """
    spelled = [
        (f" {' '.join(words)} ".encode(), own * len(words))
        for words, own in split_phrases(phrases, weight).items()
    ]
    return build_automaton(
        [
            Phrase(letters, worth, [worth * depth / (len(letters) - 1) for depth in range(len(letters))])
            for letters, worth in spelled
        ],
        symbols=256,
    )


def build_word_automaton(phrases: Phrases, weight: float) -> tuple[HotWordAutomaton, dict[str, int]]:
    """Build the automaton that reads words; also return the symbol of each word in a phrase (others have 0).

    Worth and look-ahead are those of ``build_byte_automaton``, growing with every word.
    """
    every = split_phrases(phrases, weight)
    numbers = {word: i for i, word in enumerate(sorted({word for words in every for word in words}), start=1)}
    listed = [
        Phrase(
            [numbers[word] for word in words],
            own * len(words),
            [own * (depth + 1) for depth in range(len(words))],
        )
        for words, own in every.items()
    ]
    return build_automaton(listed, symbols=1 + len(numbers)), numbers


def split_phrases(phrases: Phrases, weight: float) -> dict[tuple[str, ...], float]:
    """Split each phrase into words, keeping every phrase once, with its own weight or ``weight``."""
    weights = phrases if isinstance(phrases, Mapping) else dict.fromkeys(phrases, weight)
    for phrase, own in weights.items():
        if not 0 <= own <= HIGHEST:  # nor is NaN
            raise SearchError(f"hot words: the weight of {phrase!r} is {own}, not from 0 to {HIGHEST:g}")
    return dict(sorted((tuple(phrase.split()), own) for phrase, own in weights.items() if phrase.strip()))


def read_phrases(path: str | Path, weight: float) -> dict[str, float]:
    """Read hot words from a file: a word or phrase a line and, behind a tab or ``:``, its weight.

    Lines without one get ``weight``; blank lines and lines that begin with ``#`` are skipped. Raises
    ``UserError`` for a file without phrases, and for a weight that is no number within its bounds.
    """
    phrases: dict[str, float] = {}
    for number, line in enumerate(read_text(path, UserError).split("\n"), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = WEIGHED.fullmatch(line.strip())
        own = float(match[2]) if match else weight
        if ("\t" in line.strip() and match is None) or not 0 <= own <= HIGHEST:
            raise UserError(f"{path}:{number}: is not a phrase, a tab and a weight from 0 to {HIGHEST:g}")
        phrases[match[1] if match else line.strip()] = own
    if not phrases:
        raise UserError(f"{path}: has no hot words: write one a line")
    return phrases


def build_automaton(phrases: Sequence[Phrase], symbols: int) -> HotWordAutomaton:
    """Build the automaton of phrases made of numbers below ``symbols`` (Aho & Corasick 1975).

    Raises ``SearchError`` where its table would be too large.
    """
    trie: list[dict[int, int]] = [{}]
    own_gain, own_ahead = [0.0], [0.0]
    for phrase in phrases:
        node = 0
        for depth, symbol in enumerate(phrase.symbols):
            if symbol not in trie[node]:
                trie[node][symbol] = len(trie)
                trie.append({})
                own_gain.append(0.0)
                own_ahead.append(0.0)
            node = trie[node][symbol]
            if depth + 1 < len(phrase.symbols):
                own_ahead[node] = max(own_ahead[node], phrase.ahead[depth])
        own_gain[node] += phrase.gain
        if len(trie) * symbols > MOST_CELLS:
            raise SearchError(
                f"hot words: {len(phrases):,} phrases are too many; use a language model for them"
            )
    following = np.zeros((len(trie), symbols), np.int32)
    gains, ahead = np.array(own_gain), np.array(own_ahead)
    queue = deque([(0, 0)])  # a node and the longest shorter one that ends alike
    while queue:
        node, shorter = queue.popleft()
        if node:
            following[node] = following[shorter]
            gains[node] += gains[shorter]
            ahead[node] = max(ahead[node], ahead[shorter])
        for symbol, child in trie[node].items():
            queue.append((child, int(following[node, symbol])))
            following[node, symbol] = child
    return HotWordAutomaton(following, gains, ahead)
