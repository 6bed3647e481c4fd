"""Augmentation: what is drawn, and what is done with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asr.augment import (
    AugmentConfig,
    at_speed,
    augmented_samples,
    spec_augmented,
    utterance_generator,
    with_noise,
)
from asr.config import ConfigError


def tone(hertz: float, rate: int = 16000, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def test_the_defaults_do_nothing():
    samples = tone(440)
    out = augmented_samples(samples, AugmentConfig(), utterance_generator(1, 0, "u"))
    np.testing.assert_array_equal(out, samples)


def test_draws_belong_to_seed_epoch_and_utterance():
    draws = [
        utterance_generator(seed, epoch, name).random()
        for seed in (1, 2)
        for epoch in (0, 1)
        for name in ("a", "b")
    ]
    assert len(set(draws)) == len(draws)
    assert draws[0] == utterance_generator(1, 0, "a").random()


@pytest.mark.parametrize("speed", [0.9, 1.1, 1.25])
def test_speed_changes_length_and_pitch(speed):
    faster = at_speed(tone(1000), speed)
    assert len(faster) == pytest.approx(16000 / speed, abs=2)
    spectrum = np.abs(np.fft.rfft(faster))
    peak = np.argmax(spectrum) * 16000 / len(faster)
    assert peak == pytest.approx(1000 * speed, abs=2)


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_noise_has_the_asked_level(snr):
    samples = tone(440, seconds=4)
    noise = with_noise(samples, snr, np.random.default_rng(0)) - samples
    measured = 10 * np.log10(np.mean(samples**2) / np.mean(noise**2))
    assert measured == pytest.approx(snr, abs=0.1)
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02  # white


def test_gain_is_even_in_decibels():
    config = AugmentConfig(gain_db=6.0)
    gains = [
        20 * np.log10(augmented_samples(np.ones(1, np.float32), config, utterance_generator(1, 0, str(i)))[0])
        for i in range(2000)
    ]
    assert min(gains) >= -6 - 1e-4
    assert max(gains) <= 6 + 1e-4
    assert np.mean(gains) == pytest.approx(0, abs=0.3)
    assert np.std(gains) == pytest.approx(12 / 12**0.5, rel=0.05)


def test_speeds_and_noise_come_as_often_as_asked():
    config = AugmentConfig(speeds=(0.9, 1.0, 1.1), noise_share=0.25)
    lengths, noisy = [], 0
    for i in range(1500):
        out = augmented_samples(np.ones(990, np.float32), config, utterance_generator(1, 0, str(i)))
        lengths.append(len(out))
        noisy += bool(len(out) == 990 and (out != 1).any())
    shares = [np.mean(np.array(lengths) == n) for n in (1100, 990, 900)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
    assert noisy / lengths.count(990) == pytest.approx(0.25, abs=0.06)


def test_masks_are_within_their_bounds():
    config = AugmentConfig(frequency_masks=1, frequency_width=5, time_masks=1, time_width_ms=100)
    lengths = torch.tensor([100, 30])
    features = torch.ones(2, 100, 20)
    bands, stretches = [], []
    for i in range(300):
        generators = [utterance_generator(i, 0, name) for name in "ab"]
        out = spec_augmented(features, lengths, config, 10.0, generators)
        again = spec_augmented(features, lengths, config, 10.0, [utterance_generator(i, 0, n) for n in "ab"])
        torch.testing.assert_close(out, again, rtol=0, atol=0)
        for row, length in zip(out, lengths.tolist(), strict=True):
            bands.append(int((row[:length] == 0).all(0).sum()))
            stretches.append((length, int((row == 0).all(1).sum())))
    assert max(bands) == 5
    assert np.mean(bands) == pytest.approx(2.5, abs=0.3)
    assert max(count for length, count in stretches if length == 100) == 10
    assert max(count for length, count in stretches if length == 30) == 6  # a fifth


@pytest.mark.parametrize(
    ("key", "value"), [("speeds", ()), ("gain_db", -1.0), ("noise_share", 2.0), ("noise_snr_db", (3.0,))]
)
def test_impossible_values_are_named(key, value):
    with pytest.raises(ConfigError, match=f"augment.{key}"):
        AugmentConfig(**{key: value})
