"""The torch engine: an ``AcousticModel`` as the ``Network`` of a recogniser.

Torch has one number of threads for the whole process, which belongs to the program: nothing is set here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

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
    lock: AbstractContextManager[object] = field(default_factory=Lock)

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

        One batch at a time, whoever asks: torch spreads it over its own threads.
        """
        for samples in batches:
            with self.lock:
                rows = unpad(*self.model.log_probs(*pad_batch(samples)))
            yield rows


def open_torch_network(folder: Path, device: str, compute_type: str) -> Network:
    """``open_network``, with torch."""
    return TorchNetwork(convert_precision(load_acoustic_model(folder, device), compute_type))


def wrap_model(model: AcousticModel, tokenizer: Tokenizer) -> Recognizer:
    """Make a recogniser with greedy search around a model in memory."""
    return Recognizer(model.name, tokenizer, model.config.text, TorchNetwork(model))


def unwrap_model(recognizer: Recognizer) -> AcousticModel:
    """Return the model inside a recogniser; raises ``TypeError`` where its network is not torch's."""
    if not isinstance(recognizer.network, TorchNetwork):
        raise TypeError("only a network of torch has tensors: open the model with engine='torch'")
    return recognizer.network.model
