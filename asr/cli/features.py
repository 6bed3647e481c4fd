"""``asr features``: write or draw the frames that a model sees."""

from __future__ import annotations

from pathlib import Path

import click

from asr.cli._options import PICTURES, require_ending, require_libraries


@click.command()
@click.argument("audio", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=require_ending(".npy"),
    help="Write (frames, features) as .npy.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    callback=require_ending(*PICTURES),
    help="Draw them; .png, .svg or .pdf.",
)
@click.option("--model", help="Folder or name of a model whose features to compute.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override, like kind=mfcc.")
@require_libraries("torch", "torchaudio", "librosa", "matplotlib")
def features(
    audio: Path, out: Path | None, plot: Path | None, model: str | None, assignments: tuple[str, ...]
) -> None:
    """Compute the features of AUDIO: those of a model, or log-mel with the defaults."""
    if out is None and plot is None:
        raise click.UsageError("Nothing to write: give -o FILE.npy, --plot FILE.png or both.")

    import numpy as np

    from asr.audio.reading import read_audio
    from asr.core.config import from_table, override, to_table
    from asr.core.files import replace_file
    from asr.model.features import FeatureConfig, Features, pad_batch
    from asr.model.folder import load_acoustic_model
    from asr.training.pictures import draw_features

    module = load_acoustic_model(model).features if model else Features(FeatureConfig())
    if assignments:
        config = from_table(FeatureConfig, override(to_table(module.config), assignments))
        module = Features(config)
    frames, lengths = module(*pad_batch([read_audio(audio, module.config.sample_rate)]))
    array = frames[0, : int(lengths[0])].numpy()
    if out is not None:
        with replace_file(out) as temporary, temporary.open("wb") as file:
            np.save(file, array)
    if plot is not None:
        draw_features(array, module.config, audio.name, plot)
    click.echo(f"{audio}: {len(array)} frames of {array.shape[1]} {module.config.kind} features", err=True)
