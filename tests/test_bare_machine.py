"""Training runs where there is little beside PyTorch, from the sample cache, validation included; what does
not load is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asr.data.cache import make_cached_reader
from tests.synthetic import RATE, write_tones

MISSING = ("soundfile", "soxr", "librosa", "jiwer", "rapidfuzz", "matplotlib", "tensorboard", "numba")

# Runs ``asr`` as on a machine without those.
PROGRAM = f"""
import sys
for name in {MISSING}:
    sys.modules[name] = None
from asr.cli import main
main()
"""

RECIPE = """
format_version = 1
[features]
sample_rate = 8000
n_mels = 20
normalisation = "global"
[encoder]
layers = 1
size = 24
front_end = "conv2"
channels = 4
[augment]
speeds = [0.9, 1.0, 1.1]
reverb_share = 0.5
rooms = 5
noise_share = 0.5
noise_kinds = ["white", "pink", "babble"]
time_masks = 1
time_width_ms = 50.0
[training]
epochs = 1
batch_seconds = 8.0
cache = "cache"
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A recipe and manifests whose recordings are gone."""
    write_tones(tmp_path / "data", {"train": 20, "dev": 6}, seed=1)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def bare_asr(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM, "train", "recipe.toml", "--out", "run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_training_needs_no_audio_scoring_or_plotting_library(folder):
    make_cached_reader(
        folder / "cache", [folder / "data" / f"{name}.jsonl" for name in ("train", "dev")], RATE
    )
    for recording in (folder / "data").rglob("*.wav"):
        recording.unlink()
    done = bare_asr(folder)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("loss" in record for record in records) > 1
    assert [record["valid_wer"] > 0 for record in records if "valid_wer" in record] == [True]
    assert (folder / "run" / "model.safetensors").exists()


def test_without_a_cache_it_says_what_is_missing(folder):
    done = bare_asr(folder)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "train-8000-" in line
    assert "soundfile is missing" in line


def test_a_library_that_does_not_load_is_named():
    """As torchaudio's is beside another torch than its own."""
    program = """
import asr.cli
def broken(**options):
    raise OSError("Could not load this library: libtorchaudio.so")
asr.cli.cli = broken
asr.cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "asr: Could not load this library: libtorchaudio.so\n"
