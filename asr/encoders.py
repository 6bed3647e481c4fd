"""Encoders: feature frames to hidden states.

The contract, held by a test over every entry of ``ENCODERS``: ``forward(features, lengths)`` takes
``(batch, frames, features)`` and integer lengths, returns ``(batch, frames', output_size)`` and the
new lengths, zero beyond them; an utterance gives the same output alone as in a batch, whatever
stands in the padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from asr.config import ConfigError, option
from asr.features import mask, masked


@dataclass(frozen=True)
class EncoderConfig:
    """The network between features and token scores."""

    kind: Literal["recurrent"] = option("recurrent", "Which entry of ENCODERS.")
    layers: int = option(3, "LSTM layers on top of each other.")
    size: int = option(320, "Hidden units per direction and layer.")
    bidirectional: bool = option(True, "Read the utterance from both ends; false: only from the start.")
    residual: bool = option(False, "Add a layer's input to its output where the sizes agree.")
    norm: Literal["none", "layer"] = option("layer", "Normalise each layer's output (Ba et al. 2016).")
    dropout: float = option(0.0, "Share of each layer's outputs set to zero in training.")
    front_end: Literal["none", "conv2", "conv4"] = option(
        "none", "Two 3x3 convolutions that halve or quarter the number of frames."
    )
    channels: int = option(32, "Channels of the convolutions.")

    def __post_init__(self) -> None:
        for key, wrong in {
            "layers": self.layers < 1,
            "size": self.size < 1,
            "channels": self.channels < 1,
            "dropout": not 0 <= self.dropout < 1,
        }.items():
            if wrong:
                raise ConfigError(f"'encoder.{key}' cannot be {getattr(self, key)!r}")


class Encoder(nn.Module):
    """What every encoder has: ``output_size``, ``subsampling`` and ``forward`` as the module says."""

    output_size: int
    subsampling: int = 1  # frames in for one frame out

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class RecurrentEncoder(Encoder):
    """Deep (bidirectional) LSTM (Graves, Mohamed & Hinton 2013), optionally behind convolutions."""

    def __init__(self, config: EncoderConfig, input_size: int) -> None:
        super().__init__()
        self.front_end: ConvSubsampling | None = None
        if config.front_end != "none":
            self.front_end = ConvSubsampling(input_size, config.channels, int(config.front_end[-1]))
            input_size = self.front_end.output_size
            self.subsampling = self.front_end.subsampling
        self.output_size = config.size * (2 if config.bidirectional else 1)
        sizes = [input_size] + [self.output_size] * (config.layers - 1)
        self.layers = nn.ModuleList(LSTMLayer(size, config.size, config.bidirectional) for size in sizes)
        normed = config.norm == "layer"
        self.norms = nn.ModuleList(nn.LayerNorm(self.output_size) if normed else nn.Identity() for _ in sizes)
        self.dropout = nn.Dropout(config.dropout)
        self.residual = config.residual

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        states = masked(features, lengths)
        if self.front_end is not None:
            states, lengths = self.front_end(states, lengths)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            output = self.dropout(norm(layer(states, lengths)))
            states = states + output if self.residual and states.shape == output.shape else output
        return masked(states, lengths), lengths


class LSTMLayer(nn.Module):
    """One LSTM layer on torch's fused kernel (Hochreiter & Schmidhuber 1997; forget gate: Gers 2000).

    The backward direction is an LSTM of its own that reads each utterance turned round within its
    own length. So the padding lies behind the last real frame in both directions and reaches
    nothing, without packed sequences, which lose the fast kernel on CPUs.
    """

    def __init__(self, input_size: int, size: int, bidirectional: bool) -> None:
        super().__init__()
        self.ahead = fresh_lstm(input_size, size)
        self.back: nn.LSTM | None = fresh_lstm(input_size, size) if bidirectional else None

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """``(batch, frames, input)`` to ``(batch, frames, size * directions)``; padding is undefined."""
        ahead, _ = self.ahead(states)
        if self.back is None:
            return ahead
        back, _ = self.back(turned_round(states, lengths))
        return torch.cat([ahead, turned_round(back, lengths)], dim=2)


def fresh_lstm(input_size: int, size: int) -> nn.LSTM:
    """A fused LSTM whose biases are 0 but for the forget gate's 1 (Jozefowicz et al. 2015)."""
    lstm = nn.LSTM(input_size, size, batch_first=True)
    with torch.no_grad():
        for name in ("bias_ih_l0", "bias_hh_l0"):
            lstm.get_parameter(name).zero_()
        lstm.get_parameter("bias_ih_l0")[size : 2 * size] = 1.0  # ordered input, forget, cell, output
    return lstm


def turned_round(states: Tensor, lengths: Tensor) -> Tensor:
    """``(batch, frames, size)`` with each utterance's own frames in reverse order; its own inverse."""
    times = torch.arange(states.shape[1], device=states.device)[None]
    inside = mask(lengths, states.shape[1])
    index = torch.where(inside, lengths[:, None] - 1 - times, times)
    return states.gather(1, index[..., None].expand_as(states))


class ConvSubsampling(nn.Module):
    """Two 3x3 convolutions over time and frequency; time is divided by 2 or 4, frequency by 4."""

    def __init__(self, input_size: int, channels: int, subsampling: int) -> None:
        super().__init__()
        self.subsampling = subsampling
        self.strides = (2, 2 if subsampling == 4 else 1)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, channels, 3, stride=(stride, 2), padding=1)
            for inputs, stride in zip((1, channels), self.strides, strict=True)
        )
        self.output_size = channels * ((input_size + 3) // 4)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, frames, features)`` to ``(batch, ceil(frames / subsampling), output_size)``."""
        states = features[:, None]
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            states = torch.relu(convolution(states))
            lengths = (lengths + stride - 1) // stride
            # The next convolution looks beyond the end, where there must be nothing.
            states = masked(states.transpose(1, 2), lengths).transpose(1, 2)
        return states.transpose(1, 2).flatten(2), lengths


ENCODERS: dict[str, Callable[[EncoderConfig, int], Encoder]] = {"recurrent": RecurrentEncoder}
