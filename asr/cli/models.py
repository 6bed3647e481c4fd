"""``asr models``: list the models that ship with the package."""

from __future__ import annotations

import click

from asr.pretrained import DEFAULT_MODEL, SHIPPED, list_shipped_models


@click.command()
def models() -> None:
    """List the models that ship with the package, with their sizes and folders; --model takes their names."""
    for name in list_shipped_models():
        card = (SHIPPED / name / "card.md").read_text(encoding="utf-8")
        paragraph = next(part for part in card.split("\n\n") if part.strip() and not part.startswith("#"))
        about, _, _ = " ".join(paragraph.split()).partition(". ")
        click.echo(f"{name}{' (default)' if name == DEFAULT_MODEL else ''}: {about.removesuffix('.')}")
        size = sum(path.stat().st_size for path in (SHIPPED / name).iterdir() if path.is_file())
        click.echo(f"  {size / 1e6:.0f} MB in {SHIPPED / name}")
