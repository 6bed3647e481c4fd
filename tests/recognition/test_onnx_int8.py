"""LSTM layers in 8 bits: nearly the log-probs of float32, only where a file has such weights."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from asr.audio.reading import read_audio
from asr.pretrained import SHIPPED
from asr.recognition import network
from asr.recognition.network import open_network
from asr.recognition.onnx_file import check_onnx, find_fault
from asr.recognition.onnx_int8 import multiplies_exactly, multiply_in_8_bits
from asr.recognition.onnx_network import open_onnx_network
from asr.recognition.onnx_weights import read_model
from tools.fuzz.changes import DAMAGES

ENGLISH = SHIPPED / "english"
RECORDINGS = sorted((Path(__file__).parents[2] / "samples").glob("english*.flac"))
exactly = pytest.mark.skipif(not multiplies_exactly(), reason="this processor adds products of 8 bits in 16")


@exactly
def test_log_probs_in_8_bits_are_nearly_those_of_float32():
    engines = [open_onnx_network(ENGLISH, 1, int8) for int8 in (False, True)]
    assert [engine.settings["compute_type"] for engine in engines] == ["float32", "int8"]
    samples = [read_audio(path, 16000) for path in RECORDINGS]
    for batch in ([samples[0]], samples):
        exact, found = (next(engine.log_probs([batch])) for engine in engines)
        for wanted, rows in zip(exact, found, strict=True):
            assert rows.shape == wanted.shape
            differences = np.abs(np.exp(rows) - np.exp(wanted))
            assert differences.max() > 1e-5  # or nothing was rounded
            assert differences.mean() < 1e-3
            assert (rows.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.97


def test_only_weights_in_8_bits_are_multiplied_so():
    content = (SHIPPED / "digits" / "model.onnx").read_bytes()
    assert multiply_in_8_bits(content) is None
    assert open_onnx_network(SHIPPED / "digits", 1, int8=True).settings["compute_type"] == "float32"


def test_the_graph_has_no_layer_and_no_weight_twice():
    onnx = pytest.importorskip("onnx")
    before = onnx.load(ENGLISH / "model.onnx")
    whole = read_model(ENGLISH)
    assert whole is not None
    content = multiply_in_8_bits(whole)
    assert content is not None
    after = onnx.load_from_string(content)
    kinds = [[node.op_type for node in model.graph.node] for model in (before, after)]
    layers = kinds[0].count("LSTM")
    assert layers > 0
    assert kinds[1].count("DynamicQuantizeLSTM") == layers
    assert "LSTM" not in kinds[1]
    assert kinds[0].count("DequantizeLinear") - kinds[1].count("DequantizeLinear") == 2 * layers
    assert after.metadata_props == before.metadata_props
    assert len(content) < 1.02 * len(whole)
    assert find_fault(content) == "has operators that are not ONNX's own"  # it is never read from a file


def test_what_is_usual_depends_on_processor_and_file(monkeypatch):
    for exact, compute_type, expected in (
        (True, "usual", "int8"),
        (False, "usual", "float32"),
        (True, "float32", "float32"),
        (True, "int8", "int8"),
    ):
        monkeypatch.setattr("asr.recognition.onnx_int8.multiplies_exactly", lambda exact=exact: exact)
        assert network.open_network(ENGLISH, "cpu", compute_type).settings["compute_type"] == expected
    assert open_network(SHIPPED / "digits", "cpu", "usual").settings["compute_type"] == "float32"


def test_damaged_files_become_nothing_worse(tmp_path):
    whole = read_model(ENGLISH)
    assert whole is not None
    path = tmp_path / "model.onnx"
    for number in range(60):
        draw = random.Random(number)
        content = bytes(draw.choice(DAMAGES)(whole, whole, draw))
        if not find_fault(content):
            path.write_bytes(content)
            check_onnx(path)
            assert multiply_in_8_bits(content) is None or len(multiply_in_8_bits(content) or b"") > 1000
