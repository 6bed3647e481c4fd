"""What the verbs share that train a network on text: its options, where it is written, how it stops."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from asr.cli._progress import print_news
from asr.errors import UserError

Experiment = TypeVar("Experiment")
Say = Callable[[str], None]


def train_into_file(
    kind: type[Experiment],
    assignments: tuple[str, ...],
    print_config: bool,
    out: Path,
    train: Callable[[Experiment, Path, Say], Any],
    save: Callable[[Any, Path], None],
) -> None:
    """Train a network and write it to ``out``, or, with ``print_config``, print its options.

    ``train`` gets the experiment that ``--set`` makes of ``kind``, the folder beside ``out`` that the run is
    in, and where its news go; what it returns has pieces. Raises ``UserError`` for options that are wrong.
    """
    from asr.core.config import from_table, override, to_toml

    try:
        experiment = from_table(kind, override({}, assignments))
    except UserError as error:
        raise UserError(f"--set: {error}") from error
    if print_config:
        click.echo(to_toml(experiment, explained=True), nl=False)
        return
    folder = out.with_name(out.name + ".run")
    with run_on_text():
        model = train(experiment, folder, print_news)
    save(model, out)
    print_news(
        f"{out}: {len(model.pieces):,} pieces, {out.stat().st_size / 1e6:.1f} MB; "
        f"{folder} is no longer needed"
    )


@contextmanager
def run_on_text() -> Iterator[None]:
    """Give torch the threads that it may have; where a signal stops the run, say so and exit as it asks."""
    import torch

    from asr.core.cores import choose_threads
    from asr.training.loop import TrainingStopped

    torch.set_num_threads(choose_threads(None))
    try:
        yield
    except TrainingStopped as stopped:
        print_news(f"stopped at step {stopped.step}; the same command resumes there")
        sys.exit(128 + stopped.signal_number)
