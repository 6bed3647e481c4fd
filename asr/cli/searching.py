"""The options about search that several verbs have, and what they make of a recogniser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = [
    click.option(
        "--beam-size", type=click.IntRange(1), metavar="N",
        help="Prefixes kept from frame to frame; 1 without a language model is greedy.  "
        "[default: the model's]",
    ),
    click.option(
        "--lm", metavar="FILE|none",
        help="A language model, ARPA or what asr lm made.  [default: the model's own, where it has one]",
    ),
    click.option(
        "--lm-weight", type=click.FloatRange(0),
        help="Weight of the language model's opinion.  [default: the model's]",
    ),
    click.option(
        "--word-bonus", type=float, help="Added to the score for every word.  [default: the model's]"
    ),
    click.option("--hotwords", default="", metavar='"A, B C"', help="Words and phrases to listen for."),
    click.option(
        "--hotword-weight", type=click.FloatRange(0),
        help="Added for each of their words.  [default: the model's]",
    ),
]  # fmt: skip
SETTINGS = ("beam_size", "lm_weight", "word_bonus", "hotword_weight")


def search_options(command: Command) -> Command:
    """The command with ``OPTIONS`` added; it takes them as one dictionary of keyword arguments."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def open_with_options(
    model: str, device: str, compute_type: str, threads: int | None, given: dict[str, Any]
) -> Recognizer:
    """Open a recogniser with the search that the options and the model folder ask for.

    Options that it does not follow to the letter are said on stderr.
    """
    from asr.recognition.recognizer import open_recognizer

    settings = {key: given[key] for key in SETTINGS if given[key] is not None}
    recognizer = open_recognizer(
        model, device, lm=given["lm"], hotwords=given["hotwords"], compute_type=compute_type, threads=threads,
        **settings,
    )  # fmt: skip
    for note in notes(recognizer, settings):
        click.echo(note, err=True)
    return recognizer


def notes(recognizer: Recognizer, given: dict[str, Any]) -> Iterator[str]:
    """What became otherwise than ``given``."""
    decoder = recognizer.decoder
    if decoder is None:
        for key in ("lm_weight", "word_bonus"):
            if key in given:
                yield f"{named(key)} does nothing in a greedy search: give --lm or --beam-size, too"
    else:
        size, fused = decoder.config.beam_size, decoder.description["language_model"] is not None
        if fused and given.get("beam_size", size) != size:
            yield f"a language model needs a beam search: --beam-size {size} instead of greedy search"
        if not fused and recognizer.search_config.beam_size != size:
            yield f"hot words need a beam search: --beam-size {size} instead of greedy search"
        if not fused and "lm_weight" in given:
            yield "--lm-weight does nothing without a language model: give --lm, too"
    if "hotword_weight" in given and (decoder is None or not decoder.description["phrases"]):
        yield "--hotword-weight does nothing without hot words: give --hotwords, too"


def named(key: str) -> str:
    """A setting as the option that it comes from."""
    return "--" + key.replace("_", "-")
