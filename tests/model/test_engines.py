"""One path from samples to log-probs: both engines come to the same for every network that both can run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import asr
from asr.audio.reading import read_audio
from asr.errors import UserError
from asr.model.acoustic import AcousticModel, ModelConfig, new_acoustic_model
from asr.model.cells import CELLS
from asr.model.encoders import ENCODERS, EncoderConfig
from asr.model.engine import TorchNetwork
from asr.model.features import FeatureConfig
from asr.model.folder import save_config, save_weights
from asr.pretrained import SHIPPED, ModelFolderError
from asr.recognition import network
from asr.recognition.network import Network, open_network
from asr.recognition.onnx_network import OnnxNetwork, open_onnx_network
from asr.text.tokenizer import BLANK, SPACE, Tokenizer, read_symbols, save_tokenizer
from asr.training.export import ExportError, export_folder, round_weights

SAMPLES = Path(__file__).parents[2] / "samples"
FEATURES = FeatureConfig(sample_rate=8000, n_mels=20)
OPTIONS = {"layers": 2, "size": 40, "residual": True}
NETWORKS = {
    **{cell: EncoderConfig(cell=cell, **OPTIONS) for cell in CELLS},
    **{kind: EncoderConfig(kind=kind, **OPTIONS) for kind in ENCODERS if kind != "recurrent"},
    "pyramid": EncoderConfig(pyramid=1, front_end="conv2", channels=2, **OPTIONS),
    "one way": EncoderConfig(cell="gru", bidirectional=False, front_end="vgg4", channels=2, **OPTIONS),
    "zoneout": EncoderConfig(zoneout=0.1, **OPTIONS),
}
WITHIN = 5e-4  # of log-probs: rounding shows where features are normalised over a frame or two
# What ONNX has no operator for: these models transcribe with torch.
ONLY_TORCH = {"peephole", "lnlstm", "cifg", "ligru", "convlstm", "transformer", "zoneout"}


def write_folder(folder: Path, encoder: EncoderConfig) -> AcousticModel:
    """Write a model folder with random weights."""
    torch.manual_seed(1)
    tokenizer = Tokenizer((BLANK, SPACE, "a", "b"))
    config = ModelConfig(features=FEATURES, encoder=encoder)
    model = new_acoustic_model(config, len(tokenizer), "random")
    save_config(config, folder)
    save_tokenizer(tokenizer, folder)
    save_weights(model, folder)
    return model


def recordings(rate: int) -> list[np.ndarray]:
    return [read_audio(path, rate) for path in sorted(SAMPLES.glob("digit*.flac"))]


def check_equal(found: Network, expected: Network) -> None:
    """Alone, in a batch with padding, and down to a single sample or none."""
    four, seven, string = recordings(found.sample_rate)
    assert (found.sample_rate, found.frame_samples) == (expected.sample_rate, expected.frame_samples)
    assert found.settings == expected.settings
    batches = [[string], [four, string, seven], [seven[:900], four[:201], four[:200], seven[:1], four[:0]]]
    for rows, wanted in zip(found.log_probs(batches), expected.log_probs(batches), strict=True):
        for array, values in zip(rows, wanted, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, values, rtol=0, atol=WITHIN)
    (alone,), (_, padded, _) = (rows[:3] for rows in found.log_probs(batches[:2]))
    np.testing.assert_allclose(alone, padded, rtol=0, atol=WITHIN)


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - ONLY_TORCH))
def test_both_engines_come_to_the_same(tmp_path, name):
    model = write_folder(tmp_path, NETWORKS[name])
    export_folder(tmp_path)
    found = open_network(tmp_path, "auto", "float32")
    assert isinstance(found, OnnxNetwork)
    check_equal(found, open_network(tmp_path, "cpu", "float32", engine="torch"))
    export_folder(tmp_path, int8=True)
    check_equal(open_onnx_network(tmp_path), TorchNetwork(round_weights(model)))


@pytest.mark.parametrize("name", sorted(ONLY_TORCH))
def test_what_only_torch_can_run_is_not_exported(tmp_path, name):
    write_folder(tmp_path, NETWORKS[name])
    with pytest.raises(ExportError, match=f"{name}.* cannot be exported"):
        export_folder(tmp_path)
    assert isinstance(open_network(tmp_path, "cpu", "float32"), TorchNetwork)


# Many layers make more of what float32 rounds; the largest difference seen in english is 7e-4.
@pytest.mark.parametrize(
    ("name", "pattern", "within"),
    [
        ("digits", "digit*.flac", WITHIN),
        ("english", "english*.flac", 0.002),
        ("english", "digit*.flac", 0.002),
    ],
)
def test_both_engines_hear_the_same_in_a_shipped_model(name, pattern, within):
    engines = [open_network(SHIPPED / name, "cpu", "float32", engine=engine) for engine in ("onnx", "torch")]
    samples = [read_audio(path, engines[0].sample_rate) for path in sorted(SAMPLES.glob(pattern))]
    for batch in ([samples[0]], samples):
        found, expected = (next(engine.log_probs([batch])) for engine in engines)
        for rows, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(rows, wanted, rtol=0, atol=within)


def test_a_gpu_and_other_precisions_are_of_torch():
    for device, compute_type, engine in (
        ("auto", "float32", "onnx"), ("cpu", "auto", "onnx"), ("cuda", "float32", "torch"),
        ("cpu", "bfloat16", "torch"), ("cpu", "int8", "torch"),
    ):  # fmt: skip
        assert network.choose_engine(SHIPPED / "digits", device, compute_type) == engine


def test_new_weights_leave_no_file_of_the_old_ones(tmp_path):
    model = write_folder(tmp_path, NETWORKS["lstm"])
    export_folder(tmp_path)
    save_weights(model, tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_where_torch_is_missing_it_says_how_to_get_it(tmp_path, monkeypatch):
    write_folder(tmp_path, NETWORKS["lstm"])
    monkeypatch.setattr(network, "find_spec", lambda name: None)
    for folder, device, compute_type, says in (
        (tmp_path, "cpu", "float32", f"has no model.onnx; to write it, asr export --model {tmp_path} needs"),
        (SHIPPED / "digits", "cuda", "float32", "--device cuda needs"),
        (SHIPPED / "digits", "cpu", "bfloat16", "--compute-type bfloat16 needs"),
    ):
        with pytest.raises(UserError, match=says) as failure:
            open_network(folder, device, compute_type)
        assert str(failure.value).endswith("torch: pip install 'asr[train]'")


def test_files_that_are_not_the_folders_model_are_named(tmp_path):
    for path in (SHIPPED / "digits").iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    path = tmp_path / "model.onnx"
    whole = path.read_bytes()
    other = write_folder_of_tokens(tmp_path / "other", 7)
    no_rate = onnx.load(path)
    del no_rate.metadata_props[:]
    for content, says in (
        (whole[:5000], "is damaged"), (b"", "cannot be read"),
        (other.read_bytes(), f"does not fit the {len(read_symbols(tmp_path))} tokens"),
        (no_rate.SerializeToString(), "is not what asr export writes"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ModelFolderError, match=says) as failure:
            asr.load(tmp_path)
        assert str(path) in str(failure.value)
        assert "\n" not in str(failure.value)


def write_folder_of_tokens(folder: Path, count: int) -> Path:
    folder.mkdir()
    tokenizer = Tokenizer((BLANK, SPACE, *"abcdefghij"[: count - 2]))
    config = ModelConfig(features=FEATURES, encoder=NETWORKS["lstm"])
    save_config(config, folder)
    save_tokenizer(tokenizer, folder)
    save_weights(new_acoustic_model(config, count), folder)
    export_folder(folder)
    return folder / "model.onnx"


def test_threads_can_share_a_session():
    engine = open_onnx_network(SHIPPED / "digits")
    samples = recordings(engine.sample_rate)
    expected = [next(engine.log_probs([[array]])) for array in samples]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda array: next(engine.log_probs([[array]])), samples * 8))
    for (rows,), (wanted,) in zip(found, expected * 8, strict=True):
        np.testing.assert_array_equal(rows, wanted)


def test_a_recogniser_sets_nothing_for_the_whole_process():
    """Neither threads nor the environment, which other libraries of the program share."""
    program = """
import os, threading
before = dict(os.environ), threading.active_count()
import torch
threads = torch.get_num_threads()
import asr
for engine in ("onnx", "torch"):
    asr.load("digits", "cpu", threads=1, engine=engine).transcribe("samples/digit-4-george.flac")
assert (dict(os.environ), torch.get_num_threads()) == (before[0], threads)
"""
    subprocess.run([sys.executable, "-c", program], cwd=SAMPLES.parent, check=True)
