"""Lexicons, their files, and English endings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from asr.text.lexicon import (
    PROBABILITY,
    Lexicon,
    LexiconError,
    Pronunciations,
    derive_pronunciations,
    make_lexicon,
    read_dictionary,
    read_lexicon,
    write_lexicon,
)

CMUDICT = Path(__file__).parents[3] / "shared" / "text" / "cmudict.dict"


def write_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_dictionary_is_read(tmp_path):
    path = write_file(
        tmp_path / "some.dict",
        ";;; a comment\n\ntomato T AH0 M EY1 T OW2\ntomato(2) T AH0 M AA1 T OW2 # British\nROSE  R OW1 Z\n",
    )
    lexicon = read_dictionary(path)
    assert lexicon["tomato"] == (("T", "AH", "M", "EY", "T", "OW"), ("T", "AH", "M", "AA", "T", "OW"))
    assert lexicon["rose"] == (("R", "OW", "Z"),)
    assert len(lexicon) == 2
    assert lexicon.phones == ("AA", "AH", "EY", "M", "OW", "R", "T", "Z")


PROBABLE = (
    "hello\t0.2\t0.2\t1.0\t1.0\tHH AH0 L OW1\nhello\t0.99\t0.1\t1.0\t1.0\tHH EH0 L OW1\nworld 0.5 W ER1 L D\n"
)


@pytest.mark.parametrize("read", [read_dictionary, read_lexicon])
def test_probabilities_are_no_phones_and_order_the_variants(tmp_path, read):
    """As the Montreal Forced Aligner and Kaldi's lexiconp.txt have them."""
    lexicon = read(write_file(tmp_path / "mfa.dict", PROBABLE))
    stress = {read_dictionary: "", read_lexicon: "0"}[read]
    assert lexicon["hello"][0][:2] == ("HH", f"EH{stress}")
    assert lexicon["hello"][1][:2] == ("HH", f"AH{stress}")
    assert lexicon["world"][0][0] == "W"
    assert not any("." in phone for phone in lexicon.phones)


@pytest.mark.parametrize(
    "lines",
    [
        ["schön S 2: n", "Ökonom 2: k o n o: m", "so z o:", "offen O f @ n", "Sonne z O n @"],  # X-SAMPA
        ["ma1 m a1", "ma2 m a2", "ma0 m a0", "ni3 n i3"],  # tones
        ["thé t e", "chat ʃ a", "rue ʁ y"],  # IPA
    ],
)
def test_phones_of_other_sets_stay_as_they_are(tmp_path, lines):
    lexicon = read_dictionary(write_file(tmp_path / "other.dict", "\n".join(lines) + "\n"))
    for line in lines:
        word, *phones = line.split()
        assert lexicon[word] == lexicon[word.lower()] == (tuple(phones),)


def test_arpabet_in_small_letters_is_arpabet(tmp_path):
    lexicon = read_dictionary(write_file(tmp_path / "x.dict", "go g ow1\nto t uw1\nSPOKEN_NOISE spn\n"))
    assert lexicon["go"] == (("G", "OW"),)
    assert lexicon["spoken_noise"] == (("SPN",),)


def test_variants_that_differ_in_stress_alone_are_one(tmp_path):
    path = write_file(tmp_path / "some.dict", "present P R EH1 Z AH0 N T\npresent(2) P R EH0 Z AH1 N T\n")
    assert read_dictionary(path)["present"] == (("P", "R", "EH", "Z", "AH", "N", "T"),)


@pytest.mark.parametrize("line", ["word", "word # W ER1 D", "word W 1 D", "#", " # comment"])
def test_a_broken_line_is_named(tmp_path, line):
    path = write_file(tmp_path / "some.dict", f"a AH0\n\n{line}\nb B IY1\n")
    with pytest.raises(LexiconError, match=r"some\.dict:3: "):
        read_dictionary(path)


@pytest.mark.parametrize("read", [read_dictionary, read_lexicon])
def test_files_that_are_no_lexicons_are_refused(tmp_path, read):
    with pytest.raises(LexiconError, match=r"none\.txt: cannot be read"):
        read(tmp_path / "none.txt")
    with pytest.raises(LexiconError, match=r"empty\.txt: has no words"):
        read(write_file(tmp_path / "empty.txt", "\n"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LexiconError, match=r"binary\.txt: is not UTF-8"):
        read(tmp_path / "binary.txt")


def test_a_text_is_no_dictionary(tmp_path):
    prose = "".join(f"line{n} holds word{n}x and another{n}x\n" for n in range(200))
    with pytest.raises(LexiconError, match=r"prose\.txt: is this a pronouncing.* It has 402 phones, from"):
        read_dictionary(write_file(tmp_path / "prose.txt", prose))


def test_a_word_without_phones_is_named(tmp_path):
    with pytest.raises(LexiconError, match=r"some\.txt:2: 'b' has no phones"):
        read_lexicon(write_file(tmp_path / "some.txt", "a AH\nb\n"))


symbols = st.text(st.characters(exclude_categories=("Z", "C")), min_size=1, max_size=4)
pairs = st.lists(st.tuples(symbols, st.lists(symbols, min_size=1).map(tuple)), min_size=1)


@settings(max_examples=50)
@given(pairs)
@example([("\u00a1", ("K", "0.", "T"))])
def test_written_lexicons_are_the_same(tmp_path_factory, pairs):
    assume(not any(PROBABILITY.fullmatch(phones[0]) for _, phones in pairs))
    path = tmp_path_factory.mktemp("lexicon") / "lexicon.txt"
    lexicon = make_lexicon(pairs)
    write_lexicon(lexicon, path)
    assert read_lexicon(path) == lexicon
    assert set(lexicon.words) == {word for word, _ in pairs}


def test_a_phone_that_reads_as_a_probability_is_not_written(tmp_path):
    with pytest.raises(LexiconError, match=r"'a': its first phone, 0\., reads as a probability"):
        write_lexicon(make_lexicon([("b", ("B",)), ("a", ("0.", "T"))]), tmp_path / "lexicon.txt")
    assert not (tmp_path / "lexicon.txt").exists()


@pytest.mark.parametrize("word", ["cat", "\u00e7at"])  # plain ones are read by columns
def test_short_probabilities_are_probabilities(tmp_path, word):
    path = write_file(tmp_path / "lexiconp.txt", f"{word} .5 K A T\n{word} 1. K E T\n")
    assert read_lexicon(path).words[word] == (("K", "E", "T"), ("K", "A", "T"))


DICTIONARY = Lexicon(
    {
        "cat": (("K", "AE", "T"),),
        "dog": (("D", "AO", "G"), ("D", "AA", "G")),
        "box": (("B", "AA", "K", "S"),),
        "lady": (("L", "EY", "D", "IY"),),
        "like": (("L", "AY", "K"),),
        "going": (("G", "OW", "IH", "NG"),),
        "going'": (("N", "O"),),
        "a": (("AH",),),
    }
)


def pronounce(word: str) -> Pronunciations:
    """A model that knows every word: it says X and what the letters are."""
    return DICTIONARY[word] if word in DICTIONARY else (("X", *word.upper()),)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cat's", "K AE T S"),
        ("dogs", "D AO G Z | D AA G Z"),
        ("boxes", "B AA K S IH Z"),
        ("box's", "B AA K S IH Z"),
        ("ladies", "L EY D IY Z"),
        ("likes", "L AY K S"),
        ("kap's", "X K A P S"),  # a stem that no dictionary has
        ("kaz's", "X K A Z IH Z"),
        ("cats'", "X C A T S"),  # what the model says of "cats"
        ("'dog", "D AO G | D AA G"),
        ("goin'", "G OW IH N"),
        ("cat'd", "K AE T IH D"),
        ("box'd", "B AA K S T"),
        ("dog'd", "D AO G D | D AA G D"),
        ("lady'll", "L EY D IY AH L"),
        ("lady've", "L EY D IY V"),
        ("cat've", "K AE T AH V"),
        ("dogn't", "D AO G AH N T | D AA G AH N T"),
        ("as", ""),  # is not the plural of "a"
        ("kaps", ""),  # may be a plural of anything
        ("catess", ""),
        ("cates", ""),  # "es" is heard behind a sibilant only
        ("'", ""),
        ("'s", "X S"),
    ],
)
def test_english_endings(word, said):
    variants = derive_pronunciations(word, DICTIONARY, pronounce)
    assert " | ".join(" ".join(phones) for phones in variants) == said


@pytest.mark.skipif(not CMUDICT.exists(), reason="the CMU Pronouncing Dictionary is not here")
def test_most_possessives_of_the_dictionary_follow_the_rule():
    lexicon = read_dictionary(CMUDICT)
    assert len(lexicon) > 125_000
    assert len(lexicon.phones) == 39
    possessives = [word for word in lexicon.words if word.endswith("'s") and word[:-2] in lexicon]
    right = [
        word
        for word in possessives
        if set(derive_pronunciations(word, lexicon, lexicon.__getitem__)) & set(lexicon[word])
    ]
    assert len(possessives) > 6000
    assert 0.94 < len(right) / len(possessives) < 0.99


def test_columns_and_words_are_two_forms_of_one_lexicon(tmp_path):
    pairs = [("b", ("B", "IY")), ("a", ("AH",)), ("a", ("EY",)), ("tee's", ("T", "IY", "Z"))]
    lexicon = make_lexicon(pairs)
    write_lexicon(lexicon, tmp_path / "some.txt")
    quickly = read_lexicon(tmp_path / "some.txt")
    (tmp_path / "other.txt").write_text((tmp_path / "some.txt").read_text().replace(" ", "  "))
    slowly = read_lexicon(tmp_path / "other.txt")
    assert quickly == slowly == lexicon
    for one, other in ((lexicon.columns, quickly.columns), (lexicon.columns, slowly.columns)):
        assert list(one.words) == list(other.words) == [word for word, _ in pairs]
        assert one.phones == other.phones == lexicon.phones == ("AH", "B", "EY", "IY", "T", "Z")
        assert one.codes.tolist() == other.codes.tolist()
        assert one.bounds.tolist() == other.bounds.tolist() == [0, 2, 3, 4, 7]


def test_no_more_phones_than_a_byte_can_name():
    with pytest.raises(LexiconError, match="300 phones"):
        assert make_lexicon((str(i), (f"P{i}",)) for i in range(300)).columns
