"""Tokenizers."""

from __future__ import annotations

import gzip
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.text.lexicon import Lexicon, LexiconError, write_lexicon
from asr.text.tokenizer import (
    BLANK,
    TextConfig,
    TextError,
    canonicalise,
    find_lexicon_file,
    learn_tokenizer,
    load_tokenizer,
    save_tokenizer,
)

CHAR = TextConfig(normaliser="none-v1", tokens="char")
LANGUAGES = [
    "the quick brown fox",
    "ガギグゲゴ と かな",  # kana with voicing marks
    "日本語の 文字",
    "naïve café, señor",
    "q\u0323\u0307 no composed form",  # two combining marks that stay
    "שלום עולם",
    "emoji 👩‍🚀 too",
]


@pytest.mark.parametrize("text", LANGUAGES)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "config", [CHAR, TextConfig(normaliser="none-v1", tokens="bpe", vocabulary_size=80)], ids=["char", "bpe"]
)
def test_languages_round_trip(text, form, config):
    tokenizer = learn_tokenizer(config, LANGUAGES)
    tokens = tokenizer.encode(unicodedata.normalize(form, text))
    assert tokenizer.decode(tokens) == canonicalise(text)
    assert 0 not in tokens
    assert max(tokens) < len(tokenizer)


@given(st.lists(st.text(), min_size=1).filter(lambda texts: any(map(canonicalise, texts))))
def test_any_learned_text_round_trips(texts):
    tokenizer = learn_tokenizer(CHAR, texts)
    assert tokenizer.symbols[0] == BLANK
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == canonicalise(text)


@settings(max_examples=50)
@given(st.lists(st.text(), min_size=1).filter(lambda texts: any(map(canonicalise, texts))))
def test_saved_tokenizers_are_the_same(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("tokens")
    tokenizer = learn_tokenizer(CHAR, texts)
    save_tokenizer(tokenizer, folder)
    assert load_tokenizer(folder) == tokenizer


def test_bpe_is_saved_and_makes_shorter_sequences(tmp_path):
    texts = ["one two three four five", "three two one", "five four three"] * 3
    tokenizer = learn_tokenizer(TextConfig(tokens="bpe", vocabulary_size=24), texts)
    save_tokenizer(tokenizer, tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode(texts[0]) == tokenizer.encode(texts[0])
    assert len(tokenizer.encode(texts[0])) < len(texts[0])
    assert len(tokenizer) == 24


@pytest.mark.parametrize("tokens", ["char", "bpe"])
def test_an_unknown_symbol_is_named_with_its_utterance(tokens):
    tokenizer = learn_tokenizer(TextConfig(tokens=tokens, vocabulary_size=12), ["abcde abc de"])
    with pytest.raises(TextError, match=r"utterance u7.*'é'.*U\+00E9"):
        tokenizer.encode("abé", "u7")


def test_nothing_to_learn_from():
    with pytest.raises(TextError, match="empty"):
        learn_tokenizer(CHAR, ["", "  "])


def test_a_vocabulary_too_large_is_an_error_that_says_so():
    with pytest.raises(TextError, match="vocabulary_size = 5000"):
        learn_tokenizer(TextConfig(tokens="bpe", vocabulary_size=5000), ["a b c"])


@pytest.mark.parametrize("content", ["a\nb\n", "<blank>\na\na\n", ""])
def test_a_broken_token_list_is_refused(tmp_path, content):
    (tmp_path / "tokens.txt").write_text(content)
    with pytest.raises(TextError, match=r"tokens\.txt"):
        load_tokenizer(tmp_path)


def test_a_broken_bpe_model_is_refused(tmp_path):
    (tmp_path / "tokens.txt").write_text("<blank>\na\n")
    (tmp_path / "bpe.model").write_bytes(b"not a model")
    with pytest.raises(TextError, match=r"bpe\.model"):
        load_tokenizer(tmp_path)


LEXICON = Lexicon(
    {
        "go": (("G", "OW"),),
        "on": (("AA", "N"), ("AO", "N")),
        "a": (("AH",), ("EY",)),
    }
)
PHONES = TextConfig(tokens="phones", lexicon="words.txt")


@pytest.fixture
def phones(tmp_path):
    write_lexicon(LEXICON, tmp_path / "words.txt")
    return learn_tokenizer(PHONES, ["go on"], tmp_path)


def test_words_become_the_phones_of_their_first_pronunciation(phones):
    assert phones.symbols == (BLANK, "AA", "AH", "AO", "EY", "G", "N", "OW")
    assert phones.encode("go  on a") == [5, 7, 1, 6, 2]
    assert phones.decode([5, 7, 1, 6, 2]) == "G OW AA N AH" == phones.to_phones("go on a")


def test_a_word_outside_the_lexicon_is_named_with_its_utterance(phones):
    with pytest.raises(TextError, match="utterance u7: word 'gone' is not in the lexicon"):
        phones.encode("go gone", "u7")
    assert phones.find_unknown("go gone on") == {"gone"}
    assert phones.to_phones("go gone on") == "G OW gone AA N"


def test_to_phones_changes_nothing_where_tokens_are_characters():
    tokenizer = learn_tokenizer(CHAR, ["go on"])
    assert tokenizer.to_phones("go  é") == "go  é"
    assert tokenizer.find_unknown("go é x") == {"é", "x"}


def test_a_vocabulary_of_phones_is_saved_with_its_lexicon(phones, tmp_path):
    save_tokenizer(phones, tmp_path / "model")
    assert load_tokenizer(tmp_path / "model") == phones
    (tmp_path / "model" / "lexicon.txt").write_text("go G OW\n")
    with pytest.raises(TextError, match=r"tokens\.txt: does not list the phones of lexicon\.txt"):
        load_tokenizer(tmp_path / "model")


def test_a_compressed_lexicon_stands_for_the_text(phones, tmp_path):
    save_tokenizer(phones, tmp_path)
    text = (tmp_path / "lexicon.txt").read_bytes()
    (tmp_path / "lexicon.txt").unlink()
    (tmp_path / "lexicon.txt.gz").write_bytes(gzip.compress(text))
    assert load_tokenizer(tmp_path) == phones
    (tmp_path / "lexicon.txt.gz").write_bytes(gzip.compress(text)[:-9])
    with pytest.raises(LexiconError, match=r"lexicon\.txt\.gz: is damaged"):
        load_tokenizer(tmp_path)
    save_tokenizer(phones, tmp_path)  # as text again, which leaves no second one behind
    assert find_lexicon_file(tmp_path) == tmp_path / "lexicon.txt"
    assert not (tmp_path / "lexicon.txt.gz").exists()


def test_phones_need_a_lexicon(tmp_path):
    with pytest.raises(TextError, match=r"text\.lexicon"):
        learn_tokenizer(TextConfig(tokens="phones"), ["go"])
    with pytest.raises(LexiconError, match=r"words\.txt: cannot be read"):
        learn_tokenizer(PHONES, ["go"], tmp_path)
