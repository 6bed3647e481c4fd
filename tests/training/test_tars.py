"""Training from tar files: each is read once an epoch, and a run that resumes ends with the same bytes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from asr.cli import cli
from asr.data.tars import TarReader
from asr.training import loop
from asr.training.batching import count_batches, plan_windows
from asr.training.checkpoints import list_checkpoints
from asr.training.examples import plan_by_duration
from asr.training.experiment import Experiment
from asr.training.loop import TrainingStopped, train
from asr.training.run import TrainingError, epoch_updates, prepare_run
from asr.training.steps import load_own_batches
from tests.tiny import tiny_experiment

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experiment(tones, tmp_path_factory) -> Experiment:
    folder = tmp_path_factory.mktemp("packed")
    for split, size in {"train": 4, "dev": 100}.items():
        command = ["pack", str(tones / f"{split}.jsonl"), "-o", str(folder), "--tar-size", str(size)]
        assert CliRunner().invoke(cli, command).exit_code == 0
    return tiny_experiment(
        folder, encoder={"dropout": 0.1}, augment={"noise_share": 0.5, "speeds": (0.9, 1.0)},
        features={"normalisation": "global"}, batch_seconds=3.0, window_tars=2, checkpoint_steps=1,
    )  # fmt: skip


WINDOWS = [[4, 1, 0], [2, 3, 9, 8], [5, 6, 7]]
DURATIONS = np.random.default_rng(1).uniform(1, 9, 10).tolist()


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("ascending", [False, True])
def test_an_epoch_has_every_example_once_window_by_window(ranks, ascending):
    plans = [plan_windows(DURATIONS, WINDOWS, 12.0, 1, epoch, ranks, ascending) for epoch in range(4)]
    for plan in plans:
        order = [index for batch in plan for index in batch]
        assert sorted(order) == list(range(10))
        homes = [next(n for n, window in enumerate(WINDOWS) if index in window) for index in order]
        assert sum(a != b for a, b in pairwise(homes)) == len(WINDOWS) - 1
        assert len(plan) == count_batches(DURATIONS, WINDOWS, 12.0, ranks)
        assert len(plan) % ranks == 0
    assert ascending or plans[0] != plans[1]
    assert plans[0] == plan_windows(DURATIONS, WINDOWS, 12.0, 1, 0, ranks, ascending)


def test_a_pass_goes_window_by_window():
    plan = plan_by_duration(DURATIONS, 12.0, WINDOWS)
    order = [index for batch in plan for index in batch]
    assert [set(order[:3]), set(order[3:7]), set(order[7:])] == [set(window) for window in WINDOWS]


def test_each_tar_file_is_read_once_an_epoch(experiment, tmp_path):
    run = prepare_run(experiment, tmp_path / "run", CPU)
    reader = run.data.read
    assert isinstance(reader, TarReader)
    assert [len(window) for window in run.data.windows] == [8, 8, 8]
    before = reader.reads
    names = [name for batch in load_own_batches(run, epoch_updates(run)) for name in batch.ids]
    assert len(names) == len(set(names)) == 24
    assert reader.reads - before <= 6
    assert run.steps_per_epoch == len(epoch_updates(run))


def test_a_run_that_resumes_in_the_middle_of_a_window_ends_with_the_same_bytes(experiment, tmp_path):
    train(experiment, tmp_path / "whole", CPU, say=lambda line: None)

    taken = 0
    original = loop.take_step

    def take_some(*arguments, **options):
        nonlocal taken
        taken += 1
        metrics, stopping = original(*arguments, **options)
        return metrics, stopping or taken == 5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_step", take_some)
        with pytest.raises(TrainingStopped):
            train(experiment, tmp_path / "stopped", CPU, say=lambda line: None)
    train(experiment, tmp_path / "stopped", CPU, say=lambda line: None)
    models = [tmp_path / name / "model.safetensors" for name in ("whole", "stopped")]
    assert models[0].read_bytes() == models[1].read_bytes()
    ends = [list_checkpoints(tmp_path / name)[-1] / "state.safetensors" for name in ("whole", "stopped")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


@pytest.mark.parametrize(
    ("section", "change", "says"),
    [
        ("training", {"cache": "cache"}, "training.cache"),
        ("augment", {"noise_kinds": ("babble",), "noise_share": 0.5}, "babble"),
    ],
)
def test_what_reads_in_another_order_is_refused(experiment, tmp_path, section, change, says):
    other = replace(experiment, **{section: replace(getattr(experiment, section), **change)})
    with pytest.raises(TrainingError, match=says):
        prepare_run(other, Path(tmp_path), CPU)
