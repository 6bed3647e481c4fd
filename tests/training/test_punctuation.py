"""Training a tagger: what it learns from, resuming, and the engine without torch."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from asr.errors import UserError
from asr.model.tagger import TaggerNetwork
from asr.text.marks import COMMA, STOP, read_marked_words
from asr.text.pieces import learn_pieces
from asr.text.punctuation import TaggerConfig
from asr.training import text_run
from asr.training.loop import TrainingStopped
from asr.training.pauses import learn_pauses
from asr.training.punctuation import (
    IGNORED,
    LONGEST,
    PunctuationExperiment,
    cut_stretches,
    load_batch,
    spell_words,
    to_tagger,
    train_tagger,
)
from asr.training.text_run import TextTraining
from asr.transcript.values import Word

EXPERIMENT = PunctuationExperiment(
    TaggerConfig(pieces=40, embedding=16, size=16, layers=1, dropout=0.0),
    TextTraining(epochs=30, batch_pieces=300, learning_rate=0.02, warmup_steps=5, precision="float32"),
)


def make_prose(sentences: int = 150, seed: int = 0) -> list[str]:
    """Sentences in which "now" ends a sentence, "well" has a comma, and Tom has a capital."""
    generator = np.random.default_rng(seed)
    lines = []
    for _ in range(sentences):
        words = ["The", *generator.choice(["cat", "dog", "Tom", "well,", "sat", "ran"], 4), "now."]
        lines.append(" ".join(words))
    return lines


def ignore(line: str) -> None:
    """Take a line of news."""


def test_what_begins_a_sentence_teaches_no_case():
    words = read_marked_words("Well, the cat sat. Tom ran.")
    pieces = learn_pieces({word.text: 2 for word in words}, 24)
    text = spell_words(words, pieces)
    last = np.cumsum([len(pieces.spell(word.text)) for word in words]) - 1
    assert text.marks[last].tolist() == [COMMA, 0, 0, STOP, 0, STOP]
    assert text.cases[last].tolist() == [IGNORED, 0, 0, 0, IGNORED, 0]
    inner = np.setdiff1d(np.arange(len(text.pieces)), last)
    assert (text.marks[inner] == IGNORED).all()
    assert text.ends.tolist() == [last[3] + 1, last[5] + 1]


def test_stretches_cover_a_text_and_end_with_sentences():
    lengths = np.random.default_rng(0).integers(1, 60, 300)
    lengths[17] = 400
    ends = np.cumsum(lengths)
    spans = cut_stretches(ends, 1, 0)
    assert spans[0, 0] == 0
    assert spans[-1, 1] == ends[-1]
    assert (spans[1:, 0] == spans[:-1, 1]).all()
    assert (spans[:, 1] - spans[:, 0] <= LONGEST).all()
    assert sum(end not in ends for end in spans[:, 1]) == 3  # of the sentence of 400
    assert (cut_stretches(ends, 1, 0) == spans).all()
    assert len(cut_stretches(ends, 1, 1)) != len(spans) or (cut_stretches(ends, 1, 1) != spans).any()


def test_a_batch_holds_its_stretches_and_nothing_else():
    words = read_marked_words("Well, the cat sat. Tom ran.")
    text = spell_words(words, learn_pieces({word.text: 2 for word in words}, 24))
    spans = np.array([[0, int(text.ends[0])], [int(text.ends[0]), int(text.ends[1])]])
    inputs, marks, cases, lengths = load_batch(text, spans)
    for row, (begin, end) in enumerate(spans):
        assert inputs[row, : end - begin].tolist() == text.pieces[begin:end].tolist()
        assert marks[row, : end - begin].tolist() == text.marks[begin:end].tolist()
        assert (marks[row, end - begin :] == IGNORED).all()
        assert (cases[row, end - begin :] == IGNORED).all()
    assert lengths.tolist() == (spans[:, 1] - spans[:, 0]).tolist()


def test_the_tagger_learns_marks_and_capitals(tmp_path):
    tagger = train_tagger(EXPERIMENT, make_prose(), tmp_path, ignore)
    words = ["the", "cat", "well", "tom", "sat", "now", "the", "dog", "ran", "now"]
    assert " ".join(tagger.punctuate(words)) == "The cat well, Tom sat now. The dog ran now."


def test_without_torch_the_same_is_computed():
    torch.manual_seed(0)
    pieces = learn_pieces({"the": 3, "cat": 2, "sat": 2}, 12)
    network = TaggerNetwork(TaggerConfig(pieces=12, embedding=8, size=6, layers=2), 12).eval()
    tagger = to_tagger(network, pieces)
    texts = [["the", "cat", "sat"], ["cat"], ["tat", "sat", "the", "cat"]]
    flat = [[piece for word in words for piece in pieces.spell(word)] for words in texts]
    lengths = torch.tensor([len(row) for row in flat])
    inputs = torch.zeros(3, int(lengths.max()), dtype=torch.long)
    for row, found in zip(inputs, flat, strict=True):
        row[: len(found)] = torch.tensor(found)
    with torch.no_grad():
        scores = network(inputs, lengths)
    for row, words in zip(scores, texts, strict=True):
        last = np.cumsum([len(pieces.spell(word)) for word in words]) - 1
        expected = torch.cat([row[:, :4].log_softmax(1), row[:, 4:].log_softmax(1)], 1).numpy()[last]
        assert tagger.tag(words) == pytest.approx(expected, abs=1e-5)


def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path, monkeypatch):
    network = replace(EXPERIMENT.network, dropout=0.2)
    experiment = replace(EXPERIMENT, network=network, training=replace(EXPERIMENT.training, epochs=2))
    train_tagger(experiment, make_prose(), tmp_path / "whole", ignore)
    steps, take_step = 0, text_run.take_step

    def stop_after_four(run, batch):
        nonlocal steps
        steps += 1
        if steps == 4:
            signal.raise_signal(signal.SIGTERM)
        return take_step(run, batch)

    monkeypatch.setattr(text_run, "take_step", stop_after_four)
    with pytest.raises(TrainingStopped):
        train_tagger(experiment, make_prose(), tmp_path / "stopped", ignore)
    train_tagger(experiment, make_prose(), tmp_path / "stopped", ignore)
    last = [sorted((tmp_path / name / "checkpoints").glob("step-*"))[-1] for name in ("whole", "stopped")]
    assert last[0].name == last[1].name
    for file in last[0].iterdir():
        assert file.read_bytes() == (last[1] / file.name).read_bytes()


def test_a_text_without_prose_is_refused(tmp_path):
    with pytest.raises(UserError, match="no prose"):
        train_tagger(EXPERIMENT, ["1862", ""], tmp_path, ignore)


# --- pauses ---------------------------------------------------------------------------------------


def say_words(texts: list[str], pauses: list[float]) -> list[Word]:
    """Words of a fifth of a second with given pauses behind them."""
    words, place = [], 0.0
    for text, pause in zip(texts, pauses, strict=True):
        words.append(Word(text, place, place + 0.2, 1.0))
        place += 0.2 + pause
    return words


def test_what_pauses_say_is_how_much_oftener_they_stand_behind_marks():
    generator = np.random.default_rng(0)
    texts, counts = [], np.ones((6, 2))
    pauses = np.array([0.01, 0.1, 0.2, 0.4, 0.6, 1.0])  # one of each class
    shares = {",": [0.1, 0.1, 0.2, 0.2, 0.2, 0.2], "": [0.6, 0.2, 0.1, 0.05, 0.03, 0.02]}
    for _ in range(40):
        marks = generator.choice([",", ""], 12)
        classes = [generator.choice(6, p=shares[mark]) for mark in marks]
        np.add.at(counts, (classes[:-1], (marks[:-1] == ",").astype(int)), 1)  # the last is not known
        text = " ".join(f"word{chr(97 + n)}{mark}" for n, mark in enumerate(marks))
        reference = read_marked_words(text.replace("word", "w"))
        texts.append((reference, say_words([w.text for w in reference], pauses[classes].tolist())))
    shares_seen = np.log(counts / counts.sum(0))
    expected = shares_seen[:, 1] - shares_seen[:, 0]
    assert learn_pauses(texts) == pytest.approx(expected.tolist(), abs=1e-4)
    assert expected[0] < -1
    assert expected[5] > 1


def test_words_that_were_misheard_added_or_left_out_shift_no_pause():
    reference = read_marked_words("the cat, sat on a mat")
    recordings = [
        say_words(["the", "cut", "sat", "a", "mat"], [0.0, 0.4, 0.0, 0.0, 0.0]),  # without "on"
        say_words(["the", "uh", "cat", "sat", "on", "a", "mat"], [0.0, 0.0, 0.4, 0.0, 0.0, 0.0, 0.0]),
    ]
    counts = np.ones((6, 2))
    counts[3, 1] += 2  # behind "cat"
    counts[0, 0] += 3 + 4  # the, sat, a; the, sat, on, a; nothing is known behind "mat"
    shares = np.log(counts / counts.sum(0))
    expected = (shares[:, 1] - shares[:, 0]).tolist()
    assert learn_pauses([(reference, heard) for heard in recordings]) == pytest.approx(expected, abs=1e-4)


def test_without_marks_nothing_is_learned_of_pauses():
    reference = read_marked_words("the cat sat")
    with pytest.raises(UserError, match="nothing to learn of pauses"):
        learn_pauses([(reference, say_words(["the", "cat", "sat"], [0.0, 1.0, 0.0]))])
