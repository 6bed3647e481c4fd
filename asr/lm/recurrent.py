"""The recurrent language model: an LSTM that predicts the next piece of a word, computed with numpy.

A sentence begins from states of zero with ``END_PIECE`` as the piece before it, and ends with ``END_PIECE``.
The network is that of ``asr.model.language``, the equations those of ``asr.model.cells.LSTMCell``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from asr.core.config import check_bounds, option
from asr.lm.pieces import END_PIECE, UNKNOWN_PIECE, Pieces

MOST_PIECES = 1 << 15
ROWS = 256  # computed at once


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
class LSTMWeights:
    """The weights of one layer, float32, the gates in torch's order: input, forget, cell, output."""

    inputs: np.ndarray  # (4 * size, size)
    hidden: np.ndarray  # (4 * size, size)
    bias: np.ndarray  # (4 * size,)


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
    def _turned(self) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """The matrices as right operands."""
        return np.ascontiguousarray(self.embedding.T), [
            (np.ascontiguousarray(layer.inputs.T), np.ascontiguousarray(layer.hidden.T))
            for layer in self.layers
        ]

    def begin(self, rows: int = 1) -> States:
        """Make the states before the first piece of a sentence."""
        shape = (len(self.layers), rows, self.config.size)
        return States(np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def advance(self, states: States, pieces: np.ndarray) -> States:
        """Read one piece in each row, ``(rows,)`` whole numbers."""
        size = self.config.size
        hidden, cells = np.empty_like(states.hidden), np.empty_like(states.cells)
        inputs = self.embedding[pieces]
        for n, (layer, (wide, recur)) in enumerate(zip(self.layers, self._turned[1], strict=True)):
            sums = inputs @ wide + states.hidden[n] @ recur + layer.bias
            gates = compute_sigmoid(sums)
            entering, forget, output = gates[:, :size], gates[:, size : 2 * size], gates[:, 3 * size :]
            cells[n] = forget * states.cells[n] + entering * np.tanh(sums[:, 2 * size : 3 * size])
            hidden[n] = output * np.tanh(cells[n])
            inputs = hidden[n] + inputs if n else hidden[n]
        return States(hidden, cells)

    def predict(self, states: States) -> np.ndarray:
        """Compute natural log P(piece | what was read) of every piece, ``(rows, pieces)`` float32."""
        scores = states.hidden.sum(axis=0) @ self._turned[0] + self.bias
        scores -= scores.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return scores

    def score_pieces(self, sentences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Compute natural log P of each piece of sentences, and of their ends: ``(pieces + 1,)`` float64.

        What several sentences begin with is computed once.
        """
        texts = [[*sentence, END_PIECE] for sentence in sentences]
        scored = [np.zeros(len(text)) for text in texts]
        for first in range(0, len(texts), ROWS):
            self._score_texts(texts[first : first + ROWS], scored[first : first + ROWS])
        return scored

    def _score_texts(self, texts: list[list[int]], scored: list[np.ndarray]) -> None:
        """Write the log-probs of the pieces of each text, depth by depth of the tree of their prefixes."""
        places = [0] * len(texts)  # the node of the depth under way at which each text stands
        states, read = self.begin(), np.array([END_PIECE])
        going = list(range(len(texts)))
        depth = 0
        while going:
            states = self.advance(states, read)
            log_probs = self.predict(states)
            children: dict[tuple[int, int], int] = {}
            parents: list[int] = []
            pieces: list[int] = []
            still = []
            for number in going:
                parent, piece = places[number], texts[number][depth]
                scored[number][depth] = log_probs[parent, piece]
                if depth + 1 == len(texts[number]):
                    continue
                child = children.setdefault((parent, piece), len(children))
                if child == len(parents):
                    parents.append(parent)
                    pieces.append(piece)
                places[number] = child
                still.append(number)
            if still:
                states, read = states.take(parents), np.array(pieces)
            going, depth = still, depth + 1

    def score_words(self, sentences: Sequence[Sequence[str]]) -> np.ndarray:
        """Compute natural log P of sentences in words, the end included: ``(sentences,)`` float64."""
        scored = self.score_pieces([self.spell(words) for words in sentences])
        return np.array([log_probs.sum() for log_probs in scored])

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


def compute_sigmoid(sums: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * sums))
