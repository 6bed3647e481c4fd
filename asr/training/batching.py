"""The batches of an epoch, and reading them ahead of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from asr.data.manifest import Utterance
from asr.model.features import Features, Moments, pad_batch
from asr.training.augment import Augmentation
from asr.training.examples import Example, Plan, Reader, fill_batches, plan_by_duration

Item = TypeVar("Item")

Teach = Callable[[Sequence[str], Sequence[int], Augmentation | None], tuple[Tensor | None, Tensor | None]]

JITTER = 0.03  # share by which durations are moved to mix examples of nearly the same length


@dataclass(frozen=True)
class Batch:
    """Utterances padded to one length; samples, because features are computed on the model's device."""

    ids: tuple[str, ...]
    speakers: tuple[str, ...]
    samples: Tensor  # (batch, samples) float32
    sample_lengths: Tensor  # (batch,) int64
    tokens: Tensor  # (batch, tokens) int64
    token_lengths: Tensor  # (batch,) int64
    augmentation: Augmentation | None = None  # drawn, not yet applied
    taught: Tensor | None = None  # (batch, frames, vocabulary) probabilities of a teacher
    states: Tensor | None = None  # (batch, frames, size) hidden states of another network

    def to(self, device: torch.device) -> Batch:
        """Copy the batch to ``device``."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("samples", "sample_lengths", "tokens", "token_lengths", "taught", "states")
            if getattr(self, name) is not None
        }
        augmentation = None if self.augmentation is None else self.augmentation.to(device)
        return replace(self, **moved, augmentation=augmentation)


def plan_epoch(
    durations: Sequence[float],
    batch_seconds: float,
    seed: int,
    epoch: int,
    ranks: int = 1,
    ascending: bool = False,
) -> Plan:
    """Plan the batches of an epoch for all ranks: a pure function of its arguments.

    Rank ``r`` takes ``plan[r::ranks]``. Every rank has the same number of batches, every example is in one of
    them, and every epoch has the same number (so that a run's steps are known without planning all of it).
    The batches that the ranks work on at the same time hold examples of nearly the same duration, so that
    no rank waits long; where there are fewer examples than ranks, some batches are empty.

    Examples are sorted by their duration times a random factor of up to ``JITTER``, so that batches differ
    from epoch to epoch while little is padding, then cut into batches of ``batch_sizes``. The batches are
    shuffled, or taken from short to long when ``ascending``.
    """
    generator = np.random.default_rng((seed, epoch))
    jittered = np.asarray(durations) * generator.uniform(1 - JITTER, 1 + JITTER, len(durations))
    order = iter(np.argsort(jittered, kind="stable").tolist())
    batches = [tuple(islice(order, size)) for size in batch_sizes(durations, batch_seconds, ranks)]
    groups = [batches[i : i + ranks] for i in range(0, len(batches), ranks)]
    shuffled = range(len(groups)) if ascending else generator.permutation(len(groups))
    return [batch for i in shuffled for batch in groups[i]]


def plan_windows(
    durations: Sequence[float],
    windows: Sequence[Sequence[int]],
    batch_seconds: float,
    seed: int,
    epoch: int,
    ranks: int = 1,
    ascending: bool = False,
) -> Plan:
    """Plan an epoch that finishes one window of examples before it begins the next, in a drawn order.

    A window is a list of indices; ``plan_epoch`` plans each. So the number of batches is the same in every
    epoch, and what has been read for a window is read once. A pure function of its arguments.
    """
    order = list(range(len(windows)))
    if not ascending:
        np.random.default_rng((seed, epoch, len(windows))).shuffle(order)
    plan: Plan = []
    for number in order:
        window = windows[number]
        part = plan_epoch(
            [durations[i] for i in window], batch_seconds, seed + number, epoch, ranks, ascending
        )
        plan += [tuple(window[i] for i in batch) for batch in part]
    return plan


def count_batches(
    durations: Sequence[float], windows: Sequence[Sequence[int]], batch_seconds: float, ranks: int = 1
) -> int:
    """The number of batches of every epoch, with ``windows`` or, where there are none, without."""
    parts = [[durations[i] for i in window] for window in windows] or [list(durations)]
    return sum(len(batch_sizes(part, batch_seconds, ranks)) for part in parts)


def batch_sizes(durations: Sequence[float], batch_seconds: float, ranks: int = 1) -> list[int]:
    """The number of examples in each batch of an epoch, from short examples to long ones.

    Whatever the jitter, the example that comes ``n``-th is longer by no more than ``(1 + JITTER) / (1 -
    JITTER)`` than the ``n``-th by duration: cut with that much to spare, no batch of several exceeds
    ``batch_seconds``. The number of batches is a multiple of ``ranks``.
    """
    bounds = [duration * (1 + JITTER) / (1 - JITTER) for duration in sorted(durations)]
    sizes = [len(batch) for batch in fill_batches(bounds, range(len(bounds)), batch_seconds)]
    while len(sizes) % ranks:
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        half = sizes[largest] // 2  # one half of a single example is empty
        sizes[largest : largest + 1] = [half, sizes[largest] - half]
    return sizes


def padding_share(durations: Sequence[float], plan: Plan) -> float:
    """The share of padding in the batches of ``plan``."""
    lengths = [[durations[i] for i in batch] for batch in plan if batch]
    paid = sum(len(batch) * max(batch) for batch in lengths)
    return 1 - sum(map(sum, lengths)) / paid if paid else 0.0


def load_batch(
    examples: Sequence[Example],
    read: Reader,
    draw: Callable[[Sequence[Utterance], Sequence[int]], Augmentation] | None = None,
    teach: Teach | None = None,
) -> Batch:
    """Read and pad examples.

    ``draw`` draws their augmentation, given how many samples each has; ``teach`` adds what others hear in
    them, log-probs and states, given ids, samples and augmentation.
    """
    utterances = [example.utterance for example in examples]
    batch, lengths = pad_batch([read(utterance) for utterance in utterances])
    tokens = [torch.tensor(example.tokens or (), dtype=torch.long) for example in examples]
    ids = tuple(example.utterance.id for example in examples)
    augmentation = None if draw is None else draw(utterances, lengths.tolist())
    taught, states = (None, None) if teach is None else teach(ids, lengths.tolist(), augmentation)
    return Batch(
        ids=ids,
        speakers=tuple(example.utterance.speaker or example.utterance.id for example in examples),
        samples=batch,
        sample_lengths=lengths,
        tokens=torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
        token_lengths=torch.tensor([len(t) for t in tokens]),
        augmentation=augmentation,
        taught=taught,
        states=states,
    )


def read_ahead(jobs: Iterable[Callable[[], Item]], workers: int, ahead: int = 8) -> Iterator[Item]:
    """Yield the results of ``jobs`` in their order, with up to ``ahead`` of them under way in advance."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Item]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def measure_speakers(
    features: Features,
    examples: Sequence[Example],
    read: Reader,
    batch_seconds: float,
    windows: Sequence[Sequence[int]] = (),
) -> dict[str, tuple[Tensor, Tensor]]:
    """Measure mean and standard deviation of each speaker's features in one pass, ``(features,)`` each."""
    moments: dict[str, Moments] = {}
    for indices in plan_by_duration([example.duration for example in examples], batch_seconds, windows):
        batch = load_batch([examples[i] for i in indices], read)
        device = features.window.device
        frames, lengths = features.extract(batch.samples.to(device), batch.sample_lengths.to(device))
        for speaker, rows, length in zip(batch.speakers, frames, lengths, strict=True):
            before = moments.get(speaker, Moments.empty(features.config.size))
            moments[speaker] = before.add(rows[None], length[None])
    return {speaker: measured.statistics() for speaker, measured in moments.items()}
