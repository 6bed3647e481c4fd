"""Checkpoints: what is read is what was written, and damage costs one checkpoint, not the run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from asr.training.checkpoints import (
    CHECKPOINTS,
    CHECKSUMS_FILE,
    PROGRESS_FILE,
    STATE_FILE,
    CheckpointError,
    list_checkpoints,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from asr.training.experiment import Experiment


def written(folder: Path, step: int) -> Path:
    tensors = {"weight": torch.full((3, 4), float(step)).t(), "count": torch.tensor(step)}
    return write_checkpoint(folder, step, tensors, {"step": step, "loss": 0.1 + 0.2}, Experiment())


def names(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


def test_what_is_read_is_what_was_written(tmp_path):
    found = read_checkpoint(written(tmp_path, 7))
    assert found.progress == {"step": 7, "loss": 0.1 + 0.2}
    assert torch.equal(found.tensors["weight"], torch.full((4, 3), 7.0))
    assert found.tensors["count"].item() == 7
    assert (found.path / "config.toml").read_text().startswith("format_version")


def test_a_run_without_checkpoints_has_no_newest_one(tmp_path):
    assert newest_checkpoint(tmp_path, pytest.fail) is None


def test_the_one_before_is_kept_and_no_more(tmp_path):
    for step in (3, 6, 9):
        written(tmp_path, step)
    assert names(tmp_path) == ["step-00000006", "step-00000009"]


def test_a_step_can_be_saved_again(tmp_path):
    for step in (3, 6, 6):
        written(tmp_path, step)
    assert names(tmp_path) == ["step-00000003", "step-00000006"]


def test_a_future_that_was_given_up_does_not_come_back(tmp_path):
    for step in (3, 6, 9, 7):
        written(tmp_path, step)
    assert names(tmp_path) == ["step-00000006", "step-00000007"]


def test_what_a_killed_process_left_half_written_is_no_checkpoint_and_goes(tmp_path):
    half = tmp_path / CHECKPOINTS / ".step-00000009"
    written(tmp_path, 3)
    half.mkdir()
    (half / STATE_FILE).write_bytes(b"half")
    assert newest_checkpoint(tmp_path, pytest.fail).progress["step"] == 3
    written(tmp_path, 6)
    assert not half.exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [STATE_FILE, PROGRESS_FILE, "config.toml", CHECKSUMS_FILE])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_damage_to_any_file_falls_back_with_a_warning(tmp_path, name, damage):
    written(tmp_path, 3)
    newest = written(tmp_path, 6)
    damage(newest / name)
    warnings: list[str] = []
    assert newest_checkpoint(tmp_path, warnings.append).progress["step"] == 3
    assert len(warnings) == 1
    assert str(newest) in warnings[0]
    assert "damaged" in warnings[0]


def test_a_checksum_file_that_leaves_a_file_out_is_damage(tmp_path):
    newest = written(tmp_path, 3)
    (newest / CHECKSUMS_FILE).write_text("")
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(newest)


def test_when_all_are_damaged_nobody_begins_anew_unasked(tmp_path):
    for step in (3, 6):
        flip(written(tmp_path, step) / STATE_FILE)
    warnings: list[str] = []
    with pytest.raises(CheckpointError, match="delete the folder"):
        newest_checkpoint(tmp_path, warnings.append)
    assert len(warnings) == 2


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="this system has no sha256sum")
def test_the_checksums_are_those_of_sha256sum(tmp_path):
    folder = written(tmp_path, 3)
    subprocess.run(["sha256sum", "--check", "--quiet", CHECKSUMS_FILE], cwd=folder, check=True)
