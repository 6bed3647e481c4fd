#!/usr/bin/env python3
"""How long the recurrent cells take, beside torch's fused LSTM.

    OMP_NUM_THREADS=1 python tools/bench/cells.py
    OMP_NUM_THREADS=2 python tools/bench/cells.py --json

One direction of one layer over 16 utterances of 600 frames with 320 inputs and 320 units, float32 (and
bfloat16 for torch's LSTM and, where the processor has tile registers, for the one that trains in them):
forwards and backwards as in training, and forwards alone. All take turns in every round, so that
other work on the machine affects all alike; the ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from asr.core.tiles import has_tiles
from asr.model.cells import CELLS, Cell, new_fused, scan
from asr.model.precision import describe_device

BATCH, FRAMES, SIZE, BANDS = 16, 600, 320, 20
FUSED = "fused lstm"


def list_contestants(only: list[str]) -> dict[str, tuple[torch.nn.Module, Callable[[Tensor], Tensor]]]:
    """List, by name, a module and what takes ``(batch, frames, input)`` to its hidden states."""
    lengths = torch.full((BATCH,), FRAMES)
    fused = new_fused("lstm", SIZE, SIZE)
    found: dict[str, tuple[torch.nn.Module, Callable[[Tensor], Tensor]]] = {
        FUSED: (fused, lambda inputs: fused(inputs)[0])
    }
    found[f"{FUSED}, bfloat16"] = (fused, run_in_bfloat16(lambda inputs: fused(inputs)[0]))
    if has_tiles():
        from asr.model.tiled_lstm import run_tiled_lstm

        found["lstm in tiles, bfloat16"] = (fused, lambda inputs: run_tiled_lstm(inputs, lengths, [fused]))
    for name in only or CELLS:
        cell = CELLS[name](SIZE, SIZE, BANDS)
        found[name] = (cell, fix_lengths(cell, lengths))
    return found


def run_in_bfloat16(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Run ``forward`` under autocast."""

    def run(inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return forward(inputs)

    return run


def fix_lengths(cell: Cell, lengths: Tensor) -> Callable[[Tensor], Tensor]:
    """Make a function of the inputs alone of ``scan``."""
    return lambda inputs: scan(cell, inputs, lengths)


def measure_seconds(work: Callable[[], object]) -> float:
    """Measure the wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def train_step(module: torch.nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    """Run forwards and backwards, for the gradients of weights and inputs."""
    module.zero_grad(set_to_none=True)
    forward(inputs.requires_grad_()).float().square().sum().backward()
    inputs.grad = None


@torch.no_grad()
def infer(module: torch.nn.Module, forward: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    """Run forwards alone."""
    forward(inputs)


def measure(rounds: int, only: list[str]) -> dict[str, dict[str, list[float]]]:
    """Measure the seconds of every round, by way of running and by name."""
    inputs = torch.randn(BATCH, FRAMES, SIZE)
    ways = {"training": train_step, "inference": infer}
    found = list_contestants(only)
    times: dict[str, dict[str, list[float]]] = {way: {name: [] for name in found} for way in ways}
    for number in range(rounds + 1):  # the first one only warms up
        for way, run in ways.items():
            for name, (module, forward) in found.items():
                took = measure_seconds(lambda run=run, m=module, f=forward: run(m, f, inputs))  # type: ignore[misc]
                if number:
                    times[way][name].append(took)
    return times


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description="Times of the recurrent cells beside torch's fused LSTM.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("cells", nargs="*", help="names in CELLS; all of them when left out")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    times = measure(arguments.rounds, arguments.cells)
    rows = {
        way: {
            name: {
                "seconds": round(statistics.median(of), 4),
                "ratio": round(statistics.median(a / b for a, b in zip(of, by[FUSED], strict=True)), 2),
            }
            for name, of in by.items()
        }
        for way, by in times.items()
    }
    machine = f"{describe_device(torch.device('cpu'))}, torch {torch.__version__}"
    if arguments.json:
        print(json.dumps({"hardware": machine, "rounds": arguments.rounds, **rows}))
        return
    print(f"{machine}; {BATCH} x {FRAMES} frames x {SIZE} units; medians of {arguments.rounds} rounds")
    print(f"{'':26}{'training':>20}{'inference':>22}")
    for name in times["training"]:
        cells = [rows[way][name] for way in rows]
        print(f"{name:26}" + "".join(f"{c['seconds']:10.3f} s {c['ratio']:6.2f} x  " for c in cells))


if __name__ == "__main__":
    main()
