#!/usr/bin/env python3
"""Measure what shards and Ray cost beside ``asr transcribe`` on the same recordings.

    python tools/bench/bulk.py
    python tools/bench/bulk.py --copies 200 --workers 1 2 4 --json

The recordings of the model in ``samples/`` are taken again and again, transcribed by one recogniser with all
its threads, by the shards of a batch system (``--shard 1/1``), and on a local Ray cluster with so many
workers. ``clock`` is from the first shards that end to the last one, so that the start of a cluster does not
count, ``processor`` what the cores did for it; the ratios are shares of the first way's speed. On a machine
that others use, the ratio by processor time tells more.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line has it

from asr.bulk.batch_system import transcribe_part
from asr.bulk.manifests import Shard, plan_shards
from asr.bulk.on_ray import RayConfig, transcribe_on_ray
from asr.bulk.output import Output
from asr.bulk.work import Job, ShardSummary
from asr.core.cores import count_cores
from asr.longform.transcripts import transcribe_recordings
from asr.recognition.recognizer import open_recognizer
from asr.transcript.values import Transcript

ROOT = Path(__file__).resolve().parents[2]
TARGET = 0.9


@dataclass(frozen=True)
class Speed:
    """Seconds of audio, on the clock and of cores."""

    audio: float
    clock: float
    processor: float


def write_manifest(folder: Path, model: str, copies: int) -> tuple[str, list[str]]:
    """Write a manifest with each sample ``copies`` times; also return the recordings."""
    samples = sorted(str(path) for path in (ROOT / "samples").glob(f"{model[:5]}*.flac")) * copies
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps({"audio_filepath": sample}) + "\n" for sample in samples))
    return str(path), samples


def measure_transcribe(model: str, samples: list[str], threads: int) -> Speed:
    """One recogniser, as ``asr transcribe`` has it."""
    recogniser = open_recognizer(model, "cpu", threads=threads)
    list(transcribe_recordings(recogniser, samples[:10]))  # unmeasured: memory is taken, code compiled
    clock, processor = time.monotonic(), time.process_time()
    found = [part for part in transcribe_recordings(recogniser, samples) if isinstance(part, Transcript)]
    return Speed(
        sum(part.duration for part in found), time.monotonic() - clock, time.process_time() - processor
    )


def measure_shards(summaries: Any) -> Speed:
    """Shards as they end; the first of each worker is left out, in which it compiles and takes memory."""
    workers: set[int] = set()
    rest: list[ShardSummary] = []
    started = last = 0.0
    for part in summaries:
        last = time.monotonic()
        if part.worker in workers:
            rest.append(part)
        elif not rest:
            started = last  # all that ends from here on counts
        workers.add(part.worker)
    return Speed(sum(part.seconds for part in rest), last - started, sum(part.processor for part in rest))


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure every way."""
    manifest, samples = write_manifest(folder, options.model, options.copies)
    shards: tuple[Shard, ...] = plan_shards(manifest, options.shard_size).shards
    cores = count_cores()
    ways = {"asr transcribe": measure_transcribe(options.model, samples, cores)}
    job = Job(options.model, Output(str(folder / "part")), "cpu", threads=cores)
    ways["--shard 1/1"] = measure_shards(transcribe_part(shards, job, job.open))
    if options.workers:
        import ray

        ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
    for workers in options.workers:
        job = Job(options.model, Output(str(folder / f"ray-{workers}")), "cpu")
        config = RayConfig(workers=workers, cpus=cores / workers)
        ways[f"Ray, {workers} workers"] = measure_shards(transcribe_on_ray(shards, job, config))
    first = ways["asr transcribe"]
    return [
        {
            "name": name,
            "times_real_time": way.audio / way.clock,
            "processor_seconds_an_hour": 3600 * way.processor / way.audio,
            "ratio": (way.audio / way.clock) / (first.audio / first.clock),
            "processor_ratio": (way.audio / way.processor) / (first.audio / first.processor),
        }
        for name, way in ways.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="english")
    parser.add_argument("--copies", type=int, default=60, help="of each sample")
    parser.add_argument("--shard-size", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = measure(options, Path(name))
    if options.json:
        json.dump(rows, sys.stdout)
        return
    heads = f"{'way':18} {'times real time':>16} {'s of cores an hour':>19}"
    print(f"{heads} {'by clock':>9} {'by processor':>13} {'asked':>6}")
    for row in rows:
        print(
            f"{row['name']:18} {row['times_real_time']:16.1f} {row['processor_seconds_an_hour']:19.1f} "
            f"{row['ratio']:9.2f} {row['processor_ratio']:13.2f} {TARGET:6.2f}"
        )


if __name__ == "__main__":
    main()
