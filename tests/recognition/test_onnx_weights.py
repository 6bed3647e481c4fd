"""Weights that a folder has once: ``model.onnx`` refers to ``model.safetensors``, and to no other file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from asr.audio.reading import read_audio
from asr.pretrained import SHIPPED, ModelFolderError
from asr.recognition.onnx_network import open_onnx_network
from asr.recognition.onnx_weights import read_model

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

SAMPLE = sorted((Path(__file__).parents[2] / "samples").glob("digit*.flac"))[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A shipped model with its weights in 8 bits, once."""
    from asr.model.folder import load_acoustic_model, save_weights
    from asr.training.export import export_folder

    folder = shutil.copytree(SHIPPED / "digits", tmp_path_factory.mktemp("models") / "digits")
    (folder / "SHA256SUMS").unlink()
    save_weights(load_acoustic_model(folder), folder, torch.int8)
    export_folder(folder, int8=True)
    return folder


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def compute_log_probs(folder: Path, int8: bool = False) -> np.ndarray:
    return next(open_onnx_network(folder, 1, int8).log_probs([[read_audio(SAMPLE, 8000)]]))[0]


def change_references(folder: Path, key: str, value: str) -> None:
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
    onnx.save(model, folder / "model.onnx")


def test_no_matrix_of_a_layer_stands_in_both_files(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    divided = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".int8")]
    assert divided
    assert all(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in divided)
    kept = sum(len(tensor.raw_data) for tensor in model.graph.initializer if tensor.name != "waves")
    assert kept < 0.2 * (folder / "model.safetensors").stat().st_size


def test_other_programs_open_it_where_it_lies(folder):
    runtime = pytest.importorskip("onnxruntime")
    samples = read_audio(SAMPLE, 8000)[None]
    session = runtime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"samples": samples, "lengths": np.array([samples.shape[1]])})[0][0]
    assert np.abs(found - compute_log_probs(folder)).max() < 1e-4


def test_torch_and_a_file_of_its_own_hear_the_same(folder, tmp_path):
    from asr.model.folder import load_acoustic_model
    from asr.training.export import export_folder

    alone = shutil.copytree(folder, tmp_path / "alone")
    export_folder(folder, int8=True, path=alone / "model.onnx")
    assert read_model(alone) is None
    assert len(read_model(folder)) == pytest.approx((alone / "model.onnx").stat().st_size, rel=0.02)
    for int8 in (False, True):
        assert np.array_equal(compute_log_probs(folder, int8), compute_log_probs(alone, int8))
    model = load_acoustic_model(folder)
    samples = torch.from_numpy(read_audio(SAMPLE, 8000)[None])
    expected = model.log_probs(samples, torch.tensor([samples.shape[1]]))[0][0].numpy()
    assert np.abs(compute_log_probs(folder) - expected).max() < 1e-4


def test_gates_in_the_order_of_torch_are_read_as_before(folder, tmp_path):
    """Files of 8 bits that were written before have no other order."""
    from safetensors.torch import load_file, save_file

    from asr.model.folder import FROM_ONNX, ONNX_GATES, SCALE, read_weights, reorder_gates

    stored = load_file(folder / "model.safetensors")
    reordered = [name for name in stored if name.endswith(ONNX_GATES)]
    assert reordered
    for key in reordered:
        name = key.removesuffix(ONNX_GATES)
        stored[name] = reorder_gates(stored.pop(key), FROM_ONNX)
        stored[name + SCALE] = reorder_gates(stored[name + SCALE], FROM_ONNX)
    save_file(stored, tmp_path / "older.safetensors")
    older, newer = (read_weights(p) for p in (tmp_path / "older.safetensors", folder / "model.safetensors"))
    assert older.keys() == newer.keys()
    assert all(torch.equal(older[name], newer[name]) for name in older)


def test_rows_come_back_in_their_places():
    from asr.model.folder import FROM_ONNX, TO_ONNX, reorder_gates

    gates = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])  # input, forget, cell, output, as in torch
    assert reorder_gates(gates, TO_ONNX).tolist() == [0, 0, 3, 3, 1, 1, 2, 2]
    assert reorder_gates(reorder_gates(gates, TO_ONNX), FROM_ONNX).equal(gates)


def test_missing_and_short_weights_are_named(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100_000])
    with pytest.raises(ModelFolderError, match=r"model\.safetensors: is shorter than model\.onnx says"):
        open_onnx_network(copy)
    weights.unlink()
    with pytest.raises(ModelFolderError, match=r"model\.safetensors: No such file"):
        open_onnx_network(copy)


def test_no_byte_is_read_more_often_than_it_is_there(copy):
    size = (copy / "model.safetensors").stat().st_size
    change_references(copy, "offset", "0")
    change_references(copy, "length", str(size))
    with pytest.raises(ModelFolderError, match=r"model\.safetensors: is shorter"):
        open_onnx_network(copy)


def test_numbers_that_do_not_fit_are_the_files_fault(copy):
    change_references(copy, "length", "17")
    with pytest.raises(ModelFolderError, match=r"model\.onnx: is no model"):
        open_onnx_network(copy)


def test_the_shipped_english_model_has_its_weights_once():
    header = (SHIPPED / "english" / "model.safetensors").read_bytes()[:100_000]
    names = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    assert any(name.endswith(".iofc") for name in names)
    assert (SHIPPED / "english" / "model.onnx").stat().st_size < 2_000_000
