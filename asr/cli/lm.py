"""``asr lm``: train, measure and try n-gram language models."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from asr.text.normalise import NORMALISERS

if TYPE_CHECKING:
    from asr.lm.model import NgramModel

Number = TypeVar("Number", int, float)

MODEL = click.argument("model", metavar="LM", type=click.Path(path_type=Path))
TEXTS = click.argument("texts", metavar="TEXT...", nargs=-1, required=True, type=click.Path(path_type=Path))
OUT = click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="FILE.arpa or FILE.arpa.gz; else binary.",
)
NORMALISER = click.option(
    "--normaliser",
    type=click.Choice(list(NORMALISERS)),
    default="none-v1",
    help="Applied to every sentence.",
)
SPLIT = click.option(
    "--split-sentences", is_flag=True, help="TEXT is prose in paragraphs, not one sentence a line."
)
BITS = click.option(
    "--bits",
    metavar="N",
    type=click.IntRange(0, 24),
    default=8,
    help="Bits of a probability and of a back-off in a binary file; 0 keeps them exact.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

# These options take all the numbers that follow them.
NUMBER = re.compile(r"\d[\d.,]*")
NUMBER_OPTIONS = ("--prune", "--discount-fallback")


class ManyNumbers(click.Command):
    """A command with options like ``--prune 0 0 1``, which click alone cannot parse."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, join_numbers(args))


def join_numbers(arguments: list[str]) -> list[str]:
    """Join the numbers after each of ``NUMBER_OPTIONS`` into one argument: ``--prune=0 0 1``."""
    result: list[str] = []
    for argument in arguments:
        option = argument.replace("_", "-")
        if option in NUMBER_OPTIONS:
            result.append(option + "=")
        elif result and result[-1].partition("=")[0] in NUMBER_OPTIONS and NUMBER.fullmatch(argument):
            result[-1] += f" {argument}"
        else:
            result.append(argument)
    return result


@click.group()
def lm() -> None:
    """N-gram language models: train one on text, measure, describe and try it.

    LM is an ARPA file, compressed with gzip or not, or the binary file that asr lm makes, which opens at
    once. TEXT has one sentence a line and may be compressed with gzip or xz; - is the standard input.
    """


@lm.command(cls=ManyNumbers)
@TEXTS
@OUT
@BITS
@click.option("--order", type=click.IntRange(1, 6), default=3, help="Words in the longest n-grams.")
@click.option(
    "--prune",
    metavar="N...",
    default="0",
    help="Leave out n-grams seen N times or less, a number per order (0 0 1); the last holds for the rest.",
)
@click.option(
    "--vocab", metavar="N", type=click.IntRange(1), help="Keep the N most frequent words; others are <unk>."
)
@NORMALISER
@SPLIT
@click.option(
    "--discount-fallback",
    metavar="[D1 D2 D3]",
    help="Discounts for orders for which the text gives none; without numbers 0.5 1 1.5.",
)
def train(
    texts: tuple[Path, ...],
    out: Path,
    bits: int,
    order: int,
    prune: str,
    vocab: int | None,
    normaliser: str,
    split_sentences: bool,
    discount_fallback: str | None,
) -> None:
    """Estimate a model from TEXT: interpolated modified Kneser-Ney with count pruning, as KenLM's lmplz.

    Blank lines do not count as sentences. The words <s>, </s> and <unk> are reserved.
    """
    from asr.lm.estimation import FALLBACK, EstimationConfig, estimate

    fallback: tuple[float, ...] = ()
    if discount_fallback is not None:
        fallback = parse_numbers("--discount-fallback", discount_fallback, float) or FALLBACK
    config = EstimationConfig(
        order=order,
        prune=parse_numbers("--prune", prune, int),
        vocabulary_size=vocab,
        discount_fallback=fallback,
    )
    model = estimate(read_sentences(texts, normaliser, split_sentences), config)
    write_lm(model, out, bits)


@lm.command()
@MODEL
@TEXTS
@NORMALISER
@SPLIT
@JSON
def perplexity(
    model: Path, texts: tuple[Path, ...], normaliser: str, split_sentences: bool, as_json: bool
) -> None:
    """Measure how well LM predicts TEXT: perplexity with and without unknown words, and their rate.

    Every word and every end of a sentence counts. Words outside the vocabulary score as <unk> or, in the
    second figure, are left out.
    """
    from asr.lm.perplexity import measure_perplexity as measured
    from asr.lm.storage import load_model

    blocks = read_sentences(texts, normaliser, split_sentences)
    loaded = load_model(model)
    note_sentence_ends(model, loaded)
    found = measured(loaded, blocks)
    result = {
        "perplexity_including_oov": to_finite(found.including_unknown),
        "perplexity_excluding_oov": to_finite(found.excluding_unknown),
        "oov_rate": found.unknown_rate,
        "oov": found.unknown,
        "words": found.words,
        "sentences": found.sentences,
        "sentence_ends": found.ends,
        "log_prob": to_finite(found.log_prob),
    }
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"perplexity including OOVs {found.including_unknown:10.2f}")
    excluding = found.excluding_unknown
    click.echo(f"perplexity excluding OOVs {'n/a' if excluding is None else format(excluding, '.2f'):>10}")
    click.echo(f"OOV rate                {100 * found.unknown_rate:10.2f} %")
    click.echo(f"{found.words} words, {found.unknown} of them OOV; {found.sentences} sentences")


@lm.command()
@MODEL
@TEXTS
@NORMALISER
@SPLIT
def score(model: Path, texts: tuple[Path, ...], normaliser: str, split_sentences: bool) -> None:
    """Score each sentence of TEXT, a line each: log-prob, words, OOVs and the sentence, separated by tabs.

    The log-prob is a natural logarithm, of all words and the end of the sentence; words outside the
    vocabulary score as <unk>.
    """
    from asr.lm.perplexity import measure_sentence_perplexities
    from asr.lm.storage import load_model

    blocks = read_sentences(texts, normaliser, split_sentences)
    loaded = load_model(model)
    note_sentence_ends(model, loaded)
    for sentence, found in measure_sentence_perplexities(loaded, blocks):
        click.echo(f"{found.log_prob:.4f}\t{found.words}\t{found.unknown}\t{sentence}")


@lm.command()
@MODEL
@JSON
def info(model: Path, as_json: bool) -> None:
    """Describe LM; every byte of a binary file is checked."""
    from asr.lm.storage import load_model

    loaded = load_model(model)
    trie, vocabulary = loaded.trie, loaded.vocabulary
    unknown = float(loaded.unigrams[loaded.unknown])
    result: dict[str, Any] = {
        "file": str(model),
        "bytes": model.stat().st_size,
        "order": loaded.order,
        "ngrams": list(loaded.counts),
        "words": len(vocabulary),
        "sentence_ends": loaded.has_ends,
        "unknown_log_prob": to_finite(unknown),
        "bytes_in_memory": sum(array.nbytes for array in (*trie, vocabulary.letters, vocabulary.bounds)),
    }
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(
        f"{model}: {loaded.order}-gram model of {len(vocabulary):,} words, {result['bytes'] / 1e6:.1f} MB"
    )
    for order, count in enumerate(loaded.counts, start=1):
        click.echo(f"{order}-grams {count:12,}")
    click.echo(
        f"natural log probability of <unk> {unknown:.2f}; {result['bytes_in_memory'] / 1e6:.1f} MB in memory"
    )


@lm.command()
@MODEL
@click.option("-n", "--sentences", type=click.IntRange(1), default=10, help="How many sentences.")
@click.option("--seed", type=click.IntRange(0), default=0, help="The same seed makes the same text.")
@click.option(
    "--longest", type=click.IntRange(1), default=100, help="Words after which a sentence is cut off."
)
def sample(model: Path, sentences: int, seed: int, longest: int) -> None:
    """Print sentences drawn from LM, word by word."""
    from asr.lm.sampling import sample_sentences
    from asr.lm.storage import load_model

    for sentence in sample_sentences(load_model(model), sentences, seed, longest):
        click.echo(sentence)


@lm.command()
@MODEL
@OUT
@BITS
def convert(model: Path, out: Path, bits: int) -> None:
    """Convert LM to ARPA, or to the binary file that opens at once."""
    from asr.lm.storage import load_model

    write_lm(load_model(model), out, bits)


def read_sentences(texts: tuple[Path, ...], normaliser: str, split: bool) -> Iterator[bytes]:
    """Read the sentences of all texts, in blocks; raises ``UserError`` at the end if there was no word."""
    from asr.lm.text import SentenceConfig, read_sentences, require_words

    return require_words(read_sentences(texts, SentenceConfig(normaliser, split)), texts)


def note_sentence_ends(path: Path, model: NgramModel) -> None:
    """Say on stderr that a model has no ends of sentences."""
    if not model.has_ends:
        click.echo(f"{path}: has no <s> and </s>: the ends of sentences are not scored", err=True)


def to_finite(number: float | None) -> float | None:
    """Return a number that JSON has; ``None`` for infinities and NaN."""
    return number if number is not None and math.isfinite(number) else None


def parse_numbers(option: str, text: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    """Parse the numbers in the value of an option; raises ``BadParameter``."""
    try:
        return tuple(map(kind, text.replace(",", " ").split()))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not numbers", param_hint=f"'{option}'") from error


def write_lm(model: NgramModel, out: Path, bits: int) -> None:
    """Write a model in the format that the ending of ``out`` asks for, and print a line about it."""
    from asr.lm.arpa import write_arpa
    from asr.lm.storage import quantise, save_model

    if out.name.endswith((".arpa", ".arpa.gz")):
        write_arpa(model, out)
    else:
        save_model(quantise(model, bits) if bits else model, out)
    counts = " + ".join(f"{count:,}" for count in model.counts)
    click.echo(
        f"{out}: {model.order}-gram model of {len(model.vocabulary):,} words, {counts} n-grams", err=True
    )
