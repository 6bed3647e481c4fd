"""The programs that measure speed run to their end; what they measure is for a quiet machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["cells.py", "--rounds", "1", "cifg"], "fused lstm"),
        (["score.py", "--rounds", "1", "--pairs", "100", "--memory-pairs", "100"], "times jiwer"),
        (["train.py", "--rounds", "1", "--batches", "1", "--batch-seconds", "16"], "of resident"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_bench_runs(command, says):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "bench" / command[0], *command[1:]],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
