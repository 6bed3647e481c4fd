#!/usr/bin/env python3
"""Measure how fast `asr transcribe` is from file to text, how soon it starts and its memory.

    python tools/bench/transcribe.py MANIFEST [--model M] [--lm FILE|none] [--threads 2] [--limit N] \\
        [--peers PYTHON] [--hours 3] [--json]

The recordings of MANIFEST become WAV files, 16 kHz, 16 bit, which every side reads. All times are by the
clock, from the start of a program to its end, libraries and models loaded; ours is one process of so many
threads, PocketSphinx 5 (run by PYTHON of an environment that has it, with the English model it comes with) as
many processes that share the files. They take turns `--repeats` times and medians are compared, so that other
work on the machine slows all of them alike. The start is that of a program that transcribes five seconds,
beside `python -c "import torch"`. With `--hours`, the recordings are joined to one that long.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr.audio.reading import read_audio
from asr.core.provenance import find_processor, find_source_commit
from asr.data.manifest import Utterance, read_manifest
from asr.pretrained import DEFAULT_MODEL

RATE = 16000
SPHINX = Path(__file__).with_name("sphinx.py")


@dataclass(frozen=True)
class Execution:
    """What one or several programs took that ran at the same time."""

    seconds: float  # from the first start to the last end
    processor: float  # seconds of processor time of all of them
    megabytes: float  # the most that one of them took
    output: str


def run_programs(*commands: Sequence[str], inputs: Sequence[str] = (), threads: int = 0) -> Execution:
    """Run programs side by side; exit when one of them fails."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        processes = []
        for number, command in enumerate(commands):
            given = Path(folder) / f"{number}.in"
            given.write_text(inputs[number] if inputs else "")
            with given.open() as stdin, (Path(folder) / f"{number}.out").open("w") as stdout:
                processes.append(subprocess.Popen(command, stdin=stdin, stdout=stdout, env=environment))
        most = processor = 0.0
        for process in processes:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            most = max(most, usage.ru_maxrss / 1e3)
            processor += usage.ru_utime + usage.ru_stime
            if process.returncode:
                sys.exit(f"{process.args!r} ended with status {process.returncode}")
        seconds = time.perf_counter() - started
        output = "".join((Path(folder) / f"{number}.out").read_text() for number in range(len(commands)))
    return Execution(seconds, processor, most, output)


def write_files(utterances: Sequence[Utterance], folder: Path) -> tuple[list[Path], float]:
    """Write a WAV file for each utterance; also return the seconds of all."""
    paths, seconds = [], 0.0
    for number, utterance in enumerate(utterances):
        samples = read_audio(utterance.audio, RATE, utterance.start, utterance.duration)
        paths.append(folder / f"{number:05d}.wav")
        soundfile.write(paths[-1], np.clip(samples, -1, 1), RATE, subtype="PCM_16")
        seconds += len(samples) / RATE
    return paths, seconds


def write_stretch(paths: Sequence[Path], seconds: float, target: Path) -> Path:
    """Write the recordings of ``paths``, repeated until they last ``seconds``."""
    left = round(seconds * RATE)
    with soundfile.SoundFile(target, "w", RATE, 1, "PCM_16") as sound:
        while left > 0:
            for path in paths:
                samples = soundfile.read(path, dtype="int16")[0][: max(left, 0)]
                sound.write(samples)
                left -= len(samples)
    return target


def make_command(options: argparse.Namespace, *files: Path | str) -> list[str]:
    """Make our command line for ``files``."""
    search = ["--lm", options.lm] if options.lm else []
    search += ["--beam-size", str(options.beam_size)] if options.beam_size else []
    return [
        *(sys.executable, "-m", "asr", "transcribe", "--model", options.model, "--device", "cpu"),
        *("--threads", str(options.threads), *search, *map(str, files)),
    ]


def compare_sides(options: argparse.Namespace, paths: Sequence[Path], audio: float) -> dict[str, Any]:
    """Measure the speed of both sides over all files, in times real time, and the memory of a process."""
    folder = str(paths[0].parent)
    shares = [
        "".join(f"{path}\n" for path in paths[share :: options.threads]) for share in range(options.threads)
    ]
    sides: dict[str, list[Execution]] = {
        name: [] for name in ("asr", "pocketsphinx")[: 2 if options.peers else 1]
    }
    for _ in range(options.repeats):
        sides["asr"].append(run_programs(make_command(options, folder), threads=options.threads))
        if options.peers:
            side = [options.peers, str(SPHINX)]
            sides["pocketsphinx"].append(run_programs(*[side] * options.threads, inputs=shares))
    found: dict[str, Any] = {}
    for name, runs in sides.items():
        answered = runs[-1].output.count("\n")
        if answered != len(paths):
            sys.exit(f"{name} answered for {answered} of {len(paths)} files")
        seconds = statistics.median(run.seconds for run in runs)
        found[f"{name}_times_real_time"] = round(audio / seconds, 3)
        found[f"{name}_megabytes"] = round(max(run.megabytes for run in runs))
    if options.peers:
        found["ratio"] = round(found["asr_times_real_time"] / found["pocketsphinx_times_real_time"], 2)
    return found


def measure_start(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Measure the seconds from start to text of a short file, beside those of ``import torch``."""
    programs = {
        "start_seconds": make_command(options, file),
        "torch_seconds": [sys.executable, "-c", "import torch"],
    }
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.repeats):
        for name, command in programs.items():
            taken[name].append(run_programs(command).seconds)
    found = {name: round(statistics.median(times), 3) for name, times in taken.items()}
    return found | {"start_ratio": round(found["start_seconds"] / found["torch_seconds"], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--lm")
    parser.add_argument("--beam-size", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="only so many utterances")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", metavar="PYTHON", help="of an environment that has pocketsphinx")
    parser.add_argument("--hours", type=float, help="transcribe one recording that long, too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    utterances = read_manifest(options.manifest)[: options.limit]
    if not utterances:
        sys.exit(f"{options.manifest}: holds no utterances")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "files"
        folder.mkdir()
        paths, audio = write_files(utterances, folder)
        result = {
            "hardware": f"{find_processor()}, {os.cpu_count()} cores", "commit": find_source_commit(),
            "model": options.model, "threads": options.threads, "files": len(paths),
            "hours": round(audio / 3600, 3), **compare_sides(options, paths, audio),
            **measure_start(options, write_stretch(paths, 5.0, Path(temporary) / "five.wav")),
        }  # fmt: skip
        if options.hours:
            long = write_stretch(paths, 3600 * options.hours, Path(temporary) / "long.flac")
            run = run_programs(make_command(options, long), threads=options.threads)
            result["long_times_real_time"] = round(3600 * options.hours / run.seconds, 1)
            result["long_megabytes"] = round(run.megabytes)
    print(
        json.dumps(result) if options.json else "\n".join(f"{key}: {value}" for key, value in result.items())
    )


if __name__ == "__main__":
    main()
