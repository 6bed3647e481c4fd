"""The distributions that tests of significance need: normal, Student's t and binomial.

All but the first are an incomplete beta function. scipy has them, too, and would double what an installation
without torch takes on the disk.
"""

from __future__ import annotations

import math

MOST_TERMS = 100_000
SMALLEST = 1e-300  # instead of 0 in a denominator


def compute_normal_share(z: float) -> float:
    """Compute the share of the standard normal distribution below ``z``."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def compute_student_share(freedom: float, t: float) -> float:
    """Compute the share of Student's distribution with so many degrees of freedom below ``t``."""
    square = t * t
    tail = 0.5 * compute_beta_share(
        freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square)
    )
    return tail if t <= 0 else 1 - tail


def find_student_quantile(freedom: float, share: float) -> float:
    """Find the ``t`` below which a ``share`` (between 0 and 1) of Student's distribution lies."""
    if share > 0.5:
        return -find_student_quantile(freedom, 1 - share)
    low = -1.0
    while compute_student_share(freedom, low) > share:
        low *= 2
    high = 0.0
    while True:
        middle = (low + high) / 2
        if not low < middle < high:  # neighbours among the numbers that there are
            return middle
        if compute_student_share(freedom, middle) < share:
            low = middle
        else:
            high = middle


def compute_heads_share(most: int, throws: int) -> float:
    """Compute how likely so many throws of a coin give at most ``most`` heads."""
    return 1.0 if most >= throws else compute_beta_share(throws - most, most + 1, 0.5, 0.5)


def compute_beta_share(a: float, b: float, x: float, y: float) -> float:
    """Compute the regularised incomplete beta function of ``x``; ``y`` is ``1 - x``.

    The continued fraction of DLMF 8.17.22, evaluated from its beginning (Lentz 1976). About 12 digits are
    right, for ``a`` and ``b`` of a million 9.
    """
    if x <= 0 or y <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction of the other end converges faster
        return 1 - compute_beta_share(b, a, y, x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)
    upper, lower = 1.0, 0.0
    fraction = 1.0
    for term in range(MOST_TERMS):
        m = term // 2
        if term == 0:
            numerator = 1.0
        elif term % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        lower = 1 / ((1 + numerator * lower) or SMALLEST)
        upper = (1 + numerator / upper) or SMALLEST
        step = upper * lower
        fraction *= step
        if abs(step - 1) < 1e-15:
            break
    return math.exp(log_front) * (fraction - 1) / a
