"""Any audio file, or its bytes, to mono float32 samples at the rate asked for.

``integrity.examine`` finds out what a file is. soundfile reads what it reads whole, ``media`` the rest and
what soundfile gives up. soundfile is imported where it is used: training from cached samples must run on
machines without it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from asr.audio.integrity import Examination, check_rate, examine
from asr.audio.media import DEMUXERS, MediaError, SoundTrack, is_readable, open_media, read_stated_seconds
from asr.audio.resampling import make_resampler, resample
from asr.audio.sources import (
    AudioError,
    Source,
    WindowFile,
    find_name,
    guard_library,
    name_source,
    open_source,
)

SLACK_SECONDS = 0.1  # manifests round: a stretch may end this much after its recording
LOUDEST = 1e10  # beyond any scale in use; energies of such samples still fit into float32
MAX_SECONDS = 1e9  # beyond any recording; times any rate it is still finite
BLOCK_SAMPLES = 1 << 18
CANCELLED_SHARE = 0.02  # of the power of two channels is left in their mean where one is turned around

Report = Callable[
    [str], object
]  # is told what of a recording is missing, or something worth knowing; may raise

# Encodings in which libsndfile seeks to the very sample. After a seek in MP3, Opus or Vorbis the
# decoder lacks what came before: it is off by as much as 0.03 in the first samples.
SEEKABLE = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


def refuse(fault: str) -> None:
    """Raise what is missing of a recording as an ``AudioError``."""
    raise AudioError(fault)


def ignore(note: str) -> None:
    """Say nothing of what is worth knowing."""


@dataclass(frozen=True)
class Recording:
    """An open recording; ``frames`` is the length its header promises, ``None`` if it promises none.

    ``report`` is told what of it is missing.
    """

    files: tuple[WindowFile, ...]
    sound: Any  # soundfile.SoundFile, or the part of it that asr.audio.media.SoundTrack has
    frames: int | None
    report: Report


def read_audio(
    source: Source, rate: int = 16000, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """Samples of a recording or of a stretch of it, channels averaged.

    WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU, SPHERE and HTK are recognised by their content, whatever
    the name ends in; so are AAC, MP4 (m4a), Matroska (mkv, webm), WMA and others, which need PyAV or ffmpeg.

    Args:
        source: a path, the bytes of a whole file, or an open file.
        rate: hertz of the samples returned; other recordings are resampled (soxr, high quality).
        start: seconds into the recording at which the stretch begins.
        duration: its length in seconds; ``None`` means to the end.

    Returns:
        ``(samples,)`` float32, full scale 1, all finite: single samples that are not become 0.

    Raises:
        AudioError: the file is missing, empty, truncated or not audio, has no samples or only such
            as are not finite, or ends before the stretch does. (Files that end between two frames or pages
            pass for whole where nothing in them tells their length.)
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


def stream_audio(
    source: Source,
    rate: int = 16000,
    channel: int | None = None,
    report: Report = refuse,
    remark: Report = ignore,
) -> Iterator[np.ndarray]:
    """The samples of a whole recording in blocks, which together are those of ``read_audio``.

    However long the recording is, only a few seconds of it are in memory. Raises ``AudioError`` as
    ``read_audio`` does; what is wrong with the end shows only there.

    Args:
        channel: the one to read, counted from 0; ``None`` means the mean of all.
        report: is told what of the recording is missing. Where it raises nothing, what is there comes out.
        remark: is told what else is worth knowing.
    """
    with open_recording(source, report, remark) as recording:
        resampler = make_resampler(recording.sound.samplerate, rate)
        mixer = Mixer(channel, remark)
        if channel is not None and channel >= recording.sound.channels:
            raise AudioError(f"has no channel {channel + 1}: it has {recording.sound.channels}")
        end, is_usable = 0, False
        for block in decode_blocks(recording):
            samples = mixer.mix(block)
            is_usable |= make_finite(samples)
            end += len(block)
            yield resampler(samples, last=False)
        check_end(recording, end)
        if not end:
            raise AudioError("holds no samples")
        if not is_usable:
            raise AudioError("none of its samples is a finite number")
        yield resampler(np.zeros(0, np.float32), last=True)


def count_channels(source: Source) -> int:
    """How many channels a recording has; raises ``AudioError`` where it cannot be opened."""
    with open_recording(source, ignore) as recording:
        return recording.sound.channels


def measure_duration(source: Source) -> float:
    """Seconds in a recording, from its header or, where that does not tell, by decoding it all.

    Raises ``AudioError``; for a truncated file only where that shows without decoding, in WAV and Ogg.
    """
    with open_recording(source) as recording:
        frames = recording.frames
        if frames is None:
            frames = sum(map(len, decode_blocks(recording)))
            check_end(recording, frames)
        if frames == 0:
            raise AudioError("holds no samples")
        return frames / recording.sound.samplerate


def read_stated_duration(source: Source) -> float | None:
    """Seconds in a recording by its header, ``None`` where that does not tell; decodes nothing.

    Raises ``AudioError`` where the file cannot be opened as a recording.
    """
    with name_faults(source), open_source(source) as raw:
        found = examine(raw, find_name(source))
        if found.needs_media:
            file = WindowFile(raw, found.parts[0].begin, found.parts[-1].end)
            return read_stated_seconds(file, found.kind)
    with open_recording(source, ignore) as recording:
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
def open_recording(source: Source, report: Report = refuse, remark: Report = ignore) -> Iterator[Recording]:
    """The recording; ``report`` is told what of it is missing as far as that shows before it is decoded.

    Whatever goes wrong in here or in the block that uses it becomes an ``AudioError`` that begins
    with the name of the source; messages raised on the way leave the name out.
    """
    with name_faults(source), open_source(source) as raw:
        found = examine(raw, find_name(source))
        for fault in found.faults:
            report(fault)
        for note in found.notes:
            remark(note)
        with ExitStack() as stack:
            yield open_reader(stack, raw, found, report)


def open_reader(stack: ExitStack, raw: IO[bytes], found: Examination, report: Report) -> Recording:
    """Open a file with the library that reads all of it; ``stack`` closes it."""
    files = tuple(WindowFile(raw, part.begin, part.end, part.place, part.new) for part in found.parts)
    # Without FFmpeg, what libsndfile finds has to do, as far as it says when that is not all.
    if not found.needs_media or (found.kind in ("MP3", "WAV") and not is_readable()):
        try:
            return open_soundfile(stack, files, found.kind, report)
        except AudioError as refusal:
            if not is_readable() or len(files) > 1 or found.kind not in DEMUXERS:
                raise
            try:
                return open_ffmpeg(stack, raw, found, report)
            except MediaError:
                raise refusal from None
    return open_ffmpeg(stack, raw, found, report)


def open_ffmpeg(stack: ExitStack, raw: IO[bytes], found: Examination, report: Report) -> Recording:
    """A recording that FFmpeg reads."""
    file = WindowFile(
        raw, found.parts[0].begin, found.parts[-1].end, found.parts[0].place, found.parts[0].new
    )
    is_reported = bool(found.faults)  # once is enough
    track = stack.enter_context(open_media(file, found.kind, ignore if is_reported else report, found.codec))
    check_rate(track.samplerate)
    return Recording((file,), track, None, report)


def open_soundfile(stack: ExitStack, files: tuple[WindowFile, ...], kind: str, report: Report) -> Recording:
    """A recording of one of the kinds that libsndfile reads, perhaps several files one behind the other."""
    import soundfile

    sounds = []
    try:
        for file in files:
            with guard_library(file):
                sound = stack.enter_context(soundfile.SoundFile(file))
            check_rate(sound.samplerate)
            # soundfile seeks after every read, which spoils the next samples of an MP3 and fails
            # in a FLAC of unstated length; it does not when it believes that it cannot.
            sound.seekable = lambda: False
            sounds.append(sound)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise AudioError(f"is damaged, truncated or of an unknown kind ({reason})") from error
    if len({(sound.samplerate, sound.channels) for sound in sounds}) > 1:
        raise AudioError("is joined from recordings of several rates; convert them to one WAV or FLAC")
    # 2^63 - 1 is libsndfile's word for "unknown"
    frames = (
        sum(sound.frames for sound in sounds) if all(sound.frames < 1 << 62 for sound in sounds) else None
    )
    return Recording(files, sounds[0] if len(sounds) == 1 else JoinedSound(sounds), frames, report)


class JoinedSound:
    """Recordings one behind the other as one, with what is used here of ``soundfile.SoundFile``."""

    subtype = ""  # no seeking

    def __init__(self, sounds: Sequence[Any]) -> None:
        self.sounds = list(sounds)
        self.format, self.samplerate, self.channels = (
            sounds[0].format, sounds[0].samplerate, sounds[0].channels,
        )  # fmt: skip
        self.frames = min(sum(sound.frames for sound in sounds), (1 << 63) - 1)

    def read(self, frames: int, dtype: str, always_2d: bool, out: np.ndarray) -> np.ndarray:
        """The next ``(frames, channels)`` samples, in ``out``; fewer at the end."""
        end = 0
        while end < frames and self.sounds:
            piece = self.sounds[0].read(frames - end, dtype=dtype, always_2d=always_2d, out=out[end:frames])
            end += len(piece)
            if not len(piece):
                self.sounds.pop(0)
        return out[:end]


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
            with guard_library(*recording.files):
                end = recording.sound.seek(first)
    parts = [np.zeros(0, np.float32)]
    mixer = Mixer()
    for block in decode_blocks(recording, end, last):
        parts.append(mixer.mix(block)[max(0, first - end) :])
        end += len(block)
    check_end(recording, end, last)
    return np.concatenate(parts)


@dataclass
class Mixer:
    """Channels to one: ``channel``, or the mean of all.

    Two channels of which one is turned around (a balanced line read as stereo) cancel each other. Where that
    is so, the second is turned back, and ``remark`` is told once.
    """

    channel: int | None = None
    remark: Report = ignore
    is_told: bool = False

    def mix(self, block: np.ndarray) -> np.ndarray:
        """``(frames, channels)`` to ``(frames,)``."""
        if self.channel is not None:
            return block[:, self.channel].copy()
        with np.errstate(all="ignore"):  # infinities meet: NaN is what is wanted
            mean = block.mean(axis=1)
            if block.shape[1] != 2:
                return mean
            there, left = (float(np.mean(np.square(part, dtype=np.float64))) for part in (block, mean))
            if not (there > 0 and left < CANCELLED_SHARE * there):
                return mean
            difference = (block[:, 0] - block[:, 1]) / 2
            if float(np.mean(np.square(difference, dtype=np.float64))) < 0.9 * there:
                return mean
        if not self.is_told:
            self.remark("has two channels that cancel each other; the second is turned around")
            self.is_told = True
        return difference


def make_finite(samples: np.ndarray) -> bool:
    """Set samples that are no sound to 0, in place; return whether there are others."""
    unusable = ~(np.abs(samples) <= LOUDEST)  # in this form NaN is unusable, too
    samples[unusable] = 0
    return not unusable.all()


def decode_blocks(recording: Recording, begin: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
    """``(frames, channels)`` float32 blocks from frame ``begin``, where it stands, up to ``last``.

    In blocks, because a header that lies about its length must not decide how much memory is taken.
    """
    sound = recording.sound
    size = max(1, BLOCK_SAMPLES // sound.channels)
    left = (sound.frames if last is None else min(last, sound.frames)) - begin
    while left > 0:
        # One more than is wanted at the end, so that the decoder of an MP3 skips the silence that fills
        # up the last frames.
        block = read_block(recording, size if size < left else left + 1)[:left]
        if len(block) == 0:
            return
        yield block
        left -= len(block)


def read_block(recording: Recording, frames: int) -> np.ndarray:
    """The next ``(frames, channels)`` samples; those before damage, which is reported."""
    if isinstance(recording.sound, SoundTrack):  # guards itself
        return recording.sound.read(frames)
    import soundfile

    # libsndfile leaves in the array what it read before it found the damage; behind that, nothing is written.
    out = np.full((frames, recording.sound.channels), np.nan, np.float32)
    with guard_library(*recording.files):
        try:
            return recording.sound.read(frames, dtype="float32", always_2d=True, out=out)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip().rstrip(".")
    recording.report(f"is damaged, truncated or of an unknown kind ({reason})")
    return out[: np.isnan(out).all(axis=1).argmax()]


def check_end(recording: Recording, end: int, last: int | None = None) -> None:
    """Report when decoding ended at frame ``end`` although there should be more.

    ``last`` is where the stretch ends; ``None`` means with the recording.
    """
    if (last is None or end < last) and recording.frames is not None and end < recording.frames:
        rate = recording.sound.samplerate
        seconds = f"{end / rate:.2f} of {recording.frames / rate:.2f} seconds"
        recording.report(f"is truncated: {seconds} are there")
