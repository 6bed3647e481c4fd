"""``--dry-run``: the plan in figures, the largest batch taken, nothing written."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from asr.cli import cli
from asr.core.config import to_toml
from asr.training.batching import Batch
from asr.training.dry_run import describe_memory, dry_run, find_largest_batch
from asr.training.examples import Plan
from asr.training.experiment import Experiment
from asr.training.loop import train
from asr.training.run import Run, TrainingError, prepare_run, save_checkpoint
from asr.training.steps import take_step
from tests.tiny import tiny_experiment

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def experiment(tones) -> Experiment:
    return tiny_experiment(tones, augment={"speeds": (0.8, 1.0, 1.25)}, batch_seconds=6.0, warmup_steps=2)


def test_the_plan_is_that_of_the_run(experiment, tmp_path):
    lines = list(dry_run(experiment, CPU))
    train(experiment, tmp_path / "run", CPU, lambda line: None)
    steps = (tmp_path / "run" / "metrics.jsonl").read_text().count('"loss"')
    assert f"{steps} steps on cpu" in lines[0]
    assert f"{steps // 2} steps; 2 epochs" in lines[1]
    padding = float(re.search(r"([\d.]+) % padding", lines[1])[1])
    assert 0 < padding < 20


def test_without_the_module_resource_the_peak_of_memory_is_left_out(experiment, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows
    lines = list(dry_run(experiment, CPU))
    assert re.match(r"it took [\d.]+ s; its loss is [\d.]+ nats", lines[-1])


def test_the_largest_batch_is_taken_at_the_slowest_speed(experiment, monkeypatch):
    run = prepare_run(experiment, Path("rehearsal"), CPU)
    durations = run.data.durations
    plan = [(0,), (1, 2), (3, 4, 5)]
    paid = [len(batch) * max(durations[i] for i in batch) for batch in plan]
    assert find_largest_batch(run, plan) == plan[paid.index(max(paid))]
    lines = list(dry_run(experiment, CPU))
    assert re.match(r"it took [\d.]+ s and [\d,]+ MB at most; its loss is [\d.]+ nats", lines[-1])
    taken: list[Batch] = []

    def spy(run: Run, update: Plan, batches: list[Batch]) -> tuple[dict, bool]:
        taken.extend(batches)
        return take_step(run, update, batches)

    monkeypatch.setattr("asr.training.dry_run.take_step", spy)
    lines = list(dry_run(experiment, CPU))
    (batch,) = taken
    assert set(batch.augmentation.speeds) == {0.8}
    longest = float(batch.sample_lengths.max()) / 8000 / 0.8
    assert f"{len(batch.ids)} utterances of up to {longest:.1f} s" in lines[-2]


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "rmsprop", "sgd"])
def test_what_a_checkpoint_takes_is_foretold(experiment, tmp_path, optimiser):
    config = replace(experiment, encoder=replace(experiment.encoder, size=200))
    config = replace(config, training=replace(config.training, optimiser=optimiser, epochs=1))
    run = prepare_run(config, tmp_path / "run", CPU)
    foretold = float(re.search(r"a checkpoint ([\d,]+) MB", describe_memory(run))[1].replace(",", ""))
    for parameter in run.objective.parameters():
        parameter.grad = torch.ones_like(parameter)
    run.optimizer.step()
    save_checkpoint(run)
    (state,) = (tmp_path / "run").rglob("state.safetensors")
    assert state.stat().st_size / 1e6 == pytest.approx(foretold, abs=0.6)


def test_a_batch_that_does_not_fit_is_a_clear_error(experiment, monkeypatch):
    def exhausted(*arguments: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("asr.training.dry_run.take_step", exhausted)
    with pytest.raises(TrainingError, match=r"does not fit into memory: lower training\.batch_seconds"):
        list(dry_run(experiment, CPU))


@pytest.mark.parametrize("cache", ["", "cache"])
def test_nothing_is_written(experiment, tmp_path, monkeypatch, cache):
    experiment = replace(experiment, training=replace(experiment.training, cache=cache))
    (tmp_path / "recipe.toml").write_text(to_toml(experiment))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["train", "recipe.toml", "--dry-run", "--device", "cpu"])
    assert done.exit_code == 0
    assert "the largest batch" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_a_cache_that_is_there_is_read(experiment, tmp_path, monkeypatch):
    folder = str(tmp_path / "cache")
    config = replace(experiment, training=replace(experiment.training, cache=folder))
    train(config, tmp_path / "run", CPU, lambda line: None)
    monkeypatch.setattr("asr.training.run.new_sample_reader", None)  # not needed
    assert "it took" in list(dry_run(config, CPU))[-1]
