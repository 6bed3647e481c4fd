"""The options about search that several verbs have, and what they make of a recogniser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
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


def search_options(command: Command) -> Command:
    """The command with ``OPTIONS`` added; it takes them as one dictionary of keyword arguments."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def searching(recognizer: Recognizer, model: str, given: dict[str, Any]) -> Recognizer:
    """The recogniser with the search that the options and the model folder ask for."""
    from asr.recognizer import own_language_model, read_search_config, with_search
    from asr.text import NORMALISERS

    folder = model_folder(model)
    config = read_search_config(folder)
    keys = ("beam_size", "lm_weight", "word_bonus", "hotword_weight")
    config = replace(config, **{key: given[key] for key in keys if given[key] is not None})
    lm = given["lm"]
    language_model = own_language_model(folder) if lm is None else None if lm == "none" else lm
    normalise = NORMALISERS[recognizer.config.text.normaliser]
    phrases = [phrase for phrase in map(normalise, given["hotwords"].split(",")) if phrase.strip()]
    found = with_search(recognizer, config, language_model, phrases)
    if phrases and language_model is None and config.beam_size == 1 and found.decoder is not None:
        size = found.decoder.config.beam_size
        click.echo(f"hot words need a beam search: --beam-size {size} instead of greedy search", err=True)
    return found


def described_search(recognizer: Recognizer) -> dict[str, Any] | str:
    """The search for a results file."""
    if recognizer.decoder is None:
        return "greedy"
    return asdict(recognizer.decoder.config) | recognizer.decoder.description
