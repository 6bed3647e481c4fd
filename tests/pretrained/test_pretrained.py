"""The shipped models: the same sample always gives the same text."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from asr.audio.reading import measure_duration
from asr.cli import cli
from asr.errors import UserError
from asr.model.engine import unwrap_model
from asr.model.folder import load_acoustic_model, read_model_config, save_weights
from asr.pretrained import DEFAULT_MODEL, SHIPPED, find_model_folder, list_shipped_models
from asr.recognition.model_files import CHECKSUMS_FILE, HASHED, compute_checksum, write_checksums
from asr.recognition.recognizer import open_recognizer

SAMPLES = Path(__file__).parents[2] / "samples"
SAID = {
    "digits": {
        "digit-4-george.flac": "four",
        "digit-7-jackson.flac": "seven",
        "digits-lucas.flac": "one eight seven two",
    },
    "english": {
        "english-1272.flac": "this is physically impossible unconscious",
        "english-1462.flac": "she listened intently but she heard nothing but the creaking of his chair",
    },
}
LARGEST = {"digits": 5e6, "english": 45e6}  # bytes


@pytest.mark.parametrize("name", SAID)
def test_checksums_are_those_of_the_files(name):
    """After a change: ``asr.recognition.model_files.write_checksums(folder)``."""
    lines = (SHIPPED / name / CHECKSUMS_FILE).read_text().splitlines()
    listed = {file: checksum for checksum, _, file in (line.partition("  ") for line in lines)}
    there = {file for file in HASHED if (SHIPPED / name / file).exists()}
    assert listed == {file: compute_checksum(SHIPPED / name / file) for file in there}


def test_every_shipped_model_is_tested_here():
    assert list_shipped_models() == sorted(SAID)
    assert DEFAULT_MODEL in SAID


@pytest.mark.parametrize("name", sorted(SAID))
def test_a_shipped_model_transcribes_the_samples(name):
    recognizer = open_recognizer(name, "cpu")
    for sample, text in SAID[name].items():
        transcript = recognizer.transcribe(SAMPLES / sample)
        assert transcript.text == text
        assert transcript.duration == pytest.approx(measure_duration(SAMPLES / sample), abs=0.01)
        words = [word for segment in transcript.segments for word in segment.words]
        assert [word.text for word in words] == text.split()
        times = [time for word in words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert 0 <= times[0] < times[-1] <= transcript.duration + 0.1
        assert all((0.5 if name == "digits" else 0.0) < word.confidence <= 1 for word in words)


@pytest.mark.parametrize("name", sorted(SAID))
def test_a_shipped_model_has_all_its_files(name):
    folder = SHIPPED / name
    files = {path.name for path in folder.iterdir()}
    assert files >= {"config.toml", "model.safetensors", "model.onnx", "tokens.txt", "card.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LARGEST[name]
    card = (folder / "card.md").read_text(encoding="utf-8").lower()
    assert "licence" in card
    assert read_model_config(folder).features.sample_rate in (8000, 16000)
    config = (folder / "config.toml").read_text(encoding="utf-8")
    assert not re.search(r'"/', config)  # no path of the machine it was trained on


def test_loading_and_transcribing_change_neither_random_state_nor_mode():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    recognizer = open_recognizer("digits", "cpu", engine="torch")
    torch.manual_seed(5)
    recognizer.transcribe(SAMPLES / "digit-4-george.flac")
    torch.testing.assert_close(torch.rand(3), expected)
    assert not unwrap_model(recognizer).ctc.training


@pytest.mark.parametrize("content", ["format_version = 99", "format_version = 'x'", "", "not toml ["])
def test_a_config_of_another_version_or_damaged_is_refused(tmp_path, content):
    (tmp_path / "config.toml").write_text(content)
    with pytest.raises(UserError, match=r"config\.toml"):
        open_recognizer(tmp_path, "cpu")


@pytest.mark.parametrize("name", ["digitz", "/nowhere/at/all"])
def test_an_unknown_model_is_named_with_the_shipped_ones(name):
    with pytest.raises(UserError, match=f"{name}.*shipped models: .*digits"):
        find_model_folder(name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_weights_stored_in_fewer_bits_are_nearly_the_same(dtype, tmp_path):
    model = load_acoustic_model("digits")
    for path in (SHIPPED / "digits").iterdir():
        shutil.copy(path, tmp_path)
    save_weights(model, tmp_path, dtype)
    write_checksums(tmp_path)
    again = load_acoustic_model(tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    parameters = sum(value.numel() for value in model.modules.state_dict().values())
    assert size < (1.1 if dtype == torch.int8 else 2.1) * parameters
    rounding = 0.5 / 127 if dtype == torch.int8 else 2**-11
    stored = again.modules.state_dict()
    for name, value in model.modules.state_dict().items():
        rows, rows_stored = (v.flatten(1) if v.dim() > 1 else v[:, None] for v in (value, stored[name]))
        largest = rows.abs().amax(1, keepdim=True)
        assert ((rows - rows_stored).abs() <= 1.01 * rounding * largest + 1e-7).all(), name
    assert (
        open_recognizer(tmp_path, "cpu").transcribe(SAMPLES / "digits-lucas.flac").text
        == "one eight seven two"
    )


def test_models_lists_each_shipped_model_with_a_sentence():
    done = CliRunner().invoke(cli, ["models"])
    lines = done.stdout.splitlines()
    assert lines[::2] == [
        "digits: English digits, zero to nine, one at a time or in strings; "
        "a small model for trying everything out",
        "english (default): Ordinary English, letters-v1 (lower case, apostrophes, numbers as words), "
        "with capitals and punctuation added",
    ]
    for line, name in zip(lines[1::2], list_shipped_models(), strict=True):
        assert re.fullmatch(rf"  \d+ MB in {re.escape(str(SHIPPED / name))}", line)


def test_the_english_model_writes_a_sentence():
    transcript = open_recognizer("english", "cpu").transcribe(SAMPLES / "english-1462.flac")
    said = SAID["english"]["english-1462.flac"]
    assert transcript.text == said
    assert transcript.readable[0].isupper()
    assert transcript.readable.endswith(".")
    assert "," in transcript.readable
    assert transcript.readable.lower().replace(",", "").rstrip(".") == said
    plain = open_recognizer("english", "cpu", punctuation=False).transcribe(SAMPLES / "english-1462.flac")
    assert plain.readable == said
    assert plain.segments[0].written == ()
