"""CTC-CRF: the graph against its n-gram model, sums and gradients against enumeration, damage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from asr.lm.estimation import FALLBACK, EstimationConfig, estimate
from asr.lm.model import NgramModel
from asr.model.ctc import ctc_loss
from asr.training import crf
from asr.training.crf import crf_loss, score_denominator, sum_paths
from asr.training.denominator import (
    DenominatorGraph,
    GraphError,
    build_graph,
    convert_ngrams,
    graph_from_tensors,
    graph_tensors,
    score_sequence,
)
from tests.reference import crf_partition

PRUNINGS = [(2, (0,)), (3, (0,)), (3, (0, 1)), (3, (0, 0, 2)), (4, (0,)), (4, (0, 0, 1, 2))]


def sequences(vocabulary: int, count: int = 30, longest: int = 9) -> list[list[int]]:
    """Of tokens that follow one another more or less as in a cycle, repeats among them."""
    rng = np.random.default_rng(vocabulary)
    found = []
    for _ in range(count):
        token, own = 1, []
        for _ in range(rng.integers(1, longest)):
            token = 1 + (token - 1 + int(rng.integers(0, 3)) ** 2) % (vocabulary - 1)
            own.append(token)
        found.append(own)
    return found


def model(vocabulary: int, order: int, prune: tuple[int, ...]) -> NgramModel:
    text = "".join(" ".join(map(str, own)) + "\n" for own in sequences(vocabulary))
    return estimate([text.encode()], EstimationConfig(order, prune, discount_fallback=FALLBACK))


def graph(vocabulary: int, order: int = 3, prune: tuple[int, ...] = (0,)) -> DenominatorGraph:
    return build_graph(sequences(vocabulary), vocabulary, order, prune)


def by_the_model(ngrams: NgramModel, tokens: list[int]) -> float:
    words = [*map(str, tokens), "</s>"]
    return sum(ngrams.score_words(words, ngrams.begin)[0])


def noise(*shape: int, seed: int = 1, spread: float = 2.0) -> np.ndarray:
    values = spread * np.random.default_rng(seed).normal(size=shape)
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize(("order", "prune"), PRUNINGS)
def test_the_graph_gives_sequences_the_probabilities_of_its_model(order, prune):
    ngrams, made = model(7, order, prune), graph(7, order, prune)
    rng = np.random.default_rng(0)
    unlikely = [rng.integers(1, 7, rng.integers(0, 12)).tolist() for _ in range(50)]
    for tokens in [*sequences(7), *unlikely, [], [3, 3, 3, 3]]:
        expected = by_the_model(ngrams, tokens)
        assert score_sequence(made, tokens) == pytest.approx(expected, rel=1e-5)


def test_backing_off_takes_few_arcs():
    made = graph(7, 4)
    backing_off = int((made.backoffs > 0).sum())
    assert backing_off > len(made.tokens) / 2
    assert len(made.rows) < 6 * len(made.tokens) / 2  # 6 for each state without


@pytest.mark.parametrize(("order", "prune"), PRUNINGS)
@pytest.mark.parametrize("vocabulary", [2, 3, 4])
def test_sums_and_occupancies_are_those_of_all_paths(order, prune, vocabulary):
    ngrams, made = model(vocabulary, order, prune), graph(vocabulary, order, prune)
    frames = 6 if vocabulary < 4 else 5  # of four tokens there are 4096 paths in 6 frames
    log_probs = noise(2, frames, vocabulary)
    lengths = np.array([4, frames])
    sums, occupancies = sum_paths(made, log_probs, lengths)
    for row, length in enumerate(lengths):
        total, expected = crf_partition(log_probs[row, :length], lambda tokens: by_the_model(ngrams, tokens))
        assert sums[row] == pytest.approx(total, abs=1e-5)  # the graph's weights are float32
        np.testing.assert_allclose(occupancies[row, :length], expected, atol=1e-6)
        assert not occupancies[row, length:].any()


def test_tokens_that_were_never_seen_are_possible():
    made = build_graph([[1, 2], [2, 1, 1]], 5)
    assert -40 < score_sequence(made, [4, 3]) < -2
    _, occupancies = sum_paths(made, noise(1, 20, 5), np.array([20]))
    assert (occupancies > 0).all()


def test_single_precision_is_close_to_double():
    made, log_probs, lengths = graph(7), noise(3, 50, 7), np.array([50, 31, 7])
    sums, occupancies = sum_paths(made, log_probs, lengths)
    rough_sums, rough = sum_paths(made, log_probs.astype(np.float32), lengths)
    assert rough.dtype == np.float32
    np.testing.assert_allclose(rough_sums, sums, atol=1e-4)
    np.testing.assert_allclose(rough, occupancies, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    made = graph(4)
    logits = torch.randn(2, 6, 4, dtype=torch.double, requires_grad=True)
    lengths = torch.tensor([6, 4])
    tokens, token_lengths = torch.tensor([[1, 1, 2], [3, 0, 0]]), torch.tensor([3, 1])

    def all_paths(values: torch.Tensor) -> torch.Tensor:
        return score_denominator(values, lengths, made)

    def criterion(values: torch.Tensor) -> torch.Tensor:
        log_probs = F.log_softmax(values, dim=2)
        own = ctc_loss(log_probs, lengths, tokens, token_lengths)
        return crf_loss(own, log_probs, lengths, tokens, token_lengths, made)

    assert torch.autograd.gradcheck(all_paths, (logits,))
    assert torch.autograd.gradcheck(criterion, (logits,))


def test_the_criterion_is_the_probability_of_the_tokens_among_all():
    ngrams, made = model(4, 3, (0,)), graph(4)
    log_probs = torch.from_numpy(noise(1, 6, 4))
    lengths, tokens, token_lengths = torch.tensor([6]), torch.tensor([[1, 2, 2]]), torch.tensor([3])
    own = ctc_loss(log_probs, lengths, tokens, token_lengths)
    loss = crf_loss(own, log_probs, lengths, tokens, token_lengths, made)
    total, _ = crf_partition(log_probs[0].numpy(), lambda sequence: by_the_model(ngrams, sequence))
    assert float(loss) == pytest.approx(total - (by_the_model(ngrams, [1, 2, 2]) - float(own)), abs=1e-5)


def test_the_loss_is_never_negative_and_falls_to_nothing():
    made = graph(7)
    tokens = torch.tensor([own for own in sequences(7) if len(own) == 6])
    token_lengths = torch.full((len(tokens),), 6)
    lengths = torch.full((len(tokens),), 24)
    for sureness in (0.0, 2.0, 8.0, 60.0):
        logits = torch.zeros(len(tokens), 24, 7)
        logits[:, 0::2, 0] = sureness
        logits[:, 1::2].scatter_(2, tokens.repeat_interleave(2, dim=1)[:, :, None], sureness)
        logits[:, 3::4] = logits[:, 0::4]
        log_probs = F.log_softmax(logits, dim=2)
        own = ctc_loss(log_probs, lengths, tokens, token_lengths)
        losses = crf_loss(own, log_probs, lengths, tokens, token_lengths, made)
        assert (losses > -1e-4).all()
    assert (losses < 1e-3).all()


def test_padding_and_neighbours_change_nothing():
    made = graph(7)
    lengths = np.array([40, 3, 0, 17, 40, 1, 39, 25, 8, 11, 30])  # two groups of lanes
    log_probs = noise(len(lengths), 40, 7).astype(np.float32)
    sums, occupancies = sum_paths(made, log_probs, lengths)
    for row, length in enumerate(lengths):
        alone, own = sum_paths(made, log_probs[row : row + 1, : max(1, length)], lengths[row : row + 1])
        assert sums[row] == pytest.approx(alone[0], rel=1e-12)
        np.testing.assert_array_equal(occupancies[row, :length], own[0, :length])
        np.testing.assert_allclose(occupancies[row].sum(axis=1), np.arange(40) < length, atol=1e-6)
        log_probs[row, length:] = np.nan
    again, same = sum_paths(made, log_probs, lengths, threads=2)
    np.testing.assert_array_equal(again, sums)
    np.testing.assert_array_equal(same, occupancies)


def test_two_thousand_frames_neither_vanish_nor_run_over():
    made = graph(7)
    spread = np.where(np.arange(2000) % 3, 1.0, 40.0)[:, None]  # sure of itself in every third frame
    for shift in (0.0, -300.0, 300.0):
        log_probs = (spread * noise(1, 2000, 7) + shift).astype(np.float32)
        sums, occupancies = sum_paths(made, log_probs, np.array([2000]))
        expected, exactly = sum_paths(made, log_probs.astype(np.float64), np.array([2000]))
        assert sums[0] == pytest.approx(expected[0], rel=1e-5)
        np.testing.assert_allclose(occupancies, exactly, atol=1e-3)
        np.testing.assert_allclose(occupancies.sum(axis=2), 1, atol=1e-5)


def test_what_is_made_again_block_by_block_is_the_same(monkeypatch):
    made, log_probs, lengths = graph(7), noise(2, 50, 7), np.array([50, 33])
    sums, occupancies = sum_paths(made, log_probs, lengths)
    monkeypatch.setattr(crf, "MAX_STORED", 0)  # blocks of 7 frames
    again, same = sum_paths(made, log_probs, lengths)
    np.testing.assert_array_equal(again, sums)
    np.testing.assert_array_equal(same, occupancies)


def test_without_a_gradient_none_is_made():
    made, log_probs, lengths = graph(4), noise(2, 9, 4), np.array([9, 9])
    sums, nothing = sum_paths(made, log_probs, lengths, with_occupancies=False)
    assert nothing is None
    np.testing.assert_array_equal(sums, sum_paths(made, log_probs, lengths)[0])


def test_numbers_that_are_none_are_told_by_the_loss():
    log_probs = noise(1, 9, 4)
    log_probs[0, 4] = np.nan
    assert not math.isfinite(sum_paths(graph(4), log_probs, np.array([9]))[0][0])


def test_a_graph_survives_a_checkpoint():
    made = graph(5)
    again = graph_from_tensors(graph_tensors(made), 5)
    assert all(np.array_equal(left, right) for left, right in zip(made, again, strict=True))


@pytest.mark.parametrize("name", DenominatorGraph._fields)
@pytest.mark.parametrize("damage", ["high", "low", "short", "kind"])
def test_a_damaged_graph_is_refused(name, damage):
    tensors = {key: value.clone() for key, value in graph_tensors(graph(5)).items()}
    if damage == "short":
        tensors[name] = tensors[name][:-1].clone()
    elif damage == "kind":
        tensors[name] = tensors[name].double()
    else:
        tensors[name][-1] = 1_000_000 if damage == "high" else -1
    with pytest.raises(GraphError, match="is damaged"):
        graph_from_tensors(tensors, 5)


def test_what_does_not_fit_is_refused():
    made = graph(5)
    with pytest.raises(ValueError, match="vocabulary"):
        sum_paths(made, noise(1, 9, 4), np.array([9]))
    with pytest.raises(ValueError, match="lengths"):
        sum_paths(made, noise(1, 9, 5), np.array([10]))
    with pytest.raises(GraphError, match="order 2"):
        convert_ngrams(model(5, 1, (0,)), 5)
    with pytest.raises(GraphError, match="no tokens"):
        build_graph([[], []], 5)
