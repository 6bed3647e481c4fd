"""LSTM layers computed with numpy, for small networks that run where torch is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class LSTMWeights:
    """The weights of one layer, float32, the gates in torch's order: input, forget, cell, output."""

    inputs: np.ndarray  # (4 * size, input size)
    hidden: np.ndarray  # (4 * size, size)
    bias: np.ndarray  # (4 * size,)

    @cached_property
    def wide(self) -> np.ndarray:
        """``inputs`` as a right operand."""
        return np.ascontiguousarray(self.inputs.T)

    @cached_property
    def recur(self) -> np.ndarray:
        """``hidden`` as a right operand."""
        return np.ascontiguousarray(self.hidden.T)


LAYER = ("inputs", "hidden", "bias")


def list_lstm_shapes(prefix: str, inputs: int, size: int) -> dict[str, tuple[int, ...]]:
    """List the shapes of a layer's weights, whose names begin with ``prefix``."""
    shapes = ((4 * size, inputs), (4 * size, size), (4 * size,))
    return {prefix + name: shape for name, shape in zip(LAYER, shapes, strict=True)}


def name_lstm(prefix: str, weights: LSTMWeights) -> dict[str, np.ndarray]:
    """Name a layer's weights."""
    return {prefix + name: getattr(weights, name) for name in LAYER}


def take_lstm(prefix: str, weights: Mapping[str, np.ndarray]) -> LSTMWeights:
    """Take a layer out of weights by name."""
    return LSTMWeights(*(weights[prefix + name] for name in LAYER))


def step_lstm(
    weights: LSTMWeights, projected: np.ndarray, hidden: np.ndarray, cells: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take one step of a layer in each row; returns the new hidden and cell states, ``(rows, size)``.

    ``projected`` is ``inputs @ weights.wide + weights.bias``, ``(rows, 4 * size)``. The equations are those
    of ``asr.model.cells.LSTMCell``.
    """
    size = hidden.shape[1]
    sums = projected + hidden @ weights.recur
    gates = compute_sigmoid(sums)
    entering, forget, output = gates[:, :size], gates[:, size : 2 * size], gates[:, 3 * size :]
    cells = forget * cells + entering * np.tanh(sums[:, 2 * size : 3 * size])
    return output * np.tanh(cells), cells


def run_lstm(weights: LSTMWeights, inputs: np.ndarray) -> np.ndarray:
    """Run a layer from states of zero: ``(rows, steps, input size)`` to ``(rows, steps, size)`` float32."""
    rows, steps, _ = inputs.shape
    projected = inputs @ weights.wide + weights.bias
    hidden = np.zeros((rows, weights.hidden.shape[1]), np.float32)
    cells, output = hidden, np.empty((rows, steps, hidden.shape[1]), np.float32)
    for step in range(steps):
        hidden, cells = step_lstm(weights, projected[:, step], hidden, cells)
        output[:, step] = hidden
    return output


def compute_sigmoid(sums: np.ndarray) -> np.ndarray:
    """The logistic function, without overflow."""
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * sums))
