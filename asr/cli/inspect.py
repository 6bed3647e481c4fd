"""``asr inspect``: a picture of what happens inside a model while it listens."""

from __future__ import annotations

from pathlib import Path

import click

from asr.cli.outputs import picture_path
from asr.pretrained import DEFAULT_MODEL


@click.command()
@click.argument("audio", type=click.Path(path_type=Path))
@click.option("--model", default=DEFAULT_MODEL, help="A model folder, or the name of a shipped model.")
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    callback=picture_path,
    help="A .png, .svg or .pdf.",
)
@click.option("--layer", default=0, help="Which encoder layer, 1 is the lowest; 0: the topmost.")
@click.option("--backward", is_flag=True, help="Of both directions, the one that reads from the end.")
@click.option("--units", metavar="N,N,...", help="Which units, from 0.  [default: the liveliest]")
@click.option("--count", default=12, type=click.IntRange(1), help="How many units when none are named.")
def inspect(
    audio: Path, model: str, out: Path, layer: int, backward: bool, units: str | None, count: int
) -> None:
    """Draw what a model does with AUDIO: features, gates, cell and hidden states, posteriors, words.

    Gates are those the cell has: input, forget and output in an LSTM, reset and update in a GRU. A
    layer that is not recurrent has its outputs drawn.
    """
    import asr
    from asr.training.inspection import choose_units, draw_inspection, inspect_model

    numbers = named_units(units) if units is not None else None
    inside = inspect_model(asr.load(model, "cpu"), audio, layer, backward)
    draw_inspection(inside, numbers or choose_units(inside, count), out)
    text = " ".join(word.text for word in inside.words)
    click.echo(f"{audio}: {inside.place}, {inside.size} units; {inside.unit} {text!r}", err=True)


def named_units(text: str) -> list[int]:
    """``3,17`` as numbers."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not of the form 3,17,40", param_hint="--units") from error
