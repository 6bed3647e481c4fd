"""The processes of a run that torchrun started together; a run by itself is a group of one.

``torchrun --nproc-per-node 8 -m asr train ...`` starts the same program eight times, one per GPU. Each
reads its rank and their number from the environment, and talks to the others through ``Ranks``.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")

# How long a process waits for the others: one of them may be decoding a large corpus into the cache.
# torchrun itself notices at once when one of them ends, and a process when torchrun does.
LONGEST_WAIT = timedelta(days=1)
LONGEST_START = timedelta(minutes=5)  # until all of them have come together
LOOK_SECONDS = 1.0  # between two looks whether torchrun is still there
LAST_SECONDS = 60.0  # that a process without torchrun has to save a checkpoint and end


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of the run, and how they exchange values.

    All processes must call every method; the properties are free.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and prints news."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each value over the processes, in float64."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, value: Item) -> list[Item]:
        """Gather the value of each process, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until all of them are here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def first_then_others(self) -> Iterator[None]:
        """Let the others enter the block when the first process has left it."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def broadcast(self, value: Item) -> Item:
        """Return the value of the first process to all of them."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def join_process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started, for the block; a process alone is a group of one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Gloo carries the values that processes exchange, NCCL the gradients of GPUs.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=LONGEST_START))
    store = dist.PrefixStore("asr", store)
    store.set(f"here/{rank}", "1")
    store.wait([f"here/{other}" for other in range(size)], LONGEST_START)
    store.set_timeout(LONGEST_WAIT)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def end_with_parent(parent: int) -> None:
    """End this process soon after ``parent``: one that lost torchrun would wait for the others for a day.

    SIGTERM first, at which a run saves a checkpoint; then without asking. A thread of its own, because the
    main one may be waiting inside a library.
    """
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_SECONDS)
    os._exit(128 + signal.SIGTERM)


def device_of_rank(device: torch.device) -> torch.device:
    """This process's GPU where ``device`` is any GPU; other devices stay as they are."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
