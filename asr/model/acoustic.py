"""``AcousticModel``: features and CTC network in one, from samples to log-probs, as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from asr.core.config import option, section
from asr.model.attention import DecoderConfig
from asr.model.ctc import CTCModel
from asr.model.encoders import ENCODERS, EncoderConfig
from asr.model.features import FeatureConfig, Features
from asr.model.precision import autocast, choose_compute_type, quantise
from asr.recognition.folder import FORMAT_VERSION
from asr.text.tokenizer import TextConfig


@dataclass(frozen=True)
class ModelConfig:
    """All that must be known to turn samples into text, besides weights and tokens."""

    format_version: int = option(FORMAT_VERSION, "Raised when an older program could not read this.")
    features: FeatureConfig = section(FeatureConfig)
    text: TextConfig = section(TextConfig)
    encoder: EncoderConfig = section(EncoderConfig)
    decoder: DecoderConfig = section(DecoderConfig)


@dataclass(frozen=True, eq=False)
class AcousticModel:
    """Samples to log-probs; made by ``new_acoustic_model`` or ``load_acoustic_model``."""

    name: str
    config: ModelConfig
    features: Features
    ctc: CTCModel
    compute_type: str = "float32"  # of the network's big products; ``convert_precision`` changes it

    @property
    def modules(self) -> nn.ModuleDict:
        """Everything that has weights or statistics, under the names it has in files."""
        return nn.ModuleDict({"features": self.features, "model": self.ctc})

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so where the work is done."""
        return self.features.window.device

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self.config.features.sample_rate

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""
        return self.config.features.hop * self.config.features.skip * self.ctc.encoder.subsampling

    @property
    def frame_seconds(self) -> float:
        """Seconds from one row of log-probs to the next."""
        return self.frame_samples / self.sample_rate

    def num_frames(self, num_samples: int) -> int:
        """Rows of log-probs made of ``num_samples`` samples."""
        return -(-self.config.features.num_frames(num_samples) // self.ctc.encoder.subsampling)

    @torch.no_grad()
    def log_probs(
        self, samples: Tensor, lengths: Tensor, statistics: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute log-probs of a batch; dropout is off, whatever mode the network is in.

        Args:
            samples: ``(batch, samples)`` float, full scale 1.
            lengths: ``(batch,)`` integer, samples per utterance.
            statistics: as for ``Features.forward``.

        Returns:
            ``(batch, frames, vocabulary)`` natural logarithms and ``(batch,)`` frames per utterance.
        """
        return self.run_network(*self.features(samples.to(self.device), lengths.to(self.device), statistics))

    @torch.no_grad()
    def run_network(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-probs of features, ``(batch, frames, features)`` and ``(batch,)``, as ``log_probs``."""
        _, log_probs, frames = self.run_encoder(features, frames)
        return log_probs, frames

    @torch.no_grad()
    def run_encoder(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``run_network``, but first what a decoder looks at, ``(batch, frames, size)``."""
        training = self.ctc.training
        self.ctc.eval()
        try:
            with autocast(self.device, self.compute_type):
                states, log_probs, frames = self.ctc.encode(features, frames)
        finally:
            self.ctc.train(training)
        return states.float(), log_probs, frames


def new_acoustic_model(config: ModelConfig, vocabulary_size: int, name: str = "") -> AcousticModel:
    """Make a model with fresh weights, drawn from torch's random state."""
    features = config.features
    encoder = ENCODERS[config.encoder.kind](config.encoder, features.size, features.planes)
    network = CTCModel(encoder, vocabulary_size, config.decoder)
    return AcousticModel(name, config, Features(features), network)


def move_to_device(model: AcousticModel, device: torch.device) -> AcousticModel:
    """Move the modules in place; the same model comes back."""
    model.features.to(device)
    model.ctc.to(device)
    return model


def convert_precision(model: AcousticModel, compute_type: str) -> AcousticModel:
    """Make a model of the same weights that computes in one of ``COMPUTE_TYPES``.

    Raises ``UserError`` as ``choose_compute_type``.
    """
    compute_type = choose_compute_type(compute_type, model.device)
    ctc = quantise(model.ctc) if compute_type == "int8" else model.ctc
    if ctc is not model.ctc:
        ctc.decoder = model.ctc.decoder  # too small to gain, and its steps need their weights as they are
    return replace(model, ctc=ctc, compute_type=compute_type)
