"""A recurrent language model in one file: safetensors with matrices in 8 bits, its pieces and its options.

Each row of a matrix has a step of its own: number = whole number * step. The metadata has one key,
``FORMAT``: version and options as TOML. Nothing in the file is executed, and every shape, type and number is
checked before it is used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asr.core.config import from_table, to_toml
from asr.core.files import check_regular, quote_path, replace_file
from asr.errors import UserError
from asr.lm.model import LanguageModelError
from asr.lm.pieces import Pieces
from asr.lm.recurrent import LSTMWeights, RecurrentConfig, RecurrentModel

FORMAT, VERSION = "asr recurrent language model", 1
MOST_BYTES = 1 << 29
MOST_PIECE_BYTES = 1 << 24
MOST_OPTION_CHARACTERS = 1 << 16
SCALE = ".scale"


def save_recurrent_model(model: RecurrentModel, path: str | Path) -> None:
    """Write a model, all of it or nothing."""
    from safetensors.numpy import save_file

    tensors: dict[str, np.ndarray] = {"pieces": np.frombuffer(model.pieces.model, np.uint8)}
    for name, matrix in list_weights(model).items():
        if matrix.ndim == 2:
            tensors[name], tensors[name + SCALE] = round_rows(matrix)
        else:
            tensors[name] = matrix.astype(np.float32)
    metadata = {FORMAT: f"version = {VERSION}\n{to_toml(model.config)}"}
    with replace_file(path) as temporary:
        save_file(tensors, temporary, metadata)


def list_weights(model: RecurrentModel) -> dict[str, np.ndarray]:
    """List the weights of a model by name."""
    weights = {"embedding": model.embedding, "bias": model.bias}
    for number, layer in enumerate(model.layers):
        weights |= {f"layers.{number}.{name}": value for name, value in vars(layer).items()}
    return weights


def list_shapes(config: RecurrentConfig) -> dict[str, tuple[int, ...]]:
    """List the shapes of the weights of a network by name."""
    shapes: dict[str, tuple[int, ...]] = {
        "embedding": (config.pieces, config.size),
        "bias": (config.pieces,),
    }
    for number in range(config.layers):
        shapes |= {f"layers.{number}.{name}": (4 * config.size, config.size) for name in ("inputs", "hidden")}
        shapes[f"layers.{number}.bias"] = (4 * config.size,)
    return shapes


def round_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round ``(rows, columns)`` to int8; also return what a step is in each row, ``(rows,)`` float32."""
    steps = np.maximum(np.abs(matrix).max(axis=1), np.finfo(np.float32).tiny) / 127
    return np.rint(matrix / steps[:, None]).astype(np.int8), steps.astype(np.float32)


def is_recurrent_file(path: str | Path) -> bool:
    """Whether a file begins as ``save_recurrent_model`` writes it, or as any other safetensors."""
    try:
        with Path(path).open("rb") as file:
            begin = file.read(9)
    except OSError:
        return False
    return len(begin) == 9 and begin[8:] == b"{" and int.from_bytes(begin[:8], "little") < MOST_BYTES


def open_recurrent_model(path: str | Path) -> RecurrentModel:
    """Read a model; raises ``LanguageModelError`` naming the file where it is none, or damaged."""
    from safetensors import SafetensorError, safe_open

    name = quote_path(path)
    check_regular(path, LanguageModelError, MOST_BYTES)
    try:
        with safe_open(path, framework="np") as stored:
            metadata = stored.metadata() or {}
            config = read_config(metadata)
            slices = {key: stored.get_slice(key) for key in stored.keys()}  # noqa: SIM118 - no dict
            check_slices(slices, config)
            tensors = {key: stored.get_tensor(key) for key in slices}
        return make_model(config, tensors)
    except (OSError, SafetensorError) as error:
        raise LanguageModelError(f"{name}: is damaged, or no recurrent language model") from error
    except (UserError, ValueError) as error:
        raise LanguageModelError(f"{name}: {error}") from error


def read_config(metadata: Mapping[str, str]) -> RecurrentConfig:
    """Read the options of a file; raises ``ValueError`` or ``UserError``."""
    if FORMAT not in metadata:
        raise ValueError("is no recurrent language model")
    try:
        table = tomllib.loads(metadata[FORMAT][:MOST_OPTION_CHARACTERS])
    except (ValueError, RecursionError) as error:
        raise ValueError("is damaged: its options are no TOML") from error
    if table.pop("version", None) != VERSION:
        raise ValueError("was written by a later version of this program")
    return from_table(RecurrentConfig, table)


def check_slices(slices: Mapping[str, Any], config: RecurrentConfig) -> None:
    """Raise ``ValueError`` for tensors of other names, shapes or types than a network of ``config`` has."""
    expected: dict[str, tuple[tuple[int, ...], str]] = {}
    for key, shape in list_shapes(config).items():
        if len(shape) == 2:
            expected[key], expected[key + SCALE] = (shape, "I8"), (shape[:1], "F32")
        else:
            expected[key] = (shape, "F32")
    for key in sorted(expected.keys() | (slices.keys() - {"pieces"})):
        found = (tuple(slices[key].get_shape()), slices[key].get_dtype()) if key in slices else None
        if found != expected.get(key):
            raise ValueError(f"is damaged: {key[:60]!r} does not fit its options")
    pieces = slices.get("pieces")
    if pieces is None or pieces.get_dtype() != "U8" or len(pieces.get_shape()) != 1:
        raise ValueError("is damaged: has no pieces")
    if pieces.get_shape()[0] > MOST_PIECE_BYTES:
        raise ValueError("is damaged: its pieces are too long")


def make_model(config: RecurrentConfig, tensors: Mapping[str, np.ndarray]) -> RecurrentModel:
    """Make a model of checked tensors; raises ``ValueError`` where numbers are not finite."""
    weights: dict[str, np.ndarray] = {}
    for key in list_shapes(config):
        scale = tensors.get(key + SCALE)
        values = tensors[key].astype(np.float32)
        if not np.isfinite(values if scale is None else scale).all():
            raise ValueError(f"is damaged: {key!r} has numbers that are not finite")
        weights[key] = values if scale is None else values * scale[:, None]
    pieces = Pieces(tensors["pieces"].tobytes())
    if len(pieces) != config.pieces:
        raise ValueError(f"is damaged: it has {len(pieces)} pieces, not {config.pieces}")
    layers = tuple(
        LSTMWeights(*(weights[f"layers.{n}.{name}"] for name in ("inputs", "hidden", "bias")))
        for n in range(config.layers)
    )
    return RecurrentModel(config, pieces, weights["embedding"], layers, weights["bias"])
