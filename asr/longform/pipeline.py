"""Work that overlaps: recordings are read, put through the network and searched at the same time.

Every step is a job for the same few threads, and jobs are begun a little ahead of what is asked for, so that
no core waits for another step to end. Results come in order, and no more than a few minutes of samples are
kept in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Source = TypeVar("Source")


@contextmanager
def open_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Keep ``count`` threads for a block; jobs that have not begun at its end never do."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="asr")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Jobs(Generic[Item, Result]):
    """An item and the jobs that were begun for it."""

    item: Item
    futures: Sequence[Future[Result]]

    @property
    def is_done(self) -> bool:
        """Whether nobody would wait for the results."""
        return all(future.done() for future in self.futures)

    def results(self) -> Iterator[Result]:
        """Wait for the results, in the order in which the jobs were begun; raises what a job raised."""
        return (future.result() for future in self.futures)


def run_ahead(
    items: Iterable[Item], begin: Callable[[Item], Sequence[Future[Result]]], ahead: int = 1
) -> Iterator[Jobs[Item, Result]]:
    """Begin the jobs of each item; yield the items in order, while the jobs of ``ahead`` later ones may run.

    An item whose jobs are done is not kept waiting for later ones.
    """
    begun: deque[Jobs[Item, Result]] = deque()
    for item in items:
        begun.append(Jobs(item, begin(item)))
        while begun and (len(begun) > ahead or begun[0].is_done):
            yield begun.popleft()
    yield from begun


def read_side_by_side(
    sources: Iterable[Source],
    read: Callable[[Source], Iterator[Item]],
    take: Callable[[Iterator[Item]], tuple[list[Item], bool]],
    pool: ThreadPoolExecutor,
    ahead: int,
) -> Iterator[Item]:
    """Yield what ``read`` yields for each source, in order; several sources are read at the same time.

    Args:
        take: takes the next portion from one of these iterators, and says whether it was the last. Of the
            sources that wait for their turn no more than a portion is read.
        ahead: how many sources wait.
    """

    def begin(source: Source) -> tuple[Iterator[Item], Future[tuple[list[Item], bool]]]:
        items = read(source)
        return items, pool.submit(take, items)

    def drain(items: Iterator[Item], future: Future[tuple[list[Item], bool]]) -> Iterator[Item]:
        is_last = False
        while not is_last:
            portion, is_last = future.result()
            if not is_last:
                future = pool.submit(take, items)
            yield from portion

    begun: deque[tuple[Iterator[Item], Future[tuple[list[Item], bool]]]] = deque()
    for source in sources:
        begun.append(begin(source))
        if len(begun) > ahead:
            yield from drain(*begun.popleft())
    for waiting in begun:
        yield from drain(*waiting)
