"""What an ONNX file may be before a library opens it: standard operators, no loops, no file but its own.

The file is walked as Protocol Buffers (https://protobuf.dev/programming-guides/encoding), by the field
numbers of ``onnx.proto``; nothing in it is believed but lengths, and these are checked. Walking takes
milliseconds, whatever the weights are. Messages are also written here, field by field.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from asr.core.files import quote_path
from asr.pretrained import ModelFolderError
from asr.recognition.folder import WEIGHTS_FILE

VARINT, FIXED64, LENGTHY, FIXED32 = 0, 1, 2, 5  # wire types
# Fields of onnx.proto by message.
MODEL_GRAPH, MODEL_OPSET, MODEL_FUNCTION = 7, 8, 25
OPSET_DOMAIN = 1
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
ATTRIBUTE_SPARSE = (22, 23)
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
TENSOR_EXTERNAL, TENSOR_LOCATION = 13, 14
ENTRY_KEY, ENTRY_VALUE = 1, 2
MODEL_NUMBERS = (1, 5)  # fields of a model that are no bytes
MOST_DIGITS = 12  # of a place in a file
STANDARD_DOMAINS = (b"", b"ai.onnx")

Span = tuple[int, int]  # the first byte of a field's content and the byte after it
Content = bytes | mmap.mmap
Pieces = list[bytes]  # of a message, one behind the other


class DamagedError(Exception):
    """Bytes that are no message."""


def check_onnx(path: Path) -> None:
    """Raise ``ModelFolderError`` for a file that is no ONNX model that a folder may have.

    It must have nothing but ONNX's own operators: no functions or operators of others, and no operators with
    a graph inside, which could run for ever. Weights may be kept in the folder's ``model.safetensors`` beside
    it (ONNX's external data) and in no other file, which could be any of this machine.
    """
    name = quote_path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            fault = find_fault(content)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ModelFolderError(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if fault:
        raise ModelFolderError(f"{name}: {fault}; run asr export again")


def find_fault(content: Content) -> str:
    """What is wrong with the bytes of a model; empty where nothing is."""
    try:
        graphs = 0
        for field, span in walk(content, (0, len(content))):
            if field == MODEL_FUNCTION:
                return "has functions of its own"
            if field == MODEL_OPSET and not is_standard(content, span, OPSET_DOMAIN):
                return "has operators that are not ONNX's own"
            if field == MODEL_GRAPH:
                graphs += 1
                if fault := find_graph_fault(content, span):
                    return fault
    except DamagedError:
        return "is damaged, or no ONNX file"
    return "" if graphs == 1 else "is no ONNX file"


def find_graph_fault(content: Content, graph: Span) -> str:
    """What is wrong with the nodes and the weights of a graph."""
    for field, span in walk(content, graph):
        if field == GRAPH_SPARSE:
            return "has sparse weights"
        if field == GRAPH_INITIALIZER and not has_known_place(content, span):
            return "keeps weights in another file"
        if field == GRAPH_NODE:
            if not is_standard(content, span, NODE_DOMAIN):
                return "has operators that are not ONNX's own"
            for inner, attribute in walk(content, span):
                if inner == NODE_ATTRIBUTE and (fault := find_attribute_fault(content, attribute)):
                    return fault
    return ""


def find_attribute_fault(content: Content, attribute: Span) -> str:
    """What is wrong with an attribute of a node."""
    for field, span in walk(content, attribute):
        if field in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
            return "has loops or branches"
        if field in ATTRIBUTE_SPARSE:
            return "has sparse weights"
        if field in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS) and has_external_data(content, span):
            return "keeps weights in another file"
    return ""


def has_known_place(content: Content, tensor: Span) -> bool:
    """Whether the numbers of a tensor are in this file, or at a place of the folder's file of weights."""
    return not has_external_data(content, tensor) or read_reference(content, tensor) is not None


def read_reference(content: Content, tensor: Span) -> Span | None:
    """Read which bytes of the folder's file of weights are the numbers of a tensor; ``None``: of no such."""
    entries: dict[bytes, bytes] = {}
    for field, span in walk(content, tensor):
        if field == TENSOR_EXTERNAL:
            parts = {number: content[slice(*inner)] for number, inner in walk(content, span)}
            entries[parts.get(ENTRY_KEY, b"")] = parts.get(ENTRY_VALUE, b"")
    offset, length = (entries.pop(key, b"") for key in (b"offset", b"length"))
    if entries != {b"location": WEIGHTS_FILE.encode()} or not (offset.isdigit() and length.isdigit()):
        return None
    if len(offset) > MOST_DIGITS or len(length) > MOST_DIGITS:
        return None
    return int(offset), int(offset) + int(length)


def has_external_data(content: Content, tensor: Span) -> bool:
    """Whether a tensor says that its numbers are elsewhere."""
    return any(
        field == TENSOR_EXTERNAL or (field == TENSOR_LOCATION and span[0] != 0)
        for field, span in walk(content, tensor)
    )


def is_standard(content: Content, message: Span, field: int) -> bool:
    """Whether the domain in a field of a message is ONNX's own; a field that is not there says so, too."""
    return all(
        content[span[0] : span[1]] in STANDARD_DOMAINS
        for number, span in walk(content, message)
        if number == field
    )


def walk(content: Content, message: Span) -> Iterator[tuple[int, Span]]:
    """Yield the number and the span of each field of a message; of a number, the span is its value twice."""
    place, end = message
    while place < end:
        key, place = read_varint(content, place, end)
        field, kind = key >> 3, key & 7
        if kind == VARINT:
            value, place = read_varint(content, place, end)
            yield field, (value, value)
            continue
        if kind == LENGTHY:
            length, place = read_varint(content, place, end)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise DamagedError
        if field == 0 or length > end - place:
            raise DamagedError
        yield field, (place, place + length)
        place += length


def read_varint(content: Content, place: int, end: int) -> tuple[int, int]:
    """The number that begins at ``place``, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise DamagedError
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise DamagedError


def encode_field(field: int, content: Pieces) -> Pieces:
    """Encode a field of bytes, in pieces, so that weights are copied once."""
    return [_encode_varint(field << 3 | LENGTHY) + _encode_varint(sum(map(len, content))), *content]


def encode_number(field: int, value: int) -> bytes:
    """Encode a field that is a whole number."""
    return _encode_varint(field << 3 | VARINT) + _encode_varint(value)


def encode_model(content: Content, graph: Pieces, *added: bytes) -> bytes:
    """Encode a model anew with another graph, and with what is added in front of it."""
    pieces: Pieces = []
    for number, span in walk(content, (0, len(content))):
        if number in MODEL_NUMBERS:
            pieces.append(encode_number(number, span[0]))
        elif number != MODEL_GRAPH:
            pieces += encode_field(number, [content[slice(*span)]])
    return b"".join([*pieces, *added, *encode_field(MODEL_GRAPH, graph)])


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
