"""Chunks that wait together share a batch, live ones come first, and everybody gets their own log-probs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from asr.longform.transcripts import BATCH_SECONDS
from asr.server.batching import BATCH_SIZE, ChunkDispatcher, WaitingChunk, pick_batch

RATE = 100


class SlowNetwork:
    """A network whose log-probs are the first sample; it waits for ``go`` before its first batch."""

    sample_rate = RATE
    frame_samples = 1
    threads = 1
    settings: dict[str, object] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.seen: list[list[float]] = []

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        for batch in batches:
            self.begun.set()
            assert self.go.wait(10)
            self.seen.append([float(samples[0]) for samples in batch])
            if any(samples[0] < 0 for samples in batch):
                raise ValueError("a chunk that no network likes")
            yield [samples[:1] for samples in batch]


def chunk(value: float, seconds: float = 1.0) -> np.ndarray:
    return np.full(round(seconds * RATE), value)


@pytest.fixture
def network():
    return SlowNetwork()


@pytest.fixture
def dispatcher(network):
    dispatcher = ChunkDispatcher(network, lambda size: None)
    yield dispatcher
    network.go.set()
    dispatcher.close()


def test_waiting_chunks_share_a_batch_and_urgent_ones_come_first(network, dispatcher):
    first = dispatcher.submit([chunk(0)], is_urgent=False)
    assert network.begun.wait(10)
    usual = dispatcher.submit([chunk(1), chunk(2), chunk(3, seconds=30)], is_urgent=False)
    urgent = dispatcher.submit([chunk(4), chunk(5)], is_urgent=True)
    network.go.set()
    assert [float(future.result(10)[0]) for future in (*first, *usual, *urgent)] == [0, 1, 2, 3, 4, 5]
    assert network.seen == [[0], [4, 5], [1, 2], [3]]


def test_everybody_gets_their_own(network, dispatcher):
    network.go.set()
    lent = dispatcher.lend()

    def ask(value: int) -> list[float]:
        batches = lent.log_probs([[chunk(value), chunk(value + 0.5, seconds=2)], [chunk(value + 0.25)]])
        return [float(rows[0]) for batch in batches for rows in batch]

    with ThreadPoolExecutor(16) as threads:
        values = list(threads.map(ask, range(100)))
    assert values == [[value, value + 0.5, value + 0.25] for value in range(100)]
    assert len(network.seen) < 300


def test_a_failure_reaches_those_in_its_batch_and_nobody_else(network, dispatcher):
    network.go.set()
    with pytest.raises(ValueError, match="no network likes"):
        list(dispatcher.lend().log_probs([[chunk(-1)]]))
    assert len(list(dispatcher.lend().log_probs([[chunk(1)]]))) == 1


def test_what_nobody_waits_for_is_not_computed(network, dispatcher):
    dispatcher.submit([chunk(0)], is_urgent=False)
    assert network.begun.wait(10)
    (unwanted,) = dispatcher.submit([chunk(1)], is_urgent=False)
    (wanted,) = dispatcher.submit([chunk(2)], is_urgent=False)
    assert unwanted.cancel()
    network.go.set()
    wanted.result(10)
    assert network.seen == [[0], [2]]


def test_after_the_end_nothing_is_accepted(network):
    network.go.set()
    dispatcher = ChunkDispatcher(network, lambda size: None)
    dispatcher.close()
    with pytest.raises(RuntimeError, match="shut down"):
        dispatcher.submit([chunk(0)], is_urgent=False)


def test_a_batch_has_bounds():
    def pick(*seconds: float) -> list[float]:
        batch = pick_batch([WaitingChunk(chunk(0, length)) for length in seconds], RATE)
        return [len(waiting.samples) / RATE for waiting in batch]

    assert pick(*[1.0] * 20) == [1.0] * BATCH_SIZE
    assert pick(30.0, 29.0) == [30.0]
    assert pick(10.0, 1.0, 9.0, 10.0) == [10.0, 9.0, 10.0]
    assert sum(pick(10.0, 10.0, 10.0, 10.0, 10.0)) == BATCH_SECONDS
