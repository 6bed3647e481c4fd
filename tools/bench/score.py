#!/usr/bin/env python3
"""Measure how fast errors are counted, compared with jiwer and rapidfuzz, and the memory of a million pairs.

    python tools/bench/score.py [--pairs 50000] [--rounds 3] [--memory-pairs 1000000] [--json]

Pairs of 16 words, about a fifth of them wrong, from a vocabulary of 5,000. All take turns in every round;
figures are medians. ``counts`` is what `asr score` needs for its totals; ``alignments`` pairs every word with
its partner, which jiwer always does. Memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jiwer
from rapidfuzz.distance import Levenshtein

from asr.core.provenance import find_processor
from asr.scoring.counts import compare_texts

WORDS, VOCABULARY, WRONG = 16, 5000, 0.2
MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import score
references, hypotheses = score.make_pairs(int(sys.argv[2]))
errors = score.compare_texts(references, hypotheses).words.errors
print(errors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make_pairs(count: int) -> tuple[dict[str, str], dict[str, str]]:
    """Make references and hypotheses by id."""
    generator = random.Random(1)
    vocabulary = [f"word{number}" for number in range(VOCABULARY)]
    references, hypotheses = {}, {}
    for number in range(count):
        words = generator.choices(vocabulary, k=WORDS)
        said = [generator.choice(vocabulary) if generator.random() < WRONG else word for word in words]
        if generator.random() < WRONG:
            del said[generator.randrange(len(said))]
        references[f"u{number}"], hypotheses[f"u{number}"] = " ".join(words), " ".join(said)
    return references, hypotheses


def list_contestants(references: dict[str, str], hypotheses: dict[str, str]) -> dict[str, Callable[[], int]]:
    """List what is measured by name; each function returns the errors it counted."""
    left, right = list(references.values()), list(hypotheses.values())

    def alignments() -> int:
        comparison = compare_texts(references, hypotheses)
        steps = (step for name in references for step in comparison.align(name))
        return sum(step.kind != "equal" for step in steps)

    def by_jiwer() -> int:
        found = jiwer.process_words(left, right)
        return found.substitutions + found.deletions + found.insertions

    def by_rapidfuzz() -> int:
        return sum(len(Levenshtein.editops(a.split(), b.split())) for a, b in zip(left, right, strict=True))

    return {
        "asr, counts": lambda: compare_texts(references, hypotheses).words.errors,
        "asr, alignments": alignments,
        "jiwer": by_jiwer,
        "rapidfuzz editops": by_rapidfuzz,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-pairs", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = list_contestants(*make_pairs(options.pairs))
    seconds: dict[str, list[float]] = {name: [] for name in found}
    errors = set()
    for _ in range(options.rounds):
        for name, count in found.items():
            started = time.perf_counter()
            errors.add(count())
            seconds[name].append(time.perf_counter() - started)
    if len(errors) > 1:
        sys.exit(f"they do not agree on the number of errors: {sorted(errors)}")
    speeds = {name: options.pairs / statistics.median(taken) for name, taken in seconds.items()}
    command = [sys.executable, "-c", MEMORY, str(sys.path[0]), str(options.memory_pairs)]
    kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1]
    gigabytes = int(kilobytes) * 1024 / 1e9
    if options.json:
        print(json.dumps({"hardware": find_processor(), "pairs_per_second": speeds, "gigabytes": gigabytes}))
        return
    print(f"{find_processor()}; {options.pairs:,} pairs of {WORDS} words, median of {options.rounds}")
    for name, speed in speeds.items():
        print(f"{name:18} {speed:10,.0f} pairs/s {speed / speeds['jiwer']:7.1f} times jiwer")
    print(f"{options.memory_pairs:,} pairs: {gigabytes:.2f} GB at the highest (asked: under 2)")


if __name__ == "__main__":
    main()
