"""Speech detection: what is speech and what is not, and the same decisions however samples arrive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio.reading import read_audio
from asr.audio.vad import (
    BANDS,
    HOP_SECONDS,
    SpeechDetector,
    assume_speech,
    band_edges,
    detect_speech,
    find_runs,
    find_speech,
    hop_samples,
    num_frames,
    repeat_decisions,
)
from tests.synthetic import NO_SPEECH, applaud, white_noise

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*.flac"))
RATES = [8000, 11025, 16000, 44100]


def flags(samples: np.ndarray, rate: int, size: int = 1 << 16) -> np.ndarray:
    blocks = [samples[i : i + size].astype(np.float32) for i in range(0, len(samples), size)]
    found = list(detect_speech(blocks, rate))
    np.testing.assert_array_equal(np.concatenate([block for block, _ in found]), samples.astype(np.float32))
    return np.concatenate([decisions for _, decisions in found])


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", NO_SPEECH)
def test_what_is_no_speech(name, rate):
    found = flags(NO_SPEECH[name](rate), rate)
    assert not find_speech(found)


@pytest.mark.parametrize("rate", RATES)
def test_applause_is_hardly_speech(rate):
    """At its beginning and end single hands are heard."""
    assert flags(applaud(rate), rate).mean() < 0.1


def test_a_word_that_is_said_four_times_is_speech_however_alike():
    """As a telephone system reads out 4444; an alarm goes on for longer."""
    rate = 8000
    four = read_audio(SAMPLES[0], rate)[: rate // 2]
    said = np.concatenate([np.pad(four, (0, rate // 2 - len(four))) for _ in range(4)])
    quiet = 1e-4 * white_noise(rate, 5)
    alone = flags(np.concatenate([quiet, four, quiet]), rate).sum()
    assert flags(np.concatenate([quiet, said, quiet]), rate).sum() > 3.5 * alone


def test_a_word_in_applause_is_not_lost_with_it():
    rate = 8000
    samples = np.concatenate([1e-4 * white_noise(rate, 4), applaud(rate), 1e-4 * white_noise(rate, 4)])
    begin = 10 * rate
    voice = read_audio(SAMPLES[2], rate)
    samples[begin : begin + len(voice)] += 4 * voice
    found = flags(samples, rate)[500 : 500 + int(len(voice) / rate / HOP_SECONDS)]
    assert found.mean() > 0.5


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
@pytest.mark.parametrize("gain", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("rate", RATES)
def test_speech_is_speech_however_loud(path, gain, rate):
    found = flags(gain * read_audio(path, rate), rate)
    assert found.mean() > 0.15


@pytest.mark.parametrize("snr", [20, 10, 5])
def test_speech_in_noise_is_found_where_it_is(snr):
    rate, speech = 8000, read_audio(SAMPLES[2], 8000)
    noise = white_noise(rate, 20) * np.sqrt((speech**2).mean()) * 10 ** (-snr / 20)
    noise[rate * 10 : rate * 10 + len(speech)] += speech
    seconds = np.flatnonzero(flags(noise, rate)) * HOP_SECONDS
    assert 10 <= seconds.min() < seconds.max() < 10 + len(speech) / rate
    assert len(seconds) * HOP_SECONDS > 0.5


@given(sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=6), reach=st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_decisions_do_not_depend_on_how_samples_arrive(sizes, reach):
    speech = np.tile(read_audio(SAMPLES[2], 8000), 1 + 3 * reach)[: sum(sizes)]
    cuts = np.cumsum(sizes)[:-1]
    for detect in (detect_speech, assume_speech):
        whole, pieces = list(detect([speech], 8000)), list(detect(np.split(speech, cuts), 8000))
        for (block, decisions), (other_block, other_decisions) in zip(whole, pieces, strict=True):
            np.testing.assert_array_equal(block, other_block)
            np.testing.assert_array_equal(decisions, other_decisions)
        assert sum(len(decisions) for _, decisions in whole) == num_frames(len(speech), 8000)


@pytest.mark.parametrize("samples", [0, 100, 49 * 160, 3 * 8000 + 1, 4 * 8000 + 7 * 160])
def test_decisions_that_are_known_are_repeated(samples):
    audio = np.tile(read_audio(SAMPLES[2], 8000), 3)[:samples]
    expected = list(detect_speech([audio], 8000))
    flags = np.concatenate([np.zeros(0, bool), *(decided for _, decided in expected)])
    repeated = list(repeat_decisions(np.array_split(audio, 7), flags, 8000))
    assert len(repeated) == len(expected)
    for pair, own in zip(expected, repeated, strict=True):
        assert all(np.array_equal(*both) for both in zip(pair, own, strict=True))


def test_without_detection_all_is_speech():
    assert all(decisions.all() for _, decisions in assume_speech([np.zeros(20_000, np.float32)], 8000))


def test_samples_are_handed_on_before_the_recording_ends():
    taken = []

    def blocks():
        for number in range(100):
            taken.append(number)
            yield np.zeros(8000, np.float32)

    next(detect_speech(blocks(), 8000))
    assert len(taken) < 15


@pytest.mark.parametrize("rate", [1000, *RATES, 192_000])
def test_bands_are_there_at_any_rate(rate):
    edges = band_edges(rate)
    assert len(edges) == BANDS + 1
    assert (np.diff(edges) > 0).all()
    if rate >= 8000:
        assert edges[-1] <= hop_samples(rate) + 1


def test_clicks_are_no_speech():
    assert find_speech(np.array([1, 1, 1, 0, 1, 1, 1, 1, 0], bool)) == [(4, 8)]


def test_what_was_decided_is_judged_again_by_what_came_since():
    speech = np.tile(read_audio(SAMPLES[2], 8000), 2)[: 7 * 8000 + 2000]
    detector = SpeechDetector(8000, ahead=0)
    decided = np.concatenate([flags for _, flags in detector.feed(speech)])
    guess = detector.guess()
    assert len(decided) + len(guess) == num_frames(len(speech), 8000)
    again = detector.guess(2)
    assert len(again) == len(guess) + 100
    assert np.array_equal(again[-len(guess) :], guess)
    later = SpeechDetector(8000, ahead=2)
    waited = np.concatenate([np.zeros(0, bool), *(flags for _, flags in later.feed(speech))])
    assert np.array_equal(again, later.guess()[-len(again) :])
    assert len(waited) + len(later.guess()) == len(decided) + len(guess)
    assert len(detector.guess(100)) == num_frames(len(speech), 8000)


def test_runs_are_where_flags_are_set():
    assert find_runs(np.array([], bool)) == []
    assert find_runs(np.array([1, 1, 0, 1], bool)) == [(0, 2), (3, 4)]


def test_guesses_are_decisions_of_a_recording_that_ends_there():
    samples = read_audio(SAMPLES[-1])
    detector = SpeechDetector(16000, ahead=0)
    decided = np.zeros(0, bool)
    for begin in range(0, len(samples), 1600):
        now = detector.feed(samples[begin : begin + 1600])
        decided = np.concatenate([decided, *(part for _, part in now)])
        guess = np.concatenate([decided, detector.guess()])
        fresh = SpeechDetector(16000, ahead=0)
        parts = [*fresh.feed(samples[: begin + 1600]), *fresh.finish()]
        assert np.array_equal(guess, np.concatenate([part for _, part in parts]))
