"""Features: parity with librosa and torchaudio, lengths, batching, statistics."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.core.config import ConfigError
from asr.model.features import FeatureConfig, Features, Moments, append_deltas, pad_batch, stack_frames

PLAIN = {"preemphasis": 0.0, "normalisation": "none"}
CONFIGS = [
    FeatureConfig(),
    FeatureConfig(kind="mfcc", deltas=2),
    FeatureConfig(sample_rate=8000, n_mels=40, deltas=1, stack=3, skip=2),
    FeatureConfig(stack=2, skip=3, normalisation="none"),
]


def speechlike(num_samples: int, seed: int = 0) -> np.ndarray:
    """Noise whose loudness and colour move, as those of speech do, in 16 bits."""
    generator = np.random.default_rng(seed)
    noise = np.cumsum(generator.standard_normal(num_samples + 200)) * 0.01
    noise = noise[200:] - np.convolve(noise, np.ones(200) / 200, mode="valid")[1:]
    noise = noise * (1.2 + np.sin(np.arange(num_samples) / 3000))
    return (np.rint(noise * 32768) / 32768).astype(np.float32)


def alone(features: Features, samples: np.ndarray) -> np.ndarray:
    frames, lengths = features(*pad_batch([samples]))
    assert frames.shape[1] == lengths[0]
    return frames[0].numpy()


def test_log_mel_is_that_of_librosa():
    config = FeatureConfig(window_ms=32.0, n_mels=64, **PLAIN)
    samples = speechlike(16000)
    energies = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=512, hop_length=160, center=False, n_mels=64, fmin=20.0, fmax=8000.0,
        htk=True, norm=None,
    )  # fmt: skip
    expected = np.log(np.maximum(energies.T, config.floor))
    ours = alone(Features(config), samples)
    assert len(ours) in (len(expected), len(expected) + 1)  # ours sees the last samples too
    np.testing.assert_allclose(ours[: len(expected)], expected, atol=1e-3)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_log_mel_is_that_of_torchaudio(rate):
    config = FeatureConfig(sample_rate=rate, preemphasis=0.97, normalisation="none")
    samples = speechlike(rate)
    n_fft = 512 if rate == 16000 else 256
    transform = torchaudio.transforms.MelSpectrogram(
        rate, n_fft=n_fft, win_length=config.window, hop_length=config.hop, f_min=20.0, n_mels=80,
        center=False,
    )  # fmt: skip
    emphasised = torchaudio.functional.preemphasis(torch.from_numpy(samples), 0.97)
    # torchaudio centres a short window in the FFT, which shifts its frames by half of what is missing.
    shift = (n_fft - config.window) // 2
    energies = transform(torch.nn.functional.pad(emphasised, (shift, shift)))
    expected = energies.T.clamp(min=config.floor).log().numpy()
    ours = alone(Features(config), samples)[: len(expected)]
    np.testing.assert_allclose(ours, expected[: len(ours)], atol=2e-3)


def test_mfcc_is_that_of_librosa_and_torchaudio():
    config = FeatureConfig(kind="mfcc", window_ms=32.0, n_mels=40, n_mfcc=13, **PLAIN)
    samples = speechlike(16000)
    ours = alone(Features(config), samples)
    log_mel = alone(Features(FeatureConfig(window_ms=32.0, n_mels=40, **PLAIN)), samples)
    by_librosa = librosa.feature.mfcc(S=log_mel.T, n_mfcc=13, dct_type=2, norm="ortho").T
    np.testing.assert_allclose(ours, by_librosa, atol=1e-3)
    transform = torchaudio.transforms.MFCC(
        16000, n_mfcc=13, log_mels=True,
        melkwargs={"n_fft": 512, "hop_length": 160, "center": False, "n_mels": 40, "f_min": 20.0},
    )  # fmt: skip
    by_torchaudio = transform(torch.from_numpy(samples)).T.numpy()  # its floor, 1e-6 added, is another one
    np.testing.assert_allclose(ours[: len(by_torchaudio)], by_torchaudio, rtol=0.02, atol=0.02)


def test_deltas_are_those_of_torchaudio():
    features = torch.randn(1, 30, 5)
    expected = torchaudio.functional.compute_deltas(features.transpose(1, 2)).transpose(1, 2)
    ours = append_deltas(features, torch.tensor([30]), 1)
    torch.testing.assert_close(ours[..., 5:], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours[..., :5], features)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_number_of_frames_is_exact(config):
    features = Features(config)
    for num_samples in range(2001):
        frames, lengths = features.extract(torch.ones(1, num_samples), torch.tensor([num_samples]))
        assert frames.shape == (1, config.num_frames(num_samples), config.size)
        assert lengths.tolist() == [config.num_frames(num_samples)]


def test_every_sample_is_seen():
    features = Features(FeatureConfig(**PLAIN))
    for num_samples in (2, 399, 400, 401, 560, 561, 700):
        samples = torch.zeros(1, num_samples)
        samples[0, -1] = 1e3  # loud, because the window weighs its last sample with 6e-5
        frames, _ = features(samples, torch.tensor([num_samples]))
        assert frames.max() > np.log(1e-8), f"the last of {num_samples} samples left no trace"


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(0, 6000), min_size=2, max_size=5))
def test_alone_is_as_in_a_batch(config, lengths):
    features = Features(config)
    utterances = [speechlike(length, seed) for seed, length in enumerate(lengths)]
    samples, sample_lengths = pad_batch(utterances)
    for row, length in zip(samples, lengths, strict=True):
        row[length:] = 7.0  # what stands in the padding must not matter
    batch, frame_lengths = features(samples, sample_lengths)
    for row, length, utterance in zip(batch, frame_lengths.tolist(), utterances, strict=True):
        np.testing.assert_allclose(row[:length].numpy(), alone(features, utterance), atol=1e-3)
        assert (row[length:] == 0).all()


def test_utterance_normalisation_gives_mean_0_and_variance_1():
    frames = alone(Features(FeatureConfig()), speechlike(32000))
    np.testing.assert_allclose(frames.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(frames.std(0), 1, atol=1e-3)


def test_silence_is_finite():
    assert np.isfinite(alone(Features(FeatureConfig(deltas=2)), np.zeros(8000, np.float32))).all()


def test_global_statistics_are_saved_and_used():
    config = FeatureConfig(normalisation="global")
    features = Features(config)
    utterances = [speechlike(n, n) for n in (4000, 9000, 16000)]
    features.fit([pad_batch(utterances[:2]), pad_batch(utterances[2:])])
    frames, lengths = features(*pad_batch(utterances))
    every = torch.cat([row[:length] for row, length in zip(frames, lengths.tolist(), strict=True)])
    torch.testing.assert_close(every.mean(0), torch.zeros(80), atol=1e-4, rtol=0)
    torch.testing.assert_close(every.std(0, correction=0), torch.ones(80), atol=1e-4, rtol=0)
    again = Features(config)
    again.load_state_dict(features.state_dict())
    torch.testing.assert_close(again(*pad_batch(utterances))[0], frames)
    assert set(features.state_dict()) == {"mean", "std"}


def test_speaker_statistics_are_used_when_given():
    features = Features(FeatureConfig(normalisation="speaker"))
    samples, lengths = pad_batch([speechlike(8000), speechlike(6000, 1)])
    raw, _ = features.extract(samples, lengths)
    mean, std = torch.full((2, 80), 2.0), torch.full((2, 80), 4.0)
    frames, frame_lengths = features(samples, lengths, (mean, std))
    first = int(frame_lengths[0])
    torch.testing.assert_close(frames[0, :first], (raw[0, :first] - 2) / 4)
    own, _ = features(samples, lengths)
    torch.testing.assert_close(own, Features(FeatureConfig())(samples, lengths)[0])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_merged_moments_are_those_of_all_frames(counts, offset):
    batches = [torch.randn(1, count, 3) + offset for count in counts]
    moments = Moments.empty(3)
    for batch in batches:
        moments = moments.add(batch, torch.tensor([batch.shape[1]]))
    mean, std = moments.statistics()
    every = torch.cat(batches, dim=1)[0].double()
    torch.testing.assert_close(mean, every.mean(0).float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(std, every.std(0, correction=0).float().clamp(min=1e-3), rtol=1e-4, atol=1e-5)


def test_stacking_joins_and_skips():
    features = torch.arange(1.0, 6.0).reshape(1, 5, 1)
    joined, lengths = stack_frames(features, torch.tensor([5]), stack=3, skip=2)
    assert joined.tolist() == [[[1, 2, 3], [3, 4, 5], [5, 0, 0]]]
    assert lengths.tolist() == [3]


@pytest.mark.parametrize(
    ("key", "value"),
    [("hop_ms", 0.0), ("n_mels", 0), ("high_hz", 9000.0), ("deltas", 3), ("skip", 0), ("low_hz", 8000.0)],
)
def test_impossible_values_are_named(key, value):
    with pytest.raises(ConfigError, match=f"features.{key}"):
        FeatureConfig(**{key: value})


def test_samples_are_rounded_to_16_bits():
    features = Features(FeatureConfig(**PLAIN))
    fine = speechlike(4000) + np.random.default_rng(1).uniform(-0.4, 0.4, 4000).astype(np.float32) / 32768
    assert not np.array_equal(fine, speechlike(4000))
    np.testing.assert_array_equal(alone(features, fine), alone(features, speechlike(4000)))
