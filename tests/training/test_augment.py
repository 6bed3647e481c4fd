"""Augmentation: what is drawn, and what is done with it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from asr.core.config import ConfigError
from asr.data.manifest import Utterance
from asr.model.features import pad_batch
from asr.training.augment import (
    Augmentation,
    AugmentConfig,
    AugmentError,
    Sources,
    add_noise,
    augment_samples,
    change_speeds,
    delay,
    find_recordings,
    find_sources,
    length_at_speed,
    reverberate,
    sample_augmentation,
    sample_noise,
    sample_pink_noise,
    spec_augment,
    time_mask_limits,
    transmit_by_telephone,
    utterance_generator,
)

RATE = 8000
VOICES = [Utterance(f"u{n}", f"{n}") for n in range(12)]


def read(utterance: Utterance) -> np.ndarray:
    """Each voice is a tone of its own, louder or softer than others, a second long."""
    number = int(utterance.audio)
    return (0.1 + 0.05 * number) * tone(200 + 100 * number, RATE)


def tone(hertz: float, rate: int = 16000, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def sources(**config) -> Sources:
    return find_sources(AugmentConfig(**config), RATE, VOICES, read)


def drawn(epoch: int = 0, lengths: int = 1000, seed: int = 1, **config) -> Augmentation:
    """What 1,500 utterances of ``lengths`` samples get."""
    utterances = [Utterance(f"x{n}", "0") for n in range(1500)]
    return sample_augmentation(sources(**config), seed, epoch, utterances, [lengths] * len(utterances))


def row(samples: np.ndarray) -> tuple[Tensor, Tensor]:
    return pad_batch([samples])


def peak_hertz(samples: np.ndarray, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * rate / len(samples)


# --- draws ----------------------------------------------------------------------------------------


def test_the_defaults_do_nothing():
    samples, lengths = pad_batch([tone(440), tone(300)[:5000]])
    augmentation = sample_augmentation(sources(), 1, 0, VOICES[:2], lengths.tolist())
    out, out_lengths = augment_samples(samples, lengths, augmentation)
    assert torch.equal(out, samples)
    assert torch.equal(out_lengths, lengths)


def test_draws_belong_to_seed_epoch_and_utterance():
    draws = [
        utterance_generator(seed, epoch, name).random()
        for seed in (1, 2)
        for epoch in (0, 1)
        for name in ("a", "b")
    ]
    assert len(set(draws)) == len(draws)
    assert draws[0] == utterance_generator(1, 0, "a").random()


EVERYTHING = {
    "speeds": (0.9, 1.0, 1.1),
    "reverb_share": 0.5,
    "rooms": 5,
    "noise_share": 0.7,
    "noise_kinds": ("white", "pink", "babble"),
    "gain_db": 6.0,
    "telephone_share": 0.3,
    "shift_ms": 40.0,
}


def test_an_utterance_is_treated_the_same_in_any_company():
    group = sources(**EVERYTHING)
    samples, lengths = pad_batch([tone(200 + n, RATE, 0.5 + 0.02 * n) for n in range(12)])
    every, every_lengths = augment_samples(
        samples, lengths, sample_augmentation(group, 1, 3, VOICES, lengths.tolist())
    )
    for n in range(12):
        alone = row(samples[n, : lengths[n]].numpy())
        one, length = augment_samples(
            *alone, sample_augmentation(group, 1, 3, VOICES[n : n + 1], alone[1].tolist())
        )
        assert length[0] == every_lengths[n]
        apart = (one[0] - every[n, : one.shape[1]]).abs()
        assert (apart > 5e-6).sum() <= 3  # mu-law may round a sample that lies between two levels either way
        assert apart.max() < 0.05
        assert (every[n, int(length[0]) :] == 0).all()


def test_switching_one_change_off_leaves_the_others_as_they_were():
    whole = drawn(**EVERYTHING)
    for key in ("noise_share", "reverb_share", "gain_db", "telephone_share", "shift_ms"):
        part = drawn(**EVERYTHING | {key: 0.0})
        assert part.speeds == whole.speeds
        assert part.noisy == (whole.noisy if key != "noise_share" else ())
        assert part.reverberant == (whole.reverberant if key != "reverb_share" else ())
        assert torch.equal(part.gains, whole.gains) == (key != "gain_db")
        assert torch.equal(part.bands, whole.bands) == (key != "telephone_share")
        assert (part.shifts == whole.shifts) == (key != "shift_ms")


def test_speeds_noise_and_rooms_come_as_often_as_asked():
    augmentation = drawn(speeds=(0.9, 1.0, 1.1), noise_share=0.25, reverb_share=0.4, noise_snr_db=(0.0, 20.0))
    shares = [augmentation.speeds.count(speed) / 1500 for speed in (0.9, 1.0, 1.1)]
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
    assert len(augmentation.noisy) / 1500 == pytest.approx(0.25, abs=0.04)
    assert len(augmentation.reverberant) / 1500 == pytest.approx(0.4, abs=0.04)
    both = len(set(augmentation.noisy) & set(augmentation.reverberant)) / 1500
    assert both == pytest.approx(0.1, abs=0.03)  # each is drawn by itself
    assert 0 <= float(augmentation.snr_db.min()) < 1
    assert 19 < float(augmentation.snr_db.max()) <= 20
    assert float(augmentation.snr_db.mean()) == pytest.approx(10, abs=1)


def test_a_share_is_telephoned_and_shifts_are_below_their_limit():
    augmentation = drawn(telephone_share=0.2, shift_ms=40.0)
    assert len(augmentation.telephoned) == pytest.approx(300, abs=50)
    assert augmentation.bands.shape == (len(augmentation.telephoned), 2)
    assert min(augmentation.shifts) >= 0
    assert max(augmentation.shifts) < 0.04 * RATE
    assert np.mean(augmentation.shifts) == pytest.approx(0.02 * RATE, rel=0.05)


def test_gain_is_even_in_decibels():
    gains = 20 * np.log10(drawn(gain_db=6.0).gains.numpy())
    assert gains.min() >= -6 - 1e-4
    assert gains.max() <= 6 + 1e-4
    assert gains.mean() == pytest.approx(0, abs=0.3)
    assert gains.std() == pytest.approx(12 / 12**0.5, rel=0.05)


# --- speed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1, 1.25, 0.937])
def test_speed_changes_length_and_pitch(speed):
    faster, lengths = change_speeds(*row(tone(1000)), [speed])
    assert int(lengths[0]) == faster.shape[1] == length_at_speed(16000, speed)
    assert int(lengths[0]) == pytest.approx(16000 / speed, rel=3e-4)
    assert peak_hertz(faster[0].numpy(), 16000) == pytest.approx(1000 * speed, abs=2)
    middle = faster[0, 1000:-1000]
    assert float(middle.square().mean()) == pytest.approx(0.5, rel=0.01)  # as loud as before


def test_speeds_differ_within_a_batch():
    samples, lengths = pad_batch([tone(1000), tone(1000)[:9000], tone(1000)[:12000]])
    together, new_lengths = change_speeds(samples, lengths, [1.1, 0.9, 1.0])
    assert new_lengths.tolist() == [14546, 10000, 12000]
    assert together.shape == (3, 14546)
    for index, speed in enumerate([1.1, 0.9, 1.0]):
        alone, length = change_speeds(
            samples[index : index + 1, : lengths[index]], lengths[index : index + 1], [speed]
        )
        torch.testing.assert_close(together[index, : length[0]], alone[0], rtol=0, atol=1e-6)
        assert (together[index, length[0] :] == 0).all()


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_noise_has_the_asked_level_over_the_utterance_alone(snr):
    samples, lengths = pad_batch([tone(440, seconds=2), tone(440, seconds=0.5)])
    noise = torch.from_numpy(np.random.default_rng(0).uniform(0, 5, (2, 40000)).astype(np.float32))
    out = add_noise(samples, lengths, noise, torch.full((2,), snr)) - samples
    for index, length in enumerate(lengths.tolist()):
        power = samples[index, :length].square().mean() / out[index, :length].square().mean()
        assert 10 * math.log10(float(power)) == pytest.approx(snr, abs=0.01)
        assert (out[index, length:] == 0).all()


def test_silence_and_silent_noise_stay_finite():
    samples, lengths = pad_batch([np.zeros(100, np.float32), tone(440)[:100]])
    out = add_noise(samples, lengths, torch.stack([torch.ones(100), torch.zeros(100)]), torch.zeros(2))
    torch.testing.assert_close(out, samples)


def band_power(samples: np.ndarray, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / RATE)
    return float(spectrum[(frequencies >= low) & (frequencies < high)].sum())


def noise_of(kind: str, size: int = 4 * RATE, number: int = 0, **config) -> np.ndarray:
    group = sources(noise_share=1.0, noise_kinds=(kind,), **config)
    return sample_noise(group, size, utterance_generator(1, 0, f"n{number}"), VOICES[0])


def test_white_noise_has_the_same_power_in_every_hertz():
    noise = noise_of("white")
    powers = [band_power(noise, low, low + 500) for low in range(500, 4000, 500)]
    assert max(powers) / min(powers) < 1.3
    assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.02


def test_pink_noise_has_the_same_power_in_every_octave():
    noise = noise_of("pink", 16 * RATE)
    powers = [band_power(noise, low, 2 * low) for low in (125, 250, 500, 1000, 2000)]
    assert max(powers) / min(powers) < 1.3
    assert len(sample_pink_noise(1, np.random.default_rng(0))) == 1


def test_babble_is_of_some_other_utterances_equally_loud():
    counts = Counter()
    for number in range(60):
        noise = noise_of("babble", 2 * RATE, number, babble_voices=(2, 4))
        powers = [band_power(noise, hertz - 20, hertz + 20) for hertz in range(200, 1400, 100)]
        heard = [power > 0.1 * max(powers) for power in powers]
        assert not heard[0]  # the utterance itself
        counts[sum(heard)] += 1
        loud = [power for power, there in zip(powers, heard, strict=True) if there]
        assert max(loud) / min(loud) < 1.5
    assert set(counts) == {2, 3, 4}
    assert min(counts.values()) > 8


@pytest.fixture
def noise_folder(tmp_path) -> Path:
    """Two recordings below it: a long ramp of tones and a short one."""
    (tmp_path / "deep").mkdir()
    long = np.concatenate([tone(500, RATE), tone(1000, RATE), tone(1500, RATE)])
    soundfile.write(tmp_path / "deep" / "long.wav", long, RATE)
    soundfile.write(tmp_path / "short.flac", tone(3000, RATE, 0.3), RATE)
    (tmp_path / "README.txt").write_text("not a recording")
    return tmp_path


def test_recorded_noise_is_a_drawn_stretch_of_a_drawn_recording(noise_folder):
    peaks = Counter()
    for number in range(80):
        noise = noise_of("recorded", RATE // 2, number, noise_folder=str(noise_folder))
        assert len(noise) == RATE // 2
        assert float(np.mean(noise[-RATE // 10 :] ** 2)) > 0.1  # the short one is repeated to the end
        peaks[round(peak_hertz(noise, RATE) / 500) * 500] += 1
    assert set(peaks) == {500, 1000, 1500, 3000}
    assert peaks[3000] == pytest.approx(40, abs=15)


# --- rooms ----------------------------------------------------------------------------------------


def test_a_room_is_a_convolution_within_the_utterances_length():
    generator = np.random.default_rng(0)
    samples = generator.standard_normal((2, 5000)).astype(np.float32)
    responses = generator.standard_normal((2, 300)).astype(np.float32)
    heard = reverberate(torch.from_numpy(samples), torch.from_numpy(responses))
    for index in range(2):
        expected = np.convolve(samples[index], responses[index])[:5000]
        np.testing.assert_allclose(heard[index], expected, atol=1e-3)


def test_reverberant_speech_comes_at_once_and_about_as_loud():
    noise = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32)
    noise[:RATE] = 0
    samples, lengths = pad_batch([noise] * 10)
    augmentation = sample_augmentation(sources(reverb_share=1.0), 1, 0, VOICES[:10], lengths.tolist())
    out, _ = augment_samples(samples, lengths, augmentation)
    assert float(out[:, :RATE].abs().max()) < 1e-4
    assert (out[:, RATE : RATE + 80].square().mean(1) > 0.05).all()
    assert float(out[:, RATE:].square().mean()) == pytest.approx(1.0, rel=0.15)
    assert not torch.equal(out[0], out[1])


def test_recorded_responses_are_taken_where_there_are_some(tmp_path):
    response = np.zeros(500, np.float32)
    response[100], response[180] = 0.5, -0.25
    soundfile.write(tmp_path / "hall.wav", response, RATE, subtype="FLOAT")
    augmentation = drawn(reverb_share=1.0, reverb_folder=str(tmp_path))
    assert augmentation.responses.shape == (1500, 400)
    expected = np.zeros(400, np.float32)
    expected[0], expected[80] = 2 / 5**0.5, -1 / 5**0.5
    np.testing.assert_allclose(augmentation.responses[7], expected, atol=1e-6)


# --- SpecAugment ----------------------------------------------------------------------------------


def test_masks_are_within_their_bounds():
    config = AugmentConfig(frequency_masks=1, frequency_width=5, time_masks=1, time_width_ms=100)
    lengths = torch.tensor([100, 30])
    features = torch.ones(2, 100, 20)
    bands, stretches = [], []
    for i in range(300):
        generators = [utterance_generator(i, 0, name) for name in "ab"]
        out = spec_augment(features, lengths, config, 10.0, generators)
        again = spec_augment(features, lengths, config, 10.0, [utterance_generator(i, 0, n) for n in "ab"])
        torch.testing.assert_close(out, again, rtol=0, atol=0)
        for row, length in zip(out, lengths.tolist(), strict=True):
            bands.append(int((row[:length] == 0).all(0).sum()))
            stretches.append((length, int((row == 0).all(1).sum())))
    assert max(bands) == 5
    assert np.mean(bands) == pytest.approx(2.5, abs=0.3)
    assert max(count for length, count in stretches if length == 100) == 10
    assert max(count for length, count in stretches if length == 30) == 6  # a fifth


def test_a_band_is_struck_out_of_deltas_and_stacked_frames_too():
    config = AugmentConfig(frequency_masks=1, frequency_width=6)
    features, lengths = torch.ones(1, 5, 24), torch.tensor([5])
    for i in range(50):
        out = spec_augment(features, lengths, config, 10.0, [utterance_generator(i, 0, "a")], planes=3)
        alone = spec_augment(features[..., :8], lengths, config, 10.0, [utterance_generator(i, 0, "a")])
        torch.testing.assert_close(out, alone.repeat(1, 1, 3), rtol=0, atol=0)


def test_adaptive_masks_go_by_the_seconds_there_are():
    config = AugmentConfig(
        time_masks=10, time_masks_per_second=1.0, time_width_ms=400.0, time_width_share=0.05
    )
    assert time_mask_limits(config, 1600, 10.0) == (10, 40)
    assert time_mask_limits(config, 500, 10.0) == (5, 25)
    assert time_mask_limits(config, 90, 10.0) == (0, 4)
    assert time_mask_limits(replace(config, time_masks_per_second=0.0), 500, 10.0) == (10, 25)
    features, lengths = torch.ones(2, 500, 4), torch.tensor([500, 200])
    struck = np.zeros(2)
    for i in range(200):
        generators = [utterance_generator(i, 0, name) for name in "ab"]
        struck += (spec_augment(features, lengths, config, 10.0, generators) == 0).all(2).sum(1).numpy() / 200
    # Five stretches of 12.5 frames on average hit 12 % of 500; two of 5 hit 5 % of 200.
    assert struck[0] / 500 == pytest.approx(1 - (1 - 12.5 / 500) ** 5, abs=0.015)
    assert struck[1] / 200 == pytest.approx(1 - (1 - 5 / 200) ** 2, abs=0.01)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("speeds", ()),
        ("gain_db", -1.0),
        ("noise_share", 2.0),
        ("telephone_share", 1.5),
        ("shift_ms", -1.0),
        ("noise_snr_db", (3.0,)),
        ("noise_kinds", ()),
        ("noise_kinds", ("recorded",)),
        ("noise_folder", "noises"),
        ("babble_voices", (0, 3)),
        ("reverb_share", -0.1),
        ("room_seconds", (0.0, 0.3)),
        ("rooms", 0),
        ("time_width_share", 1.5),
        ("time_masks", 2),
        ("frequency_masks", 1),
    ],
)
def test_impossible_values_are_named(key, value):
    with pytest.raises(ConfigError, match=f"augment.{key}"):
        AugmentConfig(**{key: value})


@pytest.mark.parametrize("ending", [".wav", ".aif", ".AIFF", ".oga", ".m4a"])
def test_every_ending_of_a_recording_is_found_in_a_folder_of_noise(tmp_path, ending):
    path = tmp_path / "deep" / f"noise{ending}"
    path.parent.mkdir()
    path.touch()
    (tmp_path / "notes.txt").touch()
    assert find_recordings("noise_folder", str(tmp_path)) == [path]


def test_recordings_that_are_not_there_are_named(tmp_path):
    with pytest.raises(AugmentError, match=f"augment.noise_folder.*{tmp_path}"):
        sources(noise_kinds=("recorded",), noise_folder=str(tmp_path))
    with pytest.raises(AugmentError, match=r"augment\.reverb_folder.*nowhere"):
        sources(reverb_folder=str(tmp_path / "nowhere"))
    config = AugmentConfig(noise_share=0.1, noise_kinds=("babble",))
    with pytest.raises(AugmentError, match="babble"):
        find_sources(config, RATE, VOICES[:1], read)


# --- telephone and shift --------------------------------------------------------------------------


def test_a_telephone_lets_its_band_through():
    samples = torch.from_numpy(np.stack([0.3 * tone(hertz) for hertz in (100, 1000, 5000)]))
    heard = transmit_by_telephone(samples, torch.tensor([[300.0, 3400.0]] * 3), 16000)
    power = heard.square().mean(1) / samples.square().mean(1)
    assert power[0] < 1e-3
    assert power[1] == pytest.approx(1.0, abs=0.02)
    assert power[2] < 1e-3


def test_mu_law_is_true_to_a_few_percent_at_every_level():
    samples = torch.from_numpy(np.stack([level * tone(1000) for level in (0.9, 0.1, 0.01)]))
    heard = transmit_by_telephone(samples, torch.tensor([[300.0, 3400.0]] * 3), 16000)
    noise = (heard - samples).square().mean(1) / samples.square().mean(1)
    assert noise.min() > 1e-5
    assert noise.max() < 2e-3
    levels = torch.unique(heard)
    assert len(levels) <= 255


def test_a_shift_moves_each_utterance_by_its_own():
    samples, lengths = pad_batch([tone(440), tone(300)[:5000]])
    moved, later = delay(samples, lengths, (7, 300))
    assert later.tolist() == [16007, 5300]
    assert torch.equal(moved[0, 7:16007], samples[0])
    assert torch.equal(moved[1, 300:5300], samples[1, :5000])
    assert moved[0, :7].abs().max() == moved[1, :300].abs().max() == moved[1, 5300:].abs().max() == 0
