"""Every cell against an oracle, alone and in a batch, and its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asr.model.cells import CELLS, FUSED, new_fused, reverse_frames, scan, trace, unfuse
from tests import reference

INPUT, SIZE, BANDS = 6, 4, 2


def built(name: str, randomly: bool = True):
    """A cell in float64, all of its parameters drawn, so that none is at a special value."""
    torch.manual_seed(0)
    cell = CELLS[name](INPUT, SIZE, BANDS).double()
    if randomly:
        for parameter in cell.parameters():
            nn.init.normal_(parameter, std=0.6)
    return cell


def batch(frames: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, frames, INPUT, dtype=torch.float64), torch.tensor([frames, 1, frames - 2])


every_cell = pytest.mark.parametrize("name", CELLS)
either_way = pytest.mark.parametrize("reverse", [False, True], ids=["ahead", "back"])


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("frames", [1, 2, 30])
def test_a_cell_is_torchs_fused_one(name, frames):
    fused = new_fused(name, INPUT, SIZE).double()
    for parameter in fused.parameters():
        nn.init.normal_(parameter, std=0.6)
    inputs = torch.randn(3, frames, INPUT, dtype=torch.float64)
    hidden = scan(unfuse(fused), inputs, torch.full((3,), frames))
    torch.testing.assert_close(hidden, fused(inputs)[0], atol=1e-6, rtol=0)
    weights = torch.randn_like(hidden)
    for ours, theirs in zip(
        torch.autograd.grad((hidden * weights).sum(), list(fused.parameters())),
        torch.autograd.grad((fused(inputs)[0] * weights).sum(), list(fused.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", sorted(set(CELLS) - set(FUSED)))
def test_a_cell_torch_does_not_know_is_what_its_paper_says(name):
    cell = built(name).eval()
    if name == "ligru":
        nn.init.normal_(cell.mean)
        nn.init.uniform_(cell.variance, 0.5, 2.0)
    inputs, _ = batch(5)
    hidden = scan(cell, inputs[:1], torch.tensor([5]))
    weights = {key: value.numpy() for key, value in cell.state_dict().items()}
    expected = reference.RECURRENCES[name](inputs[0].numpy(), weights)
    np.testing.assert_allclose(hidden[0].detach().numpy(), expected, atol=1e-9, rtol=0)


def test_every_cell_has_an_oracle():
    assert set(CELLS) == set(FUSED) | set(reference.RECURRENCES)


@every_cell
@either_way
def test_alone_is_as_in_a_batch_whatever_the_padding(name, reverse):
    cell = built(name).eval()
    inputs, lengths = batch()
    for row, length in zip(inputs, lengths, strict=True):
        row[length:] = 1e4
    together = scan(cell, inputs, lengths, reverse)
    for row, states, length in zip(inputs, together, lengths.tolist(), strict=True):
        alone = scan(cell, row[None, :length], torch.tensor([length]), reverse)
        torch.testing.assert_close(states[:length], alone[0], atol=1e-12, rtol=0)
        assert (states[length:] == 0).all()


@every_cell
def test_the_gradient_is_that_of_finite_differences(name):
    cell = built(name)
    inputs, lengths = batch(4)
    names, parameters = zip(*cell.named_parameters(), strict=True)

    def states(values: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        replaced = {f"cell.{name}": tensor for name, tensor in zip(names, tensors, strict=True)}
        return torch.func.functional_call(BackwardScan(cell), replaced, (values, lengths))

    assert torch.autograd.gradcheck(states, (inputs.requires_grad_(), *parameters))


class BackwardScan(nn.Module):
    """A cell's scan from the end to the start as a module, for ``functional_call``."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return scan(self.cell, inputs, lengths, reverse=True)


@every_cell
def test_every_parameter_gets_a_gradient(name):
    cell = built(name, randomly=False)
    scan(cell, *batch()).square().sum().backward()
    for key, parameter in cell.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@every_cell
def test_backwards_is_forwards_on_what_is_turned_round(name):
    cell = built(name).eval()
    inputs, lengths = batch()
    back = scan(cell, inputs, lengths, reverse=True)
    ahead = scan(cell, reverse_frames(inputs, lengths), lengths)
    torch.testing.assert_close(reverse_frames(back, lengths), ahead, atol=0, rtol=0)


@every_cell
def test_what_is_traced_is_what_is_scanned(name):
    cell = built(name).eval()
    inputs, lengths = batch()
    states = trace(cell, inputs, lengths, reverse=True)
    torch.testing.assert_close(states["hidden"], scan(cell, inputs, lengths, reverse=True), atol=0, rtol=0)
    assert set(cell.carried) <= set(states)
    for gate in {"input", "forget", "output", "reset", "update"} & set(states):
        assert ((states[gate] >= 0) & (states[gate] <= 1)).all()
    for values in states.values():
        assert values.shape == (3, 7, SIZE)
        assert (values[1, 1:] == 0).all()


def test_an_lstms_equations_hold_between_what_is_traced():
    cell = built("lstm")
    states = trace(cell, *batch())
    before = torch.cat([torch.zeros(3, 1, SIZE), states["cell"][:, :-1]], 1)
    lengths = batch()[1]
    after = states["forget"] * before + states["input"] * states["candidate"]
    for i, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(states["cell"][i, :length], after[i, :length], atol=1e-12, rtol=0)


def test_without_its_peepholes_it_is_an_lstm():
    lstm, peephole = built("lstm"), built("peephole")
    peephole.load_state_dict(lstm.state_dict(), strict=False)
    assert not torch.allclose(scan(peephole, *batch()), scan(lstm, *batch()))
    nn.init.zeros_(peephole.peepholes)
    torch.testing.assert_close(scan(peephole, *batch()), scan(lstm, *batch()), atol=1e-12, rtol=0)


def test_a_convolution_over_one_band_is_a_peephole_lstm():
    torch.manual_seed(0)
    conv, peephole = CELLS["convlstm"](INPUT, SIZE, 1).double(), built("peephole")
    with torch.no_grad():
        conv.weight_ih[..., 1] = peephole.weight_ih
        conv.weight_hh[..., 1] = peephole.weight_hh
        conv.bias.copy_(peephole.bias_ih + peephole.bias_hh)
        conv.peepholes.copy_(peephole.peepholes)
    torch.testing.assert_close(scan(conv, *batch()), scan(peephole, *batch()), atol=1e-12, rtol=0)


def test_bands_that_do_not_divide_the_sizes_are_refused():
    with pytest.raises(ValueError, match="bands"):
        CELLS["convlstm"](INPUT, SIZE, 4)


@pytest.mark.parametrize("name", ["lstm", "peephole", "lnlstm", "convlstm", "cifg"])
def test_forget_gates_begin_open(name):
    cell = CELLS[name](INPUT, SIZE, BANDS)
    silence = torch.zeros(1, 1, INPUT)
    forget = trace(cell, silence, torch.tensor([1]))["forget"]
    torch.testing.assert_close(forget, torch.full_like(forget, 0.7310586), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "peephole", "cifg"])
def test_matrices_begin_as_torchs_do(name):
    """Uniform within one over the root of the hidden size, right up to it."""
    cell = CELLS[name](64, 64)
    for matrix in (cell.weight_ih, cell.weight_hh):
        assert 0.99 / 8 < matrix.abs().max() <= 1 / 8


def test_fused_forget_gates_begin_open():
    lstm = new_fused("lstm", INPUT, SIZE)
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()
    assert bias[4:8].tolist() == [1.0] * 4
    for quarter in (bias[:4], bias[8:12], bias[12:]):
        assert 0 < quarter.abs().max() <= 0.5


def test_what_is_written_out_shares_its_parameters():
    fused = new_fused("gru", INPUT, SIZE)
    ours = {id(parameter) for parameter in unfuse(fused).parameters()}
    assert ours == {id(parameter) for parameter in fused.parameters()}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_turning_round_is_its_own_inverse_and_leaves_the_padding(lengths):
    frames = max(lengths)
    states = torch.arange(len(lengths) * frames, dtype=torch.float64).reshape(len(lengths), frames, 1)
    turned = reverse_frames(states, torch.tensor(lengths))
    torch.testing.assert_close(reverse_frames(turned, torch.tensor(lengths)), states)
    for row, before, length in zip(turned[..., 0], states[..., 0], lengths, strict=True):
        assert row[:length].tolist() == before[:length].tolist()[::-1]
        assert row[length:].tolist() == before[length:].tolist()


# --- dropout --------------------------------------------------------------------------------------


@every_cell
def test_recurrent_dropout_hears_the_same_units_in_every_frame(name):
    cell = built(name)
    inputs, lengths = batch()
    torch.manual_seed(2)
    keep = torch.nn.functional.dropout(torch.ones(3, SIZE, dtype=torch.float64), 0.5)
    torch.manual_seed(2)
    dropped = scan(cell, inputs, lengths, dropout=0.5)
    projected = cell.project(inputs, lengths)
    state = cell.initial_state(projected)
    for t, frame in enumerate(projected.unbind(1)):
        state = cell.step(frame, state, keep)
        heard = lengths > t
        torch.testing.assert_close(dropped[heard, t], state["hidden"][heard], atol=1e-12, rtol=0)
    assert not torch.allclose(dropped, scan(cell, inputs, lengths))


@pytest.mark.parametrize(("name", "gate"), [("gru", 1), ("ligru", 0)])
def test_what_an_update_gate_keeps_is_kept_whatever_is_dropped(name, gate):
    """Dropout is of what the products hear; a state that is only carried on loses nothing by it."""
    cell = built(name).eval()
    projected = torch.zeros(1, cell.weight_hh.shape[0], dtype=torch.float64)
    projected[:, gate * SIZE : (gate + 1) * SIZE] = 100.0  # the gate is shut
    state = cell.initial_state(projected[:, None]) | {"hidden": torch.ones(1, SIZE, dtype=torch.float64)}
    after = cell.step(projected, state, torch.zeros(1, SIZE, dtype=torch.float64))
    torch.testing.assert_close(after["hidden"], state["hidden"], atol=1e-12, rtol=0)


@every_cell
def test_dropout_is_over_in_evaluation(name):
    cell = built(name).eval()
    inputs, lengths = batch()
    torch.testing.assert_close(
        scan(cell, inputs, lengths, dropout=0.5), scan(cell, inputs, lengths), atol=0, rtol=0
    )


@every_cell
def test_zoneout_keeps_that_share_of_the_units(name):
    cell = built(name)
    inputs = torch.randn(8, 40, INPUT, dtype=torch.float64)
    hidden = scan(cell, inputs, torch.full((8,), 40), zoneout=0.25)
    kept = (hidden[:, 1:] == hidden[:, :-1]) & (hidden[:, 1:] != 0)
    moved = hidden[:, 1:] != 0
    assert 0.2 < float(kept.sum() / moved.sum()) < 0.3


@every_cell
def test_zoneout_in_evaluation_moves_everything_by_the_rest(name):
    cell = built(name).eval()
    inputs, lengths = batch()
    hidden = scan(cell, inputs, lengths, zoneout=0.25)
    first = cell.step(cell.project(inputs, lengths)[:, 0], cell.initial_state(inputs))
    torch.testing.assert_close(hidden[:, 0], 0.75 * first["hidden"], atol=1e-12, rtol=0)
    torch.testing.assert_close(hidden, scan(cell, inputs, lengths, zoneout=0.25), atol=0, rtol=0)


@pytest.mark.parametrize("name", [name for name in CELLS if "cell" in CELLS[name].carried])
def test_zoneout_is_of_the_cell_too(name):
    """Krueger et al. (2017) zone out both; evaluation takes the mean of staying and moving on."""
    cell = built(name).eval()
    inputs, lengths = batch()
    traced = trace(cell, inputs, lengths, zoneout=0.25)
    projected = cell.project(inputs, lengths)
    state = cell.initial_state(projected)
    for t, frame in enumerate(projected.unbind(1)):
        after = cell.step(frame, state)
        state = {key: 0.25 * state[key] + 0.75 * after[key] for key in cell.carried}
        torch.testing.assert_close(traced["cell"][0, t], state["cell"][0], atol=1e-12, rtol=0)
        torch.testing.assert_close(traced["hidden"][0, t], state["hidden"][0], atol=1e-12, rtol=0)


# --- particular to one ----------------------------------------------------------------------------


def test_padding_is_in_nobodys_statistics():
    cell = built("ligru", randomly=False)
    inputs, lengths = batch()
    scan(cell, inputs, lengths)
    frames = torch.cat([row[:length] for row, length in zip(inputs, lengths.tolist(), strict=True)])
    products = frames @ cell.weight_ih.T
    torch.testing.assert_close(cell.mean, 0.1 * products.mean(0).detach(), atol=1e-12, rtol=0)
    torch.testing.assert_close(cell.variance, 0.9 + 0.1 * products.var(0).detach(), atol=1e-12, rtol=0)


def test_a_light_grus_recurrent_matrices_begin_orthogonal():
    """One for each gate (Ravanelli et al. 2018)."""
    for matrix in CELLS["ligru"](INPUT, SIZE).weight_hh.chunk(2):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(SIZE), atol=1e-6, rtol=0)


def test_a_single_frame_is_no_statistic():
    cell = built("ligru", randomly=False)
    hidden = scan(cell, torch.randn(1, 1, INPUT, dtype=torch.float64), torch.tensor([1]))
    assert hidden.isfinite().all()
    assert (cell.mean == 0).all()
    assert (cell.variance == 1).all()


@every_cell
def test_autocast_leaves_the_recurrence_in_the_weights_precision(name):
    cell = CELLS[name](INPUT, SIZE, BANDS)
    inputs, lengths = torch.randn(3, 7, INPUT), batch()[1]
    with torch.autocast("cpu", torch.bfloat16):
        hidden = scan(cell, inputs, lengths)
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, scan(cell, inputs, lengths), atol=0.05, rtol=0)
