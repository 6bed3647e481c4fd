"""Samples to feature frames: log-mel energies, MFCC or states of another encoder; deltas, stacking,
normalisation.

Everything is batched with integer lengths and runs on the device the samples are on. The padding
after an utterance never reaches its frames: it gives the same frames alone and in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio.functional
from torch import Tensor, nn

from asr.audio.arrays import FULL_SCALE
from asr.core.config import ConfigError, check_bounds, option
from asr.model.states import SAMPLE_RATE, STATE_SAMPLES, StateEncoder, make_probe, open_encoder

LONGEST_WINDOW = 1 << 16  # samples
STD_FLOOR = 1e-3  # a feature that never changes is divided by this instead of by zero


@dataclass(frozen=True)
class FeatureConfig:
    """How samples become frames."""

    kind: Literal["logmel", "mfcc", "states"] = option(
        "logmel",
        "Log-mel energies, their cosine transform, or the hidden states of a pretrained encoder every 20 ms.",
    )
    encoder: str = option(
        "",
        "When kind is 'states': the folder of a Whisper model for CTranslate2 (pip install 'asr[whisper]').",
    )
    state_size: int = option(
        512,
        "Numbers in a state: 384 of Whisper's tiny models, 512 of base, 768 of small.",
        minimum=1,
        maximum=4096,
    )
    sample_rate: int = option(
        16000, "Hertz; recordings at other rates are resampled to it.", minimum=1000, maximum=1e6
    )
    window_ms: float = option(25.0, "Length of the Hann window.", above=0, maximum=1000)
    hop_ms: float = option(10.0, "Time from one window to the next.", above=0, maximum=1000)
    n_mels: int = option(80, "Mel filters, triangles on the HTK mel scale.", minimum=1, maximum=1024)
    n_mfcc: int = option(13, "Cepstral coefficients kept when kind is 'mfcc'.", minimum=1, maximum=1024)
    low_hz: float = option(20.0, "Lower edge of the lowest filter.", minimum=0, maximum=1e6)
    high_hz: float = option(
        0.0, "Upper edge of the highest filter; 0 means half the sampling rate.", minimum=0, maximum=1e6
    )
    preemphasis: float = option(
        0.97, "x[t] - preemphasis * x[t - 1]; 0 leaves the samples as they are.", minimum=-1, maximum=1
    )
    floor: float = option(
        1e-8,
        "Filter energies below this are raised to it before the logarithm.",
        minimum=1e-30,
        maximum=1e6,
    )
    deltas: int = option(
        0,
        "Time derivatives appended to each frame: 0, 1 (first) or 2 (first and second).",
        minimum=0,
        maximum=2,
    )
    stack: int = option(1, "Consecutive frames joined into one.", minimum=1, maximum=64)
    skip: int = option(
        1, "Keep every skip-th (stacked) frame, so that the encoder has fewer steps.", minimum=1, maximum=64
    )
    normalisation: Literal["none", "utterance", "speaker", "global"] = option(
        "utterance", "The frames over which each feature is given mean 0 and variance 1."
    )

    def __post_init__(self) -> None:
        check_bounds(self, "features")
        self._check_states()
        top = self.high_hz or self.sample_rate / 2
        for key, wrong, reason in (
            ("window_ms", self.window < 1, "it must be at least one sample long"),
            ("window_ms", self.window > LONGEST_WINDOW, f"it must be at most {LONGEST_WINDOW} samples long"),
            ("hop_ms", self.hop < 1, "it must be at least one sample long"),
            ("n_mfcc", self.kind == "mfcc" and self.n_mfcc > self.n_mels, f"n_mels is only {self.n_mels}"),
            ("high_hz", top > self.sample_rate / 2, f"half the sampling rate is {self.sample_rate / 2:g}"),
            ("low_hz", self.low_hz >= top, f"the highest filter ends at {top:g}"),
        ):
            if wrong:
                raise ConfigError(f"'features.{key}' cannot be {getattr(self, key)!r}: {reason}")

    def _check_states(self) -> None:
        """Raise ``ConfigError`` for options of spectra with states, and for options of states without."""
        if self.kind != "states":
            if self.encoder:
                raise ConfigError(f"'features.encoder' is for kind 'states', and the kind is {self.kind!r}")
            return
        if self.sample_rate != SAMPLE_RATE:
            raise ConfigError(
                f"'features.sample_rate' cannot be {self.sample_rate}: the encoder takes {SAMPLE_RATE}"
            )
        for key in ("window_ms", "hop_ms", "n_mels", "n_mfcc", "low_hz", "high_hz", "preemphasis", "floor"):
            if getattr(self, key) != getattr(FeatureConfig, key):
                raise ConfigError(f"'features.{key}' is for spectra; states come every 20 ms as they are")

    @property
    def window(self) -> int:
        """Samples in a window."""
        if self.kind == "states":
            return STATE_SAMPLES
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop(self) -> int:
        """Samples from one window to the next."""
        if self.kind == "states":
            return STATE_SAMPLES
        return round(self.hop_ms * self.sample_rate / 1000)

    @property
    def planes(self) -> int:
        """Parts of a frame with the same frequencies: the features and deltas of each stacked frame."""
        return (1 + self.deltas) * self.stack

    @property
    def size(self) -> int:
        """Numbers in a frame, ``planes`` one after the other."""
        sizes = {"logmel": self.n_mels, "mfcc": self.n_mfcc, "states": self.state_size}
        return sizes[self.kind] * self.planes

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next, skipping included."""
        return self.hop * self.skip / self.sample_rate

    def num_frames(self, num_samples: int) -> int:
        """Frames made of ``num_samples`` samples.

        The first window begins at sample 0; the last is the first one to reach the end, padded with
        zeros. So every sample is seen, and only an empty recording has no frames.
        """
        return math.ceil(self.num_windows(num_samples) / self.skip)

    def num_windows(self, num_samples: int) -> int:
        """Windows that ``num_samples`` samples are cut into: frames before ``skip``."""
        if num_samples <= 0:
            return 0
        return 1 + math.ceil(max(0, num_samples - self.window) / self.hop)


class Features(nn.Module):
    """``FeatureConfig`` as a module without parameters; its buffers move with the model.

    ``mean`` and ``std``, ``(features,)`` each, are the statistics of normalisation ``global``; ``fit``
    measures them. ``encoder`` computes states, where the config asks for them; ``probe``, ``(state_size,)``,
    tells it from others.

    Raises ``UserError`` where the encoder is missing or its states have another size.
    """

    window: Tensor
    filters: Tensor
    cosines: Tensor
    mean: Tensor
    std: Tensor
    probe: Tensor
    encoder: StateEncoder | None

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.n_fft = 1 << max(config.window - 1, 1).bit_length()
        filters = torchaudio.functional.melscale_fbanks(
            self.n_fft // 2 + 1,
            config.low_hz,
            config.high_hz or config.sample_rate / 2,
            config.n_mels,
            config.sample_rate,
        )
        cosines = torchaudio.functional.create_dct(config.n_mfcc, config.n_mels, norm="ortho")
        # Not saved, because the config decides them; the statistics are.
        self.register_buffer("window", torch.hann_window(config.window), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("mean", torch.zeros(config.size), persistent=config.normalisation == "global")
        self.register_buffer("std", torch.ones(config.size), persistent=config.normalisation == "global")
        self.encoder = None
        if config.kind == "states":
            self.encoder = open_encoder(config.encoder)
            if self.encoder.size != config.state_size:
                raise ConfigError(
                    f"'features.state_size' is {config.state_size}, but the states of {config.encoder} have "
                    f"{self.encoder.size} numbers"
                )
            self.register_buffer("probe", make_probe(self.encoder))

    @torch.no_grad()
    def forward(
        self, samples: Tensor, lengths: Tensor, statistics: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the normalised features of a batch.

        Args:
            samples: ``(batch, samples)`` float, full scale 1, anything beyond the lengths.
            lengths: ``(batch,)`` integer, samples per utterance.
            statistics: mean and standard deviation per utterance, each ``(batch, features)``, for
                normalisation ``speaker``; without it every utterance is a speaker of its own.

        Returns:
            ``(batch, frames, features)``, zero beyond the lengths, and ``(batch,)`` frames per utterance.
        """
        features, lengths = self.extract(samples, lengths)
        kind = self.config.normalisation
        if kind == "none":
            return features, lengths
        if kind == "global":
            mean, std = self.mean.expand(len(features), -1), self.std.expand(len(features), -1)
        elif kind == "speaker" and statistics is not None:
            mean, std = statistics
        else:
            mean, std = utterance_statistics(features, lengths)
        return mask_padding((features - mean[:, None]) / std[:, None], lengths), lengths

    @torch.no_grad()
    def extract(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features as ``forward`` does, without normalisation."""
        config = self.config
        counts = [config.num_windows(n) for n in lengths.tolist()]
        frame_lengths = torch.tensor(counts, dtype=torch.long, device=samples.device)
        windows = max(counts, default=0)
        if windows == 0:
            return samples.new_zeros(len(samples), 0, config.size, dtype=torch.float32), frame_lengths
        if self.encoder is not None:
            features = compute_states(self.encoder, samples, lengths, windows)
        else:
            features = self._compute_spectra(samples, lengths, windows)
        features = append_deltas(mask_padding(features, frame_lengths), frame_lengths, config.deltas)
        return stack_frames(features, frame_lengths, config.stack, config.skip)

    def _compute_spectra(self, samples: Tensor, lengths: Tensor, windows: int) -> Tensor:
        """Compute log-mel energies or MFCC, ``(batch, windows, features)``, undefined beyond the lengths."""
        config = self.config
        samples = self._preemphasise(round_samples(samples.float()), lengths)
        missing = (windows - 1) * config.hop + config.window - samples.shape[1]
        samples = F.pad(samples, (0, max(0, missing)))
        frames = samples.unfold(1, config.window, config.hop)[:, :windows]
        power = torch.fft.rfft(frames * self.window, n=self.n_fft).abs().square()
        features = (power @ self.filters).clamp(min=config.floor).log()
        return features @ self.cosines if config.kind == "mfcc" else features

    def _preemphasise(self, samples: Tensor, lengths: Tensor) -> Tensor:
        """Apply pre-emphasis and set the samples to zero beyond the lengths."""
        if self.config.preemphasis:
            samples = samples - self.config.preemphasis * F.pad(samples[:, :-1], (1, 0))
        return mask_padding(samples, lengths)

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure ``mean`` and ``std`` in one pass over batches of ``(samples, lengths)``."""
        moments = Moments.empty(self.config.size)
        for samples, lengths in batches:
            moments = moments.add(*self.extract(samples, lengths))
        mean, std = moments.statistics()
        self.mean.copy_(mean)
        self.std.copy_(std)


def round_samples(samples: Tensor) -> Tensor:
    """Round samples of full scale 1 to 16 bits, as the cache of training data keeps them.

    Decoders of lossy formats leave next to nothing above the band that they keep. Rounding noise is what
    networks have learned to find there; without it the logarithm falls to its floor.
    """
    return torch.round(samples * FULL_SCALE) / FULL_SCALE


def compute_states(encoder: StateEncoder, samples: Tensor, lengths: Tensor, windows: int) -> Tensor:
    """Compute the states of a batch, ``(batch, windows, state_size)`` float32, each recording on its own."""
    states = torch.zeros(len(samples), windows, encoder.size)
    for row, recording, length in zip(states, samples.float().cpu(), lengths.tolist(), strict=True):
        own = encoder.encode(recording[:length].numpy())
        row[: len(own)] = torch.from_numpy(own.astype(np.float32))
    return states.to(samples.device)


@dataclass(frozen=True)
class Moments:
    """Count, mean and summed squared deviations of frames, in float64.

    Merged batch by batch, so that a million frames far from zero lose no digits (Chan, Golub & LeVeque
    1979, equation 2.1).
    """

    count: int
    mean: Tensor  # (features,)
    squares: Tensor  # (features,)

    @staticmethod
    def empty(size: int) -> Moments:
        return Moments(0, torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))

    def add(self, features: Tensor, lengths: Tensor) -> Moments:
        """The moments of these frames and those of a batch, ``(batch, frames, features)``, together."""
        frames = features[length_mask(lengths, features.shape[1])].double().cpu()
        if len(frames) == 0:
            return self
        mean = frames.mean(0)
        squares = (frames - mean).square().sum(0)
        count = self.count + len(frames)
        shift = mean - self.mean
        return Moments(
            count,
            self.mean + shift * (len(frames) / count),
            self.squares + squares + shift.square() * (self.count * len(frames) / count),
        )

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and (floored) standard deviation, each ``(features,)`` float32."""
        std = (self.squares / max(self.count, 1)).sqrt()
        return self.mean.float(), std.float().clamp(min=STD_FLOOR)


def pad_batch(samples: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Arrays of samples as ``(batch, samples)`` float32, zeros after the shorter ones, and their lengths."""
    lengths = torch.tensor([len(array) for array in samples], dtype=torch.long)
    batch = torch.zeros(len(samples), int(lengths.max()) if len(samples) else 0)
    for row, array in zip(batch, samples, strict=True):
        row[: len(array)] = torch.from_numpy(np.asarray(array, dtype=np.float32))
    return batch, lengths


def unpad(rows: Tensor, lengths: Tensor) -> list[np.ndarray]:
    """The members of a batch ``(batch, frames, ...)`` as arrays of their own lengths."""
    return [array[:length] for array, length in zip(rows.cpu().numpy(), lengths.tolist(), strict=True)]


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """``(batch, size)`` booleans, true before each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def mask_padding(values: Tensor, lengths: Tensor) -> Tensor:
    """Set ``values``, ``(batch, time, ...)``, to zero beyond each length."""
    inside = length_mask(lengths, values.shape[1])
    return values.masked_fill(~inside.reshape(*inside.shape, *[1] * (values.dim() - 2)), 0.0)


def utterance_statistics(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (floored) standard deviation over each utterance's frames, each ``(batch, features)``.

    ``features`` must be zero beyond the lengths.
    """
    count = lengths.clamp(min=1)[:, None]
    mean = features.sum(1) / count
    squares = mask_padding(features - mean[:, None], lengths).square().sum(1)
    return mean, (squares / count).sqrt().clamp(min=STD_FLOOR)


def append_deltas(features: Tensor, lengths: Tensor, order: int) -> Tensor:
    """Append time derivatives up to ``order``: ``(batch, frames, features * (1 + order))``.

    They are regressions over two frames to either side, with the first and the last frame repeated beyond
    the ends (Young et al., The HTK Book 3.4, equation 5.16).
    """
    parts = [features]
    for _ in range(order):
        parts.append(mask_padding(_slope(parts[-1], lengths), lengths))
    return torch.cat(parts, dim=2)


def _slope(features: Tensor, lengths: Tensor) -> Tensor:
    last = (lengths - 1).clamp(min=0)[:, None]
    times = torch.arange(features.shape[1], device=features.device)[None]

    def shift(offset: int) -> Tensor:
        index = torch.minimum((times + offset).clamp(min=0), last)
        return features.gather(1, index[..., None].expand_as(features))

    return (2 * (shift(2) - shift(-2)) + shift(1) - shift(-1)) / 10


def stack_frames(features: Tensor, lengths: Tensor, stack: int, skip: int) -> tuple[Tensor, Tensor]:
    """Join ``stack`` consecutive frames at every ``skip``-th frame, with zeros beyond the end.

    Returns ``(batch, ceil(frames / skip), features * stack)`` and the new lengths.
    """
    if stack == skip == 1:
        return features, lengths
    count = math.ceil(features.shape[1] / skip)
    missing = (count - 1) * skip + stack - features.shape[1]
    windows = F.pad(features, (0, 0, 0, max(0, missing))).unfold(1, stack, skip)[:, :count]
    joined = windows.transpose(2, 3).flatten(2)
    lengths = (lengths + skip - 1) // skip
    return mask_padding(joined, lengths), lengths
