"""``asr transcribe``: recordings in, text out."""

from __future__ import annotations

import sys

import click

from asr.models import DEFAULT_MODEL
from asr.transcript import FORMATS


@click.command()
@click.argument("audio", nargs=-1, required=True, type=click.Path())
@click.option("--model", default=DEFAULT_MODEL, help="A model folder, or the name of a shipped model.")
@click.option("-f", "--output-format", default="txt", type=click.Choice(list(FORMATS)), help="How to write.")
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
def transcribe(audio: tuple[str, ...], model: str, output_format: str, device: str) -> None:
    """Turn AUDIO files into text on stdout.

    As txt, one recording gives its text alone; several give a line each: the file's name, a tab
    and the text. json and jsonl hold the times and the confidence of every word. A recording that
    cannot be read is named on stderr, the others are done, and the exit status is 1.
    """
    from asr.audio import AudioError
    from asr.recognizer import load_recognizer

    recognizer = load_recognizer(model, device)
    failures = 0
    for path in audio:
        try:
            transcript = recognizer.transcribe(path)
        except AudioError as error:
            click.echo(f"asr: {error}", err=True)
            failures += 1
            continue
        name = f"{path}\t" if output_format == "txt" and len(audio) > 1 else ""
        click.echo(name + FORMATS[output_format](transcript), nl=False)
    if failures:
        sys.exit(1)
