"""How many processor cores there are to work on."""

from __future__ import annotations

import os
from pathlib import Path


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
