"""``asr train --from``: one command that goes on from a model, and what it takes over."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from asr.cli import cli
from asr.core.config import from_table, read_toml
from asr.data.manifest import read_manifest
from asr.errors import UserError
from asr.lm.storage import save_model
from asr.model.folder import load_acoustic_model
from asr.recognition.recognizer import open_recognizer
from asr.text.lexicon import Lexicon, make_lexicon, write_lexicon
from asr.text.tokenizer import load_tokenizer
from asr.training.experiment import Experiment
from asr.training.finetuning import LEARNING_RATE, make_recipe
from asr.training.loop import train
from tests.synthetic import LETTERS, write_tones
from tests.tiny import estimate_bigrams, tiny_experiment


def spell(words: set[str]) -> Lexicon:
    """A lexicon in which every letter is a phone."""
    return make_lexicon((word, tuple(word.upper())) for word in sorted({*words, *LETTERS}))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A model of phones with everything that a folder may have."""
    from dataclasses import replace

    data = tmp_path_factory.mktemp("old")
    write_tones(data, {"train": 24, "dev": 6}, seed=3)
    known = {
        word
        for split in ("train", "dev")
        for u in read_manifest(data / f"{split}.jsonl")
        for word in u.text.split()
    }
    write_lexicon(spell(known), data / "lexicon.txt")
    experiment = tiny_experiment(
        data,
        augment={"noise_share": 0.5, "time_masks": 1, "time_width_ms": 40.0},
        epochs=2,
        learning_rate=5e-3,
    )
    experiment = replace(experiment, text=replace(experiment.text, tokens="phones", lexicon="lexicon.txt"))
    folder = tmp_path_factory.mktemp("base") / "model"
    train(experiment, folder, torch.device("cpu"), say=lambda line: None)
    save_model(
        estimate_bigrams(*(u.text for u in read_manifest(data / "train.jsonl"))),
        folder / "language-model.bin",
    )
    for name in ("search.toml", "search-without-lm.toml"):
        (folder / name).write_text("beam_size = 8\nlm_weight = 0.5\n")
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_network_lexicon_language_model_and_search_are_taken_over(base, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    write_tones(own, {"train": 12, "dev": 4}, seed=9)
    options = ("train", "--from", base, "--data", own, "--out", tmp_path / "exp", "--device", "cpu")
    news = run(*options, "--set", "training.epochs=1")
    assert "12 training utterances" in news
    written = from_table(Experiment, read_toml(tmp_path / "exp" / "config.toml"))
    assert written.training.initial == str(base)
    assert (written.training.epochs, written.training.learning_rate) == (1, LEARNING_RATE)
    assert (written.augment.noise_share, written.augment.time_masks) == (0.0, 1)
    for name in ("language-model.bin", "search.toml", "search-without-lm.toml", "tokens.txt"):
        assert (tmp_path / "exp" / name).read_bytes() == (base / name).read_bytes()

    before, after = load_tokenizer(base), load_tokenizer(tmp_path / "exp")
    words = {word for utterance in read_manifest(own / "train.jsonl") for word in utterance.text.split()}
    assert words <= set(after.lexicon.words), "new words have pronunciations"
    assert words - set(before.lexicon.words), "there are new words in this test"
    assert set(before.lexicon.words) <= set(after.lexicon.words)

    old, new = (load_acoustic_model(folder).modules.state_dict() for folder in (base, tmp_path / "exp"))
    steps = [float((new[name] - old[name]).abs().max()) for name in old]
    assert 0 < max(steps) < 100 * LEARNING_RATE, "it goes on from the weights of the model"

    recognizer = open_recognizer(tmp_path / "exp", "cpu")
    assert recognizer.decoder is not None
    assert recognizer.decoder.config.beam_size == 8
    assert "the model is in" in run(*options, "--set", "training.epochs=1"), "the same command resumes"


def test_without_validation_the_last_weights_are_kept(base, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    write_tones(own, {"all": 6}, seed=9)
    recipe = make_recipe(str(base), str(own))
    assert recipe.data.train == ("all.jsonl",)
    assert recipe.data.valid == ()
    run("train", "--from", base, "--data", own, "--out", tmp_path / "exp", "--set", "training.epochs=1")
    load_acoustic_model(tmp_path / "exp")


def test_a_folder_without_manifests_is_told_how_to_make_them(base, tmp_path):
    with pytest.raises(UserError, match="asr prepare folder"):
        make_recipe(str(base), str(tmp_path))


def test_a_damaged_model_is_not_gone_on_from(base, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    (copy / "lexicon.txt").write_text("a A\n")
    with pytest.raises(UserError, match=r"lexicon\.txt"):
        make_recipe(str(copy), str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give a RECIPE, or --from MODEL"),
        (["--from", "digits"], "--from needs --data"),
        (["--from", "digits", "--data", "x", __file__], "Give a RECIPE, or --from MODEL"),
    ],
)
def test_what_the_command_needs_is_said(arguments, said):
    result = CliRunner().invoke(cli, ["train", *arguments])
    assert result.exit_code == 2
    assert said in result.output
