"""The n-gram model: a trie in flat arrays, and the look-up as a function of arrays.

Every n-gram is a node. Nodes are numbered by order and, within an order, sorted by the numbers of
their words: node 0 is the empty context, node ``1 + word`` the unigram of ``word``, then come the
bigrams, and so on. The children of a node therefore stand side by side, sorted by their last word,
and those of the next node follow them. *Inner* nodes are the empty context and the n-grams below
the highest order; only they have children, a back-off and a suffix.

A *state*, what a model remembers of the words so far, is the number of an inner node (an int; 0
remembers nothing). From compiled code::

    log_prob, state = score(trie, state, word)          # natural logarithm

A node is *live* when it has children or a back-off: only then does it matter that a state is this
node and not a shorter one. ``states`` and ``suffixes`` lead to live nodes only, so that contexts
between which the model cannot tell are one state, and looking up skips nodes that can give nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_function
from asr.errors import UserError
from asr.lm.vocabulary import BEGIN, END, UNKNOWN, Vocabulary

MAX_ORDER = 6

# What a word gets where a model has no <unk>: a log10 of -100, which is what KenLM gives it.
NO_UNKNOWN = -100 * float(np.log(10))


class LanguageModelError(UserError):
    """A language model that cannot be used; the text names the file."""


class Trie(NamedTuple):
    """The arrays of a model; all read-only, so that compiled code sees one type wherever they are from.

    first_child: ``(inner + 1,)`` int32; node ``n`` has children ``first_child[n]:first_child[n + 1]``.
    words: ``(nodes,)`` int32, the last word of each n-gram; -1 for node 0.
    log_probs: ``(nodes,)`` float32, natural logarithm of P(last word | the words before); 0 for node 0.
    states: ``(nodes,)`` int32, the state after this n-gram.
    backoffs: ``(inner,)`` float32, natural logarithm of the back-off weight; 0 where there is none.
    suffixes: ``(inner,)`` int32, the longest proper suffix that is live; 0 for node 0.
    """

    first_child: np.ndarray
    words: np.ndarray
    log_probs: np.ndarray
    states: np.ndarray
    backoffs: np.ndarray
    suffixes: np.ndarray


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
    def end(self) -> int:
        """The number of ``</s>``; that of ``<unk>`` in a model without ends of sentences."""
        number = self.vocabulary.find(END)
        return self.unknown if number < 0 else number

    @property
    def begin(self) -> int:
        """The state at the beginning of a sentence."""
        number = self.vocabulary.find(BEGIN)
        return 0 if number < 0 else int(self.trie.states[1 + number])

    def find_number(self, word: str) -> int:
        """The number of ``word``, or that of ``<unk>``."""
        number = self.vocabulary.find(word)
        return self.unknown if number < 0 else number

    def score_words(self, words: Sequence[str], state: int = 0) -> tuple[list[float], int]:
        """The natural log probability of every word after ``state`` and those before it, and the last state.

        Words outside the vocabulary are ``<unk>``. For a few words; long texts go through compiled code.
        """
        log_probs = []
        for word in words:
            log_prob, state = score_word(self.trie, state, self.find_number(word))
            log_probs.append(log_prob)
        return log_probs, state


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
def find_child(trie: Trie, node: int, word: int) -> int:
    """The node of the inner n-gram ``node`` followed by ``word``, or -1."""
    if node == 0:
        return 1 + word
    return find_word(trie.words, trie.first_child[node], trie.first_child[node + 1], word)


@compile_function
def score_word(trie: Trie, state: int, word: int) -> tuple[float, int]:
    """Natural log P(word | state) and the state after it.

    ``word`` is a number of the vocabulary; the caller turns others into ``<unk>``. The product of
    back-off weights and the probability of the longest n-gram that is there (Katz 1987).
    """
    log_prob = 0.0
    node = find_child(trie, state, word)
    while node < 0:
        log_prob += trie.backoffs[state]
        state = trie.suffixes[state]
        node = find_child(trie, state, word)
    return log_prob + trie.log_probs[node], int(trie.states[node])
