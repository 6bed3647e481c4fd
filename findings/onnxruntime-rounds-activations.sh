#!/usr/bin/env bash
# ONNX Runtime 1.32.0, CPU: weights stored in 8 bits are taken as leave to round what they are multiplied with.
#
# A graph that stores a matrix as int8 with a scale for each column (DequantizeLinear) and multiplies float32
# numbers with it (MatMul) asks for float32 arithmetic. By default ONNX Runtime computes something else: it
# fuses both nodes to one that rounds the float32 factor to 8 bits, too. Results are off by a percent, without a
# warning; `session.disable_quant_qdq` = 1 brings back what the graph says. Expected: the same either way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

generator = np.random.default_rng(0)
whole = generator.integers(-127, 128, (640, 40), np.int8)
scale = generator.uniform(0.5, 1.5, 40).astype(np.float32) / 1000
graph = helper.make_graph(
    [
        helper.make_node("DequantizeLinear", ["whole", "scale"], ["weights"], axis=1),
        helper.make_node("MatMul", ["x", "weights"], ["y"]),
    ],
    "product",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 640])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 40])],
    [numpy_helper.from_array(whole, "whole"), numpy_helper.from_array(scale, "scale")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.checker.check_model(model, full_check=True)
x = generator.standard_normal((50, 640)).astype(np.float32)
expected = x.astype(np.float64) @ (whole * scale.astype(np.float64))


def measure_error(setting: str) -> float:
    """The largest error, as a share of the results' standard deviation."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", setting)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x})
    return float(np.abs(found - expected).max() / expected.std())


default, exact = measure_error("0"), measure_error("1")
print(f"onnxruntime {onnxruntime.__version__}: largest error {default:.2g} by default, {exact:.2g} without fusion")
sys.exit(0 if default > 1e-3 and exact < 1e-5 else 1)
PY
