"""Systems compared on one set of references: what their scores are, and what they do not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from asr.data.manifest import Utterance
from asr.scoring.counts import Comparison, score_texts
from asr.scoring.files import Texts, paired
from asr.scoring.significance import (
    DRAWS,
    LEVEL,
    Difference,
    Interval,
    ratio_interval,
    segment_differences,
    segment_test,
    sentence_test,
    summed,
)
from asr.text.normalise import Normaliser


@dataclass(frozen=True)
class System:
    """One file of hypotheses against the references: as they are, and normalised."""

    name: str
    raw: Comparison
    comparison: Comparison
    utterances: Mapping[str, Utterance]  # the hypotheses with whatever their file says about them


def compared(references: Texts, hypotheses: Texts, normalise: Normaliser, name: str) -> System:
    """Pair the hypotheses with their references and count their errors.

    Raises ``ScoringError`` when they do not fit together.
    """
    texts = paired(references, hypotheses)
    raw = score_texts(references.by_id, texts.by_id)
    return System(
        name=name,
        raw=raw,
        comparison=score_texts(
            normalised(raw.references, normalise),
            normalised(raw.hypotheses, normalise),
        ),
        utterances={utterance.id: utterance for utterance in texts.utterances},
    )


def normalised(texts: Mapping[str, str], normalise: Normaliser) -> dict[str, str]:
    """Every text normalised; one that does not change is not kept twice, of which there may be a million."""
    found = {}
    for name, text in texts.items():
        changed = normalise(text)
        found[name] = text if changed == text else changed
    return found


def changes(system: System) -> dict[str, dict[str, Sequence[str]]]:
    """What normalisation changed: for each utterance the text before and after, on either side."""
    found: dict[str, dict[str, Sequence[str]]] = {}
    for side in ("references", "hypotheses"):
        before, after = getattr(system.raw, side), getattr(system.comparison, side)
        for name, text in before.items():
            if text != after[name]:
                found.setdefault(name, {})[side] = (text, after[name])
    return found


# Statistics


def speakers_of(utterances: Sequence[Utterance]) -> list[str]:
    """The speaker of every utterance; nothing unless all are known and there are two at least."""
    speakers = [utterance.speaker for utterance in utterances]
    return speakers if all(speakers) and len(set(speakers)) > 1 else []


def intervals(
    comparison: Comparison, speakers: Sequence[str], draws: int = DRAWS
) -> dict[str, Interval | None]:
    """Bootstrap intervals of the word error rate: ``by_utterance`` and, where known, ``by_speaker``.

    ``speakers`` are those of the references, in their order, or nothing.
    """
    counts = comparison.word_counts
    return bootstrapped(counts[:, :3].sum(axis=1), counts[:, 3], speakers, LEVEL, draws)


def bootstrapped(
    errors: np.ndarray, words: np.ndarray, speakers: Sequence[str], level: float, draws: int
) -> dict[str, Interval | None]:
    """The interval of ``errors`` over ``words``, drawing utterances and drawing speakers."""
    found = {"by_utterance": ratio_interval(errors, words, level, draws), "by_speaker": None}
    if speakers:
        sums = summed(np.stack([errors, words], axis=1), speakers)
        found["by_speaker"] = ratio_interval(sums[:, 0], sums[:, 1], level, draws)
    return found


def differences(systems: Sequence[System], speakers: Sequence[str], draws: int = DRAWS) -> list[Difference]:
    """Every pair of systems held against each other; none where the references have no words."""
    pairs = list(combinations(systems, 2))
    if not systems or systems[0].comparison.words.reference_length == 0:
        return []
    return [difference(first, second, speakers, len(pairs), draws) for first, second in pairs]


def difference(
    first: System, second: System, speakers: Sequence[str], comparisons: int = 1, draws: int = DRAWS
) -> Difference:
    """Two systems held against each other on their normalised words."""
    one, other = first.comparison, second.comparison
    errors = [comparison.word_counts[:, :3].sum(axis=1) for comparison in (one, other)]
    level = 1 - (1 - LEVEL) / comparisons
    found = bootstrapped(errors[0] - errors[1], one.word_counts[:, 3], speakers, level, draws)
    names = list(one.references)
    wrong = np.flatnonzero(errors[0] + errors[1]).tolist()
    aligned = ((one.alignment(names[row]), other.alignment(names[row])) for row in wrong)
    return Difference(
        first=first.name,
        second=second.name,
        difference=one.words.error_rate - other.words.error_rate,
        by_utterance=found["by_utterance"],
        by_speaker=found["by_speaker"],
        words=segment_test(segment_differences(aligned)),
        sentences=sentence_test(errors[0] > 0, errors[1] > 0),
        comparisons=comparisons,
    )
