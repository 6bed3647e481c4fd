"""The options about search that several verbs have, and what they make of a recogniser."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from asr.models import model_folder

if TYPE_CHECKING:
    from asr.recognizer import Recognizer

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
    click.option("--lm-weight", type=click.FloatRange(0), help="Weight of the language model's opinion."),
    click.option("--word-bonus", type=float, help="Added to the score for every word."),
    click.option("--hotwords", default="", metavar='"A, B C"', help="Words and phrases to listen for."),
    click.option("--hotword-weight", type=click.FloatRange(0), help="Added for each of their words."),
]  # fmt: skip
SETTINGS = ("beam_size", "lm_weight", "word_bonus", "hotword_weight")


def search_options(command: Command) -> Command:
    """The command with ``OPTIONS`` added; it takes them as one dictionary of keyword arguments."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def searching(recognizer: Recognizer, model: str, given: dict[str, Any]) -> Recognizer:
    """The recogniser with the search that the options and the model folder ask for."""
    from asr.recognizer import read_search_config, with_own_search

    settings = {key: given[key] for key in SETTINGS if given[key] is not None}
    found = with_own_search(recognizer, model, given["lm"], given["hotwords"].split(","), settings)
    if found.decoder is not None and found.decoder.description["language_model"] is None:
        asked = settings.get("beam_size", read_search_config(model_folder(model), given["lm"]).beam_size)
        size = found.decoder.config.beam_size
        if asked != size:
            click.echo(f"hot words need a beam search: --beam-size {size} instead of greedy search", err=True)
    return found
