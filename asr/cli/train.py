"""``asr train``: make a run folder from a recipe."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asr.cli._options import (
    data_option,
    device_option,
    require_libraries,
    set_option,
    threads_option,
)
from asr.cli._progress import print_news

if TYPE_CHECKING:
    import torch

    from asr.training.experiment import Experiment

# Before torch is loaded: threads that spin while they wait slow each other down on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@click.command()
@click.argument("recipe", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--from",
    "model",
    metavar="MODEL",
    help="Fine-tune a model folder or a shipped model with the manifests in --data, instead of a RECIPE.",
)
@click.option(
    "-o", "--out", metavar="DIR", type=click.Path(path_type=Path), help="Run folder; an existing run resumes."
)
@data_option
@set_option
@device_option
@threads_option
@click.option("--dry-run", is_flag=True, help="Print the plan, try the largest batch once, write nothing.")
@click.option("--print-config", is_flag=True, help="Print the config with every key explained, and stop.")
@require_libraries("torch", "torchaudio")
def train(
    recipe: Path | None,
    model: str | None,
    out: Path | None,
    data: str | None,
    assignments: tuple[str, ...],
    device: str,
    threads: int | None,
    dry_run: bool,
    print_config: bool,
) -> None:
    """Train a model from RECIPE, a TOML file, or from a model, or resume a run that was stopped.

    The run folder is a model folder with the weights that did best in validation, the config and the
    tokens; beside them are metrics.jsonl, tensorboard/ and checkpoints/. Ctrl-C saves and stops; the same
    command resumes where the run was stopped or killed.

    With --from MODEL --data DIR, the network, the lexicon, the language model and the search are MODEL's, and
    training goes on from its weights with train.jsonl in DIR; dev.jsonl there chooses the best of them.

    On several GPUs or machines: torchrun --nproc-per-node N -m asr train ...
    """
    import torch

    from asr.core.config import to_toml
    from asr.core.cores import choose_threads
    from asr.model.precision import choose_device

    if (recipe is None) == (model is None):
        raise click.UsageError("Give a RECIPE, or --from MODEL with --data DIR.")
    if model is not None and data is None:
        raise click.UsageError("--from needs --data: the folder with train.jsonl.")
    if recipe is not None:
        experiment = read_experiment(recipe, data, assignments)
    else:
        experiment = make_experiment(model or "", data or "", assignments)
    if print_config:
        click.echo(to_toml(experiment, explained=True), nl=False)
        return
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out': the run folder.")
    torch.set_num_threads(choose_threads(threads))
    run_training(experiment, None if dry_run else out, choose_device(device))


def read_experiment(recipe: Path, data: str | None, assignments: tuple[str, ...]) -> Experiment:
    """Read a recipe and override it as the command line asks; raises ``UserError`` naming the culprit."""
    from asr.core.config import from_table, override, read_toml
    from asr.errors import UserError
    from asr.training.experiment import Experiment, with_data_folder

    table = read_toml(recipe)
    try:
        experiment = from_table(Experiment, override(table, assignments))
    except UserError as error:
        blamed = recipe if find_fault(table) == str(error) else "--set"
        raise UserError(f"{blamed}: {error}") from error
    return with_data_folder(experiment, data)


def make_experiment(model: str, data: str, assignments: tuple[str, ...]) -> Experiment:
    """Make the recipe that fine-tunes a model, with what the command line overrides."""
    from asr.core.config import from_table, override, to_table
    from asr.errors import UserError
    from asr.training.experiment import Experiment
    from asr.training.finetuning import make_recipe

    recipe = make_recipe(model, data)
    try:
        return from_table(Experiment, override(to_table(recipe), assignments))
    except UserError as error:
        raise UserError(f"--set: {error}") from error


def find_fault(table: dict[str, Any]) -> str:
    """What is wrong with a recipe as it stands; nothing where it is sound."""
    from asr.core.config import from_table
    from asr.errors import UserError
    from asr.training.experiment import Experiment

    try:
        from_table(Experiment, table)
    except UserError as error:
        return str(error)
    return ""


def run_training(experiment: Experiment, out: Path | None, device: torch.device) -> None:
    """Train in ``out``, or make a dry run; several processes where torchrun has started them."""
    from asr.errors import UserError
    from asr.training.distributed import device_of_rank, join_process_group
    from asr.training.dry_run import dry_run
    from asr.training.loop import TrainingStopped, train

    threading.excepthook = show_thread_error
    device = device_of_rank(device)
    with join_process_group(device) as ranks:
        try:
            if out is None:
                for line in dry_run(experiment, device, ranks):
                    if ranks.is_first:
                        click.echo(line)
                return
            train(experiment, out, device, print_news, sys.stderr.isatty(), ranks)
        except TrainingStopped as stopped:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # everything is saved: there is nothing left to stop
            if ranks.is_first:
                print_news(f"stopped at step {stopped.step}; the same command resumes there")
            sys.exit(128 + stopped.signal_number)
        except UserError:
            if ranks.is_first:
                raise
            sys.exit(1)  # the first process reports it
        if ranks.is_first:
            print_news(f"the model is in {out}")


def show_thread_error(fault: threading.ExceptHookArgs) -> None:
    """Show what went wrong in a thread, but for a full disk: TensorBoard's thread tells its caller, too."""
    if not issubclass(fault.exc_type, OSError):
        threading.__excepthook__(fault)
