"""Language models estimated from text, what they give other texts, and ``asr lm``."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import math
import os
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.cli import main
from asr.errors import UserError
from asr.lm import counting
from asr.lm.arpa import read_arpa
from asr.lm.estimation import FALLBACK, EstimationConfig, EstimationError, estimate
from asr.lm.model import NgramModel
from asr.lm.packed import unpack_nodes
from asr.lm.perplexity import measure_perplexity, measure_sentence_perplexities
from asr.lm.sampling import SamplingConfig, predict_next, sample_sentences
from asr.lm.storage import save_model
from asr.lm.text import SentenceConfig, read_sentences, split_sentences
from asr.lm.vocabulary import BEGIN
from tests.reference import Ngrams, kneser_ney

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "lm"
UNHURRIED = settings(deadline=None)  # the first call compiles

texts = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=7), min_size=1, max_size=30)
thresholds = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(sorted)


def estimate_lines(sentences: list[list[str]], **options) -> NgramModel:
    text = "".join(" ".join(sentence) + "\n" for sentence in sentences)
    return estimate([text.encode()], EstimationConfig(discount_fallback=FALLBACK, **options))


def list_ngrams(model: NgramModel) -> Ngrams:
    """All n-grams of a model with their probabilities and back-off weights, by walking the trie."""
    trie, words = unpack_nodes(model.trie), model.vocabulary.words
    found, waiting = {}, [(0, ())]
    while waiting:
        node, ngram = waiting.pop()
        backoff = trie.backoffs[node] if node < len(trie.backoffs) else 0.0
        found[ngram] = (math.exp(trie.log_probs[node]), math.exp(backoff))
        if node < len(trie.backoffs):
            children = range(trie.first_child[node], trie.first_child[node + 1])
            waiting += [(child, (*ngram, words[trie.words[child]])) for child in children]
    del found[()]
    return found


@UNHURRIED
@given(texts, st.integers(1, 6), thresholds)
def test_every_n_gram_is_that_of_the_oracle(sentences, order, prune):
    prune = [0, *prune][:order]
    model = estimate_lines(sentences, order=order, prune=tuple(prune))
    expected = kneser_ney(sentences, order, [*prune, *prune[-1:] * order], FALLBACK)
    found = list_ngrams(model)
    assert found.keys() == expected.keys()
    for ngram, values in expected.items():
        assert found[ngram] == pytest.approx(values, rel=1e-5), ngram


@UNHURRIED
@given(texts, st.integers(2, 6), st.integers(1, 4))
def test_keys_that_do_not_fit_into_64_bits_give_the_same(sentences, order, bits):
    """Long keys are packed in several steps; a few bits are room for none but the shortest."""
    model = estimate_lines(sentences, order=order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "KEY_BITS", bits)
        again = estimate_lines(sentences, order=order)
    for array, other in zip(unpack_nodes(model.trie), unpack_nodes(again.trie), strict=True):
        np.testing.assert_array_equal(array, other)


@UNHURRIED
@given(texts, st.integers(1, 5), thresholds, st.one_of(st.none(), st.integers(1, 6)))
def test_the_probabilities_of_every_context_sum_to_one(sentences, order, prune, vocabulary_size):
    model = estimate_lines(
        sentences, order=order, prune=tuple(prune[:order]), vocabulary_size=vocabulary_size
    )
    for state in range(1 + sum(model.counts[:-1])):
        probabilities = np.exp(predict_next(model, state))
        assert probabilities.sum() - probabilities[model.vocabulary.find(BEGIN)] == pytest.approx(1, abs=1e-5)


@UNHURRIED
@given(texts, st.integers(1, 4))
def test_words_outside_a_small_vocabulary_are_unknown(sentences, size):
    counts = Counter(word for sentence in sentences for word in sentence)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))[:size]
    small = estimate_lines(sentences, order=2, vocabulary_size=size)
    assert set(small.vocabulary.words) == {"<s>", "</s>", "<unk>", *frequent}
    replaced = [[word if word in frequent else "<unk>" for word in sentence] for sentence in sentences]
    expected = kneser_ney(replaced, 2, [0, 0], FALLBACK)
    for ngram, values in list_ngrams(small).items():
        assert values == pytest.approx(expected[ngram], rel=1e-5), ngram


@UNHURRIED
@given(texts, st.integers(1, 3))
def test_pruned_words_are_outside_the_vocabulary(sentences, threshold):
    model = estimate_lines(sentences, order=3, prune=(threshold,))
    often = {word for word in "abcde" if sum(sentence.count(word) for sentence in sentences) > threshold}
    assert set(model.vocabulary.words) == {"<s>", "</s>", "<unk>"} | often


def test_blocks_and_blank_lines_make_no_difference():
    text = b"go on\n\n  on we  go\t\r\ngo"
    config = EstimationConfig(order=2, discount_fallback=FALLBACK)
    whole = estimate([text], config)
    parts = estimate([b"go on\n", b"\n", b"on we go\n", b"go\n", b""], config)
    assert whole.vocabulary.words == parts.vocabulary.words == ["</s>", "<s>", "<unk>", "go", "on", "we"]
    for array, other in zip(unpack_nodes(whole.trie), unpack_nodes(parts.trie), strict=True):
        np.testing.assert_array_equal(array, other)


def test_without_a_fallback_a_text_too_small_is_an_error():
    with pytest.raises(EstimationError, match=r"1-grams.*--discount-fallback"):
        estimate([b"go on\n"], EstimationConfig())
    with pytest.raises(EstimationError, match="no words"):
        estimate([b" \n\n"], EstimationConfig(discount_fallback=FALLBACK))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"order": 7}, "1 to 6"),
        ({"order": 0}, "1 to 6"),
        ({"prune": (0, 2, 1)}, "none below"),
        ({"prune": (0, 0, 0, 0)}, "up to 3"),
        ({"prune": ()}, "up to 3"),
        ({"vocabulary_size": 0}, "at least one"),
        ({"discount_fallback": (0.5, 1.0)}, "three numbers"),
        ({"discount_fallback": (1.5, 1.0, 1.0)}, "at most 1"),
    ],
)
def test_options_that_do_not_fit_together(options, said):
    with pytest.raises(UserError, match=said):
        EstimationConfig(**options)


needs_reference = pytest.mark.skipif(
    not REFERENCE.exists(), reason="needs the models and texts of ../shared/reference/lm"
)


@needs_reference
@pytest.mark.parametrize(
    ("name", "options"),
    [("3gram", {"order": 3}), ("4gram-prune-0-0-1-1", {"order": 4, "prune": (0, 0, 1, 1)})],
)
def test_a_model_is_that_of_lmplz(name, options):
    """Every n-gram within 1e-4 in log10, perplexities within 0.1 %: what KenLM makes of the same text."""
    blocks = read_sentences([REFERENCE / "train.txt"], SentenceConfig())
    model = estimate(blocks, EstimationConfig(**options))
    lmplz = read_arpa(REFERENCE / f"{name}.arpa.gz")
    assert model.vocabulary.words == lmplz.vocabulary.words
    assert model.counts == lmplz.counts
    nodes, expected_nodes = unpack_nodes(model.trie), unpack_nodes(lmplz.trie)
    for field, array, expected in zip(nodes._fields, nodes, expected_nodes, strict=True):
        tolerance = 1e-4 * math.log(10) if field in ("log_probs", "backoffs") else 0
        np.testing.assert_allclose(array, expected, atol=tolerance, rtol=0, err_msg=field)

    found = measure_perplexity(model, read_sentences([REFERENCE / "heldout.txt"], SentenceConfig()))
    lines = (REFERENCE / f"{name}.perplexity.txt").read_text().splitlines()
    including, excluding, unknown, tokens = (float(line.split("\t")[1]) for line in lines)
    assert found.including_unknown == pytest.approx(including, rel=1e-3)
    assert found.excluding_unknown == pytest.approx(excluding, rel=1e-3)
    assert (found.unknown, found.tokens) == (unknown, tokens)


def test_perplexity_by_hand():
    model = estimate_lines([["a", "b"], ["a", "c"], ["a", "b"]], order=2)
    found = measure_perplexity(model, [b"a b\nnew\n"])
    first, _ = model.score_words(["a", "b", "</s>"], model.begin)
    second, _ = model.score_words(["new", "</s>"], model.begin)
    assert (found.sentences, found.words, found.unknown, found.tokens) == (2, 3, 1, 5)
    assert found.unknown_rate == pytest.approx(1 / 3)
    assert found.including_unknown == pytest.approx(math.exp(-sum(first + second) / 5))
    assert found.excluding_unknown == pytest.approx(math.exp(-(sum(first) + second[1]) / 4))
    with pytest.raises(UserError, match="no words"):
        measure_perplexity(model, [b"\n"])


def test_sentences_on_their_own_add_up_to_the_text():
    model = estimate_lines([["a", "b"], ["a", "c"], ["a", "b"]], order=2)
    blocks = [b"a b\n\n \r\n new  a\n\xc2\xa0\n\x0b\n", b"c\n"]
    rows = list(measure_sentence_perplexities(model, blocks))
    assert [(sentence, found.sentences, found.words, found.unknown) for sentence, found in rows] == [
        ("a b", 1, 2, 0),
        ("new  a", 1, 2, 1),
        ("\xa0", 1, 1, 1),  # white space, but none that is written between words
        ("\x0b", 1, 1, 1),
        ("c", 1, 1, 0),
    ]
    first, _ = model.score_words(["a", "b", "</s>"], model.begin)
    assert rows[0][1].log_prob == pytest.approx(sum(first))
    whole = measure_perplexity(model, blocks)
    assert whole.log_prob == pytest.approx(sum(found.log_prob for _, found in rows))
    assert whole.unknown_log_prob == pytest.approx(sum(found.unknown_log_prob for _, found in rows))


def test_samples_follow_the_model_and_the_seed():
    model = estimate_lines([["a", "b"], ["a", "c"], ["a", "b"]] * 3, order=3)
    sentences = list(sample_sentences(model, 2000, SamplingConfig(seed=1)))
    assert sentences == list(sample_sentences(model, 2000, SamplingConfig(seed=1)))
    assert sentences != list(sample_sentences(model, 2000, SamplingConfig(seed=2)))
    assert {word for sentence in sentences for word in sentence.split()} == {"a", "b", "c"}
    probabilities = np.exp(predict_next(model, model.begin))
    share = probabilities[model.vocabulary.find("a")] / (1 + 0 - probabilities[model.unknown])
    begun = sum(sentence.startswith("a") for sentence in sentences) / 2000
    assert begun == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2000))
    assert max(len(s.split()) for s in sample_sentences(model, 50, SamplingConfig(longest=2))) == 2


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He came. She went!\nIt was late.", ["He came.", "She went!", "It was late."]),
        ("One line\nbroken in two.", ["One line broken in two."]),
        ("A heading\n\nand a text", ["A heading", "and a text"]),
        ("Mr. Smith met Dr. J. Watson. They spoke.", ["Mr. Smith met Dr. J. Watson.", "They spoke."]),
        ('"Yes?" he said. "No!" "Well."', ['"Yes?" he said.', '"No!"', '"Well."']),
        ("About 3.5 miles. 20 men came.", ["About 3.5 miles.", "20 men came."]),
        ("He thought ... and went.", ["He thought ... and went."]),
        ("C’est fini. À demain.", ["C’est fini.", "À demain."]),
        ("", []),
    ],
)
def test_prose_is_split_into_sentences(text, sentences):
    assert split_sentences(text) == sentences


def run_asr_lm(*arguments: object, status: int = 0) -> str:
    """What ``asr lm`` prints, in this process: stdout, or stderr when it is to end in an error."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.setattr(sys, "argv", ["asr", "lm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == status, stderr.getvalue()
    return stderr.getvalue() if status else stdout.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A text in several forms and the model that the command line makes of it."""
    folder = tmp_path_factory.mktemp("lm")
    text = "".join(
        f"{a} {b}\n{a}\n{b} {b} {a}\n" for a in ("go", "on", "we") for b in ("yes", "no", "so", "on")
    )
    (folder / "text.txt").write_text(text)
    (folder / "text.txt.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "text.txt.xz").write_bytes(lzma.compress(text.encode()))
    (folder / "prose.txt").write_text("".join(line.capitalize() + ".\n" for line in text.splitlines()))
    run_asr_lm("train", folder / "text.txt", "--discount-fallback", "-o", folder / "model.arpa")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["text.txt.gz"],
        ["text.txt.xz"],
        ["prose.txt", "--split-sentences", "--normaliser", "letters-v1"],
        ["text.txt", "--prune", "0", "0", "--vocab", "100"],
        ["--prune=0", "0", "0", "text.txt", "--order", "3"],
        ["text.txt", "--prune", "0,0,0", "--discount_fallback", "0.5", "1", "1.5"],
    ],
)
def test_every_way_to_give_a_text_makes_the_same_model(folder, monkeypatch, arguments):
    monkeypatch.chdir(folder)
    fallback = () if "--discount_fallback" in arguments else ("--discount-fallback",)
    run_asr_lm("train", *arguments, *fallback, "-o", "again.arpa")
    assert Path("again.arpa").read_text() == Path("model.arpa").read_text()


def test_text_comes_through_a_pipe(folder):
    command = [sys.executable, "-m", "asr", "lm", "train", "-", "--discount-fallback", "-o", "piped.arpa"]
    done = subprocess.run(
        command, cwd=folder, input=(folder / "text.txt.gz").read_bytes(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(b"piped.arpa: 3-gram model of 9 words")
    assert (folder / "piped.arpa").read_text() == (folder / "model.arpa").read_text()


def test_a_model_is_converted_described_measured_and_tried(folder, monkeypatch):
    monkeypatch.chdir(folder)
    run_asr_lm("convert", "model.arpa", "-o", "model.lm")
    results = [
        (
            json.loads(run_asr_lm("info", name, "--json"))["ngrams"],
            json.loads(run_asr_lm("perplexity", name, "text.txt", "--json")),
            run_asr_lm("sample", name, "-n", 3, "--seed", 5),
        )
        for name in ("model.arpa", "model.lm")
    ]
    (counts, measured, sampled), from_binary = results
    assert from_binary == (counts, pytest.approx(measured, rel=1e-6), sampled)
    assert measured["oov_rate"] == 0
    assert 1 < measured["perplexity_including_oov"] < 9
    assert len(sampled.splitlines()) == 3
    assert f"{measured['perplexity_including_oov']:.2f}" in run_asr_lm("perplexity", "model.lm", "text.txt")
    assert "3-grams" in run_asr_lm("info", "model.lm")
    scores = [line.split("\t") for line in run_asr_lm("score", "model.lm", "text.txt").splitlines()]
    assert [sentence for *_, sentence in scores] == Path("text.txt").read_text().splitlines()
    assert sum(float(log_prob) for log_prob, *_ in scores) == pytest.approx(measured["log_prob"], abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["train", "nothing.txt", "-o", "x.arpa"], 1, "nothing.txt"),
        (["train", "text.txt", "-o", "x.arpa"], 1, "--discount-fallback"),
        (["train", "text.txt"], 2, "--out"),
        (["train", "text.txt", "-o", "."], 2, "is a directory"),
        (["train", "text.txt", "-o", "x.arpa", "--prune", "1", "0"], 1, "prune is 1 0"),
        (["train", "text.txt", "-o", "x.arpa", "--prune", "0.5"], 2, "--prune"),
        (["train", "text.txt", "-o", "x.arpa", "--prune"], 1, "up to 3 numbers"),
        (["train", "text.txt", "-o", "x.arpa", "--order", "9"], 2, "--order"),
        (["train", "reserved.txt", "-o", "x.arpa"], 1, "reserved.txt:2: <s> is reserved"),
        (["train", "latin.txt", "-o", "x.arpa"], 1, "latin.txt:2: is not UTF-8"),
        (["train", "cut.gz", "-o", "x.arpa"], 1, "cut.gz"),
        (["info", "text.txt"], 1, "text.txt:1: "),
        (["info", "broken.lm"], 1, "broken.lm"),
        (["train", "empty.txt", "-o", "x.arpa"], 1, "empty.txt: no words"),
        (["perplexity", "model.arpa", "empty.txt"], 1, "empty.txt: no words"),
        (["score", "model.arpa", "empty.txt"], 1, "empty.txt: no words"),
        (["sample", "nothing.arpa"], 1, "nothing.arpa"),
    ],
)
def test_mistakes_end_in_one_clear_line(folder, monkeypatch, arguments, status, named):
    monkeypatch.chdir(folder)
    Path("reserved.txt").write_text("go on\non <s> go\n")
    Path("latin.txt").write_bytes("go\nça\n".encode("latin-1"))
    Path("cut.gz").write_bytes(Path("text.txt.gz").read_bytes()[:60])
    Path("empty.txt").write_text("\n")
    save_model(read_arpa("model.arpa"), "broken.lm")
    with Path("broken.lm").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    said = run_asr_lm(*arguments, status=status)
    assert named in said
    if status == 1:
        assert len(said.splitlines()) == 1


def test_words_of_any_blocks_are_numbered_as_those_of_one():
    lines = [f"{'abcdefg'[n % 7]} word{n % 13} {'xyz'[n % 3]}\n".encode() for n in range(60)]
    whole = counting.read_corpus([b"".join(lines)], 12)
    for size in (1, 7, 59):
        blocks = (b"".join(lines[first : first + size]) for first in range(0, len(lines), size))
        parts = counting.read_corpus(blocks, 12)
        assert parts.tokens.tolist() == whole.tokens.tolist()
        assert parts.vocabulary.words == whole.vocabulary.words
