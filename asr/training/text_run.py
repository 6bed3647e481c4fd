"""Training a small network on text: steps, checkpoints, and resuming bit for bit."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import Tensor, nn

from asr.core.config import check_bounds, from_table, option, read_toml, to_table
from asr.errors import UserError
from asr.model.folder import save_config
from asr.pretrained import CONFIG_FILE
from asr.text.pieces import PIECES, Pieces
from asr.training.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from asr.training.folder import LOCK_FILE, find_differences
from asr.training.loop import TrainingStopped
from asr.training.monitoring import METRICS_FILE, Journal, catch_stop_signals
from asr.training.optimisation import SCHEDULES, optimizer_tensors, restore_optimizer
from asr.training.run import add_prefix, strip_prefix
from asr.training.steps import batch_seed

POOL = 1 << 16  # sequences that are sorted by length together
ROWS = 32  # sequences of a batch are a multiple of this many where there are more
LOG_STEPS = 50

Say = Callable[[str], None]


@dataclass(frozen=True)
class TextTraining:
    """How a network is trained on text."""

    seed: int = option(1, "Decides initial weights, order and dropout.", minimum=0, maximum=1 << 31)
    epochs: float = option(1.0, "Times that the text is read; may be a fraction.", above=0, maximum=1000)
    batch_pieces: int = option(3200, "Pieces in a batch, padding included.", minimum=1, maximum=1 << 20)
    learning_rate: float = option(0.003, "The highest.", above=0, maximum=1)
    warmup_steps: int = option(200, "Steps in which the rate rises to it; then it falls to 0.", minimum=0)
    clip_norm: float = option(1.0, "Longest gradient; longer ones are shortened.", above=0)
    precision: str = option("auto", "bfloat16 on processors with tiles for it, float32, or auto.")
    checkpoint_minutes: float = option(5.0, "Minutes from one checkpoint to the next.", above=0)

    def __post_init__(self) -> None:
        check_bounds(self, "training")
        if self.precision not in ("auto", "bfloat16", "float32"):
            raise UserError(f"'training.precision' is {self.precision!r}, not auto, bfloat16 or float32")


@dataclass
class TextProgress:
    """Where a run stands; goes into every checkpoint as JSON."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    data: str = ""


@dataclass(frozen=True, eq=False)
class TextTask:
    """What is trained on what.

    plan: the sequences of each batch of an epoch. compute_loss: the summed loss of a batch, and over how many
    it is summed. digest: changes with the text. pieces: those of words, where the network reads them.
    """

    network: nn.Module
    plan: Callable[[int], list[np.ndarray]]
    compute_loss: Callable[[np.ndarray], tuple[Tensor, int]]
    digest: str
    pieces: Pieces | None = None


@dataclass(frozen=True, eq=False)
class TextRun:
    """A run in memory."""

    experiment: Any  # a dataclass with a ``training`` section
    folder: Path
    task: TextTask
    optimizer: torch.optim.Optimizer
    progress: TextProgress
    total_steps: int

    @property
    def training(self) -> TextTraining:
        """The options of training."""
        found: TextTraining = self.experiment.training
        return found


@contextmanager
def open_run_folder(experiment: Any, folder: Path, say: Say) -> Iterator[Checkpoint | None]:
    """Make ``folder`` this experiment's for the block, and read its newest sound checkpoint.

    Raises ``UserError`` where another process trains there, or the folder belongs to another experiment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK_FILE, timeout=0):
            claim_folder(experiment, folder)
            yield newest_checkpoint(folder, say)
    except filelock.Timeout as error:
        raise UserError(f"{folder}: another process is training there; wait for it") from error


def claim_folder(experiment: Any, folder: Path) -> None:
    """Write the recipe into ``folder``, or check that it is there already; raises ``UserError``."""
    path = folder / CONFIG_FILE
    if not path.exists():
        save_config(experiment, folder)
        return
    before = from_table(type(experiment), read_toml(path))
    if differences := find_differences(to_table(before), to_table(experiment)):
        raise UserError(
            f"{folder}: was begun with other settings ({', '.join(differences)} differ); go back to them, or "
            "delete the folder"
        )


def run_task(
    experiment: Any, folder: Path, task: TextTask, checkpoint: Checkpoint | None, say: Say
) -> TextRun:
    """Train to the last step; raises ``TrainingStopped``, with all saved, when a signal asks for it."""
    training: TextTraining = experiment.training
    use_fused = can_use_tiles(training, 0)
    run = TextRun(
        experiment,
        folder,
        task,
        torch.optim.AdamW(
            task.network.parameters(), training.learning_rate, weight_decay=0.0, fused=use_fused or None
        ),
        TextProgress(data=task.digest),
        max(1, round(training.epochs * len(task.plan(0)))),
    )
    if checkpoint is not None:
        restore_run(run, checkpoint)
        say(f"resuming at step {run.progress.step:,}")
    weights = sum(parameter.numel() for parameter in task.network.parameters())
    say(f"{weights:,} weights; {run.total_steps:,} steps")
    take_steps(run, say)
    return run


def can_use_tiles(training: TextTraining, *sizes: int) -> bool:
    """Whether layers of ``sizes`` are trained in tiles; raises ``UserError`` where that is asked in vain."""
    from asr.core.tiles import STEP, has_tiles

    if training.precision == "float32":
        return False
    fits = all(size % STEP == 0 for size in sizes) and has_tiles()
    if training.precision == "bfloat16" and not fits:
        raise UserError(
            f"'training.precision' = 'bfloat16' needs a processor with AMX and sizes that {STEP} divides; "
            "use float32"
        )
    return fits


def plan_by_length(lengths: np.ndarray, training: TextTraining, epoch: int) -> list[np.ndarray]:
    """Plan an epoch: the numbers of the sequences of each batch, which are of about one length.

    Sequences are shuffled, sorted by length within pools, and cut into batches, which are shuffled.
    """
    generator = np.random.default_rng([training.seed, epoch])
    order = generator.permutation(len(lengths))
    batches = []
    for first in range(0, len(order), POOL):
        pool = order[first : first + POOL]
        pool = pool[np.argsort(-lengths[pool], kind="stable")]
        place, planned = 0, []
        while place < len(pool):
            rows = max(1, training.batch_pieces // int(lengths[pool[place]]))
            rows = rows // ROWS * ROWS or rows
            planned.append(pool[place : place + rows])
            place += rows
        batches += [planned[n] for n in generator.permutation(len(planned))]
    return batches


# --- steps ----------------------------------------------------------------------------------------


def take_steps(run: TextRun, say: Say) -> None:
    """Take the steps that are left."""
    progress = run.progress
    saved = started = time.monotonic()
    losses, lately, total = 0.0, 0, 0
    with catch_stop_signals() as stop, (run.folder / METRICS_FILE).open("ab", buffering=0) as file:
        journal = Journal(file)
        while progress.step < run.total_steps:
            for batch in run.task.plan(progress.epoch)[progress.epoch_step :]:
                loss, count, norm = take_step(run, batch)
                losses, lately, total = losses + loss, lately + count, total + count
                is_last = progress.step == run.total_steps
                if progress.step % LOG_STEPS == 0 or is_last:
                    speed = round(total / (time.monotonic() - started), 1)
                    record = {"step": progress.step, "loss": round(losses / lately, 5)}
                    journal.log({**record, "gradient_norm": round(norm, 4), "per_second": speed})
                    if progress.step % (20 * LOG_STEPS) == 0 or is_last:
                        say(f"step {progress.step:,} of {run.total_steps:,}: loss {losses / lately:.4f}")
                    losses, lately = 0.0, 0
                if stop.signal_number:
                    save_checkpoint(run)
                    raise TrainingStopped(stop.signal_number or signal.SIGTERM, progress.step)
                if is_last:
                    break
                if time.monotonic() - saved > 60 * run.training.checkpoint_minutes:
                    save_checkpoint(run)
                    saved = time.monotonic()
            else:
                progress.epoch, progress.epoch_step = progress.epoch + 1, 0
    save_checkpoint(run)


def take_step(run: TextRun, batch: np.ndarray) -> tuple[float, int, float]:
    """Update the weights once; returns the summed loss, over how many it is, and the gradient's norm."""
    progress, training, network = run.progress, run.training, run.task.network
    torch.manual_seed(batch_seed(training.seed, progress.step, 0))
    share = SCHEDULES["cosine"](progress.step, run.total_steps, training.warmup_steps)
    for group in run.optimizer.param_groups:
        group["lr"] = training.learning_rate * share
    network.train()
    run.optimizer.zero_grad(set_to_none=True)
    loss, count = run.task.compute_loss(batch)
    (loss / count).backward()
    norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm))
    if math.isfinite(norm):
        run.optimizer.step()
    progress.step += 1
    progress.epoch_step += 1
    return float(loss.detach()), count, norm


# --- to and from checkpoints ----------------------------------------------------------------------


def save_checkpoint(run: TextRun) -> None:
    """Write everything that resuming needs."""
    tensors = add_prefix("network.", run.task.network.state_dict())
    tensors |= add_prefix("optimizer.", optimizer_tensors(run.optimizer))
    if run.task.pieces is not None:
        tensors[PIECES] = torch.frombuffer(bytearray(run.task.pieces.model), dtype=torch.uint8)
    write_checkpoint(run.folder, run.progress.step, tensors, asdict(run.progress), run.experiment)


def restore_pieces(checkpoint: Checkpoint) -> Pieces:
    """Restore the pieces of a checkpoint; raises ``UserError``."""
    try:
        return Pieces(checkpoint.tensors[PIECES].numpy().tobytes())
    except (KeyError, ValueError) as error:
        raise UserError(f"{checkpoint.path}: does not fit this version: {error}") from error


def restore_run(run: TextRun, checkpoint: Checkpoint) -> None:
    """Put the state of a checkpoint into ``run``; raises ``UserError`` when it does not fit."""
    if checkpoint.progress.get("data") != run.progress.data:
        raise UserError(f"{checkpoint.path}: is of a run on another text; restore it, or delete {run.folder}")
    try:
        run.task.network.load_state_dict(strip_prefix("network.", checkpoint.tensors))
        restore_optimizer(run.optimizer, strip_prefix("optimizer.", checkpoint.tensors))
        stored = replace(TextProgress(**checkpoint.progress))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{checkpoint.path}: does not fit this version: {error}") from error
    for name, value in vars(stored).items():
        setattr(run.progress, name, value)


def copy_lstm(layer: nn.Module) -> list[np.ndarray]:
    """Copy the input, recurrent and bias weights of an ``nn.LSTM`` of one layer."""
    inputs, hidden, first, second = (
        layer.get_parameter(f"{name}_l0").detach().numpy()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return [inputs.copy(), hidden.copy(), first + second]
