"""A run killed at any moment and resumed ends with exactly the weights of one that never was.

Each life of a run is a process of its own that is sent SIGKILL. It is forked from a server that has
imported torch already, so that ten deaths do not pay for ten imports.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch

from asr.training.checkpoints import CHECKPOINTS, list_checkpoints
from asr.training.distributed import join_process_group
from asr.training.experiment import Experiment
from asr.training.loop import train
from tests.tiny import tiny_experiment

pytestmark = pytest.mark.slow

EVERY = 3  # steps between checkpoints
PATIENCE = 60.0  # seconds until something that should happen is given up

processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def experiment(make_tones) -> Experiment:
    """Everything that has a state: dropout, augmentation, momentum, averages, a second loss."""
    return tiny_experiment(
        make_tones(train=22, dev=4),
        encoder={"layers": 2, "dropout": 0.1},
        augment={"speeds": (0.95, 1.0, 1.05), "noise_share": 0.5, "time_masks": 1, "time_width_ms": 50},
        epochs=20, batch_seconds=4.0, accumulate=2, checkpoint_steps=EVERY, warmup_steps=5,
        learning_rate=5e-3, schedule="constant", average_decay=0.9, average_best=3,
        intermediate_layer=1, sorted_first_epoch=True,
    )  # fmt: skip


def live(experiment: Experiment, folder: Path, rank: int, size: int, port: int) -> None:
    """One process of a run, as torchrun would start it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
    torch.set_num_threads(1)
    with join_process_group(torch.device("cpu")) as ranks:
        train(experiment, folder, torch.device("cpu"), say=lambda line: None, ranks=ranks)


class Life:
    """The processes of a run from a start to a death or an end."""

    def __init__(self, experiment: Experiment, folder: Path, size: int) -> None:
        self.folder = folder
        self.before = steps_taken(folder)
        port = free_port()
        self.members = [
            processes.Process(target=live, args=(experiment, folder, rank, size, port))
            for rank in range(size)
        ]
        for member in self.members:
            member.start()

    def kill(self, first: int = 0) -> None:
        """SIGKILL to one process, then to the others, as torchrun does when it misses one."""
        assert all(member.is_alive() for member in self.members), "the run was over before it was killed"
        for member in [self.members[first], *self.members]:
            member.kill()
        for member in self.members:
            member.join(PATIENCE)

    def new_steps(self) -> int:
        return steps_taken(self.folder) - self.before

    def end(self) -> None:
        for member in self.members:
            member.join(PATIENCE)
            assert member.exitcode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def records(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_bytes().split(b"\n") if folder.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"}")]


def steps_taken(folder: Path) -> int:
    """How many steps were logged, those that were taken twice counted twice."""
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b'"loss"') if path.exists() else 0


def kill_at_random(life: Life, moments: random.Random) -> None:
    """Death some steps after the start, and some milliseconds into a step."""
    steps, seconds = moments.randrange(6), moments.uniform(0, 0.03)
    wait_for(lambda: life.new_steps() > steps)
    time.sleep(seconds)
    life.kill(first=moments.randrange(len(life.members)))


def kill_at_birth(life: Life, moments: random.Random) -> None:
    """Death while the folder is claimed, data is read, the first steps are taken."""
    time.sleep(moments.uniform(0, 0.5))
    life.kill()


def kill_while_writing(life: Life, moments: random.Random) -> None:
    """Death while a checkpoint is being written: the process is halted there, looked at, and killed."""
    writer, steps = life.members[0].pid, moments.randrange(3)
    wait_for(lambda: life.new_steps() > steps and bool(list_checkpoints(life.folder)))
    while True:
        wait_for(lambda: half_written(life.folder))
        os.kill(writer, signal.SIGSTOP)
        time.sleep(0.002)
        if half_written(life.folder):
            break
        os.kill(writer, signal.SIGCONT)  # too late, it has its name already
    life.kill()
    assert half_written(life.folder)


def half_written(folder: Path) -> bool:
    return any((folder / CHECKPOINTS).glob(".step-*"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.0003)


@pytest.fixture(scope="module", autouse=True)
def warm_server() -> None:
    heavy = ["asr.training.loop", "torch.utils.tensorboard", "torch._dynamo", "soundfile", "soxr"]
    processes.set_forkserver_preload(heavy)


@pytest.mark.parametrize(("size", "kills"), [(1, 10), (2, 4)])
def test_a_killed_run_ends_with_the_weights_of_one_that_never_was(experiment, tmp_path, size, kills):
    undisturbed = Life(experiment, tmp_path / "undisturbed", size)
    undisturbed.end()
    folder = tmp_path / "killed"
    moments = random.Random(size)
    deaths = [kill_at_birth, *islice(cycle([kill_at_random, kill_while_writing, kill_at_random]), kills - 1)]
    behind_a_checkpoint = []
    for death in deaths:
        life = Life(experiment, folder, size)
        death(life, moments)
        behind_a_checkpoint.append(bool(list_checkpoints(folder)))
    Life(experiment, folder, size).end()
    assert sum(behind_a_checkpoint) >= kills - 2
    check_resumptions(folder, sum(behind_a_checkpoint))
    assert end_of(folder) == end_of(tmp_path / "undisturbed")


def check_resumptions(folder: Path, expected: int) -> None:
    """Every life after the first checkpoint goes on behind it and repeats at most ``EVERY`` steps."""
    seen, resumptions = 0, 0
    for record in records(folder):
        if record.get("event") == "resumed":
            resumptions += 1
            assert record["step"] > 0
            assert seen - record["step"] <= EVERY
        elif record.get("event") == "started":
            assert seen <= EVERY
        seen = record["step"]
    assert resumptions == expected


def end_of(folder: Path) -> dict[str, bytes]:
    """All bytes that matter at the end of a run: of the model and of its last checkpoint."""
    newest = list_checkpoints(folder)[-1]
    files = [folder / "model.safetensors", newest / "state.safetensors", newest / "progress.json"]
    return {file.name: file.read_bytes() for file in files}
