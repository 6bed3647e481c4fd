"""Training as plain functions: plan, step, epoch, evaluate, checkpoint, resume."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from asr.augment import (
    AugmentConfig,
    Sources,
    augmentation_sources,
    drawn_treatment,
    spec_augmented,
    treated,
    utterance_generator,
)
from asr.batching import (
    Batch,
    Example,
    Plan,
    Reader,
    epoch_plan,
    evaluation_examples,
    load_batch,
    read_ahead,
    sample_reader,
    sorted_plan,
    speaker_statistics,
    training_examples,
)
from asr.cache import cached_reader
from asr.config import ConfigError, from_table, option, read_toml, section, to_table
from asr.data import Utterance, read_manifest
from asr.encoders import EncoderConfig
from asr.errors import UserError
from asr.evaluation import Evaluation, alignable, batch_statistics, evaluate, losses_of
from asr.features import FeatureConfig
from asr.files import sync
from asr.models import CONFIG_FILE
from asr.recognizer import (
    FORMAT_VERSION,
    ModelConfig,
    Recognizer,
    network,
    new_recognizer,
    precise,
    save_config,
    save_weights,
    to_device,
)
from asr.text import NORMALISERS, TextConfig, learn_tokenizer

CHECKPOINTS = "checkpoints"
METRICS_FILE = "metrics.jsonl"
ECHO_SECONDS = 1.0  # in which a second signal is taken for the first one passed on


class TrainingError(UserError):
    """Data or a run folder that cannot be trained with."""


@dataclass(frozen=True)
class DataConfig:
    """Which manifests to train on."""

    folder: str = option("data", "Where the manifests are; --data overrides it.")
    train: tuple[str, ...] = option(("train.jsonl",), "Manifests to learn from, within the folder.")
    valid: tuple[str, ...] = option(("dev.jsonl",), "Manifests by whose WER the weights are chosen.")


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are found."""

    seed: int = option(1, "Decides initial weights, order, dropout and augmentation.")
    epochs: int = option(20, "Passes over the training data; the learning rate ends at 0 with the last.")
    batch_seconds: float = option(60.0, "Seconds of audio in a batch, padding included.")
    learning_rate: float = option(1e-3, "Highest learning rate of AdamW.")
    warmup_steps: int = option(100, "Steps over which the learning rate rises from 0.")
    weight_decay: float = option(0.01, "Decay of matrices towards 0; biases and norms are left alone.")
    clip_norm: float = option(5.0, "Gradients longer than this are shortened to it; 0 leaves them.")
    precision: Literal["float32", "bfloat16"] = option(
        "float32", "bfloat16 is faster on GPUs and on CPUs with AVX-512 bf16; the loss stays float32."
    )
    checkpoint_minutes: float = option(10.0, "Besides every epoch's end, save what is needed to go on.")
    cache: str = option(
        "", "Folder for decoded samples, 115 MB an hour at 16 kHz, made when they are missing; '': none."
    )
    cache_hours: float = option(
        4.0, "Without a cache folder, keep decoded samples in memory when all data is shorter than this."
    )
    workers: int = option(1, "Threads that read ahead of the model.")

    def __post_init__(self) -> None:
        for key, wrong in {
            "epochs": self.epochs < 1,
            "batch_seconds": self.batch_seconds <= 0,
            "learning_rate": self.learning_rate <= 0,
            "warmup_steps": self.warmup_steps < 0,
            "weight_decay": self.weight_decay < 0,
            "clip_norm": self.clip_norm < 0,
            "checkpoint_minutes": self.checkpoint_minutes <= 0,
            "workers": self.workers < 1,
        }.items():
            if wrong:
                raise ConfigError(f"'training.{key}' cannot be {getattr(self, key)!r}")


@dataclass(frozen=True)
class Experiment:
    """All of a recipe: the model's config and how it is trained."""

    format_version: int = option(FORMAT_VERSION, "Of the model folder that comes out.")
    features: FeatureConfig = section(FeatureConfig)
    text: TextConfig = section(TextConfig)
    encoder: EncoderConfig = section(EncoderConfig)
    data: DataConfig = section(DataConfig)
    augment: AugmentConfig = section(AugmentConfig)
    training: TrainingConfig = section(TrainingConfig)

    @property
    def model(self) -> ModelConfig:
        """The part that the model folder needs."""
        return ModelConfig(self.format_version, self.features, self.text, self.encoder)


@dataclass
class Progress:
    """Where a run stands; goes into every checkpoint as JSON."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # within the epoch
    best: list[float] = field(default_factory=list)  # WER, CER and loss of the selected weights
    epoch_loss: float = 0.0  # nats, summed over the epoch so far
    epoch_utterances: int = 0
    skipped_steps: int = 0  # gradients that were not finite


@dataclass(frozen=True)
class Data:
    """Examples ready for training, how to read them, and what to augment them with."""

    train: list[Example]
    valid: list[Example]
    unalignable: list[Example]
    read: Reader
    sources: Sources

    @property
    def hours(self) -> float:
        """Of training audio."""
        return sum(example.duration for example in self.train) / 3600


@dataclass(frozen=True)
class Run:
    """A run in memory: what is learned, with what, how far it is."""

    experiment: Experiment
    folder: Path
    recognizer: Recognizer
    optimizer: torch.optim.Optimizer
    data: Data
    progress: Progress
    statistics: dict[str, tuple[Tensor, Tensor]]  # of training speakers; empty unless asked for
    valid_statistics: dict[str, tuple[Tensor, Tensor]]
    plans: list[Plan]  # one an epoch

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return sum(map(len, self.plans))


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
) -> Progress:
    """Train in ``folder``, from nothing or from its newest checkpoint, to the last epoch.

    ``say`` is given a line of news now and then. SIGINT and SIGTERM end the step under way, save a
    checkpoint and raise ``Stopped``. Raises ``TrainingError`` when the folder belongs to another
    experiment or the data cannot be trained on.
    """
    claim_folder(experiment, folder)
    run = prepared_run(experiment, folder, device)
    for line in described(run):
        say(line)
    if restored(run):
        say(f"going on from step {run.progress.step} of {run.total_steps}")
    bar = tqdm(total=run.total_steps, initial=run.progress.step, unit="step", disable=not show_progress)
    with stop_signal() as stop, metrics_log(run) as log, bar:
        while run.progress.epoch < experiment.training.epochs:
            say(finished_epoch(run, stop, log, bar))
    return run.progress


def claim_folder(experiment: Experiment, folder: Path) -> None:
    """Make ``folder`` this experiment's, or find that it already is."""
    path = folder / CONFIG_FILE
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise TrainingError(f"{folder}: is neither empty nor a training run; choose another --out")
        save_config(experiment, folder)
        return
    before = from_table(Experiment, read_toml(path))
    differences = differing_keys(to_table(before), to_table(experiment))
    if differences:
        raise TrainingError(
            f"{folder}: was begun with another config ({', '.join(differences)} differ); "
            "choose another --out, or go back to its config.toml"
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


def prepared_run(experiment: Experiment, folder: Path, device: torch.device) -> Run:
    """Data read, vocabulary learned, weights drawn; all of it decided by the experiment alone."""
    torch.manual_seed(experiment.training.seed)
    train_utterances = read_manifests(experiment.data, experiment.data.train)
    valid_utterances = read_manifests(experiment.data, experiment.data.valid)
    normalise = NORMALISERS[experiment.text.normaliser]
    tokenizer = learn_tokenizer(experiment.text, (normalise(u.text) for u in train_utterances))
    name = folder.resolve().name
    recognizer = to_device(new_recognizer(experiment.model, tokenizer, name), device)
    data = prepared_data(experiment, recognizer, train_utterances, valid_utterances)
    fit_features(experiment, recognizer, data)
    durations = [example.duration for example in data.train]
    return Run(
        experiment=experiment,
        folder=folder,
        recognizer=recognizer,
        optimizer=new_optimizer(recognizer, experiment.training),
        data=data,
        progress=Progress(),
        statistics=asked_statistics(experiment, recognizer, data.train, data.read),
        valid_statistics=asked_statistics(experiment, recognizer, data.valid, data.read),
        plans=[
            epoch_plan(durations, experiment.training.batch_seconds, experiment.training.seed, epoch)
            for epoch in range(experiment.training.epochs)
        ],
    )


def read_manifests(config: DataConfig, names: Sequence[str]) -> list[Utterance]:
    """All utterances of several manifests."""
    return [utterance for name in names for utterance in read_manifest(Path(config.folder) / name)]


def prepared_data(
    experiment: Experiment, recognizer: Recognizer, train: list[Utterance], valid: list[Utterance]
) -> Data:
    """Examples of both sets, those that CTC cannot align set aside."""
    text, tokenizer = experiment.text, recognizer.tokenizer
    every = training_examples(train, tokenizer, text)
    # The fastest speed leaves the fewest frames; who is left out must not depend on a draw.
    rate = recognizer.sample_rate / max(experiment.augment.speeds)
    unalignable = [e for e in every if not alignable(e, recognizer.num_frames(int(e.duration * rate)))]
    left_out = {id(example) for example in unalignable}
    usable = [example for example in every if id(example) not in left_out]
    if not usable:
        raise TrainingError("no training utterance is long enough for its text; try less subsampling")
    validation = evaluation_examples(valid, tokenizer, text)
    read = chosen_reader(experiment, recognizer, usable + validation)
    voices = [example.utterance for example in usable]
    sources = augmentation_sources(experiment.augment, recognizer.sample_rate, voices, read)
    return Data(usable, validation, unalignable, read, sources)


def chosen_reader(experiment: Experiment, recognizer: Recognizer, examples: list[Example]) -> Reader:
    """From the cache on disk when the recipe names one, or else from the recordings."""
    data, training = experiment.data, experiment.training
    if training.cache:
        manifests = [Path(data.folder) / name for name in (*data.train, *data.valid)]
        return cached_reader(Path(training.cache), manifests, recognizer.sample_rate)
    hours = sum(example.duration for example in examples) / 3600
    return sample_reader(recognizer.sample_rate, keep=hours <= training.cache_hours)


def fit_features(experiment: Experiment, recognizer: Recognizer, data: Data) -> None:
    """Measure the statistics that normalisation ``global`` keeps."""
    if experiment.features.normalisation != "global":
        return
    plan = sorted_plan([example.duration for example in data.train], experiment.training.batch_seconds)
    batches = (load_batch([data.train[i] for i in indices], data.read) for indices in plan)
    moved = (batch.to(recognizer.device) for batch in batches)
    recognizer.features.fit((batch.samples, batch.sample_lengths) for batch in moved)


def asked_statistics(
    experiment: Experiment, recognizer: Recognizer, examples: list[Example], read: Reader
) -> dict[str, tuple[Tensor, Tensor]]:
    """What normalisation ``speaker`` needs to know of a set of examples; nothing otherwise."""
    if experiment.features.normalisation != "speaker":
        return {}
    return speaker_statistics(recognizer.features, examples, read, experiment.training.batch_seconds)


def described(run: Run) -> Iterator[str]:
    """What there is to know before training begins."""
    parameters = sum(p.numel() for p in run.recognizer.model.parameters())
    yield (
        f"{len(run.data.train)} training utterances, {run.data.hours:.2f} hours; "
        f"{len(run.data.valid)} validation utterances; {len(run.recognizer.tokenizer)} tokens; "
        f"{parameters:,} parameters; {run.total_steps} steps on {run.recognizer.device}"
    )
    if run.data.unalignable:
        yield (
            f"{len(run.data.unalignable)} utterances have too few frames for their text and are left out: "
            + ", ".join(example.utterance.id for example in run.data.unalignable)
        )


# --- an epoch -------------------------------------------------------------------------------------


def finished_epoch(run: Run, stop: StopFlag, log: Log, bar: tqdm) -> str:
    """Take the steps left in the present epoch, validate, select, checkpoint; says how it went."""
    progress = run.progress
    take_steps(run, stop, log, bar)
    loss = progress.epoch_loss / max(1, progress.epoch_utterances)
    record: dict[str, Any] = {"step": progress.step, "epoch": progress.epoch + 1, "train_loss": loss}
    line = f"epoch {progress.epoch + 1}/{run.experiment.training.epochs}: loss {loss:.4f}"
    if run.data.valid:
        evaluation = validated(run)
        line += f", validation {evaluation.summary}"
        record |= evaluation.metrics
    if select(run, record):
        line += " (best so far)"
    if progress.skipped_steps:
        line += f", {progress.skipped_steps} steps skipped whose gradient was not finite"
    log(record)
    progress.epoch, progress.batch = progress.epoch + 1, 0
    progress.epoch_loss, progress.epoch_utterances = 0.0, 0
    save_checkpoint(run)
    return line


def take_steps(run: Run, stop: StopFlag, log: Log, bar: tqdm) -> None:
    """Take the steps left in the present epoch; raises ``Stopped``, all saved, when a signal asks."""
    progress = run.progress
    started = saved = time.monotonic()
    heard = 0.0  # seconds of audio
    for batch in epoch_batches(run):
        metrics = step(run, batch)
        heard += float(batch.sample_lengths.sum()) / run.recognizer.sample_rate
        speed = heard / (time.monotonic() - started)
        log({"step": progress.step, "epoch": progress.epoch + 1, **metrics, "speed": round(speed, 1)})
        show(bar, metrics, speed)
        if stop.signal_number:
            save_checkpoint(run)
            raise Stopped(stop.signal_number, progress.step)
        if time.monotonic() - saved > 60 * run.experiment.training.checkpoint_minutes:
            save_checkpoint(run)
            saved = time.monotonic()


def show(bar: tqdm, metrics: dict[str, float], speed: float) -> None:
    """Move the bar on by a step; ``speed`` is hours of audio per hour."""
    bar.set_postfix_str(
        f"loss {metrics['loss']:.3f}, lr {metrics['learning_rate']:.1e}, {speed:.0f} h/h", refresh=False
    )
    bar.update()


def validated(run: Run) -> Evaluation:
    """What the present weights make of the validation set."""
    seconds = run.experiment.training.batch_seconds
    return evaluate(run.recognizer, run.data.valid, run.data.read, seconds, run.valid_statistics)


def epoch_batches(run: Run) -> Iterator[Batch]:
    """The batches left in the present epoch, read ahead."""
    progress, training = run.progress, run.experiment.training
    draw = partial(drawn_treatment, run.data.sources, training.seed, progress.epoch)
    jobs = (
        partial(load_batch, [run.data.train[i] for i in indices], run.data.read, draw)
        for indices in run.plans[progress.epoch][progress.batch :]
    )
    return read_ahead(jobs, training.workers)


def step(run: Run, batch: Batch) -> dict[str, float]:
    """One update of the weights; returns the loss in nats per utterance and what else is of interest."""
    progress, training = run.progress, run.experiment.training
    device = run.recognizer.device
    rate = learning_rate(progress.step, run.total_steps, training)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.recognizer.model.train()
    losses = batch_losses(run, batch.to(device))
    run.optimizer.zero_grad(set_to_none=True)
    losses.mean().backward()
    norm = float(
        torch.nn.utils.clip_grad_norm_(run.recognizer.model.parameters(), training.clip_norm or math.inf)
    )
    if math.isfinite(norm):
        run.optimizer.step()
    else:
        progress.skipped_steps += 1
    total = float(losses.detach().sum())
    progress.step += 1
    progress.batch += 1
    if math.isfinite(total):
        progress.epoch_loss += total
        progress.epoch_utterances += len(batch.ids)
    return {"loss": total / len(batch.ids), "learning_rate": rate, "gradient_norm": norm}


def batch_losses(run: Run, batch: Batch) -> Tensor:
    """Nats per utterance, ``(batch,)``, with augmentation and dropout."""
    experiment, recognizer = run.experiment, run.recognizer
    statistics = batch_statistics(run.statistics, batch, recognizer.device)
    samples, sample_lengths = treated(batch.samples, batch.sample_lengths, batch.treatment)
    features, lengths = recognizer.features(samples, sample_lengths, statistics)
    config = experiment.augment
    if config.frequency_masks or config.time_masks:
        generators = [
            utterance_generator(experiment.training.seed, run.progress.epoch, f"masks/{name}")
            for name in batch.ids
        ]
        hop_ms = 1000 * experiment.features.frame_seconds
        features = spec_augmented(features, lengths, config, hop_ms, generators)
    with precise(recognizer.device, experiment.training.precision):
        log_probs, frames = recognizer.model(features, lengths)
    return losses_of(log_probs, frames, batch)


def new_optimizer(recognizer: Recognizer, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019); only matrices decay."""
    parameters = list(recognizer.model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to 0 at the end of the run."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def select(run: Run, summary: dict[str, Any]) -> bool:
    """Save the present weights as the run's model when no earlier ones did better in validation."""
    metrics = [summary.get(key) for key in ("valid_wer", "valid_cer", "valid_loss")]
    # A metric that could not be measured decides nothing; without any, the newest weights win.
    present = [math.inf if value is None else float(value) for value in metrics]
    best = run.progress.best
    if best and any(value is not None for value in metrics) and present >= best:
        return False
    run.progress.best = present
    save_weights(run.recognizer, run.folder)
    return True


# --- checkpoints ----------------------------------------------------------------------------------


def save_checkpoint(run: Run) -> None:
    """Write everything needed to go on; the checkpoint before it is kept, older ones go."""
    folder = run.folder / CHECKPOINTS
    final = folder / f"step-{run.progress.step:08d}"
    temporary = folder / f".{final.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(checkpoint_tensors(run), temporary / "state.safetensors")
    (temporary / "progress.json").write_text(json.dumps(asdict(run.progress)), encoding="utf-8")
    save_config(run.experiment, temporary)
    for file in temporary.iterdir():
        sync(file)
    shutil.rmtree(final, ignore_errors=True)  # the same step saved twice: by a signal and by the clock
    temporary.replace(final)
    for old in checkpoints(run.folder)[:-2]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted((folder / CHECKPOINTS).glob("step-*"))


def checkpoint_tensors(run: Run) -> dict[str, Tensor]:
    """Weights, statistics, optimiser and random states under flat names."""
    tensors = dict(network(run.recognizer).state_dict())
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if run.recognizer.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(run.recognizer.device)
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def restored(run: Run) -> bool:
    """Put the newest checkpoint's state into ``run``; false when there is none."""
    found = checkpoints(run.folder)
    if not found:
        return False
    newest = found[-1]
    try:
        tensors = load_file(newest / "state.safetensors")
        stored = json.loads((newest / "progress.json").read_text(encoding="utf-8"))
        progress = Progress(**stored)
        weights = {name: tensors[name] for name in network(run.recognizer).state_dict()}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{newest}: is damaged ({error}); delete it to go on from the one before"
        ) from error
    network(run.recognizer).load_state_dict(weights)
    restore_optimizer(run.optimizer, tensors)
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and run.recognizer.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], run.recognizer.device)
    for name, value in asdict(progress).items():
        setattr(run.progress, name, value)
    return True


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give the optimiser back the state that ``checkpoint_tensors`` took from it."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


# --- signals and logs -----------------------------------------------------------------------------


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


Log = Callable[[dict[str, Any]], None]


@contextmanager
def metrics_log(run: Run) -> Iterator[Log]:
    """A function that writes one record to ``metrics.jsonl`` and its numbers to TensorBoard."""
    path = run.folder / METRICS_FILE
    writer = tensorboard_writer(run)
    with path.open("a+b") as file:
        if file.tell():  # a killed run may have left half a line
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")

        def log(record: dict[str, Any]) -> None:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            for name, value in record.items():
                if writer is not None and isinstance(value, int | float) and name != "step":
                    writer.add_scalar(name, value, record["step"])

        log({"step": run.progress.step, "event": "resumed" if run.progress.step else "started"})
        yield log
    if writer is not None:
        writer.close()


def tensorboard_writer(run: Run) -> Any:
    """A ``SummaryWriter`` for the run, or ``None`` on machines without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.progress.step + 1)


def with_data_folder(experiment: Experiment, folder: str | None) -> Experiment:
    """The experiment with its manifests taken from ``folder``."""
    if folder is None:
        return experiment
    return replace(experiment, data=replace(experiment.data, folder=folder))
