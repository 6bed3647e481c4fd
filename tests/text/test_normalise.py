"""Normalisers as tables of cases, and a user's own table."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asr.text.normalise import (
    NORMALISERS,
    NormaliserError,
    add_substitutions,
    list_characters,
    read_substitutions,
)
from asr.text.tokenizer import TextConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("  it’s   DON'T ", "it's don't"),
        ("well-known", "well known"),
        ("Café Ångström", "cafe angstrom"),
        ("room 101", "room"),
        ("tab\tand\nline", "tab and line"),
        ("", ""),
        ("ﬁne", "fine"),
    ],
)
def test_letters_v1(text, expected):
    assert NORMALISERS["letters-v1"](text) == expected


@given(st.text())
def test_letters_v1_has_only_letters_and_changes_nothing_twice(text):
    once = NORMALISERS["letters-v1"](text)
    assert set(once) <= set("abcdefghijklmnopqrstuvwxyz' ")
    assert NORMALISERS["letters-v1"](once) == once
    assert once == once.strip()
    assert "  " not in once


def test_none_v1_changes_nothing():
    assert NORMALISERS["none-v1"](" A  b\u0301 ") == " A  b\u0301 "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("STRASSE Straße", "strasse strasse"),
        ("don’t ’tis 'quoted' dogs'", "don't tis quoted dogs"),
        ("well-known — e.g. this…", "well known e g this"),
        ("Café cafe\u0301", "café café"),
        ("ＦＵＬＬ width ﬁne ½", "full width fine 1 2"),
        ("$5 + 10% #tag 👩‍🚀 ❤️", "5 10 tag"),
        ("漢字とカナ mixed", "漢 字 と カ ナ mixed"),
        ("ｶﾞｷﾞ", "ガ ギ"),
        ("한국어 말", "한국어 말"),
        ("שלום, עולם\u200f!", "שלום עולם"),
        ("नमस्ते दुनिया।", "नमस्ते दुनिया"),
        ("\ufeffone\0two\u00adthree\u200bfour", "one twothreefour"),
        ("one\r\ntwo\tthree\u3000four", "one two three four"),
        ("", ""),
        ("…", ""),
    ],
)
def test_basic_v1(text, expected):
    assert NORMALISERS["basic-v1"](text) == expected


@given(st.one_of(st.text(), st.text("ab'’ -.,1２カか漢ガ\u3099\u0301\ufe0f\u20ddßİΣ\u200d")))
@example("A\u20dd\u0300")
def test_basic_v1_changes_nothing_twice(text):
    once = NORMALISERS["basic-v1"](text)
    assert NORMALISERS["basic-v1"](once) == once == " ".join(once.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("İstanbul I\u0307stanbul ISPARTA", "istanbul istanbul isparta"),
        ("مـــرحبا", "مرحبا"),
        ("สวัสดี ครับ", "ส วั ส ดี ค รั บ"),
        ("ສະບາຍດີ", "ສ ະ ບ າ ຍ ດີ"),
        ("មួយ", "មួ យ"),
        ("မြန်မာ", "မြ န် မာ"),
        ("漢字とカナ mixed", "漢 字 と カ ナ mixed"),
        ("Hello, World!", "hello world"),
        ("한국어 말", "한국어 말"),
    ],
)
def test_basic_v2(text, expected):
    assert NORMALISERS["basic-v2"](text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("สวัสดี ครับผม", "สวัสดีครับ ผม"),
        ("ສະບາຍ ດີ", "ສະບາຍດີ"),
        ("សួស្តី ពិភពលោក", "សួស្តីពិភពលោក"),
        ("မင်္ဂလာ ပါ", "မင်္ဂလာပါ"),
        ("東京 都", "東京都"),
    ],
)
def test_basic_v2_does_not_care_where_scripts_without_spaces_have_some(one, other):
    assert NORMALISERS["basic-v2"](one) == NORMALISERS["basic-v2"](other)
    assert list_characters(NORMALISERS["basic-v2"](one)) == other.replace(" ", "")


@given(st.one_of(st.text(), st.text("ab'’ -.,1２カか漢ガ\u3099\u0301\ufe0f\u20ddßİI\u0307Σ\u200d\u0640สัดီကិក្")))
def test_basic_v2_changes_nothing_twice(text):
    once = NORMALISERS["basic-v2"](text)
    assert NORMALISERS["basic-v2"](once) == once == " ".join(once.split())


@given(st.text("abc XYZ'.-0123456789"))
def test_basic_v2_is_basic_v1_for_most_texts(text):
    assert NORMALISERS["basic-v2"](text) == NORMALISERS["basic-v1"](text)


def test_spaces_between_words_of_other_scripts_are_characters():
    assert list_characters("東 京 go on  now") == "東京go on now"
    assert list_characters("a b") == "a b"


ENGLISH_FIGURES = [
    ("7½", "seven and a half", "7.5"),
    ("7 1/2 cups", "seven and a half cups", "7.5 cups"),
    ("2¼ and 3¾", "two and a quarter and three and three quarters", "2.25 and 3.75"),
    ("7½ million", "seven and a half million", "7500000"),
    ("½ cup", "1/2 cup", "1/2 cup"),
    ("June 3, 1871", "june third eighteen seventy one", "june 3 1871"),
    ("on June 3rd, 1871,", "on June three eighteen seventy-one", "on june 3 1871"),
    ("3 June 1871", "third of June 1871", "3 june 1871"),
    ("in June 1905", "in june nineteen oh five", "in june 1905"),
    ("a 20mm gun", "a twenty mm gun", "a 20 mm gun"),
    ("20 mm, mm, yes", "twenty millimetres yes", "20 mm yes"),
    ("5 km or 1 kg", "five kilometers or one kilogram", "5 km or one kg"),
    ("at 5pm", "at five p m", "at 5 p m"),
    ("at 5 p.m.", "at five pm", "at 5 p m"),
    ("10:30am", "ten thirty a m", "1030 a m"),
    ("page 10-12", "page ten to twelve", "page 10 to 12"),
    ("1914–1918", "nineteen fourteen to nineteen eighteen", "1914 to 1918"),
    ("call 555-1234", "call five five five one two three four", "call 5551234"),
    ("in 2024-01-02", "in 20240102", "in 20240102"),
    ("I am 5", "i am five", "i am 5"),
    ("won 3-2", "won three two", "won 32"),
]


@pytest.mark.parametrize(("written", "spoken", "expected"), ENGLISH_FIGURES)
def test_english_v2_reads_figures_as_they_are_said(written, spoken, expected):
    normalise = NORMALISERS["english-v2"]
    assert [normalise(written), normalise(spoken), normalise(expected)] == [expected] * 3


@given(st.text())
def test_english_v2_takes_any_text(text):
    once = NORMALISERS["english-v2"](text)
    assert once == " ".join(once.split())
    assert "\ue000" not in once


ENGLISH = [
    # case, marks, brackets, fillers
    ("Um, he said (laughs) [noise] YES!", "he said yes"),
    ("uh-huh, mm-hmm, hundred uhs", "uh huh 100 uhs"),
    ("Café Ångström", "cafe angstrom"),
    # contractions
    (
        "I've won't can't cannot shan't couldn't've",
        "i have will not can not can not shall not could not have",
    ),
    (
        "it's been; she's gone; who's there; he's not got",
        "it has been she has gone who is there he has not got",
    ),
    ("John's car, the dogs' bowl", "john's car the dogs bowl"),
    ("I'd gone, I'd go, she'd've", "i had gone i would go she would have"),
    ("let's go, y'all, o'clock, 'em", "let us go you all o'clock them"),
    ("gonna wanna gotta dunno ain't", "going to want to got to do not know ain't"),
    ("do n't say 'hello'", "do not say hello"),
    # titles and abbreviations
    ("Mr. Smith, Mrs Jones, Dr. Who, St. John", "mister smith missus jones doctor who saint john"),
    ("U.S.A. and the U.S. at 5 p.m.", "usa and the us at 5 pm"),
    ("vs. etc. OK & so", "versus et cetera okay and so"),
    # numbers
    ("twenty-one", "21"),
    ("one hundred and twenty-three", "123"),
    ("a hundred or a million or nineteen hundred", "100 or 1000000 or 1900"),
    ("one million two hundred thousand and five", "1200005"),
    ("between one hundred and two hundred", "between 100 and 200"),
    ("one thousand and two thousand", "1000 and 2000"),
    ("nineteen eighty-four, 1984", "19841984"),
    ("in nineteen oh five", "in 1905"),
    ("two thousand ten or twenty ten", "2010 or 2010"),
    ("one two three; no one then one", "123 no one then one"),
    ("1,000,000 and 1,2,3", "1000000 and 123"),
    ("007", "007"),
    ("3.14 or three point one four or zero point oh five", "3.14 or 3.14 or 0.05"),
    ("two and a half million", "2500000"),
    ("3.5 million", "3500000"),
    ("-5 and minus five", "minus 5 and minus 5"),
    ("4:30 pm, four thirty", "430 pm 430"),
    ("5-year-old", "5 year old"),
    ("oh no, oh two of them", "oh no oh 2 of them"),
    ("½ cup", "1/2 cup"),
    # ordinals and decades
    ("first, second, 3rd", "1st 2nd 3rd"),
    ("the twenty-first, the 21st, the hundred and first", "the 21st the 21st the 101st"),
    ("eleventh twelfth thirteenth hundredth two thousandth", "11th 12th 13th 100th 2000th"),
    ("the sixties, the nineteen sixties, the 1960's", "the 60s the 1960s the 1960s"),
    # money and shares
    ("$20, twenty dollars, 20 dollars", "$20 $20 $20"),
    ("one dollar, $1", "$1 $1"),
    ("three dollars and five cents, $3.05", "$3.05 $3.05"),
    ("$3.5 million and then ten thousand pounds", "$3500000 and then £10000"),
    ("20 € or €20 or fifty cents or 50¢", "€20 or €20 or ¢50 or ¢50"),
    ("ten percent, ten per cent, 10%", "10% 10% 10%"),
    # spelling
    ("the colour of organised theatres travelling", "the color of organized theaters traveling"),
    ("four, for, our, hour, sour, wise, rise, promise", "4 for our hour sour wise rise promise"),
    # nothing to say
    ("", ""),
    ("...", ""),
    ("$ % & ' / -", "percent and"),
    ("日本語", "日本語"),
]


@pytest.mark.parametrize(("text", "expected"), ENGLISH)
def test_english_v1(text, expected):
    assert NORMALISERS["english-v1"](text) == expected
    assert NORMALISERS["english-v1"](expected) == expected


PARTED_IN_V2 = ("5 p.m.", "4:30 pm")  # "5 p m"


@pytest.mark.parametrize(("text", "expected"), ENGLISH)
def test_english_v2_is_english_v1_but_for_its_figures(text, expected):
    if not any(part in text for part in PARTED_IN_V2):
        assert NORMALISERS["english-v2"](text) == expected


@given(st.text())
def test_english_v1_takes_any_text(text):
    once = NORMALISERS["english-v1"](text)
    assert once == " ".join(once.split())


@given(st.integers(0, 999_999))
def test_english_v1_reads_numbers_as_they_are_said(number):
    assert NORMALISERS["english-v1"](f"was {spell_out(number)} then") == f"was {write_number(number)} then"


def spell_out(number: int) -> str:
    """A number below a million in words."""
    if number >= 1000:
        rest = number % 1000
        return f"{spell_out(number // 1000)} thousand" + (f" {spell_out(rest)}" if rest else "")
    if number >= 100:
        rest = number % 100
        return f"{spell_out(number // 100)} hundred" + (f" and {spell_out(rest)}" if rest else "")
    units = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    units += "sixteen seventeen eighteen nineteen"
    if number < 20:
        return units.split()[number]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"][number // 10 - 2]
    return tens + (f"-{spell_out(number % 10)}" if number % 10 else "")


def write_number(number: int) -> str:
    return "one" if number == 1 else str(number)


def test_a_configuration_names_normalisers_that_exist():
    assert set(get_args(get_type_hints(TextConfig)["normaliser"])) <= set(NORMALISERS)


# A user's own table


def test_a_table_replaces_whole_words_and_the_longest_phrase_first():
    table = {"New York City": "NYC", "new york": "ny", "gray": "grey", "uh": ""}
    normalise = add_substitutions(table, NORMALISERS["basic-v1"])
    assert normalise("Uh, New York City, new york, GRAY grayer.") == "nyc ny grey grayer"
    assert add_substitutions({}, NORMALISERS["basic-v1"])("A.") == "a"


def test_a_table_is_read_from_a_file(tmp_path):
    (tmp_path / "table.tsv").write_bytes(b"\xef\xbb\xbf# spellings\r\ngray\tgrey\r\n\r\nuh\t\r\n")
    assert read_substitutions(tmp_path / "table.tsv") == {"gray": "grey", "uh": ""}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"gray grey\n", r"table\.tsv:1: is not a phrase, a tab"),
        (b"a\tb\n\tb\n", r"table\.tsv:2: is not"),
        (b"a\tb\tc\n", r"table\.tsv:1: is not"),
        (b"a\tb\na\tc\n", r"table\.tsv:2: 'a' has another replacement further up"),
        (b"\xff", r"table\.tsv: is not UTF-8"),
        (None, r"table\.tsv: cannot be read"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path, content, says):
    if content is not None:
        (tmp_path / "table.tsv").write_bytes(content)
    with pytest.raises(NormaliserError, match=says):
        read_substitutions(tmp_path / "table.tsv")
