"""Systems compared on one set of references: what their scores are, and what they do not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asr.data import Utterance
from asr.normalise import Normaliser
from asr.scorefiles import Texts, paired
from asr.scoring import Comparison, score_texts


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
            {name: normalise(text) for name, text in raw.references.items()},
            {name: normalise(text) for name, text in raw.hypotheses.items()},
        ),
        utterances={utterance.id: utterance for utterance in texts.utterances},
    )


def changes(system: System) -> dict[str, dict[str, Sequence[str]]]:
    """What normalisation changed: for each utterance the text before and after, on either side."""
    found: dict[str, dict[str, Sequence[str]]] = {}
    for side in ("references", "hypotheses"):
        before, after = getattr(system.raw, side), getattr(system.comparison, side)
        for name, text in before.items():
            if text != after[name]:
                found.setdefault(name, {})[side] = (text, after[name])
    return found
