"""The command line: one file per verb, which has the verb's name; ``main`` runs it.

In: arguments. Out: text on stdout, news on stderr, an exit status. A verb's file is imported only when the
verb is called, so that ``asr --help`` and ``asr score`` start without torch. Shared by verbs: ``_options``,
``_tables`` and ``_json`` (results for people and for programs), ``_progress``, ``_training`` (on text).

Public face: ``cli``, ``main``.
"""

from __future__ import annotations

import faulthandler
import importlib
import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

import click

from asr import __version__
from asr.core.files import quote_path
from asr.errors import UserError

INTERRUPTED = 130  # the exit status after Ctrl-C, as in shells
FIRST_FREE = 3  # the number of the first file that is no standard stream

VERBS = {
    "transcribe": "Turn recordings into text.",
    "align": "Find where the words of a text are in a recording.",
    "train": "Train a model from a recipe, or resume a run.",
    "teach": "Write what a model hears, for another model to learn from.",
    "doctor": "Say why a recipe does not learn.",
    "evaluate": "Transcribe a manifest and print its word error rate.",
    "score": "Compare hypotheses with references: error rates and what went wrong.",
    "lm": "Train, measure and try language models: n-grams, and recurrent ones.",
    "punctuation": "Train and measure models of punctuation and capitals.",
    "lexicon": "Write pronunciations, also of words that no dictionary has.",
    "tune": "Find the search settings with which a model makes the fewest errors.",
    "prepare": "Turn a public corpus into manifests.",
    "pack": "Pack a manifest's recordings into tar files, for disks that are slow or far away.",
    "validate": "Check manifests and describe what is in them.",
    "features": "Write or draw the features of a recording.",
    "inspect": "Draw what happens inside a model.",
    "listen": "Write down what is being said, while it is said.",
    "serve": "Serve transcripts to other programs, and a page to people.",
    "export": "Write a model as an ONNX file for programs without torch.",
    "models": "List the models that ship with the package.",
}


class Verbs(click.Group):
    """A group that knows its verbs by name and imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        return getattr(importlib.import_module(f"asr.cli.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


CONTEXT = {
    "show_default": True,
    "help_option_names": ["-h", "--help"],
    "token_normalize_func": lambda name: name.replace("_", "-"),  # --beam_size is --beam-size
}


@click.group(cls=Verbs, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="asr")
def cli() -> None:
    """Speech recognition with deep bidirectional LSTMs and CTC."""


def main() -> None:
    """Run the command line; a ``UserError`` ends in one line on stderr and exit status 1.

    Wrong usage is 2, as of every program by click, and Ctrl-C 130, as in shells.
    """
    replace_closed_streams()
    with suppress(RuntimeError, ValueError, OSError):  # no stderr, or none of the system's
        faulthandler.enable()  # a crash in compiled code says where it was
    # Where torch is used: oneDNN keeps what it makes for each shape of a batch. Recordings have many; that
    # was half a gigabyte.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    # NumPy's matrix products are small here, and recordings have a thread each: threads in the products
    # only wait for each other. (Two cores, rescoring: 141 seconds of cores for an hour of audio, and 87.)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        status = cli(prog_name="asr", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        exit_with_message("interrupted", INTERRUPTED)
    except UserError as error:
        exit_with_message(str(error))
    except OSError as error:  # a full disk, a folder that may not be written to
        name = quote_path(error.filename or "output")
        exit_with_message(f"{name}: {error.strerror}" if error.strerror else str(error))
    sys.exit(status if isinstance(status, int) else 0)


def exit_with_message(message: str, status: int = 1) -> NoReturn:
    """Print what is wrong and exit."""
    with suppress(OSError):  # stderr may be closed
        click.echo(f"asr: {message}", err=True)
    try:
        sys.stdout.flush()
    except OSError:  # Python must not try to write it again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def replace_closed_streams() -> None:
    """Give the program the standard streams that its caller has closed.

    Otherwise a file that is opened next would get the number of one, and what a library prints. What is
    written to a closed stdout is an error, as it is on a full disk; to a closed stderr it is lost. Names of
    files that are not UTF-8 are printed as they are.
    """
    while (number := os.open(os.devnull, os.O_RDONLY)) < FIRST_FREE:
        pass
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
