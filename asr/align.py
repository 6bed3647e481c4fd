"""Where the tokens of a text lie in a recording, and how sure the model is of its words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.compiled import compiled
from asr.errors import UserError

BLANK = 0


class AlignmentError(UserError):
    """A text that has more tokens than the recording has room for."""


class Alignment(NamedTuple):
    """One entry per token: its first frame, the frame behind its last, its highest log-prob there."""

    begins: np.ndarray
    ends: np.ndarray
    peaks: np.ndarray


def align(log_probs: np.ndarray, tokens: np.ndarray) -> Alignment:
    """The most probable path of ``tokens`` through ``log_probs`` (Viterbi over the states of CTC).

    Args:
        log_probs: ``(frames, vocabulary)``, natural logarithms, the blank first.
        tokens: token numbers without blanks.

    Raises ``AlignmentError`` when there are fewer frames than tokens and repeats need.
    """
    tokens = np.ascontiguousarray(tokens, np.int32)
    needed = len(tokens) + int((tokens[1:] == tokens[:-1]).sum())
    if len(log_probs) < needed:
        raise AlignmentError(f"{len(log_probs)} frames are too few for a text that needs {needed}")
    path = _best_path(np.ascontiguousarray(log_probs, np.float32), tokens)
    begins = np.searchsorted(path, 2 * np.arange(len(tokens)) + 1, side="left")
    ends = np.searchsorted(path, 2 * np.arange(len(tokens)) + 1, side="right")
    peaks = [log_probs[b:e, token].max() for b, e, token in zip(begins, ends, tokens, strict=True)]
    return Alignment(begins, ends, np.array(peaks, np.float64))


@compiled
def _best_path(log_probs: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The state of every frame: ``2 * i`` is the blank before token ``i``, ``2 * i + 1`` the token."""
    frames, states = len(log_probs), 2 * len(tokens) + 1
    scores = np.full(states, -np.inf, np.float64)
    steps = np.zeros((frames, states), np.uint8)  # how many states the path advanced
    path = np.zeros(frames, np.int32)
    if frames == 0:
        return path
    for frame in range(frames):
        # States that the beginning reaches and from which the end is still reached.
        last = min(states - 1, 2 * frame + 1)
        first = max(0, states - 2 * (frames - frame))
        for state in range(last, first - 1, -1):  # downwards, so that earlier scores are those of before
            best, step = scores[state], 0
            if frame == 0:
                best = 0.0 if state < 2 else -np.inf
            else:
                if state > 0 and scores[state - 1] > best:
                    best, step = scores[state - 1], 1
                skips = state > 2 and state % 2 == 1 and tokens[state // 2] != tokens[state // 2 - 1]
                if skips and scores[state - 2] > best:
                    best, step = scores[state - 2], 2
            token = tokens[state // 2] if state % 2 == 1 else BLANK
            scores[state] = best + log_probs[frame, token]
            steps[frame, state] = step
    state = states - 1
    if states > 1 and scores[states - 2] > scores[states - 1]:
        state = states - 2
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= steps[frame, state]
    return path
