"""Changes to training utterances that leave their words alone.

Every draw comes from a generator made for one utterance of one epoch, so that neither the number
of workers nor an interruption changes what a model gets to hear.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asr.config import ConfigError, option


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to training utterances, and how much of it; the defaults do nothing."""

    speeds: tuple[float, ...] = option(
        (1.0,), "Tempo and pitch factors, drawn with equal chance; 0.9, 1.0, 1.1 are usual (Ko et al. 2015)."
    )
    gain_db: float = option(0.0, "Loudness changed by up to this many decibels either way.")
    noise_share: float = option(0.0, "Share of utterances that get white noise.")
    noise_snr_db: tuple[float, ...] = option((10.0, 40.0), "Lowest and highest signal-to-noise ratio drawn.")
    frequency_masks: int = option(0, "Bands of features set to zero (SpecAugment, Park et al. 2019).")
    frequency_width: int = option(0, "Widest band, in features.")
    time_masks: int = option(0, "Stretches of frames set to zero.")
    time_width_ms: float = option(0.0, "Longest stretch.")

    def __post_init__(self) -> None:
        for key, wrong in {
            "speeds": not self.speeds or not all(0.5 <= speed <= 2 for speed in self.speeds),
            "gain_db": self.gain_db < 0,
            "noise_share": not 0 <= self.noise_share <= 1,
            "noise_snr_db": len(self.noise_snr_db) != 2 or self.noise_snr_db[0] > self.noise_snr_db[1],
            "frequency_masks": self.frequency_masks < 0,
            "frequency_width": self.frequency_width < 0,
            "time_masks": self.time_masks < 0,
            "time_width_ms": self.time_width_ms < 0,
        }.items():
            if wrong:
                raise ConfigError(f"'augment.{key}' cannot be {getattr(self, key)!r}")


def utterance_generator(seed: int, epoch: int, utterance: str) -> np.random.Generator:
    """The source of all draws for one utterance in one epoch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{utterance}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def augmented_samples(
    samples: np.ndarray, config: AugmentConfig, generator: np.random.Generator
) -> np.ndarray:
    """``samples`` (float32, full scale 1) at another speed, loudness and with noise, as drawn."""
    # All draws are made whether used or not: switching one change off leaves the others as they were.
    speed = config.speeds[generator.integers(len(config.speeds))]
    gain = generator.uniform(-config.gain_db, config.gain_db)
    noisy = generator.random() < config.noise_share
    snr = generator.uniform(config.noise_snr_db[0], config.noise_snr_db[1])
    if speed != 1.0:
        samples = at_speed(samples, speed)
    if noisy:
        samples = with_noise(samples, snr, generator)
    if gain:
        samples = samples * np.float32(10 ** (gain / 20))
    return samples


def at_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """``samples`` played ``speed`` times as fast: shorter and higher for a speed above 1."""
    import soxr  # only when asked for: a machine that trains from a cache may not have it

    # Only the ratio counts; in thousandths it is exact for every speed that people write.
    return soxr.resample(samples, round(1000 * speed), 1000, quality="MQ")


def with_noise(samples: np.ndarray, snr_db: float, generator: np.random.Generator) -> np.ndarray:
    """``samples`` plus white noise ``snr_db`` decibels below their mean power."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    level = np.float32((power / 10 ** (snr_db / 10)) ** 0.5)
    return samples + level * generator.standard_normal(len(samples), dtype=np.float32)


def spec_augmented(
    features: Tensor,
    lengths: Tensor,
    config: AugmentConfig,
    hop_ms: float,
    generators: list[np.random.Generator],
) -> Tensor:
    """Features with drawn bands and stretches set to 0, the mean of normalised features.

    Args:
        features: ``(batch, frames, features)``.
        lengths: ``(batch,)`` integer, frames per utterance.
        hop_ms: milliseconds from frame to frame.
        generators: one per utterance.

    A stretch is at most ``time_width_ms`` long and at most a fifth of its utterance, so that a
    short word is not struck out altogether.
    """
    keep = np.ones(features.shape, dtype=bool)
    for rows, length, generator in zip(keep, lengths.tolist(), generators, strict=True):
        for _ in range(config.frequency_masks):
            first, width = _stretch(generator, rows.shape[1], config.frequency_width)
            rows[:, first : first + width] = False
        for _ in range(config.time_masks):
            first, width = _stretch(generator, length, min(int(config.time_width_ms / hop_ms), length // 5))
            rows[first : first + width] = False
    return features * torch.from_numpy(keep).to(features.device)


def _stretch(generator: np.random.Generator, size: int, widest: int) -> tuple[int, int]:
    """A drawn stretch within ``size``: where it begins and how wide it is."""
    width = int(generator.integers(0, min(widest, size) + 1))
    return int(generator.integers(0, size - width + 1)), width
