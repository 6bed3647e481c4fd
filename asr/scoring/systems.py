"""Systems compared on one set of references: their errors, and which differences are significant."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from asr.data.manifest import Utterance
from asr.scoring.alternatives import (
    MARKS,
    NIST_FORMATS,
    Passage,
    choose_readings,
    is_plain,
    parse_passage,
    parse_plain,
    read_plainly,
)
from asr.scoring.counts import Comparison, compare_texts, squeeze_spaces
from asr.scoring.files import Texts
from asr.scoring.pairing import pair_texts
from asr.scoring.significance import (
    DRAWS,
    LEVEL,
    Difference,
    Interval,
    bootstrap_interval,
    find_segment_differences,
    run_segment_test,
    run_sentence_test,
    sum_by_label,
)
from asr.text.normalise import Normaliser


@dataclass(frozen=True)
class References:
    """The references that every system is compared with, by utterance id: as they are, and normalised.

    ``passages`` are those with alternatives or optional words, of which each system gets the reading that
    is nearest to its hypothesis.
    """

    texts: Texts
    raw: Mapping[str, str]
    normalised: Mapping[str, str]
    normalise: Normaliser
    passages: Mapping[str, Passage]
    spell: Callable[[str], str] = squeeze_spaces


@dataclass(frozen=True)
class System:
    """One file of hypotheses against the references: as they are, and normalised."""

    name: str
    raw: Comparison
    comparison: Comparison
    utterances: Mapping[str, Utterance]  # the hypotheses with whatever their file says about them


def prepare_references(
    texts: Texts, normalise: Normaliser, spell: Callable[[str], str] = squeeze_spaces
) -> References:
    """Normalise the references once for all systems; raises ``ScoringError`` for ids that come twice.

    ``spell`` returns the characters of a normalised text.
    """
    raw, passages = split_passages(texts)
    return References(texts, raw, normalise_texts(raw, normalise), normalise, passages, spell)


def split_passages(texts: Texts) -> tuple[dict[str, str], dict[str, Passage]]:
    """Separate plain texts from those that have more than one reading; these have no plain text."""
    plain, passages = texts.by_id, {}
    if texts.format in NIST_FORMATS:
        for name, text in plain.items():
            passage = parse_passage(text, name)
            if is_plain(passage):
                plain[name] = read_plainly(passage).text if MARKS.search(text) else text
            else:
                plain[name], passages[name] = "", passage
    return plain, passages


def compare_system(references: References, hypotheses: Texts, name: str) -> System:
    """Pair the hypotheses with their references and count their errors.

    Raises ``ScoringError`` when they do not belong together.
    """
    texts = pair_texts(references.texts, hypotheses)
    plain, passages = split_passages(texts)
    raw = compare_texts(references.raw, plain)
    normalised = normalise_texts(plain, references.normalise)
    comparison = compare_texts(references.normalised, normalised, spell=references.spell)
    if passages or references.passages:
        comparison = read_nearest(raw, comparison, references.passages, passages, references.normalise)
        raw = read_nearest(raw, raw, references.passages, passages, str)
    return System(
        name=name,
        raw=raw,
        comparison=comparison,
        utterances={utterance.id: utterance for utterance in texts.utterances},
    )


def read_nearest(
    raw: Comparison,
    comparison: Comparison,
    references: Mapping[str, Passage],
    hypotheses: Mapping[str, Passage],
    normalise: Normaliser,
) -> Comparison:
    """Give ``comparison`` the readings of passages that differ least once they are normalised.

    ``raw`` has the other side of a passage, where that is a plain text.
    """
    sides = (dict(comparison.references), dict(comparison.hypotheses))
    spared = {}
    for name in references.keys() | hypotheses.keys():
        left = references.get(name) or parse_plain(raw.references.get(name, ""))
        right = hypotheses.get(name) or parse_plain(raw.hypotheses.get(name, ""))
        readings = choose_readings(left, right, normalise)
        sides[0][name] = normalise(readings[0].text)
        if name in sides[1]:
            sides[1][name] = normalise(readings[1].text)
        spared[name] = " ".join(filter(None, (normalise(reading.omitted) for reading in readings)))
    return compare_texts(*sides, spared, comparison.spell)


def normalise_texts(texts: Mapping[str, str], normalise: Normaliser) -> dict[str, str]:
    """Normalise every text; of a million texts, those that do not change are not kept twice."""
    results = {}
    for name, text in texts.items():
        changed = normalise(text)
        results[name] = text if changed == text else changed
    return results


def find_changes(system: System) -> dict[str, dict[str, Sequence[str]]]:
    """Find what normalisation changed: for each utterance and side, the text before and after."""
    changes: dict[str, dict[str, Sequence[str]]] = {}
    for side in ("references", "hypotheses"):
        before, after = getattr(system.raw, side), getattr(system.comparison, side)
        for name, text in before.items():
            if text != after[name]:
                changes.setdefault(name, {})[side] = (text, after[name])
    return changes


# Statistics


def list_speakers(utterances: Sequence[Utterance]) -> list[str]:
    """List the speaker of every utterance; empty unless all are known and there are at least two."""
    speakers = [utterance.speaker for utterance in utterances]
    return speakers if all(speakers) and len(set(speakers)) > 1 else []


def compute_intervals(
    comparison: Comparison, speakers: Sequence[str], draws: int = DRAWS
) -> dict[str, Interval | None]:
    """Compute bootstrap intervals of the word error rate: ``by_utterance`` and, where known, ``by_speaker``.

    Args:
        speakers: those of the references, in their order, or none.
        draws: how often utterances and speakers are drawn.
    """
    counts = comparison.word_counts
    return bootstrap_both_ways(counts[:, :3].sum(axis=1), counts[:, 3], speakers, LEVEL, draws)


def bootstrap_both_ways(
    errors: np.ndarray, words: np.ndarray, speakers: Sequence[str], level: float, draws: int
) -> dict[str, Interval | None]:
    """Compute the interval of ``errors`` over ``words`` by drawing utterances, and by drawing speakers."""
    intervals = {"by_utterance": bootstrap_interval(errors, words, level, draws), "by_speaker": None}
    if speakers:
        sums = sum_by_label(np.stack([errors, words], axis=1), speakers)
        intervals["by_speaker"] = bootstrap_interval(sums[:, 0], sums[:, 1], level, draws)
    return intervals


def compare_all_pairs(
    systems: Sequence[System], speakers: Sequence[str], draws: int = DRAWS
) -> list[Difference]:
    """Compare every pair of systems; none where the references have no words."""
    pairs = list(combinations(systems, 2))
    if not systems or systems[0].comparison.words.reference_length == 0:
        return []
    return [compare_two(first, second, speakers, len(pairs), draws) for first, second in pairs]


def compare_two(
    first: System, second: System, speakers: Sequence[str], comparisons: int = 1, draws: int = DRAWS
) -> Difference:
    """Compare two systems on their normalised words."""
    one, other = first.comparison, second.comparison
    errors = [comparison.word_counts[:, :3].sum(axis=1) for comparison in (one, other)]
    level = 1 - (1 - LEVEL) / comparisons
    intervals = bootstrap_both_ways(errors[0] - errors[1], one.word_counts[:, 3], speakers, level, draws)
    names = list(one.references)
    wrong = np.flatnonzero(errors[0] + errors[1]).tolist()
    aligned = ((one.align(names[row]), other.align(names[row])) for row in wrong)
    return Difference(
        first=first.name,
        second=second.name,
        difference=one.words.error_rate - other.words.error_rate,
        by_utterance=intervals["by_utterance"],
        by_speaker=intervals["by_speaker"],
        words=run_segment_test(find_segment_differences(aligned)),
        sentences=run_sentence_test(errors[0] > 0, errors[1] > 0),
        comparisons=comparisons,
    )
