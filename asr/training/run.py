"""A run in memory: its data, its weights and its progress, assembled from a recipe or a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from asr.data.cache import make_cached_reader
from asr.data.manifest import Utterance, read_manifest
from asr.data.tars import TarReader, group_windows, split_member
from asr.errors import UserError
from asr.model.acoustic import AcousticModel, move_to_device, new_acoustic_model
from asr.model.engine import wrap_model
from asr.model.folder import load_acoustic_model
from asr.model.states import StoredStates
from asr.pretrained import find_model_folder
from asr.recognition.recognizer import Recognizer
from asr.text.tokenizer import BLANK, NORMALISERS, SPACE, Tokenizer, learn_tokenizer, read_symbols
from asr.training.augment import Sources, changes_samples, find_sources
from asr.training.batching import count_batches, load_batch, measure_speakers, plan_epoch, plan_windows
from asr.training.checkpoints import Checkpoint, write_checkpoint
from asr.training.distributed import Ranks
from asr.training.evaluation import is_alignable
from asr.training.examples import (
    Example,
    Plan,
    Reader,
    evaluation_examples,
    measure_duration,
    new_sample_reader,
    plan_by_duration,
    training_examples,
)
from asr.training.experiment import DataConfig, Experiment, TrainingConfig
from asr.training.finetuning import adopt_tokenizer
from asr.training.objective import Objective, truncate_recurrence
from asr.training.optimisation import load_weights, new_optimizer, optimizer_tensors, restore_optimizer
from asr.training.teacher import States, Teacher, open_states, open_teacher

if TYPE_CHECKING:
    from asr.training.denominator import DenominatorGraph  # imports numba, which CTC alone does without

Statistics = dict[str, tuple[Tensor, Tensor]]  # mean and standard deviation of each speaker's features


OUTPUT_LAYERS = ("model.projection.", "model.decoder.")
DENOMINATOR = "denominator."
NO_TOKENS = Tokenizer((BLANK, SPACE))  # of a network that learns no text
WARM_UP_FRAMES = 64  # of the made-up utterance


class TrainingError(UserError):
    """Data or a run folder that cannot be trained with."""


@dataclass
class Progress:
    """Where a run stands; goes into every checkpoint as JSON.

    It has no random states, for there are none to keep: seed, step and the place of a batch in its update
    decide what dropout draws, and seed, epoch and utterance what augmentation draws.
    """

    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    ranks: int = 1  # processes at the first checkpoint: they decide how many batches an update has
    epoch_loss: float = 0.0  # nats, summed over the epoch so far
    epoch_utterances: int = 0
    skipped_steps: int = 0  # gradients that were not finite
    best: list[float] = field(
        default_factory=list
    )  # the selected weights' WER, CER and loss, see selection_key
    best_steps: list[list[float]] = field(default_factory=list)  # of the best few, [..., step]
    stale_epochs: int = 0  # in a row without improvement
    averaged: bool = False  # whether the weights of the best few were averaged, at the end
    data: str = ""  # the digest of training and validation data


@dataclass(frozen=True)
class Data:
    """Examples ready for training, how to read them and what to augment them with."""

    train: list[Example]
    valid: list[Example]
    unalignable: list[Example]
    read: Reader
    sources: Sources
    windows: list[list[int]] = field(default_factory=list)  # of training examples in tar files

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
        """A digest of ids, texts, durations and order of the utterances, not of where their audio is."""
        known = [[e.utterance.id, e.utterance.text, e.duration] for e in self.train + self.valid]
        return hashlib.sha256(json.dumps(known).encode()).hexdigest()


@dataclass(frozen=True)
class Run:
    """A run in memory: the model, the data and the progress."""

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
    teacher: Teacher | None = None
    states: States | None = None

    @property
    def recognizer(self) -> Recognizer:
        """A recogniser with the present weights, whose search is greedy."""
        return wrap_model(self.model, self.tokenizer)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Updates of the weights in an epoch; every epoch has the same number."""
        seconds = self.experiment.training.batch_seconds
        count = count_batches(self.data.durations, self.data.windows, seconds, self.progress.ranks)
        return -(-count // self.update_size)

    @property
    def total_steps(self) -> int:
        """Updates of the weights in the whole run."""
        return self.experiment.training.epochs * self.steps_per_epoch

    @property
    def update_size(self) -> int:
        """Batches in an update, over all processes, however many there are now."""
        return self.progress.ranks * self.experiment.training.accumulate


def epoch_updates(run: Run) -> list[Plan]:
    """The batches of each update of the present epoch, for all processes."""
    training, epoch = run.experiment.training, run.progress.epoch
    ascending = training.sorted_first_epoch and epoch == 0
    rest = (training.batch_seconds, training.seed, epoch, run.progress.ranks, ascending)
    if run.data.windows:
        plan = plan_windows(run.data.durations, run.data.windows, *rest)
    else:
        plan = plan_epoch(run.data.durations, *rest)
    return [plan[i : i + run.update_size] for i in range(0, len(plan), run.update_size)]


# --- from a recipe --------------------------------------------------------------------------------


def prepare_run(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Read the data, learn the vocabulary, and draw the weights or take them from ``checkpoint``.

    Without a checkpoint, the experiment alone decides all of it. Raises ``TrainingError`` for data that
    cannot be trained on or a checkpoint that does not fit.
    """
    train_utterances = read_manifests(experiment.data, experiment.data.train)
    valid_utterances = read_manifests(experiment.data, experiment.data.valid)
    check_validation(experiment, valid_utterances)
    normalise = NORMALISERS[experiment.text.normaliser]
    texts = (normalise(utterance.text) for utterance in train_utterances)
    if experiment.training.objective == "predict":
        tokenizer = NO_TOKENS
    elif experiment.training.take_over:
        tokenizer = adopt_tokenizer(experiment.training.initial, texts)
    else:
        tokenizer = learn_tokenizer(experiment.text, texts, experiment.data.folder)
    return assemble_run(
        experiment, folder, device, tokenizer, train_utterances, valid_utterances, ranks, checkpoint
    )


def assemble_run(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    tokenizer: Tokenizer,
    train_utterances: list[Utterance],
    valid_utterances: list[Utterance],
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Assemble a run from utterances and a vocabulary; raises as ``prepare_run``."""
    training = experiment.training
    torch.manual_seed(training.seed)
    model = new_acoustic_model(experiment.model, len(tokenizer), folder.resolve().name)
    move_to_device(model, device)
    if training.initial and checkpoint is None:
        load_initial_weights(model, tokenizer, training.initial)
    states = None
    if training.states:
        states = open_states(training.states, [utterance.id for utterance in train_utterances])
    objective = new_objective(experiment, model, 0 if states is None else states.size).to(device)
    if training.truncate_seconds:
        truncate_recurrence(objective, max(1, round(training.truncate_seconds / model.frame_seconds)))
    with ranks.first_then_others():  # one of them makes the cache, where the recipe has one
        data = prepare_data(experiment, model, tokenizer, train_utterances, valid_utterances)
    if training.criterion == "ctc-crf":
        objective.denominator = get_denominator(training, tokenizer, data, checkpoint)
    if checkpoint is None and not training.take_over:
        fit_features(experiment, model, data, ranks)
    averages = {name: p.detach().clone() for name, p in objective.named_parameters()}
    run = Run(
        experiment=experiment,
        folder=folder,
        ranks=ranks,
        model=model,
        tokenizer=tokenizer,
        objective=objective,
        parallel=average_gradients(objective, model) if ranks.size > 1 else objective,
        optimizer=new_optimizer(objective, training),
        averages=averages if training.average_decay else {},
        data=data,
        progress=Progress(ranks=ranks.size, data=data.digest),
        statistics=measure_statistics(experiment, model, data.train, data.read, ranks, data.windows),
        valid_statistics=measure_statistics(experiment, model, data.valid, data.read, ranks),
        teacher=open_teacher(training.teacher, tokenizer) if training.teacher else None,
        states=states,
    )
    if checkpoint is not None:
        restore_run(run, checkpoint)
    return run


def new_objective(experiment: Experiment, model: AcousticModel, states_size: int = 0) -> Objective:
    """Make what training minimises; raises ``ObjectiveError`` where the encoder does not allow it.

    ``states_size``: the size of the states that are to be predicted, if any.
    """
    training = experiment.training
    if training.objective == "predict":
        from asr.training.prediction import Prediction

        return Prediction(model.ctc, experiment.features.size, training.predict_frames, training.precision)
    return Objective(
        model.ctc,
        training.precision,
        training.intermediate_layer,
        training.intermediate_weight,
        training.consistency_weight,
        training.crf_ctc_weight,
        experiment.decoder.ctc_weight,
        training.label_smoothing,
        training.scheduled_sampling,
        training.teacher_weight,
        training.teacher_lag,
        training.teacher_temperature,
        states_size,
        training.states_layer,
        training.states_weight,
    )


def get_denominator(
    training: TrainingConfig, tokenizer: Tokenizer, data: Data, checkpoint: Checkpoint | None
) -> DenominatorGraph:
    """The denominator graph in ``checkpoint``; without one, build that of the training texts."""
    from asr.training.denominator import GraphError, build_graph, graph_from_tensors

    if checkpoint is None:
        sequences = [example.tokens for example in data.train if example.tokens is not None]
        return build_graph(sequences, len(tokenizer), training.crf_order, training.crf_prune)
    try:
        return graph_from_tensors(strip_prefix(DENOMINATOR, checkpoint.tensors), len(tokenizer))
    except (GraphError, KeyError) as error:
        raise TrainingError(f"{checkpoint.path}: does not fit this version or data: {error}") from error


def load_initial_weights(model: AcousticModel, tokenizer: Tokenizer, initial: str) -> None:
    """Load the weights of another model, its output layers only where tokens and shapes are the same.

    Raises ``TrainingError`` when their networks differ.
    """
    weights = load_acoustic_model(initial).modules.state_dict()
    same_tokens = read_symbols(find_model_folder(initial)) == tokenizer.symbols
    modules = model.modules
    own = modules.state_dict()

    def is_of_use(name: str, value: Tensor) -> bool:
        if not name.startswith(OUTPUT_LAYERS):
            return True
        return same_tokens and name in own and own[name].shape == value.shape

    weights = {name: value for name, value in weights.items() if is_of_use(name, value)}
    unlike = sorted(
        name for name in own.keys() | weights.keys() if not name.startswith(OUTPUT_LAYERS)
        and (name not in own or name not in weights or own[name].shape != weights[name].shape)
    )  # fmt: skip
    if unlike:
        raise TrainingError(
            f"'training.initial' = {initial!r}: its network differs from this one ({unlike[0]} and "
            f"{len(unlike) - 1} other tensors); use its [encoder] and [features]"
        )
    modules.load_state_dict(own | weights)


def average_gradients(objective: Objective, model: AcousticModel) -> DistributedDataParallel:
    """Wrap the objective so that its gradients are averaged over the processes, in a fixed order.

    In its second step DistributedDataParallel sorts the gradients by their arrival in the first step, and
    the order changes how sums of three or more numbers round. So that a run that resumes adds like one
    that never stopped, the first step is a made-up one whose gradient is thrown away.
    """
    parallel = DistributedDataParallel(objective)
    device = model.device
    lengths = torch.tensor([WARM_UP_FRAMES], device=device)
    one = torch.ones(1, 1, dtype=torch.long, device=device)
    features = torch.zeros(1, WARM_UP_FRAMES, model.config.features.size, device=device)
    parallel.train()
    parallel(features, lengths, one, one[0]).losses.sum().backward()
    objective.zero_grad(set_to_none=True)
    return parallel


def manifest_paths(config: DataConfig) -> list[Path]:
    """The manifests of a recipe, those for training first."""
    return [Path(config.folder) / name for name in (*config.train, *config.valid)]


def read_manifests(config: DataConfig, names: Sequence[str]) -> list[Utterance]:
    """Read all utterances of several manifests."""
    return [utterance for name in names for utterance in read_manifest(Path(config.folder) / name)]


def check_validation(experiment: Experiment, utterances: list[Utterance]) -> None:
    """Raise ``TrainingError`` for options that need validation in a recipe without validation data."""
    training = experiment.training
    for key, asked in {
        "patience": training.patience > 0,
        "average_best": training.average_best > 1,
    }.items():
        if asked and not utterances:
            raise TrainingError(
                f"'training.{key}' = {getattr(training, key)!r} needs validation, and 'data.valid' is empty"
            )


def prepare_data(
    experiment: Experiment,
    model: AcousticModel,
    tokenizer: Tokenizer,
    train: list[Utterance],
    valid: list[Utterance],
) -> Data:
    """Make the examples of both sets, and set aside those that CTC cannot align.

    Raises ``TrainingError`` when none is left for training.
    """
    text = experiment.text
    if experiment.training.objective == "predict":
        every = [Example(utterance, measure_duration(utterance), ()) for utterance in train]
    else:
        every = training_examples(train, tokenizer, text)
    # The fastest speed leaves the fewest frames; a draw must not decide which examples are left out.
    rate = model.sample_rate / max(experiment.augment.speeds)
    unalignable = [e for e in every if not is_alignable(e, model.num_frames(int(e.duration * rate)))]
    left_out = {id(example) for example in unalignable}
    usable = [example for example in every if id(example) not in left_out]
    if not usable:
        raise TrainingError("no training utterance is long enough for its text; try less subsampling")
    validation = evaluation_examples(valid, tokenizer, text)
    windows = group_windows([example.utterance for example in usable], experiment.training.window_tars)
    if windows:
        check_tars(experiment)
    read = choose_reader(experiment, model, usable, validation)
    if can_keep_states(experiment, usable + validation):
        keep_states(experiment, model, usable + validation, read)
    voices = [example.utterance for example in usable]
    sources = find_sources(experiment.augment, model.sample_rate, voices, read)
    return Data(usable, validation, unalignable, read, sources, windows)


def check_tars(experiment: Experiment) -> None:
    """Raise ``TrainingError`` for options that read recordings in another order than tar files have them."""
    augment, training = experiment.augment, experiment.training
    for key, asked in {
        "training.cache": bool(training.cache),
        "augment.noise_kinds = babble": augment.noise_share > 0 and "babble" in augment.noise_kinds,
        "features.kind = states": experiment.features.kind == "states",
    }.items():
        if asked:
            raise TrainingError(f"'{key}': cannot be used with recordings in tar files")


def choose_reader(
    experiment: Experiment, model: AcousticModel, train: list[Example], valid: list[Example]
) -> Reader:
    """A reader of samples: from the cache on disk if the recipe names one, else from the recordings.

    Of recordings in tar files two windows are kept in memory, for the next one is begun before the last one
    is done, and those of validation.
    """
    data, training = experiment.data, experiment.training
    if training.cache:
        return make_cached_reader(Path(training.cache), manifest_paths(data), model.sample_rate)
    examples = train + valid
    if any(split_member(example.utterance.audio) for example in train):
        tars = {place[0] for example in valid if (place := split_member(example.utterance.audio))}
        return TarReader(model.sample_rate, 2 * training.window_tars + len(tars))
    hours = sum(example.duration for example in examples) / 3600
    return new_sample_reader(model.sample_rate, keep=hours <= training.cache_hours)


def can_keep_states(experiment: Experiment, examples: list[Example]) -> bool:
    """Whether features are states and there is a place for those of all examples, on disk or in memory."""
    training = experiment.training
    hours = sum(example.duration for example in examples) / 3600
    return experiment.features.kind == "states" and (bool(training.cache) or hours <= training.cache_hours)


def keep_states(experiment: Experiment, model: AcousticModel, examples: list[Example], read: Reader) -> None:
    """Compute the states of all examples and keep them in the cache, or in memory where there is none.

    A run that is killed meanwhile goes on with those that the cache lacks. What augmentation changes is not
    kept.
    """
    encoder = model.features.encoder
    assert encoder is not None
    cache = experiment.training.cache
    stored = StoredStates(encoder, Path(cache) if cache else None)
    with (
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        tqdm(total=len(examples), desc="computing states", unit="utterance", disable=None) as bar,
    ):
        for _ in pool.map(lambda example: stored.keep(read(example.utterance)), examples):
            bar.update()
    model.features.encoder = stored


def fit_features(experiment: Experiment, model: AcousticModel, data: Data, ranks: Ranks) -> None:
    """Measure the mean and standard deviation of normalisation ``global`` on the training data."""
    if experiment.features.normalisation != "global":
        return
    if ranks.is_first:
        plan = plan_by_duration(data.durations, experiment.training.batch_seconds, data.windows)
        batches = (load_batch([data.train[i] for i in indices], data.read) for indices in plan)
        moved = (batch.to(model.device) for batch in batches)
        model.features.fit((batch.samples, batch.sample_lengths) for batch in moved)
    mean, std = ranks.broadcast((model.features.mean.cpu(), model.features.std.cpu()))
    model.features.mean.copy_(mean)
    model.features.std.copy_(std)


def measure_statistics(
    experiment: Experiment,
    model: AcousticModel,
    examples: list[Example],
    read: Reader,
    ranks: Ranks,
    windows: Sequence[Sequence[int]] = (),
) -> Statistics:
    """Measure the speakers' statistics for normalisation ``speaker``; empty for any other."""
    if experiment.features.normalisation != "speaker":
        return {}
    seconds = experiment.training.batch_seconds
    measured = measure_speakers(model.features, examples, read, seconds, windows) if ranks.is_first else {}
    return ranks.broadcast(measured)


def describe_run(run: Run) -> Iterator[str]:
    """Describe a run before its training begins, in lines of news."""
    parameters = sum(p.numel() for p in run.model.ctc.parameters())
    processes = f" in {run.ranks.size} processes" if run.ranks.size > 1 else ""
    if run.ranks.size != run.progress.ranks:
        processes = (
            f" in {run.ranks.size} processes, where the run began with {run.progress.ranks}: an update has "
            f"{run.update_size} batches as before"
        )
    yield (
        f"{len(run.data.train)} training utterances, {run.data.hours:.2f} hours; "
        f"{len(run.data.valid)} validation utterances; {len(run.tokenizer)} tokens; "
        f"{parameters:,} parameters; {run.total_steps} steps on {run.model.device}{processes}"
    )
    if run.data.unalignable:
        yield (
            f"{len(run.data.unalignable)} utterances have too few frames for their text and are left out: "
            + ", ".join(example.utterance.id for example in run.data.unalignable)
        )
    if run.experiment.features.kind == "states":
        yield from describe_states(run)
    if run.teacher is not None:
        known = sum(run.teacher.knows(example.utterance.id) for example in run.data.train)
        yield f"the teacher knows {known} of {len(run.data.train)} training utterances"
    if run.states is not None:
        known = sum(run.states.knows(example.utterance.id) for example in run.data.train)
        yield f"there are states of {known} of {len(run.data.train)} training utterances"
    graph = run.objective.denominator
    if graph is not None:
        yield f"denominator graph: {len(graph.tokens):,} states, {len(graph.rows):,} arcs"
    training = run.experiment.training
    if training.schedule != "onecycle" and run.total_steps <= training.warmup_steps:
        yield (
            f"the learning rate rises over training.warmup_steps ({training.warmup_steps}) and will not "
            f"reach {training.learning_rate:g} in {run.total_steps} steps: lower it, or train longer"
        )


def describe_states(run: Run) -> Iterator[str]:
    """Say where states are computed again and again, which takes far longer than training with them."""
    training = run.experiment.training
    if not isinstance(run.model.features.encoder, StoredStates):
        yield (
            f"states are computed anew in every epoch: without 'training.cache' they are kept up to "
            f"{training.cache_hours:g} hours (training.cache_hours)"
        )
    elif changes_samples(run.experiment.augment):
        yield "the states of utterances that augmentation changes are computed anew in every epoch"


# --- to and from checkpoints ----------------------------------------------------------------------


def save_checkpoint(run: Run) -> None:
    """Write everything that resuming needs; among several processes, the first one does."""
    if run.ranks.is_first:
        tensors = state_tensors(run)
        write_checkpoint(run.folder, run.progress.step, tensors, asdict(run.progress), run.experiment)


def state_tensors(run: Run) -> dict[str, Tensor]:
    """Weights, statistics, averages and the optimiser's state under flat names."""
    tensors = dict(run.model.modules.state_dict())
    tensors |= add_prefix("intermediate.", intermediate_parameters(run))
    tensors |= add_prefix("average.", run.averages)
    if run.objective.denominator is not None:
        from asr.training.denominator import graph_tensors

        tensors |= add_prefix(DENOMINATOR, graph_tensors(run.objective.denominator))
    return tensors | add_prefix("optimizer.", optimizer_tensors(run.optimizer))


def restore_run(run: Run, checkpoint: Checkpoint) -> None:
    """Put the state of a checkpoint into ``run``; raises ``TrainingError`` when it does not fit."""
    # Runs from before digests were kept have none.
    if checkpoint.progress.get("data", run.data.digest) != run.data.digest:
        raise TrainingError(
            f"{checkpoint.path}: is of a run on other data: utterances, texts or durations in "
            f"{run.experiment.data.folder} have changed since; choose another --out, or restore them"
        )
    tensors = checkpoint.tensors
    try:
        modules = run.model.modules
        modules.load_state_dict({name: tensors[name] for name in modules.state_dict()})
        load_weights(intermediate_parameters(run), strip_prefix("intermediate.", tensors))
        averages = strip_prefix("average.", tensors)
        for name, average in run.averages.items():
            average.copy_(averages[name])
        restore_optimizer(run.optimizer, strip_prefix("optimizer.", tensors))
        known = {field.name for field in fields(Progress)}  # older programs kept more
        stored = asdict(Progress(**{k: v for k, v in checkpoint.progress.items() if k in known}))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise TrainingError(f"{checkpoint.path}: does not fit this version or data: {error}") from error
    for name, value in (stored | {"data": run.data.digest}).items():
        setattr(run.progress, name, value)


def intermediate_parameters(run: Run) -> dict[str, torch.nn.Parameter]:
    """The weights of the inner projections, which are trained but not shipped."""
    found: dict[str, torch.nn.Parameter] = {}
    if run.objective.intermediate is not None:
        found |= run.objective.intermediate.named_parameters()
    if run.objective.regression is not None:
        found |= add_prefix("states.", dict(run.objective.regression.named_parameters()))
    return found


def add_prefix(prefix: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """Put ``prefix`` before each name."""
    return {prefix + name: value for name, value in tensors.items()}


def strip_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
