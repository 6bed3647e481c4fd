"""Slow oracles: what the fast code should return, computed in the most obvious way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, product

import numpy as np

BLANK = 0


def edit_distance(a: Sequence, b: Sequence) -> int:
    """The fewest substitutions, deletions and insertions that turn ``a`` into ``b``: the textbook table."""
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0] = np.arange(len(a) + 1)
    table[0, :] = np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            substituted = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(substituted, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return int(table[-1, -1])


def collapse(path: Sequence[int]) -> list[int]:
    """A CTC path as tokens: repeats become one, then blanks go."""
    return [token for token, _ in groupby(path) if token != BLANK]


def ctc_log_probability(log_probs: np.ndarray, tokens: Sequence[int]) -> float:
    """The natural log of the probability of ``tokens``, summed over all paths that collapse to them.

    ``log_probs`` is ``(frames, vocabulary)``, natural logarithms, with the blank first. There are
    vocabulary to the power of frames many paths. Tokens that have no path give minus infinity.
    """
    frames, vocabulary = log_probs.shape
    scores = [
        log_probs[np.arange(frames), list(path)].sum()
        for path in product(range(vocabulary), repeat=frames)
        if collapse(path) == list(tokens)
    ]
    return float(np.logaddexp.reduce(scores, initial=-np.inf))


Ngrams = Mapping[tuple[str, ...], tuple[float, float]]


def backoff_log_prob(ngrams: Ngrams, context: Sequence[str], word: str) -> float:
    """The log probability of ``word`` after ``context`` in a back-off model, by its definition (Katz 1987).

    ``ngrams`` has the log probability and the log back-off weight of every n-gram; unigrams of all words.
    """
    context = tuple(context)
    if (*context, word) in ngrams:
        return ngrams[*context, word][0]
    return ngrams.get(context, (0.0, 0.0))[1] + backoff_log_prob(ngrams, context[1:], word)


def room_response_by_images(size, speaker, microphone, t60: float, rate: int) -> np.ndarray:
    """The image method, image by image (Allen & Berkley 1979): every mirrored room in reach is visited."""
    taps = math.ceil(0.75 * t60 * rate)
    volume = size[0] * size[1] * size[2]
    surface = 2 * (size[0] * size[1] + size[1] * size[2] + size[0] * size[2])
    absorbed = 1 - math.exp(-24 * math.log(10) / 343.0 * volume / (surface * t60))  # Eyring
    reflection = -math.sqrt(1 - absorbed)
    response = np.zeros(taps)
    orders = range(-8, 9)
    for mirrored in product((0, 1), repeat=3):
        for shift in product(orders, repeat=3):
            image = [
                (1 - 2 * q) * s + 2 * n * length
                for q, n, s, length in zip(mirrored, shift, speaker, size, strict=True)
            ]
            walls = sum(abs(n - q) + abs(n) for q, n in zip(mirrored, shift, strict=True))
            distance = math.dist(image, microphone)
            if distance < 343.0 * (taps - 1) / rate:
                response[round(distance * rate / 343.0)] += reflection**walls / distance
    return response
