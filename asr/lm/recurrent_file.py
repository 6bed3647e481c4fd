"""A recurrent language model in one file (``asr.core.rounded``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asr.core.recurrence import list_lstm_shapes, name_lstm, take_lstm
from asr.core.rounded import Format, Shapes
from asr.lm.model import LanguageModelError
from asr.lm.recurrent import RecurrentConfig, RecurrentModel
from asr.text.pieces import PIECES, Pieces, read_network, write_network


def list_shapes(config: RecurrentConfig) -> Shapes:
    """List the shapes of the weights of a network by name."""
    shapes: Shapes = {"embedding": (config.pieces, config.size), "bias": (config.pieces,)}
    for number in range(config.layers):
        shapes |= list_lstm_shapes(f"layers.{number}.", config.size, config.size)
    return shapes


FORMAT = Format("recurrent language model of asr", 1, RecurrentConfig, list_shapes, (PIECES,))


def save_recurrent_model(model: RecurrentModel, path: str | Path) -> None:
    """Write a model, all of it or nothing."""
    weights = {"embedding": model.embedding, "bias": model.bias}
    for number, layer in enumerate(model.layers):
        weights |= name_lstm(f"layers.{number}.", layer)
    write_network(FORMAT, model.config, weights, model.pieces, path)


def is_recurrent_file(path: str | Path) -> bool:
    """Whether a file begins as ``save_recurrent_model`` writes it, or as any other safetensors."""
    try:
        with Path(path).open("rb") as file:
            begin = file.read(9)
    except OSError:
        return False
    return begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < FORMAT.most_bytes


def open_recurrent_model(path: str | Path) -> RecurrentModel:
    """Read a model; raises ``LanguageModelError`` naming the file where it is none, or damaged."""
    return make_model(*read_network(FORMAT, path, LanguageModelError))


def make_model(config: RecurrentConfig, weights: Mapping[str, np.ndarray], pieces: Pieces) -> RecurrentModel:
    """Make a model of weights by name."""
    layers = tuple(take_lstm(f"layers.{number}.", weights) for number in range(config.layers))
    return RecurrentModel(config, pieces, weights["embedding"], layers, weights["bias"])
