"""``asr transcribe MANIFEST --shard I/N`` and ``--on ray``: a manifest in shards instead of recordings."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asr.cli._options import Opening
from asr.core.places import is_url
from asr.errors import UserError
from asr.pretrained import find_model_folder
from asr.recognition.folder import WEIGHTS_FILE
from asr.recognition.model_files import compute_checksum

if TYPE_CHECKING:
    from asr.bulk.manifests import Plan, Shard
    from asr.bulk.work import Job, ShardSummary
    from asr.longform.transcripts import LongformConfig

NEWS_SECONDS = 30.0  # between two lines where nobody watches a terminal

Command = Callable[..., Any]

BULK_OPTIONS = [
    click.option(
        "--shard", "part", metavar="I/N",
        help="AUDIO is a manifest, JSONL or Parquet, a path or a URL: transcribe the I-th of N parts of it, "
        "as a task of a batch system, into the folder -o. What is done there already is left out.",
    ),
    click.option(
        "--on", metavar="ray[://HOST:PORT]",
        help="AUDIO is a manifest: transcribe it on the Ray cluster that this machine belongs to, on a new "
        "one if it belongs to none, or on another (extra cluster).",
    ),
    click.option(
        "--shard-size", default=256, type=click.IntRange(1), metavar="N",
        help="Utterances of a manifest that go into one file; files of over 4 hours are cut.",
    ),
    click.option(
        "--workers", default=0, type=click.IntRange(0), metavar="N",
        help="Recognisers on Ray; 0: as many as there is room for.",
    ),
    click.option(
        "--worker-cpus", default=1.0, type=click.FloatRange(0.01), metavar="N", help="Cores of each of them."
    ),
    click.option(
        "--worker-gpus", default=0.0, type=click.FloatRange(0), metavar="N",
        help="GPUs of each; four share one with 0.25.",
    ),
]  # fmt: skip


def bulk_options(command: Command) -> Command:
    """Add ``BULK_OPTIONS`` to a command."""
    for option in reversed(BULK_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class BulkRequest:
    """What the command line asks for."""

    manifest: str
    out: str
    part: str | None
    on: str | None
    shard_size: int
    workers: int
    worker_cpus: float
    worker_gpus: float
    output_format: str | None
    opening: Opening
    longform: LongformConfig


def transcribe_manifest(request: BulkRequest) -> int:
    """Transcribe the shards of a manifest that are left; returns the exit status."""
    from asr.bulk.batch_system import parse_part, transcribe_part
    from asr.bulk.manifests import plan_shards
    from asr.bulk.on_ray import RayConfig, parse_address, transcribe_on_ray
    from asr.bulk.output import claim_output, list_finished

    part = None if request.part is None else parse_part(request.part)
    address = None if request.on is None else parse_address(request.on)
    job = make_job(request)
    plan = plan_shards(make_absolute(request.manifest), request.shard_size)
    claim_output(job.output, plan, request.shard_size, describe_job(job))
    shards = list(plan.shards) if part is None else part.choose(plan.shards)
    finished = list_finished(job.output)
    left = [shard for shard in shards if shard.number not in finished]
    click.echo(describe_plan(plan, shards, left, part is not None), err=True)
    tally = BulkTally(len(left), sum(shard.seconds for shard in left))
    summaries: Iterable[ShardSummary] = ()
    if left and part is not None:
        summaries = transcribe_part(left, job, request.opening.open)
    elif left:
        config = RayConfig(address, request.workers, request.worker_cpus, request.worker_gpus)
        summaries = transcribe_on_ray(left, job, config)
    try:
        for summary in summaries:
            tally.add(summary)
    except KeyboardInterrupt:
        click.echo(f"asr: interrupted; the same command goes on: {tally.summary}", err=True)
        return 130
    click.echo(tally.summary, err=True)
    for problem in dict.fromkeys(tally.problems):
        click.echo(f"asr: {problem}", err=True)
    missing = {shard.number for shard in left} - list_finished(job.output)
    if missing:
        numbers = ", ".join(map(str, sorted(missing)[:10]))
        click.echo(
            f"asr: {len(missing)} shards were given up: {numbers}; the same command tries them once more",
            err=True,
        )
    if tally.errors:
        click.echo(
            f"asr: {tally.errors} recordings could not be read: {job.output.folder}/errors-*", err=True
        )
    return 1 if missing or tally.errors else 0


def make_job(request: BulkRequest) -> Job:
    """How the shards are transcribed; raises ``UserError`` for a format that is none of tables."""
    from asr.bulk.output import Output
    from asr.bulk.work import Job
    from asr.cli._options import SETTINGS

    output_format = request.output_format or "jsonl"
    if output_format not in ("jsonl", "parquet"):
        raise UserError(f"-f {output_format}: a manifest is transcribed to jsonl or parquet")
    given = request.opening.search
    model = find_model_folder(request.opening.model)
    return Job(
        model=str(model.resolve()) if Path(request.opening.model).is_dir() else request.opening.model,
        output=Output(make_absolute(request.out), output_format),  # type: ignore[arg-type]
        device=request.opening.device,
        compute_type=request.opening.compute_type,
        lm=given["lm"] if given["lm"] in (None, "none") else make_absolute(given["lm"]),
        hotwords=make_absolute(given["hotwords"]) if given["hotwords"].startswith("@") else given["hotwords"],
        search={key: given[key] for key in SETTINGS if given[key] is not None},
        longform=request.longform,
    )


def make_absolute(place: str) -> str:
    """A path, or ``@`` and a path, so that workers in other folders find it; a URL stays as it is."""
    if place.startswith("@"):
        return "@" + make_absolute(place[1:])
    return place if is_url(place) else os.path.abspath(place)  # noqa: PTH100 - links keep their names


def describe_job(job: Job) -> dict[str, Any]:
    """What the texts depend on, for ``plan.json``."""
    return {
        "model": find_model_folder(job.model).resolve().name,
        "weights": compute_checksum(find_model_folder(job.model) / WEIGHTS_FILE),
        "compute_type": job.compute_type,
        "lm": job.lm,
        "hotwords": job.hotwords,
        "search": dict(job.search),
        "recordings": {key: value for key, value in asdict(job.longform).items() if key != "batch_size"},
    }


def describe_plan(plan: Plan, shards: list[Shard], left: list[Shard], is_part: bool) -> str:
    """What there is to do, in a line."""
    own = f"{len(shards)} of {len(plan.shards)} shards are this process's, " if is_part else ""
    return (
        f"{plan.rows:,} utterances, {plan.hours:,.2f} hours, in {len(plan.shards)} shards; {own}"
        f"{len(shards) - len(left)} are done"
    )


@dataclass
class BulkTally:
    """How far the work is, and how fast; prints a line now and then."""

    shards: int
    stated: float  # seconds of audio in all of them, by the manifest
    done: int = 0
    results: int = 0
    errors: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    said: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, summary: ShardSummary) -> None:
        """Count one more shard; on a terminal every one shows, elsewhere one in ``NEWS_SECONDS``."""
        self.done += not summary.problem
        self.problems += [summary.problem] if summary.problem else []
        self.results += summary.results
        self.errors += summary.errors
        self.seconds += summary.seconds
        now = time.monotonic()
        if sys.stderr.isatty():
            click.echo(f"\r\x1b[K{self.progress}", nl=self.done == self.shards, err=True)
        elif now - self.said > NEWS_SECONDS:
            click.echo(self.progress, err=True)
            self.said = now

    @property
    def speed(self) -> float:
        """Times real time."""
        return self.seconds / max(time.monotonic() - self.started, 1e-9)

    @property
    def progress(self) -> str:
        """How far the work is, and how long it will take."""
        hours = f"{self.seconds / 3600:,.2f} hours at {self.speed:,.0f} times real time"
        line = f"{self.done} of {self.shards} shards, {hours}"
        left = max(0.0, self.stated - self.seconds) / self.speed if self.speed else 0.0
        return f"{line}, {self.errors} failed" + (f", {left / 60:,.0f} minutes left" if left > 60 else "")

    @property
    def summary(self) -> str:
        """The closing line."""
        return (
            f"{self.results:,} utterances in {self.done} shards, {self.seconds / 3600:,.2f} hours "
            f"at {self.speed:,.0f} times real time, {self.errors} failed"
        )
