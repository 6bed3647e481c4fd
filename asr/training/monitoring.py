"""Watching a run: ``metrics.jsonl``, TensorBoard, and the signals that ask it to stop."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import numpy as np

from asr.core.files import name_errors
from asr.data.manifest import parse_object, read_numbered_lines
from asr.training.batching import load_batch
from asr.training.evaluation import batch_statistics
from asr.training.judgement import Evaluation
from asr.training.run import Run

METRICS_FILE = "metrics.jsonl"
SHOWN_TEXTS = 10
PIXELS = 4  # the side of each value in a picture
ECHO_SECONDS = 1.0  # a second signal within this time is taken for the first one passed on


# --- writing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Journal:
    """Where a run writes its metrics; all processes but the first have one without files."""

    file: io.FileIO | None = None
    tensorboard: Any = None  # a ``SummaryWriter``; ``None`` on machines without TensorBoard

    def log(self, record: dict[str, Any]) -> None:
        """Write a record to ``metrics.jsonl`` and its numbers to TensorBoard."""
        if self.file is not None:
            rest = json.dumps(record).encode() + b"\n"
            with name_errors(str(self.file.name)):
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[self.file.write(rest) or 0 :]
        if self.tensorboard is not None:
            with name_errors(self.tensorboard.log_dir):
                for name, value in list_scalars(record):
                    if name != "step":
                        self.tensorboard.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Write what TensorBoard's thread still has."""
        if self.tensorboard is not None:
            with name_errors(self.tensorboard.log_dir):
                self.tensorboard.close()

    def draw(self, name: str, values: np.ndarray, step: int) -> None:
        """Show ``(frames, rows)`` in TensorBoard: time to the right, first row at the bottom, high bright."""
        if self.tensorboard is not None:
            low, high = float(values.min()), float(values.max())
            shades = 255 * (values.T[::-1] - low) / max(high - low, 1e-9)
            large = np.kron(shades, np.ones((PIXELS, PIXELS)))
            self.tensorboard.add_image(name, large.astype(np.uint8), step, dataformats="HW")

    def write(self, name: str, lines: Iterable[str], step: int) -> None:
        """Show lines of Markdown in TensorBoard."""
        if self.tensorboard is not None:
            self.tensorboard.add_text(name, "\n".join(lines), step)


@contextmanager
def open_journal(run: Run) -> Iterator[Journal]:
    """Open the run's journal for the block.

    After a kill, ``metrics.jsonl`` has the records of the steps that are taken again twice, the newer ones
    after a line with ``"event": "resumed"``.
    """
    if not run.ranks.is_first:
        yield Journal()
        return
    with (run.folder / METRICS_FILE).open("a+b", buffering=0) as file:  # nothing is left to write at its end
        if file.tell():  # a killed run may have left half a line
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        opened = Journal(file, open_tensorboard(run))
        opened.log({"step": run.progress.step, "event": "resumed" if run.progress.step else "started"})
        try:
            yield opened
        except BaseException:
            with suppress(OSError):  # it writes what it still has, perhaps to a full disk
                opened.close()
            raise
        opened.close()


def show_validation(run: Run, journal: Journal, evaluation: Evaluation) -> None:
    """Show a few validation utterances in TensorBoard: texts of some, pictures of one.

    They are the same ones every time, so that one sees them change.
    """
    if journal.tensorboard is None:
        return
    step = run.progress.step
    references = {e.utterance.id: e.utterance.text for e in run.data.valid[:SHOWN_TEXTS]}
    rows = [
        " ".join(["|", *(f"{escape_cell(text)} |" for text in (name, reference, hypothesis))])
        for name, reference in references.items()
        for hypothesis in [evaluation.hypotheses[name].text]
    ]
    heading = ["| utterance | reference | hypothesis |", "| --- | --- | --- |"]
    journal.write("validation", [*heading, *rows], step)
    example = sorted(run.data.valid, key=lambda e: e.duration)[len(run.data.valid) // 2]
    batch = load_batch([example], run.data.read).to(run.model.device)
    statistics = batch_statistics(run.valid_statistics, batch, run.model.device)
    features, frames = run.model.features(batch.samples, batch.sample_lengths, statistics)
    log_probs, _ = run.model.run_network(features, frames)
    if features.shape[1] and log_probs.shape[1]:
        journal.draw("utterance/features", features[0].cpu().numpy(), step)
        journal.draw("utterance/posteriors", log_probs[0].exp().cpu().numpy(), step)


def escape_cell(text: str) -> str:
    """Escape ``text`` for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def list_scalars(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """List the numbers of a record by name, those in nested tables as ``table/name``."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from list_scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value


def open_tensorboard(run: Run) -> Any:
    """Open a ``SummaryWriter`` for the run, or return ``None`` on machines without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.progress.step + 1)


# --- reading --------------------------------------------------------------------------------------


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """Read the records of a run folder's ``metrics.jsonl``, without the line that a kill cut off.

    Raises ``ManifestError`` for a file that cannot be read, or a line that is not a JSON object.
    """
    path = folder / METRICS_FILE
    for number, line in read_numbered_lines(path):
        if line.endswith("}"):
            yield parse_object(line, f"{path}:{number}")


def read_training_speed(folder: Path) -> float | None:
    """Hours of audio that a run's steps took per hour, the median over its epochs.

    The time of validation does not count. ``None`` for a model folder without such records: one that was
    shipped, or trained before records had a speed.
    """
    if not (folder / METRICS_FILE).exists():
        return None
    speeds = {r["epoch"]: r["speed"] for r in read_records(folder) if "loss" in r and "speed" in r}
    return round(median(speeds.values()), 1) if speeds else None


# --- signals --------------------------------------------------------------------------------------


@dataclass
class StopFlag:
    """Set by a signal and checked between steps."""

    signal_number: int = 0
    set_at: float = 0.0  # of time.monotonic()


@contextmanager
def catch_stop_signals() -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a flag; a second signal after a while ends the program at once.

    A signal right after the first does not: programs that start others (timeout, job schedulers) pass on
    what the terminal has already sent to everybody.
    """
    flag = StopFlag()
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not flag.signal_number:
            flag.signal_number, flag.set_at = number, now
        elif now - flag.set_at > ECHO_SECONDS:
            restore()
            signal.raise_signal(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield flag
    finally:
        if not flag.signal_number:  # otherwise the second one may still be on its way
            restore()
