"""Label priors: what a model finds likely whatever it hears, taken off its log-probs before a search.

A search needs how well the sound fits a token; a model says how likely the token is given the sound. By
Bayes' rule the one is the other divided by the token's prior (Miao, Gowayyed & Metze 2015, "EESEN", section
3.2). The main effect is that blanks become less certain.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from asr.errors import UserError
from asr.search.config import SearchConfig
from asr.search.log_probs import check_log_probs

LEAST_PRIOR = 1e-6  # so that a token that hardly occurs does not become likely everywhere


def measure_log_priors(log_probs: Iterable[np.ndarray]) -> tuple[float, ...]:
    """Measure the log of each token's mean probability over all frames of ``(frames, vocabulary)`` arrays."""
    total, frames = np.zeros(1), 0
    for rows in log_probs:
        total = total + np.exp(rows, dtype=np.float64).sum(axis=0)
        frames += len(rows)
    priors = np.log(np.maximum(total / max(frames, 1), LEAST_PRIOR))
    return tuple(np.round(priors, 4).tolist())


def take_off_priors(log_probs: np.ndarray, config: SearchConfig, vocabulary: int) -> np.ndarray:
    """Take the weighted priors off log-probs ``(frames, vocabulary)``; the result is float32 and normalised.

    Raises ``LogProbsError`` when there is not a column for each of ``vocabulary`` tokens or a number is none,
    and ``UserError`` when the priors are those of another vocabulary.
    """
    check_log_probs(log_probs, vocabulary)
    rows = np.ascontiguousarray(log_probs, np.float32)
    if config.prior_weight == 0:
        return rows
    if len(config.log_priors) != rows.shape[1]:
        raise UserError(
            f"'search.log_priors' are those of {len(config.log_priors)} tokens, "
            f"the model has {rows.shape[1]}: run asr tune again"
        )
    rows = rows - np.float32(config.prior_weight) * np.array(config.log_priors, np.float32)
    total = np.logaddexp.reduce(rows, axis=1, keepdims=True)
    return rows - np.where(np.isfinite(total), total, np.float32(0))  # a frame may allow nothing
