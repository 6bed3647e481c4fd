#!/usr/bin/env python3
"""Put a run's selected weights into the package, in float16.

    python tools/release.py exp/fsdd digits

Writes `asr/models/NAME` but for its `card.md`, which a person writes: what the model is good and bad
at, what it was trained on and under which licence, and how it was measured.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from asr.models import CONFIG_FILE, SHIPPED
from asr.recognizer import load_recognizer, save_weights


def released(run: Path, name: str) -> Path:
    """The folder of the shipped model ``name``, made from ``run``."""
    folder = SHIPPED / name
    save_weights(load_recognizer(run), folder, torch.float16)
    shutil.copy(run / CONFIG_FILE, folder / CONFIG_FILE)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/release.py RUN NAME")
    print(released(Path(sys.argv[1]), sys.argv[2]))
