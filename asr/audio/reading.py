"""Any audio file, or its bytes, to mono float32 samples at the rate asked for.

soundfile reads most of them, ``media.py`` the rest. soundfile is imported where it is used: training
from cached samples must run on machines without it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from asr.audio.integrity import (
    check_ogg,
    check_rate,
    check_size,
    check_wav,
    has_frame_count,
    is_at_mp3_frame,
    recognise_format,
)
from asr.audio.media import DEMUXERS, MediaError, open_media, read_stated_seconds
from asr.audio.resampling import make_resampler, resample
from asr.audio.sources import AudioError, Source, name_source, open_source

SLACK_SECONDS = 0.1  # manifests round: a stretch may end this much after its recording
LOUDEST = 1e10  # beyond any scale in use; energies of such samples still fit into float32
MAX_SECONDS = 1e9  # beyond any recording; times any rate it is still finite
BLOCK_SAMPLES = 1 << 18

# Encodings in which libsndfile seeks to the very sample. After a seek in MP3, Opus or Vorbis the
# decoder lacks what came before: it is off by as much as 0.03 in the first samples.
SEEKABLE = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


@dataclass(frozen=True)
class Recording:
    """An open recording; ``frames`` is the length its header promises, ``None`` if it promises none."""

    file: IO[bytes]
    sound: Any  # soundfile.SoundFile, or the part of it that asr.audio.media.SoundTrack has
    frames: int | None


def read_audio(
    source: Source, rate: int = 16000, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """Samples of a recording or of a stretch of it, channels averaged.

    WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU and SPHERE are recognised by their content, whatever
    the name ends in; so are AAC, MP4 (m4a), Matroska (mkv, webm) and WMA, which need PyAV or ffmpeg.

    Args:
        source: a path, the bytes of a whole file, or a file that can seek.
        rate: hertz of the samples returned; other recordings are resampled (soxr, high quality).
        start: seconds into the recording at which the stretch begins.
        duration: its length in seconds; ``None`` means to the end.

    Returns:
        ``(samples,)`` float32, full scale 1, all finite: single samples that are not become 0.

    Raises:
        AudioError: the file is missing, empty, truncated or not audio, has no samples or only such
            as are not finite, or ends before the stretch does. (Two kinds of truncated files pass for
            whole: an MP3 without Xing header, and a FLAC of unstated length cut between two frames.)
    """
    with open_recording(source) as recording:
        check_stretch(start, duration)
        own_rate = recording.sound.samplerate
        first = round(start * own_rate)
        last = None if duration is None else round((start + duration) * own_rate)
        samples = read_stretch(recording, first, last)
        if len(samples) == 0:
            raise AudioError(f"holds no samples after {start:g} seconds" if start else "holds no samples")
        if last is not None and len(samples) <= last - first - SLACK_SECONDS * own_rate:
            missing = (last - first - len(samples)) / own_rate
            raise AudioError(f"ends {missing:.2f} seconds before the stretch that was asked for")
        if not make_finite(samples):
            raise AudioError("none of its samples is a finite number")
    return samples if own_rate == rate else resample(samples, own_rate, rate)


def stream_audio(source: Source, rate: int = 16000) -> Iterator[np.ndarray]:
    """The samples of a whole recording in blocks, which together are those of ``read_audio``.

    However long the recording is, only a few seconds of it are in memory. Raises ``AudioError`` as
    ``read_audio`` does; what is wrong with the end shows only there.
    """
    with open_recording(source) as recording:
        resampler = make_resampler(recording.sound.samplerate, rate)
        end, is_usable = 0, False
        for block in decode_blocks(recording.sound):
            samples = average_channels(block)
            is_usable |= make_finite(samples)
            end += len(block)
            yield resampler(samples, last=False)
        check_end(recording, end)
        if not end:
            raise AudioError("holds no samples")
        if not is_usable:
            raise AudioError("none of its samples is a finite number")
        yield resampler(np.zeros(0, np.float32), last=True)


def measure_duration(source: Source) -> float:
    """Seconds in a recording, from its header or, where that does not tell, by decoding it all.

    Raises ``AudioError``; for a truncated file only where that shows without decoding, in WAV and Ogg.
    """
    with open_recording(source) as recording:
        frames = recording.frames
        if frames is None:
            frames = sum(map(len, decode_blocks(recording.sound)))
            check_end(recording, frames)
        if frames == 0:
            raise AudioError("holds no samples")
        return frames / recording.sound.samplerate


def read_stated_duration(source: Source) -> float | None:
    """Seconds in a recording by its header, ``None`` where that does not tell; decodes nothing.

    Raises ``AudioError`` where the file cannot be opened as a recording.
    """
    with name_faults(source), open_source(source) as raw:
        kind = recognise_format(raw)
        if kind in DEMUXERS:
            return read_stated_seconds(raw, kind)
    with open_recording(source) as recording:
        return None if recording.frames is None else recording.frames / recording.sound.samplerate


def make_wav_header(rate: int) -> bytes:
    """What turns bare samples (16-bit, little-endian, one channel) of any number into a WAV file."""
    to_the_end = 0xFFFF_FFFF
    layout = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s4s", b"RIFF", to_the_end, b"WAVE", b"fmt ")
        + layout
        + struct.pack("<4sI", b"data", to_the_end)
    )


# --- opening --------------------------------------------------------------------------------------


@contextmanager
def name_faults(source: Source) -> Iterator[None]:
    """Whatever goes wrong in the block becomes an ``AudioError`` that begins with the name of ``source``."""
    name = name_source(source)
    try:
        yield
    except (AudioError, MediaError) as error:
        raise AudioError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        is_url = re.match(r"\w{2,}:/", name)
        reason = "is a URL; download it and give the file" if is_url else "cannot be read: no such file"
        raise AudioError(f"{name}: {reason}") from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror}") from error
    except MemoryError as error:
        raise AudioError(
            f"{name}: is damaged, truncated or of an unknown kind (not enough memory)"
        ) from error


@contextmanager
def open_recording(source: Source) -> Iterator[Recording]:
    """The recording, checked to be whole as far as that shows before it is decoded.

    Whatever goes wrong in here or in the block that uses it becomes an ``AudioError`` that begins
    with the name of the source; messages raised on the way leave the name out.
    """
    with name_faults(source), open_source(source) as raw:
        raw.seek(0)
        kind = recognise_format(raw)
        if kind in DEMUXERS:
            with open_media(raw, kind) as track:
                check_rate(track.samplerate)
                yield Recording(raw, track, None)
            return
        with open_soundfile(raw, kind) as recording:
            yield recording


@contextmanager
def open_soundfile(raw: IO[bytes], kind: str) -> Iterator[Recording]:
    """A recording of one of the kinds that libsndfile reads."""
    import soundfile

    file = check_wav(raw) if kind == "WAV" else raw
    if kind == "OGG":
        check_ogg(file)
    if kind in ("AIFF", "AU", "NIST"):
        check_size(file, kind)
    is_counted = kind != "MP3" or has_frame_count(file)
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:
            if not sound.format.startswith(kind):
                raise AudioError(f"is {sound.format} behind an ID3 tag; convert it to WAV or FLAC")
            check_rate(sound.samplerate)
            # soundfile seeks after every read, which spoils the next samples of an MP3 and fails
            # in a FLAC of unstated length; it does not when it believes that it cannot.
            sound.seekable = lambda: False
            is_stated = is_counted and sound.frames < 1 << 62  # 2^63 - 1 is libsndfile's word for "unknown"
            yield Recording(file, sound, sound.frames if is_stated else None)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise AudioError(f"is damaged, truncated or of an unknown kind ({reason})") from error


# --- reading --------------------------------------------------------------------------------------


def check_stretch(start: float, duration: float | None) -> None:
    """Raise ``AudioError`` for seconds that no recording has."""
    if not 0 <= start < MAX_SECONDS:
        raise AudioError(f"cannot be read from second {start:g} on")
    if duration is not None and not 0 < duration < MAX_SECONDS:
        raise AudioError(f"has no stretch of {duration:g} seconds")


def read_stretch(recording: Recording, first: int, last: int | None) -> np.ndarray:
    """Mono samples from frame ``first`` up to ``last`` or to the end; fewer where the end comes before.

    Raises ``AudioError`` when the header promises frames in there that the file does not hold.
    """
    end = 0
    if first and recording.frames is not None:
        if first >= recording.frames:
            return np.zeros(0, np.float32)
        if recording.sound.subtype in SEEKABLE:
            end = recording.sound.seek(first)
    parts = [np.zeros(0, np.float32)]
    for block in decode_blocks(recording.sound, end, last):
        parts.append(average_channels(block[max(0, first - end) :]))
        end += len(block)
    check_end(recording, end, last)
    return np.concatenate(parts)


def average_channels(block: np.ndarray) -> np.ndarray:
    """``(frames, channels)`` to ``(frames,)``."""
    with np.errstate(all="ignore"):  # infinities meet: NaN is what is wanted
        return block.mean(axis=1)


def make_finite(samples: np.ndarray) -> bool:
    """Set samples that are no sound to 0, in place; return whether there are others."""
    unusable = ~(np.abs(samples) <= LOUDEST)  # in this form NaN is unusable, too
    samples[unusable] = 0
    return not unusable.all()


def decode_blocks(sound: Any, begin: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
    """``(frames, channels)`` float32 blocks from frame ``begin``, where ``sound`` stands, up to ``last``.

    In blocks, because a header that lies about its length must not decide how much memory is taken.
    """
    size = max(1, BLOCK_SAMPLES // sound.channels)
    left = (sound.frames if last is None else min(last, sound.frames)) - begin
    while left > 0:
        # One more than is wanted at the end, so that the decoder of an MP3 skips the silence that fills
        # up the last frames; not many more, for check_end looks at where it stopped.
        block = sound.read(size if size < left else left + 1, dtype="float32", always_2d=True)[:left]
        if len(block) == 0:
            return
        yield block
        left -= len(block)


def check_end(recording: Recording, end: int, last: int | None = None) -> None:
    """Raise ``AudioError`` when decoding ended at frame ``end`` although there should be more.

    ``last`` is where the stretch ends; ``None`` means with the recording.
    """
    if last is not None and end >= last:
        return
    if recording.frames is not None and end < recording.frames:
        raise AudioError(f"is truncated: {end} of {recording.frames} samples are there")
    # libsndfile stops at the length in the Xing header or, without one, at a guess from the first
    # frame. The file stands where decoding ended; a frame there would be dropped in silence.
    if recording.sound.format == "MP3" and is_at_mp3_frame(recording.file):
        raise AudioError("goes on after the end that the header of this MP3 tells; convert it to WAV or FLAC")
