"""Greedy search and the times of words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.search import search_greedily
from asr.text.tokenizer import BLANK, SPACE, TextConfig, Tokenizer, learn_tokenizer
from asr.transcript.values import Word, make_words
from tests.reference import collapse

LETTERS = Tokenizer((BLANK, SPACE, "a", "b", "c"))


def make_spiky(path: list[int], vocabulary: int = 5, peak: float = 0.9) -> np.ndarray:
    """Log-probs whose best token in each frame is that of ``path``."""
    probabilities = np.full((len(path), vocabulary), (1 - peak) / (vocabulary - 1))
    probabilities[np.arange(len(path)), path] = peak
    return np.log(probabilities)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ([], ""),
        ([0, 0, 0], ""),
        ([2], "a"),
        ([2, 2, 2], "a"),
        ([2, 0, 2], "aa"),
        ([0, 2, 3, 3, 0, 1, 4, 0], "ab c"),
        ([1, 2, 1], "a"),  # spaces at the ends are no part of a text
        ([2, 1, 0, 1, 3], "a b"),
    ],
)
def test_a_path_is_collapsed(path, text):
    assert search_greedily(make_spiky(path), LETTERS, 0.04).text == text


@given(st.lists(st.integers(0, 4), max_size=30))
def test_tokens_are_those_of_the_oracle(path):
    hypothesis = search_greedily(make_spiky(path), LETTERS, 0.04)
    assert hypothesis.tokens == tuple(collapse(path))
    assert hypothesis.score == pytest.approx(len(path) * math.log(0.9))
    assert " ".join(word.text for word in hypothesis.words) == hypothesis.text
    times = [time for word in hypothesis.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(word.start < word.end <= 0.04 * len(path) + 1e-9 for word in hypothesis.words)
    assert all(word.confidence == pytest.approx(0.9) for word in hypothesis.words)


def test_a_word_lasts_from_its_first_token_to_its_last():
    #       0  1  2  3  4  5  6  7  8  9
    path = [0, 2, 2, 0, 3, 1, 0, 4, 4, 0]
    words = search_greedily(make_spiky(path), LETTERS, 0.1).words
    assert [(word.text, round(word.start, 6), round(word.end, 6)) for word in words] == [
        ("ab", 0.1, 0.5),
        ("c", 0.7, 0.9),
    ]


def test_a_word_is_as_sure_as_its_tokens_together():
    log_probs = np.concatenate([make_spiky([2], peak=0.9), make_spiky([3], peak=0.4)])
    (word,) = search_greedily(log_probs, LETTERS, 0.1).words
    assert word.confidence == pytest.approx(math.sqrt(0.9 * 0.4))


def test_pieces_with_several_letters_make_words():
    words = make_words([" ab", "c", " d e"], [0.0, 1.0, 2.0], [0.5, 1.5, 2.5], [1.0, 1.0, 0.5])
    assert words == (Word("abc", 0.0, 1.5, 1.0), Word("d", 2.0, 2.5, 0.5), Word("e", 2.0, 2.5, 0.5))


def test_bpe_pieces_give_the_text_back():
    tokenizer = learn_tokenizer(TextConfig(tokens="bpe", vocabulary_size=16), ["one two one two three"])
    path = [token for number in tokenizer.encode("two three one") for token in (number, 0)]
    hypothesis = search_greedily(make_spiky(path, len(tokenizer)), tokenizer, 0.04)
    assert hypothesis.text == "two three one"
    assert [word.text for word in hypothesis.words] == ["two", "three", "one"]
