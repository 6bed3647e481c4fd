"""Optimisers against their equations, schedules, clipping, averages; and that a recipe can choose them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from asr.core.config import from_table
from asr.training.experiment import Experiment, TrainingConfig
from asr.training.optimisation import (
    OPTIMISERS,
    SCHEDULES,
    average_weights,
    clip_gradients,
    compute_learning_rate,
    gradient_norms,
    layer_name,
    new_optimizer,
    optimizer_tensors,
    replace_weights,
    restore_optimizer,
    update_averages,
)
from tests.reference import optimise


class Small(nn.Module):
    """A matrix, a bias and a norm: what decays and what does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 2), nn.LayerNorm(2)])


def config(**keys) -> TrainingConfig:
    """As a recipe says it."""
    return from_table(Experiment, {"training": keys}).training


def updated(module: nn.Module, settings: TrainingConfig, gradients: list[np.ndarray]) -> None:
    optimizer = new_optimizer(module, settings)
    for gradient in gradients:
        module.layers[0].weight.grad = torch.from_numpy(gradient).float()
        for vector in (module.layers[0].bias, *module.layers[1].parameters()):
            vector.grad = torch.zeros_like(vector)
        optimizer.step()


@pytest.mark.parametrize("kind", sorted(OPTIMISERS))
@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_optimisers_follow_their_equations(kind, momentum):
    torch.manual_seed(0)
    module, random = Small(), np.random.default_rng(1)
    gradients = [random.standard_normal((2, 3)) for _ in range(5)]
    before = module.layers[0].weight.detach().numpy().copy()
    settings = config(optimiser=kind, learning_rate=0.01, weight_decay=0.1, momentum=momentum)
    updated(module, settings, gradients)
    expected = optimise(kind, before, gradients, 0.01, 0.1, momentum)
    np.testing.assert_allclose(module.layers[0].weight.detach().numpy(), expected, atol=1e-6)
    assert np.abs(expected - before).max() > 1e-3


@pytest.mark.parametrize("kind", sorted(OPTIMISERS))
def test_only_matrices_decay(kind):
    torch.manual_seed(0)
    module = Small()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    updated(module, config(optimiser=kind, weight_decay=0.5), [np.zeros((2, 3))])
    after = dict(module.named_parameters())
    assert (after["layers.0.weight"].abs() < before["layers.0.weight"].abs()).all()
    for name in ("layers.0.bias", "layers.1.weight", "layers.1.bias"):
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize("kind", sorted(OPTIMISERS))
def test_an_optimiser_goes_on_where_its_tensors_were_taken(kind):
    random = np.random.default_rng(1)
    gradients = [random.standard_normal((2, 3)) for _ in range(4)]
    settings = config(optimiser=kind)
    torch.manual_seed(0)
    whole, parted = Small(), Small()
    parted.load_state_dict(whole.state_dict())
    updated(whole, settings, gradients)
    first = new_optimizer(parted, settings)
    for optimizer, some in ((first, gradients[:2]), (None, gradients[2:])):
        if optimizer is None:
            optimizer = new_optimizer(parted, settings)
            restore_optimizer(optimizer, optimizer_tensors(first))
        for gradient in some:
            for p in parted.parameters():
                p.grad = torch.zeros_like(p)
            parted.layers[0].weight.grad = torch.from_numpy(gradient).float()
            optimizer.step()
    assert torch.equal(whole.layers[0].weight, parted.layers[0].weight)


def rates(**keys) -> list[float]:
    settings = config(learning_rate=1.0, warmup_steps=10, **keys)
    return [compute_learning_rate(step, 110, settings) for step in range(110)]


def test_the_warm_up_rises_in_a_line():
    for schedule in ("cosine", "constant"):
        assert rates(schedule=schedule)[:10] == pytest.approx([0.1 * (s + 1) for s in range(10)])


def test_cosine_falls_to_nothing():
    cosine = rates()  # the default
    assert cosine[10] == 1.0
    assert cosine[60] == pytest.approx(0.5)
    assert 0 < cosine[109] < 0.001


def test_constant_stays():
    assert rates(schedule="constant")[10:] == [1.0] * 100
    assert compute_learning_rate(0, 10, config(schedule="constant", warmup_steps=0, learning_rate=0.3)) == 0.3


def test_one_cycle_rises_for_three_tenths_and_falls_to_nothing():
    cycle = rates(schedule="onecycle")
    assert cycle[0] == pytest.approx(1 / 25)
    assert cycle.index(max(cycle)) == 33
    assert cycle[33] == 1.0
    assert cycle[33 // 2] == pytest.approx(0.5, abs=0.05)
    assert all(left < right for left, right in pairwise(cycle[:34]))
    assert all(left > right for left, right in pairwise(cycle[33:]))
    assert cycle[-1] < 0.001


def test_every_choice_of_the_recipe_is_there():
    for kind in OPTIMISERS:
        assert config(optimiser=kind).optimiser == kind
    for schedule in SCHEDULES:
        assert config(schedule=schedule).schedule == schedule


def with_gradients(*values: float) -> list[nn.Parameter]:
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return [parameter]


def test_clipping_by_norm_shortens_and_keeps_the_direction():
    parameters = with_gradients(3.0, 4.0)
    assert clip_gradients(parameters, config(clip_norm=1.0)) == pytest.approx(5.0)
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)


def test_gradients_within_bounds_are_left_alone():
    parameters = with_gradients(3.0, 4.0)
    clip_gradients(parameters, config(clip_norm=0.0))
    assert parameters[0].grad.tolist() == [3.0, 4.0]
    assert math.isinf(clip_gradients(with_gradients(math.inf, 1.0), config()))


def test_gradient_norms_are_of_layers():
    module = Small()
    for number, p in enumerate(module.parameters(), start=1):
        p.grad = torch.full_like(p, float(number))
    assert gradient_norms(module) == pytest.approx(
        {"layers.0": (6 * 1 + 2 * 4) ** 0.5, "layers.1": (2 * 9 + 2 * 16) ** 0.5}
    )
    assert layer_name("model.encoder.layers.2.ahead.weight_ih_l0") == "model.encoder.layers.2"
    assert layer_name("model.projection.bias") == "model.projection"


def test_averages_follow_the_weights_by_their_decay():
    module = nn.Linear(1, 1, bias=False)
    averages = {"weight": torch.zeros(1, 1)}
    expected, path = 0.0, np.random.default_rng(0).standard_normal(400)
    for updates, value in enumerate(path):
        module.weight.data.fill_(value)
        update_averages(averages, module, 0.98, updates)
        decay = min(0.98, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * value
    assert float(averages["weight"]) == pytest.approx(expected, abs=1e-6)
    tail = sum(0.02 * 0.98**age * value for age, value in enumerate(path[::-1]))
    assert float(averages["weight"]) == pytest.approx(tail, abs=0.01)  # by then the start is forgotten


def test_weights_are_replaced_only_within_the_block():
    module = nn.Linear(2, 1)
    before = module.weight.detach().clone()
    with replace_weights(module, {"weight": torch.ones(1, 2)}):
        assert module.weight.tolist() == [[1.0, 1.0]]
    assert torch.equal(module.weight, before)


def test_the_mean_of_weights_leaves_counts_alone():
    one = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    other = {"w": torch.tensor([2.0, 6.0]), "n": torch.tensor(5)}
    mean = average_weights([one, other])
    assert mean["w"].tolist() == [1.5, 4.0]
    assert mean["n"].item() == 3
