"""Shards as a Ray Data set, and actors that hold one recogniser each.

A shard is one task: it reads its recordings, transcribes them and writes its own files, and a line of numbers
comes back. Ray starts a task again elsewhere when its worker or its machine dies. Ray is imported in
functions alone.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from asr.bulk.manifests import Shard
from asr.bulk.work import Job, ShardSummary, transcribe_shard
from asr.errors import UserError
from asr.recognition.recognizer import Recognizer

INSTALL = "--on ray needs Ray: pip install 'asr[cluster]'"
MOST_RETRIES = 5  # of a shard whose worker dies: a recording that kills every worker must not stop the rest
IN_FLIGHT = 2  # shards that an actor has been given, so that it need not wait for the next


class RayError(UserError):
    """A cluster that cannot be reached or cannot do the work."""


@dataclass(frozen=True)
class RayConfig:
    """Where the cluster is, and what an actor takes of it; 0 workers: as many as there is room for."""

    address: str | None = None
    workers: int = 0
    cpus: float = 1.0
    gpus: float = 0.0


class ShardWorker:
    """An actor: opens a recogniser once, then transcribes the shards that it is given."""

    def __init__(self, job: Job) -> None:
        # Ray sets it to the whole cores that an actor takes, and to 1 for a part of one.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        self.job = job
        self.recognizer: Recognizer = job.open()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        columns = {name: list(values) for name, values in batch.items()}
        shards = [
            Shard(**{name: as_plain(value) for name, value in zip(columns, row, strict=True)})
            for row in zip(*columns.values(), strict=True)
        ]
        summaries = [asdict(self.transcribe(shard)) for shard in shards]
        return {name: [summary[name] for summary in summaries] for name in summaries[0]}

    def transcribe(self, shard: Shard) -> ShardSummary:
        """Transcribe a shard; what is wrong with it, the user is told in the end."""
        try:
            return transcribe_shard(self.recognizer, shard, self.job)
        except UserError as error:
            return ShardSummary(shard.number, 0, 0, 0.0, 0.0, problem=str(error))


def as_plain(value: Any) -> Any:
    """A number or string of numpy as one of Python."""
    return value.item() if hasattr(value, "item") else value


def parse_address(on: str) -> str | None:
    """The address in ``ray`` (``None``: the cluster that this machine belongs to, or a new one) or ``ray://...``.

    Raises ``UserError`` for anything else.
    """
    if on == "ray":
        return None
    if on.startswith("ray://") and len(on) > len("ray://"):
        return on
    raise UserError(f"--on: {on!r} is neither ray nor ray://HOST:PORT")


def transcribe_on_ray(shards: Sequence[Shard], job: Job, config: RayConfig) -> Iterator[ShardSummary]:
    """Transcribe ``shards`` on a cluster and yield what became of each, in the order in which they end.

    Raises ``RayError`` where Ray is missing, the cluster cannot be reached or has no room for one actor, or
    an actor cannot open the model.
    """
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError as Fault
    except ImportError as error:
        raise RayError(INSTALL) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        connect(ray, config.address)
    try:
        workers = count_workers(ray, config, len(shards))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # a shard that fails again and again is left, the others go on
        context.wait_for_min_actors_s = -1
        for name in ("ray.data", "ray.data._internal.execution.streaming_executor"):
            logging.getLogger(name).setLevel(logging.ERROR)
        job = replace(job, threads=max(1, int(config.cpus)))
        rows = [asdict(shard) for shard in shards]
        actors = ray.data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=IN_FLIGHT
        )
        with warnings.catch_warnings():
            # The limit of retries has no other way in; pyproject.toml keeps out the Ray that takes it away.
            warnings.simplefilter("ignore")
            summaries = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                ShardWorker,
                fn_constructor_args=(job,),
                batch_size=1,
                compute=actors,
                num_cpus=config.cpus,
                num_gpus=config.gpus,
                ray_remote_args_fn=lambda: {"max_task_retries": MOST_RETRIES},
            )
        for row in summaries.iter_rows():
            yield ShardSummary(**{name: as_plain(value) for name, value in row.items()})
    except Fault as error:
        raise RayError(f"Ray: {explain(error)}") from error
    finally:
        if is_ours:
            ray.shutdown()


def connect(ray: Any, address: str | None) -> None:
    """Join a cluster, or start one on this machine where there is none."""
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise RayError(f"Ray: {address or 'the cluster'} cannot be reached: {error}") from error


def count_workers(ray: Any, config: RayConfig, shards: int) -> int:
    """How many actors to start; raises ``RayError`` where there is no room for one."""
    room = ray.cluster_resources()
    fits = [
        int(room.get(name, 0.0) / each + 1e-9)
        for name, each in (("CPU", config.cpus), ("GPU", config.gpus))
        if each
    ]
    most = min(fits) if fits else 1
    if most < 1:
        raise RayError(
            f"Ray: the cluster has {room.get('CPU', 0):g} cores and {room.get('GPU', 0):g} GPUs, no room for "
            f"a worker of {config.cpus:g} cores and {config.gpus:g} GPUs"
        )
    return max(1, min(config.workers or most, shards))


def explain(error: BaseException) -> str:
    """What went wrong, in one line: that of the cause where Ray wraps one."""
    cause: BaseException = error
    while isinstance(deeper := getattr(cause, "cause", None), BaseException):
        cause = deeper
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
