"""``asr train``: a recipe in, a run folder out."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asr.cli.threads import threads_option

if TYPE_CHECKING:
    import torch

    from asr.training.experiment import Experiment

# Before torch is loaded: threads that spin while they wait slow each other down on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Run folder; an existing one goes on.")
@click.option("--data", type=str, help="Folder of the manifests, instead of the recipe's data.folder.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a recipe's key.")
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
@threads_option
@click.option("--dry-run", is_flag=True, help="Print the plan, take the largest batch once, write nothing.")
@click.option("--print-config", is_flag=True, help="Print the whole config, each key explained, and stop.")
def train(
    recipe: Path,
    out: Path | None,
    data: str | None,
    assignments: tuple[str, ...],
    device: str,
    threads: int | None,
    dry_run: bool,
    print_config: bool,
) -> None:
    """Train a model from RECIPE, a TOML file, or go on with a run that was stopped.

    The run folder is a model folder: the weights that did best in validation, the config, the
    tokens; beside them metrics.jsonl, tensorboard/ and checkpoints/. Ctrl-C saves and stops; the
    same command again goes on where it stopped, or where it was killed.

    On several GPUs or machines: torchrun --nproc-per-node N -m asr train ...
    """
    import torch

    from asr.core.config import to_toml
    from asr.core.cores import choose_threads
    from asr.model.precision import choose_device

    experiment = read_experiment(recipe, data, assignments)
    if print_config:
        click.echo(to_toml(experiment, explained=True), nl=False)
        return
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out': the run folder.")
    if threads:
        torch.set_num_threads(choose_threads(threads))
    run_to_the_end(experiment, None if dry_run else out, choose_device(device))


def read_experiment(recipe: Path, data: str | None, assignments: tuple[str, ...]) -> Experiment:
    """A recipe with what the command line says otherwise."""
    from asr.core.config import from_table, override, read_toml
    from asr.errors import UserError
    from asr.training.experiment import Experiment, with_data_folder

    table = read_toml(recipe)
    try:
        experiment = from_table(Experiment, override(table, assignments))
    except UserError as error:
        blamed = recipe if says(table) == str(error) else "--set"
        raise UserError(f"{blamed}: {error}") from error
    return with_data_folder(experiment, data)


def says(table: dict[str, Any]) -> str:
    """What is wrong with a recipe as it stands."""
    from asr.core.config import from_table
    from asr.errors import UserError
    from asr.training.experiment import Experiment

    try:
        from_table(Experiment, table)
    except UserError as error:
        return str(error)
    return ""


def run_to_the_end(experiment: Experiment, out: Path | None, device: torch.device) -> None:
    """Train in ``out``, or rehearse; with the other processes where torchrun has started several."""
    from asr.errors import UserError
    from asr.training.distributed import device_of_rank, join_process_group
    from asr.training.dry_run import dry_run
    from asr.training.loop import TrainingStopped, train

    device = device_of_rank(device)
    with join_process_group(device) as ranks:
        try:
            if out is None:
                for line in dry_run(experiment, device, ranks):
                    if ranks.is_first:
                        click.echo(line)
                return
            train(experiment, out, device, say, sys.stderr.isatty(), ranks)
        except TrainingStopped as stopped:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # all is saved: there is nothing left to stop
            if ranks.is_first:
                say(f"stopped at step {stopped.step}; the same command goes on from there")
            sys.exit(128 + stopped.signal_number)
        except UserError:
            if ranks.is_first:
                raise
            sys.exit(1)  # the first process says what it is
        if ranks.is_first:
            say(f"the model is in {out}")


def say(line: str) -> None:
    """News on stderr, above a progress bar where there is one."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
