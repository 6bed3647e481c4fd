#!/usr/bin/env python3
"""Measure the time and memory to estimate, read and use language models, compared with KenLM.

    python tools/bench/lm.py TEXT [--kenlm kenlm/build/bin] [--rounds 3] [--json]

TEXT has one sentence per line and may be compressed; all programs get it uncompressed. They take turns
in every round, each as a process of its own, so that other work on the machine affects all alike;
figures are medians over the rounds: wall-clock seconds, processor seconds of all threads, and the
highest resident memory. Ours is compiled before the first round, as it is once per installation.
Without --kenlm, a folder with ``lmplz``, ``build_binary`` and ``query``, ours runs alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from asr.core.compiled import compile_function
from asr.lm.look_up import score_word
from asr.lm.packed import Trie, unpack_nodes
from asr.lm.storage import load_model
from asr.lm.text import open_text
from asr.model.precision import describe_device

ASR = [sys.executable, "-m", "asr", "lm"]
OPENING = (
    "import sys, time; from asr.lm.storage import load_model; t = time.perf_counter(); "
    "load_model(sys.argv[1]); print(1000 * (time.perf_counter() - t))"
)
# In a small process of its own: a child's highest memory is never below that of the one that started it.
MEASURING = """
import os, subprocess, sys, time
started = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
MODELS: dict[str, list[str]] = {"3gram": [], "3gram-prune-0-0-1": ["--prune", "0", "0", "1"]}

Commands = dict[str, list[str]]
Figures = dict[str, float]


def list_contests(text: Path, folder: Path, kenlm: Path | None) -> Iterator[tuple[str, Commands]]:
    """Yield each task and each program's command for it; one task's output is another's input."""
    for name, prune in MODELS.items():
        ours, theirs = str(folder / f"asr-{name}"), str(folder / f"kenlm-{name}")
        peer = str(kenlm or "") + "/"
        build = ["-o", "3", "-S", "1G", *prune, "--text", str(text), "--arpa", theirs + ".arpa"]
        score = f"{peer}query -v summary {theirs}.binary < {text}"
        tasks: list[tuple[str, list[str], list[str]]] = [
            (
                f"{name}: text to ARPA",
                [*ASR, "train", str(text), "-o", ours + ".arpa", "--order", "3", *prune],
                [peer + "lmplz", *build],
            ),
            (
                f"{name}: ARPA to binary",
                [*ASR, "convert", ours + ".arpa", "-o", ours + ".lm"],
                [peer + "build_binary", theirs + ".arpa", theirs + ".binary"],
            ),
            (
                f"{name}: perplexity of the text",
                [*ASR, "perplexity", ours + ".lm", str(text)],
                ["sh", "-c", score],
            ),
        ]
        for task, our_command, their_command in tasks:
            yield task, {"asr": our_command} | ({"kenlm": their_command} if kenlm else {})


def measure_cost(command: list[str]) -> Figures:
    """Measure what it takes to run ``command`` to its end."""
    done = subprocess.run([sys.executable, "-c", MEASURING, *command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr[-500:]}")
    wall, processor, kilobytes = map(float, done.stdout.split()[-3:])
    return {"wall_seconds": wall, "processor_seconds": processor, "megabytes": kilobytes / 1024}


def measure_medians(commands: Commands, rounds: int) -> dict[str, Figures]:
    """Measure, by program, the median of each figure over rounds in which all take turns."""
    costs: dict[str, list[Figures]] = {program: [] for program in commands}
    for _ in range(rounds):
        for program, command in commands.items():
            costs[program].append(measure_cost(command))
    return {
        program: {figure: statistics.median(c[figure] for c in values) for figure in values[0]}
        for program, values in costs.items()
    }


def compile_all(text: Path, folder: Path) -> None:
    """Compile what is compiled once per installation."""
    few, model = folder / "few.txt", str(folder / "few.arpa")
    few.write_bytes(b"".join(text.read_bytes().splitlines(keepends=True)[:3000]))
    measure_cost([*ASR, "train", str(few), "-o", model])
    measure_cost([*ASR, "convert", model, "-o", str(folder / "few.lm")])
    measure_cost([*ASR, "perplexity", model, str(few)])


def measure_opening(model: Path) -> float:
    """Measure the milliseconds to open a binary file in a process that has done its imports."""
    command = [sys.executable, "-c", OPENING, str(model)]
    return statistics.median(float(subprocess.check_output(command)) for _ in range(5))


def find_largest_difference(ours: Path, theirs: Path) -> float:
    """Find the largest difference of a log10 probability or back-off weight between two models' n-grams."""
    a, b = load_model(ours), load_model(theirs)
    if a.vocabulary.words != b.vocabulary.words or a.counts != b.counts:
        return float("inf")
    pairs = zip(unpack_nodes(a.trie), unpack_nodes(b.trie), strict=True)
    return float(max(np.abs(x - y).max() for x, y in pairs) / np.log(10))


def measure_bytes_per_ngram(model: Path) -> float:
    """The size of a binary file, words included, divided by its n-grams."""
    return model.stat().st_size / sum(load_model(model).counts)


def measure_look_ups(model: Path, text: Path, states: int = 20_000, words: int = 50) -> float:
    """How many look-ups a core does a second as a search asks: many words behind each state, most not found.

    The states are those of the text's beginning, the words are drawn from it; the median of five runs.
    """
    loaded = load_model(model)
    numbers = [loaded.find_number(word) for word in text.read_text(encoding="utf-8").split()[:states]]
    state, visited = loaded.begin, []
    for number in numbers:
        _, state = score_word(loaded.trie, state, number)
        visited.append(state)
    asked = np.random.default_rng(0).choice(numbers, words)
    places = np.array(visited, np.int64)
    _look_up(loaded.trie, places[:2], asked)
    seconds = []
    for _ in range(5):
        began = time.process_time()
        _look_up(loaded.trie, places, asked)
        seconds.append(time.process_time() - began)
    return len(places) * words / statistics.median(seconds)


@compile_function
def _look_up(trie: Trie, states: np.ndarray, words: np.ndarray) -> float:
    total = 0.0
    for state in states:
        for word in words:
            total += score_word(trie, state, word)[0]
    return total


def main() -> None:
    """Run all and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path)
    parser.add_argument("--kenlm", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    machine = describe_device(torch.device("cpu"))
    tasks: dict[str, dict[str, Figures]] = {}
    with tempfile.TemporaryDirectory() as name, open_text(options.text) as packed:
        folder = Path(name)
        text = folder / "text.txt"
        text.write_bytes(packed.read())
        compile_all(text, folder)
        for task, commands in list_contests(text, folder, options.kenlm):
            tasks[task] = measure_medians(commands, options.rounds)
            print(task, *map(format_row, tasks[task].items()), sep="\n", file=sys.stderr)
        sizes = {name: measure_bytes_per_ngram(folder / f"asr-{name}.lm") for name in MODELS}
        look_ups = {name: measure_look_ups(folder / f"asr-{name}.lm", text) for name in MODELS}
        opening = {name: measure_opening(folder / f"asr-{name}.lm") for name in MODELS}
        different = {
            name: find_largest_difference(folder / f"asr-{name}.arpa", folder / f"kenlm-{name}.arpa")
            for name in MODELS
            if options.kenlm
        }
    if options.json:
        result = {"hardware": machine, "rounds": options.rounds, "tasks": tasks}
        result |= {"bytes_per_ngram": sizes, "look_ups_per_second": look_ups, "opening_ms": opening}
        print(json.dumps(result | {"largest_log10_difference": different}, indent=2))
    else:
        print(f"{machine}; bytes an n-gram {sizes}; look-ups a second {look_ups}")
        print(f"binary files open in {opening} ms; largest difference in log10 {different}")


def format_row(figures: tuple[str, Figures]) -> str:
    """Format one program's figures."""
    program, values = figures
    return (
        f"  {program:8}{values['wall_seconds']:8.2f} s wall{values['processor_seconds']:8.2f} s processor"
        f"{values['megabytes']:8.0f} MB"
    )


if __name__ == "__main__":
    main()
