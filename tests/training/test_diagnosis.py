"""The doctor: each fault is planted, and read in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from asr.cli import cli
from asr.core.config import to_toml
from asr.model.encoders import EncoderConfig
from asr.model.features import FeatureConfig
from asr.text.tokenizer import TextConfig
from asr.training.diagnosis import OVERFIT_CER, OverfitResult, diagnose, explain_failure
from asr.training.experiment import DataConfig, Experiment, TrainingConfig
from tests.synthetic import RATE, write_tones

CPU = torch.device("cpu")


@pytest.fixture
def tones(tmp_path) -> Path:
    """A folder of manifests that a test may spoil."""
    write_tones(tmp_path / "data", {"train": 12, "dev": 4}, seed=5)
    return tmp_path / "data"


def recipe(data: Path, **training) -> Experiment:
    return Experiment(
        features=FeatureConfig(sample_rate=RATE, n_mels=40),
        encoder=EncoderConfig(layers=1, size=32, front_end="conv2", channels=8, dropout=0.3),
        data=DataConfig(folder=str(data)),
        training=TrainingConfig(
            **{"epochs": 1, "batch_seconds": 30.0, "learning_rate": 1e-2, "warmup_steps": 5} | training
        ),
    )


def diagnosis(experiment: Experiment, steps: int = 150) -> list[str]:
    return diagnose(experiment, CPU, say=lambda line: None, steps=steps)


def rewrite(manifest: Path, change: Callable[[dict], dict]) -> None:
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(change(line)) + "\n" for line in lines))


def test_a_healthy_recipe_has_nothing_wrong(tones):
    news: list[str] = []
    assert diagnose(recipe(tones), CPU, news.append, steps=300) == []
    assert any("looking at 10" in line for line in news)
    assert any(line.startswith("step 25: loss") for line in news)


def test_a_vocabulary_mismatch_names_the_symbols(tones):
    rewrite(tones / "dev.jsonl", lambda line: line | {"text": line["text"].upper() + "?"})
    plain = replace(recipe(tones), text=TextConfig(normaliser="none-v1"))
    (fault,) = diagnosis(plain, steps=1)[:1]
    assert fault.startswith("vocabulary mismatch: 4 of 4 validation texts")
    assert "'?'" in fault
    assert "dev-000" in fault
    assert "normaliser" in fault
    assert not any("vocabulary" in fault for fault in diagnosis(recipe(tones), steps=1))


def test_pieces_that_the_texts_are_too_few_for(tones):
    (fault,) = diagnosis(replace(recipe(tones), text=TextConfig(tokens="bpe", vocabulary_size=900)))
    assert "vocabulary_size = 900 does not fit" in fault


def test_texts_of_which_nothing_is_left(tones):
    rewrite(tones / "train.jsonl", lambda line: line | ({"text": "123"} if line["id"] == "train-002" else {}))
    assert diagnosis(recipe(tones), steps=1)[0].startswith("no text: nothing is left of 1 of 12")


def test_too_few_frames_for_the_labels(tones):
    rewrite(tones / "train.jsonl", lambda line: line | {"text": line["text"] + " abcdefgh" * 30})
    (fault,) = diagnosis(recipe(tones))
    assert fault.startswith("too few frames: 10 of 10 utterances")
    assert "train-000" in fault
    assert "a frame lasts 20 ms" in fault


def test_silent_audio(tones):
    for number in (3, 4):
        path = tones / "train" / f"{number:03d}.wav"
        samples, rate = soundfile.read(path)
        soundfile.write(path, np.zeros_like(samples), rate)
    faults = diagnosis(recipe(tones), steps=1)
    assert faults[0].startswith("silent audio: 2 of 10 utterances")
    assert "train-003, train-004" in faults[0]


def test_diverging(tones):
    wild = recipe(tones, optimiser="sgd", learning_rate=1e6, clip_norm=0.0, warmup_steps=0)
    (fault,) = diagnosis(wild, steps=20)
    assert fault.startswith("diverging: the loss went from")
    assert "learning_rate (it is 1e+06)" in fault


def test_all_blank(tones):
    tiny = replace(recipe(tones, learning_rate=3e-2), encoder=EncoderConfig(layers=1, size=1, norm="none"))
    (fault,) = diagnosis(tiny, steps=60)
    assert fault.startswith("all blank: after 60 steps")
    assert "encoder.size" in fault


def test_what_was_learned_in_part_is_told_in_figures(tones):
    (fault,) = explain_failure(
        recipe(tones), OverfitResult([30.0, 40.0, 12.3], blank_rate=0.7, cer=0.41, texts={"u": "abc"})
    )
    assert fault.startswith("not learned: after 3 steps 41 % of the characters are wrong")
    assert "from 30.0 to 12.3" in fault


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (OverfitResult([30.0, 1.0], blank_rate=0.7, cer=OVERFIT_CER, texts={"u": "abc"}), None),
        (OverfitResult([30.0, float("nan")], blank_rate=0.7, cer=1.0, texts={"u": "abc"}), "diverging"),
        (OverfitResult([30.0, 61.0], blank_rate=0.7, cer=1.0, texts={"u": "abc"}), "diverging"),
        (OverfitResult([30.0, 20.0], blank_rate=0.99, cer=1.0, texts={"u": "a"}), "all blank"),
        (OverfitResult([30.0, 20.0], blank_rate=0.5, cer=1.0, texts={"u": ""}), "all blank"),
        (OverfitResult([30.0, 20.0], blank_rate=0.5, cer=None, texts={"u": "a"}), "not learned"),
    ],
)
def test_a_result_is_explained(tones, result, word):
    faults = explain_failure(recipe(tones), result)
    assert [fault.split(":")[0] for fault in faults] == ([word] if word else [])


def test_the_command_says_what_is_wrong_and_fails(tones, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe(tones)))
    command = ["doctor", str(path), "--device", "cpu"]
    healthy = CliRunner().invoke(cli, command)
    assert healthy.stdout == "healthy: the model overfits the utterances\n"
    assert healthy.exit_code == 0
    for file in (tones / "train").iterdir():
        soundfile.write(file, np.zeros(soundfile.info(file).frames), RATE)
    ill = CliRunner().invoke(cli, [*command, "--steps", "5"])
    assert ill.stdout.startswith("silent audio: ")
    assert ill.exit_code == 1
