"""Reading, writing, storing and looking up n-gram models."""

from __future__ import annotations

import gzip
import lzma
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asr.errors import UserError
from asr.lm.arpa import read_arpa, write_arpa
from asr.lm.model import NgramModel, score_word
from asr.lm.storage import HEADER, load_model, open_model, save_model
from asr.lm.vocabulary import UNKNOWN, build_vocabulary
from tests.reference import Ngrams, backoff_log_prob

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "lm"
LN10 = math.log(10)
UNHURRIED = settings(deadline=None)  # the first call compiles
WORDS = ["<s>", "</s>", "<unk>", "a", "bé", "c"]

SMALL = """\
a comment, which the format allows
\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.7\t</s>
-0.6\tgo\t-0.25
-0.8\ton\t-0.125

\\2-grams:
-0.2\t<s> go\t-0.75
-0.3\tgo on
-0.4\ton </s>

\\3-grams:
-0.1\t<s> go on

\\end\\
"""


def arpa_text(ngrams: Ngrams, order: int) -> str:
    """An ARPA file of n-grams with log10 values; a back-off weight of exactly 0 is left out."""
    by_order = [{n: v for n, v in ngrams.items() if len(n) == k} for k in range(1, order + 1)]
    lines = ["\\data\\", *(f"ngram {k}={len(group)}" for k, group in enumerate(by_order, start=1))]
    for k, group in enumerate(by_order, start=1):
        lines += ["", f"\\{k}-grams:"]
        for words, (log_prob, backoff) in group.items():
            lines.append(f"{log_prob!r}\t{' '.join(words)}" + (f"\t{backoff!r}" if backoff else ""))
    return "\n".join([*lines, "", "\\end\\", ""])


def read_text(folder: Path, text: str) -> NgramModel:
    path = folder / "small.arpa"
    path.write_text(text, encoding="utf-8")
    return read_arpa(path)


log10s = st.floats(-9, 0).map(lambda x: round(x, 4))
backoffs = st.one_of(st.just(0.0), st.floats(-3, 2).map(lambda x: round(x, 4)))


@st.composite
def back_off_models(draw) -> tuple[dict, int]:
    """Any set of n-grams over six words: beginnings and ends of n-grams may be missing, but no word."""
    order = draw(st.integers(1, 6))
    ngrams = {
        (word,): (draw(log10s), draw(backoffs) if order > 1 else 0.0) for word in draw(st.permutations(WORDS))
    }
    for _ in range(draw(st.integers(0, 30))):
        words = tuple(draw(st.lists(st.sampled_from(WORDS[3:]), min_size=1, max_size=order)))
        ngrams[words] = (draw(log10s), draw(backoffs) if len(words) < order else 0.0)
    return ngrams, order


@UNHURRIED
@given(back_off_models(), st.data())
def test_any_model_scores_as_the_oracle(tmp_path_factory, model, data):
    """On texts put together from the model's own n-grams, so that long ones are met and left again."""
    ngrams, order = model
    parts = data.draw(st.lists(st.sampled_from([*ngrams, ("new",)]), max_size=12))
    words = [word for part in parts for word in part]
    read = read_text(tmp_path_factory.mktemp("arpa"), arpa_text(ngrams, order))
    known = [word if word in WORDS else UNKNOWN for word in words]
    log_probs, _ = read.score_words(words)
    expected = [
        LN10 * backoff_log_prob(ngrams, known[max(0, i - order + 1) : i], known[i]) for i in range(len(known))
    ]
    assert log_probs == pytest.approx(expected, abs=1e-5, rel=1e-6)


@UNHURRIED
@given(back_off_models())
def test_a_model_survives_writing(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("arpa")
    read = read_text(folder, arpa_text(*model))
    assume(read.trie.log_probs.max() <= 0)  # what is put in for a missing n-gram may be above 1 here
    write_arpa(read, folder / "again.arpa.gz")
    save_model(read, folder / "again.lm")
    again, stored = read_arpa(folder / "again.arpa.gz"), load_model(folder / "again.lm")
    for loaded, tolerance in ((again, 1e-6), (stored, 0)):
        assert loaded.counts == read.counts
        assert loaded.vocabulary.words == read.vocabulary.words
        for array, original in zip(loaded.trie, read.trie, strict=True):
            assert array.dtype == original.dtype
            np.testing.assert_allclose(array, original, atol=tolerance, rtol=0)


@UNHURRIED
@given(back_off_models())
def test_contexts_between_which_a_model_cannot_tell_are_one_state(tmp_path_factory, model):
    trie = read_text(tmp_path_factory.mktemp("arpa"), arpa_text(*model)).trie
    inner = len(trie.backoffs)
    live = {0} | {
        n for n in range(inner) if trie.first_child[n] < trie.first_child[n + 1] or trie.backoffs[n]
    }
    assert set(trie.states.tolist()) <= live
    assert set(trie.suffixes.tolist()) <= live
    assert (trie.suffixes[1:] < np.arange(1, inner)).all()


def test_a_small_model_by_hand(tmp_path):
    model = read_text(tmp_path, SMALL)
    assert model.counts == (5, 3, 1)
    assert model.vocabulary.words == ["</s>", "<s>", "<unk>", "go", "on"]
    log_probs, state = model.score_words(["go", "on", "on", "</s>", "other"], model.begin)
    # <s> go; <s> go on; back off from "go on" (no weight) and "on"; on </s>; </s> has no weight
    assert log_probs == pytest.approx([LN10 * x for x in (-0.2, -0.1, -0.125 - 0.8, -0.4, -1.0)], rel=1e-6)
    assert state == 0
    assert model.score_words(["</s>"], model.score_words(["go"], model.begin)[1])[0] == pytest.approx(
        [LN10 * (-0.75 - 0.25 - 0.7)], rel=1e-6
    )


def test_without_an_unknown_word_one_is_added(tmp_path):
    text = SMALL.replace("ngram 1=5", "ngram 1=4").replace("-1.0\t<unk>\n", "")
    model = read_text(tmp_path, text)
    assert model.counts == (5, 3, 1)
    assert model.score_words(["other"])[0] == pytest.approx([-100 * LN10])
    assert read_text(tmp_path, SMALL.replace("<unk>", "<UNK>")).vocabulary.words == model.vocabulary.words


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, lzma.compress])
@pytest.mark.parametrize("spelling", [lambda text: text, lambda text: text.replace("\n", "\r\n")])
def test_packed_or_not_with_any_line_ends(tmp_path, pack, spelling):
    path = tmp_path / "model"
    path.write_bytes(pack(spelling(SMALL).encode()))
    assert (
        load_model(path).score_words(["go", "on"])[0]
        == read_text(tmp_path, SMALL).score_words(["go", "on"])[0]
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("\\data\\", "data", 1, r"no line \\data\\"),
        ("ngram 2=3", "ngram 3=3", 4, "'ngram 2='"),
        ("ngram 1=5", "ngram 1=0", 3, "1-grams"),
        ("ngram 2=3", "ngram 2=3000000000", 3, "too short"),
        ("ngram 3=1", "".join(f"ngram {k}=1\n" for k in range(3, 8)), 3, "highest"),
        ("\\2-grams:", "\\two-grams:", 14, r"\\2-grams: must come here"),
        ("ngram 1=5", "ngram 1=4", 12, r"\\2-grams: must come here, not '-0.8"),
        ("ngram 2=3", "ngram 2=4", 18, "promises 4 2-grams"),
        ("-0.3\tgo on", "-0.3x\tgo on", 16, "no number"),
        ("-0.3\tgo on", "-0.3\tgo on\t1e", 16, "no number"),
        ("-0.3\tgo on", "nan\tgo on", 16, "no number"),
        ("-0.3\tgo on", "-0.3\tgo", 16, "2 words"),
        ("-0.3\tgo on", "-0.3\tgo on and on", 16, "2 words"),
        ("-0.3\tgo on", "-0.3\tgo off", 16, "not among the 1-grams"),
        ("-0.3\tgo on", "-0.3\ton </s>", 17, "already"),
        ("-0.8\ton", "-0.8\tgo", 12, "already"),
        ("-0.3\tgo on", "0.3\tgo on", 16, "above 0"),
        ("\\end\\", "", 23, "the file ends"),
        ("\\end\\", "-0.1\tgo on on", 22, r"not '-0.1"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line_with_its_number(tmp_path, old, new, line, said):
    assert old in SMALL
    with pytest.raises(UserError, match=rf"small\.arpa:{line}: .*{said}") as caught:
        read_text(tmp_path, SMALL.replace(old, new))
    assert "\n" not in str(caught.value)


@UNHURRIED
@given(st.integers(0, len(SMALL) - 1), st.sampled_from(["", "x", "\n", "\t", "9", "\\", "\0", "é"]))
def test_no_damage_does_more_than_an_error(tmp_path_factory, place, put):
    damaged = SMALL[:place] + put + SMALL[place + 1 :]
    try:
        read_text(tmp_path_factory.mktemp("arpa"), damaged)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("damage", [lambda d: d[:40], lambda d: d[: len(d) // 2], lambda d: d + b"x"])
def test_a_packed_file_that_was_cut_off_is_refused(tmp_path, damage):
    path = tmp_path / "cut.arpa.gz"
    path.write_bytes(damage(gzip.compress(SMALL.encode() * 100)))
    with pytest.raises(UserError, match=r"cut\.arpa\.gz"):
        load_model(path)


def test_every_changed_byte_of_a_binary_file_is_found(tmp_path):
    path, copy = tmp_path / "small.lm", tmp_path / "copy.lm"
    save_model(read_text(tmp_path, SMALL), path)
    content = path.read_bytes()
    open_model(path, verify=True)
    filled = HEADER.size + np.flatnonzero(np.frombuffer(content, np.uint8)[HEADER.size :])
    for place in [*range(HEADER.size), *filled.tolist()]:
        copy.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"copy\.lm"):
            open_model(copy, verify=True)
    for cut in (0, 10, HEADER.size, len(content) - 1):
        copy.write_bytes(content[:cut])
        with pytest.raises(UserError, match=r"copy\.lm"):
            load_model(copy)


def test_a_missing_file_is_named(tmp_path):
    for read in (load_model, open_model, read_arpa):
        with pytest.raises(UserError, match=r"nothing\.lm"):
            read(tmp_path / "nothing.lm")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.arpa"
    path.write_text("old")
    with pytest.raises(AttributeError):
        write_arpa(None, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_one_compiled_look_up_serves_models_wherever_they_are_from(tmp_path):
    read = read_text(tmp_path, SMALL)
    save_model(read, tmp_path / "small.lm")
    score_word(read.trie, read.begin, 0)
    compiled = len(score_word.signatures)
    stored = open_model(tmp_path / "small.lm")
    assert score_word(stored.trie, stored.begin, 0) == score_word(read.trie, read.begin, 0)
    assert len(score_word.signatures) == compiled


@UNHURRIED
@given(st.sets(st.text(st.characters(exclude_characters=" \t\r\n", exclude_categories=["Cs"]), min_size=1)))
def test_a_vocabulary_finds_its_words(words):
    encoded = sorted(word.encode() for word in words)
    vocabulary = build_vocabulary(encoded)
    assert vocabulary.words == [word.decode() for word in encoded]
    assert [vocabulary.find(word) for word in vocabulary.words] == list(range(len(words)))
    assert vocabulary.numbers == {word: vocabulary.find(word) for word in words}
    assert all(
        vocabulary.find(word + "x") == (-1 if word + "x" not in words else vocabulary.numbers[word + "x"])
        for word in words
    )


@pytest.mark.skipif(not REFERENCE.exists(), reason="needs the reference models in ../shared/reference/lm")
@pytest.mark.parametrize("name", ["3gram", "4gram-prune-0-0-1-1"])
def test_n_grams_of_a_real_model_are_found(name):
    """What KenLM's lmplz wrote, one of ten n-grams, against the lines themselves."""
    model = read_arpa(REFERENCE / f"{name}.arpa.gz")
    with gzip.open(REFERENCE / f"{name}.arpa.gz", "rt", encoding="utf-8") as file:
        lines = [line.split("\t") for line in file if "\t" in line]
    assert len(lines) == sum(model.counts)
    for log10, ngram, *_ in lines[::10]:
        log_probs, _ = model.score_words(ngram.split())
        assert log_probs[-1] == pytest.approx(float(log10) * LN10, abs=2e-6)
