"""One network and one search for many requests: what waits at the same time is done together.

Threads that transcribe put chunks and log-probs in queues; a thread for each core takes them out, live ones
first, then what is to be searched, so that a request that is nearly done is not kept waiting. The network is
given chunks of similar length together, and a search the log-probs of several requests, whose texts a
recurrent language model then scores at once. So no more is computed at the same time than there are cores.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from asr.longform.transcripts import BATCH_SECONDS
from asr.recognition.network import Network
from asr.recognition.recognizer import Recognizer
from asr.transcript.values import Hypothesis

BATCH_SIZE = 8  # chunks in a batch, at most
SEARCH_SIZE = 4  # log-probs that are searched by one thread, at most
LEAST_LIKE = 0.7  # of the longest: a shorter chunk would be padded with more than it is worth
REACH = 64  # waiting arrays that are looked through for the next batch
THREADS = 2  # of a recording: one part is read while another waits for its results
LIVE, SEARCHED, USUAL = range(3)  # ranks of work, the first comes first


@dataclass(eq=False)
class Waiting:
    """An array that waits for its result."""

    array: np.ndarray
    result: Future[Any] = field(default_factory=Future)


class Work(Protocol):
    """What is done with arrays that wait."""

    @property
    def rank(self) -> int:
        """Work of a lower rank comes first."""

    def pick(self, queue: Sequence[Waiting], idle: int) -> list[Waiting]:
        """Pick the oldest and what goes with it; ``idle`` more threads have nothing to do."""

    def compute(self, arrays: list[np.ndarray]) -> Sequence[Any]:
        """Compute the result of each array."""


@dataclass(frozen=True, eq=False)
class NetworkWork:
    """Chunks of samples become log-probs; ``report`` is called with the size of each batch."""

    network: Network
    rank: int
    report: Callable[[int], object]

    def pick(self, queue: Sequence[Waiting], idle: int) -> list[Waiting]:
        """Pick the oldest chunk and those of the next that are about as long."""
        return pick_batch(queue, self.network.sample_rate)

    def compute(self, arrays: list[np.ndarray]) -> Sequence[np.ndarray]:
        """Compute log-probs as one batch."""
        self.report(len(arrays))
        return next(iter(self.network.log_probs([arrays])))


@dataclass(frozen=True, eq=False)
class SearchWork:
    """Log-probs become hypotheses."""

    recognizer: Recognizer
    rank: int = SEARCHED

    def pick(self, queue: Sequence[Waiting], idle: int) -> list[Waiting]:
        """Pick the oldest; threads that have nothing to do get their share."""
        return list(queue)[: min(SEARCH_SIZE, -(-len(queue) // (1 + idle)))]

    def compute(self, arrays: list[np.ndarray]) -> Sequence[Hypothesis]:
        """Find the best hypothesis of each array."""
        return self.recognizer.search(arrays, 1)


class Dispatcher:
    """Queues before the network and the searches, and the threads that empty them.

    Args:
        workers: threads that compute at the same time.
    """

    def __init__(self, workers: int = 1) -> None:
        self._queues: dict[Work, deque[Waiting]] = {}  # none of them empty
        self._idle = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work, arrays: Sequence[np.ndarray]) -> list[Future[Any]]:
        """Put arrays in the queue for ``work``; raises ``RuntimeError`` after ``close``."""
        waiting = [Waiting(array) for array in arrays]
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the server is being shut down")
            if waiting:
                self._queues.setdefault(work, deque()).extend(waiting)
                self._changed.notify_all()
        return [one.result for one in waiting]

    def close(self) -> None:
        """End the threads; what still waits is cancelled."""
        with self._changed:
            self._is_closed = True
            for queue in self._queues.values():
                for one in queue:
                    one.result.cancel()
            self._queues.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        """Do batch after batch."""
        while taken := self._take():
            work, batch = taken
            try:
                results = work.compute([one.array for one in batch])
            except BaseException as error:  # whoever waits for it gets it
                for one in batch:
                    one.result.set_exception(error)
            else:
                for one, result in zip(batch, results, strict=True):
                    one.result.set_result(result)
            del taken, batch  # no samples are kept while the queues are empty

    def _take(self) -> tuple[Work, list[Waiting]] | None:
        """Wait for work and take a batch of it; ``None`` after ``close``."""
        with self._changed:
            while True:
                self._idle += 1
                while not (self._is_closed or self._queues):
                    self._changed.wait()
                self._idle -= 1
                if self._is_closed:
                    return None
                work = min(self._queues, key=lambda work: work.rank)  # of equal ones in turn
                queue = self._queues.pop(work)
                batch = work.pick(queue, self._idle)
                chosen = {id(one) for one in batch}
                if rest := [one for one in queue if id(one) not in chosen]:
                    self._queues[work] = deque(rest)
                batch = [one for one in batch if one.result.set_running_or_notify_cancel()]
                if batch:
                    return work, batch


def pick_batch(queue: Sequence[Waiting], rate: int) -> list[Waiting]:
    """Pick the oldest chunk and those of the next that are about as long, ``BATCH_SECONDS`` at most."""
    oldest = queue[0]
    batch, shortest, longest = [oldest], len(oldest.array), len(oldest.array)
    for place in range(1, min(len(queue), REACH)):
        if len(batch) == BATCH_SIZE:
            break
        length = len(queue[place].array)
        low, high = min(shortest, length), max(longest, length)
        if low >= LEAST_LIKE * high and high * (len(batch) + 1) <= BATCH_SECONDS * rate:
            batch.append(queue[place])
            shortest, longest = low, high
    return batch


@dataclass(frozen=True, eq=False)
class QueuedNetwork:
    """A ``Network`` that sends its chunks through a dispatcher."""

    dispatcher: Dispatcher
    work: NetworkWork
    threads: int = 1

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self.work.network.sample_rate

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""
        return self.work.network.frame_samples

    @property
    def settings(self) -> dict[str, object]:
        """What log-probs depend on besides the weights."""
        return self.work.network.settings

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order."""
        futures = [self.dispatcher.submit(self.work, batch) for batch in batches]
        try:
            for batch in futures:
                yield [future.result() for future in batch]
        finally:
            for future in (future for batch in futures for future in batch):
                future.cancel()  # nobody waits for it any more


class QueuedRecognizer:
    """A recogniser for `asr.longform.transcripts` that sends log-probs through a dispatcher, too.

    Args:
        recognizer: searches, and has a ``QueuedNetwork``.
        dispatcher: of searches.
    """

    def __init__(self, recognizer: Recognizer, dispatcher: Dispatcher) -> None:
        self.recognizer = recognizer
        self.tagger = recognizer.tagger
        self.name = recognizer.name
        self.sample_rate = recognizer.sample_rate
        self.frame_samples = recognizer.frame_samples
        self.threads = THREADS
        self.settings = recognizer.settings
        self._dispatcher = dispatcher
        self._work = SearchWork(recognizer)

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs for each array in each batch of samples, in order."""
        return self.recognizer.log_probs(batches)

    def search(self, log_probs: Sequence[np.ndarray], threads: int | None = None) -> list[Hypothesis]:
        """Find the best hypothesis of each array of log-probs, however many ``threads`` there are."""
        futures = self._dispatcher.submit(self._work, log_probs)
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
