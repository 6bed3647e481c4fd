"""Word confidences, and whether words are right as often as these say.

A word's raw confidence is the geometric mean of the highest probabilities that its tokens reach where
they are aligned. How often such words are right depends on the model and the search; two numbers measured
on a development set turn one into the other (Platt 1999):
``confidence = sigmoid(slope * logit(raw) + offset)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.search.config import SearchConfig
from asr.transcript.values import Word

MARGIN = 1e-6  # a raw confidence counts as no nearer to 0 or 1
BINS = 10


def calibrate(words: Sequence[Word], config: SearchConfig) -> tuple[Word, ...]:
    """Turn the raw confidences of words into those that ``config`` makes of them (Platt 1999)."""
    slope, offset = config.confidence_slope, config.confidence_offset
    if (slope, offset) == (1.0, 0.0):
        return tuple(words)
    return tuple(
        replace(word, confidence=compute_share(slope * logit(word.confidence) + offset)) for word in words
    )


def compute_share(log_odds: float) -> float:
    """Compute the share whose odds have this logarithm: the inverse of ``logit``."""
    rest = math.exp(-abs(log_odds))
    return (1.0 if log_odds >= 0 else rest) / (1 + rest)


def logit(share: float) -> float:
    """Compute the logarithm of the odds of a share between 0 and 1."""
    share = min(max(share, MARGIN), 1 - MARGIN)
    return math.log(share / (1 - share))


def fit_calibration(raw: Sequence[float], right: Sequence[bool]) -> tuple[float, float]:
    """Fit the slope and offset with which raw confidences best predict which words are right.

    Newton's method on the logistic loss (Platt 1999). One right and one wrong word are added at even odds, so
    that words that are all right do not need an infinite offset.
    """
    features = np.array([*map(logit, raw), 0.0, 0.0])
    targets = np.array([*right, True, False], np.float64)
    inputs = np.stack([features, np.ones_like(features)], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (predicted - targets)
        curvature = (inputs.T * (predicted * (1 - predicted))) @ inputs + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        step *= min(
            1.0, 2.0 / max(np.abs(step).max(), 1e-12)
        )  # far from the optimum Newton's step is too long
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0]), float(weights[1])


@dataclass(frozen=True)
class ConfidenceBin:
    """Words of similar confidence: how many, their mean confidence, and the share of them that is right."""

    words: int
    confidence: float
    right: float


def bin_by_confidence(confidences: Sequence[float], right: Sequence[bool]) -> list[ConfidenceBin]:
    """Sort words into ``BINS`` bins of equal width by confidence; empty bins are left out."""
    places = np.minimum((np.array(confidences) * BINS).astype(int), BINS - 1)
    values, truths = np.array(confidences), np.array(right, np.float64)
    return [
        ConfidenceBin(int(chosen.sum()), float(values[chosen].mean()), float(truths[chosen].mean()))
        for chosen in (places == place for place in range(BINS))
        if chosen.any()
    ]


def measure_calibration_error(bins: Sequence[ConfidenceBin]) -> float:
    """Average the distance between confidence and share right over all words (Naeini et al. 2015)."""
    total = sum(bin.words for bin in bins)
    return sum(bin.words * abs(bin.confidence - bin.right) for bin in bins) / max(total, 1)
