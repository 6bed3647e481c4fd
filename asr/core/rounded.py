"""Small networks in one file: safetensors with matrices in 8 bits, their options and other bytes.

Each row of a matrix has a step of its own: number = whole number * step. The metadata has one key, the name
of the format: version and options as TOML. Nothing in a file is executed, and every shape, type and number
is checked before it is used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from asr.core.config import from_table, to_toml
from asr.core.files import check_regular, quote_path, replace_file
from asr.errors import UserError

Config = TypeVar("Config")
Shapes = dict[str, tuple[int, ...]]

SCALE = ".scale"
MOST_OPTION_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Format(Generic[Config]):
    """A kind of file: its name, version and options, the shapes of its weights, and what is bytes."""

    name: str
    version: int
    config: type[Config]
    list_shapes: Callable[[Config], Shapes]
    blobs: tuple[str, ...] = ()
    most_bytes: int = 1 << 29
    most_blob_bytes: int = 1 << 24


def write_rounded(
    kind: Format[Config], config: Config, weights: Mapping[str, np.ndarray], blobs: Mapping[str, bytes],
    path: str | Path,
) -> None:  # fmt: skip
    """Write weights, matrices in 8 bits, all of it or nothing.

    safetensors 0.8.0 writes memory as it lies: arrays that are not C-contiguous would come back as others.
    """
    from safetensors.numpy import save_file

    tensors = {name: np.frombuffer(content, np.uint8) for name, content in blobs.items()}
    for name, values in weights.items():
        if values.ndim == 2:
            tensors[name], tensors[name + SCALE] = round_rows(values)
        else:
            tensors[name] = values.astype(np.float32)
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    metadata = {kind.name: f"version = {kind.version}\n{to_toml(config)}"}
    with replace_file(path) as temporary:
        save_file(tensors, temporary, metadata)


def round_rows(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round ``(rows, columns)`` to int8; also return what a step is in each row, ``(rows,)`` float32."""
    steps = np.maximum(np.abs(matrix).max(axis=1), np.finfo(np.float32).tiny) / 127
    return np.rint(matrix / steps[:, None]).astype(np.int8), steps.astype(np.float32)


def read_rounded(
    kind: Format[Config], path: str | Path, error: Callable[[str], UserError]
) -> tuple[Config, dict[str, np.ndarray], dict[str, bytes]]:
    """Read options, weights as float32, and bytes; raises ``error`` naming the file where it is another."""
    from safetensors import SafetensorError, safe_open

    name = quote_path(path)
    check_regular(path, error, kind.most_bytes)
    try:
        with safe_open(path, framework="np") as stored:
            config = _read_config(kind, stored.metadata() or {})
            slices = {key: stored.get_slice(key) for key in stored.keys()}  # noqa: SIM118 - no dict
            _check_slices(kind, slices, config)
            tensors = {key: stored.get_tensor(key) for key in slices}
        weights = _restore_weights(kind.list_shapes(config), tensors)
    except (OSError, SafetensorError) as fault:
        raise error(f"{name}: is damaged, or no {kind.name}") from fault
    except (UserError, ValueError) as fault:
        raise error(f"{name}: {fault}") from fault
    return config, weights, {key: tensors[key].tobytes() for key in kind.blobs}


def _read_config(kind: Format[Config], metadata: Mapping[str, str]) -> Config:
    """Read the options of a file; raises ``ValueError`` or ``UserError``."""
    if kind.name not in metadata:
        raise ValueError(f"is no {kind.name}")
    try:
        table = tomllib.loads(metadata[kind.name][:MOST_OPTION_CHARACTERS])
    except (ValueError, RecursionError) as error:
        raise ValueError("is damaged: its options are no TOML") from error
    if table.pop("version", None) != kind.version:
        raise ValueError("was written by a later version of this program")
    return from_table(kind.config, table)


def _check_slices(kind: Format[Config], slices: Mapping[str, Any], config: Config) -> None:
    """Raise ``ValueError`` for tensors of other names, shapes or types than a network of ``config`` has."""
    expected: dict[str, tuple[tuple[int, ...], str]] = {}
    for key, shape in kind.list_shapes(config).items():
        if len(shape) == 2:
            expected[key], expected[key + SCALE] = (shape, "I8"), (shape[:1], "F32")
        else:
            expected[key] = (shape, "F32")
    for key in sorted(expected.keys() | (slices.keys() - set(kind.blobs))):
        found = (tuple(slices[key].get_shape()), slices[key].get_dtype()) if key in slices else None
        if found != expected.get(key):
            raise ValueError(f"is damaged: {key[:60]!r} does not fit its options")
    for key in kind.blobs:
        blob = slices.get(key)
        if blob is None or blob.get_dtype() != "U8" or len(blob.get_shape()) != 1:
            raise ValueError(f"is damaged: has no {key}")
        if blob.get_shape()[0] > kind.most_blob_bytes:
            raise ValueError(f"is damaged: its {key} are too long")


def _restore_weights(shapes: Shapes, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Restore weights from whole numbers; raises ``ValueError`` where numbers are not finite.

    Columns stand side by side: as right operands, the matrices need no second copy.
    """
    weights: dict[str, np.ndarray] = {}
    for key in shapes:
        scale, values = tensors.get(key + SCALE), tensors[key].astype(np.float32, order="F")
        if not np.isfinite(values if scale is None else scale).all():
            raise ValueError(f"is damaged: {key!r} has numbers that are not finite")
        weights[key] = values if scale is None else values * scale[:, None]
    return weights
