"""Pictures of what a model sees and does, drawn by librosa."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.core.files import replace_file
from asr.model.features import FeatureConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh


def draw_features(features: np.ndarray, config: FeatureConfig, title: str, path: Path) -> None:
    """Draw ``(frames, features)`` over time; the ending of ``path`` chooses the format."""
    from matplotlib.figure import Figure  # slow to import, and few commands need it

    seconds = len(features) * config.frame_seconds
    figure = Figure(figsize=(max(6.0, min(24.0, 3 * seconds)), 4), layout="constrained")
    axes = figure.subplots()
    edges = find_mel_edges(config, features.shape[1])
    label = f"{config.kind} feature" if edges is None else f"{config.kind} energies, hertz"
    image = draw_frames(axes, features, seconds, label, edges, cmap="magma")
    axes.set(title=title, xlabel="seconds")
    figure.colorbar(image, ax=axes, label=f"normalised by {config.normalisation}")
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=120)


def draw_frames(
    axes: Axes,
    values: np.ndarray,
    seconds: float,
    label: str,
    edges: np.ndarray | None = None,
    **colours: Any,
) -> QuadMesh:
    """Draw ``(frames, rows)`` over the seconds of a recording.

    ``edges`` are those of the rows in hertz, ``(rows + 1,)``, for a mel axis; without them rows are counted.
    """
    from librosa.display import specshow  # slow to import, too
    from matplotlib.ticker import MaxNLocator

    frames, rows = values.shape
    image = specshow(
        values.T,
        x_coords=np.linspace(0, seconds, frames + 1),
        y_coords=np.arange(rows + 1) - 0.5 if edges is None else edges,
        x_axis="s",
        y_axis=None if edges is None else "mel",
        auto_aspect=False,
        ax=axes,
        **colours,
    )
    if edges is None:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("")  # the lowest picture of a figure has it
    axes.set_ylabel(label, fontsize=8)
    return image


def find_mel_edges(config: FeatureConfig, rows: int) -> np.ndarray | None:
    """Find where mel filters meet, in hertz; ``None`` where ``rows`` are not just log-mel energies."""
    import librosa

    if config.kind != "logmel" or rows != config.n_mels:
        return None
    high = config.high_hz or config.sample_rate / 2
    # Every other point lies in the middle of a filter.
    points = librosa.mel_frequencies(n_mels=2 * rows + 3, fmin=config.low_hz, fmax=high, htk=True)
    return np.asarray(points[1:-1:2])
