"""Systems compared on one set of references: what their scores are, and what they do not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from asr.data.manifest import Utterance
from asr.scoring.counts import Comparison, compare_texts
from asr.scoring.files import Texts, pair_texts
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
class System:
    """One file of hypotheses against the references: as they are, and normalised."""

    name: str
    raw: Comparison
    comparison: Comparison
    utterances: Mapping[str, Utterance]  # the hypotheses with whatever their file says about them


def compare_system(references: Texts, hypotheses: Texts, normalise: Normaliser, name: str) -> System:
    """Pair the hypotheses with their references and count their errors.

    Raises ``ScoringError`` when they do not fit together.
    """
    texts = pair_texts(references, hypotheses)
    raw = compare_texts(references.by_id, texts.by_id)
    return System(
        name=name,
        raw=raw,
        comparison=compare_texts(
            normalise_texts(raw.references, normalise),
            normalise_texts(raw.hypotheses, normalise),
        ),
        utterances={utterance.id: utterance for utterance in texts.utterances},
    )


def normalise_texts(texts: Mapping[str, str], normalise: Normaliser) -> dict[str, str]:
    """Every text normalised; one that does not change is not kept twice, of which there may be a million."""
    found = {}
    for name, text in texts.items():
        changed = normalise(text)
        found[name] = text if changed == text else changed
    return found


def find_changes(system: System) -> dict[str, dict[str, Sequence[str]]]:
    """What normalisation changed: for each utterance the text before and after, on either side."""
    found: dict[str, dict[str, Sequence[str]]] = {}
    for side in ("references", "hypotheses"):
        before, after = getattr(system.raw, side), getattr(system.comparison, side)
        for name, text in before.items():
            if text != after[name]:
                found.setdefault(name, {})[side] = (text, after[name])
    return found


# Statistics


def list_speakers(utterances: Sequence[Utterance]) -> list[str]:
    """The speaker of every utterance; nothing unless all are known and there are two at least."""
    speakers = [utterance.speaker for utterance in utterances]
    return speakers if all(speakers) and len(set(speakers)) > 1 else []


def compute_intervals(
    comparison: Comparison, speakers: Sequence[str], draws: int = DRAWS
) -> dict[str, Interval | None]:
    """Bootstrap intervals of the word error rate: ``by_utterance`` and, where known, ``by_speaker``.

    ``speakers`` are those of the references, in their order, or nothing.
    """
    counts = comparison.word_counts
    return bootstrap_both_ways(counts[:, :3].sum(axis=1), counts[:, 3], speakers, LEVEL, draws)


def bootstrap_both_ways(
    errors: np.ndarray, words: np.ndarray, speakers: Sequence[str], level: float, draws: int
) -> dict[str, Interval | None]:
    """The interval of ``errors`` over ``words``, drawing utterances and drawing speakers."""
    found = {"by_utterance": bootstrap_interval(errors, words, level, draws), "by_speaker": None}
    if speakers:
        sums = sum_by_label(np.stack([errors, words], axis=1), speakers)
        found["by_speaker"] = bootstrap_interval(sums[:, 0], sums[:, 1], level, draws)
    return found


def compare_all_pairs(
    systems: Sequence[System], speakers: Sequence[str], draws: int = DRAWS
) -> list[Difference]:
    """Every pair of systems held against each other; none where the references have no words."""
    pairs = list(combinations(systems, 2))
    if not systems or systems[0].comparison.words.reference_length == 0:
        return []
    return [compare_two(first, second, speakers, len(pairs), draws) for first, second in pairs]


def compare_two(
    first: System, second: System, speakers: Sequence[str], comparisons: int = 1, draws: int = DRAWS
) -> Difference:
    """Two systems held against each other on their normalised words."""
    one, other = first.comparison, second.comparison
    errors = [comparison.word_counts[:, :3].sum(axis=1) for comparison in (one, other)]
    level = 1 - (1 - LEVEL) / comparisons
    found = bootstrap_both_ways(errors[0] - errors[1], one.word_counts[:, 3], speakers, level, draws)
    names = list(one.references)
    wrong = np.flatnonzero(errors[0] + errors[1]).tolist()
    aligned = ((one.align(names[row]), other.align(names[row])) for row in wrong)
    return Difference(
        first=first.name,
        second=second.name,
        difference=one.words.error_rate - other.words.error_rate,
        by_utterance=found["by_utterance"],
        by_speaker=found["by_speaker"],
        words=run_segment_test(find_segment_differences(aligned)),
        sentences=run_sentence_test(errors[0] > 0, errors[1] > 0),
        comparisons=comparisons,
    )
