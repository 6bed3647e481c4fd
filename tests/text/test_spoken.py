"""Figures and signs in words, remarks left out, and the text's own spelling kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.text.normalise import NORMALISERS
from asr.text.spoken import make_ordinal, spell_number, split_written, write_out
from tests.text.test_normalise import spell_out

LETTERS = NORMALISERS["letters-v1"]


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("21", "twenty one"),
        ("$20.05", "twenty dollars and five cents"),
        ("£1", "one pound"),
        ("£2.01", "two pounds and one penny"),
        ("50%", "fifty percent"),
        ("R&D", "r and d"),
        ("1,205", "one thousand two hundred and five"),
        ("1871", "eighteen seventy one"),
        ("1905,", "nineteen oh five"),
        ("2000", "two thousand"),
        ("1900", "nineteen hundred"),
        ("1960s", "nineteen sixties"),
        ("3.14", "three point one four"),
        ("007", "zero zero seven"),
        ("21st", "twenty first"),
        ("20th", "twentieth"),
        ("7½", "seven and a half"),
        ("10-12", "ten to twelve"),
        ("5:30pm", "five thirty pm"),
        ("5:05", "five oh five"),
        ("don't", "don't"),
        ("Well-known!", "well known"),
        ("—", ""),
    ],
)
def test_a_written_word_is_read_aloud(written, spoken):
    (word,), remarks = split_written(written, LETTERS)
    assert word.text == written
    assert " ".join(word.spoken) == spoken
    assert not word.is_lost
    assert remarks == []


@given(st.integers(0, 999_999))
def test_numbers_are_spelled_as_they_are_said(number):
    spelled = spell_number(number).replace(" and ", " ")
    assert spelled == spell_out(number).replace(" and ", " ").replace("-", " ")


@given(st.text())
def test_any_text_is_read(text):
    words, _ = split_written(text, LETTERS)
    assert all(set(" ".join(word.spoken)) <= set("abcdefghijklmnopqrstuvwxyz' ") for word in words)
    write_out(text)


def test_remarks_are_no_words_and_what_is_lost_is_known():
    words, remarks = split_written(
        "Yes (unintelligible) we [laughs] can <unk>, 日本 {a / b} go ( ).", LETTERS
    )
    assert remarks == ["(unintelligible)", "[laughs]", "<unk>", "{a / b}"]
    assert [word.text for word in words if word.is_lost] == ["日本"]
    assert [word.text for word in words if word.spoken] == ["Yes", "we", "can", "go"]


def test_a_model_that_writes_figures_keeps_them():
    (word,), _ = split_written("21", NORMALISERS["none-v1"])
    assert word.spoken == ("21",)


def test_ordinals():
    assert [make_ordinal(word) for word in ("one", "five", "twelve", "twenty", "forty two", "hundred")] == [
        "first",
        "fifth",
        "twelfth",
        "twentieth",
        "forty second",
        "hundredth",
    ]
