"""The recurrent language model without torch: against slow oracles, its file, sampling."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from asr.core.config import to_toml
from asr.lm.counting import read_corpus
from asr.lm.model import LanguageModelError
from asr.lm.perplexity import measure_perplexity, measure_sentence_perplexities
from asr.lm.recurrent import RecurrentConfig, RecurrentModel
from asr.lm.recurrent_file import (
    FORMAT,
    is_recurrent_file,
    list_shapes,
    make_model,
    open_recurrent_model,
    save_recurrent_model,
)
from asr.lm.sampling import SamplingConfig, sample_sentences
from asr.lm.spelling import learn_corpus_pieces, spell_corpus
from asr.text.pieces import END_PIECE, UNKNOWN_PIECE, Pieces
from tests.reference import lstm_log_probs

TEXT = (
    b"""the cat sat on the mat
the cats are on the mats
a cat and a mat
the dog sat on the log
dogs are at the log
"""
    * 4
)


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    return learn_corpus_pieces(read_corpus([TEXT]), 30)


def make_random_model(pieces: Pieces, layers: int = 2, size: int = 6, seed: int = 0) -> RecurrentModel:
    config = RecurrentConfig(pieces=len(pieces), size=size, layers=layers)
    generator = np.random.default_rng(seed)
    tensors = {
        name: generator.normal(0, 0.7, shape).astype(np.float32)
        for name, shape in list_shapes(config).items()
    }
    return make_model(config, tensors, pieces)


def compute_slowly(model: RecurrentModel, sentence: list[int]) -> list[float]:
    layers = [(layer.inputs, layer.hidden, layer.bias) for layer in model.layers]
    inputs = [END_PIECE, *sentence]
    rows = lstm_log_probs(model.embedding, layers, model.bias, inputs)
    return [float(row[piece]) for row, piece in zip(rows, [*sentence, END_PIECE], strict=True)]


def test_pieces_spell_every_word_and_say_what_they_do_not_know(pieces):
    for word in ("the", "mats", "tham", "cog"):
        assert pieces.join(pieces.spell(word)) == word
        assert UNKNOWN_PIECE not in pieces.spell(word)
    assert UNKNOWN_PIECE in pieces.spell("cät")
    assert pieces.join([*pieces.spell("the"), *pieces.spell("dog")]) == "the dog"


def test_a_spelled_text_has_an_end_behind_each_sentence(pieces):
    spelled = spell_corpus(read_corpus([b"the cat\n\ndogs sat\n"]), pieces).tolist()
    words = [pieces.spell(word) for word in ("the", "cat", "dogs", "sat")]
    assert spelled == [*words[0], *words[1], END_PIECE, *words[2], *words[3], END_PIECE]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_log_probs_are_those_of_a_slow_oracle(pieces, layers):
    model = make_random_model(pieces, layers)
    sentence = [5, 3, 9, 4, 4]
    expected = compute_slowly(model, sentence)
    assert model.score_pieces([sentence])[0] == pytest.approx(expected, abs=2e-5)


def test_sentences_that_begin_alike_score_as_they_do_alone(pieces):
    model = make_random_model(pieces)
    generator = np.random.default_rng(1)
    sentences = [generator.integers(2, 5, generator.integers(0, 7)).tolist() for _ in range(300)]
    together = model.score_pieces(sentences)
    for sentence, scored in zip(sentences, together, strict=True):
        assert scored == pytest.approx(model.score_pieces([sentence])[0], abs=1e-5)
        assert len(scored) == len(sentence) + 1


def test_a_piece_is_predicted_with_probability_one_in_all(pieces):
    model = make_random_model(pieces)
    states = model.advance(model.begin(3), np.array([1, 4, 2]))
    assert np.exp(model.predict(states).astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_perplexity_counts_words_and_ends_and_sets_unknown_words_apart(pieces):
    model = make_random_model(pieces)
    found = measure_perplexity(model, [b"the cat\n", b"\n a  m\xc3\xa4t\tsat \n"])
    log_probs = [compute_slowly(model, model.spell(s.split())) for s in ("the cat", "a mät sat")]
    total = sum(map(sum, log_probs))
    assert (found.words, found.unknown, found.sentences, found.ends) == (5, 1, 2, 2)
    assert found.log_prob == pytest.approx(total, abs=1e-4)
    assert found.including_unknown == pytest.approx(math.exp(-total / 7), rel=1e-4)
    first, last = len(model.pieces.spell("a")), len(model.pieces.spell("a")) + len(model.pieces.spell("mät"))
    unknown = sum(log_probs[1][first:last])
    assert found.excluding_unknown == pytest.approx(math.exp(-(total - unknown) / 6), rel=1e-4)


def test_each_sentence_has_its_own_perplexity(pieces):
    model = make_random_model(pieces)
    each = list(measure_sentence_perplexities(model, [b"the cat\n\na dog\n"]))
    assert [sentence for sentence, _ in each] == ["the cat", "a dog"]
    scored = model.score_words([["the", "cat"], ["a", "dog"]])
    assert [found.log_prob for _, found in each] == pytest.approx(scored.tolist(), abs=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_lists_share_what_comes_behind_the_same_pieces(pieces, layers):
    model = make_random_model(pieces, layers)
    words = ["the", "cat", "sat", "on", "a", "log"]
    generator = np.random.default_rng(2)
    lists = [
        [generator.choice(words, generator.integers(0, 8)).tolist() for _ in range(count)]
        for count in (30, 1, 0, 40)
    ]
    exact = [model.score_words(sentences) if sentences else np.zeros(0) for sentences in lists]
    for scored, alone in zip(model.score_lists(lists, reach=1000), exact, strict=True):
        assert scored == pytest.approx(alone, abs=1e-5)
    reach = 5
    # The definition: behind pieces that an earlier sentence of the list has, its states go on.
    for sentences, scored in zip(lists, model.score_lists(lists, reach), strict=True):
        known: dict[tuple[int, ...], list[int]] = {}
        for sentence, total in zip(sentences, scored, strict=True):
            read: list[int] = []  # what the states have read
            expected = 0.0
            spelled = model.spell(sentence)
            for place, piece in enumerate([*spelled, END_PIECE]):
                if place > reach:
                    read = known.setdefault(tuple(spelled[place - reach : place]), read)
                states = model.advance(model.begin(), np.array([END_PIECE]))
                for one in read:
                    states = model.advance(states, np.array([one]))
                expected += float(model.predict(states)[0, piece])
                read = [*read, piece]
            assert total == pytest.approx(expected, abs=1e-4)


# --- sampling -------------------------------------------------------------------------------------


def test_the_same_seed_samples_the_same_sentences(pieces):
    model = make_random_model(pieces)
    texts = list(sample_sentences(model, 20, SamplingConfig(seed=3)))
    assert texts == list(sample_sentences(model, 20, SamplingConfig(seed=3)))
    assert texts != list(sample_sentences(model, 20, SamplingConfig(seed=4)))


def test_pieces_come_as_often_as_the_model_says(pieces):
    model = make_random_model(pieces, layers=1)
    probabilities = np.exp(model.predict(model.advance(model.begin(), np.array([END_PIECE])))[0])
    texts = list(sample_sentences(model, 1500, SamplingConfig(longest=1)))
    empty = sum(text == "" for text in texts) / len(texts)
    # A sentence is empty where its end comes first.
    expected = probabilities[END_PIECE] / (1 - probabilities[UNKNOWN_PIECE])
    assert empty == pytest.approx(expected, abs=4 * math.sqrt(expected / 1500) + 1e-3)


def test_a_low_temperature_takes_the_likeliest_and_words_may_be_given(pieces):
    model = make_random_model(pieces)
    texts = set(sample_sentences(model, 5, SamplingConfig(longest=6, temperature=0, begin=("the", "cat"))))
    assert len(texts) == 1
    assert texts.pop().startswith("the cat")
    config = SamplingConfig(longest=6, temperature=0.001, begin=("the", "cat"))
    near = list(sample_sentences(model, 5, config))
    assert len(set(near)) == 1
    assert max(len(t.split()) for t in sample_sentences(model, 30, SamplingConfig(longest=2))) <= 2


# --- the file -------------------------------------------------------------------------------------


def test_a_file_keeps_the_model_to_a_step_of_its_rows(pieces, tmp_path):
    model = make_random_model(pieces)
    path = tmp_path / "lm.safetensors"
    save_recurrent_model(model, path)
    assert is_recurrent_file(path)
    read = open_recurrent_model(path)
    assert read.config == model.config
    assert read.pieces.model == pieces.model
    for before, after in ((model.embedding, read.embedding), (model.layers[1].hidden, read.layers[1].hidden)):
        steps = np.abs(before).max(axis=1, keepdims=True) / 127
        assert (np.abs(before - after) <= 0.5001 * steps).all()
        assert (before != after).any()
    save_recurrent_model(read, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


GOOD = f"version = 1\n{to_toml(RecurrentConfig(pieces=30, size=6, layers=2))}"


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({}, {"another": GOOD}, "no recurrent language model"),
        ({}, {FORMAT.name: GOOD.replace("version = 1", "version = 2")}, "later version"),
        ({}, {FORMAT.name: "size = "}, "no TOML"),
        ({}, {FORMAT.name: GOOD.replace("size = 6", "size = 7")}, "does not fit its options"),
        ({}, {FORMAT.name: GOOD.replace("size = 6", "size = 100000")}, "at most 4096"),
        ({"bias": np.zeros(4, np.float32)}, {FORMAT.name: GOOD}, "'bias' does not fit"),
        ({"bias": np.zeros(30, np.float64)}, {FORMAT.name: GOOD}, "'bias' does not fit"),
        ({"bias": np.full(30, np.nan, np.float32)}, {FORMAT.name: GOOD}, "not finite"),
        ({"embedding.scale": np.full(30, np.inf, np.float32)}, {FORMAT.name: GOOD}, "not finite"),
        ({"more": np.zeros(4, np.float32)}, {FORMAT.name: GOOD}, "'more' does not fit"),
        ({"pieces": np.zeros(50, np.uint8)}, {FORMAT.name: GOOD}, "pieces"),
        ({"pieces": np.zeros((2, 2), np.uint8)}, {FORMAT.name: GOOD}, "has no pieces"),
    ],
)
def test_a_damaged_file_is_an_error_of_one_line(pieces, tmp_path, tensors, metadata, message):
    path, target = tmp_path / "lm.safetensors", tmp_path / "changed.safetensors"
    save_recurrent_model(make_random_model(pieces), path)
    save_file({**load_file(path), **tensors}, target, metadata)
    with pytest.raises(LanguageModelError, match=message) as caught:
        open_recurrent_model(target)
    assert "\n" not in str(caught.value)
    assert str(target) in str(caught.value)


def test_every_file_that_is_cut_off_is_refused(pieces, tmp_path):
    path, target = tmp_path / "lm.safetensors", tmp_path / "cut.safetensors"
    save_recurrent_model(make_random_model(pieces), path)
    content = path.read_bytes()
    for length in (0, 4, 9, 100, len(content) // 2, len(content) - 1):
        target.write_bytes(content[:length])
        with pytest.raises(LanguageModelError):
            open_recurrent_model(target)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header) > {"embedding", "embedding.scale", "pieces", "bias"}


def test_weights_are_counted(pieces):
    model = make_random_model(pieces, layers=1)
    assert model.weights == 30 * 6 + 30 + 2 * 24 * 6 + 24
    assert replace(model.config, dropout=0.5).size == 6
