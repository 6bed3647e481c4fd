"""What is prepared for a GPU runs to its end without one, so that no minute with one is lost to a slip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch, part of [train]")

from tools.gpu import CHECKS, run_check

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_a_dry_run_takes_every_check(tmp_path):
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = ["bash", str(ROOT / "tools" / "gpu.sh"), str(tmp_path), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["check"] for row in rows] == list(CHECKS)
    assert all(row["passed"] and row["dry"] for row in rows)
    assert f"{len(CHECKS)} of {len(CHECKS)} checks passed" in done.stdout


def test_a_check_that_raises_is_a_result(monkeypatch):
    def fail(bench):
        raise RuntimeError("out of memory")

    monkeypatch.setitem(CHECKS, "fails", fail)

    class Dry:
        is_dry = True

    row = run_check("fails", Dry())
    assert not row["passed"]
    assert row["error"] == "RuntimeError: out of memory"
