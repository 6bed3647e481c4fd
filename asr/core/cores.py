"""How many processor cores there are to work on."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Cores that this process may use: a container or a batch system grants fewer than there are."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0))
    quota = Path("/sys/fs/cgroup/cpu.max")  # microseconds of work, in so many that pass
    if quota.exists():
        granted, period = quota.read_text().split()
        if granted != "max":
            cores = min(cores, max(1, int(granted) // int(period)))
    return cores


def threads_for(asked: int) -> int:
    """So many threads as were ``asked`` for, 0 for one a core; more would be in each other's way."""
    cores = usable_cores()
    return min(asked or cores, cores)
