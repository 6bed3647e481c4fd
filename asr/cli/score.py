"""``asr score``: references and hypotheses in, error rates and what went wrong out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from asr.data import ManifestError, json_object, numbered_lines, parse_line
from asr.scoring import Comparison, Operation, Score, ScoringError, keyed, score_texts

LEGEND = "[-word-] is a deletion, {+word+} an insertion, [-reference-]{+hypothesis+} a substitution"

# What would be taken for mark-up, and what a terminal would obey or could not print.
UNSHOWABLE = re.compile(r"\\|\[-|\{\+|[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@click.command()
@click.argument("reference", metavar="REF", type=click.Path(path_type=Path))
@click.argument("hypotheses", metavar="HYP...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and no alignments.")
@click.option(
    "--alignments",
    metavar="N",
    type=click.IntRange(min=-1),
    default=10,
    help="Show N utterances with errors, the worst first; -1 shows all.",
)
def score(reference: Path, hypotheses: tuple[Path, ...], as_json: bool, alignments: int) -> None:
    """Compare every HYP with REF: word, character and sentence error rate.

    Each file has a JSON object a line with an "id" and a "text": manifests, or what asr evaluate
    --hyp-out writes. Texts are paired by id and compared as they are, case and punctuation
    included. A reference without a hypothesis counts as deletions.

    Errors are marked inside the sentence: [-word-] is a deletion, {+word+} an insertion,
    [-reference-]{+hypothesis+} a substitution.

    The exit status is 1 when the files do not fit together or REF has no words, not when rates
    are high.
    """
    with naming(reference):
        references = keyed(read_texts(reference))
    comparisons: dict[Path, Comparison] = {}
    for path in hypotheses:
        with naming(path):
            comparisons[path] = score_texts(references, keyed(read_texts(path)))
        for name in comparisons[path].missing:
            click.echo(f"{shown(str(path))}: no hypothesis for {name!r}: its words are deletions", err=True)
    if as_json:
        results = [{"hypothesis": str(path), **result(found)} for path, found in comparisons.items()]
        click.echo(json.dumps({"reference": str(reference), "results": results}, indent=2))
    else:
        for path, found in comparisons.items():
            click.echo("\n".join([shown(str(path)), *summary(found), *worst(found, alignments)]))
    if any(found.rates["wer"] is None for found in comparisons.values()):
        raise ScoringError(f"{reference}: has no words: an error rate is not defined")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in which something does not fit."""
    try:
        yield
    except ScoringError as error:
        raise ScoringError(f"{path}: {error}") from error


def read_texts(path: Path) -> list[tuple[str, str]]:
    """The id and the text of every line of a JSONL file, whatever else is in it.

    Raises ``ManifestError`` at the first line without them.
    """
    return [identified_text(line, path, number) for number, line in numbered_lines(path)]


def identified_text(line: str, path: Path, number: int) -> tuple[str, str]:
    """The id and the text of one line; a number as id is taken as written."""
    where = f"{path}:{number}"
    keys = json_object(line, where)
    if "audio_filepath" in keys:  # a manifest's line has an id even where none is written
        utterance = parse_line(line, path, number)
        return utterance.id, utterance.text
    name, text = keys.get("id"), keys.get("text")
    if type(name) is int:
        name = str(name)
    if not isinstance(name, str) or not name:
        raise ManifestError(f"{where}: 'id' is missing, empty or not a string")
    if not isinstance(text, str):
        raise ManifestError(f"{where}: 'text' is missing or not a string")
    return name, text


def summary(comparison: Comparison) -> list[str]:
    """The rates and the counts behind them, for people."""
    words, characters, rates = comparison.words, comparison.characters, comparison.rates
    return [
        f"WER {percent(rates['wer'])}  "
        f"({counts(words)}; {words.reference_length} words, {words.utterances} utterances)",
        f"CER {percent(rates['cer'])}  ({counts(characters)}; {characters.reference_length} characters)",
        f"SER {percent(rates['ser'])}  ({words.wrong_utterances} of {words.utterances} utterances)",
    ]


def percent(share: float | None) -> str:
    """A share in a column of eight characters."""
    return f"{'n/a':>8}" if share is None else f"{100 * share:6.2f} %"


def counts(score: Score) -> str:
    """The three kinds of errors."""
    return f"{score.substitutions} substitutions, {score.deletions} deletions, {score.insertions} insertions"


def worst(comparison: Comparison, limit: int) -> list[str]:
    """A legend and up to ``limit`` (-1: all) utterances with their errors marked, the worst first."""
    wrong = comparison.wrong
    chosen = wrong if limit < 0 else wrong[:limit]
    if not chosen:
        return []
    lines = [f"The worst {len(chosen)} of {len(wrong)} utterances with errors; {LEGEND}:"]
    for name in chosen:
        score = comparison.words_by_utterance[name]
        sentence = marked(comparison.alignment(name))
        lines.append(f"  {shown(name)} ({score.errors}/{score.reference_length}): {sentence}")
    return lines


def marked(alignment: Iterable[Operation]) -> str:
    """An alignment as one sentence with the errors marked in it, in colour.

    The mark-up is that of ``git diff --word-diff``: ``[-deletion-]``, ``{+insertion+}``, and both
    without a space between them for a substitution.
    """
    return " ".join(map(marked_word, alignment))


def marked_word(operation: Operation) -> str:
    """One step of an alignment, in colour."""
    if operation.kind == "equal":
        return shown(operation.reference)
    removed = click.style(f"[-{shown(operation.reference)}-]", fg="red") if operation.reference else ""
    added = click.style(f"{{+{shown(operation.hypothesis)}+}}", fg="green") if operation.hypothesis else ""
    return removed + added


def shown(text: str) -> str:
    """``text`` without control characters and with its own mark-up made harmless by a backslash."""
    return UNSHOWABLE.sub(lambda match: escaped(match[0]), text)


def escaped(text: str) -> str:
    """``text`` as Python would write it, or with a backslash before it."""
    written = text.encode("unicode_escape").decode("ascii")
    return written if written != text else "\\" + text


def result(comparison: Comparison) -> dict[str, Any]:
    """The rates, as shares and in per cent, and the counts behind them, for programs."""
    rates = comparison.rates
    return {
        **rates,
        **{f"{name}_percent": None if rate is None else round(100 * rate, 4) for name, rate in rates.items()},
        "word_counts": asdict(comparison.words),
        "character_counts": asdict(comparison.characters),
        "missing": list(comparison.missing),
    }
