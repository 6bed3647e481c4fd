"""What waits together is done together, live chunks come first, and everybody gets their own results."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from asr.longform.transcripts import BATCH_SECONDS
from asr.server.batching import (
    BATCH_SIZE,
    LIVE,
    SEARCH_SIZE,
    USUAL,
    Dispatcher,
    NetworkWork,
    QueuedNetwork,
    SearchWork,
    Waiting,
    pick_batch,
)

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
    dispatcher = Dispatcher()
    yield dispatcher
    network.go.set()
    dispatcher.close()


@pytest.fixture
def usual(network):
    return NetworkWork(network, USUAL, lambda size: None)


@pytest.fixture
def live(network):
    return NetworkWork(network, LIVE, lambda size: None)


class Searching:
    """A recogniser whose hypotheses are sums, and that remembers what it was given at once."""

    def __init__(self, seen: list[list[float]]) -> None:
        self.seen = seen

    def search(self, log_probs: Sequence[np.ndarray], threads: int) -> list[float]:
        assert threads == 1
        self.seen.append([float(rows[0]) for rows in log_probs])
        return [float(rows.sum()) for rows in log_probs]


def test_waiting_chunks_share_a_batch_and_urgent_ones_come_first(network, dispatcher, usual, live):
    first = dispatcher.submit(usual, [chunk(0)])
    assert network.begun.wait(10)
    waiting = dispatcher.submit(usual, [chunk(1), chunk(2), chunk(3, seconds=30)])
    urgent = dispatcher.submit(live, [chunk(4), chunk(5)])
    network.go.set()
    assert [float(future.result(10)[0]) for future in (*first, *waiting, *urgent)] == [0, 1, 2, 3, 4, 5]
    assert network.seen == [[0], [4, 5], [1, 2], [3]]


def test_requests_are_searched_together_before_chunks_of_others(network, dispatcher, usual, live):
    searching, other = SearchWork(Searching(network.seen)), SearchWork(Searching(network.seen))
    futures = dispatcher.submit(usual, [chunk(0)])
    assert network.begun.wait(10)
    futures += dispatcher.submit(usual, [chunk(1)])
    for value in (2, 3):
        futures += dispatcher.submit(searching, [chunk(value)])
    futures += dispatcher.submit(other, [chunk(4)])
    futures += dispatcher.submit(live, [chunk(5)])
    futures += dispatcher.submit(searching, [chunk(6)] * SEARCH_SIZE)
    network.go.set()
    results = [future.result(10) for future in futures]
    assert [float(np.sum(result)) for result in results[2:5]] == [200, 300, 400]
    assert network.seen == [[0], [5], [2, 3, 6, 6], [4], [6, 6], [1]]


def test_what_is_searched_is_shared_with_threads_that_have_nothing_to_do():
    queue = [Waiting(chunk(value)) for value in range(3)]
    work = SearchWork(Searching([]))
    assert [len(work.pick(queue, idle)) for idle in (0, 1, 5)] == [3, 2, 1]
    assert work.pick(queue, 1) == queue[:2]


def test_everybody_gets_their_own(network, dispatcher, usual):
    network.go.set()
    lent = QueuedNetwork(dispatcher, usual)

    def ask(value: int) -> list[float]:
        batches = lent.log_probs([[chunk(value), chunk(value + 0.5, seconds=2)], [chunk(value + 0.25)]])
        return [float(rows[0]) for batch in batches for rows in batch]

    with ThreadPoolExecutor(16) as threads:
        values = list(threads.map(ask, range(100)))
    assert values == [[value, value + 0.5, value + 0.25] for value in range(100)]
    assert len(network.seen) < 300


def test_a_failure_reaches_those_in_its_batch_and_nobody_else(network, dispatcher, usual):
    network.go.set()
    lent = QueuedNetwork(dispatcher, usual)
    with pytest.raises(ValueError, match="no network likes"):
        list(lent.log_probs([[chunk(-1)]]))
    assert len(list(lent.log_probs([[chunk(1)]]))) == 1


def test_what_nobody_waits_for_is_not_computed(network, dispatcher, usual):
    dispatcher.submit(usual, [chunk(0)])
    assert network.begun.wait(10)
    (unwanted,) = dispatcher.submit(usual, [chunk(1)])
    (wanted,) = dispatcher.submit(usual, [chunk(2)])
    assert unwanted.cancel()
    network.go.set()
    wanted.result(10)
    assert network.seen == [[0], [2]]


def test_after_the_end_nothing_is_accepted(network, usual):
    network.go.set()
    dispatcher = Dispatcher()
    dispatcher.close()
    with pytest.raises(RuntimeError, match="shut down"):
        dispatcher.submit(usual, [chunk(0)])


def test_a_batch_has_bounds():
    def pick(*seconds: float) -> list[float]:
        batch = pick_batch([Waiting(chunk(0, length)) for length in seconds], RATE)
        return [len(waiting.array) / RATE for waiting in batch]

    assert pick(*[1.0] * 20) == [1.0] * BATCH_SIZE
    assert pick(30.0, 29.0) == [30.0]
    assert pick(10.0, 1.0, 9.0, 10.0) == [10.0, 9.0, 10.0]
    assert sum(pick(10.0, 10.0, 10.0, 10.0, 10.0)) == BATCH_SECONDS
