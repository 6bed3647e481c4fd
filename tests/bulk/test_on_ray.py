"""A real cluster of several nodes, each a raylet of its own: whoever dies, every utterance comes out once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asr.bulk.on_ray import RayConfig as Config
from asr.bulk.on_ray import RayError, count_workers, explain, parse_address
from asr.errors import UserError

SAMPLES = Path(__file__).parents[2] / "samples"
SHARDS = 16
SIZE = 5  # utterances in each
PATIENCE = 500.0  # seconds: a cluster starts slowly on a busy machine
WORKER = b"ray::MapWorker"  # how Ray names the processes of actors of a Ray Data set

linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


class Room:
    """What is used of the module ``ray``."""

    @staticmethod
    def cluster_resources() -> dict[str, float]:
        return {"CPU": 4.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("config", "shards", "workers"),
    [
        (Config(), 100, 4),
        (Config(cpus=1.5), 100, 2),
        (Config(gpus=0.25), 100, 4),
        (Config(gpus=0.5), 100, 2),
        (Config(), 3, 3),
        (Config(workers=7), 100, 7),
    ],
)
def test_as_many_workers_as_there_is_room_for(config, shards, workers):
    assert count_workers(Room, config, shards) == workers


def test_a_cluster_without_room_is_refused():
    with pytest.raises(RayError, match="4 cores and 1 GPUs, no room for a worker of 5 cores"):
        count_workers(Room, Config(cpus=5), 10)


def test_addresses():
    assert parse_address("ray") is None
    assert parse_address("ray://head:10001") == "ray://head:10001"
    for wrong in ("ray://", "spark", "ray:", "head:6379"):
        with pytest.raises(UserError, match="neither ray nor ray://"):
            parse_address(wrong)


def test_the_cause_of_an_error_is_what_is_told():
    outer = RuntimeError("RayTaskError: many lines\nof traceback")
    outer.cause = UserError("x: no such model folder")  # type: ignore[attr-defined]
    assert explain(outer) == "x: no such model folder"
    assert explain(ValueError("one\ntwo\n")) == "two"


# --- kills ----------------------------------------------------------------------------------------


# A busy machine may take minutes to start what Ray waits half a minute for.
PATIENT = {"RAY_agent_register_timeout_ms": "300000", "RAY_raylet_start_wait_time_s": "300"}
# A raylet waits for ports that its helpers choose, and that for half a minute at most: these are given.
PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
QUICK = {"include_log_monitor": False, "no_monitor": True}  # helpers that a test can do without


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Any]:
    """A head without cores and three nodes with one each."""
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    pytest.importorskip("ray.data", reason="needs Ray, part of [cluster]")
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        for cores in (0, 1, 1, 1):
            ports = {name: free_port() for name in PORTS}
            made.add_node(num_cpus=cores, include_dashboard=False, **QUICK, **ports)
        yield made
    finally:
        made.shutdown()


def list_workers(node: Any) -> list[int]:
    """The processes that transcribe on a node: the children of its raylet that hold an actor."""
    (raylet,) = (info.process.pid for info in node.all_processes["raylet"])
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet and (entry / "cmdline").read_bytes().startswith(WORKER):
                found.append(int(entry.name))
        except (OSError, IndexError):
            continue  # it has ended
    return found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


@linux
@pytest.mark.slow
def test_a_worker_a_node_and_the_driver_are_killed_and_every_utterance_comes_out_once(cluster, tmp_path):
    digits = [str(SAMPLES / name) for name in ("digits-lucas.flac", "digit-7-jackson.flac")]
    rows = [{"audio_filepath": digits[n % 2], "id": f"u{n}", "n": n} for n in range(SHARDS * SIZE)]
    rows[7]["audio_filepath"] = "none.flac"
    manifest, out = tmp_path / "m.jsonl", tmp_path / "out"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "asr", "transcribe", str(manifest), "--on", "ray", "-o", str(out)]
    command += ["--model", "digits", "--shard-size", str(SIZE)]
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    kills = 0

    def finished() -> int:
        return len(list(out.glob("results-*")))

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "errors.txt").open("ab") as errors:
            return subprocess.Popen(command, env=environment, stderr=errors)

    driver = start()
    wait_for(lambda: finished() >= 1, "the first shard")
    victims = [pid for node in cluster.worker_nodes for pid in list_workers(node)]
    assert victims, "nobody works"
    os.kill(victims[0], signal.SIGKILL)
    kills += 1
    before = finished()
    wait_for(lambda: finished() > before, "a shard after the death of a worker")
    doomed = next(node for node in list(cluster.worker_nodes) if list_workers(node))
    cluster.remove_node(doomed, allow_graceful=False)
    kills += 1
    before = finished()
    wait_for(lambda: finished() > before, "a shard after the death of a node")
    assert driver.poll() is None, "it was over before the driver was killed"
    driver.kill()
    driver.wait()
    kills += 1
    time.sleep(2)  # a worker may still write what it has begun
    before = finished()
    assert 3 <= before < SHARDS
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("results-*")}
    driver = start()
    assert driver.wait(PATIENCE) in (0, 1), "1 where it met the recording that is missing"
    assert kills == 3
    results = [json.loads(line) for path in sorted(out.glob("results-*")) for line in path.open()]
    assert [row["n"] for row in results] == [n for n in range(SHARDS * SIZE) if n != 7]
    assert {row["pred_text"] for row in results} == {"one eight seven two", "seven"}
    (error,) = (json.loads(line) for path in out.glob("errors-*") for line in path.open())
    assert error["n"] == 7
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in out.glob("results-*")}.items()
    said = (tmp_path / "errors.txt").read_text()
    assert f"{before} are done" in said
    assert f"utterances in {SHARDS - before} shards" in said
