"""Weights that a model folder has once: those that ``model.onnx`` keeps in ``model.safetensors`` beside it.

ONNX calls them external data. They are read here and not by ONNX Runtime, which opens whatever path a file
names: ``check_onnx`` has seen that it is that one file, and each place is checked against its size.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from asr.core.files import quote_path
from asr.pretrained import ModelFolderError
from asr.recognition.folder import ONNX_FILE, WEIGHTS_FILE
from asr.recognition.onnx_file import (
    GRAPH_INITIALIZER,
    MODEL_GRAPH,
    TENSOR_DIMS,
    TENSOR_EXTERNAL,
    TENSOR_LOCATION,
    TENSOR_RAW,
    TENSOR_TYPE,
    Pieces,
    Span,
    encode_field,
    encode_model,
    encode_number,
    has_external_data,
    read_reference,
    walk,
)

TENSOR_NUMBERS = (TENSOR_DIMS, TENSOR_TYPE)


def read_model(folder: Path) -> bytes | None:
    """Read the ONNX model of a folder with all of its weights; ``None`` where the file itself has them.

    ``check_onnx`` has found it sound. Raises ``ModelFolderError`` naming the file of weights where it is
    missing or ends before the model does.
    """
    content = (folder / ONNX_FILE).read_bytes()
    (graph,) = (span for field, span in walk(content, (0, len(content))) if field == MODEL_GRAPH)
    fields = list(walk(content, graph))
    tensors = [span for field, span in fields if field == GRAPH_INITIALIZER]
    places = [_find_place(content, span) for span in tensors if has_external_data(content, span)]
    if not places:
        return None
    path = folder / WEIGHTS_FILE
    try:
        with path.open("rb") as weights:
            size = weights.seek(0, os.SEEK_END)
            if max(end for _, end in places) > size or sum(end - begin for begin, end in places) > size:
                raise EOFError
            pieces = [piece for field, span in fields for piece in _fill_field(content, field, span, weights)]
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "is shorter than model.onnx says"
        raise ModelFolderError(f"{quote_path(path)}: {reason}; copy the folder again") from error
    return encode_model(content, pieces)


def _find_place(content: bytes, tensor: Span) -> Span:
    """Find the first byte of a tensor's numbers in the file of weights, and the byte behind them."""
    place = read_reference(content, tensor)
    assert place is not None  # or check_onnx had refused it
    return place


def _fill_field(content: bytes, field: int, span: Span, weights: BinaryIO) -> Pieces:
    """Encode a field of a graph with the numbers of a tensor that are kept elsewhere."""
    if field != GRAPH_INITIALIZER or not has_external_data(content, span):
        return encode_field(field, [content[slice(*span)]])
    begin, end = _find_place(content, span)
    weights.seek(begin)
    numbers = weights.read(end - begin)
    kept: Pieces = []
    for number, part in walk(content, span):
        if number in (TENSOR_EXTERNAL, TENSOR_LOCATION):
            continue
        if number in TENSOR_NUMBERS and part[0] == part[1]:  # not sizes one behind the other
            kept.append(encode_number(number, part[0]))
        else:
            kept += encode_field(number, [content[slice(*part)]])
    return encode_field(field, [*kept, *encode_field(TENSOR_RAW, [numbers])])
