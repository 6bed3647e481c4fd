"""Many recordings searched at the same time; compiled searches let go of Python's lock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from asr.core.cores import count_cores

Result = TypeVar("Result")


def search_on_threads(
    search: Callable[[np.ndarray], Result], log_probs: Sequence[np.ndarray], threads: int | None = None
) -> list[Result]:
    """Search the log-probs ``(frames, vocabulary)`` of every recording; ``None`` threads are all cores."""
    threads = min(threads or count_cores(), len(log_probs))
    if threads <= 1:
        return [search(rows) for rows in log_probs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(search, log_probs))
