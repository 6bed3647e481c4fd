"""Greedy search: the best token of every frame."""

from __future__ import annotations

from copy import copy

import numpy as np

from asr.text.tokenizer import BLANK_TOKEN, Tokenizer
from asr.transcript.values import Hypothesis, make_words


def search_greedily(log_probs: np.ndarray, tokenizer: Tokenizer, frame_seconds: float) -> Hypothesis:
    """Take the best token of every frame, then remove repeats and blanks (Graves et al. 2006, section 3.2).

    Args:
        log_probs: ``(frames, vocabulary)``, natural logarithms, normalised.
        frame_seconds: seconds from one frame to the next.

    A token lasts from the first to the last frame of its run; its confidence is the highest
    probability it reaches there.
    """
    best = log_probs.argmax(axis=1)
    begins = np.flatnonzero(np.diff(best, prepend=-1))
    ends = np.append(begins[1:], len(best))
    runs = [(b, e) for b, e in zip(begins, ends, strict=True) if best[b] != BLANK_TOKEN] if len(best) else []
    tokens = tuple(int(best[b]) for b, _ in runs)
    return Hypothesis(
        tokens=tokens,
        text=tokenizer.decode(tokens),
        score=float(log_probs.max(axis=1).sum()) if len(best) else 0.0,
        words=make_words(
            [tokenizer.surfaces[token] for token in tokens],
            [float(b) * frame_seconds for b, _ in runs],
            [float(e) * frame_seconds for _, e in runs],
            [float(np.exp(log_probs[b:e, token].max())) for (b, e), token in zip(runs, tokens, strict=True)],
        ),
    )


class GreedyStream:
    """One recording on its way through greedy search, block by block."""

    def __init__(self, tokenizer: Tokenizer, frame_seconds: float) -> None:
        self._tokenizer = tokenizer
        self._frame_seconds = frame_seconds
        self._rows = np.zeros((0, len(tokenizer)), np.float32)

    def read(self, log_probs: np.ndarray) -> None:
        """Read the next log-probs ``(frames, vocabulary)``."""
        self._rows = np.concatenate([self._rows, log_probs])

    def guess(self, log_probs: np.ndarray) -> list[str]:
        """Find the words there would be if ``log_probs`` came next and were the last; they are not read."""
        rows = np.concatenate([self._rows, log_probs])
        return search_greedily(rows, self._tokenizer, self._frame_seconds).text.split()

    def conclude(self, log_probs: np.ndarray) -> Hypothesis:
        """Return the result if ``log_probs`` came next and were the last; they are not read."""
        return search_greedily(np.concatenate([self._rows, log_probs]), self._tokenizer, self._frame_seconds)

    def fork(self) -> GreedyStream:
        """Return a copy that reads on by itself."""
        return copy(self)

    def count_certain_words(self) -> int:
        """Count the words that what comes does not change: all but the last, which may go on."""
        return max(0, len(self.guess(self._rows[:0])) - 1)

    def finish(self) -> Hypothesis:
        """Return the result."""
        return search_greedily(self._rows, self._tokenizer, self._frame_seconds)
