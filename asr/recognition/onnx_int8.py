"""LSTM layers whose weights a model file stores in 8 bits, multiplied in 8 bits.

As written, such a file turns its weights into float32, and every program that knows ONNX computes the same.
ONNX Runtime can multiply them as they are, twice as fast and in a third of the memory, with inputs and hidden
states rounded to 8 bits as they come (its operator ``DynamicQuantizeLSTM``). The file on the disk stays what
it is: what is opened is another graph, made here, of bytes that ``check_onnx`` has found sound.
"""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr.recognition.onnx_file import (
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    MODEL_GRAPH,
    MODEL_OPSET,
    NODE_DOMAIN,
    NODE_TYPE,
    OPSET_DOMAIN,
    TENSOR_DIMS,
    TENSOR_NAME,
    TENSOR_RAW,
    TENSOR_TYPE,
    DamagedError,
    Pieces,
    Span,
    encode_field,
    encode_model,
    encode_number,
    read_varint,
    walk,
)

# Fields of onnx.proto by message, beside those of ``onnx_file``.
OPSET_VERSION = 2
NODE_INPUT, NODE_OUTPUT = 1, 2
INT8, FLOAT = 3, 1  # types of tensors
DOMAIN = b"com.microsoft"
LSTM_INPUTS = 8  # of ONNX's operator; those of the other one go on behind them
WEIGHTS = (1, 2)  # among them, of the layer's input and of its hidden state
DIVIDED = b"DequantizeLinear"  # the operator whose output is weights, of whole numbers and steps


@dataclass(frozen=True)
class _Tensor:
    """An initializer of a graph; its numbers are bytes of the file."""

    name: bytes
    shape: tuple[int, ...]
    kind: int
    numbers: Span


@dataclass(frozen=True)
class _Node:
    """What is read of a node: its operator, the names of its inputs and of its first output."""

    kind: bytes
    inputs: list[bytes]
    output: bytes


def multiplies_exactly() -> bool:
    """Whether this processor adds up products of 8 bits in 32 bits; without VNNI, x86 does it in 16."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def multiply_in_8_bits(content: bytes) -> bytes | None:
    """Make the model that multiplies the LSTM weights it has in 8 bits as they are; ``None`` has none."""
    try:
        return _rewrite_model(content)
    except DamagedError:  # ONNX Runtime will say so
        return None


def _rewrite_model(content: bytes) -> bytes | None:
    (graph,) = (span for number, span in walk(content, (0, len(content))) if number == MODEL_GRAPH)
    rewritten = _rewrite_graph(content, graph)
    if rewritten is None:
        return None
    version = [*encode_field(OPSET_DOMAIN, [DOMAIN]), encode_number(OPSET_VERSION, 1)]
    return encode_model(content, rewritten, *encode_field(MODEL_OPSET, version))


def _rewrite_graph(content: bytes, graph: Span) -> Pieces | None:
    """Return the fields of a graph with other LSTM layers, or ``None`` where there are none to change."""
    fields = list(walk(content, graph))
    tensors = {span: _read_tensor(content, span) for number, span in fields if number == GRAPH_INITIALIZER}
    nodes = {span: _read_node(content, span) for number, span in fields if number == GRAPH_NODE}
    by_name = {tensor.name: tensor for tensor in tensors.values()}
    divided = {node.output: node.inputs for node in nodes.values() if node.kind == DIVIDED}
    changed: dict[Span, list[bytes]] = {}
    made: Pieces = []
    for span, node in nodes.items():
        sources = [divided.get(name, []) for name in node.inputs[1:3]] if node.kind == b"LSTM" else []
        weights = [_read_weights(content, source, by_name) for source in sources]
        if len(weights) < 2 or None in weights:
            continue
        inputs = node.inputs + [b""] * (LSTM_INPUTS - len(node.inputs))
        for place, arrays in zip(WEIGHTS, weights, strict=True):
            names = [node.inputs[place] + ending for ending in (b".wide", b".steps", b".zeros")]
            for name, array in zip(names, arrays or (), strict=True):
                made += encode_field(GRAPH_INITIALIZER, _encode_tensor(name, array))
            inputs[place] = names[0]
            inputs += names[1:]
        changed[span] = inputs
    if not changed:
        return None
    used = {
        name
        for span, node in nodes.items()
        if node.kind != DIVIDED
        for name in changed.get(span, node.inputs)
    }
    used.update(*(inputs for output, inputs in divided.items() if output in used))
    pieces: Pieces = []
    for number, span in fields:
        if span in changed:
            pieces += encode_field(GRAPH_NODE, _encode_layer(content, span, changed[span]))
        elif not (
            (number == GRAPH_NODE and nodes[span].kind == DIVIDED and nodes[span].output not in used)
            or (number == GRAPH_INITIALIZER and tensors[span].name not in used)
        ):
            pieces += encode_field(number, [content[slice(*span)]])
    return pieces + made


def _read_node(content: bytes, node: Span) -> _Node:
    kind, inputs, output = b"", [], b""
    for number, span in walk(content, node):
        value = content[slice(*span)]
        if number == NODE_TYPE:
            kind = value
        elif number == NODE_INPUT:
            inputs.append(value)
        elif number == NODE_OUTPUT:
            output = output or value
    return _Node(kind, inputs, output)


def _read_tensor(content: bytes, tensor: Span) -> _Tensor:
    shape: list[int] = []
    name, kind, numbers = b"", 0, (0, 0)
    for number, span in walk(content, tensor):
        if number == TENSOR_NAME:
            name = content[slice(*span)]
        elif number == TENSOR_TYPE:
            kind = span[0]
        elif number == TENSOR_RAW:
            numbers = span
        elif number == TENSOR_DIMS:
            shape += _read_sizes(content, span)
    return _Tensor(name, tuple(shape), kind, numbers)


def _read_sizes(content: bytes, span: Span) -> Iterator[int]:
    """Read one size, which ``walk`` tells by value, or several, one after the other."""
    place, end = span
    if place == end:
        yield place
    while place < end:
        size, place = read_varint(content, place, end)
        yield size


def _read_weights(
    content: bytes, source: Sequence[bytes], tensors: Mapping[bytes, _Tensor]
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Read a layer's weights ``(1, rows, columns)`` in 8 bits as the other operator takes them.

    Returns them with rows and columns exchanged, the size of a step in each row, and zeros, ``(1, rows)``
    both; ``None`` where they are anything else.
    """
    if len(source) != 2 or source[0] not in tensors or source[1] not in tensors:
        return None
    whole, steps = tensors[source[0]], tensors[source[1]]
    if (whole.kind, steps.kind, len(whole.shape), len(steps.shape)) != (INT8, FLOAT, 3, 1):
        return None
    if whole.shape[:2] != (1, *steps.shape) or any(
        math.prod(tensor.shape) * size != tensor.numbers[1] - tensor.numbers[0]
        for tensor, size in ((whole, 1), (steps, 4))
    ):
        return None
    if not math.prod(whole.shape):
        return None
    matrix = np.frombuffer(content[slice(*whole.numbers)], np.int8).reshape(whole.shape)
    scales = np.frombuffer(content[slice(*steps.numbers)], "<f4")[None]
    return matrix.transpose(0, 2, 1), scales, np.zeros(scales.shape, np.int8)


def _encode_layer(content: bytes, node: Span, inputs: Sequence[bytes]) -> Pieces:
    """Encode a layer with the other operator, its attributes and outputs as they are."""
    pieces = [piece for name in inputs for piece in encode_field(NODE_INPUT, [name])]
    for number, span in walk(content, node):
        if number not in (NODE_TYPE, NODE_DOMAIN, NODE_INPUT):
            pieces += encode_field(number, [content[slice(*span)]])
    return pieces + encode_field(NODE_TYPE, [b"DynamicQuantizeLSTM"]) + encode_field(NODE_DOMAIN, [DOMAIN])


def _encode_tensor(name: bytes, array: np.ndarray) -> Pieces:
    pieces = [encode_number(TENSOR_DIMS, size) for size in array.shape]
    pieces.append(encode_number(TENSOR_TYPE, INT8 if array.dtype == np.int8 else FLOAT))
    return pieces + encode_field(TENSOR_NAME, [name]) + encode_field(TENSOR_RAW, [array.tobytes()])
