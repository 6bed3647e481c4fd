"""A run rehearsed: what it will come to, and its largest batch taken once, before hours depend on it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from asr.data.cache import is_cached
from asr.training.batching import Plan, padding_share
from asr.training.distributed import Ranks
from asr.training.experiment import Experiment
from asr.training.loop import own_batches, step
from asr.training.run import (
    Run,
    TrainingError,
    described,
    epoch_updates,
    manifest_paths,
    prepared_run,
    state_tensors,
)

MEGABYTE = 1e6
OPTIMISER_TENSORS = {"adam": 2, "adamw": 2, "rmsprop": 2, "sgd": 1}  # as large as the weights


def rehearsal(
    experiment: Experiment,
    device: torch.device,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
) -> Iterator[str]:
    """Lines that tell the plan, and how the largest batch went; nothing is written.

    Raises ``TrainingError`` when the batch does not fit into memory.
    """
    run = prepared_run(without_new_cache(experiment), Path("rehearsal"), device, ranks)
    yield from described(run)
    plan = [batch for update in epoch_updates(run) for batch in update]
    yield planned(run, plan)
    yield weighed(run)
    largest = largest_batch(run, plan)
    yield f"the largest batch: {batch_name(run, largest)}"
    yield taken(run, largest)


def without_new_cache(experiment: Experiment) -> Experiment:
    """The same, reading the recordings where a cache would have to be made first."""
    cache, rate = experiment.training.cache, experiment.features.sample_rate
    if not cache or is_cached(Path(cache), manifest_paths(experiment.data), rate):
        return experiment
    return replace(experiment, training=replace(experiment.training, cache="", cache_hours=0.0))


def planned(run: Run, plan: Plan) -> str:
    """The batches of the first epoch; the others are alike."""
    training = run.experiment.training
    padding = 100 * padding_share(run.data.durations, plan)
    sizes = [len(batch) for batch in plan]
    return (
        f"an epoch: {len(plan)} batches of up to {training.batch_seconds:g} s and {min(sizes)} to "
        f"{max(sizes)} utterances, {padding:.1f} % padding; {run.steps_per_epoch} steps; "
        f"{training.epochs} epochs"
    )


def weighed(run: Run) -> str:
    """What weights, gradients and the optimiser take; it is the least that training needs."""
    weights = sum(p.numel() * p.element_size() for p in run.objective.parameters())
    state = sum(tensor.numel() * tensor.element_size() for tensor in state_tensors(run).values())
    kept = OPTIMISER_TENSORS[run.experiment.training.optimiser] * weights
    return (
        f"memory: weights {megabytes(weights)}, with gradients and optimiser "
        f"{megabytes(2 * weights + kept)}, besides what a batch takes; a checkpoint "
        f"{megabytes(state + kept)} on disk, of which two are kept"
    )


def largest_batch(run: Run, plan: Plan) -> tuple[int, ...]:
    """The batch with the most audio, padding included."""
    durations = run.data.durations
    return max((b for b in plan if b), key=lambda batch: len(batch) * max(durations[i] for i in batch))


def batch_name(run: Run, batch: tuple[int, ...]) -> str:
    """A batch for people, as long as augmentation can make it."""
    longest = max(run.data.durations[i] for i in batch) / min(run.experiment.augment.speeds)
    return f"{len(batch)} utterances of up to {longest:.1f} s, {len(batch) * longest:.0f} s in all"


def taken(run: Run, batch: tuple[int, ...]) -> str:
    """Take a step with ``batch`` in every process, at the slowest speed; says what it took."""
    config = replace(run.experiment.augment, speeds=(min(run.experiment.augment.speeds),))
    slow = replace(run, data=replace(run.data, sources=replace(run.data.sources, config=config)))
    update = [batch] * run.ranks.size
    batches = list(own_batches(slow, [update]))
    started = time.monotonic()
    try:
        metrics, _ = step(slow, update, batches)
    except RuntimeError as error:  # what a CPU raises has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "memory" not in str(error):
            raise
        raise TrainingError(
            f"the largest batch ({batch_name(run, batch)}) does not fit into memory: lower "
            "training.batch_seconds, and raise training.accumulate by as much to train alike"
        ) from error
    passed = time.monotonic() - started
    peak = peak_memory(run)
    memory = "" if peak is None else f" and {megabytes(peak)} at most"
    return f"it took {passed:.1f} s{memory}; its loss is {metrics['loss']:.1f} nats an utterance"


def peak_memory(run: Run) -> float | None:
    """The most bytes that were in use so far: on the GPU, or else by the whole process.

    ``None`` where the system does not tell, as Windows does not.
    """
    if run.model.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(run.model.device))
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def megabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / MEGABYTE:,.0f} MB"
