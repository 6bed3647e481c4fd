"""The CTC loss of an inner layer, consistency of two views, and truncated back-propagation through time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from asr.model.ctc import CTCModel, ctc_loss
from asr.model.encoders import ENCODERS, EncoderConfig
from asr.training.crf import crf_loss
from asr.training.denominator import build_graph
from asr.training.objective import Objective, ObjectiveError, consistency_loss, truncate_recurrence


def new_model(**keys) -> CTCModel:
    torch.manual_seed(0)
    config = EncoderConfig(**{"layers": 3, "size": 8, "front_end": "conv2", "channels": 2} | keys)
    return CTCModel(ENCODERS[config.kind](config, 10, 1), 6)


def new_batch(*lengths: int) -> tuple[torch.Tensor, ...]:
    """Features (noise beyond the lengths, too), their lengths, tokens and how many there are."""
    torch.manual_seed(1)
    features = torch.randn(len(lengths), max(lengths), 10)
    tokens = torch.tensor([[1, 2, 3], [4, 5, 0]])[: len(lengths)]
    return features, torch.tensor(lengths), tokens, torch.tensor([3, 2][: len(lengths)])


def test_without_a_layer_the_objective_is_the_ctc_loss():
    model, (features, lengths, *targets) = new_model(), new_batch(40, 30)
    outcome = Objective(model)(features, lengths, *targets)
    log_probs, frames = model(features, lengths)
    expected = ctc_loss(log_probs, frames, *targets)
    torch.testing.assert_close(outcome.losses, expected)
    torch.testing.assert_close(outcome.ctc, expected)
    torch.testing.assert_close(outcome.log_probs, log_probs)
    assert outcome.losses.requires_grad
    assert not outcome.ctc.requires_grad
    assert not outcome.log_probs.requires_grad


@pytest.mark.parametrize("layer", [1, 2])
def test_the_inner_layer_has_its_share_of_the_loss(layer):
    model, (features, lengths, *targets) = new_model(), new_batch(40, 30)
    objective = Objective(model, intermediate_layer=layer, weight=0.3)
    outcome = objective(features, lengths, *targets)
    states = {}
    handle = model.encoder.layers[layer - 1].register_forward_hook(lambda *call: states.update(out=call[2]))
    log_probs, frames = model(features, lengths)
    handle.remove()
    between = F.log_softmax(objective.intermediate(states["out"]), dim=2)
    direct = ctc_loss(log_probs, frames, *targets)
    second = ctc_loss(between, frames, *targets)
    torch.testing.assert_close(outcome.losses, 0.7 * direct + 0.3 * second)
    torch.testing.assert_close(outcome.ctc, direct)
    outcome.losses.sum().backward()
    assert float(objective.intermediate.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("layer", [1, 2])
def test_the_inner_loss_is_of_what_the_next_layer_reads(kind, layer):
    norm = "layer" if kind == "transformer" else "none"
    model, (features, lengths, *targets) = new_model(kind=kind, norm=norm), new_batch(40, 30)
    read = {}
    following = model.encoder.layers[layer]
    following.register_forward_pre_hook(lambda module, inputs: read.update(states=inputs[0]))
    objective = Objective(model, intermediate_layer=layer, weight=0.3)
    result = objective(features, lengths, *targets)
    log_probs = F.log_softmax(objective.intermediate(read["states"]), dim=2)
    inner = ctc_loss(log_probs, result.frames, *targets)
    torch.testing.assert_close(result.losses, 0.7 * result.ctc + 0.3 * inner)


def test_the_loss_of_the_inner_layer_does_not_see_padding():
    objective = Objective(new_model(), intermediate_layer=2)
    features, lengths, *targets = new_batch(40, 31)
    together = objective(features, lengths, *targets).losses[1]
    alone = objective(features[1:, :31], lengths[1:], *(target[1:] for target in targets)).losses[0]
    torch.testing.assert_close(together, alone)


def test_two_views_count_half_each_and_their_disagreement_is_added():
    objective = Objective(new_model(), intermediate_layer=2, consistency=0.2)
    features, lengths, *targets = new_batch(40, 31)
    views = [features, features.flip(2)]
    alone = [objective(view, lengths, *targets) for view in views]
    together = objective(torch.cat(views), lengths.repeat(2), *targets)
    probs = [outcome.log_probs.exp().double().numpy() for outcome in alone]
    apart = [
        sum(
            0.5 * (one - other) @ (np.log(one) - np.log(other))
            for one, other in zip(probs[0][row, :count], probs[1][row, :count], strict=True)
        )
        for row, count in enumerate(alone[0].frames.tolist())
    ]
    assert min(apart) > 0.01  # a fifth of it is well above the tolerance below
    expected = (alone[0].losses + alone[1].losses) / 2 + 0.2 * torch.tensor(apart)
    torch.testing.assert_close(together.losses, expected.float())
    torch.testing.assert_close(together.ctc, (alone[0].ctc + alone[1].ctc) / 2)
    torch.testing.assert_close(together.log_probs, alone[0].log_probs)
    torch.testing.assert_close(together.frames, alone[0].frames)


def test_a_denominator_makes_it_ctc_crf_and_the_inner_layer_keeps_ctc():
    objective = Objective(new_model(), intermediate_layer=2, weight=0.3, ctc_weight=0.05)
    features, lengths, *targets = new_batch(40, 31)
    plain = objective(features, lengths, *targets)
    torch.testing.assert_close(plain.criterion, plain.ctc)
    objective.denominator = graph = build_graph([[1, 2, 3], [4, 5], [2, 1]], 6)
    for views in (1, 2):
        outcome = objective(features.repeat(views, 1, 1), lengths.repeat(views), *targets)
        expected = crf_loss(plain.ctc, plain.log_probs, plain.frames, *targets, graph)
        torch.testing.assert_close(outcome.criterion, expected)
        torch.testing.assert_close(outcome.ctc, plain.ctc)
        inner = plain.losses - 0.7 * plain.ctc
        torch.testing.assert_close(outcome.losses, 0.7 * (expected + 0.05 * plain.ctc) + inner)
        outcome.losses.sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in objective.parameters())


def test_each_view_is_pulled_towards_the_other_as_a_constant():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 4, dtype=torch.double, requires_grad=True)
    consistency_loss(F.log_softmax(logits, dim=2), torch.tensor([5, 5])).sum().backward()
    probs = F.softmax(logits.detach(), dim=2)
    # What a divergence to a distribution p that stays teaches logits of q is q - p.
    torch.testing.assert_close(logits.grad, 0.5 * (probs - probs.flip(0)))


def test_the_inner_projection_is_no_part_of_the_model():
    objective = Objective(new_model(), intermediate_layer=1)
    assert not any("intermediate" in name for name in objective.model.state_dict())
    assert [name for name in dict(objective.named_parameters()) if not name.startswith("model.")] == [
        "intermediate.weight",
        "intermediate.bias",
    ]


@pytest.mark.parametrize("layer", [3, 4])
def test_a_layer_that_is_not_before_the_last_is_refused(layer):
    with pytest.raises(ObjectiveError, match=f"is {layer}, but the encoder has 3 layers"):
        Objective(new_model(), intermediate_layer=layer)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_truncation_changes_no_output(bidirectional):
    model, (features, lengths, *_) = new_model(bidirectional=bidirectional), new_batch(40, 31)
    expected, _ = model(features, lengths)
    truncate_recurrence(model, 6)
    torch.testing.assert_close(model(features, lengths)[0], expected, atol=1e-6, rtol=1e-5)


def test_no_gradient_passes_a_cut():
    lstm = nn.LSTM(2, 3, batch_first=True)
    truncate_recurrence(lstm, 4)
    states = torch.randn(1, 10, 2, requires_grad=True)
    for frame, begin in ((3, 0), (4, 4), (7, 4), (9, 8)):
        states.grad = None
        lstm(states)[0][0, frame].sum().backward()
        reached = states.grad[0].abs().sum(1) > 0
        assert reached.tolist() == [begin <= t <= frame for t in range(10)]


def test_the_gradient_within_a_span_is_whole():
    torch.manual_seed(0)
    lstm = nn.LSTM(2, 3, batch_first=True)
    states = torch.randn(1, 10, 2)
    hidden = None
    parts = []
    for span in states.split(4, dim=1):  # written out
        output, hidden = lstm(span, hidden)
        hidden = tuple(h.detach() for h in hidden)
        parts.append(output)
    torch.cat(parts, 1).square().sum().backward()
    expected = [p.grad.clone() for p in lstm.parameters()]
    lstm.zero_grad()
    lstm(states)[0].square().sum().backward()
    whole = [p.grad.clone() for p in lstm.parameters()]
    for limit, reference in ((4, expected), (10, whole)):
        copy = nn.LSTM(2, 3, batch_first=True)
        copy.load_state_dict(lstm.state_dict())
        truncate_recurrence(copy, limit)
        copy(states)[0].square().sum().backward()
        for parameter, gradient in zip(copy.parameters(), reference, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-5)
    assert any(float((a - b).abs().max()) > 1e-3 for a, b in zip(expected, whole, strict=True))


def test_evaluation_is_not_truncated():
    lstm = nn.LSTM(2, 3, batch_first=True)
    truncate_recurrence(lstm, 4)
    lstm.eval()
    states = torch.randn(1, 10, 2, requires_grad=True)
    lstm(states)[0][0, 9].sum().backward()
    assert float(states.grad[0, 0].abs().sum()) > 0


@pytest.mark.parametrize(
    "keys", [{"cell": "peephole"}, {"zoneout": 0.1}, {"recurrent_dropout": 0.1}, {"kind": "tdnn"}]
)
def test_layers_that_cannot_be_truncated_are_refused(keys):
    with pytest.raises(ObjectiveError, match=r"training\.truncate_seconds"):
        truncate_recurrence(new_model(**keys), 6)
