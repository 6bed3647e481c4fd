"""Training a recurrent language model: gradients, resuming, and the engine without torch."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner

from asr.cli import cli
from asr.core.tiles import has_tiles
from asr.errors import UserError
from asr.lm.counting import read_corpus
from asr.lm.perplexity import measure_perplexity
from asr.lm.recurrent import RecurrentConfig
from asr.model.language import LanguageNetwork
from asr.text.pieces import END_PIECE
from asr.training import language, text_run
from asr.training.language import (
    LanguageExperiment,
    cut_sentences,
    load_batch,
    train_language_model,
)
from asr.training.loop import TrainingStopped
from asr.training.text_run import TextTraining, plan_by_length

needs_tiles = pytest.mark.skipif(not has_tiles(), reason="needs a processor with tile registers")
WORDS = ["the", "cat", "dog", "sat", "on", "mat", "log", "and", "a", "saw"]


def make_text(sentences: int = 400, seed: int = 0) -> bytes:
    """Sentences in which each word says which two may come next."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        word, line = 0, []
        for _ in range(generator.integers(2, 9)):
            line.append(WORDS[word])
            word = (2 * word + int(generator.integers(1, 3))) % len(WORDS)
        lines.append(" ".join(line))
    return "\n".join(lines).encode() + b"\n"


EXPERIMENT = LanguageExperiment(
    RecurrentConfig(pieces=40, size=24, layers=2, dropout=0.1),
    TextTraining(epochs=2.5, batch_pieces=200, learning_rate=0.01, warmup_steps=5, precision="float32"),
)


def ignore(line: str) -> None:
    """Take a line of news."""


# --- the network ----------------------------------------------------------------------------------


def test_the_loss_and_its_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    network = LanguageNetwork(RecurrentConfig(pieces=11, size=6, layers=1), 11).double()
    states = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(11, (7,))
    plain = F.cross_entropy(states @ network.embedding.weight.T + network.bias, targets, reduction="sum")
    expected = torch.autograd.grad(3 * plain, [states, network.embedding.weight, network.bias])
    loss = network.loss(states, targets)
    found = torch.autograd.grad(3 * loss, [states, network.embedding.weight, network.bias])
    assert loss.item() == pytest.approx(plain.item(), rel=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@needs_tiles
def test_in_tile_registers_loss_and_gradients_are_nearly_the_same():
    torch.manual_seed(0)
    network = LanguageNetwork(RecurrentConfig(pieces=300, size=64, layers=2), 300)
    tokens, targets = torch.randint(300, (40, 9)), torch.randint(300, (40, 9))
    lengths = torch.full((40,), 9)
    results = []
    for use_tiles in (False, True):
        network.zero_grad()
        states = network(tokens, lengths, use_tiles)
        loss = network.loss(states.float().reshape(-1, 64), targets.reshape(-1), use_tiles)
        loss.backward()
        results.append((float(loss.detach()), [p.grad.clone() for p in network.parameters()]))
    assert results[1][0] == pytest.approx(results[0][0], rel=2e-3)
    for exact, rounded in zip(results[0][1], results[1][1], strict=True):
        assert float((exact - rounded).norm() / exact.norm()) < 0.03


# --- batches --------------------------------------------------------------------------------------


def test_every_sentence_is_in_one_batch_and_orders_differ_from_epoch_to_epoch():
    lengths = np.random.default_rng(0).integers(1, 30, 500)
    training = replace(EXPERIMENT.training, batch_pieces=100)
    plan = plan_by_length(lengths, training, 0)
    assert sorted(np.concatenate(plan).tolist()) == list(range(500))
    for batch in plan:
        size = len(batch) * int(lengths[batch].max())
        assert size <= max(100, int(lengths[batch].max()))
    again, other = plan_by_length(lengths, training, 0), plan_by_length(lengths, training, 1)
    assert all((a == b).all() for a, b in zip(plan, again, strict=True))
    assert [batch.tolist() for batch in plan] != [batch.tolist() for batch in other]


def test_a_batch_reads_the_piece_before_each_that_it_predicts(monkeypatch):
    monkeypatch.setattr(language, "LONGEST", 3)
    spelled = np.array([5, 6, 1, 7, 8, 9, 4, 1], np.uint16)
    sentences = cut_sentences(spelled)
    assert sentences.bounds.tolist() == [0, 3, 6, 8]
    inputs, targets, lengths = load_batch(sentences, np.array([0, 1, 2]))
    assert lengths.tolist() == [3, 3, 2]
    assert inputs[0].tolist() == [END_PIECE, 5, 6]
    assert targets[0].tolist() == [5, 6, END_PIECE]
    assert inputs[1].tolist() == [END_PIECE, 7, 8]
    assert inputs[2, :2].tolist() == [9, 4]  # the rest of a sentence that was cut
    assert targets[2, :2].tolist() == [4, END_PIECE]


# --- runs -----------------------------------------------------------------------------------------


def test_training_learns_and_the_model_without_torch_computes_the_same(tmp_path):
    text = make_text()
    experiment = replace(EXPERIMENT, training=replace(EXPERIMENT.training, epochs=12))
    model = train_language_model(experiment, [text], tmp_path / "run", ignore)
    held_out = make_text(100, seed=1)
    found = measure_perplexity(model, [held_out])
    assert 1.5 < found.including_unknown < 4  # two words may come next, or the end: about 2.2
    corpus = read_corpus([held_out])
    network = LanguageNetwork(EXPERIMENT.network, len(model.pieces))
    checkpoint = text_run.newest_checkpoint(tmp_path / "run", ignore)
    network.load_state_dict(text_run.strip_prefix("network.", checkpoint.tensors))
    network.eval()
    sentences = cut_sentences(language.spell_corpus(corpus, model.pieces))
    inputs, targets, lengths = load_batch(sentences, np.arange(len(sentences)))
    is_real = torch.arange(inputs.shape[1]) < lengths[:, None]
    with torch.no_grad():
        loss = network.loss(network(inputs, lengths)[is_real], targets[is_real])
    assert -found.log_prob == pytest.approx(float(loss), rel=1e-5)


def read_files(folder):
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    return {path.name: path.read_bytes() for path in last.iterdir()}


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_tiles)])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path, monkeypatch, precision):
    experiment = replace(
        EXPERIMENT,
        network=replace(EXPERIMENT.network, size=32),
        training=replace(EXPERIMENT.training, precision=precision),
    )
    text = make_text(150)
    train_language_model(experiment, [text], tmp_path / "whole", ignore)
    steps = 0
    whole = text_run.take_step

    def stop_after_seven(run, batch):
        nonlocal steps
        steps += 1
        if steps == 7:
            signal.raise_signal(signal.SIGTERM)
        return whole(run, batch)

    monkeypatch.setattr(text_run, "take_step", stop_after_seven)
    with pytest.raises(TrainingStopped):
        train_language_model(experiment, [text], tmp_path / "stopped", ignore)
    news = []
    train_language_model(experiment, [text], tmp_path / "stopped", news.append)
    assert "resuming at step 7" in news
    assert read_files(tmp_path / "stopped") == read_files(tmp_path / "whole")


def test_another_text_or_other_settings_are_refused(tmp_path):
    experiment = replace(EXPERIMENT, training=replace(EXPERIMENT.training, epochs=0.5))
    train_language_model(experiment, [make_text(150)], tmp_path, ignore)
    with pytest.raises(UserError, match="another text"):
        train_language_model(experiment, [make_text(150, seed=5)], tmp_path, ignore)
    with pytest.raises(UserError, match=r"training\.epochs differ"):
        train_language_model(EXPERIMENT, [make_text(150)], tmp_path, ignore)


# --- the command line -----------------------------------------------------------------------------


def test_the_verbs_train_measure_score_describe_and_sample(tmp_path):
    (tmp_path / "text.txt").write_bytes(make_text(150))
    text, out = str(tmp_path / "text.txt"), str(tmp_path / "lm.safetensors")
    sets = ["network.pieces=40", "network.size=16", "training.epochs=1", "training.batch_pieces=200"]
    options = [argument for key in sets for argument in ("--set", key)]
    runner = CliRunner()
    done = runner.invoke(cli, ["lm", "train", text, "-o", out, "--kind", "lstm", *options])
    assert done.exit_code == 0, done.output
    measured = json.loads(runner.invoke(cli, ["lm", "perplexity", out, text, "--json"]).stdout)
    assert measured["sentences"] == 150
    assert measured["oov"] == 0
    lines = runner.invoke(cli, ["lm", "score", out, text]).stdout.splitlines()
    assert len(lines) == 150
    total = sum(float(line.split("\t")[0]) for line in lines)
    assert total == pytest.approx(measured["log_prob"], abs=0.02)
    info = json.loads(runner.invoke(cli, ["lm", "info", out, "--json"]).stdout)
    assert (info["kind"], info["size"], info["layers"]) == ("lstm", 16, 1)
    sample = ["lm", "sample", out, "-n", "3", "--begin", "the cat", "--temperature", "0.5"]
    texts = runner.invoke(cli, sample).stdout.splitlines()
    assert len(texts) == 3
    assert all(line.startswith("the cat") for line in texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind", "lstm", "--order", "2"], "--order is for n-grams"),
        (["--set", "network.size=8"], "are for --kind lstm"),
        (["--kind", "lstm", "--set", "network.sise=8"], "nearest known one is 'size'"),
        (["--kind", "lstm", "--set", "training.precision=half"], "not auto, bfloat16 or float32"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, arguments, message):
    (tmp_path / "text.txt").write_bytes(make_text(20))
    text, out = str(tmp_path / "text.txt"), str(tmp_path / "lm.safetensors")
    done = CliRunner().invoke(cli, ["lm", "train", text, "-o", out, *arguments])
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)
