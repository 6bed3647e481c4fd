"""``asr doctor``: why a recipe does not learn, in words."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from asr.cli.threads import threads_option
from asr.cli.train import read_experiment, say


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", type=str, help="Folder of the manifests, instead of the recipe's data.folder.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a recipe's key.")
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
@threads_option
@click.option("--steps", type=click.IntRange(1), default=300, help="Steps in which to learn by heart.")
def doctor(
    recipe: Path,
    data: str | None,
    assignments: tuple[str, ...],
    device: str,
    threads: int | None,
    steps: int,
) -> None:
    """Look at ten training utterances of RECIPE, learn them by heart, and say what is wrong.

    A recipe that cannot do that will not learn more either. Every fault is a line on stdout, and
    makes the exit status 1.
    """
    import torch

    from asr.core.cores import choose_threads
    from asr.model.precision import choose_device
    from asr.training.diagnosis import diagnose

    if threads:
        torch.set_num_threads(choose_threads(threads))
    faults = diagnose(read_experiment(recipe, data, assignments), choose_device(device), say, steps)
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    click.echo("healthy: the utterances are learned by heart")
