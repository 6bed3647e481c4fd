"""Cross entropies of thousands of classes in one pass over their scores, with the gradient in their place."""

from __future__ import annotations

import math

import numpy as np

from asr.core.compiled import compile_vectorised
from asr.core.tiles import round_to_bfloat16, to_float32
from asr.model.tiled_lstm import exp

LANES = 64  # partial sums at a time, which become vector registers


@compile_vectorised
def add_bias(scores, bias, sums, lanes):  # type: ignore[no-untyped-def]
    """Write ``scores`` (bfloat16) plus ``bias`` to ``sums``; returns the highest sum."""
    whole = len(sums) // LANES * LANES
    for n in range(len(sums)):
        sums[n] = to_float32(scores[n]) + bias[n]
    highest = sums[0]
    for k in range(LANES):
        lanes[k] = highest
    for n in range(0, whole, LANES):
        for k in range(LANES):
            lanes[k] = sums[n + k] if sums[n + k] > lanes[k] else lanes[k]
    for k in range(LANES):
        highest = max(highest, lanes[k])
    for n in range(whole, len(sums)):
        highest = max(highest, sums[n])
    return highest


@compile_vectorised
def exponentiate(sums, highest, lanes):  # type: ignore[no-untyped-def]
    """Replace sums by ``e`` to their distance from ``highest``; returns the total."""
    whole = len(sums) // LANES * LANES
    for n in range(len(sums)):
        sums[n] = exp(sums[n] - highest)
    for k in range(LANES):
        lanes[k] = 0
    for n in range(0, whole, LANES):
        for k in range(LANES):
            lanes[k] += sums[n + k]
    total = np.float32(0)
    for k in range(LANES):
        total += lanes[k]
    for n in range(whole, len(sums)):
        total += sums[n]
    return total


@compile_vectorised
def write_change(powers, scale, bias_gradient, scores):  # type: ignore[no-untyped-def]
    """Write probabilities as bfloat16 to ``scores`` and add them to the gradient of the bias."""
    for n in range(len(powers)):
        share = powers[n] * scale
        bias_gradient[n] += share
        scores[n] = round_to_bfloat16(share)


@compile_vectorised
def replace_scores(scores, bias, targets, bias_gradient, sums, lanes):  # type: ignore[no-untyped-def]
    """Replace scores by the gradient of the cross entropy by them; returns the sum of cross entropies.

    Args:
        scores: ``(rows, classes)`` uint16, bfloat16 without the bias.
        bias: ``(classes,)`` float32.
        targets: ``(rows,)`` int64, checked by the caller.
        bias_gradient: ``(classes,)`` float32, added to.
        sums, lanes: scratch, ``(classes,)`` and ``(LANES,)`` float32.
    """
    loss = 0.0
    one = np.float32(1)
    for row in range(len(scores)):
        target = targets[row]
        highest = add_bias(scores[row], bias, sums, lanes)
        wanted = sums[target]
        total = exponentiate(sums, highest, lanes)
        loss += math.log(total) + highest - wanted
        scale = one / total
        share = sums[target] * scale
        write_change(sums, scale, bias_gradient, scores[row])
        scores[row, target] = round_to_bfloat16(share - one)
        bias_gradient[target] -= one
    return loss
