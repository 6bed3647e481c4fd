"""Training as plain functions: a run from its newest checkpoint to its last epoch."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from asr.training.batching import Batch
from asr.training.checkpoints import newest_checkpoint
from asr.training.distributed import Ranks
from asr.training.examples import Plan
from asr.training.experiment import Experiment
from asr.training.export import write_model_onnx
from asr.training.finetuning import copy_search
from asr.training.folder import lock_folder
from asr.training.judgement import Evaluation
from asr.training.monitoring import Journal, StopFlag, catch_stop_signals, open_journal, show_validation
from asr.training.optimisation import replace_weights
from asr.training.run import Progress, Run, describe_run, epoch_updates, prepare_run, save_checkpoint
from asr.training.selection import average_best, select_weights, validate
from asr.training.steps import load_own_batches, own_share, take_step


class TrainingStopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A signal asked the run to stop; everything was saved."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.signal_number = signal_number
        self.step = step


def train(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    say: Callable[[str], None] = print,
    show_progress: bool = False,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
) -> Progress:
    """Train in ``folder``, from nothing or from its newest sound checkpoint, to the last epoch.

    ``say`` gets a line of news now and then. SIGINT and SIGTERM end the step under way, save a
    checkpoint and raise ``TrainingStopped``. A run that was killed resumes from its newest checkpoint
    and ends, on a CPU, with exactly the weights of one that was not. Several ``ranks`` call this
    together, with one folder that all of them see; the first writes and speaks.

    Raises ``TrainingError`` when the folder belongs to another experiment or the data cannot be
    trained on, ``CheckpointError`` when there are checkpoints and every one is damaged.
    """
    say = say if ranks.is_first else ignore
    with lock_folder(experiment, folder, ranks):
        checkpoint = newest_checkpoint(folder, say)
        run = prepare_run(experiment, folder, device, ranks, checkpoint)
        for line in describe_run(run):
            say(line)
        if experiment.training.take_over and ranks.is_first:
            copy_search(experiment.training.initial, folder)
        if checkpoint is not None:
            say(f"resuming at step {run.progress.step} of {run.total_steps}")
        train_epochs(run, say, show_progress and ranks.is_first)
        if ranks.is_first and experiment.training.objective == "tokens":
            say(write_model_onnx(folder))
    return run.progress


def ignore(line: str) -> None:
    """Take a line of news that the first process prints."""


def train_epochs(run: Run, say: Callable[[str], None], show_progress: bool) -> None:
    """Train the epochs that are left, until patience runs out; average the best weights at the end."""
    training = run.experiment.training
    bar = tqdm(total=run.total_steps, initial=run.progress.step, unit="step", disable=not show_progress)
    with catch_stop_signals() as stop, open_journal(run) as journal, bar:
        while run.progress.epoch < training.epochs and not is_out_of_patience(run):
            say(train_epoch(run, stop, journal, bar))
        if is_out_of_patience(run):
            say(f"stopping early: no improvement in {run.progress.stale_epochs} epochs")
        if training.average_best > 1 and not run.progress.averaged:
            say(average_best(run, journal))


def is_out_of_patience(run: Run) -> bool:
    """Whether validation has not improved for as long as the recipe waits."""
    patience = run.experiment.training.patience
    return 0 < patience <= run.progress.stale_epochs


def train_epoch(run: Run, stop: StopFlag, journal: Journal, bar: tqdm) -> str:
    """Take the steps left in the present epoch, validate, select weights and save a checkpoint.

    Returns a line of news about the epoch.
    """
    progress, training = run.progress, run.experiment.training
    meter = take_steps(run, stop, journal, bar)
    loss = progress.epoch_loss / max(1, progress.epoch_utterances)
    record: dict[str, Any] = {"step": progress.step, "epoch": progress.epoch + 1, "train_loss": loss}
    line = f"epoch {progress.epoch + 1}/{training.epochs}: loss {loss:.4f}"
    with replace_weights(run.objective, run.averages):
        if run.data.valid:
            evaluation = validate(run)
            line += f", validation {evaluation.summary}"
            record |= evaluation.metrics
            if isinstance(evaluation, Evaluation):
                show_validation(run, journal, evaluation)
        if select_weights(run, record):
            line += " (best so far)"
    line += f", {100 * meter.metrics['data_wait']:.0f} % of the time spent waiting for data"
    if progress.skipped_steps:
        line += f", {progress.skipped_steps} steps skipped because their gradient was not finite"
    journal.log(record | meter.metrics)
    progress.epoch, progress.epoch_step = progress.epoch + 1, 0
    progress.epoch_loss, progress.epoch_utterances = 0.0, 0
    save_checkpoint(run)
    return line


def take_steps(run: Run, stop: StopFlag, journal: Journal, bar: tqdm) -> EpochMeter:
    """Take the steps left in the present epoch.

    Raises ``TrainingStopped``, with everything saved, when a signal asks for it.
    """
    progress, training = run.progress, run.experiment.training
    meter = EpochMeter(time.monotonic())
    saved = time.monotonic()
    updates = epoch_updates(run)[progress.epoch_step :]
    loaded = load_own_batches(run, updates)
    for update in updates:
        asked = time.monotonic()
        batches = [next(loaded) for _ in own_share(run, update)]
        meter.waiting += time.monotonic() - asked
        metrics, stopping = take_step(run, update, batches, stop.signal_number != 0)
        meter.add(run, update, batches)
        journal.log({"step": progress.step, "epoch": progress.epoch + 1, **metrics, **meter.metrics})
        advance_bar(bar, metrics, meter.metrics["speed"])
        if stopping:
            save_checkpoint(run)
            raise TrainingStopped(stop.signal_number or signal.SIGTERM, progress.step)
        every = training.checkpoint_steps
        due = every and progress.step % every == 0
        if due or time.monotonic() - saved > 60 * training.checkpoint_minutes:
            save_checkpoint(run)
            saved = time.monotonic()
    return meter


@dataclass
class EpochMeter:
    """How an epoch's time was spent, since this process took it up; all in seconds."""

    started: float  # of time.monotonic()
    waiting: float = 0.0  # for batches that were not ready
    audio: float = 0.0  # trained on, in all processes
    own: float = 0.0  # trained on, in this process
    padded: float = 0.0  # the same, padding included

    def add(self, run: Run, update: Plan, batches: list[Batch]) -> None:
        """Count the audio of an update."""
        rate = run.model.sample_rate
        self.audio += sum(run.data.durations[i] for indices in update for i in indices)
        self.own += sum(float(batch.sample_lengths.sum()) for batch in batches) / rate
        self.padded += sum(batch.samples.numel() for batch in batches) / rate

    @property
    def metrics(self) -> dict[str, float]:
        """Hours of audio per hour, the share of time spent waiting, the share of audio that is padding."""
        passed = max(time.monotonic() - self.started, 1e-9)
        return {
            "speed": round(self.audio / passed, 1),
            "data_wait": round(self.waiting / passed, 4),
            "padding": round(1 - self.own / self.padded, 4) if self.padded else 0.0,
        }


def advance_bar(bar: tqdm, metrics: dict[str, Any], speed: float) -> None:
    """Advance the bar by a step; ``speed`` is hours of audio per hour."""
    bar.set_postfix_str(
        f"loss {metrics['loss']:.3f}, lr {metrics['learning_rate']:.1e}, {speed:.0f} h/h", refresh=False
    )
    bar.update()
