"""One update of the weights: its batches, their losses, the gradient."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from asr.model.features import length_mask
from asr.text.tokenizer import BLANK_TOKEN
from asr.training.augment import (
    Augmentation,
    augment_samples,
    length_at_speed,
    sample_augmentation,
    spec_augment,
    utterance_generator,
)
from asr.training.batching import Batch, load_batch, read_ahead
from asr.training.distillation import place_states, teach_batch
from asr.training.evaluation import batch_statistics
from asr.training.examples import Plan
from asr.training.objective import BatchLosses
from asr.training.optimisation import clip_gradients, compute_learning_rate, gradient_norms, update_averages
from asr.training.run import Run
from asr.training.teacher import Heard

DETAIL_STEPS = 20  # the gradient of each layer is logged once in so many steps


def own_share(run: Run, update: Plan) -> Plan:
    """The batches of an update that this process works on; an empty one where there are too few for it."""
    return update[run.ranks.rank :: run.ranks.size] or [()]


def load_own_batches(run: Run, updates: list[Plan]) -> Iterator[Batch]:
    """Read this process's batches of all ``updates`` ahead of time.

    Where an update has no batch for it, it takes the shortest example, whose loss does not count: the
    others wait for its gradient all the same.
    """
    training = run.experiment.training
    draw = partial(sample_augmentation, run.data.sources, training.seed, run.progress.epoch)
    teach = None if run.teacher is None and run.states is None else partial(hear_others, run)
    shortest = min(run.data.train, key=lambda example: example.duration)
    jobs = (
        partial(load_batch, [run.data.train[i] for i in indices] or [shortest], run.data.read, draw, teach)
        for update in updates
        for indices in own_share(run, update)
    )
    return read_ahead(jobs, training.workers)


def hear_others(
    run: Run, utterances: Sequence[str], lengths: Sequence[int], augmentation: Augmentation | None
) -> tuple[Tensor | None, Tensor | None]:
    """What a teacher says of utterances of ``lengths`` samples, and the states of another network.

    Both at the frames of the augmented ones; ``None`` where the recipe names none.
    """
    model = run.model
    speeds = augmentation.speeds if augmentation else (1.0,) * len(lengths)
    shifts = augmentation.shifts if augmentation else (0,) * len(lengths)
    heard = [
        Heard(int(model.num_frames(length_at_speed(length, speed) + shift)), speed, shift / model.sample_rate)
        for length, speed, shift in zip(lengths, speeds, shifts, strict=True)
    ]
    frame = model.frame_seconds
    return (
        None if run.teacher is None else teach_batch(run.teacher, utterances, heard, frame),
        None if run.states is None else place_states(run.states, utterances, heard, frame),
    )


def take_step(
    run: Run, update: Plan, batches: list[Batch], stop: bool = False
) -> tuple[dict[str, Any], bool]:
    """Update the weights once; returns metrics, and whether any process said ``stop``.

    ``update`` names the batches of all processes, ``batches`` are this one's. The gradient is that of
    the mean loss over all their utterances.
    """
    progress, training = run.progress, run.experiment.training
    rate = compute_learning_rate(progress.step, run.total_steps, training)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.zero_grad(set_to_none=True)
    sums = accumulate_gradient(run, update, batches)
    loss, criterion, blanks, frames, stopping = run.ranks.sum([*sums, float(stop)])
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


def batch_seed(seed: int, step: int, place: int) -> int:
    """The seed of the random draws (dropout) for the batch with this place in the update of a step.

    It does not depend on which process computes it, so that a run may go on with another number of them.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{place}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


def accumulate_gradient(run: Run, update: Plan, batches: list[Batch]) -> list[float]:
    """Add up the gradient of an update.

    Returns this process's sums of CTC loss, criterion, blank frames and frames.
    """
    run.parallel.train()
    utterances = sum(map(len, update))
    own = own_share(run, update)
    seed, ranks = run.experiment.training.seed, run.ranks
    sums = [torch.zeros(4)]
    for number, (indices, batch) in enumerate(zip(own, batches, strict=True)):
        torch.manual_seed(batch_seed(seed, run.progress.step, ranks.rank + number * ranks.size))
        with nullcontext() if number == len(own) - 1 else without_sync(run):
            result = compute_losses(run, batch.to(run.model.device))
            # Among several processes gradients are averaged, but the sum over all of them is wanted.
            share = run.ranks.size / utterances if indices else 0.0
            (result.losses.sum() * share).backward()
        if indices:
            losses = [result.ctc.sum(), result.criterion.sum()]
            sums.append(torch.stack([*losses, count_blank_frames(result), result.frames.sum()]))
    return torch.stack([row.cpu() for row in sums]).double().sum(0).tolist()


def without_sync(run: Run) -> Any:
    """A block whose gradients stay in this process until those of the next block."""
    return run.parallel.no_sync() if isinstance(run.parallel, DistributedDataParallel) else nullcontext()


def compute_losses(run: Run, batch: Batch) -> BatchLosses:
    """Augment a batch and compute its losses, with dropout."""
    statistics = batch_statistics(run.statistics, batch, run.model.device)
    samples, sample_lengths = augment_samples(batch.samples, batch.sample_lengths, batch.augmentation)
    features, lengths = run.model.features(samples, sample_lengths, statistics)
    views = 2 if run.experiment.training.consistency_weight else 1
    features = torch.cat(
        [
            mask_view(run, batch, shift_view(run, batch, features, view), lengths, view)
            for view in range(views)
        ]
    )
    targets = batch.tokens, batch.token_lengths, batch.taught, batch.states
    return run.parallel(features, lengths.repeat(views), *targets)


def shift_view(run: Run, batch: Batch, features: Tensor, view: int) -> Tensor:
    """Let the second view, ``(batch, frames, features)``, begin a drawn number of feature frames later.

    Its last frame is repeated at the end, so that both views have as many frames.
    """
    experiment = run.experiment
    hop_ms = 1000 * experiment.features.frame_seconds
    longest = round(experiment.training.consistency_shift_ms / hop_ms)
    if view == 0 or not longest:
        return features
    seed, epoch = experiment.training.seed, run.progress.epoch
    shifts = [utterance_generator(seed, epoch, f"shift/{name}").integers(longest + 1) for name in batch.ids]
    frames = torch.arange(features.shape[1], device=features.device)
    places = frames + torch.tensor(shifts, device=features.device)[:, None]
    places = places.clamp(max=features.shape[1] - 1)
    return features.gather(1, places[:, :, None].expand_as(features))


def mask_view(run: Run, batch: Batch, features: Tensor, lengths: Tensor, view: int) -> Tensor:
    """Mask features, ``(batch, frames, features)``, with masks drawn for each utterance and view."""
    config = run.experiment.augment
    if not config.frequency_masks and not config.time_masks:
        return features
    purpose = "masks" if view == 0 else f"masks {view}"
    generators = [
        utterance_generator(run.experiment.training.seed, run.progress.epoch, f"{purpose}/{name}")
        for name in batch.ids
    ]
    hop_ms = 1000 * run.experiment.features.frame_seconds
    planes = run.experiment.features.planes
    return spec_augment(features, lengths, config, hop_ms, generators, planes)


def count_blank_frames(result: BatchLosses) -> Tensor:
    """How many frames have the blank as their best token."""
    inside = length_mask(result.frames, result.log_probs.shape[1])
    return ((result.log_probs.argmax(dim=2) == BLANK_TOKEN) & inside).sum()
