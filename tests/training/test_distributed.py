"""Several processes: the gradient of their global batch is that of one process, and says so only once."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

from asr.core.config import to_toml
from asr.training.batching import load_batch
from asr.training.checkpoints import list_checkpoints
from asr.training.distributed import Ranks, join_process_group
from asr.training.evaluation import evaluate
from asr.training.examples import Plan
from asr.training.experiment import Experiment
from asr.training.run import Run, epoch_updates, prepare_run
from asr.training.steps import accumulate_gradient, own_share
from tests.tiny import tiny_experiment

CPU = torch.device("cpu")
SIZE = 2

processes = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def experiment(make_tones) -> Experiment:
    return tiny_experiment(
        make_tones(train=30, dev=7),
        features={"normalisation": "global"},
        encoder={"layers": 2, "size": 24},
        batch_seconds=4.0,
        accumulate=3,
        intermediate_layer=1,
        consistency_weight=0.2,
    )


def test_alone_everything_is_ones_own():
    alone = Ranks()
    assert alone.is_first
    assert alone.sum([1.5, 2.0]) == [1.5, 2.0]
    assert alone.gather("here") == ["here"]
    assert alone.broadcast("yes") == "yes"
    alone.wait()


def in_float64(run: Run) -> Run:
    """The run with weights in float64, so that the order of sums is not what is measured."""
    run.objective.double()
    run.objective.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(), *inputs[1:]))
    several = run.ranks.size > 1
    return replace(run, parallel=DistributedDataParallel(run.objective) if several else run.objective)


def gradient_of(run: Run, update: Plan) -> dict[str, torch.Tensor]:
    """The gradient of an update, this process doing its share."""
    run.optimizer.zero_grad()
    own = own_share(run, update)
    filler = [run.data.train[0]]
    batches = [load_batch([run.data.train[i] for i in b] or filler, run.data.read) for b in own]
    accumulate_gradient(run, update, batches)
    return {name: p.grad.clone() for name, p in run.objective.named_parameters()}


def updates_of(run: Run) -> dict[str, Plan]:
    """One of 6 batches; one that leaves a process without examples; one of a batch each."""
    first = epoch_updates(run)[0]
    return {"accumulated": first, "short of examples": [(3, 4), ()], "single": first[:2]}


def work(experiment: Experiment, folder: Path, rank: int, port: int) -> None:
    """What each of two processes does: gradients of three updates, counting syncs; a shared evaluation."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(SIZE)}
    torch.set_num_threads(1)
    with join_process_group(CPU) as ranks:
        assert (ranks.rank, ranks.size) == (rank, SIZE)
        assert ranks.sum([rank, 1.0]) == [1.0, 2.0]
        assert ranks.gather(f"rank {rank}") == ["rank 0", "rank 1"]
        assert ranks.broadcast(rank) == 0
        run = in_float64(prepare_run(experiment, folder / "run", CPU, ranks))
        found = {"mean": run.model.features.mean}
        syncs = counted_syncs(run)
        for name, update in updates_of(run).items():
            found |= {f"{name}: {key}": value for key, value in gradient_of(run, update).items()}
            found[f"{name}: syncs"] = torch.tensor(len(syncs))
            syncs.clear()
        run.objective.float()
        evaluation = evaluate(run.recognizer, run.data.valid, run.data.read, 3.0, ranks=ranks)
        found["utterances"] = torch.tensor(len(evaluation.hypotheses))
        found["loss"] = torch.tensor(evaluation.loss)
        save_file(found, folder / f"{rank}.safetensors")


def counted_syncs(run: Run) -> list[int]:
    """A list that gets an entry each time that gradients are exchanged."""
    syncs: list[int] = []

    def averaged(state, bucket):  # DDP wants types that are no strings, or none
        syncs.append(bucket.index())
        tensor = bucket.buffer()
        done = dist.all_reduce(tensor, async_op=True).get_future()
        return done.then(lambda future: future.value()[0] / SIZE)

    assert isinstance(run.parallel, DistributedDataParallel)
    run.parallel.register_comm_hook(None, averaged)
    return syncs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def found(experiment, tmp_path_factory) -> list[dict[str, torch.Tensor]]:
    """What two processes found, each for itself."""
    processes.set_forkserver_preload(["asr.training.loop"])
    folder, port = tmp_path_factory.mktemp("found"), free_port()
    members = [processes.Process(target=work, args=(experiment, folder, r, port)) for r in range(SIZE)]
    for member in members:
        member.start()
    for member in members:
        member.join(90)
        assert member.exitcode == 0
    return [load_file(folder / f"{rank}.safetensors") for rank in range(SIZE)]


@pytest.fixture(scope="module")
def alone(experiment, tmp_path_factory) -> Run:
    return in_float64(prepare_run(experiment, tmp_path_factory.mktemp("alone") / "run", CPU))


@pytest.mark.parametrize("name", ["accumulated", "short of examples", "single"])
def test_the_gradient_is_that_of_the_global_batch_in_one_process(alone, found, name):
    begun = replace(alone.progress, ranks=SIZE)
    in_pairs = replace(alone, ranks=Ranks(0, SIZE), progress=begun)  # plans as the two processes do
    update = updates_of(in_pairs)[name]
    together = tuple(index for batch in update for index in batch)
    expected = gradient_of(alone, [together])
    assert max(float(value.abs().max()) for value in expected.values()) > 1.0
    for mine in found:
        for key, value in expected.items():
            torch.testing.assert_close(mine[f"{name}: {key}"], value, atol=1e-6, rtol=1e-6)


def test_processes_have_one_gradient_to_the_last_bit(found):
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_gradients_are_exchanged_once_an_update(found):
    assert found[0]["accumulated: syncs"] == found[0]["single: syncs"] == 1


def test_processes_share_an_evaluation(experiment, found, tmp_path):
    alone = prepare_run(experiment, tmp_path / "run", CPU)
    expected = evaluate(alone.recognizer, alone.data.valid, alone.data.read, 3.0)
    assert found[0]["utterances"] == len(alone.data.valid) == 7
    assert float(found[0]["loss"]) == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.slow
def test_torchrun_starts_a_run_in_two_processes(experiment, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(experiment))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={SIZE}"]
    command = [*launch, "-m", "asr", "train", str(recipe), "--threads", "1", "--device", "cpu", "--out"]
    done = subprocess.run([*command, str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the model is in") == 1
    assert "in 2 processes" in done.stderr
    command = [sys.executable, "-m", "asr", "train", str(recipe), "--device", "cpu", "--out"]
    alone = subprocess.run([*command, str(tmp_path / "run")], capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    assert "in 1 processes, where the run began with 2: an update has 6 batches as before" in alone.stderr
    assert len(list_checkpoints(tmp_path / "run")) == 2


ORPHAN = """
import subprocess, sys, time
member = "import torch; from asr.training.distributed import join_process_group as join\\n" \\
    "with join(torch.device('cpu')): pass"
print(subprocess.Popen([sys.executable, "-c", member]).pid, flush=True)
time.sleep(100)
"""


def test_a_process_whose_torchrun_is_killed_while_it_waits_for_the_others_ends():
    if not Path("/proc").exists():
        pytest.skip("needs /proc to see when a process of another one has ended")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True, env={**os.environ, **here}
    ) as parent:
        member = int(parent.stdout.readline())
        began = time.monotonic()
        while not is_listening(port):  # it has joined and waits
            assert time.monotonic() - began < 90
            time.sleep(0.2)
        parent.kill()
    began = time.monotonic()
    while Path(f"/proc/{member}").exists():
        assert time.monotonic() - began < 30
        time.sleep(0.2)


def is_listening(port: int) -> bool:
    """Whether somebody takes connections at a port of this machine."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
