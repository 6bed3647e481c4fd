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

SLACK_SECONDS = 0.1  # manifests round: a stretch may end this much after its recording
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

    name = property(lambda self: "", lambda self, value: None)


def read_stretch(sound: Any, first: int, wanted: int | None, name: str) -> np.ndarray:
    """``wanted`` mono frames from frame ``first`` on; fewer where the recording ends before.

    Raises ``AudioError`` when the header promises more frames than there are.
    """
    skipped = 0
    if first and sound.format in SEEKABLE:
        # Elsewhere a seek lands beside the sample asked for, so what comes before is decoded, too.
        skipped = sound.seek(min(first, sound.frames))
    last = None if wanted is None else first + wanted
    blocks = []
    end = skipped
    while last is None or end < last:
        # In blocks: a header that lies about its length must not decide how much memory is taken.
        block = sound.read(BLOCK_FRAMES if last is None else min(BLOCK_FRAMES, last - end), "float32", True)
        if len(block) == 0:
            break
        blocks.append(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
        end += len(block)
    if end < min(sound.frames if last is None else last, sound.frames) and sound.format != "MP3":
        raise AudioError(f"{name}: is truncated: {end} of {sound.frames} samples are there")
    return np.concatenate([np.zeros(0, np.float32), *blocks])[first - skipped :]


def check_stretch(found: int, wanted: int | None, start: float, rate: int, name: str) -> None:
    """Raise ``AudioError`` when a recording has no samples or ends before the stretch does."""
    if found == 0 and wanted != 0:
        where = f" after {start:g} seconds" if start else ""
        raise AudioError(f"{name}: holds no samples{where}")
    if wanted is not None and found < wanted - SLACK_SECONDS * rate:
        raise AudioError(
            f"{name}: ends {(wanted - found) / rate:.2f} seconds before the stretch that was asked for"
        )


# --- is it all there? -----------------------------------------------------------------------------
# libsndfile reads as much as it finds and says nothing when that is less than there was.


def check_whole(file: BinaryIO, name: str) -> None:
    """Raise ``AudioError`` when ``file`` is empty or cut off; leaves it at its beginning."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size == 0:
        raise AudioError(f"{name}: is empty")
    kind = file.read(4)
    whole = True
    if kind == b"RIFF":
        whole = wav_is_whole(file, size)
    elif kind == b"OggS":
        whole = ogg_is_whole(file, size)
    elif kind[:3] == b"ID3" or kind[:1] == b"\xff":
        whole = mp3_is_whole(file, size)
    file.seek(0)
    if not whole:
        raise AudioError(f"{name}: is truncated: its header promises more than the file holds")


def wav_is_whole(file: BinaryIO, size: int) -> bool:
    """Whether the chunks of a RIFF file up to its samples lie within the file.

    Programs that write into a pipe cannot go back to fill in the length; they leave 0 or a value of
    two gigabytes and more, which is taken to mean "to the end".
    """
    place = 12
    while True:
        file.seek(place)
        header = file.read(8)
        if len(header) < 8:
            return False
        chunk, length = struct.unpack("<4sI", header)
        place += 8
        if chunk == b"data":
            return length >= 0x7FFF0000 or place + length <= size
        place += length + length % 2


def ogg_is_whole(file: BinaryIO, size: int) -> bool:
    """Whether the last page of an Ogg file is there to its end (RFC 3533, section 6)."""
    tail = min(size, 1 << 17)  # a page has at most 65,307 bytes
    file.seek(size - tail)
    data = file.read(tail)
    page = data.rfind(b"OggS")
    if page < 0 or len(data) < page + 27:
        return False
    segments = data[page + 27 : page + 27 + data[page + 26]]
    return len(segments) == data[page + 26] and page + 27 + len(segments) + sum(segments) <= len(data)


def mp3_is_whole(file: BinaryIO, size: int) -> bool:
    """Whether an MP3 stream is as long as its Xing header says; ``True`` where it has none."""
    file.seek(0)
    tag = file.read(10)
    begin = 0
    if tag[:3] == b"ID3":  # its length has seven bits a byte
        begin = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False)
        )
    file.seek(begin)
    frame = file.read(256)
    mark = max(frame.find(b"Xing"), frame.find(b"Info"))
    if mark < 0 or len(frame) < mark + 16:
        return True
    flags, *fields = struct.unpack_from(">3I", frame, mark + 4)
    if not flags & 2:
        return True
    promised = fields[1] if flags & 1 else fields[0]
    return begin + promised - size <= max(1500, promised // 200)  # encoders are off by a frame or a tag
