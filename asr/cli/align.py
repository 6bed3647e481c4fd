"""``asr align``: a recording and what is said in it, out come the times of words and characters."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median

import click

from asr.cli.threads import cores_option
from asr.cli.transcribe import progress_bar
from asr.core.cores import choose_threads
from asr.core.files import read_text
from asr.errors import UserError
from asr.pretrained import DEFAULT_MODEL
from asr.transcript.formats import ALIGNMENT_FORMATS, FORMATS

UNLIKELY = (
    0.1  # half of the words of a wrong text have a confidence below this (tools/wrong_texts.py, the log)
)


@click.command()
@click.argument("audio", type=click.Path(path_type=Path))
@click.argument("text")
@click.option("--model", default=DEFAULT_MODEL, help="A model folder, or the name of a shipped model.")
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write there instead of to stdout.",
)
@click.option(
    "-f",
    "--output-format",
    type=click.Choice([*ALIGNMENT_FORMATS]),
    help="ctm has words, ctm-units what they are spelled with, textgrid and json have both.  "
    "[default: as FILE ends, or ctm]",
)
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
@cores_option
def align(
    audio: Path, text: str, model: str, out: Path | None, output_format: str | None, device: str, threads: int
) -> None:
    """Find where the words of TEXT are in AUDIO: a text as such, a file that holds it, or - for stdin.

    Words are spelled with characters, with pieces or with phones, as the model has them. Everything
    that AUDIO says has to be in TEXT: what is not is taken for a part of some word or for silence. Words
    that the model's lexicon lacks are pronounced as its own are, which takes some seconds to learn.
    """
    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    if output_format is None and ending in FORMATS.keys() - ALIGNMENT_FORMATS.keys():
        raise click.UsageError(f"{out}: say with -f how to write it, {', '.join(ALIGNMENT_FORMATS)}.")
    spoken = text_of(text)

    from asr.recognition.recognizer import open_recognizer

    cores = choose_threads(threads)
    recognizer = open_recognizer(model, device, lm="none", beam_size=1, threads=cores)  # nothing is searched
    try:
        with progress_bar([audio]) as bar:
            aligned = recognizer.align(audio, spoken, bar.update)
    except UserError as error:
        raise type(error)(str(error) if str(audio) in str(error) else f"{audio}: {error}") from error
    if median(word.word.confidence for word in aligned.words) < UNLIKELY:
        click.echo(f"{audio}: hardly a word of this text is heard there", err=True)
    written = ALIGNMENT_FORMATS[output_format or (ending if ending in ALIGNMENT_FORMATS else "ctm")](aligned)
    if out is None:
        click.echo(written, nl=False)
        return
    from asr.core.files import write_text

    write_text(out, written)


def text_of(argument: str) -> str:
    """The text that TEXT means."""
    if argument == "-":
        return sys.stdin.read()
    if not os.path.isfile(argument):  # noqa: PTH113 (a text may be too long to be a path)
        if argument.endswith(".txt"):
            raise UserError(f"{argument}: no such file")
        return argument
    return read_text(argument, UserError)
