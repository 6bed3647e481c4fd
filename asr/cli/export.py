"""``asr export``: write a model for programs without torch."""

from __future__ import annotations

from pathlib import Path

import click

from asr.cli._options import model_option, require_ending, require_libraries
from asr.pretrained import SHIPPED, find_model_folder
from asr.recognition.folder import ONNX_FILE


@click.command()
@model_option
@click.option("--format", "file_format", default="onnx", type=click.Choice(["onnx"]), help="Of the file.")
@click.option("--int8", is_flag=True, help="Weights in 8 bits, a scale for each row: a quarter of the size.")
@click.option(
    "-o", "--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    callback=require_ending(".onnx"),
    help="Where to write, FILE.onnx.  [default: model.onnx in the model folder]",
)  # fmt: skip
@require_libraries("torch", "torchaudio", "onnx")
def export(model: str, file_format: str, int8: bool, out: Path | None) -> None:
    """Write a model as one file from samples to log-probs, features included.

    As model.onnx in a model folder it transcribes without torch; asr train writes it there by itself. The
    inputs of an ONNX file are samples (batch, samples), float32 of full scale 1, and lengths (batch,), int64;
    its outputs are log_probs (batch, frames, tokens) and frames (batch,). The metadata has sample_rate,
    frame_samples, frame_seconds and tokens, the text of each in JSON, the blank first.
    """
    from asr.training.export import export_folder

    folder = find_model_folder(model)
    if out is None and folder.parent == SHIPPED:
        raise click.UsageError(f"{model} is part of the program: say with -o where to write.")
    out = out or folder / ONNX_FILE
    difference = export_folder(folder, int8, out)
    size = out.stat().st_size / 1e6
    weights = f"the rounded weights of {model}" if int8 else model
    click.echo(
        f"{out}: {size:.1f} MB, log-probs within {difference:.1g} of {weights} in ONNX Runtime", err=True
    )
