#!/usr/bin/env python3
"""Measure the speed that training loses between recordings and the model, and what bfloat16 gains.

    OMP_WAIT_POLICY=passive python tools/bench/train.py
    OMP_WAIT_POLICY=passive python tools/bench/train.py --manifest data/train.jsonl --json

A bidirectional 3x320 LSTM takes the same steps, over the same sequence of shapes,

- on resident tensors: features made beforehand, nothing to read, augment or compute but the step;
- through the whole pipeline: samples read ahead from the cache on disk, from Opus files or from tar files
  of these, then augmented (or not) and made into features on the model's device.

All take turns in every round, so that other work on the machine affects all alike; the ratios are
medians over the rounds. Where other programs take processor time, the ratio of processor time (all
cores, reading included) tells more than that of the clock. A pass begins with nothing read ahead, and
that wait counts, too.
Without ``--manifest`` the recordings are synthetic: 8 to 16 seconds of noise and tones, as Opus files.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded

import numpy as np
import torch
from torch import Tensor

from asr.data.manifest import Utterance, read_manifest, write_manifest
from asr.data.tars import pack_utterances
from asr.model.encoders import EncoderConfig
from asr.model.precision import choose_device, describe_device
from asr.training.augment import (
    AugmentConfig,
    augment_samples,
    sample_augmentation,
    spec_augment,
    utterance_generator,
)
from asr.training.batching import Batch, load_batch
from asr.training.experiment import DataConfig, Experiment, TrainingConfig
from asr.training.run import Run, epoch_updates, prepare_run
from asr.training.steps import compute_losses, load_own_batches, take_step

RATE = 16000
REPEATS = 9  # of each part
AUGMENTED = AugmentConfig(
    speeds=(0.9, 1.0, 1.1),
    reverb_share=0.3,
    noise_share=0.5,
    noise_kinds=("white", "pink", "babble"),
    noise_snr_db=(5.0, 30.0),
    gain_db=6.0,
    frequency_masks=2,
    frequency_width=27,
    time_masks=10,
    time_masks_per_second=1.0,
    time_width_ms=500.0,
    time_width_share=0.05,
)
CACHE, FILES, DRAW, TREAT, FEATURES, MASKS, STEP = (
    "reading from the cache",
    "decoding the files",
    "drawing",
    "speed, rooms, noise, gain",
    "features",
    "masks",
    "the step itself",
)
USED = {
    "cache": (CACHE, FEATURES),
    "cache, augmented": (CACHE, DRAW, TREAT, FEATURES, MASKS),
    "Opus files": (FILES, FEATURES),
}
BARS = {"cache": 0.95, "cache, augmented": 0.95, "Opus files": 0.80, "tar files": 0.80}


@dataclass
class Way:
    """One way to take the steps: a run and, where tensors are resident, the batches."""

    run: Run
    resident: list[Batch] | None = None
    seconds: list[float] = field(default_factory=list)  # of each round
    waiting: list[float] = field(default_factory=list)  # of those, until a batch was ready
    processor: list[float] = field(default_factory=list)  # seconds of all cores, reading included
    memory: float = 0.0  # GB at the highest


class Stored(torch.nn.Module):
    """Stands in for ``Features``: returns what was made beforehand, by the number in ``samples``."""

    def __init__(self, made: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.made = made
        self.register_buffer("window", made[0][0].new_zeros(0))  # by which a recogniser knows its device

    def forward(self, samples: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return self.made[int(samples[0, 0])]


class Recorder(torch.nn.Module):
    """Stands in for the model: keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[Tensor, Tensor]] = []

    def forward(self, features: Tensor, lengths: Tensor, *targets: Tensor | None) -> None:
        self.given.append((features, lengths))


def make_recordings(folder: Path, count: int) -> Path:
    """Make ``count`` Opus files as long as read sentences, and their manifest."""
    import soundfile

    generator = np.random.default_rng(0)
    utterances = []
    for number in range(count):
        seconds = float(generator.uniform(8, 16))
        times = np.arange(int(RATE * seconds)) / RATE
        loudness = np.sin(2 * np.pi * 2 * times) ** 2  # four syllables a second
        samples = 0.1 * loudness * (generator.standard_normal(len(times)) + np.sin(2 * np.pi * 200 * times))
        path = folder / f"{number:03d}.opus"
        soundfile.write(path, samples, RATE, format="OGG", subtype="OPUS")
        text = "".join(generator.choice(list("abcdefghijklmnopqrstuvwxyz     "), int(14 * seconds)))
        utterances.append(Utterance(f"u{number}", str(path), 0.0, len(times) / RATE, text))
    write_manifest(folder / "made-up.jsonl", utterances)
    return folder / "made-up.jsonl"


def prepare_ways(manifest: Path, folder: Path, options: argparse.Namespace) -> dict[str, Way]:
    """Prepare all ways to take the steps, by name."""
    device = choose_device(options.device)

    def prepared(name: str, augment: AugmentConfig, data: Path = manifest, **training: Any) -> Run:
        experiment = Experiment(
            encoder=EncoderConfig(layers=3, size=320),
            data=DataConfig(str(data.parent), (data.name,), ()),
            augment=augment,
            training=TrainingConfig(batch_seconds=options.batch_seconds, cache_hours=0.0, **training),
        )
        return prepare_run(experiment, folder / name, device)

    cache = str(folder / "cache")
    plain, augmented = AugmentConfig(), AUGMENTED
    found = {
        "cache": Way(prepared("cache", plain, cache=cache)),
        "cache, augmented": Way(prepared("augmented", augmented, cache=cache)),
        "Opus files": Way(prepared("files", plain)),
        "tar files": Way(prepared("tars", plain, pack_recordings(manifest, folder / "packed"))),
    }
    found["resident"] = make_resident(found["cache"].run, options.batches)
    found["resident, augmented"] = make_resident(found["cache, augmented"].run, options.batches)
    lower = prepared("bfloat16", plain, cache=cache, precision="bfloat16")
    found["resident, bfloat16"] = make_resident(lower, options.batches)
    return found


def pack_recordings(manifest: Path, folder: Path) -> Path:
    """Pack the recordings of a manifest in tar files of ten, three in a window; their manifest."""
    packed = pack_utterances(read_manifest(manifest), str(folder), "packed", 10)
    rows = [replace(u, audio=str(folder / u.audio)) for tar in packed for u in tar]
    write_manifest(folder / "packed.jsonl", rows)
    return folder / "packed.jsonl"


def make_resident(run: Run, batches: int) -> Way:
    """Prepare the steps that ``run`` would take, with everything before the model done beforehand."""
    recorder = Recorder()
    recording = replace(run, parallel=recorder)
    loaded = [batch.to(run.model.device) for batch in load_own_batches(run, epoch_updates(run)[:batches])]
    for batch in loaded:
        compute_losses(recording, batch)
    made = [(features, lengths) for features, lengths in recorder.given]
    return Way(
        run=replace(
            run,
            model=replace(run.model, features=cast(Any, Stored(made))),
            experiment=replace(run.experiment, augment=AugmentConfig()),
        ),
        resident=[
            replace(batch, samples=torch.tensor([[number]]), augmentation=None)
            for number, batch in enumerate(loaded)
        ],
    )


def take_pass(way: Way, batches: int) -> None:
    """Take the steps once; note the seconds, those spent waiting, and memory."""
    run = way.run
    run.progress.epoch_step = 0
    updates = epoch_updates(run)[:batches]
    forget_peak(run.model.device)
    started, processor, waiting = time.perf_counter(), time.process_time(), 0.0
    loaded: Iterator[Batch] = iter(way.resident or load_own_batches(run, updates))
    for update in updates:
        asked = time.perf_counter()
        batch = next(loaded)
        waiting += time.perf_counter() - asked
        take_step(run, update, [batch])
    way.seconds.append(time.perf_counter() - started)
    way.processor.append(time.process_time() - processor)
    way.waiting.append(waiting)
    way.memory = max(way.memory, measure_peak_gigabytes(run.model.device))


def forget_peak(device: torch.device) -> None:
    """Reset the highest memory use, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def measure_peak_gigabytes(device: torch.device) -> float:
    """Measure the highest memory use in gigabytes: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if sys.platform == "linux":
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9


def compute_ratio(baseline: list[float], own: list[float]) -> float:
    """Compute how fast a way is as a share of ``baseline``: the median over the rounds."""
    return statistics.median(b / w for w, b in zip(own, baseline, strict=True))


def make_row(name: str, way: Way, baseline: Way, audio: float) -> dict[str, Any]:
    """Make the row of one way."""
    return {
        "name": name,
        "speed": audio / statistics.median(way.seconds),
        "ratio": compute_ratio(baseline.seconds, way.seconds),
        "processor_ratio": compute_ratio(baseline.processor, way.processor),
        "data_wait": statistics.median(w / s for w, s in zip(way.waiting, way.seconds, strict=True)),
        "peak_gb": way.memory,
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Take every way's pass in every round."""
    manifest = options.manifest or make_recordings(folder, 6 * options.batches)
    found = prepare_ways(manifest, folder, options)
    for way in found.values():  # unmeasured: memory is taken, kernels are chosen
        take_pass(way, 1)
        for noted in (way.seconds, way.processor, way.waiting):
            noted.clear()
    for number in range(options.rounds):
        for way in found.values():
            take_pass(way, options.batches)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    run = found["cache"].run
    chosen = epoch_updates(run)[: options.batches]
    audio = sum(run.data.durations[i] for update in chosen for batch in update for i in batch)
    resident = found["resident"]
    rows = [make_row(name, way, choose_baseline(name, found), audio) for name, way in sorted(found.items())]
    lower = found["resident, bfloat16"]
    in_parts = measure_parts(run, found["Opus files"].run, found["cache, augmented"].run)
    in_parts[STEP] = 60000 * statistics.median(resident.processor) / audio
    return {
        "hardware": describe_device(run.model.device),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batches": options.batches,
        "batch_seconds": options.batch_seconds,
        "rounds": options.rounds,
        "rows": rows,
        "processor_ms_per_minute": in_parts,
        "bfloat16_to_float32": compute_ratio(resident.seconds, lower.seconds),
        "bfloat16_to_float32_processor": compute_ratio(resident.processor, lower.processor),
    }


def measure_parts(plain: Run, files: Run, augmented: Run) -> dict[str, float]:
    """Measure the milliseconds of processor time of each part of the pipeline for a minute of audio."""
    (indices,) = epoch_updates(plain)[0]
    examples = [plain.data.train[i] for i in indices]
    utterances = [example.utterance for example in examples]
    device, config = plain.model.device, augmented.experiment.augment
    batch = load_batch(examples, plain.data.read).to(device)
    lengths = batch.sample_lengths.tolist()
    epochs = itertools.count()
    draw = partial(sample_augmentation, augmented.data.sources, 1)
    treatments = [draw(epoch, utterances, lengths).to(device) for epoch in range(REPEATS + 1)]
    features, frames = plain.model.features(batch.samples, batch.sample_lengths)
    generators = [utterance_generator(1, 0, utterance.id) for utterance in utterances]
    minutes = sum(example.duration for example in examples) / 60
    work: dict[str, Callable[[], object]] = {
        CACHE: lambda: load_batch(examples, plain.data.read),
        FILES: lambda: load_batch(examples, files.data.read),
        DRAW: lambda: draw(next(epochs), utterances, lengths),
        TREAT: lambda: augment_samples(
            batch.samples, batch.sample_lengths, treatments[next(epochs) % len(treatments)]
        ),
        FEATURES: lambda: plain.model.features(batch.samples, batch.sample_lengths),
        MASKS: lambda: spec_augment(features, frames, config, 10.0, generators),
    }
    return {name: measure_processor(part) / minutes for name, part in work.items()}


def measure_processor(work: Callable[[], object]) -> float:
    """Measure milliseconds of processor time of one call: the median of several, after one to warm up."""
    taken = []
    for _ in range(REPEATS + 1):
        started = time.process_time()
        work()
        taken.append(1000 * (time.process_time() - started))
    return statistics.median(taken[1:])


def choose_baseline(name: str, found: dict[str, Way]) -> Way:
    """Choose the resident tensors with the shapes of that way."""
    return found["resident, augmented" if "augmented" in name else "resident"]


def format_result(result: dict[str, Any]) -> Iterator[str]:
    """Format the result for people."""
    yield (
        f"{result['hardware']}, {result['threads']} threads, torch {result['torch']}; 3x320 bidirectional, "
        f"{result['batches']} batches of {result['batch_seconds']:g} s, {result['rounds']} rounds"
    )
    yield (
        f"{'steps on':22} {'h/h':>7} {'of resident':>12} {'by processor':>13} {'asked':>7} {'data wait':>10} "
        f"{'peak GB':>8}"
    )
    for entry in result["rows"]:
        asked = f"{100 * BARS[entry['name']]:.0f} %" if entry["name"] in BARS else ""
        yield (
            f"{entry['name']:22} {entry['speed']:7.1f} {100 * entry['ratio']:10.1f} % "
            f"{100 * entry['processor_ratio']:11.1f} % {asked:>7} "
            f"{100 * entry['data_wait']:8.1f} % {entry['peak_gb']:8.2f}"
        )
    yield (
        f"bfloat16 is {result['bfloat16_to_float32']:.2f} times as fast as float32 "
        f"({result['bfloat16_to_float32_processor']:.2f} by processor time; asked: 1.40)"
    )
    yield "processor time for a minute of audio, and as a share of the step:"
    whole = result["processor_ms_per_minute"][STEP]
    for name, milliseconds in result["processor_ms_per_minute"].items():
        yield f"{name:26} {milliseconds:9.1f} ms {100 * milliseconds / whole:7.2f} %"
    yield "estimated from these parts, if nothing overlapped with the step:"
    for name, used in USED.items():
        sum_of_parts = sum(result["processor_ms_per_minute"][part] for part in used)
        yield f"{name:26} {100 * whole / (whole + sum_of_parts):9.1f} % of resident"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", type=Path, help="recordings to read instead of made-up ones")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=int, default=2, help="steps in a pass")
    parser.add_argument("--batch-seconds", type=float, default=120.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = measure(options, Path(name))
    print(json.dumps(result) if options.json else "\n".join(format_result(result)))


if __name__ == "__main__":
    main()
