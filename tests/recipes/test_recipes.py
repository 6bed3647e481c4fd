"""Every recipe is trained for a few steps, on tones; every script in recipes/ is one that bash reads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from asr.core.config import from_table, override, read_toml
from asr.data.manifest import read_manifest
from asr.model.folder import load_acoustic_model
from asr.model.states import SAMPLE_RATE, open_encoder
from asr.text.lexicon import Lexicon, write_lexicon
from asr.training.examples import Example, new_sample_reader
from asr.training.experiment import Experiment
from asr.training.loop import train
from asr.training.teaching import write_states
from tests.stand_in import SIZE, stand_in_for_whisper
from tests.synthetic import LETTERS, RATE, make_sentence, speak, write_tones

RECIPES = Path(__file__).parents[2] / "recipes"
TOMLS = sorted(RECIPES.glob("*/*.toml"))
# Units a direction, for a GPU's recipe must not take minutes of a test; a multiple of a convlstm's bands.
LARGEST = 240


def name(path: Path) -> str:
    return str(path.relative_to(RECIPES))


@pytest.fixture(scope="module")
def tones(tmp_path_factory) -> Path:
    """Forty utterances, of which CTC can align all with a token in 40 ms, and a lexicon that spells."""
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, {"train": 34, "dev": 6}, seed=1)
    texts = [u.text for split in ("train", "dev") for u in read_manifest(folder / f"{split}.jsonl")]
    words = sorted(set(" ".join(texts).split()))
    write_lexicon(Lexicon({word: (tuple(word.upper()),) for word in words}), folder / "lexicon.txt")
    return folder


def on_tones(recipe: Path, tones: Path, folder: Path) -> Experiment:
    """The recipe with all left as it is that does not hang on its corpus or its GPU's size."""
    table = override(
        read_toml(recipe),
        [
            f"data.folder={json.dumps(str(tones))}",
            'data.train=["train.jsonl"]',
            'data.valid=["dev.jsonl"]',
            "training.epochs=1",
        ],
    )
    experiment = from_table(Experiment, table)
    training = replace(experiment.training, batch_seconds=20 / experiment.training.accumulate)
    features = experiment.features
    if training.states:
        utterances = read_manifest(tones / "train.jsonl")
        examples = [Example(utterance, 0.0, None) for utterance in utterances]
        encoder = open_encoder(str(folder / "encoder"))
        write_states(encoder, 0.02, examples, new_sample_reader(SAMPLE_RATE, False), folder / "states")
        training = replace(training, states=str(folder / "states"))
    if features.kind == "states":
        features = replace(features, encoder=str(folder / "encoder"), state_size=SIZE)
    return replace(
        experiment,
        features=features,
        text=replace(experiment.text, vocabulary_size=16),
        encoder=replace(experiment.encoder, size=min(LARGEST, experiment.encoder.size)),
        training=replace(training, cache=str(folder / "cache") if training.cache else "", initial=""),
    )


@pytest.mark.parametrize("recipe", TOMLS, ids=name)
def test_a_recipe_takes_its_steps(recipe, tones, tmp_path, monkeypatch):
    stand_in_for_whisper(tmp_path / "encoder", monkeypatch)
    said: list[str] = []
    experiment = on_tones(recipe, tones, tmp_path)
    train(experiment, tmp_path / "run", torch.device("cpu"), said.append)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("loss" in record for record in records) >= 2
    chosen_by = "valid_wer" if experiment.training.objective == "tokens" else "valid_criterion"
    assert any(record.get(chosen_by) is not None for record in records)
    assert load_acoustic_model(tmp_path / "run").config == experiment.model
    assert not any("left out" in line for line in said)


@pytest.mark.parametrize("recipe", TOMLS, ids=name)
def test_a_recipe_says_how_it_is_run(recipe):
    head = recipe.read_text().partition("format_version")[0]
    assert name(recipe) in head or f"recipes/{recipe.parent.name}/run.sh" in head
    assert "seed" in tomllib.loads(recipe.read_text())["training"]


@pytest.mark.parametrize("script", sorted(RECIPES.glob("*/*.sh")), ids=name)
def test_a_script_is_bash(script):
    assert script.stat().st_mode & 0o100
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_pages_that_are_named_are_there():
    linked = re.findall(r"\]\(([a-z_]+/README\.md)\)", (RECIPES / "README.md").read_text())
    assert len(linked) >= 5
    for page in linked:
        assert (RECIPES / page).exists(), page
    assert {recipe.parent / "README.md" for recipe in TOMLS} <= set(RECIPES.glob("*/README.md"))


SHIM = """#!/usr/bin/env bash
verb=$1; shift
smaller=()
if [ "$verb" = train ]; then
    for set in epochs=1 warmup_steps=1 learning_rate=0.005; do smaller+=(--set "training.$set"); done
    smaller+=(--set encoder.size=16 --set encoder.layers=3 --set encoder.channels=4)
    smaller+=(--set text.vocabulary_size=12 --device cpu --threads 1)
fi
[ "$verb" != lm ] || smaller+=(--discount-fallback)
exec "{python}" -m asr "$verb" "$@" "${{smaller[@]}}"
"""
ONE_PROCESS = """#!/usr/bin/env bash
while [ "$1" != asr ]; do shift; done
exec "$@"
"""


def scripted(folder: Path, *command: str, **variables: str) -> Path:
    """A script of recipes/ run in ``folder``, which gets a corpus and a dictionary; where its recipes are."""
    for name in ("recipes", "tools"):
        shutil.copytree(RECIPES.parent / name, folder / name)
    write_librispeech(folder / "corpus", {"train-clean-5": ["7"], "dev-clean": ["1272", "1988"]})
    write_dictionary(folder / "dictionary")
    programs = folder / "bin"
    programs.mkdir()
    for name, text in {"asr": SHIM.format(python=sys.executable), "torchrun": ONE_PROCESS}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    folders = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(folders), "PYTHONPATH": str(RECIPES.parent)}
    done = subprocess.run(
        ["bash", *command], cwd=folder, env=environment | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "recipes"


@pytest.mark.slow
def test_the_script_of_mini_librispeech_goes_from_a_corpus_to_a_table(tmp_path):
    write_prose(tmp_path / "text")
    recipes = scripted(tmp_path, "recipes/mini_librispeech/run.sh", "text", "dictionary", "corpus")
    results = recipes / "mini_librispeech" / "results"
    lengths = {}
    for system in ("phones", "phones-lm", "pieces", "pieces-lm"):
        counts = json.loads((results / f"{system}.dev-report.json").read_text())["word_counts"]
        assert counts["utterances"] == 6
        lengths[system] = counts["reference_length"]
    assert lengths["pieces"] == lengths["pieces-lm"] == lengths["phones-lm"] < lengths["phones"]
    assert {"pieces.curve.jsonl", "pieces.curve.png"} <= {path.name for path in results.iterdir()}
    assert "| pieces | dev-report |" in (results.parent / "README.md").read_text()


@pytest.mark.slow
def test_the_script_of_the_family_goes_from_a_corpus_to_a_table_of_seeds(tmp_path):
    write_prose(tmp_path / "text")
    command = ["recipes/family/run.sh", "mini", "corpus", "text", "dictionary", "1", "2"]
    recipes = scripted(tmp_path, *command, NETWORKS="mini-rnn-ahead")
    for tested in ("dev-report", "dev-report-phones"):
        name = f"mini-rnn-ahead-seed2.{tested}.json"
        result = json.loads((recipes / "family" / "results" / name).read_text())
        assert (result["seed"], result["word_counts"]["utterances"]) == (2, 6)
        assert result["training_speed"] > 0
    table = (recipes / "family" / "README.md").read_text()
    assert len(re.findall(r"\| mini-rnn-ahead \| [\d,]+ \| 2 \|", table)) == 2
    assert (recipes / "family" / "results" / "dev-report.png").exists()


@pytest.mark.slow
def test_the_script_of_the_learning_curve_goes_from_a_corpus_to_points_of_it(tmp_path):
    (tmp_path / "text").mkdir()
    write_prose(tmp_path / "text" / "prose.txt")
    (tmp_path / "text" / "held-out.sha1").write_text("")
    released = tmp_path / "asr" / "pretrained" / "english"
    released.mkdir(parents=True)
    (released / "search.toml").write_text("beam_size = 8\nlm_weight = 0.5\n")
    command = ["recipes/english/curve.sh", "corpus", "text", "dictionary", "2h", "14h-seed2"]
    recipes = scripted(tmp_path, *command)
    counted = {"curve-2h": 1, "curve-2h-phones": 1, "curve-14h-seed2": 2, "curve-14h-seed2-phones": 2}
    for name, seed in counted.items():
        result = json.loads((recipes / "english" / "results" / f"{name}.dev-report.json").read_text())
        assert (result["seed"], result["word_counts"]["utterances"]) == (seed, 6)
        assert ("pronunciations" in result["search"]) == ("phones" not in name)


def write_prose(path: Path) -> None:
    """Sentences to learn a language model from."""
    generator = np.random.default_rng(1)
    path.write_text("".join(make_sentence(generator) + "\n" for _ in range(400)))


def write_dictionary(path: Path) -> None:
    """A pronunciation, of as many phones as letters, for every word that tones may say."""
    phones = dict(zip(LETTERS, ["AA1", "B", "CH", "D", "EH1", "F", "G", "HH"], strict=True))
    words = [word for length in range(1, 5) for word in permutations(LETTERS, length)]
    path.write_text("".join(f"{''.join(word)} {' '.join(map(phones.get, word))}\n" for word in words))


def write_librispeech(corpus: Path, speakers: dict[str, list[str]]) -> None:
    """Tones in the layout of LibriSpeech, six utterances a speaker."""
    generator = np.random.default_rng(0)
    for split, names in speakers.items():
        for speaker in names:
            folder = corpus / "LibriSpeech" / split / speaker / "1"
            folder.mkdir(parents=True)
            lines = []
            for number in range(6):
                text = make_sentence(generator)
                soundfile.write(folder / f"{speaker}-1-{number}.flac", speak(text, generator), RATE)
                lines.append(f"{speaker}-1-{number} {text.upper()}\n")
            (folder / f"{speaker}-1.trans.txt").write_text("".join(lines))
