"""The network behind a recogniser: samples in, log-probs out, whichever library computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import numpy as np

COMPUTE_TYPES = ("auto", "float32", "bfloat16", "int8")  # what a network can compute in
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


def open_network(folder: Path, device: str, compute_type: str, threads: int | None = None) -> Network:
    """Open the network of a model folder.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``.
        compute_type: one of ``COMPUTE_TYPES``.
        threads: processor threads to use; ``None`` leaves the number to the library.

    Raises:
        ModelFolderError: a file is missing or does not fit; the error names it.
        UserError: the device or the compute type is unknown, or not available on this machine.
    """
    engine = import_module(TORCH_ENGINE)
    return cast(Network, engine.open_torch_network(folder, device, compute_type, threads))
