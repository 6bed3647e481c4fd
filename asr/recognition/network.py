"""The network behind a recogniser: samples in, log-probs out, whichever library computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from asr.errors import UserError
from asr.recognition.folder import ONNX_FILE, has_decoder

if TYPE_CHECKING:
    import numpy as np

    from asr.search.spelling_beam import StepScorer

# What a network can compute in. ``usual``: ONNX Runtime multiplies LSTM weights that a file has in 8 bits as
# they are, where the processor does so exactly; all else is float32.
COMPUTE_TYPES = ("usual", "auto", "float32", "bfloat16", "int8")
ENGINES = ("auto", "onnx", "torch")  # libraries that compute it
INSTALL_TORCH = "pip install 'asr[train]'"
TORCH_ENGINE = "asr.model.engine"  # by name, so that nothing here imports torch before it is needed


class Network(Protocol):
    """What a recogniser needs of a network; any number of threads may call it at the same time."""

    @property
    def sample_rate(self) -> int:
        """Hertz."""

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""

    @property
    def threads(self) -> int:
        """Processor threads that it may keep busy."""

    @property
    def settings(self) -> dict[str, object]:
        """What log-probs depend on besides the weights: ``device`` and ``compute_type``."""

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order."""


class SpellingNetwork(Network, Protocol):
    """A network that also has a decoder with attention."""

    @property
    def knows_ctc(self) -> bool:
        """Whether its log-probs mean something: a decoder may have learned alone."""

    def reveal_states(self) -> Network:
        """Return the same network with what its decoder looks at behind the log-probs of each row."""

    def start_spelling(self, states: np.ndarray) -> StepScorer:
        """Start the decoder on the states of a recording, ``(frames, size)``, at least one frame."""


def open_network(
    folder: Path, device: str, compute_type: str, threads: int | None = None, engine: str = "auto"
) -> Network:
    """Open the network of a model folder.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``.
        compute_type: one of ``COMPUTE_TYPES``.
        threads: processor threads to use; ``None`` means one a core, or what torch has.
        engine: one of ``ENGINES``, as ``choose_engine``.

    Raises:
        ModelFolderError: a file is missing or does not fit; the error names it.
        UserError: the device or the compute type is unknown, or not available on this machine, or it takes
            torch and there is none.
    """
    if engine == "auto":
        engine = choose_engine(folder, device, compute_type)
        if compute_type == "int8" and choose_engine(folder, device, "usual") == "onnx":
            network = _open_onnx(folder, compute_type, threads)
            if network.settings["compute_type"] == compute_type:
                return network
    if engine == "onnx":
        if has_decoder(folder):
            raise UserError(
                f"{folder}: has an attention decoder, which ONNX Runtime cannot run: engine='torch'"
            )
        return _open_onnx(folder, compute_type, threads)
    if compute_type == "usual":
        compute_type = "float32"
    if find_spec("torch") is None:
        raise UserError(explain_torch(folder, device, compute_type))
    return cast(Network, import_module(TORCH_ENGINE).open_torch_network(folder, device, compute_type))


def _open_onnx(folder: Path, compute_type: str, threads: int | None) -> Network:
    from asr.recognition.onnx_int8 import multiplies_exactly
    from asr.recognition.onnx_network import open_onnx_network

    int8 = compute_type == "int8" or (compute_type == "usual" and multiplies_exactly())
    return open_onnx_network(folder, threads, int8)


def choose_engine(folder: Path, device: str, compute_type: str) -> str:
    """Choose ``onnx`` where the folder has the file, unless a GPU or another precision is asked for."""
    is_usual = device in ("auto", "cpu") and compute_type in ("usual", "auto", "float32")
    is_there = (folder / ONNX_FILE).exists() and not has_decoder(folder)
    return "onnx" if is_usual and is_there else "torch"


def explain_torch(folder: Path, device: str, compute_type: str) -> str:
    """Explain in one line why torch is needed, and how to get it."""
    install = f"needs torch: {INSTALL_TORCH}"
    if device not in ("auto", "cpu"):
        return f"--device {device} {install}"
    if compute_type not in ("usual", "auto", "float32"):
        return f"--compute-type {compute_type} {install}"
    if has_decoder(folder):
        return f"{folder}: its attention decoder {install}"
    if (folder / ONNX_FILE).exists():
        return f"{folder}: to open the weights {install}"
    return f"{folder}: has no {ONNX_FILE}; to write it, asr export --model {folder} {install}"
