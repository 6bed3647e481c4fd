"""Comparisons and confidences as text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from asr.scoring.counts import Comparison, ErrorCounts, Operation
from asr.scoring.significance import Difference, Interval, format_interval
from asr.scoring.systems import System, find_changes

if TYPE_CHECKING:
    from asr.search.confidence import ConfidenceBin

LEGEND = "[-word-] is a deletion, {+word+} an insertion, [-reference-]{+hypothesis+} a substitution"

# Text that would look like mark-up, that a terminal would obey, or that it could not print.
UNSHOWABLE = re.compile(r"\\|\[-|\{\+|[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def format_summary(comparison: Comparison) -> list[str]:
    """The rates and the counts behind them, a line each for WER, CER and SER."""
    words, characters, rates = comparison.words, comparison.characters, comparison.rates
    return [
        f"WER {format_percent(rates['wer'])}  "
        f"({format_counts(words)}; {words.reference_length} words, {words.utterances} utterances)",
        f"CER {format_percent(rates['cer'])}  "
        f"({format_counts(characters)}; {characters.reference_length} characters)",
        f"SER {format_percent(rates['ser'])}  ({words.wrong_utterances} of {words.utterances} utterances)",
    ]


SIDES = {"references": "ref", "hypotheses": "hyp"}
COLUMNS = ("WER", "CER", "SER", "MER", "WIL", "words", "sub", "del", "ins")


def format_rate_table(system: System, normaliser: str) -> list[str]:
    """The rates of the texts as they are, and of the normalised texts where there is a normaliser."""
    rows = {"as they are": system.raw}
    if normaliser != "none-v1":
        rows[normaliser] = system.comparison
    return format_table(
        "", COLUMNS, {name: format_rate_cells(comparison) for name, comparison in rows.items()}
    )


def format_rate_cells(comparison: Comparison) -> list[str]:
    """The figures of one comparison in the order of ``COLUMNS``."""
    words, rates = comparison.words, comparison.rates
    compared = words.reference_length + words.insertions > 0
    return [
        format_percent(rates["wer"]),
        format_percent(rates["cer"]),
        format_percent(rates["ser"]),
        format_percent(words.match_error_rate if compared else None),
        format_percent(words.word_information_lost if compared else None),
        *(f"{n:,}" for n in (words.reference_length, words.substitutions, words.deletions, words.insertions)),
    ]


def format_intervals(ends: Mapping[str, Interval | None]) -> list[str]:
    """The intervals of the normalised word error rate, in one line."""
    parts = [
        f"{100 * interval.low:.2f} to {100 * interval.high:.2f} % by {name.removeprefix('by_')} "
        f"({interval.units:,} of them)"
        for name, interval in ends.items()
        if interval is not None
    ]
    return ["  95 % interval of the last WER: " + ", ".join(parts)] if parts else []


def format_difference(difference: Difference) -> list[str]:
    """The comparison of two systems, the verdict first and the tests behind it below."""
    ends = {"utterance": difference.by_utterance, "speaker": difference.by_speaker}
    drawn = [
        f"{format_interval(interval)} by {name}" for name, interval in ends.items() if interval is not None
    ]
    words, sentences = difference.words, difference.sentences
    return [
        escape(f"{difference.first} against {difference.second}"),
        "  " + escape(difference.verdict),
        f"  difference in WER: {100 * difference.difference:.2f} points; {', '.join(drawn)}",
        f"  matched-pairs segment test on words: p = {words.p:.3g} ({words.segments:,} segments, "
        f"z = {words.z:.2f})",
        f"  McNemar's test on sentences: p = {sentences.p:.3g} (only the first right: "
        f"{sentences.only_first_right:,}, only the second: {sentences.only_second_right:,})",
    ]


def format_breakdown(key: str, system: System, of: Mapping[str, str]) -> list[str]:
    """A table of word errors by group."""
    rows = {
        escape(group): [
            format_percent(score.error_rate if score.reference_length else None),
            format_percent(score.sentence_error_rate),
            *(f"{n:,}" for n in (score.utterances, score.reference_length)),
            *(f"{n:,}" for n in (score.substitutions, score.deletions, score.insertions)),
        ]
        for group, score in system.comparison.count_by_group(of).items()
    }
    return format_table(key, ("WER", "SER", "utterances", "words", "sub", "del", "ins"), rows)


def format_table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Align a table: names of rows to the left, all other columns to the right."""
    names = max(map(len, (title, *rows)))
    widths = [max(map(len, cells)) for cells in zip(columns, *rows.values(), strict=True)]
    return [
        "  ".join([f"  {name:<{names}}", *(c.rjust(width) for c, width in zip(cells, widths, strict=True))])
        for name, cells in [(title, columns), *rows.items()]
    ]


def format_confusions(comparison: Comparison, limit: int) -> list[str]:
    """The ``limit`` most frequent mistakes of each kind; nothing when it is 0."""
    if not limit:
        return []
    found = comparison.count_confusions()
    return [
        *format_most_frequent(
            "substitutions",
            {f"{escape(a)} -> {escape(b)}": n for (a, b), n in found.substitutions.most_common(limit)},
        ),
        *format_most_frequent(
            "deletions", {escape(word): n for word, n in found.deletions.most_common(limit)}
        ),
        *format_most_frequent(
            "insertions", {escape(word): n for word, n in found.insertions.most_common(limit)}
        ),
    ]


def format_most_frequent(kind: str, found: Mapping[str, int]) -> list[str]:
    """The most frequent mistakes of one kind, below a heading."""
    lines = [f"  {count:>6,}  {what}" for what, count in found.items()]
    return [f"Most frequent {kind}:", *lines] if lines else []


def format_changes(system: System) -> list[str]:
    """Every text that normalisation changed, before and after."""
    return [
        f"  {escape(name)} {SIDES[side]}: {escape(before)}\n    -> {escape(after)}"
        for name, sides in find_changes(system).items()
        for side, (before, after) in sides.items()
    ]


def format_percent(share: float | None) -> str:
    """A share as a percentage, eight characters wide; ``None`` is n/a."""
    return f"{'n/a':>8}" if share is None else f"{100 * share:6.2f} %"


def format_counts(score: ErrorCounts) -> str:
    """The numbers of the three kinds of errors, in words."""
    return f"{score.substitutions} substitutions, {score.deletions} deletions, {score.insertions} insertions"


def format_worst(comparison: Comparison, limit: int) -> list[str]:
    """Up to ``limit`` (-1: all) utterances with their errors marked, the worst first, below a legend."""
    wrong = comparison.worst_first
    chosen = wrong if limit < 0 else wrong[:limit]
    if not chosen:
        return []
    lines = [f"The worst {len(chosen)} of {len(wrong)} utterances with errors; {LEGEND}:"]
    for name in chosen:
        score = comparison.count_utterance(name)
        sentence = mark_errors(comparison.align(name))
        lines.append(f"  {escape(name)} ({score.errors}/{score.reference_length}): {sentence}")
    return lines


def mark_errors(alignment: Iterable[Operation]) -> str:
    """Write an alignment as one sentence with the errors marked in it, in colour.

    The mark-up is that of ``git diff --word-diff``: ``[-deletion-]``, ``{+insertion+}``, and both without a
    space between them for a substitution.
    """
    return " ".join(map(mark_word, alignment))


def mark_word(operation: Operation) -> str:
    """Write one step of an alignment, in colour."""
    if operation.kind == "equal":
        return escape(operation.reference)
    removed = click.style(f"[-{escape(operation.reference)}-]", fg="red") if operation.reference else ""
    added = click.style(f"{{+{escape(operation.hypothesis)}+}}", fg="green") if operation.hypothesis else ""
    return removed + added


def escape(text: str) -> str:
    """Escape control characters in ``text``, and what would look like mark-up."""
    return UNSHOWABLE.sub(lambda match: escape_character(match[0]), text)


def escape_character(text: str) -> str:
    """Escape ``text`` as Python would, or put a backslash before it."""
    written = text.encode("unicode_escape").decode("ascii")
    return written if written != text else "\\" + text


def format_reliability(bins: list[ConfidenceBin]) -> list[str]:
    """Confidences beside the share of words that are right: of words marked 0.8, about 80 % should be."""
    from asr.search.confidence import measure_calibration_error

    rows = [f"{row.confidence:12.2f} {row.right:9.2f} {row.words:8}" for row in bins]
    error = f"mean distance between confidence and share right: {measure_calibration_error(bins):.3f}"
    return [f"{'confidence':>12} {'right':>9} {'words':>8}", *rows, error]
