"""A dry run: what training will take, with its largest batch tried once, before hours depend on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from asr.data.cache import is_cached
from asr.training.batching import padding_share
from asr.training.distributed import Ranks
from asr.training.examples import Plan
from asr.training.experiment import Experiment
from asr.training.run import (
    Run,
    TrainingError,
    describe_run,
    epoch_updates,
    manifest_paths,
    prepare_run,
    state_tensors,
)
from asr.training.steps import load_own_batches, take_step

MEGABYTE = 1e6
OPTIMISER_TENSORS = {"adam": 2, "adamw": 2, "rmsprop": 2, "sgd": 1}  # as large as the weights


def dry_run(
    experiment: Experiment,
    device: torch.device,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
) -> Iterator[str]:
    """Describe the plan, then take the largest batch once and describe that, line by line.

    Nothing is written. Raises ``TrainingError`` when the batch does not fit into memory.
    """
    run = prepare_run(without_new_cache(experiment), Path("dry-run"), device, ranks)
    yield from describe_run(run)
    plan = [batch for update in epoch_updates(run) for batch in update]
    yield describe_plan(run, plan)
    yield describe_memory(run)
    largest = find_largest_batch(run, plan)
    yield f"the largest batch: {describe_batch(run, largest)}"
    yield try_batch(run, largest)


def without_new_cache(experiment: Experiment) -> Experiment:
    """Read the recordings themselves where a cache would have to be made first."""
    cache, rate = experiment.training.cache, experiment.features.sample_rate
    if not cache or is_cached(Path(cache), manifest_paths(experiment.data), rate):
        return experiment
    return replace(experiment, training=replace(experiment.training, cache="", cache_hours=0.0))


def describe_plan(run: Run, plan: Plan) -> str:
    """Describe the batches of the first epoch; the others are alike."""
    training = run.experiment.training
    padding = 100 * padding_share(run.data.durations, plan)
    sizes = [len(batch) for batch in plan]
    return (
        f"an epoch: {len(plan)} batches of up to {training.batch_seconds:g} s and {min(sizes)} to "
        f"{max(sizes)} utterances, {padding:.1f} % padding; {run.steps_per_epoch} steps; "
        f"{training.epochs} epochs"
    )


def describe_memory(run: Run) -> str:
    """Describe the memory of weights, gradients and optimiser, the least that training needs."""
    weights = sum(p.numel() * p.element_size() for p in run.objective.parameters())
    state = sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(run).values())
    kept = OPTIMISER_TENSORS[run.experiment.training.optimiser] * weights
    return (
        f"memory: weights {format_megabytes(weights)}, with gradients and optimiser "
        f"{format_megabytes(2 * weights + kept)}, besides what a batch takes; a checkpoint "
        f"{format_megabytes(state + kept)} on disk, of which two are kept"
    )


def find_largest_batch(run: Run, plan: Plan) -> tuple[int, ...]:
    """Find the batch with the most audio, padding included."""
    durations = run.data.durations
    return max((b for b in plan if b), key=lambda batch: len(batch) * max(durations[i] for i in batch))


def describe_batch(run: Run, batch: tuple[int, ...]) -> str:
    """Describe a batch at the greatest length that augmentation can give it."""
    longest = max(run.data.durations[i] for i in batch) / min(run.experiment.augment.speeds)
    return f"{len(batch)} utterances of up to {longest:.1f} s, {len(batch) * longest:.0f} s in all"


def try_batch(run: Run, batch: tuple[int, ...]) -> str:
    """Take a step with ``batch`` in every process, at the slowest speed, and describe what it took.

    Raises ``TrainingError`` when it does not fit into memory.
    """
    config = replace(run.experiment.augment, speeds=(min(run.experiment.augment.speeds),))
    slow = replace(run, data=replace(run.data, sources=replace(run.data.sources, config=config)))
    update = [batch] * run.ranks.size
    batches = list(load_own_batches(slow, [update]))
    started = time.monotonic()
    try:
        metrics, _ = take_step(slow, update, batches)
    except RuntimeError as error:  # what a CPU raises has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "memory" not in str(error):
            raise
        raise TrainingError(
            f"the largest batch ({describe_batch(run, batch)}) does not fit into memory: lower "
            "training.batch_seconds, and raise training.accumulate by the same factor to train as before"
        ) from error
    passed = time.monotonic() - started
    peak = measure_peak_memory(run)
    memory = "" if peak is None else f" and {format_megabytes(peak)} at most"
    return f"it took {passed:.1f} s{memory}; its loss is {metrics['loss']:.1f} nats an utterance"


def measure_peak_memory(run: Run) -> float | None:
    """The most bytes in use so far, on the GPU or else in the whole process; ``None`` on Windows."""
    if run.model.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(run.model.device))
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def format_megabytes(count: float) -> str:
    """Bytes as megabytes, for people."""
    return f"{count / MEGABYTE:,.0f} MB"
