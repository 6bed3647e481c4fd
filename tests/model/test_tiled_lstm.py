"""The LSTM in tile registers is torch's LSTM, but for bfloat16's rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from asr.core.compiled import compile_vectorised
from asr.core.tiles import has_tiles
from asr.model.encoders import ENCODERS, EncoderConfig, RecurrentLayer
from asr.model.features import length_mask
from asr.model.tiled_lstm import run_tiled_lstm, sigmoid, tanh

tiles = pytest.mark.skipif(not has_tiles(), reason="the processor has no tiles")
# Errors are lengths of the difference as a share of the length of the float64 result. bfloat16 rounds by
# at most 1/256; over these shapes 0.003 were measured for outputs and 0.005 for gradients, and for torch's
# own bfloat16 LSTM 0.0035 and 0.0055.
OUTPUT_ERROR, GRADIENT_ERROR = 0.005, 0.01
SHAPES = [(3, 7, 20, 32, True), (12, 30, 64, 96, True), (5, 33, 100, 64, False), (19, 12, 64, 64, True),
          (1, 1, 32, 32, True), (35, 9, 33, 64, True)]  # fmt: skip


def new_layer(size: int, inputs: int, both: bool) -> RecurrentLayer:
    torch.manual_seed(0)
    return RecurrentLayer(EncoderConfig(layers=1, size=size, bidirectional=both), inputs, 1)


def new_batch(batch: int, frames: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs with NaN in the padding, lengths, and which frames there are."""
    torch.manual_seed(1)
    lengths = torch.randint(0, frames + 1, (batch,))
    lengths[0] = frames
    inside = length_mask(lengths, frames)[..., None]
    return torch.where(inside, torch.randn(batch, frames, inputs), torch.nan), lengths, inside


def run(layer, states, lengths, inside, dtype=torch.float32, precision=torch.float32):
    """The output and all gradients of a loss that weighs every output differently."""
    layer = layer.to(dtype)
    layer.zero_grad(set_to_none=True)
    states = torch.where(inside, states, 0).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        output = layer(states, lengths)
    output = torch.where(inside, output, 0)
    torch.manual_seed(2)
    (output.to(dtype) * torch.randn(output.shape, dtype=torch.float64).to(dtype)).sum().backward()
    return [output.detach(), states.grad] + [p.grad.clone() for p in layer.parameters()]


def error(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.double() - right.double()).norm() / right.double().norm().clamp(min=1e-30))


@tiles
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients_are_those_of_torch(shape):
    batch, frames, inputs, size, both = shape
    arguments = new_batch(batch, frames, inputs)
    found = run(new_layer(size, inputs, both), *arguments, precision=torch.bfloat16)
    right = run(new_layer(size, inputs, both), *arguments, dtype=torch.float64)
    assert found[0].dtype == torch.bfloat16
    assert error(found[0], right[0]) < OUTPUT_ERROR
    for mine, torchs in zip(found[1:], right[1:], strict=True):
        assert mine.shape == torchs.shape
        assert error(mine, torchs) < GRADIENT_ERROR


@tiles
def test_it_is_no_less_exact_than_torch_in_bfloat16(monkeypatch):
    arguments = new_batch(12, 60, 64)
    right = run(new_layer(64, 64, True), *arguments, dtype=torch.float64)
    mine = run(new_layer(64, 64, True), *arguments, precision=torch.bfloat16)
    monkeypatch.setattr(RecurrentLayer, "can_use_tiles", lambda *_: False)
    torchs = run(new_layer(64, 64, True), *arguments, precision=torch.bfloat16)
    assert all(error(a, r) < 1.1 * error(b, r) for a, b, r in zip(mine, torchs, right, strict=True))


@tiles
def test_padding_reaches_nothing_and_gets_no_gradient():
    layer = new_layer(32, 20, True)
    states, lengths, inside = new_batch(6, 15, 20)
    states.requires_grad_()
    output = run_tiled_lstm(states, lengths, layer.directions)
    assert not output[~inside[..., 0]].any()
    output.float().sum().backward()
    assert not states.grad[~inside[..., 0]].any()
    assert states.grad[inside[..., 0]].isfinite().all()
    for row, length in enumerate(lengths.tolist()):
        if length:
            alone = run_tiled_lstm(states[row : row + 1, :length], lengths[row : row + 1], layer.directions)
            assert torch.equal(alone[0], output[row, :length])


@tiles
def test_it_repeats_to_the_bit_with_one_thread_and_two():
    arguments = new_batch(7, 40, 48)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            results.append(run(new_layer(64, 48, True), *arguments, precision=torch.bfloat16))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@tiles
def test_what_is_not_a_number_stays_so():
    layer = new_layer(32, 32, False)
    states = torch.zeros(1, 3, 32)
    states[0, 1, 0] = torch.nan
    output = run_tiled_lstm(states, torch.tensor([3]), layer.directions)
    assert output[0, 0].isfinite().all()
    assert output[0, 1:].isnan().all()


@tiles
@pytest.mark.parametrize(
    ("change", "uses"),
    [
        ({}, True),
        ({"bidirectional": False}, True),
        ({"cell": "gru"}, False),
        ({"cell": "peephole"}, False),
        ({"size": 48}, False),
        ({"zoneout": 0.1}, False),
        ({"recurrent_dropout": 0.1}, False),
    ],
    ids=str,
)
def test_only_training_in_bfloat16_of_plain_lstms_uses_it(change, uses):
    layer = RecurrentLayer(EncoderConfig(**{"layers": 1, "size": 32} | change), 8, 1)
    states = torch.zeros(1, 2, 8)
    assert not layer.can_use_tiles(states)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.can_use_tiles(states) == uses
        with torch.no_grad():
            assert not layer.can_use_tiles(states)
        assert not layer.eval().can_use_tiles(states)


@tiles
def test_an_encoder_learns_with_it():
    torch.manual_seed(0)
    encoder = ENCODERS["recurrent"](EncoderConfig(layers=2, size=32, residual=True), 8, 1)
    head = torch.nn.Linear(64, 2)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-2)
    states, lengths = torch.randn(4, 20, 8), torch.tensor([20, 15, 20, 3])
    # Which of two frames, three steps ago and now, is the higher: what only a state can tell.
    targets = (states[..., 0] > states[..., 0].roll(3, 1)).long()
    for _ in range(60):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = encoder(states, lengths)
            scores = head(output).float()
        inside = length_mask(lengths, 20)
        loss = torch.nn.functional.cross_entropy(scores[inside], targets[inside])
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_sigmoid_and_tanh_are_exact_to_float32():
    numbers = np.concatenate([np.linspace(-30, 30, 20001), [-1e9, -100, 100, 1e9]]).astype(np.float32)
    found = np.zeros((2, len(numbers)), np.float32)
    _bend(numbers, found[0], found[1])
    exact = numbers.astype(np.float64)
    with np.errstate(over="ignore"):
        assert np.abs(found[0] - 1 / (1 + np.exp(-exact))).max() < 3e-7
    assert np.abs(found[1] - np.tanh(exact)).max() < 3e-7


@compile_vectorised
def _bend(numbers, one, other):
    for n in range(len(numbers)):
        one[n] = sigmoid(numbers[n])
        other[n] = tanh(numbers[n])
