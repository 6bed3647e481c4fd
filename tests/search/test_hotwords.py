"""Hot words from a file, with weights of their own."""

from __future__ import annotations

import math

import pytest

from asr.errors import UserError
from asr.recognition.recognizer import normalise_phrase, parse_hotwords
from asr.search import SearchConfig
from asr.search.config import SearchError
from asr.search.hotwords import build_byte_automaton, build_word_automaton, read_phrases
from asr.text.tokenizer import TextConfig


def test_a_file_has_a_phrase_a_line_perhaps_with_a_weight(tmp_path):
    content = "\ufeff# names\r\nNew York\t2.5\n\nsaint martin\ncreaking :3\nroom 101\n"
    (tmp_path / "hot.txt").write_text(content, encoding="utf-8", newline="")
    phrases = {"New York": 2.5, "saint martin": 8.0, "creaking": 3.0, "room 101": 8.0}
    assert read_phrases(tmp_path / "hot.txt", 8.0) == phrases
    assert parse_hotwords(f"@{tmp_path / 'hot.txt'}", 8.0) == phrases


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("one\ttwo\n", "hot.txt:1: is not a phrase, a tab and a weight from 0 to 100"),
        ("one\n\ntwo\t101\n", "hot.txt:3: is not a phrase"),
        ("one\t-1\n", "hot.txt:1: is not a phrase"),
        ("one\tnan\n", "hot.txt:1: is not a phrase"),
        ("# none\n", "hot.txt: has no hot words"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, content, says):
    (tmp_path / "hot.txt").write_text(content)
    with pytest.raises(UserError, match=says):
        read_phrases(tmp_path / "hot.txt", 8.0)


def test_the_name_of_a_file_is_no_hot_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hot.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"hot\.txt is a file: @hot\.txt reads it"):
        parse_hotwords("two, hot.txt", 8.0)
    assert parse_hotwords("two, ,e.g. three", 8.0) == ["two", "e.g. three"]
    with pytest.raises(UserError, match=r"none\.txt: cannot be read"):
        parse_hotwords("@none.txt", 8.0)


def test_each_phrase_is_worth_its_own_weight():
    """What arriving at the end of a phrase adds: its weight for each word."""
    weights = {"a b": 2.0, "c": 5.0}
    words, numbers = build_word_automaton(weights, SearchConfig().hotword_weight)
    state, total = 0, 0.0
    for word in ("a", "b", "c"):
        state = int(words.following[state, numbers[word]])
        total += float(words.gains[state])
    assert total == pytest.approx(2 * 2.0 + 5.0)
    letters = build_byte_automaton(weights, 8.0)
    state, total = letters.start, 0.0
    for byte in b"a b c ":
        state = int(letters.following[state, byte])
        total += float(letters.gains[state])
    assert total == pytest.approx(2 * 2.0 + 5.0)
    assert build_byte_automaton(["c"], 5.0).gains.sum() == build_byte_automaton({"c": 5.0}, 1.0).gains.sum()


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0, 101.0])
def test_no_weight_is_out_of_bounds(weight):
    with pytest.raises(SearchError, match="the weight of 'a' is"):
        build_word_automaton({"a": weight}, 8.0)


def test_figures_are_hot_words_as_they_are_said_and_nothing_is_lost():
    config = TextConfig()
    assert normalise_phrase("Room 101", config) == "room one hundred and one"
    assert normalise_phrase("New York -", config) == "new york"
    with pytest.raises(UserError, match="nothing is left of '東京' in the form letters-v1"):
        normalise_phrase("in 東京", config)
