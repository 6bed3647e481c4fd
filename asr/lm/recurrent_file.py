"""A recurrent language model in one file (``asr.core.rounded``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asr.core.files import quote_path
from asr.core.recurrence import LSTMWeights
from asr.core.rounded import Format, Shapes, read_rounded, write_rounded
from asr.lm.model import LanguageModelError
from asr.lm.recurrent import RecurrentConfig, RecurrentModel
from asr.text.pieces import Pieces

PIECES = "pieces"
LAYER = ("inputs", "hidden", "bias")


def list_shapes(config: RecurrentConfig) -> Shapes:
    """List the shapes of the weights of a network by name."""
    shapes: Shapes = {"embedding": (config.pieces, config.size), "bias": (config.pieces,)}
    for number in range(config.layers):
        matrix = (4 * config.size, config.size)
        shapes |= dict(
            zip((f"layers.{number}.{name}" for name in LAYER), (matrix, matrix, matrix[:1]), strict=True)
        )
    return shapes


FORMAT = Format("recurrent language model of asr", 1, RecurrentConfig, list_shapes, (PIECES,))


def save_recurrent_model(model: RecurrentModel, path: str | Path) -> None:
    """Write a model, all of it or nothing."""
    weights = {"embedding": model.embedding, "bias": model.bias}
    for number, layer in enumerate(model.layers):
        weights |= {f"layers.{number}.{name}": getattr(layer, name) for name in LAYER}
    write_rounded(FORMAT, model.config, weights, {PIECES: model.pieces.model}, path)


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
    config, weights, blobs = read_rounded(FORMAT, path, LanguageModelError)
    try:
        return make_model(config, weights, Pieces(blobs[PIECES]))
    except ValueError as error:
        raise LanguageModelError(f"{quote_path(path)}: {error}") from error


def make_model(config: RecurrentConfig, weights: Mapping[str, np.ndarray], pieces: Pieces) -> RecurrentModel:
    """Make a model of weights by name; raises ``ValueError`` where the pieces are not as many."""
    if len(pieces) != config.pieces:
        raise ValueError(f"is damaged: it has {len(pieces)} pieces, not {config.pieces}")
    layers = tuple(
        LSTMWeights(*(weights[f"layers.{number}.{name}"] for name in LAYER))
        for number in range(config.layers)
    )
    return RecurrentModel(config, pieces, weights["embedding"], layers, weights["bias"])
