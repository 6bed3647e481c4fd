"""How well a network foresees speech, beside two guesses that need none; and a picture of it.

    python tools/forecast.py exp/forecast data/forecast/dev-report.jsonl --json FILE

The run is one with ``training.objective = "predict"``. Errors are mean absolute ones of normalised features.
*Persistence* says that everything stays as it is: the last feature frame that the network has seen, for each
frame to come. The *linear autoregression* is the best linear guess, in the squares of its errors, from the
last four of the encoder's frames; it is fitted on the training data of the run, for each horizon on its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from asr.core.config import from_table, read_toml
from asr.core.files import replace_file, write_text
from asr.core.provenance import make_provenance
from asr.data.manifest import read_manifest
from asr.model.precision import describe_device
from asr.training.batching import load_batch
from asr.training.checkpoints import newest_checkpoint
from asr.training.examples import Example, measure_duration, plan_by_duration
from asr.training.experiment import Experiment
from asr.training.prediction import Prediction, join_frames, measure_forecast
from asr.training.run import Run, prepare_run

PAST = 4  # frames of the encoder that the autoregression sees
RIDGE = 1e-3  # of the mean square of its inputs
SHOWN_AHEAD = 3  # frames, in the picture


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--json", "result", type=click.Path(path_type=Path), help="Write the errors there.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Draw what was foreseen and what came.")
@click.option("--utterance", default=0, help="Which one to draw, from 0.")
def main(folder: Path, manifest: Path, result: Path | None, out: Path | None, utterance: int) -> None:
    """Print the errors of the run in FOLDER on MANIFEST, for each of its horizons."""
    torch.set_num_threads(1)
    experiment = from_table(Experiment, read_toml(folder / "config.toml"))
    run = prepare_run(experiment, folder, torch.device("cpu"), checkpoint=newest_checkpoint(folder, print))
    examples = [Example(u, measure_duration(u), ()) for u in read_manifest(manifest)]
    network = measure_forecast(run, examples).errors
    persistence, linear = measure_guesses(run, examples, list(network))
    print(f"{'ahead':>6} {'seconds':>8} {'network':>8} {'linear':>8} {'stays':>8}")
    seconds = run.model.frame_seconds
    for ahead in network:
        print(
            f"{ahead:6} {ahead * seconds:8.2f} {network[ahead]:8.4f} {linear[ahead]:8.4f} "
            f"{persistence[ahead]:8.4f}"
        )
    if result is not None:
        errors = {"network": network, "linear": linear, "persistence": persistence}
        table: dict[str, Any] = {
            "manifest": str(manifest),
            "frame_seconds": seconds,
            "parameters": sum(p.numel() for p in run.model.ctc.encoder.parameters()),
            "errors": {name: {str(n): round(e, 5) for n, e in each.items()} for name, each in errors.items()},
            "seed": experiment.training.seed,
            **make_provenance(describe_device(run.model.device), torch=torch.__version__),
        }
        write_text(result, json.dumps(table, indent=2) + "\n")
    if out is not None:
        draw_forecast(
            run, examples[utterance], {"network": network, "linear": linear, "stays": persistence}, out
        )


def list_frames(run: Run, examples: Sequence[Example]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the features of each example, and the same joined to whole frames of the encoder."""
    step = run.model.ctc.encoder.subsampling
    for indices in plan_by_duration([example.duration for example in examples], 60.0):
        batch = load_batch([examples[i] for i in indices], run.data.read)
        features, lengths = run.model.features(batch.samples, batch.sample_lengths)
        joined = join_frames(features, step, int(lengths.max()) // step)
        for rows, frames, count in zip(features, joined, lengths.tolist(), strict=True):
            yield rows[:count].numpy(), frames[: count // step].numpy()


def stack_past(frames: np.ndarray) -> np.ndarray:
    """Put the last ``PAST`` frames beside each frame, zeros before the first, and a one."""
    padded = np.pad(frames, ((PAST - 1, 0), (0, 0)))
    parts = [padded[PAST - 1 - back : len(padded) - back] for back in range(PAST)]
    return np.concatenate([*parts, np.ones((len(frames), 1), frames.dtype)], axis=1)


def measure_guesses(
    run: Run, examples: Sequence[Example], horizons: Sequence[int]
) -> tuple[dict[int, float], dict[int, float]]:
    """Measure persistence and the linear autoregression, errors by horizon."""
    size = run.experiment.features.size
    step = run.model.ctc.encoder.subsampling
    inputs = PAST * size * step + 1
    square = np.zeros((inputs, inputs))
    cross = {ahead: np.zeros((inputs, size * step)) for ahead in horizons}
    for _, frames in list_frames(run, run.data.train):
        past = stack_past(frames).astype(np.float64)
        square += past.T @ past
        for ahead in horizons:
            if len(frames) > ahead:
                cross[ahead] += past[:-ahead].T @ frames[ahead:]
    square += RIDGE * np.trace(square) / inputs * np.eye(inputs)
    weights = {ahead: np.linalg.solve(square, product) for ahead, product in cross.items()}
    sums = {ahead: np.zeros(3) for ahead in horizons}
    for rows, frames in list_frames(run, examples):
        past = stack_past(frames)
        last = rows[step - 1 : step * len(frames) : step]
        for ahead in horizons:
            if len(frames) <= ahead:
                continue
            came = frames[ahead:]
            stays = np.abs(np.tile(last[:-ahead], (1, step)) - came).mean(1).sum()
            line = np.abs(past[:-ahead] @ weights[ahead] - came).mean(1).sum()
            sums[ahead] += [stays, line, len(came)]
    return (
        {ahead: float(each[0] / each[2]) for ahead, each in sums.items()},
        {ahead: float(each[1] / each[2]) for ahead, each in sums.items()},
    )


def draw_forecast(run: Run, example: Example, errors: dict[str, dict[int, float]], path: Path) -> None:
    """Draw what came, what the network had foreseen of it, and the errors over the horizon."""
    from matplotlib.figure import Figure

    objective = run.objective
    assert isinstance(objective, Prediction)
    objective.eval()
    batch = load_batch([example], run.data.read)
    features, lengths = run.model.features(batch.samples, batch.sample_lengths)
    with torch.no_grad():
        states, _, _ = run.model.ctc.encode(features, lengths)
        assert objective.intermediate is not None
        said = objective.intermediate(states)[0].view(len(states[0]), len(objective.horizons), -1)
    ahead = min(objective.horizons, key=lambda n: abs(n - SHOWN_AHEAD))
    foreseen = said[:-ahead, objective.horizons.index(ahead)].reshape(-1, features.shape[2])
    silence = features.new_full((ahead * run.model.ctc.encoder.subsampling, features.shape[2]), float("nan"))
    foreseen = torch.cat([silence, foreseen])[: features.shape[1]]
    seconds = features.shape[1] * run.experiment.features.frame_seconds
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    panels = figure.subplots(3, 1, height_ratios=(1, 1, 1.2))
    colours = {"vmin": float(features.min()), "vmax": float(features.max()), "cmap": "magma"}
    titles = ("what came", f"what was foreseen {1000 * ahead * run.model.frame_seconds:.0f} ms before")
    for axes, rows, title in zip(panels, (features[0], foreseen), titles, strict=False):
        axes.imshow(
            rows.T.numpy(), origin="lower", aspect="auto", interpolation="nearest",
            extent=(0, seconds, -0.5, rows.shape[1] - 0.5), **colours,
        )  # fmt: skip
        axes.set(ylabel="band", title=title)
    panels[1].set_xlabel("seconds")
    for name, each in errors.items():
        milliseconds = [1000 * n * run.model.frame_seconds for n in each]
        panels[2].plot(milliseconds, list(each.values()), marker="o", markersize=3, label=name)
    panels[2].set(xlabel="milliseconds ahead", ylabel="mean absolute error", ylim=(0, None))
    panels[2].legend()
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    main()
