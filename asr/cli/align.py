"""``asr align``: the times of words and characters in a recording whose text is known."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median

import click

from asr.cli._options import device_option, model_option, set_torch_threads, threads_option
from asr.cli._progress import new_audio_bar
from asr.core.cores import choose_threads
from asr.core.files import read_text
from asr.errors import UserError
from asr.scoring.counts import list_names
from asr.transcript.formats import ALIGNMENT_FORMATS, FORMATS

UNLIKELY = 0.1  # the median confidence of words of a wrong text is below it (tools/wrong_texts.py)


@click.command()
@click.argument("audio", type=click.Path(path_type=Path))
@click.argument("text")
@model_option
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
    help="ctm has words, ctm-units the units they are spelled with, textgrid and json both, srt and vtt "
    "are subtitles.  "
    "[default: by the ending of FILE, or ctm]",
)
@device_option
@threads_option
def align(
    audio: Path,
    text: str,
    model: str,
    out: Path | None,
    output_format: str | None,
    device: str,
    threads: int | None,
) -> None:
    """Find where the words of TEXT are in AUDIO; TEXT is the text itself, a file with it, or - for stdin.

    Words are written as TEXT has them. Figures are read as they are said, what stands in brackets is left
    out, and so is what the model cannot spell; both are named.

    Words are spelled with the model's units: characters, pieces or phones. TEXT must have everything that
    is said in AUDIO: what is missing is taken for a part of another word or for silence. Words that the
    model's lexicon lacks get pronunciations like its own, which takes some seconds to learn.
    """
    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    if output_format is None and ending in FORMATS.keys() - ALIGNMENT_FORMATS.keys():
        raise click.UsageError(f"{out}: say with -f how to write it, {', '.join(ALIGNMENT_FORMATS)}.")
    spoken = read_argument(text)

    from asr.recognition.recognizer import open_recognizer

    cores = choose_threads(threads)
    recognizer = open_recognizer(model, device, lm="none", beam_size=1, threads=cores)  # nothing is searched
    set_torch_threads(cores)
    try:
        with new_audio_bar([audio]) as bar:
            aligned = recognizer.align(audio, spoken, bar.update)
    except UserError as error:
        raise type(error)(str(error) if str(audio) in str(error) else f"{audio}: {error}") from error
    for names, what in (
        (aligned.remarks, "left out, because what stands in brackets is no words"),
        (aligned.unplaced, "without a time, because the model cannot spell them"),
    ):
        if names:
            click.echo(f"{audio}: {what}: {list_names(names)}", err=True)
    if median(word.word.confidence for word in aligned.words) < UNLIKELY:
        click.echo(f"{audio}: hardly any word of this text is said there", err=True)
    written = ALIGNMENT_FORMATS[output_format or (ending if ending in ALIGNMENT_FORMATS else "ctm")](aligned)
    if out is None:
        click.echo(written, nl=False)
        return
    from asr.core.files import write_text

    write_text(out, written)


def read_argument(argument: str) -> str:
    """Read the text that TEXT stands for; raises ``UserError`` for a file that cannot be read."""
    if argument == "-":
        return sys.stdin.read()
    if not os.path.isfile(argument):  # noqa: PTH113 (a text may be too long to be a path)
        if argument.endswith(".txt"):
            raise UserError(f"{argument}: no such file")
        return argument
    return read_text(argument, UserError)
