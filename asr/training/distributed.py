"""The processes of a run that torchrun started together; a run by itself is a group of one.

``torchrun --nproc-per-node 8 -m asr train ...`` starts the same program eight times, one per GPU. Each
reads its rank and their number from the environment, and talks to the others through ``Ranks``.

Each also tells the others every few seconds that it is there. One that does not hear of another for
``SILENCE_SECONDS``, because that hangs or the network between them is cut, ends, whatever it was waiting for:
torchrun starts those again that it still has, and they go on from the newest checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
BEAT_SECONDS = 2.0  # between two signs of life
SILENCE_SECONDS = 120.0  # without one, after which a process is given up
LEAVE_SECONDS = 5.0  # to say that a process leaves
POLL_SECONDS = 0.05
LEFT = "left"  # the last sign of a process that ends as it should


@dataclass(frozen=True)
class Ranks:
    """This process's place among those of the run, and how they exchange values.

    All processes must call every method; the properties are free.
    """

    rank: int = 0
    size: int = 1
    # How long another group of processes may still hold the run folder: torchrun may have given it up while
    # it has not noticed yet that it is cut off.
    lock_seconds: float = 0.0

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
def join_process_group(device: torch.device, silence: float = SILENCE_SECONDS) -> Iterator[Ranks]:
    """Join the processes that torchrun started, for the block; a process alone is a group of one.

    In the block this process ends where another one is not heard of for ``silence`` seconds.
    """
    lock_seconds = 2 * silence if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) else 0.0
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(lock_seconds=lock_seconds)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Gloo carries the values that processes exchange, NCCL the gradients of GPUs.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=LONGEST_START))
    name = agree_on_name(dist.PrefixStore("asr", store), rank, size)
    store.set_timeout(LONGEST_WAIT)
    store = dist.PrefixStore(f"asr/{name}", store)
    with watch_others(name, rank, size, silence):
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONGEST_WAIT)
        try:
            yield Ranks(dist.get_rank(), dist.get_world_size(), lock_seconds)
        finally:
            dist.destroy_process_group()


def agree_on_name(store: dist.Store, rank: int, size: int) -> str:
    """Wait until all processes have come together, and give their group a name that no other has.

    torchrun's store lives on when it starts the processes again, with all that those before have left in it.
    So each process asks under a name of its own, and the first answers until each has said that it heard.

    Raises ``torch.distributed.DistStoreError`` where one does not come within ``LONGEST_START``.
    """
    if rank:
        own = uuid.uuid4().hex
        store.set(f"ask/{rank}", own)
        name = store.get(f"answer/{own}").decode()
        store.set(f"heard/{name}/{rank}", "")
        store.wait([f"begun/{name}"], LONGEST_START)
        return name
    name = uuid.uuid4().hex
    missing = set(range(1, size))
    deadline = time.monotonic() + LONGEST_START.total_seconds()
    while missing:
        if time.monotonic() > deadline:
            raise dist.DistStoreError(f"processes {sorted(missing)} of {size} have not come")
        for other in sorted(missing):
            if store.check([f"ask/{other}"]):
                store.set(f"answer/{store.get(f'ask/{other}').decode()}", name)
        missing -= {other for other in missing if store.check([f"heard/{name}/{other}"])}
        time.sleep(POLL_SECONDS)
    store.set(f"begun/{name}", "")
    return name


@contextmanager
def watch_others(name: str, rank: int, size: int, silence: float) -> Iterator[None]:
    """Tell the others of the group ``name`` that this process lives, and end it where one falls silent.

    The signs go through a connection of their own, in a thread of their own, which may hang when the network
    does; another thread has only a clock.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    heard = dict.fromkeys(set(range(size)) - {rank}, time.monotonic())
    over = threading.Event()

    def open_store() -> dist.Store:
        store = dist.TCPStore(
            address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=silence)
        )
        return dist.PrefixStore(f"asr/{name}", store)

    exchange = threading.Thread(target=exchange_signs, args=(open_store, rank, heard, over), daemon=True)
    clock = threading.Thread(target=end_in_silence, args=(heard, silence, over), daemon=True)
    for thread in (exchange, clock):
        thread.start()
    try:
        yield
    finally:
        over.set()
        exchange.join(LEAVE_SECONDS)


def exchange_signs(
    open_store: Callable[[], dist.Store], rank: int, heard: dict[int, float], over: threading.Event
) -> None:
    """Write a new sign of life every few seconds, and note in ``heard`` when each of the others did.

    When it is ``over``, the last sign says that this process has left.
    """
    seen: dict[int, str] = {}
    count = 0
    store: dist.Store | None = None
    while True:
        try:
            store = store or open_store()
            store.set(f"sign/{rank}", str(count))
            count += 1
            for other in heard:
                if store.check([f"sign/{other}"]):
                    sign = store.get(f"sign/{other}").decode()
                    if sign == LEFT or sign != seen.get(other):
                        seen[other], heard[other] = sign, time.monotonic()
        except RuntimeError:  # all errors of stores are
            store = None
        if over.wait(BEAT_SECONDS):
            break
    if store is not None:
        with suppress(RuntimeError):  # where it has gone, there is nobody to tell
            store.set(f"sign/{rank}", LEFT)


def end_in_silence(heard: dict[int, float], silence: float, over: threading.Event) -> None:
    """End this process at once where one of the others was not ``heard`` for ``silence`` seconds."""
    while not over.wait(min(1.0, silence / 10)):
        other, last = min(heard.items(), key=lambda item: item[1])
        if time.monotonic() - last > silence:
            sys.stderr.write(
                f"asr: process {other} has not been heard of for {silence:g} s: it hangs, or the network is "
                "cut; this one ends, and the run goes on from its newest checkpoint\n"
            )
            sys.stderr.flush()
            os._exit(1)


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
