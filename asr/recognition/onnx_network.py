"""The ONNX engine: a ``model.onnx`` of a model folder as the ``Network`` of a recogniser, without torch.

The file has features and network in one graph, so samples go in. Nothing in it is executed but ONNX's own
operators, and what is read from its metadata is checked first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr.core.cores import choose_threads
from asr.pretrained import ModelFolderError
from asr.recognition.folder import ONNX_FILE
from asr.recognition.onnx_file import check_onnx
from asr.recognition.onnx_int8 import multiply_in_8_bits
from asr.recognition.onnx_weights import read_model
from asr.text.tokenizer import read_symbols

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LARGEST_RATE = 1_000_000  # hertz; more is a damaged file
SIGNATURE = (["samples", "lengths"], ["log_probs", "frames"])  # names of inputs and outputs
# ONNX Runtime would convert weights in 8 bits at every run instead of once, and an LSTM whose weights are
# not there from the beginning is slow.
CONVERT_WEIGHTS_ONCE = ("session.disable_quant_qdq", "1")


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A ``Network`` whose log-probs ONNX Runtime computes, a batch on the thread that asks for it."""

    session: InferenceSession
    sample_rate: int  # hertz
    frame_samples: int  # from one row of log-probs to the next
    vocabulary_size: int
    threads: int
    compute_type: str = "float32"

    @property
    def settings(self) -> dict[str, object]:
        """What log-probs depend on besides the weights."""
        return {"device": "cpu", "compute_type": self.compute_type}

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order."""
        return map(self._batch_log_probs, batches)

    def _batch_log_probs(self, batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        samples, lengths = pad_arrays(batch)
        if not samples.size:
            return [np.zeros((0, self.vocabulary_size), np.float32) for _ in batch]
        try:
            rows, frames = self.session.run(SIGNATURE[1], {"samples": samples, "lengths": lengths})
        except Exception as error:  # ONNX Runtime's have no common base
            reason = str(error).partition("\n")[0]
            raise ModelFolderError(f"{ONNX_FILE}: cannot compute; run asr export again ({reason})") from error
        return [array[:count] for array, count in zip(rows, frames.tolist(), strict=True)]


def open_onnx_network(folder: Path, threads: int | None = None, int8: bool = False) -> OnnxNetwork:
    """Open ``model.onnx`` of a model folder.

    Args:
        threads: that may compute batches at the same time; ``None``: as ``choose_threads``.
        int8: multiply LSTM layers in 8 bits where the file has their weights so (``onnx_int8``).

    Raises ``ModelFolderError`` naming the file when it is no model, or not one of this folder.
    """
    path = folder / ONNX_FILE
    check_onnx(path)
    import onnxruntime  # half of the time that a short recording takes

    options = onnxruntime.SessionOptions()
    # Steps of a recurrent layer are too small to be shared: batches and recordings go to threads instead.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised, too
    options.add_session_config_entry(*CONVERT_WEIGHTS_ONCE)
    model = read_model(folder)
    rounded = multiply_in_8_bits(model or path.read_bytes()) if int8 else None
    try:
        session = onnxruntime.InferenceSession(
            rounded or model or path, options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's have no common base
        reason = str(error).splitlines()[0]
        raise ModelFolderError(f"{path}: is no model that ONNX Runtime can open: {reason}") from error
    numbers = read_numbers(session, path)
    size = len(read_symbols(folder))
    if session.get_outputs()[0].shape[-1] != size:
        raise ModelFolderError(f"{path}: does not fit the {size} tokens of {folder}; run asr export again")
    compute_type = "float32" if rounded is None else "int8"
    return OnnxNetwork(session, *numbers, size, choose_threads(threads), compute_type)


def read_numbers(session: InferenceSession, path: Path) -> tuple[int, int]:
    """Read the sampling rate and the samples of a frame; raises ``ModelFolderError`` naming ``path``."""
    names = tuple([item.name for item in items] for items in (session.get_inputs(), session.get_outputs()))
    entries = session.get_modelmeta().custom_metadata_map
    rate, frame = (entries.get(key, "") for key in ("sample_rate", "frame_samples"))
    if names != SIGNATURE or not (rate.isdecimal() and frame.isdecimal()):
        raise ModelFolderError(f"{path}: is not what asr export writes; run it again")
    if not (1 <= int(rate) <= LARGEST_RATE and 1 <= int(frame) <= LARGEST_RATE):
        raise ModelFolderError(f"{path}: cannot have {rate} samples a second and {frame} a frame")
    return int(rate), int(frame)


def pad_arrays(batch: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pad arrays of samples to ``(batch, samples)`` float32 with zeros; also return their lengths, int64."""
    lengths = np.array([len(array) for array in batch], dtype=np.int64)
    samples = np.zeros((len(batch), lengths.max(initial=0)), np.float32)
    for row, array in zip(samples, batch, strict=True):
        row[: len(array)] = array
    return samples, lengths
