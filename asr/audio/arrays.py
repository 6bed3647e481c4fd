"""Samples in memory: their scale, and as the bytes of a recording, to go the way of every recording."""

from __future__ import annotations

import struct

import numpy as np

from asr.audio.sources import AudioError

RATES = range(1000, 1_000_001)  # hertz
IEEE_FLOAT = 3
FULL_SCALE = 32768  # a sample of 1.0 as a 16-bit integer, one more than there is room for


def scale_samples(samples: np.ndarray) -> np.ndarray:
    """Scale whole numbers by the range of their type to full scale 1; floating-point numbers stay."""
    if samples.dtype.kind != "i":
        return samples
    return samples / np.float32(-float(np.iinfo(samples.dtype).min))


def to_wav(samples: np.ndarray, rate: int | None) -> bytes:
    """Make the bytes of a WAV file of samples, ``(samples,)`` or ``(samples, channels)``.

    Floating-point numbers have full scale 1, whole ones that of their type. Raises ``AudioError`` for an
    array that holds no sound, and where ``rate`` (hertz) is missing.
    """
    if rate is None or rate not in RATES:
        raise AudioError(f"audio samples: give their rate in hertz, {RATES[0]} to {RATES[-1]}, not {rate}")
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not samples.size or (samples.ndim == 2 and samples.shape[1] > 64):
        raise AudioError(
            f"audio samples: an array of shape {samples.shape} is not (samples,) or (samples, channels)"
        )
    if samples.dtype.kind not in "if":
        raise AudioError(f"audio samples: they cannot be of type {samples.dtype}; use float32 or int16")
    channels = 1 if samples.ndim == 1 else samples.shape[1]  # mixed like those of any file
    content = np.ascontiguousarray(scale_samples(samples), "<f4").tobytes()
    if len(content) >= 1 << 32:
        raise AudioError("audio samples: too many for one array; write them to a file")
    size = 4 * channels
    layout = struct.pack("<IHHIIHH", 16, IEEE_FLOAT, channels, rate, size * rate, size, 32)
    head = b"WAVEfmt " + layout + struct.pack("<4sI", b"data", len(content))
    return struct.pack("<4sI", b"RIFF", min(len(head) + len(content), (1 << 32) - 1)) + head + content
