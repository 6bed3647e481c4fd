"""Files to be written, as command lines name them: the ending says what goes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

Callback = Callable[[click.Context, click.Parameter, Path | None], Path | None]


def ending_in(*endings: str) -> Callback:
    """A callback of click: hands on a path that ends in one of ``endings``; told before any work is done."""

    def checked(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
        if value is not None and value.suffix.lower() not in endings:
            raise click.BadParameter(f"{value} does not end in {' or '.join(endings)}")
        return value

    return checked


PICTURES = (".png", ".svg", ".pdf")
picture_path = ending_in(*PICTURES)
