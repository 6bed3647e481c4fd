"""Slow oracles: what the fast code should return, computed in the most obvious way."""

from __future__ import annotations

import math
from collections import Counter
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


def kneser_ney(
    sentences: Sequence[Sequence[str]], order: int, thresholds: Sequence[int], fallback: Sequence[float]
) -> Ngrams:
    """Interpolated modified Kneser-Ney (Chen & Goodman 1998), probabilities and back-off weights as they are.

    N-grams whose count is not above their order's threshold are left out, words never. Where the
    discounts cannot be estimated they are those of ``fallback``.
    """
    raw: dict[tuple[str, ...], int] = Counter()
    for sentence in sentences:
        words = ("<s>", *sentence, "</s>")
        raw.update(
            words[i:j] for i in range(len(words)) for j in range(i + 1, min(i + order, len(words)) + 1)
        )
    raw.setdefault(("<unk>",), 0)
    before = Counter(ngram[1:] for ngram in raw)
    adjusted = {g: n if len(g) == order or g[0] == "<s>" else before[g] for g, n in raw.items()}
    adjusted["<s>",] = 0
    kept = {g for g, n in raw.items() if len(g) == 1 or n > thresholds[len(g) - 1]}
    discounts = [
        _discounts([n for g, n in adjusted.items() if len(g) == k + 1], fallback) for k in range(order)
    ]
    following: dict[tuple[str, ...], list] = {}
    for ngram in raw:
        following.setdefault(ngram[:-1], []).append(ngram)

    def discounted(ngram: tuple[str, ...]) -> float:
        return adjusted[ngram] - discounts[len(ngram) - 1][min(adjusted[ngram], 3)] if ngram in kept else 0

    def weight(context: tuple[str, ...]) -> float:
        total = sum(adjusted[g] for g in following.get(context, ()))
        return (total - sum(map(discounted, following[context]))) / total if total else 1.0

    def probability(ngram: tuple[str, ...]) -> float:
        if not ngram:
            return 1 / (len(following[()]) - 1)  # every word but <s>
        context = ngram[:-1]
        total = sum(adjusted[g] for g in following[context])
        return discounted(ngram) / total + weight(context) * probability(ngram[1:])

    model = {g: (probability(g), weight(g) if len(g) < order else 1.0) for g in kept}
    return model | {("<s>",): (1.0, model["<s>",][1])}


def _discounts(counts: Sequence[int], fallback: Sequence[float]) -> Sequence[float]:
    n1, n2, n3, n4 = (sum(count == j for count in counts) for j in (1, 2, 3, 4))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        estimates = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 <= d <= j for j, d in enumerate(estimates, start=1)):
            return (0, *estimates)
    return (0, *fallback)
