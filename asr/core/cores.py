"""How many processor cores there are to work on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_cores() -> int:
    """Cores that this process may use: a container or a batch system may grant fewer than there are."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")  # microseconds of work granted in each period
    if quota.exists():
        granted, period = quota.read_text().split()
        if granted != "max":
            cores = min(cores, max(1, int(granted) // int(period)))
    return cores


def choose_threads(wanted: int | None = None) -> int:
    """How many threads to compute with: ``wanted``, or else ``OMP_NUM_THREADS``, or else one a core.

    Never more than there are cores: they would only compete.
    """
    cores = count_cores()
    if wanted is None:
        text = os.environ.get("OMP_NUM_THREADS", "")
        wanted = int(text) if text.isdigit() else 0
    return min(wanted or cores, cores)


def run_in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``work`` of each item, in order; threads on all cores are a few items ahead.

    It pays where ``work`` lets go of Python's lock, as compiled code does.
    """
    threads = choose_threads()
    begun: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
