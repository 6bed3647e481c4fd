"""Checkpoints: all that a run needs to resume, written so that a crash at any moment costs little.

A checkpoint is a folder ``checkpoints/step-00001234`` with tensors (safetensors), the progress (JSON),
the config (TOML) and the checksums of all three, in the form that ``sha256sum -c`` reads. It is written
under a hidden name, synced to the disk and renamed; the one before it is kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from asr.core.files import name_errors, sync
from asr.errors import UserError
from asr.model.folder import save_config, write_tensors
from asr.pretrained import CONFIG_FILE
from asr.recognition.model_files import compute_checksum

CHECKPOINTS = "checkpoints"
STATE_FILE = "state.safetensors"
PROGRESS_FILE = "progress.json"
CHECKSUMS_FILE = "SHA256SUMS"
KEPT = 2


class CheckpointError(UserError):
    """A checkpoint that a run cannot resume from."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was read."""

    path: Path
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


def write_checkpoint(
    run_folder: Path, step: int, tensors: Mapping[str, Tensor], progress: Mapping[str, Any], config: object
) -> Path:
    """Write the checkpoint of ``step`` and return its folder; the one before it stays, all others go."""
    folder = run_folder / CHECKPOINTS
    final = folder / f"step-{step:08d}"
    temporary = folder / f".{final.name}"
    shutil.rmtree(temporary, ignore_errors=True)  # a killed process may have left a part
    temporary.mkdir(parents=True)
    try:
        with name_errors(final):
            write_tensors(tensors, temporary / STATE_FILE)
            (temporary / PROGRESS_FILE).write_text(json.dumps(progress), encoding="utf-8")
            save_config(config, temporary)
            sums = [f"{compute_checksum(file)}  {file.name}\n" for file in sorted(temporary.iterdir())]
            (temporary / CHECKSUMS_FILE).write_text("".join(sums), encoding="utf-8")
            for file in [*temporary.iterdir(), temporary]:
                sync(file)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # the disk is full: it needs the room
        raise
    shutil.rmtree(final, ignore_errors=True)  # it may be saved twice: by the clock and by a signal
    temporary.replace(final)
    sync(folder)
    remove_old(folder, final)
    return final


def remove_old(folder: Path, newest: Path) -> None:
    """Keep ``newest`` and the ones before it, ``KEPT`` in all; later ones belong to an abandoned future."""
    whole = sorted(folder.glob("step-*"))
    keep = [path for path in whole if path.name <= newest.name][-KEPT:]
    for path in [*whole, *folder.glob(".step-*")]:
        if path not in keep:
            shutil.rmtree(path)


def list_checkpoints(run_folder: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    return sorted((run_folder / CHECKPOINTS).glob("step-*"))


def newest_checkpoint(run_folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """Read the newest sound checkpoint; ``None`` for a run that has none yet.

    ``warn`` gets a line about every newer one that is damaged. Raises ``CheckpointError`` when all are.
    """
    found = list_checkpoints(run_folder)
    for path in reversed(found):
        try:
            return read_checkpoint(path)
        except CheckpointError as error:
            warn(f"{error}; trying the one before")
    if found:
        raise CheckpointError(
            f"{run_folder / CHECKPOINTS}: every checkpoint is damaged; delete the folder to start again"
        )
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint; raises ``CheckpointError`` unless it is byte for byte what was written."""
    try:
        lines = (path / CHECKSUMS_FILE).read_text(encoding="utf-8").splitlines()
        sums = {name: expected for expected, name in (line.split("  ", 1) for line in lines)}
        for name in (STATE_FILE, PROGRESS_FILE, CONFIG_FILE):
            if compute_checksum(path / name) != sums.get(name):
                raise CheckpointError(f"{path}: is damaged: {name} is not what was written")
        progress = json.loads((path / PROGRESS_FILE).read_text(encoding="utf-8"))
        return Checkpoint(path, load_file(path / STATE_FILE), progress)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is damaged: {error}") from error
