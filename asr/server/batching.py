"""One network for many requests: chunks that wait at the same time share a batch.

Threads that transcribe put chunks in a queue; threads that own the network take them out, live ones first,
and give it those of similar length together.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from asr.longform.transcripts import BATCH_SECONDS
from asr.recognition.network import Network

BATCH_SIZE = 8  # chunks in a batch, at most
LEAST_LIKE = 0.7  # of the longest: a shorter chunk would be padded with more than it is worth
REACH = 64  # waiting chunks that are looked through for the next batch


@dataclass(eq=False)
class WaitingChunk:
    """Samples that wait for their log-probs."""

    samples: np.ndarray
    result: Future[np.ndarray] = field(default_factory=Future)


class ChunkDispatcher:
    """A queue of chunks before a network, and the threads that empty it.

    Args:
        network: computes the log-probs.
        report: is called with the size of each batch.
        workers: threads that call the network at the same time.
    """

    def __init__(self, network: Network, report: Callable[[int], object], workers: int = 1) -> None:
        self._network = network
        self._report = report
        self._urgent: deque[WaitingChunk] = deque()
        self._usual: deque[WaitingChunk] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"network-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def lend(self, is_urgent: bool = False) -> BatchedNetwork:
        """Return a network of which the chunks go through this queue, before others if they are urgent."""
        network = self._network
        return BatchedNetwork(self, is_urgent, network.sample_rate, network.frame_samples, network.settings)

    def submit(self, chunks: Sequence[np.ndarray], is_urgent: bool) -> list[Future[np.ndarray]]:
        """Put chunks in the queue; raises ``RuntimeError`` after ``close``."""
        waiting = [WaitingChunk(samples) for samples in chunks]
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the server is being shut down")
            (self._urgent if is_urgent else self._usual).extend(waiting)
            self._changed.notify_all()
        return [chunk.result for chunk in waiting]

    def close(self) -> None:
        """End the threads; what still waits is cancelled."""
        with self._changed:
            self._is_closed = True
            for chunk in (*self._urgent, *self._usual):
                chunk.result.cancel()
            self._urgent.clear()
            self._usual.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        """Give the network batch after batch."""
        while batch := self._take_batch():
            self._report(len(batch))
            try:
                results = next(iter(self._network.log_probs([[chunk.samples for chunk in batch]])))
            except BaseException as error:  # whoever waits for it gets it
                for chunk in batch:
                    chunk.result.set_exception(error)
            else:
                for chunk, rows in zip(batch, results, strict=True):
                    chunk.result.set_result(rows)
            del batch  # no samples are kept while the queue is empty

    def _take_batch(self) -> list[WaitingChunk]:
        """Wait for chunks and take a batch of them; an empty one after ``close``."""
        with self._changed:
            while True:
                while not (self._is_closed or self._urgent or self._usual):
                    self._changed.wait()
                if self._is_closed:
                    return []
                queue = self._urgent or self._usual
                batch = pick_batch(queue, self._network.sample_rate)
                chosen = {id(chunk) for chunk in batch}
                rest = [chunk for chunk in queue if id(chunk) not in chosen]
                queue.clear()
                queue.extend(rest)
                batch = [chunk for chunk in batch if chunk.result.set_running_or_notify_cancel()]
                if batch:
                    return batch


def pick_batch(queue: Sequence[WaitingChunk], rate: int) -> list[WaitingChunk]:
    """Pick the oldest chunk and those of the next that are about as long, ``BATCH_SECONDS`` at most."""
    oldest = queue[0]
    batch, shortest, longest = [oldest], len(oldest.samples), len(oldest.samples)
    for place in range(1, min(len(queue), REACH)):
        if len(batch) == BATCH_SIZE:
            break
        length = len(queue[place].samples)
        low, high = min(shortest, length), max(longest, length)
        if low >= LEAST_LIKE * high and high * (len(batch) + 1) <= BATCH_SECONDS * rate:
            batch.append(queue[place])
            shortest, longest = low, high
    return batch


@dataclass(frozen=True, eq=False)
class BatchedNetwork:
    """A ``Network`` that sends its chunks through a dispatcher; a request is searched in its own thread."""

    dispatcher: ChunkDispatcher
    is_urgent: bool
    sample_rate: int  # hertz
    frame_samples: int  # from one row of log-probs to the next
    settings: dict[str, object]
    threads: int = 1

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order."""
        futures = [self.dispatcher.submit(batch, self.is_urgent) for batch in batches]
        try:
            for batch in futures:
                yield [future.result() for future in batch]
        finally:
            for future in (future for batch in futures for future in batch):
                future.cancel()  # nobody waits for it any more
