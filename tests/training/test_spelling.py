"""Pronouncing by attention: learned from a toy dictionary, resumed exactly, ranked and scored alike."""

from __future__ import annotations

import itertools
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from asr.cli import cli
from asr.core.tiles import has_tiles
from asr.errors import UserError
from asr.g2p.model import G2PError, Pronouncer, learn_g2p
from asr.model.speller import load_speller
from asr.text.lexicon import Lexicon, write_lexicon
from asr.training import spelling, text_run
from asr.training.loop import TrainingStopped
from asr.training.pronouncing import JoinedPronouncers, NetworkPronouncer
from asr.training.spelling import SpellingExperiment, make_experiment, train_speller

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="needs a processor with tile registers")
SOUNDS = {"a": ("AA",), "b": ("B",), "c": ("K",), "d": (), "x": ("K", "S")}


def make_dictionary() -> Lexicon:
    words = ["".join(letters) for n in (2, 3, 4) for letters in itertools.product("abcdx", repeat=n)]
    said = {word: (tuple(p for letter in word for p in SOUNDS[letter]),) for word in words[::3]}
    return Lexicon({word: variants for word, variants in said.items() if variants[0]})


def small_experiment(epochs: int, precision: str = "float32") -> SpellingExperiment:
    experiment = make_experiment(make_dictionary())
    decoder = replace(experiment.speller.decoder, size=32, embedding=16, attention=16)
    speller = replace(experiment.speller, size=32, embedding=16, decoder=decoder, dropout=0.0)
    training = replace(
        experiment.training,
        epochs=epochs,
        batch_pieces=240,
        learning_rate=1e-2,
        warmup_steps=10,
        precision=precision,
    )
    return SpellingExperiment(speller, training)


def ignore(line: str) -> None:
    pass


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_tiles)])
def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path, monkeypatch, precision):
    experiment = small_experiment(2, precision)
    train_speller(make_dictionary(), tmp_path / "whole", experiment, ignore)
    steps = 0
    whole = text_run.take_step

    def stop_after_three(run, batch):
        nonlocal steps
        steps += 1
        if steps == 3:
            signal.raise_signal(signal.SIGTERM)
        return whole(run, batch)

    monkeypatch.setattr(text_run, "take_step", stop_after_three)
    with pytest.raises(TrainingStopped):
        train_speller(make_dictionary(), tmp_path / "stopped", experiment, ignore)
    assert not (tmp_path / "stopped").exists()
    lines: list[str] = []
    train_speller(make_dictionary(), tmp_path / "stopped", experiment, lines.append)
    assert "resuming at step 3" in lines
    stopped, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("stopped", "whole"))
    assert all(torch.equal(stopped[name], whole[name]) for name in whole)
    (tmp_path / "stopped" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="another text"):
        words = dict(list(make_dictionary().words.items())[1:])
        train_speller(Lexicon(words), tmp_path / "stopped", experiment, ignore)
    with pytest.raises(UserError, match="other settings"):
        train_speller(make_dictionary(), tmp_path / "stopped", small_experiment(3, precision), ignore)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> NetworkPronouncer:
    folder = tmp_path_factory.mktemp("speller") / "network"
    train_speller(make_dictionary(), folder, small_experiment(30), ignore)
    return NetworkPronouncer(load_speller(folder))


def test_words_that_it_has_not_seen_are_pronounced(network):
    known = make_dictionary().words
    unseen = [w for w in map("".join, itertools.product("abcdx", repeat=4)) if w not in known][::17]
    said = [tuple(p for letter in word for p in SOUNDS[letter]) for word in unseen]
    right = sum(network.pronounce(w)[0] == s for w, s in zip(unseen, said, strict=True) if s)
    assert right >= 0.8 * len(unseen)


def test_scores_are_those_of_the_search_and_of_probabilities(network):
    ranked = network.rank_pronunciations("abx")
    scores = network.speller.score_pronunciations("abx", [phones for phones, _ in ranked])
    np.testing.assert_allclose(scores, [score for _, score in ranked], atol=1e-4)
    assert sum(np.exp(score) for _, score in ranked) <= 1 + 1e-5


def test_a_letter_that_no_word_has_is_an_error(network):
    with pytest.raises(G2PError, match="'q'"):
        network.pronounce("qa")


def test_a_folder_without_weights_says_how_to_make_them(tmp_path: Path):
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="--g2p attention"):
        load_speller(tmp_path)


def test_both_models_weigh_what_either_proposes(network):
    g2p = learn_g2p(make_dictionary(), order=2)
    for weight, alone in ((0.0, g2p), (1.0, network)):
        joined = JoinedPronouncers(g2p, network, weight)
        for word in ("abc", "xab", "bdx"):
            assert joined.pronounce(word)[0] == alone.pronounce(word)[0]
    pronouncer = Pronouncer(make_dictionary(), 2, JoinedPronouncers(g2p, network))
    said, way = pronouncer.pronounce("cabab")
    assert said[0] == ("K", "AA", "B", "AA", "B")
    assert way == "by the model"


def test_the_command_learns_keeps_and_uses_the_network(tmp_path, monkeypatch):
    dictionary = tmp_path / "dictionary"
    write_lexicon(make_dictionary(), dictionary)
    monkeypatch.setattr(spelling, "make_experiment", lambda known: small_experiment(2))
    options = ["lexicon", "cabab", "--dictionary", str(dictionary), "--g2p", "both"]
    refused = CliRunner().invoke(cli, options)
    assert refused.exit_code == 2
    assert "--g2p-model" in refused.output
    first = CliRunner().invoke(cli, [*options, "--g2p-model", str(tmp_path / "network")])
    assert first.exit_code == 0, first.output
    assert "ready" in first.output
    again = CliRunner().invoke(cli, [*options, "--g2p-model", str(tmp_path / "network")])
    assert "ready" not in again.output
    assert first.stdout == again.stdout
    assert first.stdout.startswith("cabab ")
