"""Model folders read and written: options and weights of an ``AcousticModel``."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asr.core.config import from_table, to_toml
from asr.core.files import check_regular, replace_file, write_text
from asr.errors import UserError
from asr.model.acoustic import AcousticModel, ModelConfig, move_to_device, new_acoustic_model
from asr.model.ctc import CTCModel
from asr.model.encoders import ENCODERS
from asr.model.precision import choose_device
from asr.model.states import is_same_probe
from asr.pretrained import CONFIG_FILE, DEFAULT_MODEL, ModelFolderError, find_model_folder
from asr.recognition.folder import ONNX_FILE, WEIGHTS_FILE, read_config_table
from asr.recognition.model_files import MOST_BYTES
from asr.text.tokenizer import read_symbols

ERROR_CODE = re.compile(r"os error (\d+)|code: (\d+)")  # of the system, in messages of safetensors
STORED_TYPES = ("F32", "F16", "BF16")
SCALE = ".scale"  # behind the name of a matrix in int8: what a step is in each row
# Behind the name of an LSTM's matrix in int8: its gates stand as in ONNX (input, output, forget, cell), and
# model.onnx can refer to it; torch has input, forget, cell, output.
ONNX_GATES = ".iofc"
TO_ONNX, FROM_ONNX = (0, 3, 1, 2), (0, 2, 3, 1)


def load_acoustic_model(model: str | Path = DEFAULT_MODEL, device: str = "cpu") -> AcousticModel:
    """Read a model folder or a shipped model; runs no code from it.

    Raises ``ModelFolderError`` naming the folder or file when something is missing or does not fit, and
    ``UserError`` as ``choose_device``.
    """
    folder = find_model_folder(model)
    vocabulary_size = len(read_symbols(folder))
    config = read_model_config(folder)
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise ModelFolderError(f"{path}: is missing; a training run writes it after its first epoch")
    check_regular(path, ModelFolderError, MOST_BYTES[WEIGHTS_FILE])
    check_shapes(path, config, vocabulary_size)
    acoustic = new_acoustic_model(config, vocabulary_size, folder.resolve().name)
    probe = acoustic.features.probe.clone() if acoustic.features.encoder is not None else None
    try:
        acoustic.modules.load_state_dict(read_weights(path))
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(f"{path}: cannot be read: {error}") from error
    except RuntimeError as error:
        raise ModelFolderError(f"{path}: does not fit {folder / CONFIG_FILE} and the tokens") from error
    if probe is not None and not is_same_probe(probe, acoustic.features.probe):
        raise ModelFolderError(
            f"{folder / CONFIG_FILE}: 'features.encoder' names another encoder than the one that the model "
            f"learned from: {acoustic.config.features.encoder}"
        )
    acoustic.ctc.eval()
    return move_to_device(acoustic, choose_device(device))


def check_shapes(path: Path, config: ModelConfig, vocabulary_size: int) -> None:
    """Check that the weights at ``path`` are those of the network of ``config``, before any of it is made.

    Raises ``ModelFolderError`` naming the first tensor whose name, shape or type is another one.
    """
    expected = list_shapes(config, vocabulary_size)
    try:
        with safe_open(path, framework="pt") as stored:
            names = list(stored.keys())
            found = {name.removesuffix(ONNX_GATES): stored.get_slice(name) for name in names}
            shapes = {name: tuple(part.get_shape()) for name, part in found.items()}
            types = {name: part.get_dtype() for name, part in found.items()}
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(f"{path}: cannot be read: {error}") from error
    scales = {name for name in shapes if name.endswith(SCALE)}
    for name in sorted(expected.keys() | (shapes.keys() - scales)):
        if shapes.get(name) != expected.get(name):
            raise ModelFolderError(
                f"{path}: does not fit {path.parent / CONFIG_FILE} and the tokens: {name!r} has the shape "
                f"{shapes.get(name, 'of nothing')}, not {expected.get(name, 'of nothing')}"
            )
        if types[name] not in (STORED_TYPES if name + SCALE not in scales else ("I8",)):
            raise ModelFolderError(f"{path}: {name!r} cannot be of type {types[name]}")
    for name in sorted(scales):
        matrix = name.removesuffix(SCALE)
        if types[name] not in STORED_TYPES or shapes[name] != expected.get(matrix, ())[:1]:
            raise ModelFolderError(f"{path}: {name!r} is no scale of the rows of {matrix!r}")


def list_shapes(config: ModelConfig, vocabulary_size: int) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that a model has in its file; takes no memory for the network."""
    size = config.features.size
    with torch.device("meta"):
        encoder = ENCODERS[config.encoder.kind](config.encoder, size, config.features.planes)
        network = CTCModel(encoder, vocabulary_size, config.decoder)
    shapes = {f"model.{name}": tuple(value.shape) for name, value in network.state_dict().items()}
    if config.features.normalisation == "global":
        shapes |= {"features.mean": (size,), "features.std": (size,)}
    if config.features.kind == "states":
        shapes["features.probe"] = (config.features.state_size,)
    return shapes


def read_model_config(folder: Path) -> ModelConfig:
    """Read the model's part of a ``config.toml``; what else stands there says how the model was made."""
    table = read_config_table(folder)
    own = {field.name: table[field.name] for field in fields(ModelConfig) if field.name in table}
    try:
        return from_table(ModelConfig, own)
    except UserError as error:
        raise ModelFolderError(f"{folder / CONFIG_FILE}: {error}") from error


def save_config(config: object, folder: Path) -> None:
    """Write ``config.toml``; a whole experiment may stand there, a model reads its own part of it."""
    write_text(folder / CONFIG_FILE, to_toml(config))


def save_weights(model: AcousticModel, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``model.safetensors``, all of it or nothing; the tokens beside it are written on their own.

    With int8, matrices become whole numbers from -127 to 127, each row with a scale of its own, and
    what is no matrix float16: half the size of float16. ``model.onnx`` would hold other weights from then
    on, and goes first.
    """
    weights: dict[str, Tensor] = {}
    recurrent = find_recurrent_matrices(model) if dtype == torch.int8 else set()
    for name, value in model.modules.state_dict().items():
        value = value.detach().cpu()
        if dtype == torch.int8 and value.is_floating_point() and value.dim() > 1:
            key = name
            if name in recurrent:
                key, value = name + ONNX_GATES, reorder_gates(value, TO_ONNX)
            weights[key], weights[name + SCALE] = round_rows(value)
        elif value.is_floating_point():
            weights[name] = value.to(torch.float16 if dtype == torch.int8 else dtype)
        else:
            weights[name] = value
    (folder / ONNX_FILE).unlink(missing_ok=True)
    with replace_file(folder / WEIGHTS_FILE) as temporary:
        write_tensors(weights, temporary)


def find_recurrent_matrices(model: AcousticModel) -> set[str]:
    """Find the names of the matrices whose rows are the gates of a whole layer of torch's LSTM."""
    layers = {name: module for name, module in model.modules.named_modules() if isinstance(module, nn.LSTM)}
    return {
        f"{name}.{key}"
        for name, layer in layers.items()
        for key, value in layer.state_dict().items()
        if value.dim() > 1
    }


def reorder_gates(rows: Tensor, order: Sequence[int]) -> Tensor:
    """Put the four gates of an LSTM, ``(4 * size, ...)``, in another order."""
    gates = rows.chunk(4)
    return torch.cat([gates[place] for place in order])


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors from any device as safetensors; a full disk is an ``OSError``, as for any other file."""
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:
        code = ERROR_CODE.search(str(error))
        number = int(code[1] or code[2]) if code else errno.EIO
        raise OSError(number, os.strerror(number) if code else str(error), str(path)) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read what ``save_weights`` wrote, in float32.

    Raises ``ModelFolderError`` where a number is infinite or none.
    """
    stored = load_file(path)
    for key in [key for key in stored if key.endswith(ONNX_GATES)]:
        name = key.removesuffix(ONNX_GATES)
        for part, rows in ((name, stored.pop(key)), (name + SCALE, stored.get(name + SCALE))):
            if rows is not None:
                stored[part] = reorder_gates(rows, FROM_ONNX)
    for name, value in stored.items():
        if not torch.isfinite(value).all():
            raise ModelFolderError(f"{path}: {name!r} has numbers that are not finite: it is damaged")
    weights = {name: value.float() for name, value in stored.items() if not name.endswith(SCALE)}
    return {
        name: restore_rows(value, stored[name + SCALE]) if name + SCALE in stored else value
        for name, value in weights.items()
    }


def round_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """``(rows, ...)`` as int8 of the same shape and what a step is in each row, ``(rows,)`` float32."""
    largest = matrix.abs().flatten(1).amax(1)
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny) / 127
    return torch.round(matrix / _per_row(scale, matrix)).to(torch.int8), scale


def restore_rows(whole: Tensor, scale: Tensor) -> Tensor:
    """What ``round_rows`` has left of a matrix, float32."""
    return whole.float() * _per_row(scale, whole)


def _per_row(scale: Tensor, matrix: Tensor) -> Tensor:
    """A number for each row, in a shape that goes with ``matrix``."""
    return scale.reshape(-1, *[1] * (matrix.dim() - 1))
