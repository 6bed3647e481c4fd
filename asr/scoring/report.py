"""One page about a comparison: totals, tables, and every utterance with its errors to look at and hear.

The page is one file and loads nothing but the recordings, which it plays from where they are. Its policy
(CSP) admits its own script and style, by their hashes, and nothing else: what is in a text is shown, never
run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from asr.core.files import write_text
from asr.data.manifest import Utterance
from asr.scoring.counts import Comparison, ErrorCounts, Operation, ScoringError, align_items, split_words
from asr.scoring.files import Texts, group_utterances
from asr.scoring.significance import Difference, Interval
from asr.scoring.systems import System
from asr.text.normalise import Normaliser

PAGE = Path(__file__).with_name("report.html")
CONFUSIONS_SHOWN = 30


@dataclass(frozen=True)
class Report:
    """What a page is made from; ``intervals`` are those of the systems, in their order."""

    references: Texts
    normaliser: str
    normalise: Normaliser
    systems: Sequence[System]
    intervals: Sequence[Mapping[str, Interval | None]]
    differences: Sequence[Difference]


def write_report(path: Path, report: Report) -> None:
    """Write the page, all of it or nothing, with recordings named relative to it."""
    write_text(path, render_page(report, path.parent))


def render_page(report: Report, folder: Path) -> str:
    """Render the page as HTML for a file in ``folder``, relative to which recordings are named."""
    template = PAGE.read_text(encoding="utf-8")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {hash_element(template, 'script')}",
            f"style-src {hash_element(template, 'style')}",
            "media-src 'self' file:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    data = json.dumps(gather_contents(report, folder), ensure_ascii=True, separators=(",", ":"))
    # Inside a script element only "<" could end it, and JSON may escape it.
    return template.replace("{policy}", policy).replace("{data}", data.replace("<", "\\u003c"))


def hash_element(template: str, element: str) -> str:
    """Hash the content of the template's one ``element`` without attributes, as a policy admits it."""
    content = re.findall(f"<{element}>(.*?)</{element}>", template, re.DOTALL)
    assert len(content) == 1
    digest = hashlib.sha256(content[0].encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def gather_contents(report: Report, folder: Path) -> dict[str, Any]:
    """Gather the data that the page's script draws."""
    first = report.systems[0].comparison
    return {
        "reference": str(report.references.path),
        "normaliser": report.normaliser,
        "utterances": len(first.references),
        "words": first.words.reference_length,
        "systems": [
            describe_system(system, ends)
            for system, ends in zip(report.systems, report.intervals, strict=True)
        ],
        "differences": [
            {"verdict": difference.is_significant, "words": difference.verdict}
            for difference in report.differences
        ],
        "groups": {key: grouped for key in ("duration", "speaker") if (grouped := break_down(report, key))},
        "rows": [describe_utterance(report, utterance, folder) for utterance in report.references.utterances],
    }


def describe_system(system: System, ends: Mapping[str, Interval | None]) -> dict[str, Any]:
    """Describe one system: totals and confusions."""
    confusions = system.comparison.count_confusions()
    return {
        "name": system.name,
        "rates": list_rates(system.comparison.words)
        | {"cer": system.comparison.rates["cer"], "raw": system.raw.rates["wer"]},
        "missing": len(system.raw.missing),
        "intervals": {name: interval and asdict(interval) for name, interval in ends.items()},
        "substitutions": [[*pair, n] for pair, n in confusions.substitutions.most_common(CONFUSIONS_SHOWN)],
        "deletions": [[word, n] for word, n in confusions.deletions.most_common(CONFUSIONS_SHOWN)],
        "insertions": [[word, n] for word, n in confusions.insertions.most_common(CONFUSIONS_SHOWN)],
    }


def list_rates(score: ErrorCounts) -> dict[str, float | int | None]:
    """List rates and counts; ``None`` where a rate is not defined."""
    compared = score.reference_length + score.insertions > 0
    return {
        "wer": score.error_rate if score.reference_length else None,
        "ser": score.sentence_error_rate if score.utterances else None,
        "mer": score.match_error_rate if compared else None,
        "wil": score.word_information_lost if compared else None,
        "sub": score.substitutions,
        "del": score.deletions,
        "ins": score.insertions,
        "words": score.reference_length,
        "utterances": score.utterances,
    }


def break_down(report: Report, key: str) -> list[dict[str, Any]]:
    """List rates by group and system; empty where no reference has the key."""
    try:
        of = group_utterances(report.references, key)
    except ScoringError:
        return []
    scores = [system.comparison.count_by_group(of) for system in report.systems]
    return [{"name": name, "systems": [list_rates(score[name]) for score in scores]} for name in scores[0]]


# Utterances


Span = tuple[float, float]  # begin and end, seconds
Said = tuple[str, Span | None]
NOTHING: Said = ("", None)


@dataclass(frozen=True)
class Column:
    """One place of an interlinear text: a reference word, what each system has there, and when it is said."""

    reference: str
    hypotheses: list[str]
    time: Span | None = None


def describe_utterance(report: Report, utterance: Utterance, folder: Path) -> dict[str, Any]:
    """Describe one utterance; a hypothesis word that is right is written as 1.

    Of a reference with alternatives the reading of the first system is shown.
    """
    name = utterance.id
    alignments = align_with_first([system.comparison for system in report.systems], name)
    times = [
        find_word_times(system.utterances.get(name), alignment, report.normalise)
        for system, alignment in zip(report.systems, alignments, strict=True)
    ]
    columns = merge_alignments(alignments, times)
    found: dict[str, Any] = {
        "id": name,
        "speaker": utterance.speaker,
        "seconds": utterance.duration,
        "errors": [system.comparison.count_utterance(name).errors for system in report.systems],
        "words": len(report.systems[0].comparison.references[name].split()),
        "text": [[c.reference, *(1 if h == c.reference else h for h in c.hypotheses)] for c in columns],
    }
    if utterance.audio and Path(utterance.audio).is_file():
        found["audio"] = link_audio(Path(utterance.audio), folder)
        found["start"] = utterance.start
        if any(column.time for column in columns):
            found["times"] = [column.time and [round(t, 3) for t in column.time] for column in columns]
    return found


def align_with_first(comparisons: Sequence[Comparison], name: str) -> list[list[Operation]]:
    """Align every system's hypothesis with the reading of the reference that the first system has."""
    words = split_words(comparisons[0].references[name])
    return [
        comparison.align(name)
        if comparison.references[name] == comparisons[0].references[name]
        else align_items(words, split_words(comparison.hypotheses.get(name, "")))
        for comparison in comparisons
    ]


def link_audio(audio: Path, folder: Path) -> str:
    """Return the address of a recording relative to ``folder``, or its full address on another drive."""
    try:
        return quote(Path(os.path.relpath(audio, folder)).as_posix())
    except ValueError:
        return audio.resolve().as_uri()


def merge_alignments(
    alignments: Sequence[Sequence[Operation]], times: Sequence[Sequence[Span | None]]
) -> list[Column]:
    """Merge the alignments of one reference with several hypotheses: a column for every reference word.

    Words that several systems insert at the same place share columns. The time of a column is that of the
    first system that has one there.
    """
    length = sum(step.kind != "insertion" for step in alignments[0])
    at_words: list[list[Said]] = [[NOTHING] * len(alignments) for _ in range(length)]
    between: list[list[list[Said]]] = [[[] for _ in alignments] for _ in range(length + 1)]
    reference = [step.reference for step in alignments[0] if step.kind != "insertion"]
    for system, (alignment, spans) in enumerate(zip(alignments, times, strict=True)):
        place = 0
        for step, span in zip(alignment, spans, strict=True):
            if step.kind == "insertion":
                between[place][system].append((step.hypothesis, span))
            else:
                at_words[place][system] = (step.hypothesis, span)
                place += 1
    columns: list[Column] = []
    for place in range(length + 1):
        for index in range(max(map(len, between[place]), default=0)):
            put_in = [words[index] if index < len(words) else NOTHING for words in between[place]]
            columns.append(make_column("", put_in))
        if place < length:
            columns.append(make_column(reference[place], at_words[place]))
    return columns


def make_column(reference: str, found: Sequence[Said]) -> Column:
    """Make a column of words, with the first time that is known."""
    return Column(reference, [word for word, _ in found], next((span for _, span in found if span), None))


def find_word_times(
    hypothesis: Utterance | None, alignment: Sequence[Operation], normalise: Callable[[str], str]
) -> list[Span | None]:
    """Find when the words of an alignment are said, in seconds of the utterance; ``None`` where unknown.

    A word that normalisation splits shares its time among the parts. Where the normalised text is not that
    of the single words, times are unknown. A deleted word lies between its neighbours.
    """
    unknown: list[Span | None] = [None] * len(alignment)
    timed = hypothesis.extra.get("words") if hypothesis is not None else None
    if not isinstance(timed, list):
        return unknown
    spans: list[tuple[str, Span]] = []
    for word in timed:
        try:
            spans += share_time(
                normalise(str(word["text"])).split(), float(word["start"]), float(word["end"])
            )
        except (KeyError, TypeError, ValueError):
            return unknown
    if [text for text, _ in spans] != [step.hypothesis for step in alignment if step.hypothesis]:
        return unknown
    said = iter(span for _, span in spans)
    known = [next(said) if step.hypothesis else None for step in alignment]
    return [span or find_gap(known, place) for place, span in enumerate(known)]


def share_time(words: Sequence[str], start: float, end: float) -> list[tuple[str, Span]]:
    """Share a stretch of time evenly among words."""
    step = (end - start) / max(len(words), 1)
    return [(word, (start + n * step, start + (n + 1) * step)) for n, word in enumerate(words)]


def find_gap(known: Sequence[Span | None], place: int) -> Span | None:
    """Find the stretch from the end of the last word before a place to the start of the next one after it."""
    before = next((span[1] for span in reversed(known[:place]) if span), None)
    behind = next((span[0] for span in known[place + 1 :] if span), None)
    if before is None:
        return None if behind is None else (0.0, behind)
    return (before, max(before, behind) if behind is not None else before + 1.0)
