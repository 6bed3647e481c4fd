"""The command line of the fuzzer: see ``tools.fuzz``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tools.fuzz.runner import Fault, watch_cases, work
from tools.fuzz.targets import TARGETS


def fuzz(target: str, seed: int, numbers: range) -> tuple[dict[str, object], list[Fault]]:
    """Run cases of one target; return what is worth telling about them, and what went wrong."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = list(watch_cases(target, seed, numbers, Path(folder)))
    faults = [fault for outcome in outcomes if (fault := outcome.find_fault())]
    return {
        "target": target,
        "seed": seed,
        "cases": len(outcomes),
        "outcomes": dict(Counter(outcome.kind for outcome in outcomes)),
        "most_seconds": round(max((outcome.seconds for outcome in outcomes), default=0.0), 2),
        "most_megabytes": round(max((outcome.megabytes for outcome in outcomes), default=0.0)),
        "elapsed_seconds": round(time.monotonic() - began),
    }, faults


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description="Fuzz what reads files.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--count", type=int, default=50, help="cases of each target")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [target for target in arguments.targets if target not in TARGETS]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if arguments.worker is not None:
        work(TARGETS[arguments.targets[0]](), arguments.targets[0], arguments.worker)
        return
    every = []
    for target in arguments.targets or TARGETS:
        numbers = range(arguments.first, arguments.first + arguments.count)
        result, faults = fuzz(target, arguments.seed, numbers)
        print(json.dumps(result), flush=True)
        for fault in faults:
            print(f"  {target} --seed {arguments.seed} --first {fault.number} --count 1: {fault.reason}")
        every += faults
    sys.exit(1 if every else 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
