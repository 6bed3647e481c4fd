"""The one loop of ``asr.search.alignment``, compiled, for long recordings."""

from __future__ import annotations

import numpy as np

from asr.core.compiled import compile_no_alloc


@compile_no_alloc
def advance(
    log_probs: np.ndarray,
    symbols: np.ndarray,
    skips: np.ndarray,
    scores: np.ndarray,
    steps: np.ndarray,
    begin: int,
    end: int,
    low: int,
) -> None:
    """Do what ``alignment._advance`` does, to the last bit."""
    frames, states = len(log_probs), len(symbols)
    for frame in range(begin, end):
        last = min(len(scores) - 1, 2 * frame + 1)
        first = max(low, states - 2 * (frames - frame))
        row = min(frame - begin, len(steps) - 1)
        for state in range(last, first - 1, -1):  # downwards, so that earlier scores are those of before
            best, step = scores[state], 0
            if frame == 0:
                best = 0.0
            else:
                if state > 0 and scores[state - 1] > best:
                    best, step = scores[state - 1], 1
                if state > 1 and scores[state - 2] + skips[state] > best:
                    best, step = scores[state - 2] + skips[state], 2
            scores[state] = best + log_probs[frame, symbols[state]]
            steps[row, state - low] = step
