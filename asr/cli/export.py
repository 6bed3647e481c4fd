"""``asr export``: a model for programs without torch."""

from __future__ import annotations

from pathlib import Path

import click

from asr.cli.outputs import ending_in
from asr.pretrained import DEFAULT_MODEL, find_model_folder


@click.command()
@click.option("--model", default=DEFAULT_MODEL, help="A model folder, or the name of a shipped model.")
@click.option("--format", "file_format", default="onnx", type=click.Choice(["onnx"]), help="Of the file.")
@click.option(
    "-o", "--out", metavar="FILE", required=True, type=click.Path(dir_okay=False, path_type=Path),
    callback=ending_in(".onnx"), help="Where to write, FILE.onnx.",
)  # fmt: skip
def export(model: str, file_format: str, out: Path) -> None:
    """Write a model as one file that takes samples and gives log-probs, features included.

    In ONNX its inputs are samples (batch, samples), float32 of full scale 1, and lengths (batch,), int64;
    its outputs log_probs (batch, frames, tokens) and frames (batch,). The metadata holds sample_rate,
    frame_seconds and tokens, the text of each in JSON, the blank first. Needs pip install 'asr[onnx]'.
    """
    from asr.model.folder import load_acoustic_model
    from asr.text.tokenizer import load_tokenizer
    from asr.training.export import export_onnx

    difference = export_onnx(load_acoustic_model(model, "cpu"), load_tokenizer(find_model_folder(model)), out)
    size = out.stat().st_size / 1e6
    click.echo(
        f"{out}: {size:.1f} MB, log-probs within {difference:.1g} of {model} in ONNX Runtime", err=True
    )
