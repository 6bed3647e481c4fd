"""Seeing what happens in a run: ``metrics.jsonl``, TensorBoard, and the signals that ask it to stop."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from asr.run import Run

METRICS_FILE = "metrics.jsonl"
ECHO_SECONDS = 1.0  # in which a second signal is taken for the first one passed on

Log = Callable[[dict[str, Any]], None]


# --- what is written ------------------------------------------------------------------------------


@contextmanager
def metrics_log(run: Run) -> Iterator[Log]:
    """A function that writes one record to ``metrics.jsonl`` and its numbers to TensorBoard.

    Only the first process writes. After a kill the records of steps that are taken again stand there
    twice, the newer ones behind a line with ``"event": "resumed"``.
    """
    if not run.ranks.first:
        yield lambda record: None
        return
    writer = tensorboard_writer(run)
    with (run.folder / METRICS_FILE).open("a+b") as file:
        if file.tell():  # a killed run may have left half a line
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")

        def log(record: dict[str, Any]) -> None:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            for name, value in scalars(record):
                if writer is not None and name != "step":
                    writer.add_scalar(name, value, record["step"])

        log({"step": run.progress.step, "event": "resumed" if run.progress.step else "started"})
        yield log
    if writer is not None:
        writer.close()


def scalars(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a record, those in tables under ``table/name``."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value


def tensorboard_writer(run: Run) -> Any:
    """A ``SummaryWriter`` for the run, or ``None`` on machines without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.progress.step + 1)


# --- what is heard --------------------------------------------------------------------------------


@dataclass
class StopFlag:
    """Set by a signal, looked at between steps."""

    signal_number: int = 0
    set_at: float = 0.0  # of time.monotonic()


@contextmanager
def stop_signal() -> Iterator[StopFlag]:
    """Turn SIGINT and SIGTERM into a flag; one that comes a while later ends the program at once.

    Not one that comes right behind the first: programs that start others (timeout, job schedulers)
    pass on a signal that the terminal has sent to everybody already.
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
