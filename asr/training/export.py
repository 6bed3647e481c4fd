"""A model as an ONNX file, from samples to log-probs, for programs without torch.

Features are part of the graph. Its Fourier transform is a convolution with windowed cosines and sines,
which every runtime has, and differs from ``asr.model.features`` by rounding alone.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr import __version__
from asr.core.files import replace_file
from asr.errors import UserError
from asr.model.acoustic import AcousticModel
from asr.model.cells import FUSED
from asr.model.features import (
    Features,
    append_deltas,
    mask_padding,
    pad_batch,
    round_samples,
    utterance_statistics,
)
from asr.model.folder import load_acoustic_model, restore_rows, round_rows
from asr.recognition.folder import ONNX_FILE, WEIGHTS_FILE
from asr.recognition.model_files import renew_checksums
from asr.text.tokenizer import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

OPSET = 17
TOLERANCE = 1e-4  # the largest difference of log-probs between ONNX Runtime and torch
CHECKED_SECONDS = (2.3, 0.7, 1.1)  # of a batch that is compared with torch after every export
# The inputs of ONNX's operators that are stored in 8 bits, and their axis of rows: each has its own scale.
# Not those of products: ONNX Runtime would round the other factor, too, when it meets such weights.
ROWS = {("Conv", 1): 0} | {(kind, place): 1 for kind in ("LSTM", "GRU", "RNN") for place in (1, 2)}


class ExportError(UserError):
    """A model that ONNX cannot express, or whose file computes something else."""


class SamplesToLogProbs(nn.Module):
    """A model's features and network as one graph, free of Python's numbers where sizes vary."""

    waves: Tensor

    def __init__(self, model: AcousticModel) -> None:
        super().__init__()
        self.features = model.features
        self.network = model.ctc
        self.register_buffer("waves", make_waves(model.features))

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(batch, samples)`` and samples per recording to what ``AcousticModel.log_probs`` returns."""
        return self.network(*self.frames(samples, lengths))

    def frames(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute ``Features.forward`` without statistics of speakers."""
        config = self.features.config
        beyond = (lengths - config.window).clamp(min=0)
        counts = (1 + torch.div(beyond + config.hop - 1, config.hop, rounding_mode="floor")) * (lengths > 0)
        samples = round_samples(samples)
        samples = samples - config.preemphasis * F.pad(samples[:, :-1], (1, 0))
        samples = F.pad(mask_padding(samples, lengths), (0, config.window + config.hop))
        parts = F.conv1d(samples[:, None], self.waves, stride=config.hop)[:, :, : counts.max()]
        real, imaginary = parts.square().chunk(2, dim=1)
        features = ((real + imaginary).transpose(1, 2) @ self.features.filters).clamp(min=config.floor).log()
        if config.kind == "mfcc":
            features = features @ self.features.cosines
        features = append_deltas(mask_padding(features, counts), counts, config.deltas)
        features, counts = slice_stack(features, counts, config.stack, config.skip)
        if config.normalisation == "none":
            return features, counts
        mean, std = self.features.mean[None], self.features.std[None]
        if config.normalisation != "global":
            mean, std = utterance_statistics(features, counts)
        return mask_padding((features - mean[:, None]) / std[:, None], counts), counts


def make_waves(features: Features) -> Tensor:
    """Make the cosines and sines of a Fourier transform times the window, ``(2 * bins, 1, window)``."""
    size, length = features.n_fft, features.config.window
    angles = 2 * math.pi / size * torch.outer(torch.arange(size // 2 + 1), torch.arange(length)).double()
    waves = torch.cat([angles.cos(), angles.sin()]) * features.window.double()
    return waves.float()[:, None]


def slice_stack(features: Tensor, lengths: Tensor, stack: int, skip: int) -> tuple[Tensor, Tensor]:
    """``asr.model.features.stack_frames`` by slices, whose lengths ONNX knows."""
    if stack == skip == 1:
        return features, lengths
    size = features.shape[1]
    filled = F.pad(features, (0, 0, 0, stack))
    joined = torch.cat([filled[:, shift : shift + size : skip] for shift in range(stack)], dim=2)
    lengths = torch.div(lengths + skip - 1, skip, rounding_mode="floor")
    return mask_padding(joined, lengths), lengths


def write_model_onnx(folder: Path) -> str:
    """Write the ``model.onnx`` of a run folder if there is none; describe in a line what became of it.

    Nothing is raised: a model that cannot be exported transcribes with torch.
    """
    path = folder / ONNX_FILE
    if path.exists():
        return f"{path} is there"
    try:
        export_folder(folder)
    except (UserError, RuntimeError) as error:  # the latter of torch, about operators
        return f"no {path}, transcribing will need torch: {str(error).splitlines()[0]}"
    return f"written: {path}"


def export_folder(folder: Path, int8: bool = False, path: Path | None = None) -> float:
    """Write the model of a folder as its ``model.onnx``, or to ``path``, as ``export_onnx``.

    In the folder, weights that ``model.safetensors`` has in 8 bits are kept there alone.
    """
    target = path or folder / ONNX_FILE
    is_own = target == folder / ONNX_FILE
    weights = folder / WEIGHTS_FILE if is_own else None
    difference = export_onnx(load_acoustic_model(folder), load_tokenizer(folder), target, int8, weights)
    if is_own:
        renew_checksums(folder)
    return difference


def export_onnx(
    model: AcousticModel, tokenizer: Tokenizer, path: str | Path, int8: bool = False,
    weights: Path | None = None,
) -> float:  # fmt: skip
    """Write ``model`` as ONNX, all of it or nothing; returns the largest difference of its log-probs.

    Inputs are ``samples (batch, samples)`` float32 and ``lengths (batch,)`` int64, outputs ``log_probs
    (batch, frames, tokens)`` and ``frames (batch,)``; batch and samples may be of any size. The
    metadata holds the rest that a program must know, such as the text of every token. With ``int8`` the
    file holds the weights in 8 bits, a scale for each row, as ``save_weights`` rounds them; the arithmetic
    stays float32, and log-probs are compared with those of the rounded weights. Those that the file
    ``weights`` beside it has, byte for byte, are referred to (ONNX's external data) and not repeated.

    Raises ``ExportError`` where an extra is not installed, for a network that ONNX has no operators for, and
    when ONNX Runtime's log-probs differ from torch's by more than ``TOLERANCE``.
    """
    for library in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(library) is None:
            raise ExportError(f"exporting needs {library}: pip install 'asr[train]'")
    check_exportable(model)
    if int8:
        model = round_weights(model)
    graph = SamplesToLogProbs(model).eval().cpu()
    samples, lengths = pad_batch([np.zeros(round(model.sample_rate * s)) for s in CHECKED_SECONDS])
    with replace_file(path) as temporary:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about numbers that the sizes below make dynamic
            torch.onnx.export(
                graph, (samples, lengths), str(temporary), dynamo=False, opset_version=OPSET,
                input_names=["samples", "lengths"], output_names=["log_probs", "frames"],
                dynamic_axes={
                    "samples": {0: "batch", 1: "samples"}, "lengths": {0: "batch"},
                    "log_probs": {0: "batch", 1: "frames"}, "frames": {0: "batch"},
                },
            )  # fmt: skip
        finish_file(temporary, describe_model(model, tokenizer), int8, weights if int8 else None)
        difference = largest_difference(model, temporary)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{path}: ONNX Runtime and torch differ by {difference:.2g}; nothing was written"
            )
    return difference


def check_exportable(model: AcousticModel) -> None:
    """Raise ``ExportError`` for networks that only torch can run over any number of frames."""
    encoder = model.config.encoder
    if model.config.features.kind == "states":
        raise ExportError(
            f"{model.name}: its features are states of another encoder, which an ONNX file cannot hold; use "
            "the model folder"
        )
    if model.config.decoder.kind != "none":
        raise ExportError(
            f"{model.name}: its attention decoder cannot be exported to ONNX; transcribe with torch"
        )
    wrong = {
        f"cell {encoder.cell!r}": encoder.kind == "recurrent" and encoder.cell not in FUSED,
        "zoneout": encoder.zoneout > 0,
        "encoder.chunk": encoder.chunk > 0,
        "transformer": encoder.kind == "transformer",
    }
    for what, is_so in wrong.items():
        if is_so:
            can = ", ".join(FUSED)
            raise ExportError(f"{model.name}: its {what} cannot be exported to ONNX; cells that can: {can}")


def describe_model(model: AcousticModel, tokenizer: Tokenizer) -> dict[str, str]:
    """The metadata of the file: what a program must know besides the graph."""
    return {
        "sample_rate": str(model.sample_rate),
        "frame_samples": str(model.frame_samples),
        "frame_seconds": repr(model.frame_seconds),
        "tokens": json.dumps(tokenizer.surfaces, ensure_ascii=False),  # the blank first
        "normaliser": model.config.text.normaliser,
        "model": model.name,
        "asr_version": __version__,
    }


def round_weights(model: AcousticModel) -> AcousticModel:
    """Make a model whose matrices hold what is left of them in 8 bits."""
    ctc = deepcopy(model.ctc)
    with torch.no_grad():
        for parameter in ctc.parameters():
            if parameter.dim() > 1:
                parameter.copy_(restore_rows(*round_rows(parameter)))
    return replace(model, ctc=ctc)


def finish_file(path: Path, entries: Mapping[str, str], int8: bool, weights: Path | None) -> None:
    """Add ``entries`` to the metadata of an ONNX file; with ``int8``, store its weights in 8 bits.

    What ``weights`` has of them is referred to.
    """
    import onnx

    model = onnx.load(path)
    if int8:
        store_in_8_bits(model)
    onnx.helper.set_model_props(model, dict(entries))
    onnx.checker.check_model(model)
    if weights is not None:
        refer_to_weights(model, weights)
    onnx.save(model, path)


def store_in_8_bits(model: ModelProto) -> None:
    """Replace the weights of an ONNX graph by whole numbers with scales, and nodes that multiply them."""
    graph = model.graph
    uses = {name: (node.op_type, place) for node in graph.node for place, name in enumerate(node.input)}
    stored: list[TensorProto] = []
    nodes: list[NodeProto] = []
    for tensor in graph.initializer:
        axis = ROWS.get(uses.get(tensor.name, ("", 0)))
        if axis is None or tensor.name == "waves":  # features are exact
            stored.append(tensor)
            continue
        *parts, node = divide_weights(tensor, axis)
        stored += parts
        nodes.append(node)
    nodes += graph.node
    for field, values in ((graph.initializer, stored), (graph.node, nodes)):
        copies = deepcopy(values)
        del field[:]
        field.extend(copies)


def refer_to_weights(model: ModelProto, weights: Path) -> None:
    """Replace the numbers of a graph that are in a file of weights beside it by their places there."""
    from onnx import TensorProto

    places = find_places(weights)
    for tensor in model.graph.initializer:
        place = places.get(tensor.raw_data) if tensor.data_type == TensorProto.INT8 else None
        if place is None:
            continue
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", place), ("length", math.prod(tensor.dims))):
            tensor.external_data.add(key=key, value=str(value))


def find_places(weights: Path) -> dict[bytes, int]:
    """Find where tensors of 8 bits begin in a file of safetensors, by their bytes."""
    content = weights.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    tensors = [entry for entry in json.loads(content[8:begin]).values() if entry.get("dtype") == "I8"]
    spans = [(begin + first, begin + last) for first, last in (entry["data_offsets"] for entry in tensors)]
    return {content[first:last]: first for first, last in spans}


def divide_weights(tensor: TensorProto, axis: int) -> tuple[TensorProto, TensorProto, NodeProto]:
    """Divide weights into whole numbers and the scales of rows along ``axis``, and a node that joins them."""
    from onnx import helper, numpy_helper

    values = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    whole, scale = round_rows(values.transpose(0, axis))
    names = [f"{tensor.name}.int8", f"{tensor.name}.scale"]
    return (
        numpy_helper.from_array(whole.transpose(0, axis).contiguous().numpy(), names[0]),
        numpy_helper.from_array(scale.numpy(), names[1]),
        helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis),
    )


def largest_difference(model: AcousticModel, path: Path) -> float:
    """How far log-probs of an ONNX file are from ``model``'s, of noise at changing levels."""
    import onnxruntime

    generator = np.random.default_rng(0)
    noises = []
    for seconds in CHECKED_SECONDS:
        size = round(model.sample_rate * seconds)
        loudness = 10 ** np.interp(np.arange(size), np.linspace(0, size, 6), generator.uniform(-3, -0.5, 6))
        noises.append(loudness * generator.standard_normal(size))
    samples, lengths = pad_batch(noises)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found, found_frames = session.run(None, {"samples": samples.numpy(), "lengths": lengths.numpy()})
    expected, frames = model.log_probs(samples, lengths)
    if found_frames.tolist() != frames.tolist() or found.shape != expected.shape:
        return math.inf
    differences = [
        np.abs(row[:count] - wanted[:count]).max()
        for row, wanted, count in zip(found, expected.cpu().numpy(), frames.tolist(), strict=True)
    ]
    return float(max(differences))
