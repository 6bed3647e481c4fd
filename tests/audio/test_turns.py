"""Changes of voice are found where they are, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.reading import read_audio
from asr.audio.turns import (
    BANDS,
    LEAST_SPEECH,
    PAUSE,
    cosine_vectors,
    find_pauses,
    find_turns,
    is_change,
    is_pause,
)
from asr.audio.vad import hop_samples

RATE = 16000
SAMPLES = Path(__file__).parents[2] / "samples"
GAP = np.zeros(RATE // 2, np.float32)


def voice(name: str, first: float, last: float) -> np.ndarray:
    """Some seconds of a sample without a pause, twice, for a voice is told from that much."""
    return np.tile(read_audio(SAMPLES / name, RATE)[round(first * RATE) : round(last * RATE)], 2)


HE, SHE = voice("english-1272.flac", 0.5, 3.2), voice("english-1462.flac", 2.0, 4.5)


def join(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts).astype(np.float32)


@pytest.mark.parametrize("gain", [0.01, 1.0])
@pytest.mark.parametrize("voices", [(HE, SHE), (SHE, HE)], ids=["he, she", "she, he"])
def test_another_voice_is_found_in_the_pause_before_it(voices, gain):
    first, second = voices
    (place,) = find_turns(gain * join(first, GAP, second), RATE)
    # The recordings have pauses of their own at their ends.
    assert len(first) - RATE // 4 <= place <= len(first) + len(GAP) + RATE // 4


@pytest.mark.parametrize("voice", [HE, SHE], ids=["he", "she"])
def test_the_same_voice_goes_on(voice):
    assert find_turns(join(voice, GAP, voice), RATE) == []


def test_every_change_counts_from_the_last_one():
    places = find_turns(join(HE, GAP, SHE, GAP, HE), RATE)
    assert len(places) == 2
    assert places == sorted(places)


def test_the_same_voice_at_a_telephone_is_a_change():
    spectrum = np.fft.rfft(SHE)
    hertz = np.fft.rfftfreq(len(SHE), 1 / RATE)
    spectrum[(hertz < 300) | (hertz > 3400)] *= 0.01
    telephone = np.fft.irfft(spectrum, len(SHE))
    assert len(find_turns(join(SHE, GAP, telephone), RATE)) == 1


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0), np.zeros(1), np.zeros(RATE), np.zeros(30 * RATE), HE[: RATE // 3], join(GAP, HE, GAP)],
    ids=["nothing", "a sample", "a second of silence", "half a minute of it", "a word", "one voice"],
)
@pytest.mark.parametrize("rate", [8000, RATE, 48000])
def test_there_is_no_change_in(samples, rate):
    assert find_turns(samples.astype(np.float32), rate) == []


@settings(max_examples=20, deadline=None)
@given(parts=st.lists(st.sampled_from([HE, SHE, GAP, np.zeros(5, np.float32)]), max_size=5))
def test_places_are_in_pauses(parts):
    samples = join(np.zeros(0), *parts)
    places = find_turns(samples, RATE)
    assert places == sorted(set(places))
    for place in places:
        assert 0 < place < len(samples)
        around = samples[place - hop_samples(RATE) : place + hop_samples(RATE)]
        assert np.abs(around).max() < 0.1 * np.abs(samples).max()


def test_a_pause_is_faint_beside_what_is_around():
    power = np.full(1000, -20.0)
    power[100:130] = -44.9  # not faint enough
    power[300:330] = -45.1
    power[500:] = -80.0  # nobody speaks for so long that it is what is around
    quiet = is_pause(power)
    assert np.flatnonzero(quiet[:400]).tolist() == [*range(300, 330)]
    assert quiet[500:640].all()
    assert not quiet[660:].any()


def flags(*lengths: int) -> np.ndarray:
    """Speech, pause, speech and so on."""
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def test_pauses_lie_between_speech():
    long, short = LEAST_SPEECH, LEAST_SPEECH - 1
    assert find_pauses(flags(long, PAUSE, long)) == [(long, long + PAUSE)]
    assert find_pauses(flags(long, PAUSE - 1, long)) == []
    assert find_pauses(flags(long, PAUSE, short)) == []
    assert find_pauses(flags(short, PAUSE, long)) == []
    assert find_pauses(flags(long)) == []
    # A noise within a pause does not divide it.
    assert find_pauses(flags(long, PAUSE, short, PAUSE, long)) == [(long, long + 2 * PAUSE + short)]


@pytest.mark.parametrize("size", [1, 3])
def test_two_distributions_must_be_worth_their_parameters(size):
    generator = np.random.default_rng(1)
    frames = 10 * generator.normal(size=(2000, size))
    changes = [is_change(frames[i : i + 100], frames[i + 100 : i + 200]) for i in range(0, 2000, 200)]
    assert not any(changes)
    assert is_change(frames[:100], frames[100:200] + 20)
    assert is_change(frames[:100], 3 * frames[100:200])


def test_the_criterion_is_that_of_the_definition():
    generator = np.random.default_rng(2)
    for shift in np.linspace(0, 3, 40):
        before, after = generator.normal(size=(2, 80, 1)) * 10
        after = after + shift * 5
        deviations = [np.log(part.var() + 1) for part in (np.vstack([before, after]), before, after)]
        ratio = 80 * deviations[0] - 40 * deviations[1] - 40 * deviations[2]
        assert is_change(before, after) == (ratio > 0.9 * np.log(160))


def test_the_cosines_are_those_of_the_transform():
    levels = np.random.default_rng(3).normal(size=(5, BANDS))
    ours = levels @ cosine_vectors(BANDS, 16)
    theirs = scipy.fft.dct(levels, axis=1)[:, :16] / np.sqrt(2 * BANDS)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
