"""A full disk, damaged files: training ends in one line that names the file, and goes on afterwards."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from asr.cli.train import show_thread_error
from asr.model.folder import load_acoustic_model, write_tensors
from asr.recognition.model_files import check_model_folder
from asr.training import loop
from asr.training.loop import train
from asr.training.run import Run, TrainingError
from asr.training.selection import BEST, average_best, read_best
from tests.tiny import tiny_experiment

CPU = torch.device("cpu")


def test_a_full_disk_is_one_line_that_names_the_file_and_the_run_goes_on_afterwards(
    tones, tmp_path, monkeypatch
):
    """A limit on the size of files fails like a full disk, and at the same places."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(threading, "excepthook", show_thread_error)
    experiment = tiny_experiment(tones, average_best=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    named = set()
    for size in (200, 9_000, 30_000, 45_000, 80_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            train(experiment, tmp_path / "run", CPU, say=lambda line: None)
        except OSError as error:
            assert Path(error.filename).is_relative_to(tmp_path)
            assert error.strerror
            named.add(Path(error.filename).name)
        except TrainingError as error:
            named.add(Path(str(error).partition(": ")[0]).name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "config.toml" in named
    assert any(name.endswith(".safetensors") for name in named)
    assert not list(tmp_path.glob("run/**/.*.safetensors")), "no half of a file takes the last room"
    progress = train(experiment, tmp_path / "run", CPU, say=lambda line: None)
    assert progress.epoch == 2
    check_model_folder(tmp_path / "run")


def test_damaged_weights_among_the_best_are_left_out_and_said(tones, tmp_path, monkeypatch):
    news: list[str] = []

    def damage_one(run: Run, journal: loop.Journal) -> str:
        file = sorted((tmp_path / "run" / BEST).glob("*.safetensors"))[0]
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        assert read_best(file) is None
        return average_best(run, journal)

    monkeypatch.setattr(loop, "average_best", damage_one)
    train(tiny_experiment(tones, average_best=2), tmp_path / "run", CPU, say=news.append)
    assert any("average of the best 1, 1 damaged or missing and left out" in line for line in news)
    load_acoustic_model(tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_are_no_weights_are_none_of_the_best(tmp_path, content):
    (tmp_path / "step-00000001.safetensors").write_bytes(content)
    assert read_best(tmp_path / "step-00000001.safetensors") is None


def test_tensors_that_cannot_be_written_raise_what_any_file_raises(tmp_path):
    with pytest.raises(OSError) as caught:
        write_tensors({"a": torch.zeros(3)}, tmp_path / "no-folder" / "a.safetensors")
    assert caught.value.errno == 2
    assert caught.value.filename == str(tmp_path / "no-folder" / "a.safetensors")


def test_a_thread_with_another_error_still_shows_it(capsys):
    def show(error: Exception) -> str:
        fault = threading.ExceptHookArgs((type(error), error, None, None))
        show_thread_error(fault)
        return capsys.readouterr().err

    assert show(OSError(28, "No space left on device")) == ""
    assert "KeyError" in show(KeyError("name"))
