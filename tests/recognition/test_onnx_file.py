"""ONNX files that a model folder may not have: refused in a moment, before a library opens them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from asr.pretrained import SHIPPED, ModelFolderError
from asr.recognition.onnx_file import check_onnx, find_fault
from tools.fuzz.changes import DAMAGES

onnx = pytest.importorskip("onnx")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.onnx"


def make_model(*nodes, **options):
    """A model that adds a weight to its input."""
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [2.0])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    nodes = nodes or (onnx.helper.make_node("Add", ["x", "w"], ["y"]),)
    graph = onnx.helper.make_graph(list(nodes), "graph", [x], [y], [weight])
    return onnx.helper.make_model(graph, **options)


def move_weights_out(model) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def test_shipped_models_may_be_opened():
    for file in SHIPPED.glob("*/model.onnx"):
        check_onnx(file)


@pytest.mark.parametrize("content", [b"", b"\0", b"\x08\x07", b"asr", b"\xff" * 100, b"\x3a\xff\xff\x7f"])
def test_what_is_no_model_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFolderError, match=r"model\.onnx: "):
        check_onnx(path)


def test_weights_in_other_files_are_refused():
    model = make_model()
    assert find_fault(model.SerializeToString()) == ""
    move_weights_out(model)
    assert find_fault(model.SerializeToString()) == "keeps weights in another file"
    constant = onnx.helper.make_node("Constant", [], ["y"], value=model.graph.initializer[0])
    assert find_fault(make_model(constant).SerializeToString()) == "keeps weights in another file"


@pytest.mark.parametrize(
    ("entries", "may"),
    [
        ({"location": "model.safetensors", "offset": "8", "length": "4"}, True),
        ({"location": "model.safetensors", "offset": "8"}, False),
        ({"location": "model.safetensors", "offset": "-8", "length": "4"}, False),
        ({"location": "model.safetensors", "offset": "8", "length": "9" * 13}, False),
        ({"location": "../model.safetensors", "offset": "8", "length": "4"}, False),
        ({"location": "model.safetensors", "offset": "8", "length": "4", "checksum": "0"}, False),
    ],
)
def test_weights_may_be_those_of_the_folder(entries, may):
    model = make_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    assert find_fault(model.SerializeToString()) == ("" if may else "keeps weights in another file")
    constant = onnx.helper.make_node("Constant", [], ["y"], value=tensor)
    assert find_fault(make_model(constant).SerializeToString()) == "keeps weights in another file"


def test_operators_of_others_are_refused():
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"], domain="com.example")
    assert find_fault(make_model(node).SerializeToString()) == "has operators that are not ONNX's own"
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.example", 1)]
    assert (
        find_fault(make_model(opset_imports=opsets).SerializeToString())
        == "has operators that are not ONNX's own"
    )


def test_loops_functions_and_sparse_weights_are_refused():
    body = make_model().graph
    node = onnx.helper.make_node("Loop", ["x", "w"], ["y"], body=body)
    assert find_fault(make_model(node).SerializeToString()) == "has loops or branches"
    opset = [onnx.helper.make_opsetid("", 17)]
    add = onnx.helper.make_node("Add", ["a", "a"], ["b"])
    function = onnx.helper.make_function("", "Add", ["a"], ["b"], [add], opset)
    assert find_fault(make_model(functions=[function]).SerializeToString()) == "has functions of its own"
    model = make_model()
    model.graph.sparse_initializer.add()
    assert find_fault(model.SerializeToString()) == "has sparse weights"


def test_damage_is_a_fault_or_none_and_never_more():
    content = make_model().SerializeToString()
    for number in range(3000):
        draw = random.Random(number)
        fault = find_fault(draw.choice(DAMAGES)(content, content, draw))
        assert fault == "" or fault.isprintable()
