"""``asr lm``: train, measure and try language models, n-grams and recurrent ones."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from asr.cli._options import require_libraries, set_option
from asr.text.normalise import NORMALISERS

if TYPE_CHECKING:
    from asr.lm.model import NgramModel
    from asr.lm.perplexity import LanguageModel
    from asr.lm.recurrent import RecurrentModel
    from asr.lm.vocabulary import Vocabulary

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
    """Language models: train one on text, measure, describe and try it.

    LM is an n-gram model, an ARPA file, compressed with gzip or not, or the binary file that asr lm makes,
    which opens at once; or a recurrent model that asr lm train --kind lstm made. TEXT has one sentence a line
    and may be compressed with gzip or xz; - is the standard input.
    """


NGRAM_OPTIONS = ("bits", "order", "prune", "vocab", "discount_fallback")


@lm.command(cls=ManyNumbers)
@TEXTS
@OUT
@click.option(
    "--kind",
    type=click.Choice(["ngram", "lstm"]),
    default="ngram",
    help="Counts of words, or a recurrent network, which takes torch, hours and less room.",
)
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
@set_option
@click.option("--print-config", is_flag=True, help="With --kind lstm: print every key of --set, and stop.")
@click.pass_context
def train(
    context: click.Context,
    texts: tuple[Path, ...],
    out: Path,
    kind: str,
    normaliser: str,
    split_sentences: bool,
    assignments: tuple[str, ...],
    print_config: bool,
    **ngram: Any,
) -> None:
    """Make a model of TEXT: by counting n-grams, or with --kind lstm by training a recurrent network.

    N-grams: interpolated modified Kneser-Ney with count pruning, as KenLM's lmplz. Blank lines do not count
    as sentences. The words <s>, </s> and <unk> are reserved.

    A recurrent model predicts pieces of words, so that no word is unknown to it. OUT.run beside OUT has
    checkpoints and metrics.jsonl: Ctrl-C saves and stops, and the same command resumes.
    """
    given = [
        name
        for name in NGRAM_OPTIONS
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
    ]
    if kind == "lstm":
        if given:
            raise click.UsageError(f"--{given[0].replace('_', '-')} is for n-grams, not for --kind lstm.")
        train_recurrent(texts, out, normaliser, split_sentences, assignments, print_config)
        return
    if assignments or print_config:
        raise click.UsageError("--set and --print-config are for --kind lstm.")
    train_ngrams(texts, out, normaliser, split_sentences, **ngram)


def train_ngrams(
    texts: tuple[Path, ...],
    out: Path,
    normaliser: str,
    split_sentences: bool,
    *,
    bits: int,
    order: int,
    prune: str,
    vocab: int | None,
    discount_fallback: str | None,
) -> None:
    """Estimate an n-gram model and write it."""
    from asr.lm.arpa import write_nodes
    from asr.lm.estimation import FALLBACK, EstimationConfig, estimate_ngrams

    fallback: tuple[float, ...] = ()
    if discount_fallback is not None:
        fallback = parse_numbers("--discount-fallback", discount_fallback, float) or FALLBACK
    config = EstimationConfig(
        order=order,
        prune=parse_numbers("--prune", prune, int),
        vocabulary_size=vocab,
        discount_fallback=fallback,
    )
    found = estimate_ngrams(read_sentences(texts, normaliser, split_sentences), config)
    if is_arpa(out):
        write_nodes(found.nodes, found.vocabulary, found.counts, out)
        report_lm(out, found.vocabulary, found.counts)
    else:
        write_lm(found.pack(), out, bits)


@require_libraries("torch")
def train_recurrent(
    texts: tuple[Path, ...],
    out: Path,
    normaliser: str,
    split_sentences: bool,
    assignments: tuple[str, ...],
    print_config: bool,
) -> None:
    """Train a recurrent model, or resume a run that was stopped, and write it."""
    from asr.cli._training import Say, train_into_file
    from asr.lm.recurrent_file import save_recurrent_model
    from asr.training.language import LanguageExperiment, train_language_model

    if out.name.endswith((".arpa", ".arpa.gz")):
        raise click.UsageError(f"{out}: a recurrent model is no ARPA file; choose another ending.")

    def train(experiment: LanguageExperiment, folder: Path, say: Say) -> RecurrentModel:
        blocks = read_sentences(texts, normaliser, split_sentences)
        return train_language_model(experiment, blocks, folder, say)

    train_into_file(LanguageExperiment, assignments, print_config, out, train, save_recurrent_model)


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
    second figure, are left out. A recurrent model spells words in pieces: unknown to it are words with
    characters that it has never seen, and a word's probability is that of its pieces.
    """
    from asr.lm.perplexity import measure_perplexity as measured

    blocks = read_sentences(texts, normaliser, split_sentences)
    loaded = load_language_model(model)
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

    blocks = read_sentences(texts, normaliser, split_sentences)
    loaded = load_language_model(model)
    note_sentence_ends(model, loaded)
    for sentence, found in measure_sentence_perplexities(loaded, blocks):
        click.echo(f"{found.log_prob:.4f}\t{found.words}\t{found.unknown}\t{sentence}")


@lm.command()
@MODEL
@JSON
def info(model: Path, as_json: bool) -> None:
    """Describe LM; every byte of a binary file is checked."""
    from asr.lm.recurrent import RecurrentModel

    loaded = load_language_model(model)
    if isinstance(loaded, RecurrentModel):
        describe_recurrent(model, loaded, as_json)
        return
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


def describe_recurrent(path: Path, model: RecurrentModel, as_json: bool) -> None:
    """Describe a recurrent model."""
    config, size = model.config, path.stat().st_size
    result = {
        "file": str(path),
        "bytes": size,
        "kind": "lstm",
        "pieces": config.pieces,
        "layers": config.layers,
        "size": config.size,
        "weights": model.weights,
    }
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(
        f"{path}: recurrent model of {config.pieces:,} pieces, {config.layers} LSTM layer"
        f"{'' if config.layers == 1 else 's'} of {config.size}, {model.weights:,} weights, "
        f"{size / 1e6:.1f} MB"
    )


@lm.command()
@MODEL
@click.option("-n", "--sentences", type=click.IntRange(1), default=10, help="How many sentences.")
@click.option("--seed", type=click.IntRange(0), default=0, help="The same seed makes the same text.")
@click.option(
    "--longest", type=click.IntRange(1), default=100, help="Words after which a sentence is cut off."
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 100),
    default=1.0,
    help="Below 1 likely words come more often than LM says, above 1 less often; 0: always the likeliest.",
)
@click.option("--begin", default="", metavar="WORDS", help="What each sentence begins with.")
def sample(model: Path, sentences: int, seed: int, longest: int, temperature: float, begin: str) -> None:
    """Print sentences drawn from LM, word by word or piece by piece."""
    from asr.lm.sampling import SamplingConfig, sample_sentences

    config = SamplingConfig(seed, longest, temperature, tuple(begin.split()))
    for sentence in sample_sentences(load_language_model(model), sentences, config):
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


def load_language_model(path: Path) -> LanguageModel:
    """Load a model of either kind; raises ``LanguageModelError``."""
    from asr.lm.recurrent_file import is_recurrent_file, open_recurrent_model
    from asr.lm.storage import load_model

    return open_recurrent_model(path) if is_recurrent_file(path) else load_model(path)


def note_sentence_ends(path: Path, model: LanguageModel) -> None:
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

    if is_arpa(out):
        write_arpa(model, out)
    else:
        save_model(quantise(model, bits) if bits else model, out)
    report_lm(out, model.vocabulary, model.counts)


def is_arpa(out: Path) -> bool:
    """Whether the ending of ``out`` asks for ARPA."""
    return out.name.endswith((".arpa", ".arpa.gz"))


def report_lm(out: Path, vocabulary: Vocabulary, counts: Sequence[int]) -> None:
    """Print a line about a model that was written."""
    numbers = " + ".join(f"{count:,}" for count in counts)
    click.echo(f"{out}: {len(counts)}-gram model of {len(vocabulary):,} words, {numbers} n-grams", err=True)
