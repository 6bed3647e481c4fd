"""Recurrent cells written out, and the scan that runs one over time.

The contract of every entry of ``CELLS``, which the tests run over all of them:

- ``project(inputs, lengths)`` does for all frames at once what does not depend on the frame before;
- ``initial_state(projected)`` is the state before the first frame;
- ``step(projected, state)`` is one frame: from the state before it, by name, to the state after it,
  ``hidden`` among its names, ``cell`` where there is one, and the gates that made them, each
  ``(batch, size)``.

``scan`` runs a cell over a padded batch in either direction. torch's fused kernels are faster for
the cells they know (``FUSED``). The cells written out here are the oracle for those kernels, show what
happens inside (``trace``), and are the only home of the cells and of the dropout that torch lacks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.features import length_mask, mask_padding

State = dict[str, Tensor]
EPSILON = 1e-5  # added to every variance that something is divided by


class Cell(nn.Module):
    """The base of every cell.

    ``carried`` names the parts of the state that the next frame sees. ``bands`` is the number of frequency
    bands that inputs and hidden states are divided into; only ``convlstm`` uses it.
    """

    carried: tuple[str, ...] = ("hidden",)

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__()
        self.input_size, self.size, self.bands = input_size, size, bands

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Do what needs no state for all frames: ``(batch, frames, input)`` to ``(batch, frames, any)``."""
        raise NotImplementedError

    def initial_state(self, projected: Tensor) -> State:
        """The state before the first frame: zeros, ``(batch, size)`` for each name in ``carried``."""
        return {name: projected.new_zeros(len(projected), self.size) for name in self.carried}

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        """Take one frame, ``(batch, any)`` of what ``project`` returns, to the state after it.

        ``keep``, ``(batch, size)``, multiplies the hidden state on its way into the products, and
        nowhere else: the recurrent half of Gal & Ghahramani's dropout (2016, equation 7).
        """
        raise NotImplementedError


def drop_hidden(state: State, keep: Tensor | None) -> Tensor:
    """The hidden state as the recurrent products see it, ``(batch, size)``."""
    return state["hidden"] if keep is None else state["hidden"] * keep


class MatrixCell(Cell):
    """A cell whose gates are ``W x + b + U h + b'``, with the names that torch gives the parameters."""

    gates: int  # rows of W and U per hidden unit

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        self.weight_ih = draw_uniform(self.gates * size, input_size, fan=size)
        self.weight_hh = draw_uniform(self.gates * size, size, fan=size)
        self.bias_ih = draw_uniform(self.gates * size, fan=size)
        self.bias_hh = nn.Parameter(torch.zeros(self.gates * size))

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return F.linear(inputs, self.weight_ih, self.bias_ih + self.bias_hh)

    def add_recurrence(self, projected: Tensor, state: State, keep: Tensor | None) -> tuple[Tensor, ...]:
        """Add the recurrent product to ``projected`` and split the sum by gate: ``(batch, size)``."""
        return torch.addmm(projected, drop_hidden(state, keep), self.weight_hh.t()).chunk(self.gates, 1)


def draw_uniform(*shape: int, fan: int) -> nn.Parameter:
    """Draw weights as torch does for its recurrent modules: uniform within ``1 / sqrt(fan)`` of zero.

    Biases, too: without them frames of zeros leave a state of exactly zero, and the layer normalisation of
    that multiplies gradients by ``1 / sqrt(EPSILON)``, layer upon layer.
    """
    bound = 1 / math.sqrt(fan)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class RNNCell(MatrixCell):
    """The simple recurrent network (Elman 1990; Graves, Mohamed & Hinton 2013, equation 1).

    ``h_t = tanh(W x_t + U h_{t-1} + b)``
    """

    gates = 1

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        (total,) = self.add_recurrence(projected, state, keep)
        return {"hidden": self.activation(total)}

    @staticmethod
    def activation(values: Tensor) -> Tensor:
        return torch.tanh(values)


class ReLURNNCell(RNNCell):
    """``RNNCell`` with ``max(0, .)`` for the hyperbolic tangent (Le, Jaitly & Hinton 2015).

    The paper initialises ``U`` with the identity; here it is drawn as in every other cell.
    """

    @staticmethod
    def activation(values: Tensor) -> Tensor:
        return torch.relu(values)


class GRUCell(MatrixCell):
    """The gated recurrent unit (Cho et al. 2014, equations 5 to 8), with the reset gate after the product.

    ::

        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
        z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + b'_n))
        h_t = z_t * h_{t-1} + (1 - z_t) * n_t

    The paper multiplies ``r_t`` into ``h_{t-1}`` before ``U_n``; cuDNN and torch do it after, so that one
    product serves all three gates. Rows are ordered reset, update, candidate.
    """

    gates = 3

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return F.linear(inputs, self.weight_ih, self.bias_ih)

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        recurrent = F.linear(drop_hidden(state, keep), self.weight_hh, self.bias_hh).chunk(3, 1)
        inputs = projected.chunk(3, 1)
        reset = torch.sigmoid(inputs[0] + recurrent[0])
        update = torch.sigmoid(inputs[1] + recurrent[1])
        candidate = torch.tanh(inputs[2] + reset * recurrent[2])
        hidden = torch.lerp(candidate, state["hidden"], update)
        return {"hidden": hidden, "reset": reset, "update": update, "candidate": candidate}


class LSTMCell(MatrixCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

    Graves, Mohamed & Hinton 2013, equations 3 to 7, without the peepholes::

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)
        f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)
        g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)
        o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)
        c_t = f_t * c_{t-1} + i_t * g_t
        h_t = o_t * tanh(c_t)

    Rows are ordered input, forget, candidate, output. Forget gates start open, with a bias of 1
    (Jozefowicz et al. 2015).
    """

    gates = 4
    carried = ("hidden", "cell")

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        open_forget_gates(self.bias_ih)

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        return step_lstm(self.add_recurrence(projected, state, keep), state["cell"])


def open_forget_gates(bias: Tensor) -> None:
    """Set the forget gates' biases, the second quarter of an LSTM's ``(4 * size,)``, to 1."""
    size = len(bias) // 4
    with torch.no_grad():
        bias[size : 2 * size] = 1.0


def step_lstm(sums: Sequence[Tensor], before: Tensor, peepholes: Sequence[Tensor] | None = None) -> State:
    """Apply the LSTM's equations to the sums that its four gates get, ``(batch, size)`` each.

    ``before`` is the cell state of the frame before. With ``peepholes``, one ``(size,)`` each for input,
    forget and output gate, the equations are those of ``PeepholeCell``.
    """
    into_input, into_forget, into_candidate, into_output = sums
    if peepholes is not None:
        into_input = into_input + peepholes[0] * before
        into_forget = into_forget + peepholes[1] * before
    entering, forget = torch.sigmoid(into_input), torch.sigmoid(into_forget)
    candidate = torch.tanh(into_candidate)
    cell = forget * before + entering * candidate
    if peepholes is not None:
        into_output = into_output + peepholes[2] * cell
    output = torch.sigmoid(into_output)
    hidden = output * torch.tanh(cell)
    gates = {"input": entering, "forget": forget, "candidate": candidate, "output": output}
    return {"hidden": hidden, "cell": cell, **gates}


class PeepholeCell(LSTMCell):
    """An LSTM whose gates see the cell (Gers & Schmidhuber 2000; Graves et al. 2013, equations 3 to 7).

    ::

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + p_i * c_{t-1} + b_i)
        f_t = sigmoid(W_f x_t + U_f h_{t-1} + p_f * c_{t-1} + b_f)
        c_t = f_t * c_{t-1} + i_t * tanh(W_g x_t + U_g h_{t-1} + b_g)
        o_t = sigmoid(W_o x_t + U_o h_{t-1} + p_o * c_t + b_o)
        h_t = o_t * tanh(c_t)

    ``peepholes`` is ``(3, size)``: input, forget, output. They start at zero, where this is an LSTM.
    """

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        self.peepholes = nn.Parameter(torch.zeros(3, size))

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        return step_lstm(self.add_recurrence(projected, state, keep), state["cell"], self.peepholes.unbind())


class CIFGCell(MatrixCell):
    """An LSTM that forgets exactly as much as it takes in (Greff et al. 2017, variant CIFG, no peepholes).

    ::

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)
        c_t = (1 - i_t) * c_{t-1} + i_t * tanh(W_g x_t + U_g h_{t-1} + b_g)
        o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)
        h_t = o_t * tanh(c_t)

    Rows are ordered input, candidate, output. Input gates start with a bias of -1, so that as much is
    kept as in an LSTM.
    """

    gates = 3
    carried = ("hidden", "cell")

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        with torch.no_grad():
            self.bias_ih[:size] = -1.0

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        into_input, into_candidate, into_output = self.add_recurrence(projected, state, keep)
        entering, output = torch.sigmoid(into_input), torch.sigmoid(into_output)
        candidate = torch.tanh(into_candidate)
        cell = torch.lerp(state["cell"], candidate, entering)
        gates = {"input": entering, "forget": 1 - entering, "candidate": candidate, "output": output}
        return {"hidden": output * torch.tanh(cell), "cell": cell, **gates}


class LayerNormLSTMCell(Cell):
    """An LSTM with layer normalisation (Ba, Kiros & Hinton 2016, equations 20 to 22).

    With ``N(v) = (v - mean(v)) / std(v)`` over the numbers of a vector::

        (i, f, g, o) = a_1 * N(U h_{t-1}) + a_2 * N(W x_t) + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(a_3 * N(c_t) + b_3)

    The paper's ``b_1`` and ``b_2`` are left out: they would only be added to ``b``.
    """

    carried = ("hidden", "cell")

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        self.weight_ih = draw_uniform(4 * size, input_size, fan=size)
        self.weight_hh = draw_uniform(4 * size, size, fan=size)
        self.bias = draw_uniform(4 * size, fan=size)
        self.gain_ih = nn.Parameter(torch.ones(4 * size))
        self.gain_hh = nn.Parameter(torch.ones(4 * size))
        self.gain_cell = nn.Parameter(torch.ones(size))
        self.bias_cell = nn.Parameter(torch.zeros(size))
        open_forget_gates(self.bias)

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        products = F.linear(inputs, self.weight_ih)
        return F.layer_norm(products, (4 * self.size,), self.gain_ih, self.bias, EPSILON)

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        products = F.linear(drop_hidden(state, keep), self.weight_hh)
        recurrent = F.layer_norm(products, (4 * self.size,), self.gain_hh, eps=EPSILON)
        after = step_lstm((projected + recurrent).chunk(4, 1), state["cell"])
        normed = F.layer_norm(after["cell"], (self.size,), self.gain_cell, self.bias_cell, EPSILON)
        return after | {"hidden": after["output"] * torch.tanh(normed)}


class LiGRUCell(Cell):
    """The light gated recurrent unit (Ravanelli et al. 2018, section III), made for speech.

    With ``B`` for batch normalisation over all frames of a batch (Ioffe & Szegedy 2015)::

        z_t = sigmoid(B(W_z x_t) + U_z h_{t-1})
        n_t = relu(B(W_n x_t) + U_n h_{t-1})
        h_t = z_t * h_{t-1} + (1 - z_t) * n_t

    Rows are ordered update, candidate. Padding is left out of the statistics. Evaluation uses the running
    statistics, as does a training batch of a single frame, which has no variance.
    """

    MOMENTUM = 0.1  # weight of a batch in the running statistics

    mean: Tensor
    variance: Tensor

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        self.weight_ih = draw_uniform(2 * size, input_size, fan=size)
        self.weight_hh = nn.Parameter(torch.cat([nn.init.orthogonal_(torch.empty(size, size)) for _ in "zn"]))
        self.gain = nn.Parameter(torch.ones(2 * size))
        self.bias = draw_uniform(2 * size, fan=size)
        self.register_buffer("mean", torch.zeros(2 * size))
        self.register_buffer("variance", torch.ones(2 * size))

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        products = F.linear(inputs, self.weight_ih)
        inside = length_mask(lengths, products.shape[1])
        frames = products[inside]
        normed = F.batch_norm(
            frames, self.mean, self.variance, self.gain, self.bias,
            self.training and len(frames) > 1, self.MOMENTUM, EPSILON,
        )  # fmt: skip
        return torch.zeros_like(products).masked_scatter(inside[..., None], normed.to(products))

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        sums = torch.addmm(projected, drop_hidden(state, keep), self.weight_hh.t())
        into_update, into_candidate = sums.chunk(2, 1)
        update, candidate = torch.sigmoid(into_update), torch.relu(into_candidate)
        hidden = torch.lerp(candidate, state["hidden"], update)
        return {"hidden": hidden, "update": update, "candidate": candidate}


class ConvLSTMCell(Cell):
    """An LSTM whose products are convolutions over frequency (Shi et al. 2015, equation 3).

    The equations are those of ``PeepholeCell`` with the matrix products replaced by convolutions over
    ``WIDTH`` neighbouring bands, with zeros beyond the lowest and the highest. Input and state of a frame
    are read as ``(channels, bands)``, channels first. ``peepholes`` is ``(3, size)``, one number for every
    channel in every band. Raises ``ValueError`` unless both sizes are multiples of ``bands``.
    """

    WIDTH = 3
    carried = ("hidden", "cell")

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        if input_size % bands or size % bands:
            raise ValueError(f"{input_size} inputs and {size} units do not both fall into {bands} bands")
        channels_in, channels = input_size // bands, size // bands
        fan = channels * self.WIDTH
        self.weight_ih = draw_uniform(4 * channels, channels_in, self.WIDTH, fan=fan)
        self.weight_hh = draw_uniform(4 * channels, channels, self.WIDTH, fan=fan)
        self.bias = draw_uniform(4 * channels, fan=fan)
        self.peepholes = nn.Parameter(torch.zeros(3, size))
        open_forget_gates(self.bias)

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        batch, frames, _ = inputs.shape
        products = self.convolve(inputs.flatten(0, 1), self.weight_ih, self.bias)
        return products.reshape(batch, frames, 4 * self.size)

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        sums = projected + self.convolve(drop_hidden(state, keep), self.weight_hh)
        return step_lstm(sums.chunk(4, 1), state["cell"], self.peepholes.unbind())

    def convolve(self, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve ``(rows, channels * bands)`` over the bands, to ``(rows, 4 * size)``."""
        maps = values.reshape(len(values), -1, self.bands)
        return F.conv1d(maps, weight, bias, padding=self.WIDTH // 2).flatten(1)


CELLS: dict[str, type[Cell]] = {
    "rnn": RNNCell,
    "rnn-relu": ReLURNNCell,
    "gru": GRUCell,
    "lstm": LSTMCell,
    "peephole": PeepholeCell,
    "lnlstm": LayerNormLSTMCell,
    "cifg": CIFGCell,
    "ligru": LiGRUCell,
    "convlstm": ConvLSTMCell,
}


# --- over time ------------------------------------------------------------------------------------


def scan(
    cell: Cell,
    inputs: Tensor,
    lengths: Tensor,
    reverse: bool = False,
    dropout: float = 0.0,
    zoneout: float = 0.0,
) -> Tensor:
    """The hidden states of a cell over a padded batch, ``(batch, frames, size)``, zero beyond the lengths.

    Args:
        inputs: ``(batch, frames, input)``, at least one frame, anything beyond the lengths.
        lengths: ``(batch,)`` integer, frames per utterance.
        reverse: read each utterance from its own last frame to its first; the result stays in
            the order of the input.
        dropout: in training, the share of hidden units that the recurrent products do not see,
            the same ones in all frames of an utterance (Gal & Ghahramani 2016, equation 7).
        zoneout: in training, the share of units that keep their value, drawn anew for every frame;
            in evaluation every unit moves by the rest only (Krueger et al. 2017, equation 6).

    The recurrence runs in the precision of the weights, under autocast too: it adds up over
    hundreds of frames what bfloat16 would round away. torch raises ``RuntimeError`` for inputs of
    another size than the cell's and for a batch without a frame.
    """
    return scan_states(cell, inputs, lengths, reverse, dropout, zoneout, names=("hidden",))["hidden"]


def trace(cell: Cell, inputs: Tensor, lengths: Tensor, reverse: bool = False, zoneout: float = 0.0) -> State:
    """As ``scan``, but every part of the state: hidden state, cell and gates by name.

    Each is ``(batch, frames, size)``. There is no dropout.
    """
    return scan_states(cell, inputs, lengths, reverse, zoneout=zoneout)


def scan_states(
    cell: Cell,
    inputs: Tensor,
    lengths: Tensor,
    reverse: bool = False,
    dropout: float = 0.0,
    zoneout: float = 0.0,
    names: Iterable[str] | None = None,
) -> State:
    """Run ``cell`` over a batch and return the states called ``names`` (``None``: all of them).

    Each is ``(batch, frames, size)``, zero beyond the lengths.
    """
    inputs = mask_padding(inputs, lengths)
    if reverse:
        inputs = reverse_frames(inputs, lengths)
    projected = cell.project(inputs, lengths)
    with torch.autocast(inputs.device.type, enabled=False):
        projected = projected.to(next(cell.parameters()).dtype)
        states, _ = unroll(cell, projected, dropout, zoneout, names)
    if reverse:
        states = {name: reverse_frames(values, lengths) for name, values in states.items()}
    return {name: mask_padding(values, lengths) for name, values in states.items()}


def unroll(
    cell: Cell,
    projected: Tensor,
    dropout: float,
    zoneout: float,
    names: Iterable[str] | None,
    before: State | None = None,
) -> tuple[State, State]:
    """Take one ``step`` after another from the state ``before``, or from the initial one.

    Returns the states called ``names``, ``(batch, frames, size)`` each, and the last one.
    """
    keep = draw_dropout_mask(projected, cell.size, dropout) if cell.training and dropout else None
    state = before or cell.initial_state(projected)
    states = []
    # Frames come from one unbind: the gradient of an index has the size of the indexed tensor, so
    # indexing would make the time of a backward pass grow with the square of the frames.
    for frame in projected.unbind(1):
        after = cell.step(frame, state, keep)
        if zoneout:
            for name in cell.carried:
                after[name] = apply_zoneout(state[name], after[name], zoneout, cell.training)
        state = after
        states.append({name: state[name] for name in names or state})
    return {name: torch.stack([state[name] for state in states], 1) for name in states[0]}, state


def advance_cell(
    layer: nn.RNNBase | Cell, inputs: Tensor, before: State, zoneout: float = 0.0
) -> tuple[Tensor, State]:
    """Read the next frames of utterances, ``(batch, frames, input)``, as many of each, from the start.

    ``before`` is what was carried out of the frames before, nothing at the beginning. Returns the hidden
    states, ``(batch, frames, size)``, and what is carried on.
    """
    if not inputs.shape[1]:
        size = layer.hidden_size if isinstance(layer, nn.RNNBase) else layer.size
        return inputs.new_zeros(len(inputs), 0, size), before
    if isinstance(layer, nn.RNNBase) and not zoneout:
        carried = [before[name][None].contiguous() for name in ("hidden", "cell") if name in before]
        given = None if not carried else tuple(carried) if len(carried) == 2 else carried[0]
        hidden, after = layer(inputs, given)
        parts = after if isinstance(after, tuple) else (after,)
        return hidden, {name: part[0] for name, part in zip(("hidden", "cell"), parts, strict=False)}
    cell = unfuse(layer) if isinstance(layer, nn.RNNBase) else layer
    lengths = torch.full((len(inputs),), inputs.shape[1], device=inputs.device)
    projected = cell.project(inputs, lengths)
    with torch.autocast(inputs.device.type, enabled=False):
        projected = projected.to(next(cell.parameters()).dtype)
        states, state = unroll(cell, projected, 0.0, zoneout, ("hidden",), before or None)
    return states["hidden"], {name: state[name] for name in cell.carried}


def apply_zoneout(before: Tensor, after: Tensor, zoneout: float, training: bool) -> Tensor:
    """Let part of a state keep its value (zoneout, Krueger et al. 2017), ``(batch, size)``.

    ``s_t = d_t * s_{t-1} + (1 - d_t) * s'_t`` for hidden and cell states alike: in training ``d_t`` is 1
    with probability ``zoneout`` and else 0, in evaluation it is ``zoneout`` itself.
    """
    if not training:
        return torch.lerp(after, before, zoneout)
    return torch.where(torch.rand_like(after) < zoneout, before, after)


def draw_dropout_mask(like: Tensor, size: int, dropout: float) -> Tensor:
    """Draw dropout's factors for a batch, ``(batch, size)``: 0, or ``1 / (1 - dropout)``."""
    return F.dropout(like.new_ones(len(like), size), dropout)


def reverse_frames(states: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the order of each utterance's own frames in ``(batch, frames, size)``; its own inverse."""
    times = torch.arange(states.shape[1], device=states.device)[None]
    inside = length_mask(lengths, states.shape[1])
    index = torch.where(inside, lengths[:, None] - 1 - times, times)
    return states.gather(1, index[..., None].expand_as(states))


# --- torch's fused kernels ------------------------------------------------------------------------


def new_fused(name: str, input_size: int, size: int) -> nn.RNNBase:
    """torch's module for a cell in ``FUSED``, with initial weights drawn as in the written-out cell."""
    kinds = {"rnn": nn.RNN, "rnn-relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
    options = {"nonlinearity": "relu"} if name == "rnn-relu" else {}
    fused = kinds[name](input_size, size, batch_first=True, **options)
    nn.init.zeros_(fused.bias_hh_l0)
    if name == "lstm":
        open_forget_gates(fused.bias_ih_l0)
    return fused


def unfuse(fused: nn.RNNBase) -> Cell:
    """The written-out cell of one of torch's modules with one layer and one direction.

    Its parameters are the module's own, not copies.
    """
    name = {"RNN_TANH": "rnn", "RNN_RELU": "rnn-relu"}.get(fused.mode, fused.mode.lower())
    with torch.device("meta"):
        cell = CELLS[name](fused.input_size, fused.hidden_size)
    for parameter in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, parameter, fused.get_parameter(f"{parameter}_l0"))
    return cell.train(fused.training)


FUSED = ("rnn", "rnn-relu", "gru", "lstm")
