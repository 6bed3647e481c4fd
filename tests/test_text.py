"""Tokenizers."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.text import (
    BLANK,
    TextConfig,
    TextError,
    canonical,
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
    assert tokenizer.decode(tokens) == canonical(text)
    assert 0 not in tokens
    assert max(tokens) < len(tokenizer)


@given(st.lists(st.text(), min_size=1).filter(lambda texts: any(map(canonical, texts))))
def test_any_learned_text_round_trips(texts):
    tokenizer = learn_tokenizer(CHAR, texts)
    assert tokenizer.symbols[0] == BLANK
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == canonical(text)


@settings(max_examples=50)
@given(st.lists(st.text(), min_size=1).filter(lambda texts: any(map(canonical, texts))))
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
