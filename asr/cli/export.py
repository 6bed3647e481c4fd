"""``asr export``: write a model for programs without torch."""

from __future__ import annotations

from pathlib import Path

import click

from asr.cli._options import model_option, require_ending
from asr.pretrained import find_model_folder


@click.command()
@model_option
@click.option("--format", "file_format", default="onnx", type=click.Choice(["onnx"]), help="Of the file.")
@click.option(
    "-o", "--out", metavar="FILE", required=True, type=click.Path(dir_okay=False, path_type=Path),
    callback=require_ending(".onnx"), help="Where to write, FILE.onnx.",
)  # fmt: skip
def export(model: str, file_format: str, out: Path) -> None:
    """Write a model as one file from samples to log-probs, features included.

    The inputs of an ONNX file are samples (batch, samples), float32 of full scale 1, and lengths (batch,),
    int64; its outputs are log_probs (batch, frames, tokens) and frames (batch,). The metadata has
    sample_rate, frame_seconds and tokens, the text of each in JSON, the blank first. It needs
    pip install 'asr[onnx]'.
    """
    from asr.model.folder import load_acoustic_model
    from asr.text.tokenizer import load_tokenizer
    from asr.training.export import export_onnx

    difference = export_onnx(load_acoustic_model(model, "cpu"), load_tokenizer(find_model_folder(model)), out)
    size = out.stat().st_size / 1e6
    click.echo(
        f"{out}: {size:.1f} MB, log-probs within {difference:.1g} of {model} in ONNX Runtime", err=True
    )
