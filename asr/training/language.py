"""Training a recurrent language model: sentences in pieces to a model, resumed bit for bit."""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch import Tensor

from asr.core.config import check_bounds, from_table, option, read_toml, section, to_table
from asr.errors import UserError
from asr.lm.counting import read_corpus
from asr.lm.pieces import END_PIECE, Pieces, learn_pieces, spell_corpus
from asr.lm.recurrent import LSTMWeights, RecurrentConfig, RecurrentModel
from asr.model.folder import save_config
from asr.model.language import LanguageNetwork
from asr.pretrained import CONFIG_FILE
from asr.training.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from asr.training.folder import LOCK_FILE, find_differences
from asr.training.loop import TrainingStopped
from asr.training.monitoring import METRICS_FILE, Journal, catch_stop_signals
from asr.training.optimisation import SCHEDULES, optimizer_tensors, restore_optimizer
from asr.training.run import add_prefix, strip_prefix
from asr.training.steps import batch_seed

POOL = 1 << 16  # sentences that are sorted by length together
LONGEST = 128  # pieces of a sentence; what is longer is cut
LOG_STEPS = 50
ROWS = 32  # sentences of a batch are a multiple of this many where there are more


@dataclass(frozen=True)
class LanguageTraining:
    """How a recurrent language model is trained."""

    seed: int = option(1, "Decides initial weights, order and dropout.", minimum=0, maximum=1 << 31)
    epochs: float = option(1.0, "Times that the text is read; may be a fraction.", above=0, maximum=1000)
    batch_pieces: int = option(3200, "Pieces in a batch, padding included.", minimum=1, maximum=1 << 20)
    learning_rate: float = option(0.002, "The highest.", above=0, maximum=1)
    warmup_steps: int = option(300, "Steps in which the rate rises to it; then it falls to 0.", minimum=0)
    clip_norm: float = option(1.0, "Longest gradient; longer ones are shortened.", above=0)
    precision: str = option("auto", "bfloat16 on processors with tiles for it, float32, or auto.")
    checkpoint_minutes: float = option(5.0, "Minutes from one checkpoint to the next.", above=0)

    def __post_init__(self) -> None:
        check_bounds(self, "training")
        if self.precision not in ("auto", "bfloat16", "float32"):
            raise UserError(f"'training.precision' is {self.precision!r}, not auto, bfloat16 or float32")


@dataclass(frozen=True)
class LanguageExperiment:
    """All of the recipe of a recurrent language model."""

    network: RecurrentConfig = section(RecurrentConfig)
    training: LanguageTraining = section(LanguageTraining)


@dataclass(frozen=True, eq=False)
class Sentences:
    """A text in pieces: sentence ``n`` is ``pieces[bounds[n]:bounds[n + 1]]``, its end included."""

    pieces: np.ndarray  # uint16
    bounds: np.ndarray  # int64

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def digest(self) -> str:
        """Changes with the text."""
        return hashlib.sha256(self.pieces.tobytes()).hexdigest()


@dataclass
class LanguageProgress:
    """Where a run stands; goes into every checkpoint as JSON."""

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    data: str = ""


@dataclass(frozen=True, eq=False)
class LanguageRun:
    """A run in memory."""

    experiment: LanguageExperiment
    folder: Path
    pieces: Pieces
    sentences: Sentences
    network: LanguageNetwork
    optimizer: torch.optim.Optimizer
    progress: LanguageProgress
    total_steps: int
    use_tiles: bool


def train_language_model(
    experiment: LanguageExperiment,
    blocks: Iterable[bytes],
    folder: Path,
    say: Callable[[str], None] = print,
) -> RecurrentModel:
    """Train in ``folder``, from nothing or from its newest sound checkpoint, to the last step.

    ``blocks`` are those of ``asr.lm.text.read_sentences``. SIGINT and SIGTERM save a checkpoint and raise
    ``TrainingStopped``. A run that was killed resumes and ends with exactly the weights of one that was not.

    Raises ``UserError`` when the folder belongs to another experiment or text, ``CheckpointError`` when every
    checkpoint is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK_FILE, timeout=0):
            claim_folder(experiment, folder)
            checkpoint = newest_checkpoint(folder, say)
            run = prepare_run(experiment, blocks, folder, checkpoint)
            say(
                f"{len(run.sentences):,} sentences, {len(run.sentences.pieces):,} pieces; "
                f"{sum(p.numel() for p in run.network.parameters()):,} weights; {run.total_steps:,} steps"
                f"{' in bfloat16' if run.use_tiles else ''}"
            )
            if checkpoint is not None:
                say(f"resuming at step {run.progress.step:,}")
            take_steps(run, say)
            return to_recurrent_model(run)
    except filelock.Timeout as error:
        raise UserError(f"{folder}: another process is training there; wait for it") from error


def claim_folder(experiment: LanguageExperiment, folder: Path) -> None:
    """Write the recipe into ``folder``, or check that it is there already; raises ``UserError``."""
    path = folder / CONFIG_FILE
    if not path.exists():
        save_config(experiment, folder)
        return
    before = from_table(LanguageExperiment, read_toml(path))
    if differences := find_differences(to_table(before), to_table(experiment)):
        raise UserError(
            f"{folder}: was begun with other settings ({', '.join(differences)} differ); go back to them, or "
            "delete the folder"
        )


def prepare_run(
    experiment: LanguageExperiment, blocks: Iterable[bytes], folder: Path, checkpoint: Checkpoint | None
) -> LanguageRun:
    """Read the text, make the network, and put the state of a checkpoint into it."""
    training = experiment.training
    corpus = read_corpus(blocks)
    if checkpoint is None:
        pieces = learn_pieces(corpus, experiment.network.pieces)
    else:
        pieces = restore_pieces(checkpoint)
    spelled = spell_corpus(corpus, pieces)
    sentences = cut_sentences(spelled)
    torch.manual_seed(training.seed)
    network = LanguageNetwork(experiment.network, len(pieces))
    use_tiles = can_use_tiles(experiment)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.learning_rate, weight_decay=0.0, fused=True if use_tiles else None
    )
    batches = len(plan_batches(sentences, training, 0))
    run = LanguageRun(
        experiment,
        folder,
        pieces,
        sentences,
        network,
        optimizer,
        LanguageProgress(data=sentences.digest),
        max(1, round(training.epochs * batches)),
        use_tiles,
    )
    if checkpoint is not None:
        restore_run(run, checkpoint)
    return run


def can_use_tiles(experiment: LanguageExperiment) -> bool:
    """Whether training uses the tile registers; raises ``UserError`` where they are asked for in vain."""
    from asr.core.tiles import STEP, has_tiles

    asked = experiment.training.precision
    if asked == "float32":
        return False
    fits = experiment.network.size % STEP == 0
    if asked == "bfloat16" and not (fits and has_tiles()):
        raise UserError(
            f"'training.precision' = 'bfloat16' needs a processor with AMX and a 'network.size' that {STEP} "
            "divides; use float32"
        )
    return fits and has_tiles()


def cut_sentences(spelled: np.ndarray) -> Sentences:
    """Find the sentences of a spelled text; those of more than ``LONGEST`` pieces are cut."""
    ends = np.flatnonzero(spelled == END_PIECE) + 1
    bounds = np.concatenate([[0], ends])
    if (np.diff(bounds) > LONGEST).any():
        parts = [np.arange(*ends, LONGEST) for ends in pairwise(bounds)]
        bounds = np.concatenate([*parts, bounds[-1:]])
    return Sentences(spelled, bounds.astype(np.int64))


# --- batches --------------------------------------------------------------------------------------


def plan_batches(sentences: Sentences, training: LanguageTraining, epoch: int) -> list[np.ndarray]:
    """Plan an epoch: the sentences of each batch, which are of about one length.

    Sentences are shuffled, sorted by length within pools, and cut into batches, which are shuffled.
    """
    generator = np.random.default_rng([training.seed, epoch])
    order = generator.permutation(len(sentences))
    lengths = np.diff(sentences.bounds)
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


def load_batch(sentences: Sentences, batch: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Load a batch: pieces to read and to predict, ``(rows, steps)`` each, and lengths ``(rows,)``."""
    lengths = sentences.bounds[batch + 1] - sentences.bounds[batch]
    steps = int(lengths.max())
    places = sentences.bounds[batch][:, None] + np.arange(steps)
    targets = sentences.pieces[np.minimum(places, len(sentences.pieces) - 1)].astype(np.int64)
    before = np.maximum(sentences.bounds[batch] - 1, 0)  # an end, or a piece of a cut sentence
    first = np.where(sentences.bounds[batch] == 0, END_PIECE, sentences.pieces[before])
    inputs = np.concatenate([first[:, None].astype(np.int64), targets[:, :-1]], axis=1)
    return torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(lengths)


# --- steps ----------------------------------------------------------------------------------------


def take_steps(run: LanguageRun, say: Callable[[str], None]) -> None:
    """Take the steps that are left; raises ``TrainingStopped`` when a signal asks for it."""
    progress, training = run.progress, run.experiment.training
    saved = started = time.monotonic()
    losses, pieces, lately = 0.0, 0, 0
    with catch_stop_signals() as stop, (run.folder / METRICS_FILE).open("ab", buffering=0) as file:
        journal = Journal(file)
        while progress.step < run.total_steps:
            plan = plan_batches(run.sentences, training, progress.epoch)
            for batch in plan[progress.epoch_step :]:
                loss, count, norm = take_step(run, batch)
                losses, pieces, lately = losses + loss, pieces + count, lately + count
                if progress.step % LOG_STEPS == 0 or progress.step == run.total_steps:
                    now = time.monotonic()
                    record: dict[str, Any] = {
                        "step": progress.step,
                        "loss": round(losses / lately, 5),
                        "gradient_norm": round(norm, 4),
                        "pieces_per_second": round(pieces / (now - started), 1),
                    }
                    journal.log(record)
                    if progress.step % (20 * LOG_STEPS) == 0 or progress.step == run.total_steps:
                        say(
                            f"step {progress.step:,} of {run.total_steps:,}: loss {record['loss']:.4f}, "
                            f"{record['pieces_per_second']:,.0f} pieces a second"
                        )
                    losses, lately = 0.0, 0
                if stop.signal_number:
                    save_checkpoint(run)
                    raise TrainingStopped(stop.signal_number or signal.SIGTERM, progress.step)
                if progress.step == run.total_steps:
                    break
                if time.monotonic() - saved > 60 * training.checkpoint_minutes:
                    save_checkpoint(run)
                    saved = time.monotonic()
            else:
                progress.epoch, progress.epoch_step = progress.epoch + 1, 0
    save_checkpoint(run)


def take_step(run: LanguageRun, batch: np.ndarray) -> tuple[float, int, float]:
    """Update the weights once; returns the summed loss, its pieces and the norm of the gradient."""
    progress, training = run.progress, run.experiment.training
    torch.manual_seed(batch_seed(training.seed, progress.step, 0))
    share = SCHEDULES["cosine"](progress.step, run.total_steps, training.warmup_steps)
    for group in run.optimizer.param_groups:
        group["lr"] = training.learning_rate * share
    inputs, targets, lengths = load_batch(run.sentences, batch)
    run.network.train()
    run.optimizer.zero_grad(set_to_none=True)
    states = run.network(inputs, lengths, run.use_tiles)
    is_real = torch.arange(states.shape[1]) < lengths[:, None]
    count = int(lengths.sum())
    loss = run.network.loss(states[is_real].float(), targets[is_real], run.use_tiles)
    (loss / count).backward()
    norm = float(torch.nn.utils.clip_grad_norm_(run.network.parameters(), training.clip_norm))
    if math.isfinite(norm):
        run.optimizer.step()
    progress.step += 1
    progress.epoch_step += 1
    return float(loss.detach()), count, norm


# --- to and from checkpoints ----------------------------------------------------------------------


def save_checkpoint(run: LanguageRun) -> None:
    """Write everything that resuming needs."""
    tensors = add_prefix("network.", run.network.state_dict())
    tensors |= add_prefix("optimizer.", optimizer_tensors(run.optimizer))
    tensors["pieces"] = torch.frombuffer(bytearray(run.pieces.model), dtype=torch.uint8)
    write_checkpoint(run.folder, run.progress.step, tensors, asdict(run.progress), run.experiment)


def restore_pieces(checkpoint: Checkpoint) -> Pieces:
    """Restore the pieces of a checkpoint; raises ``UserError``."""
    try:
        return Pieces(checkpoint.tensors["pieces"].numpy().tobytes())
    except (KeyError, ValueError) as error:
        raise UserError(f"{checkpoint.path}: does not fit this version: {error}") from error


def restore_run(run: LanguageRun, checkpoint: Checkpoint) -> None:
    """Put the state of a checkpoint into ``run``; raises ``UserError`` when it does not fit."""
    if checkpoint.progress.get("data") != run.progress.data:
        raise UserError(f"{checkpoint.path}: is of a run on another text; restore it, or delete {run.folder}")
    try:
        run.network.load_state_dict(strip_prefix("network.", checkpoint.tensors))
        restore_optimizer(run.optimizer, strip_prefix("optimizer.", checkpoint.tensors))
        stored = asdict(LanguageProgress(**checkpoint.progress))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{checkpoint.path}: does not fit this version: {error}") from error
    for name, value in stored.items():
        setattr(run.progress, name, value)


def to_recurrent_model(run: LanguageRun) -> RecurrentModel:
    """Make the model of a run that needs no torch."""
    weights = {name: value.numpy().copy() for name, value in run.network.state_dict().items()}
    layers = tuple(
        LSTMWeights(
            weights[f"layers.{n}.weight_ih_l0"],
            weights[f"layers.{n}.weight_hh_l0"],
            weights[f"layers.{n}.bias_ih_l0"] + weights[f"layers.{n}.bias_hh_l0"],
        )
        for n in range(run.experiment.network.layers)
    )
    return RecurrentModel(
        run.experiment.network, run.pieces, weights["embedding.weight"], layers, weights["bias"]
    )
