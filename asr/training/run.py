"""A run in memory: its data, its weights, how far it is; put together from a recipe or a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from asr.data.cache import make_cached_reader
from asr.data.manifest import Utterance, read_manifest
from asr.errors import UserError
from asr.model.acoustic import AcousticModel, move_to_device, new_acoustic_model
from asr.model.engine import wrap_model
from asr.model.folder import load_acoustic_model
from asr.pretrained import find_model_folder
from asr.recognition.recognizer import Recognizer
from asr.text.tokenizer import NORMALISERS, Tokenizer, learn_tokenizer, read_symbols
from asr.training.augment import Sources, find_sources
from asr.training.batching import (
    Example,
    Plan,
    Reader,
    batch_sizes,
    evaluation_examples,
    load_batch,
    measure_speakers,
    new_sample_reader,
    plan_by_duration,
    plan_epoch,
    training_examples,
)
from asr.training.checkpoints import Checkpoint, write_checkpoint
from asr.training.denominator import (
    DenominatorGraph,
    GraphError,
    build_graph,
    graph_from_tensors,
    graph_tensors,
)
from asr.training.distributed import Ranks
from asr.training.evaluation import alignable
from asr.training.experiment import DataConfig, Experiment, TrainingConfig
from asr.training.objective import Objective, truncate_recurrence
from asr.training.optimisation import load_weights, new_optimizer, optimizer_tensors, restore_optimizer

Statistics = dict[str, tuple[Tensor, Tensor]]  # mean and standard deviation of each speaker's features


OUTPUT_LAYER = "model.projection."
DENOMINATOR = "denominator."
SETTLING_FRAMES = 64  # of the made-up utterance


class TrainingError(UserError):
    """Data or a run folder that cannot be trained with."""


@dataclass
class Progress:
    """Where a run stands; goes into every checkpoint as JSON.

    Random states are not in it, for there are none to keep: what a step draws is decided by the
    seed, the step and the rank, and what augmentation draws by the seed, the epoch and the utterance.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    ranks: int = 1
    epoch_loss: float = 0.0  # nats, summed over the epoch so far
    epoch_utterances: int = 0
    skipped_steps: int = 0  # gradients that were not finite
    best: list[float] = field(default_factory=list)  # WER, CER and loss of the selected weights
    best_steps: list[list[float]] = field(default_factory=list)  # [WER, CER, loss, step] of the best few
    stale_epochs: int = 0  # in a row without improvement
    rate_factor: float = 1.0  # what schedule ``plateau`` has left of the learning rate
    averaged: bool = False  # the weights of the best few, at the end
    data: str = ""  # the digest of what is trained on and validated with


@dataclass(frozen=True)
class Data:
    """Examples ready for training, how to read them, and what to augment them with."""

    train: list[Example]
    valid: list[Example]
    unalignable: list[Example]
    read: Reader
    sources: Sources

    @cached_property
    def durations(self) -> list[float]:
        """Seconds of each training example."""
        return [example.duration for example in self.train]

    @property
    def hours(self) -> float:
        """Of training audio."""
        return sum(self.durations) / 3600

    @cached_property
    def digest(self) -> str:
        """Changes with any utterance's id, text, duration or place in the order, not with where it lies."""
        known = [[e.utterance.id, e.utterance.text, e.duration] for e in self.train + self.valid]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """A run in memory: what is learned, with what, how far it is."""

    experiment: Experiment
    folder: Path
    ranks: Ranks
    model: AcousticModel
    tokenizer: Tokenizer
    objective: Objective
    parallel: torch.nn.Module  # the objective; among several processes, it averages their gradients
    optimizer: torch.optim.Optimizer
    averages: dict[str, Tensor]  # moving averages of the weights; empty unless asked for
    data: Data
    progress: Progress
    statistics: Statistics  # of training speakers; empty unless asked for
    valid_statistics: Statistics

    @property
    def recognizer(self) -> Recognizer:
        """One with the present weights, whose search is greedy."""
        return wrap_model(self.model, self.tokenizer)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Updates of the weights; each epoch has as many."""
        sizes = batch_sizes(self.data.durations, self.experiment.training.batch_seconds, self.ranks.size)
        return -(-len(sizes) // self.update_size)

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.experiment.training.epochs * self.steps_per_epoch

    @property
    def update_size(self) -> int:
        """Batches that make up an update, over all processes."""
        return self.ranks.size * self.experiment.training.accumulate


def epoch_updates(run: Run) -> list[Plan]:
    """The batches of each update of the present epoch, those of all processes."""
    training, epoch = run.experiment.training, run.progress.epoch
    plan = plan_epoch(
        run.data.durations,
        training.batch_seconds,
        training.seed,
        epoch,
        run.ranks.size,
        ascending=training.sorted_first_epoch and epoch == 0,
    )
    return [plan[i : i + run.update_size] for i in range(0, len(plan), run.update_size)]


# --- from a recipe --------------------------------------------------------------------------------


def prepared_run(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Data read, vocabulary learned, weights drawn, or taken from ``checkpoint``.

    Without one, all of it is decided by the experiment alone.
    """
    train_utterances = read_manifests(experiment.data, experiment.data.train)
    valid_utterances = read_manifests(experiment.data, experiment.data.valid)
    check_validation(experiment, valid_utterances)
    normalise = NORMALISERS[experiment.text.normaliser]
    tokenizer = learn_tokenizer(
        experiment.text, (normalise(u.text) for u in train_utterances), experiment.data.folder
    )
    return assembled_run(
        experiment, folder, device, tokenizer, train_utterances, valid_utterances, ranks, checkpoint
    )


def assembled_run(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    tokenizer: Tokenizer,
    train_utterances: list[Utterance],
    valid_utterances: list[Utterance],
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    checkpoint: Checkpoint | None = None,
) -> Run:
    """A run on some utterances and a vocabulary."""
    training = experiment.training
    torch.manual_seed(training.seed)
    model = new_acoustic_model(experiment.model, len(tokenizer), folder.resolve().name)
    move_to_device(model, device)
    if training.initial and checkpoint is None:
        begin_with(model, tokenizer, training.initial)
    objective = Objective(
        model.ctc,
        training.precision,
        training.intermediate_layer,
        training.intermediate_weight,
        training.consistency_weight,
        training.crf_ctc_weight,
    ).to(device)
    if training.truncate_seconds:
        truncate_recurrence(objective, max(1, round(training.truncate_seconds / model.frame_seconds)))
    with ranks.first_then_others():  # one makes the cache, if there is to be one
        data = prepared_data(experiment, model, tokenizer, train_utterances, valid_utterances)
    if training.criterion == "ctc-crf":
        objective.denominator = get_denominator(training, tokenizer, data, checkpoint)
    if checkpoint is None:
        fit_features(experiment, model, data, ranks)
    averages = {name: p.detach().clone() for name, p in objective.named_parameters()}
    run = Run(
        experiment=experiment,
        folder=folder,
        ranks=ranks,
        model=model,
        tokenizer=tokenizer,
        objective=objective,
        parallel=in_parallel(objective, model) if ranks.size > 1 else objective,
        optimizer=new_optimizer(objective, training),
        averages=averages if training.average_decay else {},
        data=data,
        progress=Progress(ranks=ranks.size, data=data.digest),
        statistics=asked_statistics(experiment, model, data.train, data.read, ranks),
        valid_statistics=asked_statistics(experiment, model, data.valid, data.read, ranks),
    )
    if checkpoint is not None:
        restore(run, checkpoint)
    return run


def get_denominator(
    training: TrainingConfig, tokenizer: Tokenizer, data: Data, checkpoint: Checkpoint | None
) -> DenominatorGraph:
    """The denominator graph in ``checkpoint``; without one, build that of the training texts."""
    if checkpoint is None:
        sequences = [example.tokens for example in data.train if example.tokens is not None]
        return build_graph(sequences, len(tokenizer), training.crf_order, training.crf_prune)
    try:
        return graph_from_tensors(unprefixed(DENOMINATOR, checkpoint.tensors), len(tokenizer))
    except (GraphError, KeyError) as error:
        raise TrainingError(f"{checkpoint.path}: does not fit this version or data: {error}") from error


def begin_with(model: AcousticModel, tokenizer: Tokenizer, initial: str) -> None:
    """Give ``model`` the weights of another one, the output layer only if their tokens are the same.

    Raises ``TrainingError`` when their networks differ.
    """
    weights = load_acoustic_model(initial).modules.state_dict()
    if read_symbols(find_model_folder(initial)) != tokenizer.symbols:
        weights = {name: value for name, value in weights.items() if not name.startswith(OUTPUT_LAYER)}
    modules = model.modules
    own = modules.state_dict()
    unlike = sorted(
        name for name in own.keys() | weights.keys() if not name.startswith(OUTPUT_LAYER)
        and (name not in own or name not in weights or own[name].shape != weights[name].shape)
    )  # fmt: skip
    if unlike:
        raise TrainingError(
            f"'training.initial' = {initial!r}: its network is another one ({unlike[0]} differs, as do "
            f"{len(unlike) - 1} more); take over its [encoder] and [features]"
        )
    modules.load_state_dict(own | weights)


def in_parallel(objective: Objective, model: AcousticModel) -> DistributedDataParallel:
    """The objective with gradients averaged over the processes, in an order that is settled.

    In its second step DistributedDataParallel sorts the gradients by when they came in the first, and
    with the order changes how three or more numbers round when they are added. So that a run that
    goes on adds as one that never stopped, the first step is a made-up one whose gradient is thrown away.
    """
    parallel = DistributedDataParallel(objective)
    device = model.device
    lengths = torch.tensor([SETTLING_FRAMES], device=device)
    one = torch.ones(1, 1, dtype=torch.long, device=device)
    features = torch.zeros(1, SETTLING_FRAMES, model.config.features.size, device=device)
    parallel.train()
    parallel(features, lengths, one, one[0]).losses.sum().backward()
    objective.zero_grad(set_to_none=True)
    return parallel


def manifest_paths(config: DataConfig) -> list[Path]:
    """The manifests of a recipe, those of training first."""
    return [Path(config.folder) / name for name in (*config.train, *config.valid)]


def read_manifests(config: DataConfig, names: Sequence[str]) -> list[Utterance]:
    """All utterances of several manifests."""
    return [utterance for name in names for utterance in read_manifest(Path(config.folder) / name)]


def check_validation(experiment: Experiment, utterances: list[Utterance]) -> None:
    """See to it that what is decided by validation has something to be decided by."""
    training = experiment.training
    for key, asked in {
        "schedule": training.schedule == "plateau",
        "patience": training.patience > 0,
        "average_best": training.average_best > 1,
    }.items():
        if asked and not utterances:
            raise TrainingError(
                f"'training.{key}' = {getattr(training, key)!r} goes by validation, and 'data.valid' is empty"
            )


def prepared_data(
    experiment: Experiment,
    model: AcousticModel,
    tokenizer: Tokenizer,
    train: list[Utterance],
    valid: list[Utterance],
) -> Data:
    """Examples of both sets, those that CTC cannot align set aside."""
    text = experiment.text
    every = training_examples(train, tokenizer, text)
    # The fastest speed leaves the fewest frames; who is left out must not depend on a draw.
    rate = model.sample_rate / max(experiment.augment.speeds)
    unalignable = [e for e in every if not alignable(e, model.num_frames(int(e.duration * rate)))]
    left_out = {id(example) for example in unalignable}
    usable = [example for example in every if id(example) not in left_out]
    if not usable:
        raise TrainingError("no training utterance is long enough for its text; try less subsampling")
    validation = evaluation_examples(valid, tokenizer, text)
    read = chosen_reader(experiment, model, usable + validation)
    voices = [example.utterance for example in usable]
    sources = find_sources(experiment.augment, model.sample_rate, voices, read)
    return Data(usable, validation, unalignable, read, sources)


def chosen_reader(experiment: Experiment, model: AcousticModel, examples: list[Example]) -> Reader:
    """From the cache on disk when the recipe names one, or else from the recordings."""
    data, training = experiment.data, experiment.training
    if training.cache:
        return make_cached_reader(Path(training.cache), manifest_paths(data), model.sample_rate)
    hours = sum(example.duration for example in examples) / 3600
    return new_sample_reader(model.sample_rate, keep=hours <= training.cache_hours)


def fit_features(experiment: Experiment, model: AcousticModel, data: Data, ranks: Ranks) -> None:
    """Measure the statistics that normalisation ``global`` keeps."""
    if experiment.features.normalisation != "global":
        return
    if ranks.is_first:
        plan = plan_by_duration(data.durations, experiment.training.batch_seconds)
        batches = (load_batch([data.train[i] for i in indices], data.read) for indices in plan)
        moved = (batch.to(model.device) for batch in batches)
        model.features.fit((batch.samples, batch.sample_lengths) for batch in moved)
    mean, std = ranks.broadcast((model.features.mean.cpu(), model.features.std.cpu()))
    model.features.mean.copy_(mean)
    model.features.std.copy_(std)


def asked_statistics(
    experiment: Experiment, model: AcousticModel, examples: list[Example], read: Reader, ranks: Ranks
) -> Statistics:
    """What normalisation ``speaker`` needs to know of a set of examples; nothing otherwise."""
    if experiment.features.normalisation != "speaker":
        return {}
    seconds = experiment.training.batch_seconds
    measured = measure_speakers(model.features, examples, read, seconds) if ranks.is_first else {}
    return ranks.broadcast(measured)


def described(run: Run) -> Iterator[str]:
    """What there is to know before training begins."""
    parameters = sum(p.numel() for p in run.model.ctc.parameters())
    among = f" in {run.ranks.size} processes" if run.ranks.size > 1 else ""
    yield (
        f"{len(run.data.train)} training utterances, {run.data.hours:.2f} hours; "
        f"{len(run.data.valid)} validation utterances; {len(run.tokenizer)} tokens; "
        f"{parameters:,} parameters; {run.total_steps} steps on {run.model.device}{among}"
    )
    if run.data.unalignable:
        yield (
            f"{len(run.data.unalignable)} utterances have too few frames for their text and are left out: "
            + ", ".join(example.utterance.id for example in run.data.unalignable)
        )
    graph = run.objective.denominator
    if graph is not None:
        yield f"denominator graph: {len(graph.tokens):,} states, {len(graph.rows):,} arcs"
    training = run.experiment.training
    if training.schedule != "onecycle" and run.total_steps <= training.warmup_steps:
        yield (
            f"the learning rate rises over training.warmup_steps ({training.warmup_steps}) and will not "
            f"reach {training.learning_rate:g} in {run.total_steps} steps: set them lower, or train longer"
        )


# --- to and from checkpoints ----------------------------------------------------------------------


def save_checkpoint(run: Run) -> None:
    """Write everything needed to go on; among several processes, the first one does."""
    if run.ranks.is_first:
        tensors = state_tensors(run)
        write_checkpoint(run.folder, run.progress.step, tensors, asdict(run.progress), run.experiment)


def state_tensors(run: Run) -> dict[str, Tensor]:
    """Weights, statistics, averages and the optimiser's memory under flat names."""
    tensors = dict(run.model.modules.state_dict())
    tensors |= prefixed("intermediate.", intermediate_parameters(run))
    tensors |= prefixed("average.", run.averages)
    if run.objective.denominator is not None:
        tensors |= prefixed(DENOMINATOR, graph_tensors(run.objective.denominator))
    return tensors | prefixed("optimizer.", optimizer_tensors(run.optimizer))


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Put the state of a checkpoint into ``run``; raises ``TrainingError`` when it does not fit."""
    ranks = checkpoint.progress.get("ranks")
    if ranks != run.ranks.size:
        raise TrainingError(
            f"{checkpoint.path}: is of a run in {ranks} processes, these are {run.ranks.size}; "
            "go on with as many, or choose another --out"
        )
    # Runs that were begun before the digest was kept have none.
    if checkpoint.progress.get("data", run.data.digest) != run.data.digest:
        raise TrainingError(
            f"{checkpoint.path}: is of a run on other data: utterances, texts or durations in "
            f"{run.experiment.data.folder} have changed since; choose another --out, or put them back"
        )
    tensors = checkpoint.tensors
    try:
        modules = run.model.modules
        modules.load_state_dict({name: tensors[name] for name in modules.state_dict()})
        load_weights(intermediate_parameters(run), unprefixed("intermediate.", tensors))
        averages = unprefixed("average.", tensors)
        for name, average in run.averages.items():
            average.copy_(averages[name])
        restore_optimizer(run.optimizer, unprefixed("optimizer.", tensors))
        stored = asdict(Progress(**checkpoint.progress))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(f"{checkpoint.path}: does not fit this version or data: {error}") from error
    for name, value in (stored | {"data": run.data.digest}).items():
        setattr(run.progress, name, value)


def intermediate_parameters(run: Run) -> dict[str, torch.nn.Parameter]:
    """Weights that are trained but not shipped."""
    head = run.objective.intermediate
    return {} if head is None else dict(head.named_parameters())


def prefixed(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """The same with ``prefix`` before each name."""
    return {prefix + name: value for name, value in tensors.items()}


def unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
