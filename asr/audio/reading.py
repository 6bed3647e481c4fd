"""Any audio file, or its bytes, to mono float32 samples at the rate asked for.

soundfile reads most of them, ``media.py`` the rest. soundfile and soxr are imported where they are
used: training from cached samples must run on machines that have neither.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from asr.audio.media import DEMUXERS, MediaError, opened_media
from asr.errors import UserError

SLACK_SECONDS = 0.1  # manifests round: a stretch may end this much after its recording
LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # hertz; a damaged rate would make seconds into days
LOUDEST = 1e10  # beyond any scale in use; energies of such samples still fit into float32
MAX_SECONDS = 1e9  # beyond any recording; times any rate it is still finite
BLOCK_SAMPLES = 1 << 18

# How the files begin that can be told whole from cut off. libsndfile knows more formats, but shortens
# a cut file of any of them without a word.
BEGINNINGS = {
    "WAV": rb"RIFF....WAVE",
    "OGG": rb"OggS",
    "FLAC": rb"fLaC",
    "AAC": rb"\xff[\xf0\xf1\xf8\xf9]|ADIF",  # ADTS; where these have no layer, MP3 has one
    "MP3": rb"ID3|\xff[\xe2-\xff]",
    "AIFF": rb"FORM....AIF[FC]",
    "AU": rb"\.snd",
    "NIST": rb"NIST_1A\n   1024\n",  # SPHERE, the format of many older speech corpora
    "MP4": rb"....ftyp",
    "MATROSKA": rb"\x1a\x45\xdf\xa3",
    "ASF": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c",
}
# Encodings in which libsndfile seeks to the very sample. After a seek in MP3, Opus or Vorbis the
# decoder lacks what came before: it is off by as much as 0.03 in the first samples.
SEEKABLE = {"PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}


Source = str | Path | bytes | IO[bytes]  # a path, the bytes of a whole file, or a file that can seek


class AudioError(UserError):
    """A recording that cannot be read; the text names the file and says what is wrong."""


@dataclass(frozen=True)
class Recording:
    """An open recording; ``frames`` is the length its header promises, ``None`` if it promises none."""

    file: IO[bytes]
    sound: Any  # soundfile.SoundFile, or the part of it that asr.audio.media.Sound has
    frames: int | None


def read_audio(
    source: Source, rate: int = 16000, start: float = 0.0, duration: float | None = None
) -> np.ndarray:
    """Samples of a recording or of a stretch of it, channels averaged.

    WAV, FLAC, Ogg Vorbis, Opus, MP3, AIFF, AU and SPHERE are recognised by their content, whatever
    the name ends in; so are AAC, MP4 (m4a), Matroska (mkv, webm) and WMA, which need PyAV or ffmpeg.

    Args:
        source: a path, the bytes of a whole file, or a file that can seek.
        rate: hertz of the samples handed out; others are resampled (soxr, high quality).
        start: seconds into the recording at which the stretch begins.
        duration: its length in seconds; ``None`` means to the end.

    Returns:
        ``(samples,)`` float32, full scale 1, all finite: single samples that are not become 0.

    Raises:
        AudioError: the file is missing, empty, truncated, not audio, has no samples or only such
            as are not finite, or ends before the stretch does. (Two truncated files pass for whole:
            an MP3 without Xing header, and a FLAC of unstated length cut between two frames.)
    """
    with opened(source) as recording:
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
    return samples if own_rate == rate else resampled(samples, own_rate, rate)


def audio_blocks(source: Source, rate: int = 16000) -> Iterator[np.ndarray]:
    """The samples of a whole recording in blocks, together those of ``read_audio``.

    However long the recording, only a few seconds of it are in memory. Raises ``AudioError`` as
    ``read_audio`` does, what is wrong with the end only there.
    """
    with opened(source) as recording:
        resampler = new_resampler(recording.sound.samplerate, rate)
        end, usable = 0, False
        for block in decoded_blocks(recording.sound):
            samples = mono(block)
            usable |= make_finite(samples)
            end += len(block)
            yield resampler(samples, last=False)
        check_end(recording, end)
        if not end:
            raise AudioError("holds no samples")
        if not usable:
            raise AudioError("none of its samples is a finite number")
        yield resampler(np.zeros(0, np.float32), last=True)


def duration(source: Source) -> float:
    """Seconds in a recording, from its header where that tells; raises ``AudioError``.

    What is truncated is told here only where that needs no decoding: in WAV and Ogg.
    """
    with opened(source) as recording:
        frames = recording.frames
        if frames is None:
            frames = sum(map(len, decoded_blocks(recording.sound)))
            check_end(recording, frames)
        if frames == 0:
            raise AudioError("holds no samples")
        return frames / recording.sound.samplerate


def resampled(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """``samples`` at another rate, float32."""
    import soxr

    return soxr.resample(samples, rate, new_rate, quality="HQ")


def new_resampler(rate: int, new_rate: int) -> Callable[..., np.ndarray]:
    """As ``resampled`` for samples that come in blocks, the last one with ``last=True``."""
    if rate == new_rate:
        return lambda samples, last: samples
    import soxr

    return soxr.ResampleStream(rate, new_rate, 1, dtype="float32", quality="HQ").resample_chunk


def bare_wav_header(rate: int) -> bytes:
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
def opened(source: Source) -> Iterator[Recording]:
    """The recording, whole as far as can be told before it is decoded.

    Whatever goes wrong in here or in the block that uses it becomes an ``AudioError`` that begins
    with the name of the source; messages raised on the way leave the name out.
    """
    import soundfile

    name = named(source)
    try:
        with opened_file(source) as raw:
            raw.seek(0)
            kind = kind_of(raw)
            if kind in DEMUXERS:
                with opened_media(raw, kind) as media:
                    check_rate(media.samplerate)
                    yield Recording(raw, media, None)
                return
            file = whole_wav(raw) if kind == "WAV" else raw
            if kind == "OGG":
                check_ogg(file)
            if kind in ("AIFF", "AU", "NIST"):
                check_size(file, kind)
            counted = kind != "MP3" or mp3_counts_its_frames(file)
            file.seek(0)
            with soundfile.SoundFile(file) as sound:
                if not sound.format.startswith(kind):
                    raise AudioError(f"is {sound.format} behind an ID3 tag; convert it to WAV or FLAC")
                check_rate(sound.samplerate)
                # soundfile seeks after every read, which spoils the next samples of an MP3 and fails
                # in a FLAC of unstated length; it does not when it believes that it cannot.
                sound.seekable = lambda: False
                stated = counted and sound.frames < 1 << 62  # libsndfile's word for "unknown" is 2^63 - 1
                yield Recording(file, sound, sound.frames if stated else None)
    except (AudioError, MediaError) as error:
        raise AudioError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        is_url = re.match(r"\w{2,}:/", name)
        reason = "is a URL; download it and give the file" if is_url else "cannot be read: no such file"
        raise AudioError(f"{name}: {reason}") from error
    except OSError as error:
        raise AudioError(f"{name}: cannot be read: {error.strerror}") from error
    except (soundfile.LibsndfileError, MemoryError) as error:
        reason = getattr(error, "error_string", "not enough memory").strip().rstrip(".")
        raise AudioError(f"{name}: is damaged, truncated or of an unknown kind ({reason})") from error


def named(source: Source) -> str:
    """What messages call the source, on one line."""
    if isinstance(source, bytes):
        return "audio bytes"
    if not isinstance(source, str | Path):
        return "audio stream"
    return str(source) if str(source).isprintable() else repr(str(source))


def opened_file(source: Source) -> AbstractContextManager[IO[bytes]]:
    """The source as a binary file that has no name, because names mislead soundfile."""
    if isinstance(source, bytes):
        return Bytes(source)
    if not isinstance(source, str | Path) and not hasattr(source, "seek"):
        raise TypeError(
            f"{type(source).__name__} is no recording: give a file name, the bytes of a file, or an open "
            "file; for samples there is transcribe_samples"
        )
    if not isinstance(source, str | Path):
        return nullcontext(cast(IO[bytes], Patched(source)))
    if Path(source).exists() and not Path(source).is_file():  # opening a pipe would wait for its writer
        raise AudioError("is a directory or a device, not a file")
    try:
        return Unnamed(source, "rb")
    except ValueError as error:
        raise AudioError(f"is no file name: {error}") from error


class Forgiving:
    """A file in which places that cannot be are as its end: there is nothing.

    Damaged files send the libraries there, and these print the exceptions of Python that they cannot raise.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)  # type: ignore[misc]
        except (OSError, ValueError, OverflowError):
            return super().seek(0, io.SEEK_END)  # type: ignore[misc]


class Bytes(Forgiving, io.BytesIO):
    """A file in memory."""


class Unnamed(Forgiving, io.FileIO):
    """A file whose ``name`` is hidden: soundfile would take ``x.raw`` for headerless samples."""

    name = property(lambda self: "", lambda self, value: None)


class Patched(io.RawIOBase):
    """Another file, in which the bytes from ``place`` on are ``new``; it has no name."""

    def __init__(self, file: IO[bytes], place: int = 0, new: bytes = b"") -> None:
        self.file, self.place, self.new = file, place, new

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # as in Forgiving
            return self.file.seek(0, io.SEEK_END)

    def tell(self) -> int:
        return self.file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        begin = self.file.tell()
        content = self.file.read(len(buffer))
        buffer[: len(content)] = content
        first, last = max(self.place, begin), min(self.place + len(self.new), begin + len(content))
        if first < last:
            buffer[first - begin : last - begin] = self.new[first - self.place : last - self.place]
        return len(content)


def check_rate(rate: int) -> None:
    """Raise ``AudioError`` for hertz that no recording has."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(f"is damaged: its sampling rate is {rate} Hz")


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
    pieces = [np.zeros(0, np.float32)]
    for block in decoded_blocks(recording.sound, end, last):
        pieces.append(mono(block[max(0, first - end) :]))
        end += len(block)
    check_end(recording, end, last)
    return np.concatenate(pieces)


def mono(block: np.ndarray) -> np.ndarray:
    """The channels of ``(frames, channels)`` averaged."""
    with np.errstate(all="ignore"):  # infinities meet: NaN is what is wanted
        return block.mean(axis=1)


def make_finite(samples: np.ndarray) -> bool:
    """Set samples that are no sound to 0, in place; whether there are others."""
    unusable = ~(np.abs(samples) <= LOUDEST)  # in this form NaN is unusable, too
    samples[unusable] = 0
    return not unusable.all()


def decoded_blocks(sound: Any, begin: int = 0, last: int | None = None) -> Iterator[np.ndarray]:
    """``(frames, channels)`` float32 blocks from frame ``begin``, where ``sound`` stands, up to ``last``.

    In blocks, because a header that lies about its length must not decide how much memory is taken.
    """
    size = max(1, BLOCK_SAMPLES // sound.channels)
    left = (sound.frames if last is None else min(last, sound.frames)) - begin
    while left > 0:
        # One more than is wanted at the end, so that the decoder of an MP3 passes over the silence
        # that fills up the last frames; not many more, for check_end looks at where it stopped.
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
    if recording.sound.format == "MP3" and re.match(rb"\xff[\xe2-\xff]", recording.file.read(2)):
        raise AudioError("is an MP3 that goes on after the end its header tells; convert it to WAV or FLAC")


# --- is it all there? -----------------------------------------------------------------------------
# libsndfile reads as much as it finds and says nothing when that is less than there was.


def kind_of(file: IO[bytes]) -> str:
    """The key in ``BEGINNINGS`` that fits ``file``; raises ``AudioError`` when none does."""
    beginning = file.read(16)
    if not beginning:
        raise AudioError("is empty")
    if beginning[:3] == b"ID3":  # stands before MP3, and before AAC sometimes
        file.seek(id3_size(beginning))
        behind = file.read(16)
        beginning = behind if re.match(BEGINNINGS["AAC"], behind) else beginning
    for kind, pattern in BEGINNINGS.items():
        if re.match(pattern, beginning, re.DOTALL):
            return kind
    raise AudioError(
        "is not audio in a format that can be read (WAV, FLAC, Ogg, Opus, MP3, AIFF, AU, SPHERE; "
        "m4a, aac, mp4, mkv, webm, wma)"
    )


def whole_wav(file: IO[bytes]) -> IO[bytes]:
    """A WAV file whose samples are known to be there to the last one; raises ``AudioError``.

    Programs that write into a pipe cannot go back to fill in how many bytes of samples follow. They
    leave there the largest number, signed or not, often rounded down, or 0; all mean "to the end".
    libsndfile does not know about the 0: it is shown the length instead.
    """
    size = file.seek(0, io.SEEK_END)
    place = 12
    for _ in range(1000):  # more chunks than any program writes; a file of zeros has millions
        file.seek(place)
        chunk, length = struct.unpack("<4sI", file.read(8).ljust(8, b"\0"))
        place += 8
        if chunk == b"data" or place >= size:
            break
        place += length + length % 2
    from_pipe = 0x7FFF_0000 <= length <= 0x8000_0000 or length >= 0xFFFF_0000
    if chunk != b"data" or (place + length > size and not from_pipe):
        raise AudioError("is truncated: its header promises more than the file holds")
    file.seek(0)
    (riff_length,) = struct.unpack("<4xI", file.read(8))
    if length or place == size or 8 + riff_length == size:  # the last: whole, and nothing in it
        return file
    return cast(IO[bytes], Patched(file, place - 4, struct.pack("<I", min(size - place, 0xFFFF_FFFF))))


def check_ogg(file: IO[bytes]) -> None:
    """Raise ``AudioError`` unless an Ogg file holds one stream to its end (RFC 3533, section 6)."""
    file.seek(0)
    first = file.read(27)
    tail = min(file.seek(0, io.SEEK_END), 1 << 17)  # a page has at most 65,307 bytes
    file.seek(-tail, io.SEEK_END)
    page = file.read(tail)
    page = page[max(0, page.rfind(b"OggS")) :]
    is_last = len(page) >= 27 and page[5] & 4
    if not is_last or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        raise AudioError("is truncated: its last page is not there to the end")
    if page[14:18] != first[14:18]:  # libsndfile would read only the first
        raise AudioError("holds several Ogg streams; convert it to WAV or FLAC")


def check_size(file: IO[bytes], kind: str) -> None:
    """Raise ``AudioError`` when a file of a kind that states its size in one place is shorter than that."""
    file.seek(0)
    header = file.read(1024)
    first, second = struct.unpack(">2I", header[4:12].ljust(8, b"\0"))
    if kind == "AIFF":
        size = 8 + first
    elif kind == "AU":
        size = first + (0 if second == 0xFFFF_FFFF else second)  # from a pipe: to the end
    else:
        sizes = re.findall(rb"(?:sample_count|channel_count|sample_n_bytes) -i (\d+)", header)
        size = 1024 + math.prod(map(int, sizes))
    if size > file.seek(0, io.SEEK_END):
        raise AudioError("is truncated: its header promises more than the file holds")


def mp3_counts_its_frames(file: IO[bytes]) -> bool:
    """Whether the Xing (or Info) header in the first frame of an MP3 tells how many there are."""
    file.seek(0)
    tag = file.read(10)
    file.seek(id3_size(tag) if tag[:3] == b"ID3" else 0)
    header = re.search(rb"(?:Xing|Info)...(.)", file.read(64), re.DOTALL)
    return header is not None and bool(header[1][0] & 1)


def id3_size(tag: bytes) -> int:
    """Bytes in the ID3 tag that begins with ``tag``; its length has seven bits a byte."""
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=False))
