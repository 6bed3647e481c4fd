"""The recurrent language model: an LSTM that predicts the next piece of a word, computed with numpy.

A sentence begins from states of zero with ``END_PIECE`` as the piece before it, and ends with ``END_PIECE``.
The network is that of ``asr.model.language``, the equations those of ``asr.model.cells.LSTMCell``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from asr.core.config import check_bounds, option
from asr.core.recurrence import LSTMWeights, step_lstm
from asr.text.pieces import END_PIECE, UNKNOWN_PIECE, Pieces

MOST_PIECES = 1 << 15
ROWS = 64  # of scores that are computed at once: they stay in the cache of a core
SENTENCES = 256  # of which the prefixes are shared


@dataclass(frozen=True)
class RecurrentConfig:
    """The network of a recurrent language model."""

    pieces: int = option(
        4000, "Pieces of words that it knows; fewer make words longer.", minimum=8, maximum=MOST_PIECES
    )
    size: int = option(512, "Units of a layer, and numbers in an embedding.", minimum=1, maximum=4096)
    layers: int = option(1, "LSTM layers.", minimum=1, maximum=16)
    dropout: float = option(0.0, "Share of a layer's outputs left out in training.", minimum=0, below=1)

    def __post_init__(self) -> None:
        check_bounds(self, "network")


@dataclass(frozen=True, eq=False)
class States:
    """Where a model stands after some pieces, for several texts at once: ``(layers, rows, size)`` each."""

    hidden: np.ndarray
    cells: np.ndarray

    def take(self, rows: Sequence[int] | np.ndarray) -> States:
        """Return the states of some of the rows, each perhaps several times."""
        return States(self.hidden[:, rows], self.cells[:, rows])


@dataclass(frozen=True, eq=False)
class RecurrentModel:
    """A language model: its weights and its pieces. Any number of threads may use it at the same time."""

    config: RecurrentConfig
    pieces: Pieces
    embedding: np.ndarray  # (pieces, size) float32
    layers: tuple[LSTMWeights, ...]
    bias: np.ndarray  # (pieces,) float32

    @cached_property
    def _scorer(self) -> np.ndarray:
        """The embedding as a right operand."""
        return np.ascontiguousarray(self.embedding.T)

    def begin(self, rows: int = 1) -> States:
        """Make the states before the first piece of a sentence."""
        shape = (len(self.layers), rows, self.config.size)
        return States(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def advance(self, states: States, pieces: np.ndarray) -> States:
        """Read one piece in each row, ``(rows,)`` whole numbers."""
        hidden, cells = np.empty_like(states.hidden), np.empty_like(states.cells)
        inputs = self.embedding[pieces]
        for n, layer in enumerate(self.layers):
            projected = inputs @ layer.wide + layer.bias
            hidden[n], cells[n] = step_lstm(layer, projected, states.hidden[n], states.cells[n])
            inputs = hidden[n] + inputs if n else hidden[n]
        return States(hidden, cells)

    def predict(self, states: States) -> np.ndarray:
        """Compute natural log P(piece | what was read) of every piece, ``(rows, pieces)`` float32."""
        scores = states.hidden.sum(axis=0) @ self._scorer + self.bias
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores

    def score_pieces(self, sentences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Compute natural log P of each piece of sentences, and of their ends: ``(pieces + 1,)`` float64.

        What several sentences begin with is computed once.
        """
        scored: list[np.ndarray] = []
        for first in range(0, len(sentences), SENTENCES):
            part = [[*sentence, END_PIECE] for sentence in sentences[first : first + SENTENCES]]
            scored += self._score_tree(part, build_prefix_tree(part))
        return scored

    def _score_tree(self, texts: Sequence[Sequence[int]], tree: PrefixTree) -> list[np.ndarray]:
        """Compute natural log P of each piece of the texts of a tree."""
        log_probs = self._predict_at(self._read_tree(tree), tree.asked, tree.targets)
        return np.split(log_probs, np.cumsum([len(text) for text in texts])[:-1])

    def _read_tree(self, tree: PrefixTree) -> np.ndarray:
        """Compute the states behind every prefix, ``(prefixes, size)``: products of all levels at once."""
        pieces, places = np.unique(tree.pieces, return_inverse=True)
        states = self.embedding[pieces]
        for number, layer in enumerate(self.layers):
            projected = states @ layer.wide + layer.bias
            hidden = np.empty((len(places), self.config.size), np.float32)
            above_hidden = above_cells = np.zeros((1, self.config.size), np.float32)
            for begin, end in pairwise(tree.levels):
                parents = tree.parents[begin:end]
                above_hidden, above_cells = step_lstm(
                    layer, projected[places[begin:end]], above_hidden[parents], above_cells[parents]
                )
                hidden[begin:end] = above_hidden
            states = hidden + states[places] if number else hidden
            places = np.arange(len(places))
        return states

    def _predict_at(self, states: np.ndarray, asked: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Compute log P of each of ``targets`` behind the prefix that is ``asked`` for it, float64."""
        pairs, places = np.unique(asked * self.config.pieces + targets, return_inverse=True)
        asked, targets = np.divmod(pairs, self.config.pieces)
        found = np.empty(len(pairs))
        for first in range(0, len(states), ROWS):
            scores = states[first : first + ROWS] @ self._scorer
            scores += self.bias
            highest = scores.max(axis=1)
            own = slice(*np.searchsorted(asked, [first, first + ROWS]))
            rows = asked[own] - first
            found[own] = scores[rows, targets[own]]
            scores -= highest[:, None]
            totals = np.exp(scores, out=scores).sum(axis=1)
            found[own] -= (highest + np.log(totals))[rows]
        return found[places]

    def score_words(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """Compute natural log P of sentences in words, the end included: ``(sentences,)`` float64."""
        scored = self.score_pieces([self.spell(words) for words in sentences])
        return np.array([log_probs.sum() for log_probs in scored])

    def score_lists(self, lists: Sequence[Sequence[Sequence[str]]], reach: int) -> list[np.ndarray]:
        """Compute natural log P of lists of sentences in words, ends included: an array for each list.

        Sentences of a list are expected to be much alike. What comes behind the same ``reach`` pieces is
        computed once: the states there are those of the first sentence of the list that has them (Liu et al.
        2014, "Efficient lattice rescoring using recurrent neural network language models", section 3).
        """
        lists_of = [number for number, sentences in enumerate(lists) for _ in sentences]
        texts = [[*self.spell(words), END_PIECE] for sentences in lists for words in sentences]
        if not texts:
            return [np.zeros(0) for _ in lists]
        scored = self._score_tree(texts, build_prefix_tree(texts, reach, lists_of))
        totals = np.array([log_probs.sum() for log_probs in scored])
        return np.split(totals, np.cumsum([len(sentences) for sentences in lists])[:-1])

    @property
    def has_ends(self) -> bool:
        """Whether it knows the ends of sentences."""
        return True

    @property
    def weights(self) -> int:
        """How many numbers it has learned."""
        return (
            self.embedding.size
            + self.bias.size
            + sum(layer.inputs.size + layer.hidden.size + layer.bias.size for layer in self.layers)
        )

    def spell(self, words: Sequence[str]) -> list[int]:
        """Return the pieces of all words."""
        return [piece for word in words for piece in self.pieces.spell(word)]

    def is_unknown(self, word: str) -> bool:
        """Whether a word has a character that no piece has."""
        return UNKNOWN_PIECE in self.pieces.spell(word)


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """What texts begin with, each prefix once, level by level; level 0 is the beginning of a sentence.

    pieces: the last piece of each prefix, ``END_PIECE`` in level 0.
    parents: where the prefix without it stands in the level above.
    levels: the first prefix of each level, and one behind the last.
    asked, targets: for each piece of each text the prefix before it, and the piece.
    """

    pieces: np.ndarray
    parents: np.ndarray
    levels: list[int]
    asked: np.ndarray
    targets: np.ndarray


def build_prefix_tree(
    texts: Sequence[Sequence[int]], reach: int | None = None, lists: Sequence[int] = ()
) -> PrefixTree:
    """Build the tree of the prefixes of texts, none of which is empty.

    With ``reach``, only the first is there of the prefixes that end in the same ``reach`` pieces, among the
    texts of one list; ``lists`` has the list of each text.
    """
    places: dict[tuple[int, ...], int] = {}
    pieces, parents, depths, asked = [END_PIECE], [0], [0], []
    for number, text in enumerate(texts):
        place = 0
        for depth in range(1, len(text)):
            asked.append(place)
            if reach is not None and depth > reach:
                key = (-1 - lists[number], *text[depth - reach : depth])
            else:
                key = (place, text[depth - 1])
            child = places.setdefault(key, len(pieces))
            if child == len(pieces):
                pieces.append(text[depth - 1])
                parents.append(place)
                depths.append(depths[place] + 1)
            place = child
        asked.append(place)
    order = np.argsort(depths, kind="stable")
    ranks = np.argsort(order)
    levels = [0, *np.cumsum(np.bincount(depths)).tolist()]
    above = np.array([0, *levels])[np.array(depths)[order]]  # where the level above begins
    return PrefixTree(
        np.array(pieces)[order],
        ranks[np.array(parents)[order]] - above,
        levels,
        ranks[np.array(asked)],
        np.array([piece for text in texts for piece in text]),
    )
