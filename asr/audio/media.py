"""Sound by FFmpeg, PyAV or an installed ``ffmpeg``: what libsndfile does not know and what it would shorten.

FFmpeg is told the kind of a file, which its content decided, and may open nothing but this one file: it takes
nothing for a playlist and opens nothing that a file names. Samples lie where the container's clock puts them:
before sound that starts late, and where none was sent, there is silence.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from asr.audio.sources import WindowFile, guard_library
from asr.errors import UserError

# By the names in asr.audio.integrity: what FFmpeg calls the container, and what people call it.
DEMUXERS = {
    "MP4": ("mov", "MP4 (m4a, mp4, mov, 3gp)"),
    "MATROSKA": ("matroska", "Matroska (mkv, webm)"),
    "ASF": ("asf", "WMA"),
    "AAC": ("aac", "AAC"),
    "CAF": ("caf", "CAF"),
    "W64": ("w64", "W64"),
    "RF64": ("wav", "RF64"),
    "AVI": ("avi", "AVI"),
    "FLV": ("flv", "FLV"),
    "TS": ("mpegts", "an MPEG transport stream"),
    "M2TS": ("mpegts", "an MPEG transport stream"),
    "PS": ("mpeg", "an MPEG programme stream"),
    "AMR": ("amr", "AMR"),
    "AC3": ("ac3", "AC3"),
    "WAVPACK": ("wv", "WavPack"),
    "APE": ("ape", "Monkey's Audio"),
    "TTA": ("tta", "True Audio"),
    "VOC": ("voc", "VOC"),
    "SHORTEN": ("shn", "shorten"),
    "DSF": ("dsf", "DSF"),
    "G722": ("g722", "G.722"),
    # Those that libsndfile reads, where it would not read all.
    "WAV": ("wav", "WAV with a codec that libsndfile does not know"),
    "OGG": ("ogg", "Ogg that libsndfile does not read whole"),
    "FLAC": ("flac", "FLAC"),
    "MP3": ("mp3", "MP3 without a header that tells its length"),
    "AIFF": ("aiff", "AIFF"),
    "AU": ("au", "AU"),
    "NIST": ("nistsphere", "SPHERE"),
}
STATES_LENGTH = ("MP4", "MATROSKA", "ASF", "CAF", "W64", "RF64", "WAV", "AVI")  # elsewhere FFmpeg guesses it
RELATIVE_CLOCK = ("TS", "M2TS", "PS", "FLV")  # a broadcast's clock began long before the recording
KEEPS_CLOCK = ("MP4", "MATROSKA", "ASF", "AVI", *RELATIVE_CLOCK)  # elsewhere samples follow each other
MISSING_SECONDS = 0.25  # may be missing of what a container promises: the codecs round and pad
GAP_SECONDS = 0.1  # between two frames; timestamps of less are rounded or tremble
LONGEST_GAP_SECONDS = 3600.0  # a clock that jumps further was set anew
AAC_PRIMING = 1024  # samples of a decoder's delay, where no edit list takes them away
MOST_PIXELS = 1 << 20  # of a picture, which nobody looks at: a larger one is not decoded
UNKNOWN_LENGTH = 1 << 62
BLOCK_BYTES = 1 << 18
MOST_BAD_PACKETS = 1000

Report = Callable[[str], object]  # is told what is missing; may raise


class MediaError(UserError):
    """Media that cannot be read; the text says why, the caller says which."""


@dataclass
class SoundTrack:
    """Decoded samples with what ``asr.audio.reading`` uses of ``soundfile.SoundFile``."""

    format: str
    samplerate: int
    blocks: Iterator[np.ndarray]  # (samples, channels) float32
    channels: int = 1
    frames: int = UNKNOWN_LENGTH
    subtype: str = ""

    def __post_init__(self) -> None:
        self.rest = np.zeros((0, self.channels), np.float32)

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> np.ndarray:
        """The next ``(frames, channels)`` samples; fewer at the end."""
        pieces, count = [self.rest], len(self.rest)
        while count < frames:
            block = next(self.blocks, None)
            if block is None:
                break
            pieces.append(block)
            count += len(block)
        samples = np.concatenate(pieces)
        self.rest = samples[frames:]
        return samples[:frames]


@contextmanager
def open_media(file: WindowFile, kind: str, report: Report, codec: str = "") -> Iterator[SoundTrack]:
    """The first sound track of ``file``, whose content is of ``kind``; raises ``MediaError``.

    ``report`` is told what of it is missing.
    """
    is_cut = is_shorter_than_stated(file, kind)
    if importlib.util.find_spec("av") is not None:
        with open_with_pyav(file, kind, report, is_cut, codec) as track:
            yield track
    elif program := shutil.which("ffmpeg"):
        if is_cut:
            report(CUT_OFF)
        with open_with_ffmpeg(program, file, kind, report) as track:
            yield track
    else:
        raise MediaError(
            f"is {DEMUXERS[kind][1]}, which needs PyAV (pip install av) or ffmpeg; "
            "or convert it to WAV or FLAC"
        )


def is_readable() -> bool:
    """Whether PyAV or an ffmpeg is there."""
    return importlib.util.find_spec("av") is not None or shutil.which("ffmpeg") is not None


def read_stated_seconds(file: WindowFile, kind: str) -> float | None:
    """How long the sound is according to its container; ``None`` where that or PyAV is not there to tell."""
    if importlib.util.find_spec("av") is None:
        return None
    with open_container(file, kind) as container:
        return read_stated_end(container, kind) or None


CUT_OFF = "is truncated: its container promises more than the file holds"


def is_shorter_than_stated(file: WindowFile, kind: str) -> bool:
    """Whether a file ends before its container says; FFmpeg makes do with less.

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
    return end > size


# --- PyAV -----------------------------------------------------------------------------------------


@contextmanager
def open_with_pyav(
    file: WindowFile, kind: str, report: Report, is_cut: bool, codec: str
) -> Iterator[SoundTrack]:
    """``open_media`` through the bindings of FFmpeg's libraries."""
    with open_container(file, kind, CUT_OFF if is_cut else "") as container:
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise MediaError(f"holds a codec that FFmpeg does not know{f' ({codec})' if codec else ''}")
        decoder = Decoder(container, file, report)
        frames = decoder.decode_frames()
        first = next(frames, None)
        if first is None or not first.sample_rate:
            raise MediaError(CUT_OFF if is_cut else f"holds no samples (codec {stream.codec_context.name})")
        priming = count_priming(kind, stream.codec_context.name, decoder.first_pts)
        blocks = place_frames(container, kind, chain([first], frames), priming, report, is_cut)
        yield SoundTrack(kind, first.sample_rate, blocks, next(blocks).shape[1])


@contextmanager
def open_container(file: WindowFile, kind: str, cut_off: str = "") -> Iterator[Any]:
    """The header of ``file``, which has a sound track; raises ``MediaError``, ``cut_off`` if that is why."""
    import av

    av.logging.set_level(None)  # what matters is raised
    file.seek(0)
    options = {"protocol_whitelist": "none", "max_pixels": str(MOST_PIXELS)}
    with translate_errors(cut_off), guard_library(file):
        container = av.open(file, format=DEMUXERS[kind][0], metadata_errors="replace", options=options)
    with container:
        if not container.streams.audio:
            raise MediaError("holds no sound")
        yield container


@contextmanager
def translate_errors(cut_off: str = "") -> Iterator[None]:
    """Raise what FFmpeg raises in the block as a ``MediaError``."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise MediaError(
            cut_off or f"is damaged, truncated or of an unknown kind ({error.strerror})"
        ) from error


@dataclass
class Decoder:
    """Packets of the first sound track to frames; ``first_pts`` is the timestamp of the first packet."""

    container: Any
    file: WindowFile
    report: Report
    first_pts: int | None = None

    def decode_frames(self) -> Iterator[Any]:
        """The frames that are not empty; damaged packets are passed over and reported."""
        import av

        packets = self.container.demux(self.container.streams.audio[0])
        bad, decoded, is_first, reason = 0, 0, True, ""
        while bad < MOST_BAD_PACKETS:
            with guard_library(self.file):
                try:
                    packet = next(packets, None)
                    if is_first and packet is not None:
                        self.first_pts, is_first = packet.pts, False
                    frames = [] if packet is None else packet.decode()
                except av.EOFError:
                    break
                except av.FFmpegError as error:
                    bad, reason = bad + 1, error.strerror or ""
                    continue
            if packet is None:
                break
            for frame in frames:
                if frame.samples:
                    decoded += 1
                    yield frame
        if bad and not decoded:
            raise MediaError(f"is damaged, truncated or of an unknown kind ({reason})")
        if bad:
            packets_said = f"{bad} packet{'' if bad == 1 else 's'} cannot be decoded"
            self.report(f"is damaged or truncated: {packets_said} ({reason})")


def place_frames(
    container: Any, kind: str, frames: Iterable[Any], priming: int, report: Report, is_cut: bool
) -> Iterator[np.ndarray]:
    """The samples of all frames but the first ``priming``, with silence where the clock runs on without any.

    The first block may be empty; it tells the channels. ``report`` is told of an early end.
    """
    now, rate, channels = 0, 0, 0  # samples, hertz
    origin, is_set_anew = read_origin(container, kind), False
    for frame in frames:
        if not rate:
            rate, channels = frame.sample_rate, frame.layout.nb_channels
            origin += priming / rate
            yield np.zeros((0, channels), np.float32)
        if frame.sample_rate != rate:
            raise MediaError("changes its sampling rate; convert it to WAV or FLAC")
        samples = spread_channels(frame, channels)
        taken = min(priming, len(samples))
        priming -= taken
        if kind in KEEPS_CLOCK and frame.time is not None and not taken:
            gap = frame.time - origin - now / rate
            if gap > LONGEST_GAP_SECONDS:
                origin, is_set_anew = origin + gap, True
            elif gap > GAP_SECONDS:
                missing = round(gap * rate)
                now += missing
                yield from make_silence(missing, channels)
        now += len(samples) - taken
        yield samples[taken:]
    promised = 0.0 if is_set_anew else read_stated_end(container, kind)
    if now / max(rate, 1) < promised - MISSING_SECONDS:
        report(f"is truncated: {now / max(rate, 1):.2f} of {promised:.2f} seconds are there")
    elif is_cut:
        report(CUT_OFF)


def make_silence(count: int, channels: int) -> Iterator[np.ndarray]:
    """So many samples of nothing, in blocks."""
    while count > 0:
        size = min(count, BLOCK_BYTES)
        yield np.zeros((size, channels), np.float32)
        count -= size


def read_origin(container: Any, kind: str) -> float:
    """The second of the container's clock at which its recording begins."""
    start = (container.start_time or 0) / 1e6
    return start if kind in RELATIVE_CLOCK or abs(start) > LONGEST_GAP_SECONDS else 0.0


def count_priming(kind: str, codec: str, first_pts: int | None) -> int:
    """Samples at the beginning that are only the delay of an AAC decoder.

    Where an edit list says so, FFmpeg takes them away: then the first packet lies before 0. Bare ADTS says
    nothing, nor do fragments of MP4, nor what is made for broadcasts.
    """
    if not codec.startswith("aac") or kind not in ("AAC", "MP4", *RELATIVE_CLOCK):
        return 0
    return AAC_PRIMING if kind != "MP4" or first_pts == 0 else 0


def read_stated_end(container: Any, kind: str) -> float:
    """When the sound ends on the clock of its container; 0 where that would be a guess."""
    if kind not in STATES_LENGTH:
        return 0.0
    stream = container.streams.audio[0]
    if stream.duration is not None and stream.time_base is not None:
        start = stream.start_time or 0
        return float((start + stream.duration) * stream.time_base) - read_origin(container, kind)
    if len(container.streams) > 1 or container.duration is None:  # other tracks may be longer
        return 0.0
    start = 0 if kind == "MATROSKA" else max(0, container.start_time or 0)
    return (start + container.duration) / 1e6 - read_origin(container, kind)


def spread_channels(frame: Any, channels: int) -> np.ndarray:
    """The samples of one frame, ``(samples, channels)``, full scale 1; another number of them is averaged."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        scaled = samples.T.astype(np.float32)
    else:
        middle = 128 if samples.dtype == np.uint8 else 0
        scale = 1 << (8 * samples.dtype.itemsize - 1)
        scaled = ((samples.T.astype(np.float64) - middle) / scale).astype(np.float32)
    if scaled.shape[1] != channels:
        scaled = np.repeat(scaled.mean(axis=1, keepdims=True), channels, axis=1)
    return scaled


# --- ffmpeg ---------------------------------------------------------------------------------------


@contextmanager
def open_with_ffmpeg(program: str, file: WindowFile, kind: str, report: Report) -> Iterator[SoundTrack]:
    """``open_media`` through an installed program, which writes an AU file of floats into a pipe.

    What it reads is a copy under a name of ours, so that it makes nothing of the user's. It fills gaps with
    silence and begins at 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sound"
        file.seek(0)
        with copy.open("wb") as target, guard_library(file):
            shutil.copyfileobj(cast(IO[bytes], file), target)
        clock = ["-af", f"aresample=async=1:min_hard_comp={GAP_SECONDS}:first_pts=0"]
        clock = clock if kind in KEEPS_CLOCK else []
        command = [
            program, "-nostdin", "-hide_banner", "-v", "error", "-xerror",
            *(["-copyts"] if clock and kind not in RELATIVE_CLOCK else []),
            "-protocol_whitelist", "file", "-max_pixels", str(MOST_PIXELS),
            "-f", DEMUXERS[kind][0], "-i", f"file:{copy}",
            "-map", "0:a:0", "-vn", "-sn", "-dn", *clock, "-c:a", "pcm_f32be", "-f", "au", "pipe:1",
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
                yield SoundTrack(kind, rate, read_pipe(process, errors, channels, report), channels)
            finally:
                process.stdout.close()
                process.kill()
                process.wait()


def read_pipe(
    process: subprocess.Popen[bytes], errors: IO[bytes], channels: int, report: Report
) -> Iterator[np.ndarray]:
    """The samples behind the header; ``report`` is told what the program complains about."""
    assert process.stdout is not None
    size = 4 * channels
    while content := process.stdout.read(max(1, BLOCK_BYTES // size) * size):
        whole = content[: len(content) // size * size]
        yield np.frombuffer(whole, ">f4").astype(np.float32).reshape(-1, channels)
    reason = describe_failure(process, errors)
    if reason:
        report(reason)


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
