"""Training as plain functions: a run from its newest checkpoint to its last epoch, step by step."""

from __future__ import annotations

import hashlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from asr.core.config import from_table, read_toml, to_table, to_toml
from asr.core.files import replace_file
from asr.errors import UserError
from asr.model.features import length_mask
from asr.model.folder import save_config, save_weights
from asr.pretrained import CONFIG_FILE
from asr.text.tokenizer import BLANK_TOKEN, save_tokenizer
from asr.training.augment import augment_samples, sample_augmentation, spec_augment, utterance_generator
from asr.training.batching import Batch, Plan, load_batch, read_ahead
from asr.training.checkpoints import newest_checkpoint
from asr.training.distributed import Ranks
from asr.training.evaluation import Evaluation, batch_statistics, evaluate
from asr.training.experiment import Experiment
from asr.training.monitoring import Journal, StopFlag, journal, show_validation, stop_signal
from asr.training.objective import BatchLosses
from asr.training.optimisation import (
    average_weights,
    clip_gradients,
    compute_learning_rate,
    gradient_norms,
    replace_weights,
    update_averages,
)
from asr.training.run import (
    Progress,
    Run,
    TrainingError,
    described,
    epoch_updates,
    prepared_run,
    save_checkpoint,
)

BEST = "best"
LOCK_FILE = ".lock"  # locked, not only there, while a process trains in the folder
DETAIL_STEPS = 20  # every so many steps the gradient of each layer is logged


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A signal asked the run to stop; everything was saved."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.signal_number = signal_number
        self.step = step


# --- the run --------------------------------------------------------------------------------------


def train(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    say: Callable[[str], None] = print,
    show_progress: bool = False,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
) -> Progress:
    """Train in ``folder``, from nothing or from its newest sound checkpoint, to the last epoch.

    ``say`` is given a line of news now and then. SIGINT and SIGTERM end the step under way, save a
    checkpoint and raise ``Stopped``. A run that was killed goes on from its newest checkpoint and
    ends, on a CPU, with exactly the weights of one that was not. Several ``ranks`` call this
    together, with one folder that all of them see; the first writes and speaks.

    Raises ``TrainingError`` when the folder belongs to another experiment or the data cannot be
    trained on, ``CheckpointError`` when there are checkpoints and every one is damaged.
    """
    say = say if ranks.is_first else silent
    with claimed(experiment, folder, ranks):
        return trained(experiment, folder, device, say, show_progress, ranks)


def trained(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    say: Callable[[str], None],
    show_progress: bool,
    ranks: Ranks,
) -> Progress:
    """``train`` in a folder that is this run's alone."""
    checkpoint = newest_checkpoint(folder, say)
    run = prepared_run(experiment, folder, device, ranks, checkpoint)
    for line in described(run):
        say(line)
    if checkpoint is not None:
        say(f"going on from step {run.progress.step} of {run.total_steps}")
    show_progress = show_progress and ranks.is_first
    bar = tqdm(total=run.total_steps, initial=run.progress.step, unit="step", disable=not show_progress)
    with stop_signal() as stop, journal(run) as into, bar:
        while run.progress.epoch < experiment.training.epochs and not out_of_patience(run):
            say(finished_epoch(run, stop, into, bar))
        if out_of_patience(run):
            say(f"no improvement in {run.progress.stale_epochs} epochs: that is enough")
        if experiment.training.average_best > 1 and not run.progress.averaged:
            say(averaged_best(run, into))
    return run.progress


def silent(line: str) -> None:
    """News that somebody else tells."""


def out_of_patience(run: Run) -> bool:
    """Whether validation has not improved for as long as the recipe waits."""
    patience = run.experiment.training.patience
    return 0 < patience <= run.progress.stale_epochs


@contextmanager
def claimed(experiment: Experiment, folder: Path, ranks: Ranks) -> Iterator[None]:
    """Make ``folder`` this experiment's, and in the block let no other run write there.

    Several processes learn together how that went. The system frees the lock of a run that is killed.
    """
    lock = filelock.FileLock(folder / LOCK_FILE)
    problem = ""
    if ranks.is_first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            refuse_other_things(folder)
            lock.acquire(timeout=0)
            claim_folder(experiment, folder)
        except filelock.Timeout:
            problem = f"{folder}: another process is training there; wait for it, or choose another --out"
        except OSError as error:
            problem = f"{error.filename or folder}: {error.strerror}"
        except UserError as error:
            problem = str(error)
    problem = ranks.broadcast(problem)
    try:
        if problem:
            raise TrainingError(problem)
        if not (folder / CONFIG_FILE).exists():
            raise TrainingError(f"{folder}: is not on this machine; all processes must share the run folder")
        yield
    finally:
        lock.release()


def refuse_other_things(folder: Path) -> None:
    """Raise ``TrainingError`` for a folder that holds something and no run."""
    if names_in(folder) and not (folder / CONFIG_FILE).exists():
        raise TrainingError(f"{folder}: is neither empty nor a training run; choose another --out")


def names_in(folder: Path) -> set[str]:
    """What is in a folder; names that begin with a point may be all that a process killed early has left."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def claim_folder(experiment: Experiment, folder: Path) -> None:
    """Make ``folder`` this experiment's, or find that it already is."""
    path = folder / CONFIG_FILE
    if not path.exists():
        save_config(experiment, folder)
        return
    before = from_table(Experiment, read_toml(path))
    differences = differing_keys(to_table(before), to_table(experiment))
    # What save_config wrote, and nothing beside it, is of a start that failed over its data: the recipe,
    # once corrected, may differ. A recipe that somebody wrote is not replaced.
    if (
        differences
        and names_in(folder) == {CONFIG_FILE}
        and path.read_text(encoding="utf-8") == to_toml(before)
    ):
        save_config(experiment, folder)
    elif differences:
        raise TrainingError(
            f"{folder}: was begun with another config ({', '.join(differences)} differ); "
            "choose another --out (with --set training.initial=MODEL it begins with MODEL's weights), "
            "or go back to its config.toml"
        )


def differing_keys(left: dict[str, Any], right: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the keys whose values differ in two tables of the same form."""
    names = []
    for key, value in left.items():
        if isinstance(value, dict):
            names += differing_keys(value, right[key], f"{prefix}{key}.")
        elif value != right[key]:
            names.append(prefix + key)
    return names


# --- an epoch -------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What an epoch spent its time on, since this process took it up."""

    started: float
    waiting: float = 0.0  # seconds in which the next batch was not ready
    audio: float = 0.0  # seconds heard, of all processes
    padded: float = 0.0  # seconds worked on, padding included, in this process
    own: float = 0.0  # seconds heard in this process

    @property
    def metrics(self) -> dict[str, float]:
        """Hours of audio an hour, the share of time spent waiting, the share of audio that is padding."""
        passed = max(time.monotonic() - self.started, 1e-9)
        return {
            "speed": round(self.audio / passed, 1),
            "data_wait": round(self.waiting / passed, 4),
            "padding": round(1 - self.own / self.padded, 4) if self.padded else 0.0,
        }


def finished_epoch(run: Run, stop: StopFlag, into: Journal, bar: tqdm) -> str:
    """Take the steps left in the present epoch, validate, select, checkpoint; says how it went."""
    progress, training = run.progress, run.experiment.training
    tally = take_steps(run, stop, into, bar)
    loss = progress.epoch_loss / max(1, progress.epoch_utterances)
    record: dict[str, Any] = {"step": progress.step, "epoch": progress.epoch + 1, "train_loss": loss}
    line = f"epoch {progress.epoch + 1}/{training.epochs}: loss {loss:.4f}"
    with replace_weights(run.objective, run.averages):
        if run.data.valid:
            evaluation = validated(run)
            line += f", validation {evaluation.summary}"
            record |= evaluation.metrics
            show_validation(run, into, evaluation)
        if select(run, record):
            line += " (best so far)"
    line += f", {100 * tally.metrics['data_wait']:.0f} % of the time spent waiting for data"
    if progress.skipped_steps:
        line += f", {progress.skipped_steps} steps skipped whose gradient was not finite"
    into.log(record | tally.metrics | {"rate_factor": progress.rate_factor})
    progress.epoch, progress.epoch_step = progress.epoch + 1, 0
    progress.epoch_loss, progress.epoch_utterances = 0.0, 0
    save_checkpoint(run)
    return line


def take_steps(run: Run, stop: StopFlag, into: Journal, bar: tqdm) -> Tally:
    """Take the steps left in the present epoch; raises ``Stopped``, all saved, when a signal asks."""
    progress, training = run.progress, run.experiment.training
    tally = Tally(time.monotonic())
    saved = time.monotonic()
    updates = epoch_updates(run)[progress.epoch_step :]
    loaded = own_batches(run, updates)
    for update in updates:
        asked = time.monotonic()
        batches = [next(loaded) for _ in own_share(run, update)]
        tally.waiting += time.monotonic() - asked
        metrics, stopping = step(run, update, batches, stop.signal_number != 0)
        count(tally, run, update, batches)
        into.log({"step": progress.step, "epoch": progress.epoch + 1, **metrics, **tally.metrics})
        show(bar, metrics, tally.metrics["speed"])
        if stopping:
            save_checkpoint(run)
            raise Stopped(stop.signal_number or signal.SIGTERM, progress.step)
        every = training.checkpoint_steps
        due = every and progress.step % every == 0
        if due or time.monotonic() - saved > 60 * training.checkpoint_minutes:
            save_checkpoint(run)
            saved = time.monotonic()
    return tally


def own_share(run: Run, update: Plan) -> Plan:
    """The batches of an update that this process works on."""
    return update[run.ranks.rank :: run.ranks.size]


def own_batches(run: Run, updates: list[Plan]) -> Iterator[Batch]:
    """This process's batches of all ``updates``, read ahead.

    Where there is none for it, it takes the shortest example, whose loss will not be counted: the
    others wait for its gradient all the same.
    """
    training = run.experiment.training
    draw = partial(sample_augmentation, run.data.sources, training.seed, run.progress.epoch)
    shortest = min(run.data.train, key=lambda example: example.duration)
    jobs = (
        partial(load_batch, [run.data.train[i] for i in indices] or [shortest], run.data.read, draw)
        for update in updates
        for indices in own_share(run, update)
    )
    return read_ahead(jobs, training.workers)


def count(tally: Tally, run: Run, update: Plan, batches: list[Batch]) -> None:
    """Add an update to the tally."""
    rate = run.model.sample_rate
    tally.audio += sum(run.data.durations[i] for indices in update for i in indices)
    tally.own += sum(float(batch.sample_lengths.sum()) for batch in batches) / rate
    tally.padded += sum(batch.samples.numel() for batch in batches) / rate


def show(bar: tqdm, metrics: dict[str, Any], speed: float) -> None:
    """Move the bar on by a step; ``speed`` is hours of audio per hour."""
    bar.set_postfix_str(
        f"loss {metrics['loss']:.3f}, lr {metrics['learning_rate']:.1e}, {speed:.0f} h/h", refresh=False
    )
    bar.update()


# --- a step ---------------------------------------------------------------------------------------


def step(run: Run, update: Plan, batches: list[Batch], stop: bool = False) -> tuple[dict[str, Any], bool]:
    """One update of the weights; returns what is of interest, and whether any process said ``stop``.

    ``update`` names the batches of all processes, ``batches`` are this one's. The gradient is that of
    the mean loss over all their utterances.
    """
    progress, training = run.progress, run.experiment.training
    torch.manual_seed(draw_seed(training.seed, progress.step, run.ranks.rank))
    rate = compute_learning_rate(progress.step, run.total_steps, training, progress.rate_factor)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad(set_to_none=True)
    sums = run.ranks.total([*gradient(run, update, batches), float(stop)])
    loss, criterion, blanks, frames, stopping = sums
    metrics: dict[str, Any] = {}
    if progress.step % DETAIL_STEPS == 0:
        metrics["gradient_norms"] = gradient_norms(run.objective)
    norm = clip_gradients(list(run.objective.parameters()), training)
    if math.isfinite(norm):
        run.optimizer.step()
        if run.averages:
            update_averages(run.averages, run.objective, training.average_decay, progress.step)
    else:
        progress.skipped_steps += 1
    utterances = sum(map(len, update))
    if math.isfinite(loss):
        progress.epoch_loss += loss
        progress.epoch_utterances += utterances
    progress.step += 1
    progress.epoch_step += 1
    metrics |= {
        "loss": loss / utterances,
        "criterion": criterion / utterances,
        "learning_rate": rate,
        "gradient_norm": norm,
        "blank_rate": blanks / max(frames, 1.0),
    }
    return metrics, stopping > 0


def draw_seed(seed: int, step: int, rank: int) -> int:
    """What the random draws of one step in one process begin from (dropout)."""
    digest = hashlib.sha256(f"{seed}/{step}/{rank}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def gradient(run: Run, update: Plan, batches: list[Batch]) -> list[float]:
    """Add up the gradient of an update; returns sums over this process: loss, blank frames, frames."""
    run.parallel.train()
    utterances = sum(map(len, update))
    own = own_share(run, update)
    sums = [torch.zeros(4)]
    for number, (indices, batch) in enumerate(zip(own, batches, strict=True), start=1):
        with nullcontext() if number == len(own) else without_sync(run):
            losses = compute_losses(run, batch.to(run.model.device))
            # Among several processes the gradients are averaged, and it is the sum that counts.
            share = run.ranks.size / utterances if indices else 0.0
            (losses.losses.sum() * share).backward()
        if indices:
            own_sums = [losses.ctc.sum(), losses.criterion.sum(), count_blank_frames(losses)]
            sums.append(torch.stack([*own_sums, losses.frames.sum()]))
    return torch.stack([row.cpu() for row in sums]).double().sum(0).tolist()


def without_sync(run: Run) -> Any:
    """A block whose gradients stay in this process until the next one."""
    return run.parallel.no_sync() if isinstance(run.parallel, DistributedDataParallel) else nullcontext()


def compute_losses(run: Run, batch: Batch) -> BatchLosses:
    """The losses of a batch, with augmentation and dropout."""
    experiment, model = run.experiment, run.model
    statistics = batch_statistics(run.statistics, batch, model.device)
    samples, sample_lengths = augment_samples(batch.samples, batch.sample_lengths, batch.augmentation)
    features, lengths = model.features(samples, sample_lengths, statistics)
    views = 2 if experiment.training.consistency_weight else 1
    features = torch.cat([masked_view(run, batch, features, lengths, view) for view in range(views)])
    return run.parallel(features, lengths.repeat(views), batch.tokens, batch.token_lengths)


def masked_view(run: Run, batch: Batch, features: Tensor, lengths: Tensor, view: int) -> Tensor:
    """The features with masks that are drawn for each utterance and view."""
    config = run.experiment.augment
    if not config.frequency_masks and not config.time_masks:
        return features
    kind = "masks" if view == 0 else f"masks {view}"
    generators = [
        utterance_generator(run.experiment.training.seed, run.progress.epoch, f"{kind}/{name}")
        for name in batch.ids
    ]
    hop_ms = 1000 * run.experiment.features.frame_seconds
    planes = run.experiment.features.planes
    return spec_augment(features, lengths, config, hop_ms, generators, planes)


def count_blank_frames(losses: BatchLosses) -> Tensor:
    """How many frames have the blank as their best token."""
    inside = length_mask(losses.frames, losses.log_probs.shape[1])
    return ((losses.log_probs.argmax(dim=2) == BLANK_TOKEN) & inside).sum()


# --- validation and the choice of weights ---------------------------------------------------------


def validated(run: Run) -> Evaluation:
    """What the present weights make of the validation set."""
    seconds = run.experiment.training.batch_seconds
    return evaluate(
        run.recognizer, run.data.valid, run.data.read, seconds, run.valid_statistics, ranks=run.ranks
    )


def select(run: Run, summary: dict[str, Any]) -> bool:
    """Save the present weights as the run's model when no earlier ones did better in validation."""
    progress, training = run.progress, run.experiment.training
    present, measured = selection_key(summary)
    if training.average_best > 1:
        remember_best(run, present)
    if progress.best and measured and present >= progress.best:
        progress.stale_epochs += 1
        if training.schedule == "plateau":
            progress.rate_factor *= training.plateau_factor
        return False
    progress.best, progress.stale_epochs = present, 0
    if run.ranks.is_first:
        save_model(run)
    return True


def save_model(run: Run) -> None:
    """Write the present weights and the tokens into the run folder, which then is a model folder."""
    save_tokenizer(run.tokenizer, run.folder)
    save_weights(run.model, run.folder)


def selection_key(summary: dict[str, Any]) -> tuple[list[float], bool]:
    """WER, CER and loss, by which weights are compared, and whether there was any of them.

    A metric that could not be measured decides nothing; without any, the newest weights win. While as many
    words are wrong as there are, no WER is better than another, nor is a CER: the loss decides.
    """
    metrics = [summary.get(key) for key in ("valid_wer", "valid_cer", "valid_loss")]
    if metrics[0] is not None and metrics[0] >= 1:
        metrics[:2] = [1.0, 1.0]
    present = [math.inf if value is None else float(value) for value in metrics]
    return present, any(value is not None for value in metrics)


def remember_best(run: Run, key: list[float]) -> None:
    """Keep the present weights while they are among the best few.

    A run that goes on from before this moment decides the same again, so a file that was removed is
    not missed.
    """
    progress = run.progress
    ranked = sorted([*progress.best_steps, [*key, float(progress.step)]])
    progress.best_steps = ranked[: run.experiment.training.average_best]
    if not run.ranks.is_first:
        return
    kept = {best_file(run, entry) for entry in progress.best_steps}
    present = best_file(run, [float(progress.step)])
    if present in kept:
        with replace_file(present) as temporary:
            state = run.model.modules.state_dict()
            save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary)
    for file in present.parent.glob("*.safetensors"):
        if file not in kept:
            file.unlink()


def best_file(run: Run, entry: list[float]) -> Path:
    """Where the weights of an entry of ``best_steps`` are."""
    return run.folder / BEST / f"step-{int(entry[-1]):08d}.safetensors"


def averaged_best(run: Run, into: Journal) -> str:
    """Average the best few weights, keep that as the model if it is at least as good; says how it went."""
    progress = run.progress
    run.ranks.wait()  # until the first process has written the last of them
    several = [load_file(best_file(run, entry)) for entry in progress.best_steps]
    own = {name: value.clone() for name, value in run.model.modules.state_dict().items()}
    run.model.modules.load_state_dict(average_weights(several))
    evaluation = validated(run)
    key, _ = selection_key(evaluation.metrics)
    better = key <= progress.best
    if better:
        progress.best = key
        if run.ranks.is_first:
            save_model(run)
    run.model.modules.load_state_dict(own)
    progress.averaged = True
    into.log({"step": progress.step, "averaged": len(several), **evaluation.metrics})
    save_checkpoint(run)
    verdict = "kept" if better else "not better, so not kept"
    return f"average of the best {len(several)}: validation {evaluation.summary} ({verdict})"
