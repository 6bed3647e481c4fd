"""CTC-CRF: the score of the reference against that of all token sequences (Xiang & Ou 2019).

"CRF-based single-stage acoustic modeling with CTC topology"; An et al. 2020, "CAT: A CTC-CRF based ASR
toolkit". The score of a CTC path is the sum of its log-probs plus the log probability of the tokens that it
collapses to, under an n-gram model. The loss is minus the log of the share of the reference's paths in the
sum over all paths. That sum, the denominator, runs over the graph of ``asr.training.denominator``.

Probabilities are scaled to a sum of 1 in every frame; the logarithms of the scales add up in float64.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from asr.core.compiled import compile_function, compile_inline, compile_no_alloc
from asr.training.denominator import DenominatorGraph, score_sequence

LANES = 8  # utterances computed side by side, like the numbers in a vector register
MIN_SHARE = 1e-25  # smaller shares of a frame's probability become 0
MAX_STORED = 1 << 24  # forward probabilities in memory at once: 64 MB in float32


@compile_no_alloc
def _forward_frame(
    graph: DenominatorGraph,
    probs: np.ndarray,
    before: np.ndarray,
    leaving: np.ndarray,
    numbers: np.ndarray,
    after: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Compute the forward probabilities of a frame from those of the previous one, scaled to a sum of 1.

    probs: ``(vocabulary, LANES)``. before, after: ``(2 * states, LANES)``, states on their tokens
    first, then on their blanks. leaving: scratch of the same shape, ``numbers`` the same memory, flat.
    sums: ``(2, LANES)``, set to the sums before scaling and the scales.
    """
    states = len(graph.tokens)
    blank = probs[0]
    for s in range(states):
        token_before, blank_before = before[s], before[states + s]
        token_leaving, blank_leaving, blank_after = leaving[s], leaving[states + s], after[states + s]
        for k in range(LANES):
            either = token_before[k] + blank_before[k]
            token_leaving[k] = either
            blank_leaving[k] = blank_before[k]
            blank_after[k] = blank[k] * either
    for s in range(states):
        backoff = graph.backoffs[s]
        if backoff > 0:
            _add(backoff, leaving[s], leaving[graph.suffixes[s]])
            _add(backoff, leaving[states + s], leaving[states + graph.suffixes[s]])
    for s in range(states):
        own, token_before, prob = after[s], before[s], probs[graph.tokens[s]]
        _gather(graph.bounds[s], graph.bounds[s + 1], graph.rows, graph.weights, numbers, own)
        for k in range(LANES):
            own[k] = prob[k] * (own[k] + token_before[k])
    _scale(after, sums)


@compile_no_alloc
def _backward_frame(
    graph: DenominatorGraph,
    probs: np.ndarray,
    after: np.ndarray,
    coming: np.ndarray,
    numbers: np.ndarray,
    leaving: np.ndarray,
    before: np.ndarray,
) -> None:
    """Compute the backward probabilities of a frame from those of the next one, unscaled.

    probs are those of the next frame. coming: scratch, ``(states, LANES)``, ``numbers`` the same memory,
    flat. For the rest see ``_forward_frame``.
    """
    states = len(graph.tokens)
    blank = probs[0]
    for s in range(states):
        prob, token_coming, token_after = probs[graph.tokens[s]], coming[s], after[s]
        for k in range(LANES):
            token_coming[k] = prob[k] * token_after[k]
    for row in range(2 * states):
        begin, end = graph.out_bounds[row], graph.out_bounds[row + 1]
        _gather(begin, end, graph.targets, graph.out_weights, numbers, leaving[row])
    for s in range(states):
        backoff = graph.backoffs[s]
        token_leaving, blank_leaving = leaving[s], leaving[states + s]
        if backoff > 0:
            _add(backoff, leaving[graph.suffixes[s]], token_leaving)
            _add(backoff, leaving[states + graph.suffixes[s]], blank_leaving)
        token_before, blank_before = before[s], before[states + s]
        blank_after, token_coming = after[states + s], coming[s]
        for k in range(LANES):
            either = token_leaving[k] + blank[k] * blank_after[k]
            token_before[k] = either + token_coming[k]
            blank_before[k] = either + blank_leaving[k]


@compile_inline
def _add(factor: float, what: np.ndarray, to: np.ndarray) -> None:
    """Add ``factor`` times one row to another."""
    for k in range(LANES):
        to[k] += factor * what[k]


@compile_inline
def _gather(
    begin: int, end: int, places: np.ndarray, weights: np.ndarray, numbers: np.ndarray, into: np.ndarray
) -> None:
    """Set ``into`` to the sum over ``begin <= i < end`` of ``weights[i]`` times row ``places[i]``.

    This takes nearly all the time. ``numbers`` holds rows of ``LANES`` numbers, flat, with unsigned indices,
    which is three times faster than indexing rows; the lanes are written out to keep the sums in registers.
    """
    a = b = c = d = e = f = g = h = numbers[0] * 0
    for i in range(begin, end):
        weight = weights[i]
        at = np.uint64(np.uint32(places[i])) * np.uint64(LANES)
        a += weight * numbers[at]
        b += weight * numbers[at + np.uint64(1)]
        c += weight * numbers[at + np.uint64(2)]
        d += weight * numbers[at + np.uint64(3)]
        e += weight * numbers[at + np.uint64(4)]
        f += weight * numbers[at + np.uint64(5)]
        g += weight * numbers[at + np.uint64(6)]
        h += weight * numbers[at + np.uint64(7)]
    into[0], into[1], into[2], into[3], into[4], into[5], into[6], into[7] = a, b, c, d, e, f, g, h


@compile_inline
def _scale(values: np.ndarray, sums: np.ndarray) -> None:
    """Scale each lane to a sum of 1 and tiny values to 0; lanes of zeros stay as they are."""
    totals, scales = sums[0], sums[1]
    totals[:] = 0
    for s in range(len(values)):
        _add(1, values[s], totals)
    for k in range(LANES):
        scales[k] = 1 / totals[k] if totals[k] > 0 else 0
    for s in range(len(values)):
        row = values[s]
        for k in range(LANES):
            value = row[k] * scales[k]
            row[k] = value if value > MIN_SHARE else 0


@compile_function
def _forward_backward(
    graph: DenominatorGraph,
    probs: np.ndarray,
    lengths: np.ndarray,
    stored: np.ndarray,
    begins: np.ndarray,
    log_sums: np.ndarray,
    occupancies: np.ndarray,
) -> None:
    """Sum over all paths of up to ``LANES`` utterances, and compute each token's probability in each frame.

    Forward probabilities are stored for one block of frames at a time; the backward pass recomputes those of
    earlier blocks from the first frame of each.

    Args:
        probs: ``(frames, vocabulary, LANES)``; 0 beyond an utterance's length.
        lengths: ``(LANES,)``, 0 for a lane that is empty.
        stored: ``(block, 2 * states, LANES)``, scratch; a block has at least 2 frames.
        begins: ``(blocks, 2 * states, LANES)``, scratch.
        log_sums: ``(LANES,)`` float64, output.
        occupancies: ``(frames, vocabulary, LANES)``, output; without frames: not computed.
    """
    frames, states, block = len(probs), len(graph.tokens), len(stored)
    leaving = np.zeros((2 * states, LANES), probs.dtype)
    coming = np.zeros((states, LANES), probs.dtype)
    numbers, coming_numbers = leaving.reshape(-1), coming.reshape(-1)
    sums = np.zeros((2, LANES), probs.dtype)
    begins[0] = 0
    begins[0, states] = 1
    log_sums[:] = 0
    for t in range(frames):
        place = t % block
        if place == 0 and t > 0:
            begins[t // block] = stored[block - 1]
        before = begins[t // block] if place == 0 else stored[place - 1]
        after = stored[place]
        _forward_frame(graph, probs[t], before, leaving, numbers, after, sums)
        for k in range(LANES):
            if t < lengths[k]:
                total = float(sums[0, k])
                if t == lengths[k] - 1:
                    ending = 0.0
                    for s in range(states):
                        ending += graph.finals[s] * (after[s, k] + after[states + s, k])
                    total *= ending
                log_sums[k] += math.log(total) if total > 0 else -np.inf
    if len(occupancies) == 0:
        return
    one = np.zeros((2 * states, LANES), probs.dtype)
    other = np.zeros((2 * states, LANES), probs.dtype)
    for number in range((frames - 1) // block, -1, -1):
        first, last = number * block, min(frames, (number + 1) * block) - 1
        if last < frames - 1:  # the last block is still stored
            for t in range(first, last + 1):
                before = begins[number] if t == first else stored[t - first - 1]
                _forward_frame(graph, probs[t], before, leaving, numbers, stored[t - first], sums)
        for t in range(last, first - 1, -1):
            if t < frames - 1:
                _backward_frame(graph, probs[t + 1], one, coming, coming_numbers, leaving, other)
                one, other = other, one
            for k in range(LANES):
                if t == lengths[k] - 1:
                    for s in range(states):
                        one[s, k] = one[states + s, k] = graph.finals[s]
            _scale(one, sums)
            _occupy(graph, stored[t - first], one, occupancies[t], sums)


@compile_no_alloc
def _occupy(
    graph: DenominatorGraph,
    forward: np.ndarray,
    backward: np.ndarray,
    occupancies: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Sum the products of forward and backward probabilities by token, scaled to a sum of 1."""
    states = len(graph.tokens)
    occupancies[:] = 0
    blank = occupancies[0]
    for s in range(states):
        token = occupancies[graph.tokens[s]]
        forward_token, forward_blank = forward[s], forward[states + s]
        backward_token, backward_blank = backward[s], backward[states + s]
        for k in range(LANES):
            token[k] += forward_token[k] * backward_token[k]
            blank[k] += forward_blank[k] * backward_blank[k]
    _scale(occupancies, sums)


def sum_paths(
    graph: DenominatorGraph,
    log_probs: np.ndarray,
    lengths: np.ndarray,
    with_occupancies: bool = True,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Natural log of the sum over all paths, and its gradient with respect to the log-probs.

    Args:
        graph: a sound one (see ``check_graph``) of the same vocabulary.
        log_probs: ``(batch, frames, vocabulary)`` float32 or float64; also the precision of the computation.
        lengths: ``(batch,)`` integer, up to ``frames``.
        with_occupancies: also compute the gradient.
        threads: how many groups of ``LANES`` utterances to work on at once.

    Returns:
        ``(batch,)`` float64, and the occupancies ``(batch, frames, vocabulary)``: the probability of each
        token (the blank is token 0) in each frame over all paths; they sum to 1 within an utterance and are
        0 after its end.
    """
    batch, frames, vocabulary = log_probs.shape
    if len(lengths) != batch or (batch and not 0 <= lengths.min() <= lengths.max() <= frames):
        raise ValueError("lengths do not fit the log-probs")
    if graph.tokens.max() >= vocabulary:
        raise ValueError("the graph has tokens outside the vocabulary")
    sums = np.empty(batch)
    occupancies = np.zeros_like(log_probs) if with_occupancies else None
    ranked = np.argsort(-lengths, kind="stable")
    groups = [ranked[begin : begin + LANES] for begin in range(0, batch, LANES)]

    def work(group: np.ndarray) -> None:
        sums[group] = _sum_group(graph, log_probs, lengths, group, occupancies)

    if threads > 1 and len(groups) > 1:
        with ThreadPoolExecutor(min(threads, len(groups))) as pool:
            list(pool.map(work, groups))
    else:
        for group in groups:
            work(group)
    return sums, occupancies


def _sum_group(
    graph: DenominatorGraph,
    log_probs: np.ndarray,
    lengths: np.ndarray,
    group: np.ndarray,
    occupancies: np.ndarray | None,
) -> np.ndarray:
    """The sums of up to ``LANES`` utterances; fills in their ``occupancies``."""
    kind, vocabulary = log_probs.dtype, log_probs.shape[2]
    counts = np.zeros(LANES, np.int64)
    counts[: len(group)] = lengths[group]
    frames = int(counts.max())
    probs = np.zeros((frames, vocabulary, LANES), kind)
    peaks = np.zeros(len(group))
    for lane, index in enumerate(group.tolist()):
        own = log_probs[index, : counts[lane]]
        peak = own.max(axis=1, keepdims=True)
        probs[: counts[lane], :, lane] = np.exp(own - peak)
        peaks[lane] = peak.sum(dtype=np.float64)
    width = 2 * len(graph.tokens)
    block = max(2, min(frames, MAX_STORED // (width * LANES)))
    if block < frames:  # as many blocks as frames in a block take the least memory
        block = max(block, math.isqrt(frames))
    stored = np.empty((block, width, LANES), kind)
    begins = np.empty((max(1, -(-frames // block)), width, LANES), kind)
    sums = np.empty(LANES)
    inside = np.empty((0 if occupancies is None else frames, vocabulary, LANES), kind)
    _forward_backward(graph, probs, counts, stored, begins, sums, inside)
    if occupancies is not None:
        for lane, index in enumerate(group.tolist()):
            occupancies[index, : counts[lane]] = inside[: counts[lane], :, lane]
    with np.errstate(divide="ignore"):
        nothing = np.log(graph.finals[0])  # for an utterance without frames
    return np.where(counts > 0, sums, nothing)[: len(group)] + peaks


class _PathSum(torch.autograd.Function):
    """``sum_paths`` for autograd; computed on the CPU, wherever the tensors are."""

    @staticmethod
    def forward(ctx: Any, log_probs: Tensor, lengths: Tensor, graph: DenominatorGraph) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        values = log_probs.detach().cpu().contiguous().numpy()
        sums, occupancies = sum_paths(graph, values, lengths.cpu().numpy(), wanted, torch.get_num_threads())
        if occupancies is not None:
            ctx.save_for_backward(torch.from_numpy(occupancies).to(log_probs.device))
        return torch.from_numpy(sums).to(log_probs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (occupancies,) = ctx.saved_tensors
        return occupancies * gradient[:, None, None], None, None


def score_denominator(log_probs: Tensor, lengths: Tensor, graph: DenominatorGraph) -> Tensor:
    """Natural log of the sum over all paths of each utterance, ``(batch,)``, differentiable once.

    Args:
        log_probs: ``(batch, frames, vocabulary)`` float32 or float64.
        lengths: ``(batch,)`` integer, frames per utterance.
        graph: of the same vocabulary.
    """
    return cast(Tensor, _PathSum.apply(log_probs, lengths, graph))


def crf_loss(
    ctc_losses: Tensor,
    log_probs: Tensor,
    lengths: Tensor,
    tokens: Tensor,
    token_lengths: Tensor,
    graph: DenominatorGraph,
) -> Tensor:
    """Minus the log probability of each utterance's tokens among all sequences, in nats (Xiang & Ou 2019).

    Args:
        ctc_losses: ``(batch,)``, the CTC losses of the same log-probs and tokens.
        log_probs, lengths, tokens, token_lengths: as in ``asr.model.ctc.ctc_loss``.

    Returns:
        ``(batch,)``.
    """
    known = [
        score_sequence(graph, row[:count])
        for row, count in zip(tokens.cpu().numpy(), token_lengths.tolist(), strict=True)
    ]
    return score_denominator(log_probs, lengths, graph) + ctc_losses - torch.tensor(known).to(ctc_losses)
