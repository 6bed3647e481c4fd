"""``model.onnx`` of a model folder: damaged bytes, or a graph changed by somebody who knows the format."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch

from asr.model.folder import load_acoustic_model, save_weights
from asr.recognition.folder import ONNX_FILE
from asr.recognition.recognizer import open_recognizer
from asr.training.export import export_folder
from tools.fuzz.changes import NUMBERS, WORDS, damage
from tools.fuzz.language_models import ARPA, LETTERS
from tools.fuzz.model_folders import make_folder
from tools.fuzz.runner import RunCase

SECONDS = 0.3  # of noise that a network is tried with
LENGTHS = (0, 1, 2, 3, 255, 1 << 20, 1 << 40, -1, -(1 << 62))  # where a length or an axis should be
OPERATORS = (
    "Add",
    "Identity",
    "Exp",
    "LSTM",
    "Loop",
    "If",
    "Gather",
    "Reshape",
    "Expand",
    "Range",
    "Nothing",
)


def fuzz_networks(folder: Path) -> RunCase:
    """Networks that ONNX Runtime opens, and that hear noise."""
    (folder / "model.arpa").write_text(ARPA)
    original = make_folder(folder, "char", LETTERS)
    (original / "SHA256SUMS").unlink()
    export_folder(original)
    once = shutil.copytree(original, folder / "once")  # weights in 8 bits, which the graph refers to
    save_weights(load_acoustic_model(once), once, torch.int8)
    export_folder(once, int8=True)
    noise = np.random.default_rng(1).normal(0, 0.1, int(8000 * SECONDS)).astype(np.float32)

    def run_case(draw: random.Random, place: Path) -> str:
        copy = shutil.copytree(draw.choice((original, once)), place / "model")
        content = (copy / ONNX_FILE).read_bytes()
        is_damaged = draw.randrange(3) == 0
        changed = damage(content, content, draw) if is_damaged else change_graph(content, draw)
        (copy / ONNX_FILE).write_bytes(changed)
        recognizer = open_recognizer(copy, "cpu", threads=1, engine="onnx")
        recognizer.transcribe_samples([noise, noise[:1000]])
        return "opened"

    return run_case


def change_graph(content: bytes, draw: random.Random) -> bytes:
    """Change a graph in one place or a few, and write it as its format has it."""
    model = onnx.load_model_from_string(content)
    for _ in range(draw.choice((1, 1, 1, 3))):
        draw.choice((change_weights, change_weights, change_node, change_attribute, change_text))(model, draw)
    written: bytes = model.SerializeToString()
    return written


def change_weights(model: onnx.ModelProto, draw: random.Random) -> None:
    """Change the shape, the type, the bytes of a tensor, or where they are."""
    tensor = draw.choice(model.graph.initializer)
    kind = draw.randrange(4)
    if kind == 0 and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(LENGTHS)
    elif kind == 1:
        tensor.data_type = draw.randrange(20)
    elif kind == 2:
        tensor.dims.append(draw.choice(LENGTHS))
    elif tensor.external_data:
        draw.choice(tensor.external_data).value = draw.choice((*map(str, LENGTHS), "model.onnx", ""))
    elif tensor.raw_data:
        tensor.raw_data = damage(tensor.raw_data, tensor.raw_data, draw)


def change_node(model: onnx.ModelProto, draw: random.Random) -> None:
    """Drop a node, make it another, or connect it with something else."""
    nodes = model.graph.node
    node = draw.choice(nodes)
    kind = draw.randrange(4)
    if kind == 0:
        node.op_type = draw.choice(OPERATORS)
    elif kind == 1 and node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice((*draw.choice(nodes).output, "", "samples"))
    elif kind == 2 and node.output:
        node.output[0] = draw.choice(("log_probs", "frames", draw.choice(nodes).output[0]))
    else:
        nodes.remove(node)


def change_attribute(model: onnx.ModelProto, draw: random.Random) -> None:
    """Change a number or a text that an operator is told."""
    node = draw.choice([node for node in model.graph.node if node.attribute])
    attribute = draw.choice(node.attribute)
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = draw.choice(LENGTHS)
    elif attribute.type == onnx.AttributeProto.INTS:
        attribute.ints.append(draw.choice(LENGTHS))
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = draw.choice(WORDS).encode("utf-8", "surrogatepass")
    else:
        attribute.type = draw.randrange(12)


def change_text(model: onnx.ModelProto, draw: random.Random) -> None:
    """Change what a file says of itself: its metadata, its names, its versions."""
    kind = draw.randrange(4)
    if kind == 0 and model.metadata_props:
        draw.choice(model.metadata_props).value = draw.choice((*NUMBERS, *WORDS)).replace("\ufeff", "")
    elif kind == 1:
        draw.choice((*model.graph.input, *model.graph.output)).name = draw.choice(("samples", "x", ""))
    elif kind == 2:
        model.opset_import[0].version = draw.choice(LENGTHS)
    else:
        model.ir_version = draw.choice(LENGTHS)
