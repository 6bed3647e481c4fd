#!/usr/bin/env python3
"""Transcribe thousands of damaged files: each must give a transcript or a reason, fast and in little memory.

    python tools/damage.py [--count 2000] [--seed 0] [--model digits] [--keep DIR] [--json]

The recordings in `samples/` are written in every format (those of PyAV where it is installed), damaged (bits
flipped, the end or a stretch cut off, numbers in the header replaced, files joined, random bytes under every
ending) and transcribed twice: one by one in a process that is watched, and all of them by one
`asr transcribe`. The exit status is 1 when a file gives anything but a transcript or one line that names it,
takes more than `SECONDS` of processor time, or more memory than `MEGABYTES`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import asr
from asr.audio.reading import read_audio
from asr.audio.sources import ENDINGS

SAMPLES = Path(__file__).parent.parent / "samples"
SECONDS, MEGABYTES = 10.0, 1000.0
HANGS_SECONDS = 100.0  # by the clock; the machine may have other work
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


@dataclass(frozen=True)
class Outcome:
    """The result for one file."""

    file: str
    kind: str  # transcribed, named, or a fault: traceback, not named, died, hung
    reason: str = ""
    seconds: float = 0.0  # of processor time
    megabytes: float = 0.0  # at most, while it was transcribed

    @property
    def fault(self) -> str:
        """What is wrong with the result; empty when nothing is."""
        if self.kind not in ("transcribed", "named"):
            return f"{self.kind}: {self.reason}"
        if self.seconds > SECONDS:
            return f"took {self.seconds:.1f} seconds"
        return f"took {self.megabytes:.0f} MB" if self.megabytes > MEGABYTES else ""


# --- whole recordings -----------------------------------------------------------------------------


def make_originals() -> list[tuple[str, bytes]]:
    """Make whole recordings in every format: ending and content of each."""
    import soundfile

    found = []
    for path in sorted(SAMPLES.glob("*.flac")):
        samples = read_audio(path, 16000)
        for kind, subtype, ending in BY_SOUNDFILE:
            buffer = io.BytesIO()
            soundfile.write(buffer, samples, 16000, subtype, format=kind)
            found.append((ending, buffer.getvalue()))
        for container, codec, rate, ending in BY_PYAV:
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


# --- damage ---------------------------------------------------------------------------------------


def flip_bits(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Flip from one bit to one in a hundred."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 3, 10, len(content) // 12))):
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def falsify_header(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Replace numbers in the header by others, by the largest, by zero."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        size = draw.choice((1, 2, 4, 8))
        place = draw.randrange(4, min(len(content), draw.choice((64, 256, 1024))))
        lies = (bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), draw.randbytes(size))
        damaged[place : place + size] = draw.choice(lies)
    return bytes(damaged)


def cut_off(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Keep the beginning of a file, down to nothing."""
    return content[: draw.choice((draw.randrange(len(content)), draw.randrange(200), 0))]


def cut_out(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Leave out, zero, repeat or replace a stretch."""
    begin, end = sorted((draw.randrange(len(content)), draw.randrange(len(content))))
    between = draw.choice((b"", bytes(end - begin), 2 * content[begin:end], draw.randbytes(end - begin)))
    return content[:begin] + between + content[end:]


def join_files(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Join two recordings, or the header of one and the sound of another."""
    place = draw.choice((len(content), 12, 44, draw.randrange(len(content))))
    return content[:place] + other[draw.choice((0, place)) :]


def make_up(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Make up random bytes, alone or after the beginning of a recording."""
    return content[: draw.choice((0, 4, 12, 16, 64))] + draw.randbytes(draw.choice((1, 100, 10_000, 100_000)))


DAMAGES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    flip_bits, falsify_header, cut_off, cut_out, join_files, make_up,
)  # fmt: skip


def write_damaged(folder: Path, count: int, seed: int) -> list[Path]:
    """Write ``count`` damaged files, each kind of damage in turn, formats at random."""
    draw = random.Random(seed)
    whole = make_originals()
    paths = []
    for number in range(count):
        damage = DAMAGES[number % len(DAMAGES)]
        ending, content = draw.choice(whole)
        if damage is make_up:
            ending = draw.choice((*ENDINGS, *NO_ENDINGS))
        paths.append(folder / f"{number:05d}-{damage.__name__}{ending}")
        paths[-1].write_bytes(damage(content, draw.choice(whole)[1], draw))
    return paths


# --- one by one -----------------------------------------------------------------------------------


def watch(paths: list[Path], model: str, errors: Path) -> Iterator[Outcome]:
    """Yield the outcome of each file in a process of its own that transcribes one after the other.

    Its stderr goes to ``errors``: exceptions in the callbacks of libraries are seen nowhere else.
    """
    worker, printed = None, 0
    for path in paths:
        if worker is None:
            worker = start_worker(model, errors)
        assert worker.stdin is not None
        worker.stdin.write(f"{path}\n")
        worker.stdin.flush()
        answer = read_answer(worker)
        new = errors.read_bytes()[printed:]
        printed, said = printed + len(new), new.decode(errors="replace")
        if answer and "Traceback" not in said:
            yield Outcome(**json.loads(answer))
        elif answer:
            yield Outcome(path.name, "traceback", said.strip().splitlines()[-1])
        else:
            worker.kill()
            kind = "hung" if answer is None else "died"
            yield Outcome(path.name, kind, f"status {worker.wait()}")
            worker = None
    if worker is not None:
        worker.kill()
        worker.wait()


def start_worker(model: str, errors: Path) -> subprocess.Popen[str]:
    """Start a process that transcribes the files named on its stdin; return when it is ready."""
    with errors.open("ab") as stderr:
        worker = subprocess.Popen(
            [sys.executable, __file__, "--model", model, "--worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1,
        )  # fmt: skip
    if read_answer(worker) != "ready\n":
        raise SystemExit("the worker does not start")
    return worker


def read_answer(worker: subprocess.Popen[str]) -> str | None:
    """Read the next line of a worker; empty when it has died, ``None`` when none comes in time."""
    assert worker.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        return worker.stdout.readline() if selector.select(HANGS_SECONDS) else None


def work(model_name: str) -> None:
    """Run the worker: a path on each line of stdin, an outcome on each line of stdout."""
    model = asr.load(model_name, "cpu")
    model.transcribe(SAMPLES / "digits-lucas.flac")  # loads what is needed once only
    print("ready", flush=True)
    for line in sys.stdin:
        path = line.removesuffix("\n")
        forget_peak()
        began = time.process_time()
        try:
            kind, reason = "transcribed", model.transcribe(path).text
        except asr.UserError as error:
            reason = str(error)
            kind = "named" if reason.startswith(path) and reason.isprintable() else "not named"
        except Exception as error:  # that there is none is what this tests
            kind, reason = "traceback", repr(error)
        seconds = time.process_time() - began
        print(json.dumps(asdict(Outcome(Path(path).name, kind, reason, seconds, measure_peak()))), flush=True)


def forget_peak() -> None:
    """Reset this process's peak of memory (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def measure_peak() -> float:
    """Measure the peak in megabytes since ``forget_peak``, libraries and model included."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3


# --- all at once ----------------------------------------------------------------------------------


def transcribe_together(paths: list[Path], model: str, out: Path) -> list[str]:
    """Transcribe all files with one command; list what is wrong."""
    command = [sys.executable, "-m", "asr", "transcribe", "--model", model, "-o", str(out), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    faults = [line for line in done.stderr.splitlines() if "Traceback" in line]
    if done.returncode not in (0, 1):
        faults.append(f"exit status {done.returncode}: {done.stderr[-300:]}")
    named = {Path(line.split(": ")[1]).name for line in done.stderr.splitlines() if line.startswith("asr: /")}
    written = {path.name.removesuffix(".txt") for path in out.rglob("*.txt")}
    for path in paths:
        if not {path.name, path.stem} & (named | written):
            faults.append(f"{path.name}: neither transcribed nor named")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--keep", type=Path, help="write the damaged files there and leave them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.model)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "damaged"
        folder.mkdir(parents=True, exist_ok=True)
        paths = write_damaged(folder.resolve(), arguments.count, arguments.seed)
        outcomes = list(watch(paths, arguments.model, Path(temporary) / "errors"))
        faults = [f"{outcome.file}: {outcome.fault}" for outcome in outcomes if outcome.fault]
        faults += transcribe_together(paths, arguments.model, Path(temporary) / "out")
    result = {
        "files": len(outcomes),
        "outcomes": Counter(outcome.kind for outcome in outcomes),
        "most_seconds": round(max(outcome.seconds for outcome in outcomes), 2),
        "most_megabytes": round(max(outcome.megabytes for outcome in outcomes)),
        "faults": faults,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{key}: {value}" for key, value in result.items() if key != "faults"))
        print("\n".join(faults) or "no faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
