"""Reading, writing, storing and looking up n-gram models."""

from __future__ import annotations

import gzip
import lzma
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from asr.errors import UserError
from asr.lm import packed
from asr.lm.arpa import read_arpa, write_arpa
from asr.lm.look_up import score_word, unpack
from asr.lm.model import NgramModel
from asr.lm.packed import FIELDS, RANKS, is_sound, pick, read_column, score_words, unpack_nodes, write_column
from asr.lm.storage import FIRST_HEADER, HEADER, MAGIC, load_model, open_model, quantise, save_model
from asr.lm.vocabulary import UNKNOWN, build_vocabulary, is_ascending
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
    assume(
        unpack_nodes(read.trie).log_probs.max() <= 0
    )  # what is put in for a missing n-gram may be above 1 here
    write_arpa(read, folder / "again.arpa.gz")
    save_model(read, folder / "again.lm")
    again, stored = read_arpa(folder / "again.arpa.gz"), load_model(folder / "again.lm")
    for loaded, tolerance in ((again, 1e-6), (stored, 0)):
        assert loaded.counts == read.counts
        assert loaded.vocabulary.words == read.vocabulary.words
        for array, original in zip(unpack_nodes(loaded.trie), unpack_nodes(read.trie), strict=True):
            assert array.dtype == original.dtype
            np.testing.assert_allclose(array, original, atol=tolerance, rtol=0)
    for array, original in zip(stored.trie, read.trie, strict=True):
        np.testing.assert_array_equal(array, original)


@UNHURRIED
@given(back_off_models(), st.lists(st.sampled_from(WORDS), max_size=20))
def test_contexts_between_which_a_model_cannot_tell_are_one_state(tmp_path_factory, model, words):
    read = read_text(tmp_path_factory.mktemp("arpa"), arpa_text(*model))
    nodes = unpack_nodes(read.trie)
    inner = len(nodes.backoffs)
    live = {0} | {
        n for n in range(inner) if nodes.first_child[n] < nodes.first_child[n + 1] or nodes.backoffs[n]
    }
    state = 0
    for word in words:
        _, state = score_word(read.trie, state, read.find_number(word))
        assert state in live


@UNHURRIED
@given(back_off_models())
def test_arrays_are_looked_up_as_single_words_are(tmp_path_factory, model):
    trie = read_text(tmp_path_factory.mktemp("arpa"), arpa_text(*model)).trie
    states, words = np.arange(trie.layout[-1, 0]), np.arange(trie.layout[1, 1])
    pairs = np.repeat(states, len(words)), np.tile(words, len(states))
    log_probs, after = score_words(trie, *pairs)
    for pair, log_prob, state in zip(zip(*pairs, strict=True), log_probs, after, strict=True):
        assert score_word(trie, *pair) == (log_prob, state)  # to the last bit


@UNHURRIED
@given(st.data(), st.integers(0, 40), st.integers(0, 150), st.integers(0, 130))
def test_a_column_of_bits_holds_its_numbers(data, width, count, begin):
    numbers = np.array(data.draw(st.lists(st.integers(0, (1 << width) - 1), min_size=count, max_size=count)))
    bits = np.zeros((begin + width * count) // 64 + 2, np.uint64)
    write_column(bits, begin, width, numbers)
    assert read_column(bits, begin, width, count).tolist() == numbers.tolist()
    places = np.arange(count)[::-1]
    picked = pick(bits, begin, width, places)
    assert picked.tolist() == numbers[::-1].tolist()
    assert [unpack(bits, begin, width, place) for place in range(count)] == numbers.tolist()
    is_ours = np.zeros(64 * len(bits), bool)
    is_ours[begin : begin + width * count] = True
    assert not np.unpackbits(bits.view(np.uint8), bitorder="little")[~is_ours].any()


@UNHURRIED
@given(st.lists(st.binary(max_size=20) | st.binary(max_size=2).map(b"alphabet".__add__), min_size=1))
def test_words_are_ascending_when_sorting_changes_nothing(words):
    for listed in (words, sorted(words), sorted(set(words) - {b""})):
        letters = np.frombuffer(b"".join(listed), np.uint8)
        bounds = np.cumsum([0, *map(len, listed)])
        assert is_ascending(letters, bounds) == (listed == sorted(set(listed)) and b"" not in listed)


@UNHURRIED
@given(back_off_models())
def test_every_ngram_has_its_suffix_and_its_rank_there(tmp_path_factory, model):
    read = read_text(tmp_path_factory.mktemp("arpa"), arpa_text(*model))
    nodes = unpack_nodes(read.trie)
    contexts = np.repeat(np.arange(len(nodes.backoffs)), np.diff(nodes.first_child))

    def ngram(node: int) -> tuple[int, ...]:
        return (*ngram(contexts[node - 1]), int(nodes.words[node])) if node else ()

    for node in range(1 + len(read.vocabulary), len(nodes.words)):
        assert ngram(nodes.suffixes[node]) == ngram(node)[1:]


@UNHURRIED
@given(back_off_models(), st.integers(2, 12))
def test_rounded_values_are_within_half_a_step(tmp_path_factory, model, bits):
    read = read_text(tmp_path_factory.mktemp("arpa"), arpa_text(*model))
    rounded = unpack_nodes(quantise(read, bits).trie)
    for values, exact in zip(rounded[2:4], unpack_nodes(read.trie)[2:4], strict=True):
        ordinary = exact[(exact != 0) & (exact > -100)]
        step = (ordinary.max(initial=0) - ordinary.min(initial=0)) / ((1 << bits) - 2)
        assert np.abs(values - exact).max() <= step + 1e-5
        assert ((values == 0) == (exact == 0)).all()
        assert len(np.unique(values)) <= 6 * (1 << bits)  # a table for each order


def first_version(model: NgramModel) -> bytes:
    """A model as it was stored before n-grams were packed: whole arrays, two of them not read today."""
    nodes = unpack_nodes(model.trie)
    unused = np.zeros(len(nodes.words), np.int32)
    arrays = [nodes.first_child, nodes.words, nodes.log_probs, unused]
    arrays += [
        nodes.backoffs,
        unused[: len(nodes.backoffs)],
        model.vocabulary.bounds,
        model.vocabulary.letters,
    ]
    content, checksum = bytes(FIRST_HEADER.size), 0
    for array in arrays:
        content += bytes(-len(content) % 64) + array.tobytes()
        checksum = zlib.crc32(array.tobytes(), checksum)
    counts = (*model.counts, *[0] * (6 - model.order))
    start = FIRST_HEADER.pack(MAGIC, 1, model.order, *counts, len(model.vocabulary.letters), checksum, 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(start)) + content[FIRST_HEADER.size :]


def test_a_file_of_the_first_version_is_still_read(tmp_path):
    read = read_text(tmp_path, SMALL)
    (tmp_path / "old.lm").write_bytes(first_version(read))
    old = open_model(tmp_path / "old.lm")
    assert old.counts == read.counts
    assert old.vocabulary.words == read.vocabulary.words
    for array, original in zip(old.trie, read.trie, strict=True):
        np.testing.assert_array_equal(array, original)


@pytest.mark.parametrize("version", [1, 2])
def test_no_number_in_a_file_leads_outside_the_arrays(tmp_path, version):
    """Files with one number changed and right checksums: refused, or they score without reading elsewhere."""
    read = quantise(read_text(tmp_path, SMALL), 8)
    path = tmp_path / "hostile.lm"
    if version == 1:
        content, header = first_version(read), FIRST_HEADER
    else:
        save_model(read, path)
        content, header = path.read_bytes(), HEADER
    generator = np.random.default_rng(version)
    refused = 0
    for _ in range(400):
        place = int(generator.integers(len(MAGIC) + 4, len(content)))
        changed = bytearray(content)
        changed[place] = int(generator.integers(256))
        body = fix_checksums(bytes(changed), header, version)
        path.write_bytes(body)
        try:
            model = open_model(path)
        except UserError:
            refused += 1
            continue
        assert is_sound(model.trie, len(model.vocabulary))
        states, words = np.arange(1 + sum(model.counts[:-1])), np.arange(len(model.vocabulary))
        pairs = np.repeat(states, len(words)), np.tile(words, len(states))
        _, after = score_words(model.trie, *pairs)
        assert ((after >= 0) & (after < len(states))).all()
        assert after.tolist() == [score_word(model.trie, *pair)[1] for pair in zip(*pairs, strict=True)]
    assert refused > 100


@pytest.mark.parametrize("wrong", [[3, 4, 3, 0], [3, 4, 3, 3], [3, 4, 7, 3], [7, 4, 0, 3], [3, 4, 0, 5]])
def test_children_out_of_order_twice_or_of_no_word_are_not_sound(tmp_path, wrong):
    text = SMALL.replace("ngram 2=3", "ngram 2=4").replace("-0.4\ton </s>", "-0.4\ton </s>\n-0.5\ton go")
    trie = read_text(tmp_path, text).trie
    begin, width = (int(number) for number in trie.layout[2, RANKS : RANKS + 2])
    assert read_column(trie.bits, begin, width, 4).tolist() == [3, 4, 0, 3]  # <s> go; go on; on </s>, on go
    assert is_sound(trie, 5)
    cleared = trie.bits.copy()
    for place in range(4 * width):
        cleared[(begin + place) >> 6] &= ~(np.uint64(1) << np.uint64((begin + place) & 63))
    write_column(cleared, begin, width, np.array(wrong))
    assert not is_sound(trie._replace(bits=cleared), 5)


def fix_checksums(content: bytes, header: struct.Struct, version: int) -> bytes:
    """The content of a file with the checksums that it should have; unchanged where it makes no sense."""
    numbers = list(header.unpack(content[: header.size]))
    order, counts = numbers[2], numbers[3:9]
    letters = numbers[9]
    if not 1 <= order <= 6 or max(numbers[3:-2]) > 10**6 or min(numbers[3:-2]) < 0:
        return content
    if version == 1:
        nodes, inner = 1 + sum(counts[:order]), 1 + sum(counts[: order - 1])
        sizes = [4 * (inner + 1), *[4 * nodes] * 3, 4 * inner, 4 * inner, 8 * (counts[0] + 1), letters]
    else:
        sizes = [8 * FIELDS * (1 + order), 8 * numbers[10], 4 * numbers[11], 4 * (counts[0] + 1), letters]
    place, checksum = header.size, 0
    for size in sizes:
        place += -place % 64
        checksum = zlib.crc32(content[place : place + size], checksum)
        place += size
    numbers[-2] = checksum
    start = header.pack(*numbers)[:-4]
    return start + struct.pack("<I", zlib.crc32(start)) + content[header.size :]


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
    open_model(path)
    filled = HEADER.size + np.flatnonzero(np.frombuffer(content, np.uint8)[HEADER.size :])
    for place in [*range(HEADER.size), *filled.tolist()]:
        copy.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"copy\.lm"):
            open_model(copy)
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


def spell(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    spelled = [word.encode() for word in words]
    return np.frombuffer(b"".join(spelled), np.uint8), np.cumsum([0, *map(len, spelled)])


def test_many_words_are_found_at_once():
    letters_of = "ab" * 20
    generator = np.random.default_rng(0)
    alike = {
        letters_of[:length] + ending
        for length in (6, 7, 8, 9, 15, 16, 17, 30)
        for ending in ("", "a", "c", "\0")
    }
    drawn = {"".join(generator.choice(list("abü"), generator.integers(1, 20))) for _ in range(300)}
    every = sorted(alike | drawn | {"then", "thé", "über"}, key=str.encode)
    for words in (every[::2], every, every[5:6]):
        wanted = [*every, *every[::-3], "th", "uber"]
        letters, bounds = spell(wanted)
        expected = [words.index(word) if word in words else -1 for word in wanted]
        assert (
            build_vocabulary([word.encode() for word in words]).find_all(letters, bounds).tolist() == expected
        )
    wanted = ["then", "th", "über", "uber", "ba", "bab", "a", "a"]
    letters, bounds = spell(wanted)
    assert build_vocabulary([b"ab"]).find_all(letters, bounds).tolist() == [-1] * len(wanted)
    assert build_vocabulary([b"ba"]).find_all(letters, bounds).tolist() == [*[-1] * 4, 0, -1, -1, -1]


def test_values_whose_mean_is_nought_do_not_become_none():
    values = np.array([0.0, 1.0, 0.5, 1e-4, -1e-4], np.float32)  # the last two share a step
    table, places = packed.tabulate(values, 2)
    assert ((table[places] == 0) == (values == 0)).all()
    assert np.abs(table[places] - values).max() <= 0.5
