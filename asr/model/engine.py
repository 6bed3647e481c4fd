"""The torch engine: an ``AcousticModel`` as the ``Network`` of a recogniser.

Torch has one number of threads for the whole process; transcribing sets it here and nowhere else.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from asr.model.acoustic import AcousticModel, convert_precision
from asr.model.features import pad_batch, unpad
from asr.model.folder import load_acoustic_model
from asr.recognition.network import Network
from asr.recognition.recognizer import Recognizer
from asr.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class TorchNetwork:
    """A ``Network`` whose log-probs torch computes."""

    model: AcousticModel

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self.model.sample_rate

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""
        return self.model.frame_samples

    @property
    def threads(self) -> int:
        """As many as torch has."""
        return torch.get_num_threads()

    @property
    def settings(self) -> dict[str, object]:
        """What log-probs depend on besides the weights."""
        return {"device": self.model.device.type, "compute_type": self.model.compute_type}

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order.

        On a processor each thread takes a batch: the steps of a recurrent layer follow one another and
        are too small to be shared, so that two threads are hardly faster than one with a single batch.
        """
        threads = self.threads
        workers = min(threads, len(batches)) if self.model.device.type == "cpu" else 1
        if workers <= 1:
            yield from map(self._batch_log_probs, batches)
            return
        try:
            with ThreadPoolExecutor(workers, "asr", torch.set_num_threads, (threads // workers,)) as pool:
                yield from pool.map(self._batch_log_probs, batches)
        finally:
            torch.set_num_threads(threads)  # or threads started later would have as few as the workers
            return_free_memory()

    def _batch_log_probs(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        return unpad(*self.model.log_probs(*pad_batch(samples)))


def open_torch_network(folder: Path, device: str, compute_type: str, threads: int | None = None) -> Network:
    """``open_network``, with torch; ``threads`` are then those of the whole process."""
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchNetwork(convert_precision(load_acoustic_model(folder, device), compute_type))


def wrap_model(model: AcousticModel, tokenizer: Tokenizer) -> Recognizer:
    """Make a recogniser with greedy search around a model in memory."""
    return Recognizer(model.name, tokenizer, model.config.text, TorchNetwork(model))


def unwrap_model(recognizer: Recognizer) -> AcousticModel:
    """Return the model inside a recogniser whose network is torch's."""
    assert isinstance(recognizer.network, TorchNetwork), "only torch's network has its tensors"
    return recognizer.network.model


def return_free_memory() -> None:
    """Return free memory to the system: glibc keeps what each thread has freed, a tenth of a gigabyte."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
