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
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr import __version__
from asr.core.files import replace_file
from asr.errors import UserError
from asr.model.acoustic import AcousticModel
from asr.model.cells import FUSED
from asr.model.features import Features, append_deltas, mask_padding, pad_batch, utterance_statistics
from asr.text.tokenizer import Tokenizer

OPSET = 17
TOLERANCE = 1e-4  # the largest difference of log-probs between ONNX Runtime and torch
CHECKED_SECONDS = (2.3, 0.7, 1.1)  # of a batch that is compared with torch after every export


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


def export_onnx(model: AcousticModel, tokenizer: Tokenizer, path: str | Path) -> float:
    """Write ``model`` as ONNX, all of it or nothing; returns the largest difference of its log-probs.

    Inputs are ``samples (batch, samples)`` float32 and ``lengths (batch,)`` int64, outputs ``log_probs
    (batch, frames, tokens)`` and ``frames (batch,)``; batch and samples may be of any size. The
    metadata holds the rest that a program must know, such as the text of every token.

    Raises ``ExportError`` where an extra is not installed, for a network that ONNX has no operators for, and
    when ONNX Runtime's log-probs differ from torch's by more than ``TOLERANCE``.
    """
    for library in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(library) is None:
            raise ExportError(f"exporting needs {library}: pip install 'asr[onnx]'")
    check_exportable(model)
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
        add_metadata(temporary, describe_model(model, tokenizer))
        difference = largest_difference(model, temporary)
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{path}: ONNX Runtime and torch differ by {difference:.2g}; nothing was written"
            )
    return difference


def check_exportable(model: AcousticModel) -> None:
    """Raise ``ExportError`` for networks that only torch can run over any number of frames."""
    encoder = model.config.encoder
    wrong = {
        f"cell {encoder.cell!r}": encoder.kind == "recurrent" and encoder.cell not in FUSED,
        "zoneout": encoder.zoneout > 0,
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
        "frame_seconds": repr(model.frame_seconds),
        "tokens": json.dumps(tokenizer.surfaces, ensure_ascii=False),  # the blank first
        "normaliser": model.config.text.normaliser,
        "model": model.name,
        "asr_version": __version__,
    }


def add_metadata(path: Path, entries: Mapping[str, str]) -> None:
    """Add ``entries`` to the metadata of an ONNX file."""
    import onnx

    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, dict(entries))
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


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
