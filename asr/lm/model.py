"""The n-gram model: its packed trie and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asr.errors import UserError
from asr.lm.packed import Trie, read_unigrams, score_words
from asr.lm.vocabulary import BEGIN, END, UNKNOWN, Vocabulary

MAX_ORDER = 6

# The log probability of an unknown word where a model has no <unk>: a log10 of -100, as in KenLM.
NO_UNKNOWN = -100 * float(np.log(10))


class LanguageModelError(UserError):
    """A language model that cannot be used; the text names the file."""


@dataclass(frozen=True)
class NgramModel:
    """A language model: its arrays, its words, and how many n-grams of each order it has."""

    trie: Trie
    vocabulary: Vocabulary
    counts: tuple[int, ...]

    @property
    def order(self) -> int:
        """The number of words in the longest n-grams."""
        return len(self.counts)

    @property
    def unknown(self) -> int:
        """The number of ``<unk>``, which every model has."""
        return self.vocabulary.find(UNKNOWN)

    @property
    def has_ends(self) -> bool:
        """Whether the model knows the ends of sentences, ``</s>``."""
        return self.vocabulary.find(END) >= 0

    @property
    def end(self) -> int:
        """The number of ``</s>``; that of ``<unk>`` in a model without ends of sentences."""
        number = self.vocabulary.find(END)
        return self.unknown if number < 0 else number

    @property
    def begin(self) -> int:
        """The state at the beginning of a sentence."""
        number = self.vocabulary.find(BEGIN)
        return 0 if number < 0 else self.score_word(0, number)[1]

    @cached_property
    def unigrams(self) -> np.ndarray:
        """Natural log P(word) of every word of the vocabulary, float32."""
        return read_unigrams(self.trie)

    def find_number(self, word: str) -> int:
        """Find the number of ``word``, or that of ``<unk>``."""
        number = self.vocabulary.find(word)
        return self.unknown if number < 0 else number

    def score_word(self, state: int, word: int) -> tuple[float, int]:
        """Return natural log P(word | state) of the word with this number, and the state after it."""
        log_probs, states = score_words(self.trie, np.array([state]), np.array([word]))
        return float(log_probs[0]), int(states[0])

    def score_words(self, words: Sequence[str], state: int = 0) -> tuple[list[float], int]:
        """Return natural log P(word | state and the words before it) of each word, and the last state.

        Words outside the vocabulary score as ``<unk>``. For a few words; long texts go through compiled code.
        """
        log_probs = []
        for word in words:
            log_prob, state = self.score_word(state, self.find_number(word))
            log_probs.append(log_prob)
        return log_probs, state
