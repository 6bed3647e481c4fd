"""Files that pictures are drawn to, as command lines name them."""

from __future__ import annotations

from pathlib import Path

import click

ENDINGS = (".png", ".svg", ".pdf")


def picture_path(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """A callback of click: the path, if its ending says how to draw; told before any work is done."""
    if value is not None and value.suffix.lower() not in ENDINGS:
        raise click.BadParameter(f"{value} does not end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    return value
