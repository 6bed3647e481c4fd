#!/usr/bin/env python3
"""Check on a GPU what was built without one; ``tools/gpu.sh`` runs it within nine minutes.

    python tools/gpu.py --out results.jsonl
    python tools/gpu.py --out results.jsonl --device cpu     # a dry run, tiny

Each check is a line of JSON: its name, whether it passed, its seconds, what was measured. What is a target
and no condition (speed) stands in the line and fails nothing in a dry run.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from asr.audio.reading import read_audio
from asr.data.manifest import Utterance, write_manifest
from asr.longform.transcripts import transcribe_recordings
from asr.model.encoders import EncoderConfig
from asr.model.features import FeatureConfig
from asr.model.precision import describe_device
from asr.recognition.recognizer import Recognizer, open_recognizer
from asr.training.augment import AugmentConfig
from asr.training.experiment import DataConfig, Experiment, TrainingConfig
from asr.training.run import Run, average_gradients, epoch_updates, prepare_run
from asr.training.steps import load_own_batches, take_step
from asr.transcript.values import Transcript

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = sorted((ROOT / "samples").glob("*.flac"))
RATE = 8000
LOSS_TOLERANCE = 5e-3  # relative, of each of the first steps; TF32 is off
BFLOAT16_TOLERANCE = 0.05  # relative, of the mean loss
LOG_PROB_TOLERANCE = 0.05  # nats, where the CPU finds a token likely
SPEED_TARGET = 0.9  # of a bare cuDNN step


@dataclass(frozen=True)
class Bench:
    """Where checks run, and how much they do."""

    device: torch.device
    folder: Path
    steps: int
    size: int  # units of an LSTM layer
    layers: int
    batch_seconds: float

    @property
    def is_dry(self) -> bool:
        """Whether there is no GPU."""
        return self.device.type != "cuda"

    def wait(self) -> None:
        """Wait until the GPU has done what it was given."""
        if not self.is_dry:
            torch.cuda.synchronize(self.device)


Measured = tuple[bool, dict[str, Any]]


def write_digits(folder: Path, count: int) -> None:
    """Write a manifest of ``count`` utterances of digits, joined from the samples, and its recordings."""
    import soundfile

    generator = np.random.default_rng(1)
    spoken = {"digit-4-george": "four", "digit-7-jackson": "seven", "digits-lucas": "one eight seven two"}
    sounds = {name: read_audio(ROOT / "samples" / f"{name}.flac", RATE) for name in spoken}
    utterances = []
    for number in range(count):
        names = generator.choice(list(spoken), generator.integers(1, 4)).tolist()
        samples = np.concatenate([sounds[name] for name in names])
        path = folder / f"{number:03d}.flac"
        soundfile.write(path, samples, RATE)
        text = " ".join(spoken[name] for name in names)
        utterances.append(
            Utterance(f"u{number}", str(path), 0.0, len(samples) / RATE, text, f"s{number % 4}")
        )
    write_manifest(folder / "train.jsonl", utterances)


def new_run(bench: Bench, device: torch.device, name: str, **training: Any) -> Run:
    """A run on the digits: dropout and augmentation off, for the two devices draw differently."""
    settings = {"epochs": 50, "batch_seconds": bench.batch_seconds, "warmup_steps": 5, "learning_rate": 1e-3}
    experiment = Experiment(
        features=FeatureConfig(sample_rate=RATE, n_mels=40),
        encoder=EncoderConfig(layers=bench.layers, size=bench.size, dropout=0.0),
        data=DataConfig(str(bench.folder), ("train.jsonl",), ()),
        augment=AugmentConfig(),
        training=TrainingConfig(**settings | training),
    )
    return prepare_run(experiment, bench.folder / name, device)


def take_steps(run: Run, count: int) -> list[float]:
    """Take the first ``count`` steps of a run; their losses."""
    losses: list[float] = []
    while len(losses) < count:
        updates = epoch_updates(run)[: count - len(losses)]
        for update, batch in zip(updates, load_own_batches(run, updates), strict=True):
            losses.append(take_step(run, update, [batch])[0]["loss"])
        run.progress.epoch += 1
    return losses


def check_training(bench: Bench) -> Measured:
    """The losses of the first steps are those of the CPU."""
    cpu = take_steps(new_run(bench, torch.device("cpu"), "cpu"), bench.steps)
    own = take_steps(new_run(bench, bench.device, "own"), bench.steps)
    worst = max(abs(a - b) / abs(a) for a, b in zip(cpu, own, strict=True))
    return worst <= LOSS_TOLERANCE, {
        "steps": len(own),
        "worst_relative_difference": worst,
        "last_loss": own[-1],
    }


def check_bfloat16(bench: Bench) -> Measured:
    """Training in bfloat16 learns as in float32; how much faster a step is."""
    found: dict[str, tuple[float, float]] = {}
    for precision in ("float32", "bfloat16"):
        run = new_run(bench, bench.device, precision, precision=precision)
        take_steps(run, 1)  # kernels are chosen
        bench.wait()
        started = time.perf_counter()
        losses = take_steps(run, bench.steps)
        found[precision] = (float(np.mean(losses)), time.perf_counter() - started)
    (wide, wide_seconds), (narrow, narrow_seconds) = found["float32"], found["bfloat16"]
    difference = abs(narrow - wide) / abs(wide)
    figures = {"relative_difference": difference, "speed_ratio": wide_seconds / narrow_seconds}
    return difference <= BFLOAT16_TOLERANCE, figures


class BareStep(nn.Module):
    """What a step cannot do without: torch's own LSTM, a projection, torch's own CTC."""

    def __init__(self, inputs: int, bench: Bench, vocabulary: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, bench.size, bench.layers, batch_first=True, bidirectional=True)
        self.projection = nn.Linear(2 * bench.size, vocabulary)

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
        log_probs = F.log_softmax(self.projection(self.lstm(features)[0]), -1).transpose(0, 1)
        return F.ctc_loss(log_probs, tokens, lengths, token_lengths, reduction="sum", zero_infinity=True)


def check_step(bench: Bench) -> Measured:
    """The speed of a step of ours, without features, as a share of that of a bare cuDNN step; peak memory."""
    run = new_run(bench, bench.device, "step", batch_seconds=8 * bench.batch_seconds)
    (batch,) = load_own_batches(run, epoch_updates(run)[:1])
    batch = batch.to(bench.device)
    features, lengths = run.model.features(batch.samples, batch.sample_lengths)
    features = features.detach()
    targets = (batch.tokens, batch.token_lengths)
    with torch.no_grad():
        frames = run.objective(features, lengths, *targets).frames
    stride = -(-features.shape[1] // int(frames.max()))
    bare = BareStep(features.shape[2] * stride, bench, len(run.tokenizer)).to(bench.device)
    room = features.shape[1] // stride * stride
    stacked = features[:, :room].reshape(len(features), room // stride, -1)
    optimizer = torch.optim.AdamW(bare.parameters(), 1e-3)

    def step_ours() -> None:
        run.optimizer.zero_grad(set_to_none=True)
        run.objective(features, lengths, *targets).losses.sum().backward()
        run.optimizer.step()

    def step_bare() -> None:
        optimizer.zero_grad(set_to_none=True)
        bare(stacked, frames.clamp(max=stacked.shape[1]), *targets).backward()
        optimizer.step()

    run.objective.train()
    ours, theirs = time_in_turns(bench, step_ours, step_bare)
    figures = {
        "ratio": theirs / ours, "target": SPEED_TARGET, "ours_ms": 1e3 * ours, "bare_ms": 1e3 * theirs,
        "batch": list(stacked.shape), "peak_gb": measure_peak(bench),
    }  # fmt: skip
    return bench.is_dry or theirs / ours >= SPEED_TARGET, figures


def time_in_turns(bench: Bench, *ways: Callable[[], None]) -> list[float]:
    """The median seconds of each way over the rounds, all of them in turn."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(2 if bench.is_dry else 30):
        for way, taken in zip(ways, seconds, strict=True):
            bench.wait()
            started = time.perf_counter()
            way()
            bench.wait()
            taken.append(time.perf_counter() - started)
    return [float(np.median(taken[1:])) for taken in seconds]


def measure_peak(bench: Bench) -> float | None:
    """The most memory that torch has had on the GPU, in gigabytes."""
    return None if bench.is_dry else torch.cuda.max_memory_allocated(bench.device) / 1e9


def check_processes(bench: Bench) -> Measured:
    """Gradients that go through NCCL (Gloo on a CPU), of one process, are those without it."""
    backend = "gloo" if bench.is_dry else "cpu:gloo,cuda:nccl"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = dist.TCPStore("127.0.0.1", port, 1, True, timedelta(seconds=60))
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        gradients = []
        for is_shared in (False, True):
            run = new_run(bench, bench.device, f"processes-{is_shared}")
            if is_shared:
                run = replace(run, parallel=average_gradients(run.objective, run.model))
            take_steps(run, 2)
            gradients.append([p.detach().cpu() for p in run.objective.parameters()])
    finally:
        dist.destroy_process_group()
    worst = max(float((a - b).abs().max()) for a, b in zip(*gradients, strict=True))
    return worst <= 1e-4, {"backend": backend, "worst_difference": worst}


def open_both(bench: Bench, model: str) -> tuple[Recognizer, Recognizer]:
    """A shipped model on the CPU and on the device, both in torch."""
    return (
        open_recognizer(model, "cpu", engine="torch"),
        open_recognizer(model, str(bench.device), engine="torch"),
    )


def check_decoding(bench: Bench) -> Measured:
    """Log-probs are those of the CPU where it matters, and the search finds the same in them."""
    cpu, own = open_both(bench, "digits")
    samples = [read_audio(path, cpu.sample_rate) for path in SAMPLES if path.name.startswith("digit")]
    (expected,), (found,) = (list(recogniser.log_probs([samples])) for recogniser in (cpu, own))
    pairs = list(zip(expected, found, strict=True))
    worst = max(float(np.abs(b - a)[a > -5].max()) for a, b in pairs)
    texts = [[result.text for result in cpu.search(rows)] for rows in (expected, found)]
    return worst <= LOG_PROB_TOLERANCE and texts[0] == texts[1], {"worst_nats": worst, "texts": texts[1]}


def check_transcription(bench: Bench) -> Measured:
    """Recordings of any length have the texts that the CPU finds; how fast."""
    model = "digits" if bench.is_dry else "english"
    cpu, own = open_both(bench, model)
    sources = [path for path in SAMPLES if path.name.startswith(model[:5])]
    texts = []
    for recogniser in (cpu, own):
        started = time.perf_counter()
        found = list(transcribe_recordings(recogniser, sources * (1 if recogniser is cpu else 3)))
        seconds = time.perf_counter() - started
        texts.append([part.text for part in found[: len(sources)] if isinstance(part, Transcript)])
    audio = sum(part.duration for part in found if isinstance(part, Transcript))
    figures = {"texts": texts[1], "times_real_time": audio / seconds, "peak_gb": measure_peak(bench)}
    return texts[0] == texts[1] and len(texts[1]) == len(sources), figures


def check_evaluation(bench: Bench) -> Measured:
    """A manifest has the loss and the errors that it has on the CPU."""
    from asr.data.manifest import read_manifest
    from asr.pretrained import find_model_folder
    from asr.recognition.folder import read_text_config
    from asr.training.evaluation import evaluate
    from asr.training.examples import evaluation_examples, new_sample_reader

    found = []
    for recogniser in open_both(bench, "digits"):
        text = read_text_config(find_model_folder("digits"))
        examples = evaluation_examples(
            read_manifest(bench.folder / "train.jsonl")[:8], recogniser.tokenizer, text
        )
        read = new_sample_reader(recogniser.sample_rate, keep=False)
        result = evaluate(recogniser, examples, read)
        found.append((result.loss or 0.0, result.comparison.rates["wer"]))
    (cpu_loss, cpu_wer), (loss, wer) = found
    difference = abs(loss - cpu_loss) / max(abs(cpu_loss), 1e-3)
    return difference <= 0.05 and wer == cpu_wer, {"loss": loss, "cpu_loss": cpu_loss, "wer": wer}


CHECKS: dict[str, Callable[[Bench], Measured]] = {
    "training equals the CPU": check_training,
    "decoding from log-probs": check_decoding,
    "transcription": check_transcription,
    "evaluation": check_evaluation,
    "bfloat16": check_bfloat16,
    "step against bare cuDNN": check_step,
    "one process through NCCL": check_processes,
}


def run_check(name: str, bench: Bench) -> dict[str, Any]:
    """Run one check; an error is a result, too."""
    if not bench.is_dry:
        torch.cuda.reset_peak_memory_stats(bench.device)
    started = time.perf_counter()
    try:
        is_passed, figures = CHECKS[name](bench)
    except Exception as error:
        is_passed, figures = False, {"error": f"{type(error).__name__}: {error}"}
    return {
        "check": name,
        "passed": bool(is_passed),
        "seconds": round(time.perf_counter() - started, 1),
        **figures,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="a file for the lines of JSON")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU with CUDA here: --device cpu is a dry run", file=sys.stderr)
        return 1
    device = torch.device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    failed = 0
    with tempfile.TemporaryDirectory() as name, options.out.open("w", encoding="utf-8") as file:
        is_dry = device.type == "cpu"
        bench = Bench(device, Path(name), *((2, 16, 1, 8.0) if is_dry else (20, 512, 3, 60.0)))
        write_digits(bench.folder, 12 if is_dry else 400)
        described = {"hardware": describe_device(device), "torch": torch.__version__, "dry": is_dry}
        for check in CHECKS:
            row = run_check(check, bench)
            failed += not row["passed"]
            file.write(json.dumps(row | described) + "\n")
            file.flush()
            figures = {
                key: value for key, value in row.items() if key not in ("check", "passed", "seconds", "texts")
            }
            shown = ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in figures.items()
            )
            print(
                f"{'ok  ' if row['passed'] else 'FAIL'} {row['seconds']:6.1f} s  {check}: {shown}", flush=True
            )
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} checks passed; the lines are in {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
