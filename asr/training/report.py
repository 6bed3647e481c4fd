"""What people look at: where a result came from, and pictures."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr import __version__
from asr.core.files import replace_file
from asr.model.features import FeatureConfig


def provenance(device: torch.device) -> dict[str, Any]:
    """What it takes to get a result again: command, version, commit, hardware, date."""
    return {
        "command": " ".join(["asr", *map(shlex.quote, sys.argv[1:])]),
        "version": __version__,
        "commit": source_commit(),
        "hardware": hardware(device),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def source_commit() -> str | None:
    """The commit of the source tree this runs from, with ``+`` when changed since; ``None`` elsewhere."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "asr")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def hardware(device: torch.device) -> str:
    """The processor or GPU, and how many threads work on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def processor() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def draw_features(features: np.ndarray, config: FeatureConfig, title: str, path: Path) -> None:
    """Draw ``(frames, features)`` over time as a picture; the ending of ``path`` chooses its format."""
    from matplotlib.figure import Figure  # takes long to come, and few commands need it

    seconds = len(features) * config.frame_seconds
    figure = Figure(figsize=(max(6.0, min(24.0, 3 * seconds)), 4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(
        features.T, origin="lower", aspect="auto", interpolation="nearest",
        extent=(0, seconds, -0.5, features.shape[1] - 0.5), cmap="magma",
    )  # fmt: skip
    axes.set(title=title, xlabel="seconds", ylabel=f"{config.kind} feature")
    figure.colorbar(image, ax=axes, label=f"normalised by {config.normalisation}")
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
