"""``asr doctor``: say why a recipe does not learn."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from asr.cli._options import (
    data_option,
    device_option,
    recipe_argument,
    require_libraries,
    set_option,
    threads_option,
)
from asr.cli._progress import print_news
from asr.cli.train import read_experiment


@click.command()
@recipe_argument
@data_option
@set_option
@device_option
@threads_option
@click.option("--steps", type=click.IntRange(1), default=300, help="Steps in which to overfit.")
@require_libraries("torch", "torchaudio")
def doctor(
    recipe: Path,
    data: str | None,
    assignments: tuple[str, ...],
    device: str,
    threads: int | None,
    steps: int,
) -> None:
    """Check the data of RECIPE, overfit ten of its training utterances, and say what is wrong.

    A recipe that cannot do that will not learn more either. Every fault is a line on stdout and makes the
    exit status 1.
    """
    import torch

    from asr.core.cores import choose_threads
    from asr.model.precision import choose_device
    from asr.training.diagnosis import diagnose

    torch.set_num_threads(choose_threads(threads))
    experiment = read_experiment(recipe, data, assignments)
    faults = diagnose(experiment, choose_device(device), print_news, steps)
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    click.echo("healthy: the model overfits the utterances")
