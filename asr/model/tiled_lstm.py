"""An LSTM layer for training in bfloat16 on processors with tile registers (``asr.core.tiles``).

The equations are those of ``asr.model.cells.LSTMCell``, with the gradients written out. Products take
bfloat16 numbers and add up in float32. Cell states and the gradients of weights are float32. Hidden
states, gates and the gradients of what goes into the gates are rounded to bfloat16 where they are kept.

One direction works step by step in its own order: step ``s`` of an utterance of ``n`` frames is frame
``s``, or ``n - 1 - s`` where it reads from the end. In arrays of ``(steps * batch, ...)`` row
``s * batch + b`` belongs to step ``s`` of utterance ``b``. Steps are taken in chunks whose numbers stay
in the second-level cache: what needs no earlier step of a chunk is one product for the whole chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from asr.core.compiled import compile_inline, compile_vectorised
from asr.core.tiles import (
    ROWS,
    STEP,
    address_of,
    bits_of,
    configure_tiles,
    from_bits,
    make_tile_layout,
    multiply_at,
    multiply_packed,
    pack_columns,
    pack_rows,
    release_tiles,
    round_to_bfloat16,
    to_float32,
    transpose,
)

CHUNK = 192  # rows of a chunk, about
Arrays = tuple[np.ndarray, ...]


# --- the functions of the gates -------------------------------------------------------------------

_LOG2_E = np.float32(math.log2(math.e))
_TO_INTEGER = np.float32(1.5 * 2**23)  # added to a small number: the nearest integer stands in the low bits
_POWERS = tuple(np.float32(math.log(2) ** n / math.factorial(n)) for n in range(7))  # of 2^x, in x
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = _POWERS
_ONE, _TWO, _MOST = np.float32(1), np.float32(2), np.float32(80)


@compile_inline
def exp(x):  # type: ignore[no-untyped-def]
    """``e ** x`` of a float32, clamped to 80 on either side of 0; loops over it are vectorised."""
    x = -_MOST if x < -_MOST else x  # a NaN passes both lines
    x = (_MOST if x > _MOST else x) * _LOG2_E
    shifted = x + _TO_INTEGER
    rest = x - (shifted - _TO_INTEGER)
    power = _P5 + rest * _P6
    power = _P4 + rest * power
    power = _P3 + rest * power
    power = _P2 + rest * power
    power = _P1 + rest * power
    power = _P0 + rest * power
    return from_bits(np.int32(bits_of(power) + np.int32(bits_of(shifted) << np.int32(23))))


@compile_inline
def sigmoid(x):  # type: ignore[no-untyped-def]
    """The logistic function of a float32."""
    return _ONE / (_ONE + exp(-x))


@compile_inline
def tanh(x):  # type: ignore[no-untyped-def]
    """The hyperbolic tangent of a float32."""
    return _ONE - _TWO / (_ONE + exp(x + x))


# --- forwards -------------------------------------------------------------------------------------


@compile_inline
def find_frame(step, length, reverse):  # type: ignore[no-untyped-def]
    """The frame that a direction reads in a step: the last one first where it reads from the end."""
    return length - 1 - step if reverse else step


@compile_vectorised
def gather_frames(inputs, lengths, reverse, first, steps, rows):  # type: ignore[no-untyped-def]
    """Copy the frames of ``steps`` steps from ``first`` on to ``rows``; a step without a frame gets zeros."""
    batch, columns = len(lengths), rows.shape[1]
    width = inputs.shape[2]
    for step in range(steps):
        for b in range(batch):
            row = step * batch + b
            if first + step < lengths[b]:
                frame = find_frame(first + step, lengths[b], reverse)
                for n in range(width):
                    rows[row, n] = inputs[b, frame, n]
            else:
                for n in range(columns):
                    rows[row, n] = 0


@compile_vectorised
def compute_gates(projected, recurrent, bias, gates):  # type: ignore[no-untyped-def]
    """Compute the four gates of one utterance in one step, ``(4 * size,)`` float32."""
    size = len(gates) // 4
    for n in range(2 * size):
        gates[n] = sigmoid(projected[n] + recurrent[n] + bias[n])
    for n in range(2 * size, 3 * size):
        gates[n] = tanh(projected[n] + recurrent[n] + bias[n])
    for n in range(3 * size, 4 * size):
        gates[n] = sigmoid(projected[n] + recurrent[n] + bias[n])


@compile_vectorised
def compute_state(gates, before, cell, hidden):  # type: ignore[no-untyped-def]
    """Compute the cell and hidden state of one utterance, ``(size,)`` float32."""
    size = len(cell)
    for n in range(size):
        cell[n] = gates[size + n] * before[n] + gates[n] * gates[2 * size + n]
    for n in range(size):
        hidden[n] = gates[3 * size + n] * tanh(cell[n])


@compile_vectorised
def round_row(numbers, target):  # type: ignore[no-untyped-def]
    """Write float32 numbers as bfloat16."""
    for n in range(len(target)):
        target[n] = round_to_bfloat16(numbers[n])


@compile_vectorised
def zero_row(target):  # type: ignore[no-untyped-def]
    """Fill a row with zeros."""
    for n in range(len(target)):
        target[n] = 0


@compile_vectorised
def step_forwards(  # type: ignore[no-untyped-def]
    inputs, lengths, reverse, chunk, wide, recur, bias, rows, sums, around, work,
    packed_inputs, packed_hidden, gates, cells, hidden, output, layout,
):  # fmt: skip
    """Write the hidden states of one direction to ``output``, and keep what ``step_backwards`` needs.

    Args:
        inputs: ``(batch, frames, input)`` uint16.
        lengths: ``(batch,)`` int64, at most ``frames``.
        chunk: steps of a chunk; ``chunk * batch`` and the rows of all steps are multiples of 32.
        wide, recur: packed weights, ``(input, 4 * size)`` and ``(size, 4 * size)``.
        bias: ``(4 * size,)`` float32.
        rows, sums: scratch for the inputs of a chunk and the sums that come of them.
        around: scratch for a step's recurrent sums, ``(batch up to 16s, 4 * size)`` float32.
        work: scratch, ``(5 * size,)`` float32.
        packed_inputs, packed_hidden: to be filled with what is multiplied with the gates' gradients.
        gates: ``(rows, 4 * size)`` uint16.
        cells: ``(batch + rows, size)`` float32, ``batch`` rows of zeros first.
        hidden: likewise uint16, with 16 rows more.
        output: ``(batch, frames, size)`` uint16.
    """
    batch, size = len(lengths), len(bias) // 4
    total, depth = gates.shape[0], rows.shape[1]
    steps = total // batch
    configure_tiles(address_of(layout))
    for b in range(batch):
        zero_row(cells[b])
        zero_row(hidden[b])
    for first in range(0, steps, chunk):
        now = min(chunk, steps - first)
        height = now * batch
        gather_frames(inputs, lengths, reverse, first, now, rows)
        multiply_at(
            address_of(rows),
            rows.strides[0],
            address_of(wide),
            address_of(sums),
            sums.strides[0],
            height,
            4 * size,
            depth,
        )
        pack_rows(rows[:height], packed_inputs, first * batch, total)
        for step in range(first, first + now):
            multiply_at(
                address_of(hidden) + step * batch * hidden.strides[0],
                hidden.strides[0],
                address_of(recur),
                address_of(around),
                around.strides[0],
                batch,
                4 * size,
                size,
            )
            for b in range(batch):
                row = step * batch + b
                if step < lengths[b]:
                    compute_gates(sums[row - first * batch], around[b], bias, work[: 4 * size])
                    round_row(work[: 4 * size], gates[row])
                    compute_state(work[: 4 * size], cells[row], cells[row + batch], work[4 * size :])
                    round_row(work[4 * size :], hidden[row + batch])
                    frame = find_frame(step, lengths[b], reverse)
                    for n in range(size):
                        output[b, frame, n] = hidden[row + batch, n]
                else:
                    zero_row(gates[row])
                    zero_row(cells[row + batch])
                    zero_row(hidden[row + batch])
                    if step < output.shape[1]:
                        zero_row(output[b, step])
        pack_rows(hidden[first * batch : first * batch + height], packed_hidden, first * batch, total)
    release_tiles()


# --- backwards ------------------------------------------------------------------------------------


@compile_vectorised
def compute_cell_gradient(gates, cell, carried, hidden, work):  # type: ignore[no-untyped-def]
    """Add to ``carried``, the gradient of the cell, what comes through the hidden state.

    ``work`` gets the gradient of the output gate's sum.
    """
    size = len(cell)
    for n in range(size):
        bent = tanh(cell[n])
        output = to_float32(gates[3 * size + n])
        carried[n] += hidden[n] * output * (_ONE - bent * bent)
        work[n] = hidden[n] * bent * output * (_ONE - output)


@compile_vectorised
def compute_gate_gradients(gates, before, carried, work):  # type: ignore[no-untyped-def]
    """Write the gradients of the other gates' sums after the output gate's; move ``carried`` a step back."""
    size = len(before)
    for n in range(size):
        entering, forget = to_float32(gates[n]), to_float32(gates[size + n])
        candidate = to_float32(gates[2 * size + n])
        gradient = carried[n]
        work[size + n] = gradient * candidate * entering * (_ONE - entering)
        work[2 * size + n] = gradient * before[n] * forget * (_ONE - forget)
        work[3 * size + n] = gradient * entering * (_ONE - candidate * candidate)
        carried[n] = gradient * forget


@compile_vectorised
def add_row(numbers, target):  # type: ignore[no-untyped-def]
    """Add numbers to ``target``."""
    for n in range(len(target)):
        target[n] += numbers[n]


@compile_vectorised
def copy_row(numbers, target):  # type: ignore[no-untyped-def]
    """Copy numbers to ``target``."""
    for n in range(len(target)):
        target[n] = numbers[n]


@compile_vectorised
def add_gradients(around, output, hidden):  # type: ignore[no-untyped-def]
    """Add up the gradient of a hidden state: from the step after it, and from the output."""
    for n in range(len(hidden)):
        hidden[n] = around[n] + to_float32(output[n])


@compile_vectorised
def step_backwards(  # type: ignore[no-untyped-def]
    gradient, lengths, reverse, chunk, wide, recur, gates, cells, around, carried, work, sums,
    changes, turned, bias, inputs, layout,
):  # fmt: skip
    """Compute the gradients of one direction's inputs, bias and gates from those of its output.

    Args:
        gradient: ``(batch, frames, size)`` uint16.
        wide, recur: packed weights, ``(4 * size, input)`` and ``(4 * size, size)``.
        around: scratch, ``(batch up to 16s, size)`` float32.
        carried: scratch, ``(batch, size)`` float32.
        work: scratch, ``(5 * size,)`` float32.
        sums: scratch for the gradients of a chunk's inputs, float32.
        changes: scratch for the gradients of the gates' sums, ``(rows + 16, 4 * size)`` uint16.
        turned: to be filled with them, transposed, ``(4 * size, >= rows)`` uint16.
        bias: to be filled, ``(4 * size,)`` float32.
        inputs: to be filled, ``(batch, frames, input)`` float32.

    ``lengths``, ``chunk``, ``gates`` and ``cells`` are those of ``step_forwards``.
    """
    batch, size = len(lengths), len(bias) // 4
    total, width = gates.shape[0], inputs.shape[2]
    steps = total // batch
    configure_tiles(address_of(layout))
    zero_row(bias)
    for b in range(batch):
        zero_row(carried[b])
        zero_row(around[b])
    for first in range((steps - 1) // chunk * chunk, -1, -chunk):
        now = min(chunk, steps - first)
        height = now * batch
        for step in range(first + now - 1, first - 1, -1):
            if step < steps - 1:
                multiply_at(
                    address_of(changes) + (step + 1) * batch * changes.strides[0],
                    changes.strides[0],
                    address_of(recur),
                    address_of(around),
                    around.strides[0],
                    batch,
                    size,
                    4 * size,
                )
            for b in range(batch):
                row = step * batch + b
                if step < lengths[b]:
                    frame = find_frame(step, lengths[b], reverse)
                    add_gradients(around[b], gradient[b, frame], work[4 * size :])
                    compute_cell_gradient(
                        gates[row], cells[row + batch], carried[b], work[4 * size :], work[:size]
                    )
                    compute_gate_gradients(gates[row], cells[row], carried[b], work[: 4 * size])
                    round_row(work[size : 4 * size], changes[row, : 3 * size])
                    round_row(work[:size], changes[row, 3 * size :])
                    add_row(work[size : 4 * size], bias[: 3 * size])
                    add_row(work[:size], bias[3 * size :])
                else:
                    zero_row(changes[row])
        start = first * batch
        transpose(changes[start : start + height], turned, start)
        multiply_at(
            address_of(changes) + start * changes.strides[0],
            changes.strides[0],
            address_of(wide),
            address_of(sums),
            sums.strides[0],
            height,
            sums.shape[1],
            4 * size,
        )
        for step in range(first, first + now):
            for b in range(batch):
                if step < lengths[b]:
                    frame = find_frame(step, lengths[b], reverse)
                    copy_row(sums[(step - first) * batch + b, :width], inputs[b, frame])
                elif step < inputs.shape[1]:
                    zero_row(inputs[b, step])
    release_tiles()


# --- a layer --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """How a batch is laid out for one direction."""

    batch: int  # utterances, with those added that make it a multiple of 4
    steps: int  # with those added that make the rows a multiple of 32
    chunk: int  # steps
    input_size: int  # up to a multiple of 32
    size: int

    @property
    def rows(self) -> int:
        """Steps of all utterances together."""
        return self.steps * self.batch

    @property
    def leading(self) -> int:
        """The length of a transposed row: an odd multiple of 32, which spreads a column over the cache."""
        return self.rows + STEP * (1 - self.rows // STEP % 2)


def choose_layout(batch: int, frames: int, input_size: int, size: int) -> Shape:
    """The layout of ``(batch, frames, input_size)`` for ``size`` units."""
    batch = round_up(batch, 4)
    unit = STEP // math.gcd(batch, STEP)
    chunk = unit * max(1, round(CHUNK / (unit * batch)))
    return Shape(batch, round_up(max(1, frames), unit), chunk, round_up(input_size, STEP), size)


def round_up(number: int, multiple: int) -> int:
    """The least multiple that is not below a number."""
    return -(-number // multiple) * multiple


def allocate(size: int | tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    """An array that begins with a cache line, which makes loading tiles several times faster."""
    return torch.empty(size, dtype=dtype).numpy()


def allocate_zeros(size: int | tuple[int, ...], dtype: torch.dtype) -> np.ndarray:
    """As ``allocate``, filled with zeros."""
    return torch.zeros(size, dtype=dtype).numpy()


def to_bits(values: Tensor) -> np.ndarray:
    """View a bfloat16 tensor as uint16, without a copy."""
    return values.detach().view(torch.int16).numpy().view(np.uint16)


def pack_weight_rows(matrix: Tensor) -> np.ndarray:
    """Pack ``(rows, columns)`` as a right operand."""
    packed = allocate(matrix.numel() // 2, torch.uint32)
    pack_rows(to_bits(matrix.bfloat16().contiguous()), packed, 0, len(matrix))
    return packed


def pack_weight_columns(matrix: Tensor) -> np.ndarray:
    """Pack the transposed matrix as a right operand."""
    packed = allocate(matrix.numel() // 2, torch.uint32)
    pack_columns(to_bits(matrix.bfloat16().contiguous()), packed)
    return packed


def pad_weight(weight: Tensor, shape: Shape) -> Tensor:
    """Add columns of zeros to input weights, for the inputs that the layout adds."""
    missing = shape.input_size - weight.shape[1]
    return F.pad(weight.detach(), (0, missing)) if missing else weight.detach()


def run_forwards(
    inputs: np.ndarray,
    lengths: np.ndarray,
    reverse: bool,
    shape: Shape,
    weights: tuple[Tensor, ...],
    output: np.ndarray,
) -> Arrays:
    """Run one direction; returns packed inputs, packed hidden states, gates and cell states."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    height, size = shape.chunk * shape.batch, shape.size
    packed_inputs = allocate(shape.rows * shape.input_size // 2, torch.uint32)
    packed_hidden = allocate(shape.rows * size // 2, torch.uint32)
    gates = allocate((shape.rows, 4 * size), torch.uint16)
    cells = allocate((shape.batch + shape.rows, size), torch.float32)
    step_forwards(
        inputs,
        lengths,
        reverse,
        shape.chunk,
        pack_weight_columns(pad_weight(weight_ih, shape)),
        pack_weight_columns(weight_hh.detach()),
        (bias_ih + bias_hh).detach().numpy(),
        allocate_zeros((height, shape.input_size), torch.uint16),
        allocate((height, 4 * size), torch.float32),
        allocate((round_up(shape.batch, ROWS), 4 * size), torch.float32),
        allocate(5 * size, torch.float32),
        packed_inputs,
        packed_hidden,
        gates,
        cells,
        allocate_zeros((shape.batch + shape.rows + ROWS, size), torch.uint16),
        output,
        make_tile_layout(),
    )
    return packed_inputs, packed_hidden, gates, cells


def run_backwards(
    gradient: np.ndarray,
    lengths: np.ndarray,
    reverse: bool,
    shape: Shape,
    weights: tuple[Tensor, ...],
    kept: Arrays,
    frames: int,
) -> Arrays:
    """Run one direction; returns the gradients of inputs, input weights, recurrent weights and bias."""
    weight_ih, weight_hh = weights[:2]
    packed_inputs, packed_hidden, gates, cells = kept
    size, width = shape.size, weight_ih.shape[1]
    turned = allocate((4 * size, shape.leading), torch.uint16)
    bias = allocate(4 * size, torch.float32)
    inputs = allocate((len(lengths), frames, width), torch.float32)
    layout = make_tile_layout()
    step_backwards(
        gradient,
        lengths,
        reverse,
        shape.chunk,
        pack_weight_rows(pad_weight(weight_ih, shape)),
        pack_weight_rows(weight_hh.detach()),
        gates,
        cells,
        allocate((round_up(shape.batch, ROWS), size), torch.float32),
        allocate((shape.batch, size), torch.float32),
        allocate(5 * size, torch.float32),
        allocate((shape.chunk * shape.batch, shape.input_size), torch.float32),
        allocate((shape.rows + ROWS, 4 * size), torch.uint16),
        turned,
        bias,
        inputs,
        layout,
    )
    wide = allocate((4 * size, shape.input_size), torch.float32)
    recur = allocate((4 * size, size), torch.float32)
    multiply_packed(turned, packed_inputs, wide, shape.rows, layout)
    multiply_packed(turned, packed_hidden, recur, shape.rows, layout)
    return inputs, wide[:, :width], recur, bias


class TiledLSTM(torch.autograd.Function):
    """Hidden states of one direction or both, ``(batch, frames, size * directions)`` bfloat16.

    Takes inputs, lengths and, for each direction, ``weight_ih, weight_hh, bias_ih, bias_hh``. Zeros
    stand beyond the lengths, whatever the inputs hold there.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, lengths: Tensor, *parameters: Tensor) -> Tensor:
        batch, frames, width = inputs.shape
        size, directions = parameters[1].shape[1], len(parameters) // 4
        shape = choose_layout(batch, frames, width, size)
        states = F.pad(inputs.detach().bfloat16(), (0, 0, 0, 0, 0, shape.batch - batch)).contiguous()
        counts = F.pad(lengths.long().clamp(0, frames), (0, shape.batch - batch)).numpy()
        output = torch.empty(shape.batch, frames, size * directions, dtype=torch.bfloat16)
        target = to_bits(output)
        ctx.kept = run_directions(
            directions,
            lambda d: run_forwards(
                to_bits(states), counts, d == 1, shape, parameters[4 * d : 4 * d + 4],
                target[:, :, d * size : (d + 1) * size],
            ),
        )  # fmt: skip
        ctx.shape, ctx.counts, ctx.batch, ctx.dtype = shape, counts, batch, inputs.dtype
        ctx.save_for_backward(*parameters)
        return output[:batch]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parameters, shape = ctx.saved_tensors, ctx.shape
        size, frames = shape.size, gradient.shape[1]
        padding = (0, 0, 0, 0, 0, shape.batch - ctx.batch)
        source = to_bits(F.pad(gradient.bfloat16(), padding).contiguous())
        results = run_directions(
            len(parameters) // 4,
            lambda d: run_backwards(
                source[:, :, d * size : (d + 1) * size], ctx.counts, d == 1, shape,
                parameters[4 * d : 4 * d + 4], ctx.kept[d], frames,
            ),
        )  # fmt: skip
        inputs = torch.from_numpy(results[0][0])
        for result in results[1:]:
            inputs += torch.from_numpy(result[0])
        gradients = []
        for _, wide, recur, bias in results:
            shared = torch.from_numpy(bias)
            gradients += [torch.from_numpy(wide), torch.from_numpy(recur), shared, shared.clone()]
        return inputs[: ctx.batch].to(ctx.dtype), None, *gradients


def run_directions(directions: int, work: Callable[[int], Arrays]) -> list[Arrays]:
    """Call ``work`` for each direction, at the same time where torch may use several threads."""
    if directions > 1 and torch.get_num_threads() > 1:
        with ThreadPoolExecutor(directions) as pool:
            return list(pool.map(work, range(directions)))
    return [work(direction) for direction in range(directions)]


def run_tiled_lstm(inputs: Tensor, lengths: Tensor, directions: Sequence[nn.Module]) -> Tensor:
    """Hidden states of an LSTM of one layer, ``(batch, frames, size * directions)`` bfloat16.

    Each of ``directions``, the second reading from each utterance's end, is an ``nn.LSTM`` of one layer
    and one direction. Zeros stand beyond the lengths, whatever the inputs hold there.
    """
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    parameters = [direction.get_parameter(name) for direction in directions for name in names]
    return cast(Tensor, TiledLSTM.apply(inputs, lengths, *parameters))
