"""Marks read from prose and written back; the tagger without torch, its windows and its file."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from asr.core.config import ConfigError, to_toml
from asr.text.marks import (
    COMMA,
    LOWER,
    MARKS,
    NONE,
    QUESTION,
    STOP,
    TITLE,
    UPPER,
    read_marked_words,
    write_words,
)
from asr.text.pieces import learn_pieces
from asr.text.punctuation import (
    CLASSES,
    FORMAT,
    PunctuationError,
    Tagger,
    TaggerConfig,
    list_shapes,
    make_tagger,
    open_tagger,
    save_tagger,
)
from tests.reference import lstm_states

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "i", "saw", "london"]
PIECES = learn_pieces(dict.fromkeys(WORDS, 3), 30)


def make_random_tagger(layers: int = 2, seed: int = 0, scale: float = 0.6) -> Tagger:
    config = TaggerConfig(pieces=len(PIECES), embedding=5, size=4, layers=layers)
    generator = np.random.default_rng(seed)
    shapes = list_shapes(config)
    weights = {name: generator.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    return make_tagger(config, weights, PIECES)


# --- marks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat sat.", [("the", NONE, TITLE), ("cat", NONE, LOWER), ("sat", STOP, LOWER)]),
        ("No! Why? Yes", [("no", STOP, TITLE), ("why", QUESTION, TITLE), ("yes", NONE, TITLE)]),
        ("“Why?” he said", [("why", COMMA, TITLE), ("he", NONE, LOWER), ("said", NONE, LOWER)]),
        ("a; b: c--d", [("a", COMMA, LOWER), ("b", COMMA, LOWER), ("c", COMMA, LOWER), ("d", NONE, LOWER)]),
        ("Mr. Fox met Dr. No.", [
            ("mister", NONE, TITLE), ("fox", NONE, TITLE), ("met", NONE, LOWER),
            ("doctor", NONE, TITLE), ("no", STOP, TITLE),
        ]),
        ("It’s the USA, well-known", [
            ("it's", NONE, TITLE), ("the", NONE, LOWER), ("usa", COMMA, UPPER),
            ("well", NONE, LOWER), ("known", NONE, LOWER),
        ]),
        ("_Très_ bien", [("tres", NONE, TITLE), ("bien", NONE, LOWER)]),
        ("In 1862 he", []),
        ("", []),
    ],
)  # fmt: skip
def test_prose_is_read_as_words_with_marks(text, expected):
    assert [(word.text, word.mark, word.case) for word in read_marked_words(text)] == expected


def test_words_are_written_with_their_marks_and_sentences_begin_with_capitals():
    words = ["i", "saw", "usa", "why", "mcfoo"]
    written = write_words(words, [NONE, COMMA, STOP, QUESTION, NONE], [TITLE, LOWER, UPPER, LOWER, TITLE])
    assert written == ["I", "saw,", "USA.", "Why?", "Mcfoo"]
    assert write_words(["and"], [NONE], [LOWER], begins_sentence=False) == ["and"]


# --- the tagger -----------------------------------------------------------------------------------


def tag_slowly(tagger: Tagger, words: list[str]) -> np.ndarray:
    pieces = [PIECES.spell(word) for word in words]
    states = [[float(x) for x in tagger.embedding[piece]] for word in pieces for piece in word]
    for ahead, back in tagger.layers:
        forward = lstm_states(ahead.inputs, ahead.hidden, ahead.bias, states)
        backward = lstm_states(back.inputs, back.hidden, back.bias, states[::-1])[::-1]
        states = [a + b for a, b in zip(forward, backward, strict=True)]
    rows = []
    for place in np.cumsum([len(word) for word in pieces]) - 1:
        scores = tagger.output.astype(np.float64) @ np.array(states[place]) + tagger.bias
        rows.append([*(s - np.logaddexp.reduce(s) for s in (scores[:4], scores[4:]))])
    return np.array([np.concatenate(row) for row in rows])


@pytest.mark.parametrize("layers", [1, 2])
def test_classes_are_those_of_a_slow_oracle(layers):
    tagger = make_random_tagger(layers)
    words = ["the", "cat", "saw", "london", "and", "a", "tomcat"]
    found = tagger.tag(words)
    assert found.shape == (7, CLASSES)
    assert found == pytest.approx(tag_slowly(tagger, words), abs=1e-5)


def test_windows_see_what_the_whole_sees_where_their_context_reaches():
    # With small weights a state forgets within a few words what came before.
    tagger = make_random_tagger(scale=0.25)
    words = np.random.default_rng(0).choice(WORDS, 200).tolist()
    whole = tagger.tag(words, window=1000)
    for window, context in ((40, 12), (41, 13), (100, 16)):
        assert tagger.tag(words, window, context) == pytest.approx(whole, abs=1e-3)
    # Each window's rows are those of a text that begins and ends with it.
    rows = tagger.tag(words, 40, 12)
    alone = tagger.tag(words[16:56], window=1000)
    assert rows[28:44] == pytest.approx(alone[12:28], abs=1e-5)


def test_texts_side_by_side_are_tagged_as_each_alone():
    tagger = make_random_tagger(2)
    texts = [(WORDS * 9)[first : first + count] for first, count in enumerate([1, 30, 0, 80, 7, 45, 2, 41])]
    together = tagger.tag_texts(texts, 40, 12)
    assert [rows.shape for rows in together] == [(len(words), CLASSES) for words in texts]
    for words, rows in zip(texts, together, strict=True):
        assert rows == pytest.approx(tagger.tag(words, 40, 12), abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 39, 40, 41, 56, 57, 80])
def test_every_word_is_tagged_whatever_the_length(count):
    tagger = make_random_tagger(scale=0.25)
    words = (WORDS * 9)[:count]
    assert tagger.tag(words, 40, 12) == pytest.approx(tagger.tag(words, 1000), abs=1e-3)


def test_a_text_ends_as_a_sentence_unless_more_comes():
    tagger = make_random_tagger()
    never = tagger.bias.copy()
    never[[COMMA, STOP, QUESTION, len(MARKS) + TITLE, len(MARKS) + UPPER]] = -50
    quiet = Tagger(tagger.config, PIECES, tagger.embedding, tagger.layers, 0 * tagger.output, never)
    assert quiet.punctuate(["the", "cat"]) == ["The", "cat."]
    assert quiet.punctuate(["the", "cat"], after=["sat"]) == ["The", "cat"]
    assert quiet.punctuate(["the", "cat"], before=["and"], after=["a"], begins_sentence=False) == [
        "the",
        "cat",
    ]
    assert quiet.punctuate([]) == []


def test_other_words_of_the_text_help_to_judge():
    tagger = make_random_tagger()
    words = ["cat", "sat", "on"]
    rows = tagger.tag(["the", *words, "a", "mat"])[1:4]
    marks, cases = rows[:, :4].argmax(1).tolist(), rows[:, 4:].argmax(1).tolist()
    assert tagger.punctuate(words, ["the"], ["a", "mat"]) == write_words(words, marks, cases)


def make_even_tagger(pauses: tuple[float, ...]) -> Tagger:
    """A tagger for which no mark is twice as probable as a comma, and that three times as a full stop."""
    tagger = make_random_tagger()
    bias = np.full(CLASSES, -50.0, np.float32)
    bias[[NONE, COMMA, STOP, len(MARKS) + LOWER]] = [np.log(6), np.log(3), 0, 0]
    config = replace(tagger.config, pauses=pauses)
    return Tagger(config, PIECES, tagger.embedding, tagger.layers, 0 * tagger.output, bias)


def test_pauses_say_whether_a_mark_stands_behind_a_word_but_not_which():
    gains = (-1.0, 0.0, 0.6, 0.8, 2.0, 3.0)  # log(2) = 0.69 is what a comma lacks
    tagger = make_even_tagger(gains)
    words = ["the", "cat", "sat", "on", "a", "mat"]
    pauses = [0.0, 0.1, 0.2, 0.3, 2.0, math.nan]  # a pause of 0.3 s is in the class that begins there
    written = tagger.punctuate(words, after=["and"], pauses=pauses)
    assert written == ["The", "cat", "sat", "on,", "a,", "mat"]
    assert tagger.punctuate(words, after=["and"]) == ["The", *words[1:]]
    deaf = make_even_tagger(())
    assert deaf.punctuate(words, after=["and"], pauses=pauses) == ["The", *words[1:]]
    # Where a sentence ends behind the last word, it is not what was said of the pause that makes it one.
    assert tagger.punctuate(words, pauses=pauses)[-1] == "mat."


def test_the_numbers_of_pauses_are_one_for_each_class():
    with pytest.raises(ConfigError, match="has 2 numbers, not 6"):
        TaggerConfig(pauses=(0.0, 1.0))
    with pytest.raises(ConfigError, match="pauses"):
        TaggerConfig(pauses=(0.0, 1.0, 2.0, math.nan, 0.0, 0.0))


# --- the file -------------------------------------------------------------------------------------


def test_a_file_keeps_the_tagger_to_a_step_of_its_rows(tmp_path):
    plain, path = make_random_tagger(), tmp_path / "punctuation.safetensors"
    tagger = replace(plain, config=replace(plain.config, pauses=(-1.5, 0.25, 0.0, 1.0, 2.0, 3.0)))
    save_tagger(tagger, path)
    read = open_tagger(path)
    assert read.config == tagger.config
    assert read.tag(WORDS) == pytest.approx(tagger.tag(WORDS), abs=0.1)
    save_tagger(read, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


GOOD = f"version = 1\n{to_toml(TaggerConfig(pieces=30, embedding=5, size=4, layers=2))}"


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({}, "version = 2", "later version"),
        ({}, GOOD.replace("size = 4", "size = 5"), "does not fit its options"),
        ({}, GOOD.replace("layers = 2", "layers = 100"), "at most 8"),
        ({"output": np.zeros((7, 9), np.int8)}, GOOD, "'output' does not fit"),
        ({"bias": np.full(7, np.inf, np.float32)}, GOOD, "not finite"),
        ({"pieces": np.zeros(9, np.uint8)}, GOOD, "pieces"),
    ],
)
def test_a_damaged_file_is_an_error_of_one_line(tmp_path, tensors, options, message):
    path = tmp_path / "punctuation.safetensors"
    save_tagger(make_random_tagger(), path)
    save_file({**load_file(path), **tensors}, path, {FORMAT.name: options})
    with pytest.raises(PunctuationError, match=message) as caught:
        open_tagger(path)
    assert "\n" not in str(caught.value)
