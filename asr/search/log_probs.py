"""What a search demands of log-probs, whichever network or program they come from."""

from __future__ import annotations

import numpy as np

from asr.errors import UserError

ROUNDING = 0.5  # a log-prob may be this much above 0, where a network computes with few bits


class LogProbsError(UserError):
    """Log-probs that cannot be searched."""


def check_log_probs(log_probs: np.ndarray, vocabulary: int) -> None:
    """Check that log-probs are ``(frames, vocabulary)``, and that every number is one.

    Compiled code looks tokens up by their column and relies on finite sums. Raises ``LogProbsError``.
    """
    if log_probs.ndim != 2 or log_probs.shape[1] != vocabulary:
        raise LogProbsError(
            f"log-probs of shape {log_probs.shape} do not fit this model's {vocabulary} tokens: "
            "one column for each token is needed"
        )
    if log_probs.dtype.kind != "f":
        raise LogProbsError(f"log-probs must be floating-point numbers, not {log_probs.dtype}")
    if log_probs.size and not log_probs.max() <= ROUNDING:  # in this form NaN is refused, too
        raise LogProbsError(
            "the network gives log-probs that are none (not a number, or above 0): its weights are damaged"
        )
