"""Recurrent cells written out, and the scan that runs one over time.

The contract of every entry of ``CELLS``, which the tests run over all of them:

- ``project(inputs, lengths)`` does for all frames at once what does not depend on the frame before;
- ``initial_state(projected)`` is the state before the first frame;
- ``step(projected, state)`` is one frame: from the state before it, by name, to the state after it,
  ``hidden`` among its names, ``cell`` where there is one, and the gates that made them, each
  ``(batch, size)``.

``scan`` runs a cell over a padded batch in either direction. torch's fused kernels are faster for
the cells they know (``FUSED``); what is written out here is their oracle, shows what happens inside
(``trace``), and is the only home of the cells and of the dropout they lack.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.features import mask, masked

State = dict[str, Tensor]
EPSILON = 1e-5  # added to every variance that something is divided by


class Cell(nn.Module):
    """What every cell has.

    ``carried`` names what the next frame gets to see. ``bands`` says into how many frequency bands
    inputs and hidden states fall, which matters to ``convlstm`` alone.
    """

    carried: tuple[str, ...] = ("hidden",)

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__()
        self.input_size, self.size, self.bands = input_size, size, bands

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """``(batch, frames, input)`` to ``(batch, frames, whatever step takes)``."""
        raise NotImplementedError

    def initial_state(self, projected: Tensor) -> State:
        """Zeros for as many utterances as ``projected`` holds."""
        return {name: projected.new_zeros(len(projected), self.size) for name in self.carried}

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        """One frame, ``(batch, ...)`` of ``project``'s result.

        ``keep``, ``(batch, size)``, multiplies the hidden state on its way into the products, and
        nowhere else: the recurrent half of Gal & Ghahramani's dropout (2016, equation 7).
        """
        raise NotImplementedError


def heard(state: State, keep: Tensor | None) -> Tensor:
    """The hidden state as the recurrent products see it."""
    return state["hidden"] if keep is None else state["hidden"] * keep


class MatrixCell(Cell):
    """A cell whose gates are ``W x + b + U h + b'``, with the names that torch gives the parameters."""

    gates: int  # rows of W and U per hidden unit

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        self.weight_ih = uniform(self.gates * size, input_size, fan=size)
        self.weight_hh = uniform(self.gates * size, size, fan=size)
        self.bias_ih = uniform(self.gates * size, fan=size)
        self.bias_hh = nn.Parameter(torch.zeros(self.gates * size))

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return F.linear(inputs, self.weight_ih, self.bias_ih + self.bias_hh)

    def sums(self, projected: Tensor, state: State, keep: Tensor | None) -> tuple[Tensor, ...]:
        """What goes into each gate, ``(batch, size)`` each."""
        return torch.addmm(projected, heard(state, keep), self.weight_hh.t()).chunk(self.gates, 1)


def uniform(*shape: int, fan: int) -> nn.Parameter:
    """Weights as torch draws those of its recurrent modules: within ``1 / sqrt(fan)`` of zero.

    Biases, too: with none, frames of zeros leave a state of exactly zero, and the layer normalisation of
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
        (total,) = self.sums(projected, state, keep)
        return {"hidden": self.activation(total)}

    @staticmethod
    def activation(values: Tensor) -> Tensor:
        return torch.tanh(values)


class ReLURNNCell(RNNCell):
    """``RNNCell`` with ``max(0, .)`` for the hyperbolic tangent (Le, Jaitly & Hinton 2015).

    They begin with the identity for ``U``; here it is drawn as in every other cell.
    """

    @staticmethod
    def activation(values: Tensor) -> Tensor:
        return torch.relu(values)


class GRUCell(MatrixCell):
    """The gated recurrent unit (Cho et al. 2014, equations 5 to 8), its reset gate behind the product.

    ::

        r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)
        z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)
        n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + b'_n))
        h_t = z_t * h_{t-1} + (1 - z_t) * n_t

    The paper multiplies ``r_t`` into ``h_{t-1}`` before ``U_n``; cuDNN and torch do it behind, so
    that one product serves all three gates. Rows are ordered reset, update, candidate.
    """

    gates = 3

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        return F.linear(inputs, self.weight_ih, self.bias_ih)

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        recurrent = F.linear(heard(state, keep), self.weight_hh, self.bias_hh).chunk(3, 1)
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

    Rows are ordered input, forget, candidate, output. Forget gates begin open, with a bias of 1
    (Jozefowicz et al. 2015).
    """

    gates = 4
    carried = ("hidden", "cell")

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        open_forget_gates(self.bias_ih)

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        return lstm_state(self.sums(projected, state, keep), state["cell"])


def open_forget_gates(bias: Tensor) -> None:
    """Let the second quarter of an LSTM's biases be 1."""
    size = len(bias) // 4
    with torch.no_grad():
        bias[size : 2 * size] = 1.0


def lstm_state(sums: Sequence[Tensor], before: Tensor, peepholes: Sequence[Tensor] | None = None) -> State:
    """The LSTM's equations behind the products; with ``peepholes``, those of ``PeepholeCell``."""
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

    ``peepholes`` is ``(3, size)``: input, forget, output. They begin at zero, as an LSTM.
    """

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        self.peepholes = nn.Parameter(torch.zeros(3, size))

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        return lstm_state(self.sums(projected, state, keep), state["cell"], self.peepholes.unbind())


class CoupledCell(MatrixCell):
    """An LSTM that forgets exactly as much as it takes in (Greff et al. 2017, variant CIFG, no peepholes).

    ::

        i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)
        c_t = (1 - i_t) * c_{t-1} + i_t * tanh(W_g x_t + U_g h_{t-1} + b_g)
        o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)
        h_t = o_t * tanh(c_t)

    Rows are ordered input, candidate, output. Input gates begin with a bias of -1, so that as much
    is kept as in an LSTM.
    """

    gates = 3
    carried = ("hidden", "cell")

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        with torch.no_grad():
            self.bias_ih[:size] = -1.0

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        into_input, into_candidate, into_output = self.sums(projected, state, keep)
        entering, output = torch.sigmoid(into_input), torch.sigmoid(into_output)
        candidate = torch.tanh(into_candidate)
        cell = torch.lerp(state["cell"], candidate, entering)
        gates = {"input": entering, "forget": 1 - entering, "candidate": candidate, "output": output}
        return {"hidden": output * torch.tanh(cell), "cell": cell, **gates}


class NormedCell(Cell):
    """An LSTM with layer normalisation (Ba, Kiros & Hinton 2016, equations 20 to 22).

    With ``N(v) = (v - mean(v)) / std(v)`` over the numbers of a vector::

        (i, f, g, o) = a_1 * N(U h_{t-1}) + a_2 * N(W x_t) + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(a_3 * N(c_t) + b_3)

    The paper's ``b_1`` and ``b_2`` are left out: they and ``b`` would be added up.
    """

    carried = ("hidden", "cell")

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        self.weight_ih = uniform(4 * size, input_size, fan=size)
        self.weight_hh = uniform(4 * size, size, fan=size)
        self.bias = uniform(4 * size, fan=size)
        self.gain_ih = nn.Parameter(torch.ones(4 * size))
        self.gain_hh = nn.Parameter(torch.ones(4 * size))
        self.gain_cell = nn.Parameter(torch.ones(size))
        self.bias_cell = nn.Parameter(torch.zeros(size))
        open_forget_gates(self.bias)

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        products = F.linear(inputs, self.weight_ih)
        return F.layer_norm(products, (4 * self.size,), self.gain_ih, self.bias, EPSILON)

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        products = F.linear(heard(state, keep), self.weight_hh)
        recurrent = F.layer_norm(products, (4 * self.size,), self.gain_hh, eps=EPSILON)
        after = lstm_state((projected + recurrent).chunk(4, 1), state["cell"])
        normed = F.layer_norm(after["cell"], (self.size,), self.gain_cell, self.bias_cell, EPSILON)
        return after | {"hidden": after["output"] * torch.tanh(normed)}


class LightCell(Cell):
    """The light gated recurrent unit (Ravanelli et al. 2018, section III), made for speech.

    With ``B`` for batch normalisation over all frames of a batch (Ioffe & Szegedy 2015)::

        z_t = sigmoid(B(W_z x_t) + U_z h_{t-1})
        n_t = relu(B(W_n x_t) + U_n h_{t-1})
        h_t = z_t * h_{t-1} + (1 - z_t) * n_t

    Rows are ordered update, candidate. Padding is in nobody's statistics. In evaluation the running
    ones are taken, as they are for a training batch of a single frame, which has no variance.
    """

    MOMENTUM = 0.1  # share of a batch in the running statistics

    mean: Tensor
    variance: Tensor

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        self.weight_ih = uniform(2 * size, input_size, fan=size)
        self.weight_hh = nn.Parameter(torch.cat([nn.init.orthogonal_(torch.empty(size, size)) for _ in "zn"]))
        self.gain = nn.Parameter(torch.ones(2 * size))
        self.bias = uniform(2 * size, fan=size)
        self.register_buffer("mean", torch.zeros(2 * size))
        self.register_buffer("variance", torch.ones(2 * size))

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        products = F.linear(inputs, self.weight_ih)
        inside = mask(lengths, products.shape[1])
        frames = products[inside]
        normed = F.batch_norm(
            frames, self.mean, self.variance, self.gain, self.bias,
            self.training and len(frames) > 1, self.MOMENTUM, EPSILON,
        )  # fmt: skip
        return torch.zeros_like(products).masked_scatter(inside[..., None], normed.to(products))

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        sums = torch.addmm(projected, heard(state, keep), self.weight_hh.t())
        into_update, into_candidate = sums.chunk(2, 1)
        update, candidate = torch.sigmoid(into_update), torch.relu(into_candidate)
        hidden = torch.lerp(candidate, state["hidden"], update)
        return {"hidden": hidden, "update": update, "candidate": candidate}


class ConvCell(Cell):
    """An LSTM whose products are convolutions over frequency (Shi et al. 2015, equation 3).

    The equations are those of ``PeepholeCell`` with ``*`` for the products, here a convolution over
    ``WIDTH`` neighbouring bands, zeros beyond the lowest and the highest. Input and state of a frame
    are read as ``(channels, bands)``, channels first, so both sizes must be multiples of ``bands``.
    ``peepholes`` is ``(3, size)``, one number for every channel in every band.
    """

    WIDTH = 3
    carried = ("hidden", "cell")

    def __init__(self, input_size: int, size: int, bands: int = 1) -> None:
        super().__init__(input_size, size, bands)
        if input_size % bands or size % bands:
            raise ValueError(f"{input_size} inputs and {size} units do not both fall into {bands} bands")
        channels_in, channels = input_size // bands, size // bands
        fan = channels * self.WIDTH
        self.weight_ih = uniform(4 * channels, channels_in, self.WIDTH, fan=fan)
        self.weight_hh = uniform(4 * channels, channels, self.WIDTH, fan=fan)
        self.bias = uniform(4 * channels, fan=fan)
        self.peepholes = nn.Parameter(torch.zeros(3, size))
        open_forget_gates(self.bias)

    def project(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        batch, frames, _ = inputs.shape
        products = self.convolved(inputs.flatten(0, 1), self.weight_ih, self.bias)
        return products.reshape(batch, frames, 4 * self.size)

    def step(self, projected: Tensor, state: State, keep: Tensor | None = None) -> State:
        sums = projected + self.convolved(heard(state, keep), self.weight_hh)
        return lstm_state(sums.chunk(4, 1), state["cell"], self.peepholes.unbind())

    def convolved(self, values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``(rows, channels * bands)`` convolved over the bands, ``(rows, 4 * size)``."""
        maps = values.reshape(len(values), -1, self.bands)
        return F.conv1d(maps, weight, bias, padding=self.WIDTH // 2).flatten(1)


CELLS: dict[str, type[Cell]] = {
    "rnn": RNNCell,
    "rnn-relu": ReLURNNCell,
    "gru": GRUCell,
    "lstm": LSTMCell,
    "peephole": PeepholeCell,
    "lnlstm": NormedCell,
    "cifg": CoupledCell,
    "ligru": LightCell,
    "convlstm": ConvCell,
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
        dropout: in training, the share of hidden units that the recurrent products do not hear,
            the same ones in all frames of an utterance (Gal & Ghahramani 2016, equation 7).
        zoneout: in training, the share of units that stay as they were, drawn anew for every frame;
            in evaluation every unit moves by the rest only (Krueger et al. 2017).

    The recurrence runs in the precision of the weights, under autocast too: it adds up over
    hundreds of frames what a bfloat16 would round away. Raises ``RuntimeError``, torch's, for inputs
    of another size than the cell's and for a batch without a frame.
    """
    return scanned(cell, inputs, lengths, reverse, dropout, zoneout, names=("hidden",))["hidden"]


def trace(cell: Cell, inputs: Tensor, lengths: Tensor, reverse: bool = False, zoneout: float = 0.0) -> State:
    """As ``scan`` without dropout, of everything that ``step`` names: hidden state, cell and gates.

    Each is ``(batch, frames, size)``.
    """
    return scanned(cell, inputs, lengths, reverse, zoneout=zoneout)


def scanned(
    cell: Cell,
    inputs: Tensor,
    lengths: Tensor,
    reverse: bool = False,
    dropout: float = 0.0,
    zoneout: float = 0.0,
    names: Iterable[str] | None = None,
) -> State:
    """What ``step`` calls by ``names`` (all when left out), each ``(batch, frames, size)``."""
    inputs = masked(inputs, lengths)
    if reverse:
        inputs = turned_round(inputs, lengths)
    projected = cell.project(inputs, lengths)
    with torch.autocast(inputs.device.type, enabled=False):
        projected = projected.to(next(cell.parameters()).dtype)
        states = unrolled(cell, projected, dropout, zoneout, names)
    if reverse:
        states = {name: turned_round(values, lengths) for name, values in states.items()}
    return {name: masked(values, lengths) for name, values in states.items()}


def unrolled(
    cell: Cell, projected: Tensor, dropout: float, zoneout: float, names: Iterable[str] | None
) -> State:
    """``step`` after ``step``, stacked over time."""
    keep = kept_units(projected, cell.size, dropout) if cell.training and dropout else None
    state = cell.initial_state(projected)
    states = []
    # Frames come from one unbind: the gradient of an index has the size of what it was taken from,
    # so that indexing would make the time of a backward pass grow with the square of the frames.
    for frame in projected.unbind(1):
        after = cell.step(frame, state, keep)
        if zoneout:
            for name in cell.carried:
                after[name] = zoned_out(state[name], after[name], zoneout, cell.training)
        state = after
        states.append({name: state[name] for name in names or state})
    return {name: torch.stack([state[name] for state in states], 1) for name in states[0]}


def zoned_out(before: Tensor, after: Tensor, zoneout: float, training: bool) -> Tensor:
    """``after`` with a share of it, drawn at random or everywhere alike, left as it was ``before``.

    Zoneout (Krueger et al. 2017), ``s_t = d_t * s_{t-1} + (1 - d_t) * s'_t`` for hidden and cell states
    alike: in training ``d_t`` is 1 with probability ``zoneout`` and else 0, in evaluation it is ``zoneout``.
    """
    if not training:
        return torch.lerp(after, before, zoneout)
    return torch.where(torch.rand_like(after) < zoneout, before, after)


def kept_units(like: Tensor, size: int, dropout: float) -> Tensor:
    """Dropout's factors for a batch, ``(batch, size)``: 0, or what makes up for the zeros."""
    return F.dropout(like.new_ones(len(like), size), dropout)


def turned_round(states: Tensor, lengths: Tensor) -> Tensor:
    """``(batch, frames, size)`` with each utterance's own frames in reverse order; its own inverse."""
    times = torch.arange(states.shape[1], device=states.device)[None]
    inside = mask(lengths, states.shape[1])
    index = torch.where(inside, lengths[:, None] - 1 - times, times)
    return states.gather(1, index[..., None].expand_as(states))


# --- torch's fused kernels ------------------------------------------------------------------------


def new_fused(name: str, input_size: int, size: int) -> nn.RNNBase:
    """torch's own module for a cell in ``FUSED``, with the initial weights of the written-out one."""
    kinds = {"rnn": nn.RNN, "rnn-relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
    options = {"nonlinearity": "relu"} if name == "rnn-relu" else {}
    fused = kinds[name](input_size, size, batch_first=True, **options)
    nn.init.zeros_(fused.bias_hh_l0)
    if name == "lstm":
        open_forget_gates(fused.bias_ih_l0)
    return fused


def written_out(fused: nn.RNNBase) -> Cell:
    """The cell inside one of torch's modules of one layer and one direction, as ``new_fused`` makes them.

    Its parameters are the module's own, not copies.
    """
    name = {"RNN_TANH": "rnn", "RNN_RELU": "rnn-relu"}.get(fused.mode, fused.mode.lower())
    with torch.device("meta"):
        cell = CELLS[name](fused.input_size, fused.hidden_size)
    for parameter in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(cell, parameter, fused.get_parameter(f"{parameter}_l0"))
    return cell.train(fused.training)


FUSED = ("rnn", "rnn-relu", "gru", "lstm")
