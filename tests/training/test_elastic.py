"""A run goes on with another number of processes: same batches, same draws, nearly the same numbers."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from asr.core.config import to_toml
from asr.training import distributed
from asr.training.checkpoints import list_checkpoints
from asr.training.distributed import Ranks, agree_on_name, watch_others
from asr.training.experiment import Experiment
from asr.training.run import Run, epoch_updates, prepare_run
from asr.training.steps import accumulate_gradient, load_own_batches
from tests.tiny import tiny_experiment
from tests.training.test_killed import Life, free_port, kill_at_random, records, wait_for, warm_server

__all__ = ["warm_server"]  # for the processes of Life

CPU = torch.device("cpu")
BEGAN = 3  # processes
TOLERANCE = (
    1e-4  # of a step's loss, relative; sums of gradients are rounded in another order, which made 1e-7
)


@pytest.fixture(scope="module")
def experiment(make_tones) -> Experiment:
    """All that draws: dropout, augmentation, masks."""
    return tiny_experiment(
        make_tones(train=22, dev=4),
        encoder={"layers": 2, "dropout": 0.1},
        augment={"speeds": (0.95, 1.0, 1.05), "noise_share": 0.5, "time_masks": 1, "time_width_ms": 50},
        epochs=12, batch_seconds=2.5, checkpoint_steps=2, warmup_steps=5, learning_rate=2e-3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(experiment, tmp_path_factory) -> Run:
    """A run that three processes began, in float64 so that the order of sums is not what is measured."""
    alone = prepare_run(experiment, tmp_path_factory.mktemp("run"), CPU)
    alone.progress.ranks = BEGAN
    alone.objective.double()
    alone.objective.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(), *inputs[1:]))
    return alone


def sum_gradients(run: Run, size: int, number: int) -> dict[str, torch.Tensor]:
    """The gradient of an update by ``size`` processes, one after another, averaged as they average it."""
    update = epoch_updates(run)[number]
    sums: dict[str, torch.Tensor] = {}
    for rank in range(size):
        mine = replace(run, ranks=Ranks(rank, size))
        run.optimizer.zero_grad()
        accumulate_gradient(mine, update, list(load_own_batches(mine, [update])))
        for name, parameter in run.objective.named_parameters():
            sums[name] = sums.get(name, 0) + parameter.grad / size
    return sums


@pytest.mark.parametrize("size", [1, 2, 5])
def test_an_update_is_the_same_in_any_number_of_processes(run, size):
    assert len(epoch_updates(run)[1]) == BEGAN
    expected = sum_gradients(run, BEGAN, 1)
    assert max(float(value.abs().max()) for value in expected.values()) > 0.1
    for name, value in sum_gradients(run, size, 1).items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-6)


def test_another_step_draws_anew(run):
    """So that the test above cannot pass because nothing is drawn at all."""
    before = sum_gradients(run, 1, 1)
    run.progress.step += 1
    after = sum_gradients(run, 1, 1)
    run.progress.step -= 1
    assert any(not torch.allclose(before[name], after[name]) for name in before)


# --- signs of life --------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch) -> Iterator[dist.TCPStore]:
    server = dist.TCPStore("127.0.0.1", free_port(), is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(server.port))
    yield server


def test_processes_that_come_together_again_have_another_name(store):
    """What those before have left in the store deceives nobody."""

    def meet() -> set[str]:
        names: dict[int, str] = {}

        def come(rank: int) -> None:
            own = dist.TCPStore("127.0.0.1", store.port, is_master=False, wait_for_workers=False)
            names[rank] = agree_on_name(own, rank, 3)

        threads = [threading.Thread(target=come, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(names) == [0, 1, 2]
        return set(names.values())

    first, second = meet(), meet()
    assert len(first) == len(second) == 1
    assert first != second


@pytest.fixture
def ends(monkeypatch) -> list[int]:
    """The statuses with which this process would have ended."""
    statuses: list[int] = []
    monkeypatch.setattr(distributed.os, "_exit", statuses.append)
    monkeypatch.setattr(distributed, "BEAT_SECONDS", 0.1)
    return statuses


def test_one_that_falls_silent_ends_the_others_and_one_that_leaves_does_not(store, ends, capsys):
    with watch_others("group", 0, 2, silence=2.0):
        store.set("asr/group/sign/1", "0")
        time.sleep(1.5)
        assert not ends
        wait_for(
            lambda: bool(ends),
        )
    assert ends[0] == 1
    assert "process 1 has not been heard of for 2 s" in capsys.readouterr().err
    ends.clear()
    with watch_others("other", 0, 2, silence=1.0):
        with watch_others("other", 1, 2, silence=1.0):
            time.sleep(2.0)
        time.sleep(2.0)
    assert not ends


def test_a_store_that_is_gone_ends_a_process(store, ends, monkeypatch):
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with watch_others("group", 0, 2, silence=1.0):
        wait_for(lambda: bool(ends))
    assert ends[0] == 1


# --- kills ----------------------------------------------------------------------------------------


def losses(folder: Path) -> dict[int, float]:
    """The loss of each step; of one that was taken twice, the later."""
    return {record["step"]: record["loss"] for record in records(folder) if "loss" in record}


def compare_curves(folder: Path, undisturbed: Path) -> float:
    """The largest relative difference between the losses of two runs, which have the same steps."""
    own, expected = losses(folder), losses(undisturbed)
    assert own.keys() == expected.keys()
    assert len(expected) > 30
    return max(abs(own[step] - expected[step]) / abs(expected[step]) for step in expected)


@pytest.fixture(scope="module")
def undisturbed(experiment, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    Life(experiment, folder, BEGAN).end()
    return folder


@pytest.mark.slow
def test_ten_kills_with_three_two_and_three_processes(experiment, undisturbed, tmp_path):
    folder, moments = tmp_path / "run", random.Random(1)
    sizes = [3, 2, 3, 2, 2, 3, 1, 3, 2, 3]
    for size in sizes:
        life = Life(experiment, folder, size)
        wait_for(lambda: bool(list_checkpoints(folder)))  # before that a run begins anew, with other batches
        kill_at_random(life, moments)
    Life(experiment, folder, 2).end()
    resumed = [record["step"] for record in records(folder) if record.get("event") == "resumed"]
    assert len(resumed) == len(sizes)
    assert 0 < compare_curves(folder, undisturbed) < TOLERANCE
    assert (folder / "model.safetensors").exists()


class Hosts:
    """Hosts that each run torchrun with one process, and come and go."""

    def __init__(self, experiment: Experiment, folder: Path, nodes: str, silence: float) -> None:
        self.folder, self.nodes, self.silence = folder, nodes, silence
        self.run = folder / "run"
        self.port = free_port()
        self.agents: list[subprocess.Popen[str]] = []
        (folder / "recipe.toml").write_text(to_toml(experiment))

    def start(
        self, *prefix: str, first: str = "127.0.0.1", address: str = "127.0.0.1"
    ) -> subprocess.Popen[str]:
        """Start a host with an ``address``, behind the words of ``prefix``; ``first`` is the first one's."""
        worker = Path(__file__).with_name("elastic_worker.py")
        settings = "join_timeout=300,last_call_timeout=2,keep_alive_interval=2,keep_alive_max_attempt=15"
        settings += f",is_host={int(not self.agents)}"  # the first one is that at which the others meet
        command = [
            *prefix, sys.executable, "-m", "torch.distributed.run", f"--nnodes={self.nodes}",
            "--nproc-per-node=1", "--max-restarts=100", "--rdzv-backend=c10d", "--rdzv-id=run",
            f"--rdzv-endpoint={first}:{self.port}", f"--rdzv-conf={settings}", f"--local-addr={address}",
            str(worker), str(self.folder / "recipe.toml"), str(self.run), str(self.silence),
        ]  # fmt: skip
        log = (self.folder / f"host-{len(self.agents)}.log").open("w")
        # Each agent has a store of its own for its processes: the shared one dies with the first host.
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }  # fmt: skip
        agent = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
        )
        self.agents.append(agent)
        return agent

    def steps(self) -> int:
        return len(losses(self.run)) if self.run.exists() else 0

    def lines(self) -> int:
        """Records of steps, those that were taken twice counted twice."""
        path = self.run / "metrics.jsonl"
        return path.read_bytes().count(b'"loss"') if path.exists() else 0

    def worlds(self) -> list[int]:
        """How many processes each group of the run had."""
        path = self.folder / "worlds.txt"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def stop(self) -> None:
        for agent in self.agents:
            kill_group(agent)


def kill_group(agent: subprocess.Popen[str]) -> None:
    """A host loses its power: the agent and its process die at once."""
    for pid in [agent.pid, *list_children(agent.pid)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    agent.wait()


def list_children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
        except (OSError, IndexError):
            continue
    return found


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def has_ended(pid: int) -> bool:
    """Whether a process is no more, but perhaps for its entry that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def new_hosts(experiment: Experiment, folder: Path, nodes: str, silence: float = 20.0) -> Iterator[Hosts]:
    hosts = Hosts(experiment, folder, nodes, silence)
    try:
        yield hosts
    finally:
        hosts.stop()


def wait_long(condition: Callable[[], bool], seconds: float = 400.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@linux
@pytest.mark.slow
def test_hosts_of_torchrun_die_and_come_back(experiment, undisturbed, tmp_path):
    """Three hosts; a process of one dies, then a whole host, which comes back; the run ends by itself."""
    longer = replace(experiment, training=replace(experiment.training, epochs=40, checkpoint_steps=5))
    with new_hosts(longer, tmp_path, "2:3") as hosts:

        def wait_for_world(size: int) -> None:
            """Until a group of ``size`` takes steps."""
            wait_long(lambda: hosts.worlds()[-1:] == [size])
            before = hosts.lines()
            wait_long(lambda: hosts.lines() > before + 2)

        first = hosts.start()
        wait_long(lambda: is_listening(hosts.port))
        others = [hosts.start() for _ in range(2)]
        wait_for_world(3)
        groups = len(hosts.worlds())
        (victim,) = list_children(others[1].pid)
        os.kill(victim, signal.SIGKILL)
        wait_long(lambda: len(hosts.worlds()) > groups)
        wait_for_world(3)
        kill_group(others[0])
        wait_for_world(2)
        hosts.start()
        wait_for_world(3)
        wait_long(lambda: first.poll() is not None)
        assert first.returncode == 0, (tmp_path / "host-0.log").read_text()[-3000:]
        steps = [record["step"] for record in records(hosts.run) if "loss" in record]
        assert sorted(set(steps)) == list(range(1, max(steps) + 1))
        check_order(steps, longer.training.checkpoint_steps)
        assert (hosts.run / "model.safetensors").exists()


def has_namespaces() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "asr-probe"], capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", "asr-probe"], capture_output=True)
    return made


ADDRESSES = {f"asr-{os.getpid()}-{side}": f"10.213.7.{n}" for n, side in enumerate("ab", start=1)}


@contextmanager
def two_namespaces() -> Iterator[Callable[[str], None]]:
    """Namespaces of ``ADDRESSES`` with a cable; the function sets the cable ``up`` or ``down``."""

    def ip(words: str) -> None:
        subprocess.run(["ip", *words.split()], check=True, capture_output=True)

    try:
        for name in ADDRESSES:
            ip(f"netns add {name}")
        near, far = ADDRESSES
        ip(f"link add asr-va netns {near} type veth peer name asr-vb netns {far}")
        for name, address in ADDRESSES.items():
            ip(f"-n {name} addr add {address}/24 dev asr-v{name[-1]}")
            ip(f"-n {name} link set asr-v{name[-1]} up")
            ip(f"-n {name} link set lo up")
        yield lambda state: ip(f"-n {near} link set asr-va {state}")
    finally:
        for name in ADDRESSES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.slow
@pytest.mark.skipif(not has_namespaces(), reason="needs root and network namespaces")
def test_a_host_that_is_cut_off_ends_and_the_other_goes_on_alone(experiment, tmp_path):
    """Neither hangs longer than it says, and no step is taken twice by two groups at the same time."""
    silence = 15.0
    longer = replace(experiment, training=replace(experiment.training, epochs=40, checkpoint_steps=5))
    with two_namespaces() as set_cable, new_hosts(longer, tmp_path, "1:2", silence) as hosts:
        near, far = (
            hosts.start(
                "ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME=asr-v{name[-1]}",
                first="10.213.7.1", address=address,
            )
            for name, address in ADDRESSES.items()
        )  # fmt: skip
        wait_long(lambda: hosts.worlds()[-1:] == [2] and bool(list_checkpoints(hosts.run)))
        set_cable("down")
        cut = time.monotonic()
        (cut_off,) = list_children(far.pid)
        wait_long(lambda: has_ended(cut_off), 2 * silence + 60)
        assert time.monotonic() - cut < 2 * silence + 60
        before = hosts.steps()
        wait_long(lambda: near.poll() is not None)
        assert near.returncode == 0, (tmp_path / "host-0.log").read_text()[-3000:]
        assert hosts.steps() > before
        steps = [record["step"] for record in records(hosts.run) if "loss" in record]
        assert len(list_checkpoints(hosts.run)) == 2
        check_order(steps, longer.training.checkpoint_steps)
        set_cable("up")


def check_order(steps: list[int], every: int) -> None:
    """Steps follow each other; a resumption repeats no more than those behind a checkpoint."""
    for before, after in pairwise(steps):
        assert after == before + 1 or before - every <= after <= before
