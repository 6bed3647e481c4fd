"""``asr score``: references and hypotheses in, error rates and what went wrong out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from asr.scoring.counts import Comparison, ErrorCounts, Operation, ScoringError, list_names
from asr.scoring.files import (
    FORMATS,
    Texts,
    group_utterances,
    looks_like_kaldi,
    read_texts,
    take_speakers_from_ids,
)
from asr.scoring.report import Report, write_report
from asr.scoring.significance import DRAWS, Difference, Interval, format_interval
from asr.scoring.systems import (
    System,
    compare_all_pairs,
    compare_system,
    compute_intervals,
    find_changes,
    list_speakers,
)
from asr.text.normalise import NORMALISERS, Normaliser, add_substitutions, read_substitutions

LEGEND = "[-word-] is a deletion, {+word+} an insertion, [-reference-]{+hypothesis+} a substitution"

# What would be taken for mark-up, and what a terminal would obey or could not print.
UNSHOWABLE = re.compile(r"\\|\[-|\{\+|[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


FORMAT = click.Choice(FORMATS)


@click.command()
@click.argument("reference", metavar="REF", type=click.Path(path_type=Path))
@click.argument("hypotheses", metavar="HYP...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--ref-format", type=FORMAT, help="Format of REF, when its name does not tell.")
@click.option("--hyp-format", type=FORMAT, help="Format of every HYP, when its name does not tell.")
@click.option("--ref-text", metavar="KEY", help="Key or column of the references' text.  [default: text]")
@click.option("--hyp-text", metavar="KEY", help="The same of the hypotheses, such as NeMo's pred_text.")
@click.option(
    "--normaliser",
    type=click.Choice(list(NORMALISERS)),
    default="basic-v1",
    help="What makes texts comparable; none-v1 gives the scores of the texts as they are only.",
)
@click.option(
    "--substitutions",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Your own table, applied after the normaliser: a phrase, a tab, what stands for it.",
)
@click.option("--show-normalised", is_flag=True, help="Print every text that normalisation changed.")
@click.option(
    "--by",
    metavar="KEY",
    multiple=True,
    help="Break down by speaker, recording, duration or any key of the references; may be repeated.",
)
@click.option(
    "--speaker-from",
    metavar="REGEX",
    help="Take speakers from the ids: what the first group matches, as in '^([^-]+)'.",
)
@click.option(
    "--confusions",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Show the N most frequent substitutions, deletions and insertions.",
)
@click.option(
    "--alignments",
    metavar="N",
    type=click.IntRange(min=-1),
    default=10,
    help="Show N utterances with errors, the worst first; -1 shows all.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=100),
    default=DRAWS,
    help="How often to draw utterances and speakers for the intervals.",
)
@click.option(
    "--report", metavar="FILE.html", type=click.Path(path_type=Path), help="Write a page to look through."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and no alignments.")
def score(
    reference: Path,
    hypotheses: tuple[Path, ...],
    ref_format: str | None,
    hyp_format: str | None,
    ref_text: str | None,
    hyp_text: str | None,
    normaliser: str,
    substitutions: Path | None,
    show_normalised: bool,
    by: tuple[str, ...],
    speaker_from: str | None,
    confusions: int,
    alignments: int,
    draws: int,
    report: Path | None,
    as_json: bool,
) -> None:
    """Compare every HYP with REF: word, character and sentence error rate.

    The files are JSONL with an "id" and a "text" (manifests, or what asr evaluate --hyp-out writes),
    Kaldi's text, trn, CTM against STM, TSV, CSV, or plain lines; the name tells which. Texts are
    paired by id, plain lines by position, CTM by time. A reference without a hypothesis counts as
    deletions.

    The scores of the texts as they are come first, those of the normalised texts below them.
    Breakdowns, confusions and marked sentences are those of the normalised texts.

    Intervals say where a word error rate may lie with other utterances or other speakers. Of two
    systems the last lines say whether their difference means something.

    Errors are marked inside the sentence: [-word-] is a deletion, {+word+} an insertion,
    [-reference-]{+hypothesis+} a substitution.

    The exit status is 1 when the files do not fit together or REF has no words, not when rates
    are high.
    """
    normalise, normaliser_name = chosen_normaliser(normaliser, substitutions)
    references = read_texts(reference, ref_format, ref_text)
    if speaker_from is not None:
        references = take_speakers_from_ids(references, pattern_of(speaker_from))
    with naming(reference):
        _ = references.by_id
    breakdowns = {key: group_utterances(references, key) for key in by}
    systems = []
    for path in hypotheses:
        texts = read_texts(path, hyp_format, hyp_text)
        with naming(path):
            refuse_kaldi_as_lines(references, texts, ref_format, hyp_format)
            systems.append(compare_system(references, texts, normalise, str(path)))
    for system in systems:
        if missing := system.raw.missing:
            note = f"no hypothesis for {list_names(missing)}: their words are deletions"
            click.echo(f"{shown(system.name)}: {note}", err=True)
    speakers = list_speakers(references.utterances)
    found = [compute_intervals(system.comparison, speakers, draws) for system in systems]
    between = compare_all_pairs(systems, speakers, draws)
    if as_json:
        results = [
            {**system_result(system, breakdowns, show_normalised), "intervals": interval_results(ends)}
            for system, ends in zip(systems, found, strict=True)
        ]
        head = {"reference": str(reference), "normaliser": normaliser_name}
        tail = {"differences": [difference_result(difference) for difference in between]}
        click.echo(json.dumps({**head, "results": results, **tail}, indent=2))
    else:
        for system, ends in zip(systems, found, strict=True):
            lines = [
                *(change_lines(system) if show_normalised else ()),
                shown(system.name),
                *rate_table(system, normaliser_name),
                *interval_lines(ends),
                *(line for key, of in breakdowns.items() for line in breakdown_table(key, system, of)),
                *confusion_lines(system.comparison, confusions),
                *worst(system.comparison, alignments),
            ]
            click.echo("\n".join(lines))
        for difference in between:
            click.echo("\n".join(difference_lines(difference)))
    if report is not None:
        write_report(report, Report(references, normaliser_name, normalise, systems, found, between))
    if any(comparison.rates["wer"] is None for s in systems for comparison in (s.raw, s.comparison)):
        raise ScoringError(f"{reference}: has no words: an error rate is not defined")


def chosen_normaliser(name: str, substitutions: Path | None) -> tuple[Normaliser, str]:
    """The normaliser of the options, and what to call it."""
    if substitutions is None:
        return NORMALISERS[name], name
    table = read_substitutions(substitutions)
    return add_substitutions(table, NORMALISERS[name]), f"{name} + {substitutions.name}"


def pattern_of(text: str) -> re.Pattern[str]:
    """A regular expression from the command line."""
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(
            f"{text!r} is no regular expression: {error}", param_hint="--speaker-from"
        ) from error


def refuse_kaldi_as_lines(
    references: Texts, hypotheses: Texts, ref_format: str | None, hyp_format: str | None
) -> None:
    """Ids that are taken for words would be right or wrong in every line, and every rate with them.

    Who says that it is lines, in ``ref_format`` or ``hyp_format``, is believed.
    """
    if "lines" not in (ref_format, hyp_format) and looks_like_kaldi(references, hypotheses):
        sides = {"--ref-format": references, "--hyp-format": hypotheses}
        options = " ".join(f"{option} kaldi" for option, texts in sides.items() if texts.format == "lines")
        raise ScoringError(
            f"lines begin with the ids of {references.path}: pair by them with {options}, "
            "or say lines if these are words"
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in which something does not fit."""
    try:
        yield
    except ScoringError as error:
        raise ScoringError(f"{path}: {error}") from error


def summary(comparison: Comparison) -> list[str]:
    """The rates and the counts behind them, for people."""
    words, characters, rates = comparison.words, comparison.characters, comparison.rates
    return [
        f"WER {percent(rates['wer'])}  "
        f"({counts(words)}; {words.reference_length} words, {words.utterances} utterances)",
        f"CER {percent(rates['cer'])}  ({counts(characters)}; {characters.reference_length} characters)",
        f"SER {percent(rates['ser'])}  ({words.wrong_utterances} of {words.utterances} utterances)",
    ]


COLUMNS = ("WER", "CER", "SER", "MER", "WIL", "words", "sub", "del", "ins")


def rate_table(system: System, normaliser: str) -> list[str]:
    """The rates of the texts as they are, and of the normalised ones where there is a normaliser."""
    rows = {"as they are": system.raw}
    if normaliser != "none-v1":
        rows[normaliser] = system.comparison
    return table("", COLUMNS, {name: rate_cells(comparison) for name, comparison in rows.items()})


def rate_cells(comparison: Comparison) -> list[str]:
    """One comparison in the order of ``COLUMNS``."""
    words, rates = comparison.words, comparison.rates
    compared = words.reference_length + words.insertions > 0
    return [
        percent(rates["wer"]),
        percent(rates["cer"]),
        percent(rates["ser"]),
        percent(words.match_error_rate if compared else None),
        percent(words.word_information_lost if compared else None),
        *(f"{n:,}" for n in (words.reference_length, words.substitutions, words.deletions, words.insertions)),
    ]


def interval_lines(ends: Mapping[str, Interval | None]) -> list[str]:
    """Where the normalised word error rate may lie."""
    parts = [
        f"{100 * interval.low:.2f} to {100 * interval.high:.2f} % by {name.removeprefix('by_')} "
        f"({interval.units:,} of them)"
        for name, interval in ends.items()
        if interval is not None
    ]
    return ["  95 % interval of the last WER: " + ", ".join(parts)] if parts else []


def difference_lines(difference: Difference) -> list[str]:
    """Two systems, the verdict first and then what it rests on."""
    ends = {"utterance": difference.by_utterance, "speaker": difference.by_speaker}
    drawn = [
        f"{format_interval(interval)} by {name}" for name, interval in ends.items() if interval is not None
    ]
    words, sentences = difference.words, difference.sentences
    return [
        shown(f"{difference.first} against {difference.second}"),
        "  " + shown(difference.verdict),
        f"  difference in WER: {100 * difference.difference:.2f} points; {', '.join(drawn)}",
        f"  matched-pairs segment test on words: p = {words.p:.3g} ({words.segments:,} segments, "
        f"z = {words.z:.2f})",
        f"  McNemar's test on sentences: p = {sentences.p:.3g} (only the first right: "
        f"{sentences.only_first_right:,}, only the second: {sentences.only_second_right:,})",
    ]


def breakdown_table(key: str, system: System, of: Mapping[str, str]) -> list[str]:
    """Word errors by group."""
    rows = {
        shown(group): [
            percent(score.error_rate if score.reference_length else None),
            percent(score.sentence_error_rate),
            *(f"{n:,}" for n in (score.utterances, score.reference_length)),
            *(f"{n:,}" for n in (score.substitutions, score.deletions, score.insertions)),
        ]
        for group, score in system.comparison.count_by_group(of).items()
    }
    return table(key, ("WER", "SER", "utterances", "words", "sub", "del", "ins"), rows)


def table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Rows with their names at the left and all else to the right of its column."""
    names = max(map(len, (title, *rows)))
    widths = [max(map(len, cells)) for cells in zip(columns, *rows.values(), strict=True)]
    return [
        "  ".join([f"  {name:<{names}}", *(c.rjust(width) for c, width in zip(cells, widths, strict=True))])
        for name, cells in [(title, columns), *rows.items()]
    ]


def confusion_lines(comparison: Comparison, limit: int) -> list[str]:
    """The most frequent mistakes of each kind, if any are asked for."""
    if not limit:
        return []
    found = comparison.count_confusions()
    return [
        *most(
            "substitutions",
            {f"{shown(a)} -> {shown(b)}": n for (a, b), n in found.substitutions.most_common(limit)},
        ),
        *most("deletions", {shown(word): n for word, n in found.deletions.most_common(limit)}),
        *most("insertions", {shown(word): n for word, n in found.insertions.most_common(limit)}),
    ]


def most(kind: str, found: Mapping[str, int]) -> list[str]:
    """The most frequent mistakes of one kind."""
    lines = [f"  {count:>6,}  {what}" for what, count in found.items()]
    return [f"Most frequent {kind}:", *lines] if lines else []


def change_lines(system: System) -> list[str]:
    """What normalisation did to every text that it changed."""
    return [
        f"  {shown(name)} {'ref' if side == 'references' else 'hyp'}: {shown(before)}\n    -> {shown(after)}"
        for name, sides in find_changes(system).items()
        for side, (before, after) in sides.items()
    ]


def percent(share: float | None) -> str:
    """A share in a column of eight characters."""
    return f"{'n/a':>8}" if share is None else f"{100 * share:6.2f} %"


def counts(score: ErrorCounts) -> str:
    """The three kinds of errors."""
    return f"{score.substitutions} substitutions, {score.deletions} deletions, {score.insertions} insertions"


def worst(comparison: Comparison, limit: int) -> list[str]:
    """A legend and up to ``limit`` (-1: all) utterances with their errors marked, the worst first."""
    wrong = comparison.worst_first
    chosen = wrong if limit < 0 else wrong[:limit]
    if not chosen:
        return []
    lines = [f"The worst {len(chosen)} of {len(wrong)} utterances with errors; {LEGEND}:"]
    for name in chosen:
        score = comparison.count_utterance(name)
        sentence = marked(comparison.align(name))
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


def system_result(system: System, breakdowns: Mapping[str, Mapping[str, str]], texts: bool) -> dict[str, Any]:
    """Everything about one system, for programs: the normalised scores, the raw ones, the groups."""
    return {
        "hypothesis": system.name,
        **result(system.comparison),
        "raw": result(system.raw),
        "by": {
            key: {group: asdict(score) for group, score in system.comparison.count_by_group(of).items()}
            for key, of in breakdowns.items()
        },
        **({"normalised": find_changes(system)} if texts else {}),
    }


def interval_results(ends: Mapping[str, Interval | None]) -> dict[str, Any]:
    """Intervals for programs."""
    return {name: None if interval is None else asdict(interval) for name, interval in ends.items()}


def difference_result(difference: Difference) -> dict[str, Any]:
    """A difference for programs, with the verdict."""
    verdict = {"means_something": difference.is_significant, "in_words": difference.verdict}
    result = {**asdict(difference), **verdict}
    if math.isinf(difference.words.z):  # JSON has no infinity
        result["words"]["z"] = None
    return result
