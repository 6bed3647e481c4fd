"""Networks that compute in fewer bits give nearly the same log-probs and the same words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import asr
from asr.audio.reading import read_audio
from asr.cli import cli
from asr.data.manifest import Utterance, write_manifest
from asr.errors import UserError
from asr.model.acoustic import (
    AcousticModel,
    ModelConfig,
    convert_precision,
    move_to_device,
    new_acoustic_model,
)
from asr.model.encoders import EncoderConfig
from asr.model.engine import unwrap_model, wrap_model
from asr.model.features import FeatureConfig
from asr.model.folder import load_acoustic_model
from asr.pretrained import SHIPPED
from asr.text.tokenizer import load_tokenizer

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("digit*.flac"))
SAID = ["four", "seven", "one eight seven two"]


def log_probs(model: AcousticModel) -> np.ndarray:
    samples = torch.from_numpy(read_audio(SAMPLES[2], model.sample_rate))[None]
    return model.log_probs(samples, torch.tensor([samples.shape[1]]))[0].numpy()


@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_fewer_bits_give_nearly_the_same_log_probs_and_the_same_words(compute_type):
    exact = load_acoustic_model("digits")
    before = log_probs(exact)
    rounded = convert_precision(exact, compute_type)
    found = log_probs(rounded)
    likely = before > np.log(0.01)
    assert found.dtype == np.float32
    assert 1e-4 < np.abs(found - before)[likely].max() < 0.5  # rounding, and no more than that
    recognizer = wrap_model(rounded, load_tokenizer(SHIPPED / "digits"))
    assert [recognizer.transcribe(path).text for path in SAMPLES] == SAID
    assert rounded.compute_type == compute_type
    np.testing.assert_array_equal(log_probs(exact), before)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "peephole"])
@pytest.mark.parametrize("compute_type", ["bfloat16", "int8"])
def test_every_kind_of_cell_computes_in_fewer_bits(cell, compute_type):
    torch.manual_seed(1)
    config = ModelConfig(FeatureConfig(n_mels=20), encoder=EncoderConfig(cell=cell, layers=2, size=32))
    exact = new_acoustic_model(config, 3)
    rounded = convert_precision(exact, compute_type)
    assert 1e-5 < np.abs(log_probs(rounded) - log_probs(exact)).mean() < 0.1


def test_float32_changes_nothing_and_auto_follows_the_processor(monkeypatch):
    exact = load_acoustic_model("digits")
    np.testing.assert_array_equal(log_probs(convert_precision(exact, "float32")), log_probs(exact))
    for native, compute_type in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        assert convert_precision(exact, "auto").compute_type == compute_type


def test_impossible_compute_types_are_refused():
    with pytest.raises(UserError, match="'int4' is not one of usual, auto, float32, bfloat16, int8"):
        convert_precision(load_acoustic_model("digits"), "int4")
    elsewhere = move_to_device(load_acoustic_model("digits"), torch.device("meta"))
    with pytest.raises(UserError, match="int8 is for processors"):
        convert_precision(elsewhere, "int8")
    with pytest.raises(UserError, match="'half'"):
        asr.load("digits", device="cpu", compute_type="half")


def test_a_result_names_its_compute_type(tmp_path):
    write_manifest(
        tmp_path / "m.jsonl", [Utterance(p.stem, str(p), text=t) for p, t in zip(SAMPLES, SAID, strict=True)]
    )
    command = ["evaluate", str(tmp_path / "m.jsonl"), "--model", "digits", "--device", "cpu", "--json"]
    for options, compute_type in (([], "float32"), (["--compute-type", "int8"], "int8")):
        result = json.loads(CliRunner().invoke(cli, [*command, *options]).stdout)
        assert (result["compute_type"], result["wer"]) == (compute_type, 0.0)
    recognizer = asr.load("digits", device="cpu", compute_type="int8")
    assert unwrap_model(recognizer).compute_type == recognizer.settings["compute_type"] == "int8"


def test_a_transcript_names_its_compute_type():
    options = ["--model", "digits", "--device", "cpu", "-f", "json", "--compute-type", "bfloat16"]
    command = ["transcribe", str(SAMPLES[1]), *options]
    transcript = json.loads(CliRunner().invoke(cli, command).stdout)
    assert (transcript["text"], transcript["settings"]["compute_type"]) == (SAID[1], "bfloat16")
