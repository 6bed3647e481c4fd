"""Pictures of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asr.core.files import replace_file
from asr.model.features import FeatureConfig


def draw_features(features: np.ndarray, config: FeatureConfig, title: str, path: Path) -> None:
    """Draw ``(frames, features)`` over time; the ending of ``path`` chooses the format."""
    from matplotlib.figure import Figure  # slow to import, and few commands need it

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
