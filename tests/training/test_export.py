"""``asr export``: ONNX Runtime comes to the log-probs of torch, whatever the model and the sizes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from asr.audio.reading import read_audio
from asr.cli import cli
from asr.errors import UserError
from asr.model.acoustic import AcousticModel, ModelConfig, new_acoustic_model
from asr.model.encoders import EncoderConfig
from asr.model.features import FeatureConfig, pad_batch
from asr.model.folder import load_acoustic_model
from asr.pretrained import SHIPPED
from asr.text.tokenizer import BLANK, SPACE, Tokenizer, load_tokenizer
from asr.training import export
from asr.training.export import TOLERANCE, ExportError, export_onnx

pytest.importorskip("onnx", reason="onnx, part of [train], is not installed")
onnxruntime = pytest.importorskip("onnxruntime")

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("digit*.flac"))
SAID = ["four", "seven", "one eight seven two"]
MFCC = FeatureConfig(kind="mfcc", sample_rate=8000, n_mels=23, deltas=2, normalisation="utterance")
STACKED = FeatureConfig(sample_rate=8000, n_mels=20, stack=3, skip=2, preemphasis=0.0, normalisation="none")
PLAIN = FeatureConfig(sample_rate=8000, n_mels=20)
MODELS = {
    "rnn": (MFCC, EncoderConfig(cell="rnn", layers=1, size=12)),
    "rnn-relu": (STACKED, EncoderConfig(cell="rnn-relu", layers=1, size=12, norm="none")),
    "gru": (PLAIN, EncoderConfig(cell="gru", layers=2, size=12, residual=True, front_end="vgg4", channels=2)),
    "lstm": (STACKED, EncoderConfig(layers=3, size=12, pyramid=2)),
    "one way": (
        replace(PLAIN, deltas=1),
        EncoderConfig(layers=2, size=12, bidirectional=False, front_end="conv2", channels=2),
    ),
    "tdnn": (PLAIN, EncoderConfig(kind="tdnn", layers=3, size=12)),
}


def recordings(model: AcousticModel) -> list[np.ndarray]:
    return [read_audio(path, model.sample_rate) for path in SAMPLES]


def run(path: Path, samples: torch.Tensor, lengths: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"samples": samples.numpy(), "lengths": lengths.numpy()})


def check_equal(model: AcousticModel, path: Path, batch: list[np.ndarray]) -> None:
    samples, lengths = pad_batch(batch)
    expected, frames = model.log_probs(samples, lengths)
    found, found_frames = run(path, samples, lengths)
    assert found_frames.tolist() == frames.tolist()
    assert found.shape == expected.shape
    for row, wanted, count in zip(found, expected.numpy(), frames.tolist(), strict=True):
        np.testing.assert_allclose(row[:count], wanted[:count], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_log_probs_are_those_of_torch(tmp_path, name):
    torch.manual_seed(1)
    features, encoder = MODELS[name]
    tokenizer = Tokenizer((BLANK, SPACE, "a", "b"))
    model = new_acoustic_model(ModelConfig(features=features, encoder=encoder), len(tokenizer), name)
    model.ctc.eval()
    assert export_onnx(model, tokenizer, tmp_path / "model.onnx") <= TOLERANCE
    four, seven, string = recordings(model)
    for batch in ([string], [four, string, seven], [seven[:900], four[:201], four[:200], seven[:1]]):
        check_equal(model, tmp_path / "model.onnx", batch)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "new" / "digits.onnx"
    done = CliRunner().invoke(cli, ["export", "--model", "digits", "--format", "onnx", "-o", str(path)])
    assert done.exit_code == 0, done.output
    assert str(path) in done.stderr
    return path


def test_the_shipped_model_is_equal(digits):
    model = load_acoustic_model("digits")
    check_equal(model, digits, recordings(model))


def test_a_program_without_torch_hears_the_same(digits):
    about = onnxruntime.InferenceSession(digits).get_modelmeta().custom_metadata_map
    tokens = json.loads(about["tokens"])
    for path, said in zip(SAMPLES, SAID, strict=True):
        samples = read_audio(path, int(about["sample_rate"]))[None]
        log_probs, frames = run(digits, torch.from_numpy(samples), torch.tensor([samples.shape[1]]))
        best = log_probs[0, : frames[0]].argmax(axis=1)
        assert "".join(tokens[token] for token, _ in groupby(best)).strip() == said
        seconds = float(about["frame_seconds"]) * frames[0]
        assert seconds == pytest.approx(samples.shape[1] / int(about["sample_rate"]), abs=0.06)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            ModelConfig(encoder=EncoderConfig(cell="peephole", size=8)),
            "cell 'peephole' cannot be exported to ONNX",
        ),
        (
            ModelConfig(encoder=EncoderConfig(cell="ligru", size=8)),
            "cells that can: rnn, rnn-relu, gru, lstm",
        ),
        (ModelConfig(encoder=EncoderConfig(zoneout=0.1, size=8)), "zoneout"),
        (ModelConfig(encoder=EncoderConfig(kind="transformer", size=8)), "transformer"),
    ],
)
def test_what_onnx_has_no_form_for_is_said(tmp_path, config, says):
    model = new_acoustic_model(config, 2, "mine")
    with pytest.raises(ExportError, match=f"mine: .*{says}"):
        export_onnx(model, Tokenizer((BLANK, "a")), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_equal_is_not_written(tmp_path, monkeypatch):
    right = export.make_waves
    monkeypatch.setattr(export, "make_waves", lambda features: 1.01 * right(features))
    with pytest.raises(ExportError, match="differ by"):
        tokenizer = load_tokenizer(SHIPPED / "digits")
        export_onnx(load_acoustic_model("digits"), tokenizer, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_another_ending_is_refused():
    done = CliRunner().invoke(cli, ["export", "--model", "digits", "-o", "model.pt"])
    assert done.exit_code == 2
    assert "model.pt does not end in .onnx" in done.stderr


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = CliRunner().invoke(cli, ["export", "--model", "digits", "-o", str(tmp_path / "x.onnx")])
    assert isinstance(done.exception, UserError)
    assert "pip install 'asr[train]'" in str(done.exception)
