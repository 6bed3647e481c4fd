#!/usr/bin/env python3
"""Measure what a start costs: processor time and memory of `asr transcribe` for one short file.

    python tools/bench/start.py FILE [--base TREE] [--repeats 7] [--first 1] [--model M] [--json]

TREE is a checkout of another commit, run by the same Python: both take turns in one run, and medians are
compared, so that other work on the machine slows both alike. A cold start finds compiled code and a sorted
lexicon in the caches; a first run (`--first` times) finds both empty. Processor time is that of the program,
the user's and the system's, memory its highest. Fails where our start imports torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asr.core.provenance import find_processor, find_source_commit
from asr.pretrained import DEFAULT_MODEL

OURS = Path(__file__).resolve().parents[2]
NAME_MODULES = """\
import atexit, sys
from asr.cli import main
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
main()
"""


@dataclass(frozen=True)
class Cost:
    """What one program took."""

    seconds: float  # of processor time
    megabytes: float


def measure_program(tree: Path, arguments: list[str], caches: Mapping[str, str]) -> Cost:
    """Run the `asr` of a checkout; exit when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(tree), **caches}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program has its bytecode
    command = [sys.executable, "-m", "asr", *arguments]
    with tempfile.TemporaryDirectory() as elsewhere:  # or the folder that we are in would come first
        process = subprocess.Popen(command, cwd=elsewhere, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} ended with status {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)


def check_torch(arguments: list[str]) -> None:
    """Exit where our start imports torch."""
    environment = os.environ | {"PYTHONPATH": str(OURS)}
    command = [sys.executable, "-c", NAME_MODULES, *arguments]
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    if done.stderr.split()[-1] != "False":
        sys.exit("asr transcribe imports torch")


def compare_starts(
    trees: Mapping[str, Path], arguments: list[str], repeats: int, first: bool
) -> dict[str, float]:
    """Measure all trees in turn; with `first`, each time with empty caches."""
    costs: dict[str, list[Cost]] = {name: [] for name in trees}
    for _ in range(repeats):
        for name, tree in trees.items():
            with tempfile.TemporaryDirectory() as empty:
                caches = {"NUMBA_CACHE_DIR": empty, "XDG_CACHE_HOME": empty} if first else {}
                costs[name].append(measure_program(tree, arguments, caches))
    kind = "first" if first else "cold"
    found = {}
    for name, all_costs in costs.items():
        found[f"{name}_{kind}_seconds"] = round(statistics.median(cost.seconds for cost in all_costs), 3)
        found[f"{name}_{kind}_megabytes"] = round(statistics.median(cost.megabytes for cost in all_costs), 1)
    if len(trees) > 1:
        for unit in ("seconds", "megabytes"):
            ratio = found[f"asr_{kind}_{unit}"] / found[f"base_{kind}_{unit}"]
            found[f"{kind}_{unit}_ratio"] = round(ratio, 3)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a recording of about five seconds")
    parser.add_argument("--base", type=Path, metavar="TREE", help="a checkout of another commit")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--first", type=int, default=1, help="first runs to measure; 0 for none")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    arguments = ["transcribe", "--model", options.model, "--device", "cpu", str(options.file.resolve())]
    check_torch(arguments)
    trees = {"asr": OURS} | ({"base": options.base.resolve()} if options.base else {})
    for tree in trees.values():  # so that the caches of a cold start are there
        measure_program(tree, arguments, {})
    result = {
        "hardware": f"{find_processor()}, {os.cpu_count()} cores",
        "commit": find_source_commit(),
        **compare_starts(trees, arguments, options.repeats, first=False),
    }
    if options.first:
        result |= compare_starts(trees, arguments, options.first, first=True)
    print(
        json.dumps(result) if options.json else "\n".join(f"{key}: {value}" for key, value in result.items())
    )


if __name__ == "__main__":
    main()
