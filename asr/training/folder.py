"""The run folder: made one experiment's, and locked while a process trains in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from asr.core.config import from_table, read_toml, to_table, to_toml
from asr.errors import UserError
from asr.model.folder import save_config
from asr.pretrained import CONFIG_FILE
from asr.training.distributed import Ranks
from asr.training.experiment import Experiment
from asr.training.run import TrainingError

LOCK_FILE = ".lock"  # locked while a process trains in the folder; it stays there afterwards


@contextmanager
def lock_folder(experiment: Experiment, folder: Path, ranks: Ranks) -> Iterator[None]:
    """Make ``folder`` this experiment's, and let no other run write there during the block.

    The first process does it and tells the others how it went. The system releases the lock of a run that
    is killed.

    Raises ``TrainingError`` when another process trains there, when the folder belongs to another
    experiment or holds something else, and when it cannot be written to.
    """
    lock = filelock.FileLock(folder / LOCK_FILE)
    problem = ""
    if ranks.is_first:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            refuse_other_contents(folder)
            lock.acquire(timeout=ranks.lock_seconds)
            claim_folder(experiment, folder)
        except filelock.Timeout:
            problem = f"{folder}: another process is training there; wait for it, or choose another --out"
        except OSError as error:
            problem = f"{error.filename or folder}: {error.strerror}"
        except UserError as error:
            problem = str(error)
    problem = ranks.broadcast(problem)
    try:
        if problem:
            raise TrainingError(problem)
        if not (folder / CONFIG_FILE).exists():
            raise TrainingError(f"{folder}: is not on this machine; all processes must share the run folder")
        yield
    finally:
        lock.release()


def refuse_other_contents(folder: Path) -> None:
    """Raise ``TrainingError`` for a folder that is neither empty nor a run."""
    if list_visible(folder) and not (folder / CONFIG_FILE).exists():
        raise TrainingError(f"{folder}: is neither empty nor a training run; choose another --out")


def list_visible(folder: Path) -> set[str]:
    """Names in a folder without those that begin with a dot, which a process killed early may leave."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def claim_folder(experiment: Experiment, folder: Path) -> None:
    """Write the experiment's config into ``folder``, or check that it is there already.

    Raises ``TrainingError`` when the folder was begun with another config.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        save_config(experiment, folder)
        return
    before = from_table(Experiment, read_toml(path))
    differences = find_differences(to_table(before), to_table(experiment))
    # A config that save_config wrote and that stands there alone is of a start that failed over its data:
    # the corrected recipe may differ. A recipe that somebody wrote is not replaced.
    if (
        differences
        and list_visible(folder) == {CONFIG_FILE}
        and path.read_text(encoding="utf-8") == to_toml(before)
    ):
        save_config(experiment, folder)
    elif differences:
        raise TrainingError(
            f"{folder}: was begun with another config ({', '.join(differences)} differ); "
            "choose another --out (with --set training.initial=MODEL it begins with MODEL's weights), "
            "or go back to its config.toml"
        )


def find_differences(left: dict[str, Any], right: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the keys whose values differ in two tables of the same form."""
    names = []
    for key, value in left.items():
        if isinstance(value, dict):
            names += find_differences(value, right[key], f"{prefix}{key}.")
        elif value != right[key]:
            names.append(prefix + key)
    return names
