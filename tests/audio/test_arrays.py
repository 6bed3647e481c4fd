"""Samples in memory: the same sound as a file of them, or one line that says what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asr.audio.arrays import to_wav
from asr.audio.reading import read_audio
from asr.audio.sources import AudioError

SAMPLE = Path(__file__).parents[2] / "samples" / "digit-7-jackson.flac"
NOISE = np.random.default_rng(1).uniform(-0.9, 0.9, 800).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "expected", "tolerance"),
    [
        (NOISE, NOISE, 0),
        (NOISE.astype(np.float64), NOISE, 1e-7),
        ((NOISE * 32767).astype(np.int16), NOISE, 1e-4),
        ((NOISE * (2**31 - 1)).astype(np.int32), NOISE, 1e-6),
        (np.stack([NOISE, -NOISE / 2], axis=1), NOISE / 4, 1e-7),
        (NOISE[::-1], NOISE[::-1], 0),
    ],
)
def test_an_array_is_the_sound_that_it_holds(samples, expected, tolerance):
    np.testing.assert_allclose(read_audio(to_wav(samples, 8000), 8000), expected, atol=tolerance)


def test_channels_that_cancel_each_other_are_heard_as_in_a_file():
    both = np.stack([NOISE, -NOISE], axis=1)
    np.testing.assert_allclose(read_audio(to_wav(both, 8000), 8000), NOISE, atol=1e-6)


@pytest.mark.parametrize(
    ("samples", "rate", "said"),
    [
        (NOISE, None, "give their rate"),
        (NOISE, 12, "give their rate"),
        (NOISE[:0], 8000, "is not"),
        (NOISE.reshape(2, 2, 200), 8000, "is not"),
        (NOISE.reshape(2, 400), 8000, "is not"),
        (NOISE > 0, 8000, "type bool"),
        (NOISE.astype(np.complex64), 8000, "type complex64"),
    ],
)
def test_what_is_no_sound_is_refused(samples, rate, said):
    with pytest.raises(AudioError, match=said):
        to_wav(samples, rate)


def test_samples_are_transcribed_like_their_file(digits):
    samples = read_audio(SAMPLE, 8000)
    transcript = digits.transcribe(samples, 8000)
    assert transcript.text == digits.transcribe(SAMPLE).text == "seven"
    assert transcript.segments[0].words[0].end > 0
    with pytest.raises(AudioError, match="rate"):
        digits.transcribe(samples)
    with pytest.raises(TypeError, match="its own rate"):
        digits.transcribe(SAMPLE, 8000)
