"""``asr inspect``: draw what happens inside a model."""

from __future__ import annotations

from pathlib import Path

import click

from asr.cli._options import PICTURES, model_option, require_ending, require_libraries


@click.command()
@click.argument("audio", type=click.Path(path_type=Path))
@model_option
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    callback=require_ending(*PICTURES),
    help="A .png, .svg or .pdf.",
)
@click.option("--layer", default=0, help="The encoder layer, 1 is the lowest; 0: the topmost.")
@click.option("--backward", is_flag=True, help="The direction that reads from the end.")
@click.option("--units", metavar="N,N,...", help="The units, counted from 0.  [default: the most active]")
@click.option("--count", default=12, type=click.IntRange(1), help="Units to draw if none are named.")
@require_libraries("torch", "torchaudio", "librosa", "matplotlib")
def inspect(
    audio: Path, model: str, out: Path, layer: int, backward: bool, units: str | None, count: int
) -> None:
    """Draw what a model does with AUDIO: features, gates, cell and hidden states, posteriors, words.

    The gates are those of the cell: input, forget and output in an LSTM, reset and update in a GRU. Of a
    layer that is not recurrent the outputs are drawn.
    """
    from asr.recognition.recognizer import open_recognizer
    from asr.training.inspection import choose_units, draw_inspection, inspect_model

    numbers = parse_units(units) if units is not None else None
    inspection = inspect_model(open_recognizer(model, "cpu", engine="torch"), audio, layer, backward)
    draw_inspection(inspection, numbers or choose_units(inspection, count), out)
    text = " ".join(word.text for word in inspection.words)
    click.echo(f"{audio}: {inspection.place}, {inspection.size} units; {inspection.unit} {text!r}", err=True)


def parse_units(text: str) -> list[int]:
    """Parse ``3,17`` as numbers; raises ``BadParameter``."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not of the form 3,17,40", param_hint="--units") from error
