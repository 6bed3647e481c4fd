"""The torch engine: an ``AcousticModel`` as the ``Network`` of a recogniser.

Torch has one number of threads for the whole process, which belongs to the program: nothing is set here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from asr.model.acoustic import AcousticModel, convert_precision
from asr.model.attention import DecoderScorer
from asr.model.features import pad_batch, unpad
from asr.model.folder import load_acoustic_model
from asr.recognition.network import Network
from asr.recognition.recognizer import Recognizer, add_decoder
from asr.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class TorchNetwork:
    """A ``Network`` whose log-probs torch computes."""

    model: AcousticModel
    lock: AbstractContextManager[object] = field(default_factory=Lock)
    with_states: bool = False  # behind log-probs, in each row: for a decoder that looks at them

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

        ``with_states``, rows are ``(frames, vocabulary + size)``.

        One batch at a time, whoever asks: torch spreads it over its own threads.
        """
        for samples in batches:
            with self.lock:
                rows = unpad(*self.compute_rows(*pad_batch(samples)))
            yield rows

    @property
    def knows_ctc(self) -> bool:
        """Whether its log-probs mean something: a decoder may have learned alone."""
        return self.model.ctc.decoder is None or self.model.config.decoder.ctc_weight > 0

    def reveal_states(self) -> TorchNetwork:
        """Return the same network with its decoder's states behind the log-probs."""
        return replace(self, with_states=True)

    @torch.no_grad()
    def start_spelling(self, states: np.ndarray) -> DecoderScorer:
        """Start the decoder on the states of a recording, ``(frames, size)``, at least one frame."""
        decoder = self.model.ctc.decoder
        assert decoder is not None
        device = self.model.device
        memory = torch.from_numpy(np.array(states[None])).to(device)
        return DecoderScorer(decoder, decoder.remember(memory, torch.tensor([len(states)], device=device)))

    @torch.no_grad()
    def compute_rows(
        self, samples: Tensor, lengths: Tensor, statistics: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the rows of a batch of samples; arguments and results as of ``AcousticModel.log_probs``."""
        model = self.model
        if not self.with_states:
            return model.log_probs(samples, lengths, statistics)
        features = model.features(samples.to(model.device), lengths.to(model.device), statistics)
        states, log_probs, frames = model.run_encoder(*features)
        return torch.cat([log_probs, states], dim=2), frames


def open_torch_network(folder: Path, device: str, compute_type: str) -> Network:
    """``open_network``, with torch."""
    return TorchNetwork(convert_precision(load_acoustic_model(folder, device), compute_type))


def wrap_model(model: AcousticModel, tokenizer: Tokenizer) -> Recognizer:
    """Make a recogniser with greedy search around a model in memory."""
    recognizer = Recognizer(model.name, tokenizer, model.config.text, TorchNetwork(model))
    return recognizer if model.ctc.decoder is None else add_decoder(recognizer)


def unwrap_model(recognizer: Recognizer) -> AcousticModel:
    """Return the model inside a recogniser; raises ``TypeError`` where its network is not torch's."""
    return unwrap_network(recognizer).model


def unwrap_network(recognizer: Recognizer) -> TorchNetwork:
    """Return the network inside a recogniser; raises ``TypeError`` where it is not torch's."""
    if not isinstance(recognizer.network, TorchNetwork):
        raise TypeError("only a network of torch has tensors: open the model with engine='torch'")
    return recognizer.network
