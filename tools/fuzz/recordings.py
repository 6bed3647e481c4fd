"""Damaged recordings: those in `samples/` in every format, and what is left of them.

The sound is that of whole recordings with bits flipped, the end or a stretch cut off, numbers in the header
replaced, files joined, and random bytes under every ending.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import asr
from asr.audio.reading import read_audio
from asr.audio.sources import ENDINGS
from asr.errors import UserError
from tools.fuzz.changes import DAMAGES, make_up
from tools.fuzz.runner import RunCase

SAMPLES = Path(__file__).parents[2] / "samples"
SHORT = ("digit-4-george.flac", "digit-7-jackson.flac")  # so that a case takes a moment
NO_ENDINGS = ("", ".txt", ".bin", ".raw", ".vox", ".gsm", ".m3u8", ".mp4.part")

# Format, encoding and ending of what soundfile writes; container, codec, rate and ending of PyAV.
BY_SOUNDFILE = [
    ("WAV", "PCM_16", ".wav"), ("WAV", "FLOAT", ".wav"), ("WAVEX", "PCM_24", ".wav"),
    ("WAV", "ULAW", ".wav"), ("WAV", "IMA_ADPCM", ".wav"), ("FLAC", "PCM_16", ".flac"),
    ("OGG", "VORBIS", ".ogg"), ("OGG", "OPUS", ".opus"), ("MP3", "MPEG_LAYER_III", ".mp3"),
    ("AIFF", "PCM_16", ".aiff"), ("AU", "ULAW", ".au"), ("NIST", "PCM_16", ".sph"),
]  # fmt: skip
BY_PYAV = [
    ("ipod", "aac", 16000, ".m4a"), ("adts", "aac", 16000, ".aac"), ("matroska", "aac", 16000, ".mkv"),
    ("webm", "libopus", 48000, ".webm"), ("mp4", "aac", 44100, ".mp4"), ("asf", "wmav2", 44100, ".wma"),
]  # fmt: skip


# --- whole recordings -----------------------------------------------------------------------------


def make_originals(with_soundfile: bool = True, with_pyav: bool = True) -> list[tuple[str, bytes]]:
    """Make whole recordings in every format of two libraries: ending and content of each."""
    import soundfile

    found = []
    for path in (SAMPLES / name for name in SHORT):
        samples = read_audio(path, 16000)
        for kind, subtype, ending in BY_SOUNDFILE if with_soundfile else ():
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, 16000, subtype, format=kind)
            found.append((ending, buffer.getvalue()))
        for container, codec, rate, ending in BY_PYAV if with_pyav else ():
            content = encode_by_pyav(read_audio(path, rate), container, codec, rate)
            found += [(ending, content)] if content else []
    return found


def encode_by_pyav(samples: np.ndarray, container: str, codec: str, rate: int) -> bytes:
    """Encode a recording in one of PyAV's containers; empty where PyAV is missing."""
    try:
        import av
    except ImportError:
        return b""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        track: Any = file.add_stream(codec, rate=rate, layout="mono", bit_rate=64000)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=track.codec_context.format, layout="mono", rate=rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(track.encode(part))
        file.mux(track.encode(None))
    return buffer.getvalue()


# --- cases ----------------------------------------------------------------------------------------


def fuzz_audio(folder: Path) -> RunCase:
    """Recordings in formats that libsndfile reads."""
    return transcribe_damaged(make_originals(with_pyav=False))


def fuzz_media(folder: Path) -> RunCase:
    """Recordings in containers that FFmpeg reads; those of libsndfile where PyAV is not installed."""
    return transcribe_damaged(make_originals(with_soundfile=False) or make_originals())


def transcribe_damaged(originals: list[tuple[str, bytes]]) -> RunCase:
    """Damage one of the recordings and transcribe it: a transcript, or one line that names the file."""
    model = asr.load("digits", "cpu", threads=1)

    def run_case(draw: random.Random, place: Path) -> str:
        path = write_damaged(place, originals, draw)
        try:
            model.transcribe(path)
        except UserError as error:
            if not str(error).startswith(str(path)):
                raise ValueError(f"does not name its file: {error}") from error
            raise
        return "transcribed"

    return run_case


def write_damaged(place: Path, originals: list[tuple[str, bytes]], draw: random.Random) -> Path:
    """Write one damaged recording."""
    damage: Callable[[bytes, bytes, random.Random], bytes] = draw.choice(DAMAGES)
    ending, content = draw.choice(originals)
    if damage is make_up:
        ending = draw.choice((*ENDINGS, *NO_ENDINGS))
    path = place / f"{damage.__name__}{ending}"
    path.write_bytes(damage(content, draw.choice(originals)[1], draw))
    return path
