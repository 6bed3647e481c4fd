"""Sound in the containers that soundfile does not know: MP4, Matroska, WMA, AAC; by PyAV or an ``ffmpeg``.

Both are FFmpeg. It is told the kind of a file, which its content decided, and may open nothing but this
one file: it takes nothing for a playlist and opens nothing that a file names.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from asr.errors import UserError

# By the names in asr.audio.integrity: what FFmpeg calls the container, and what people call it.
DEMUXERS = {
    "MP4": ("mov", "MP4 (m4a, mp4, mov, 3gp)"),
    "MATROSKA": ("matroska", "Matroska (mkv, webm)"),
    "ASF": ("asf", "WMA"),
    "AAC": ("aac", "AAC"),
}
MISSING_SECONDS = 0.25  # may be missing of what a container promises: the codecs round and pad
UNKNOWN_LENGTH = 1 << 62
BLOCK_BYTES = 1 << 18


class MediaError(UserError):
    """Media that cannot be read; the text says why, the caller says which."""


@dataclass
class SoundTrack:
    """Decoded samples with what ``asr.audio.reading`` uses of ``soundfile.SoundFile``."""

    format: str
    samplerate: int
    blocks: Iterator[np.ndarray]  # (samples,) float32, channels averaged
    channels: int = 1
    frames: int = UNKNOWN_LENGTH
    subtype: str = ""

    def __post_init__(self) -> None:
        self.rest = np.zeros(0, np.float32)

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next ``(frames, 1)`` samples; fewer at the end."""
        pieces, count = [self.rest], len(self.rest)
        while count < frames:
            block = next(self.blocks, None)
            if block is None:
                break
            pieces.append(block)
            count += len(block)
        samples = np.concatenate(pieces)
        self.rest = samples[frames:]
        return samples[:frames, None]


@contextmanager
def open_media(file: IO[bytes], kind: str) -> Iterator[SoundTrack]:
    """The first sound track of ``file``, whose content is of ``kind``; raises ``MediaError``."""
    check_whole(file, kind)
    if importlib.util.find_spec("av") is not None:
        with open_with_pyav(file, kind) as track:
            yield track
    elif program := shutil.which("ffmpeg"):
        with open_with_ffmpeg(program, file, kind) as track:
            yield track
    else:
        raise MediaError(
            f"is {DEMUXERS[kind][1]}, which needs PyAV (pip install av) or ffmpeg; "
            "or convert it to WAV or FLAC"
        )


def read_stated_seconds(file: IO[bytes], kind: str) -> float | None:
    """How long the sound is according to its container; ``None`` where that or PyAV is not there to tell."""
    if importlib.util.find_spec("av") is None:
        return None
    with open_container(file, kind) as container:
        return read_promised_seconds(container) or None


def check_whole(file: IO[bytes], kind: str) -> None:
    """Raise ``MediaError`` when a file ends before its container says; FFmpeg makes do with less.

    An MP4 is a chain of boxes that tell their sizes (ISO 14496-12, section 4.2), a WMA file tells its own
    (Advanced Systems Format, section 3.2).
    """
    size = file.seek(0, io.SEEK_END)
    end = 0
    if kind == "MP4":
        for _ in range(10_000):  # boxes at the top; fragments make several a second
            file.seek(end)
            length, longer = struct.unpack(">I4xQ", file.read(16).ljust(16, b"\0"))
            step = longer if length == 1 else length
            if step < 8 or end + step >= size:  # 0 means to the end of the file
                end += step if step >= 8 else 0
                break
            end += step
    elif kind == "ASF":
        file.seek(0)
        header = file.read(1 << 16)
        place = header.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
        if place >= 0:
            (end,) = struct.unpack("<Q", header[place + 40 : place + 48].ljust(8, b"\0"))
    if end > size:
        raise MediaError("is truncated: its container promises more than the file holds")


# --- PyAV -----------------------------------------------------------------------------------------


@contextmanager
def open_with_pyav(file: IO[bytes], kind: str) -> Iterator[SoundTrack]:
    """``open_media`` through the bindings of FFmpeg's libraries."""
    with open_container(file, kind) as container:
        frames = decode_frames(container)
        first = next(frames, None)
        if first is None or not first.sample_rate:
            raise MediaError("holds no samples")
        yield SoundTrack(kind, first.sample_rate, read_frames(container, first, frames))


@contextmanager
def open_container(file: IO[bytes], kind: str) -> Iterator[Any]:
    """The header of ``file``, which has a sound track; raises ``MediaError``."""
    import av

    av.logging.set_level(None)  # what matters is raised
    file.seek(0)
    options = {"protocol_whitelist": "none"}
    with translate_errors():
        container = av.open(file, format=DEMUXERS[kind][0], metadata_errors="replace", options=options)
    with container:
        if not container.streams.audio:
            raise MediaError("holds no sound")
        yield container


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise what FFmpeg raises in the block as a ``MediaError``."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise MediaError(f"is damaged, truncated or of an unknown kind ({error.strerror})") from error


def decode_frames(container: Any) -> Iterator[Any]:
    """The decoded frames of the first sound track that are not empty."""
    with translate_errors():
        yield from (frame for frame in container.decode(container.streams.audio[0]) if frame.samples)


def read_frames(container: Any, first: Any, frames: Iterator[Any]) -> Iterator[np.ndarray]:
    """The samples of ``first`` and of the frames that follow it; raises ``MediaError`` at an early end."""
    rate, count = first.sample_rate, first.samples
    yield average_channels(first)
    for frame in frames:
        if frame.sample_rate != rate:
            raise MediaError("changes its sampling rate; convert it to WAV or FLAC")
        count += frame.samples
        yield average_channels(frame)
    promised = read_promised_seconds(container)
    if count / rate < promised - MISSING_SECONDS:
        raise MediaError(f"is truncated: {count / rate:.2f} of {promised:.2f} seconds are there")


def read_promised_seconds(container: Any) -> float:
    """How long the sound is according to its container; 0 where that would be a guess."""
    if container.format.name == "aac":
        return 0.0
    stream = container.streams.audio[0]
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) > 1 or container.duration is None:  # other tracks may be longer
        return 0.0
    return container.duration / 1e6


def average_channels(frame: Any) -> np.ndarray:
    """The channels of one frame averaged, full scale 1."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        return samples.mean(axis=0, dtype=np.float32)
    middle = 128 if samples.dtype == np.uint8 else 0
    scale = 1 << (8 * samples.dtype.itemsize - 1)
    return ((samples.mean(axis=0, dtype=np.float64) - middle) / scale).astype(np.float32)


# --- ffmpeg ---------------------------------------------------------------------------------------


@contextmanager
def open_with_ffmpeg(program: str, file: IO[bytes], kind: str) -> Iterator[SoundTrack]:
    """``open_media`` through an installed program, which writes an AU file of floats into a pipe.

    What it reads is a copy under a name of ours, so that it makes nothing of the user's.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sound"
        file.seek(0)
        with copy.open("wb") as target:
            shutil.copyfileobj(file, target)
        command = [
            program, "-nostdin", "-hide_banner", "-v", "error", "-xerror",
            "-protocol_whitelist", "file", "-f", DEMUXERS[kind][0], "-i", f"file:{copy}",
            "-map", "0:a:0", "-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "pipe:1",
        ]  # fmt: skip
        with (Path(folder) / "errors").open("w+b") as errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd=folder
            )
            assert process.stdout is not None
            try:
                header = process.stdout.read(24)
                if len(header) < 24:
                    raise MediaError(describe_failure(process, errors) or "holds no sound")
                magic, offset, _, encoding, rate, channels = struct.unpack(">4s5I", header)
                if (magic, encoding) != (b".snd", 6) or offset < 24 or not channels:
                    raise MediaError(f"was not decoded by {program}: that wrote no AU file of floats")
                process.stdout.read(offset - 24)
                yield SoundTrack(kind, rate, read_pipe(process, errors, channels))
            finally:
                process.stdout.close()
                process.kill()
                process.wait()


def read_pipe(process: subprocess.Popen[bytes], errors: IO[bytes], channels: int) -> Iterator[np.ndarray]:
    """The samples behind the header; raises ``MediaError`` when the program complains."""
    assert process.stdout is not None
    size = 4 * channels
    while content := process.stdout.read(max(1, BLOCK_BYTES // size) * size):
        whole = content[: len(content) // size * size]
        samples = np.frombuffer(whole, ">f4").astype(np.float32).reshape(-1, channels)
        with np.errstate(all="ignore"):  # the caller deals with what is no number
            yield samples.mean(axis=1)
    reason = describe_failure(process, errors)
    if reason:
        raise MediaError(reason)


def describe_failure(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    """What is wrong according to a program that has ended; empty when nothing is."""
    status = process.wait()
    errors.seek(0)
    lines = errors.read(1 << 16).decode("utf-8", "replace").split("\n")
    message = next((line.strip() for line in lines if line.strip()), "")
    message = re.sub(r" @ 0x[0-9a-f]+", "", message)  # a place in ffmpeg's memory helps nobody
    if not status and not message:
        return ""
    reason = message if message.isprintable() and message else f"exit status {status}"
    return f"is damaged or truncated; ffmpeg says: {reason}"
