"""Any audio file, or its bytes, to mono float32 samples at the rate asked for.

soundfile and soxr are imported where they are used: training from cached samples must run on
machines that have neither.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asr.errors import UserError

SLACK_SECONDS = 0.05  # manifests round; a stretch may end this much after its recording
BLOCK_FRAMES = 1 << 18
SEEKABLE = {"WAV", "WAVEX", "RF64", "FLAC", "AIFF", "W64", "AU", "CAF"}  # to the very sample


class AudioError(UserError):
    """A recording that cannot be read; the text names the file and says what is wrong."""


def read_audio(
    source: str | Path | bytes, rate: int = 16000, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """Samples of a recording or of a stretch of it, channels averaged.

    WAV, FLAC, OGG Vorbis, Opus, MP3 and whatever else libsndfile reads, recognised by their
    content whatever the name ends in.

    Args:
        source: a path, or the bytes of a whole file.
        rate: hertz of the samples handed out; others are resampled (soxr, high quality).
        start: seconds into the recording at which the stretch begins.
        duration: its length in seconds; ``None`` means to the end.

    Returns:
        ``(samples,)`` float32, full scale 1. Single samples that are not finite become 0.

    Raises:
        AudioError: the file is missing, empty, truncated, not audio, has no samples or only such
            as are not finite, or ends before the stretch does. (An MP3 cut off between two frames
            can be told only when its header counts them.)
    """
    name = named(source)
    with opened(source) as sound:
        own_rate = sound.samplerate
        first = round(start * own_rate)
        wanted = None if duration is None else round((start + duration) * own_rate) - first
        samples = read_stretch(sound, first, wanted, name)
    check_stretch(len(samples), wanted, start, own_rate, name)
    finite = np.isfinite(samples)
    if not finite.any():
        raise AudioError(f"{name}: none of its samples is a finite number")
    if not finite.all():
        samples = np.where(finite, samples, np.float32(0))
    return samples if own_rate == rate else resampled(samples, own_rate, rate)


def duration(source: str | Path | bytes) -> float:
    """Seconds in a recording, from its header where that tells; raises ``AudioError``."""
    with opened(source) as sound:
        if sound.frames <= 0:
            raise AudioError(f"{named(source)}: holds no samples")
        return sound.frames / sound.samplerate


def resampled(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """``samples`` at another rate, float32."""
    import soxr

    return soxr.resample(samples, rate, new_rate, quality="HQ").astype(np.float32, copy=False)


def named(source: str | Path | bytes) -> str:
    """What messages call the source."""
    return "audio bytes" if isinstance(source, bytes) else str(source)


@contextmanager
def opened(source: str | Path | bytes) -> Iterator[Any]:
    """The recording as an open ``soundfile.SoundFile``, known to be whole as far as its header tells."""
    import soundfile

    name = named(source)
    with opened_file(source) as file:
        check_whole(file, name)
        try:
            sound = soundfile.SoundFile(file)
        except (soundfile.SoundFileError, TypeError, ValueError, OverflowError) as error:
            raise AudioError(f"{name}: is not audio in a format that can be read") from error
        with sound:
            try:
                yield sound
            except (soundfile.SoundFileError, OverflowError, MemoryError) as error:
                raise AudioError(f"{name}: is damaged: {error}") from error


def opened_file(source: str | Path | bytes) -> BinaryIO:
    """The source as a binary file that has no name, because names mislead soundfile."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if re.match(r"[a-z]+://", str(source)):
        raise AudioError(f"{source}: is a URL; download it and give the file's name")
    try:
        return Unnamed(source, "rb")
    except OSError as error:
        raise AudioError(f"{source}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise AudioError(f"{source!r}: is no file name: {error}") from error


class Unnamed(io.FileIO):
    """A file whose ``name`` is hidden: soundfile would take ``x.raw`` for headerless samples."""

    name = None  # type: ignore[assignment]
