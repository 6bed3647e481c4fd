"""A process of a run that torchrun starts: as ``asr train``, but quick to give up one that is silent."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from asr.core.config import from_table, read_toml
from asr.training.distributed import join_process_group
from asr.training.experiment import Experiment
from asr.training.loop import TrainingStopped, train


def main() -> None:
    recipe, folder, silence = sys.argv[1:]
    torch.set_num_threads(1)
    device = torch.device("cpu")
    with join_process_group(device, float(silence)) as ranks:
        if ranks.is_first:
            with Path(folder).with_name("worlds.txt").open("a") as file:
                file.write(f"{ranks.size}\n")
        try:
            train(from_table(Experiment, read_toml(recipe)), Path(folder), device, print, ranks=ranks)
        except TrainingStopped as stopped:
            sys.exit(128 + stopped.signal_number)


if __name__ == "__main__":
    main()
