"""Pronunciations by a model of spelling and sound, held against all alignments; ``asr lexicon``."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.cli import main
from asr.g2p.graphones import MOST_PHONES, align_letters, expect_counts, find_best_alignments, number_pairs
from asr.g2p.model import BY_DICTIONARY, BY_MODEL, BY_RULE, G2P, G2PError, Pronouncer, learn_g2p
from asr.lm.estimation import FALLBACK, EstimationConfig, estimate
from asr.lm.storage import save_model
from asr.text.lexicon import Lexicon, make_lexicon, read_lexicon
from tests.reference import deal_out, graphone_counts

UNHURRIED = settings(deadline=None, max_examples=40)  # the first call compiles

words = st.text("abc", min_size=1, max_size=4)
pronunciations = st.lists(st.sampled_from(["X", "YY", "Z"]), min_size=1, max_size=6).map(tuple)
dictionaries = st.lists(st.tuples(words, pronunciations), min_size=1, max_size=8)


def random_probs(pairs, seed: int) -> tuple[np.ndarray, dict]:
    """A probability for every graphone, as the array that compiled code wants and by name."""
    _, parts = number_pairs(pairs)
    alphabet = list(dict.fromkeys("".join(word for word, _ in pairs)))
    probs = np.random.default_rng(seed).uniform(0.01, 1, (len(alphabet), len(parts)))
    named = {(a, b): probs[i, j] for (i, a), (j, b) in product(enumerate(alphabet), enumerate(parts))}
    return probs, named


@UNHURRIED
@given(dictionaries, st.integers(0, 100))
def test_expected_counts_are_those_of_all_alignments(pairs, seed):
    numbers, parts = number_pairs(pairs)
    probs, named = random_probs(pairs, seed)
    counts = expect_counts(numbers, probs)
    expected = graphone_counts(pairs, named, MOST_PHONES)
    letters = list(dict.fromkeys("".join(word for word, _ in pairs)))
    for (i, letter), (j, part) in product(enumerate(letters), enumerate(parts)):
        assert counts[i, j] == pytest.approx(expected[letter, part], abs=1e-9)


@UNHURRIED
@given(dictionaries, st.integers(0, 100))
def test_the_best_alignment_is_the_best_of_all(pairs, seed):
    numbers, parts = number_pairs(pairs)
    probs, named = random_probs(pairs, seed)
    found = find_best_alignments(numbers, np.log(probs))
    for (word, phones), begin in zip(pairs, numbers.letter_bounds, strict=False):
        own = found[begin : begin + len(word)].tolist()
        ways = deal_out(len(word), phones, MOST_PHONES)
        if not ways:
            assert -1 in own
            continue
        weights = [math.prod(named[g] for g in zip(word, way, strict=True)) for way in ways]
        chosen = [parts[number] for number in own]
        assert sum(chosen, ()) == phones
        assert math.prod(named[g] for g in zip(word, chosen, strict=True)) == pytest.approx(max(weights))


def test_letters_find_their_phones():
    pairs = [
        ("cat", ("K", "AE", "T")),
        ("tack", ("T", "AE", "K")),
        ("act", ("AE", "K", "T")),
        ("tax", ("T", "AE", "K", "S")),
        ("at", ("AE", "T")),
        ("aaaaa", ("K",) * 11),  # too many
    ]
    graphones = align_letters(pairs)
    assert graphones[0] == [("c", ("K",)), ("a", ("AE",)), ("t", ("T",))]
    assert graphones[3] == [("t", ("T",)), ("a", ("AE",)), ("x", ("K", "S"))]
    assert graphones[5] == []


def tiny_model(pairs, order: int) -> G2P | None:
    """The model of a few words; ``None`` where nothing can be aligned."""
    try:
        return learn_g2p(make_lexicon(pairs), order)
    except G2PError:
        return None


@UNHURRIED
@given(dictionaries, words, st.integers(1, 4))
def test_the_search_is_the_sum_over_all_alignments(pairs, word, order):
    g2p = tiny_model(pairs, order)
    if g2p is None or not set(word) <= set(g2p.choices):
        return
    model = g2p.model
    names = [name.split("\x1f") for name in model.vocabulary.words]
    totals: dict[tuple[str, ...], float] = defaultdict(float)
    for way in product(*([name for name in names if name[0] == letter] for letter in word)):
        log_probs, _ = model.score_words([*("\x1f".join(name) for name in way), "</s>"], model.begin)
        totals[tuple(phone for _, *said in way for phone in said)] += math.exp(sum(log_probs))
    totals.pop((), None)
    if not totals:
        with pytest.raises(G2PError, match="no letter of it is heard"):
            g2p.rank_pronunciations(word, 10_000, math.inf)
        return
    ranked = g2p.rank_pronunciations(word, 10_000, math.inf)
    assert dict(ranked) == pytest.approx(
        {phones: math.log(total) for phones, total in totals.items()}, rel=1e-5
    )
    scores = [log_prob for _, log_prob in ranked]
    assert scores == sorted(scores, reverse=True)
    for phones, log_prob in g2p.rank_pronunciations(
        word, beam_size=3
    ):  # a narrow beam has not all alignments
        assert log_prob <= math.log(totals[phones]) + 1e-5


REGULAR = {letter: letter.upper() for letter in "abdefgiklmnoprstuvz"}


def regular_dictionary(seed: int = 0, count: int = 400) -> Lexicon:
    """Words of a language that is written as it is spoken, but for ``sh``, ``x`` and a silent ``h``."""
    generator = np.random.default_rng(seed)
    syllables = [c + v for c in ["sh", "x", "h", *"bdfgklmnprstvz"] for v in "aeiou"]
    spelled = {"".join(generator.choice(syllables, generator.integers(1, 4))) for _ in range(count)}
    return Lexicon({word: (pronounce_by_rule(word),) for word in sorted(spelled)})


def pronounce_by_rule(word: str) -> tuple[str, ...]:
    said = word.replace("sh", "S").replace("x", "K Z").replace("h", "")
    phones = " ".join("SH" if c == "S" else REGULAR.get(c, c) for c in said).split()
    return tuple(phones)


@pytest.fixture(scope="module")
def regular_g2p() -> G2P:
    return learn_g2p(regular_dictionary())


def test_a_regular_language_is_learned(regular_g2p):
    unseen = [w for w in regular_dictionary(seed=1).words if w not in regular_dictionary()]
    assert len(unseen) > 200
    wrong = [word for word in unseen if regular_g2p.pronounce(word) != (pronounce_by_rule(word),)]
    assert len(wrong) <= 0.02 * len(unseen), wrong


def test_the_usual_beam_loses_next_to_nothing(regular_g2p):
    for word in list(regular_dictionary(seed=1).words)[:30]:
        (usual, log_prob), (best, highest) = (
            regular_g2p.rank_pronunciations(word)[0],
            regular_g2p.rank_pronunciations(word, 1000, 50.0)[0],
        )
        assert usual == best
        assert highest - 1e-3 < log_prob <= highest + 1e-9


def test_several_pronunciations_come_best_first(regular_g2p):
    found = regular_g2p.pronounce("shaxo", 3)
    assert found[0] == ("SH", "A", "K", "Z", "O")
    assert len(found) == len(set(found)) <= 3
    assert found[:1] == regular_g2p.pronounce("shaxo")


@pytest.mark.parametrize(("word", "reason"), [("naïve", "'ï'"), ("h", "is heard"), ("", "is heard")])
def test_what_cannot_be_pronounced_is_named(regular_g2p, word, reason):
    with pytest.raises(G2PError, match=reason) as raised:
        regular_g2p.pronounce(word)
    assert repr(word) in str(raised.value)


def test_a_dictionary_that_teaches_nothing_is_an_error():
    with pytest.raises(G2PError, match="no word"):
        learn_g2p(Lexicon({"a.b": (("A", "B"),), "q": (("K", "Y", "U"),)}))


def test_words_go_three_ways(regular_g2p):
    pronouncer = Pronouncer(regular_dictionary())
    known = next(iter(pronouncer.dictionary.words))
    assert pronouncer.pronounce(known) == ((pronounce_by_rule(known),), BY_DICTIONARY)
    assert "g2p" not in vars(pronouncer), "learned before anybody needed it"
    assert pronouncer.pronounce("nemoxa") == ((("N", "E", "M", "O", "K", "Z", "A"),), BY_MODEL)
    assert pronouncer.pronounce("nemoxa's") == ((("N", "E", "M", "O", "K", "Z", "A", "Z"),), BY_RULE)


def test_rules_of_english_add_no_phone_that_a_dictionary_has_not():
    words = regular_dictionary().words
    other = Lexicon({word: (tuple(p.lower() for p in said),) for word, (said,) in words.items()})
    stem = next(word for word in words if word[-1] in "aeiou")
    (said, *_), way = Pronouncer(other).pronounce(stem + "s")
    assert (said[:-1], way) == (other[stem][0], BY_MODEL)
    assert set(said) <= set(other.phones)


def test_a_model_gives_as_many_variants_as_it_is_asked_for():
    words = regular_dictionary().words
    twofold = Lexicon(
        {word: (said, tuple("E" if p == "A" else p for p in said)) for word, (said,) in words.items()}
    )
    (first, second), way = Pronouncer(twofold, 2).pronounce("nemoxa")
    assert way == BY_MODEL
    assert {first, second} <= {tuple(said) for said in product("N", "E", "M", "O", "K", "Z", "AE")}
    assert Pronouncer(twofold, 1).pronounce("nemoxa") == ((first,), BY_MODEL)


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of ``asr`` with these arguments."""
    status = 0
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["asr", *map(str, arguments)])
            main()
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def dictionary(tmp_path):
    lines = (f"{word} {' '.join(said[0])}\n" for word, said in regular_dictionary().words.items())
    path = tmp_path / "regular.dict"
    path.write_text("".join(lines))
    return path


def test_lexicon_of_words_named(capsys, dictionary):
    status, out, err = run(capsys, "lexicon", "Nemoxa", "nemoxa's", "--dictionary", dictionary)
    assert (status, out) == (0, "nemoxa N E M O K Z A\nnemoxa's N E M O K Z A Z\n")
    assert "1 by the rules of endings" in err


def test_lexicon_of_files(capsys, tmp_path, dictionary):
    (tmp_path / "text.txt").write_text("Nemoxa, gado!\n")
    (tmp_path / "train.jsonl").write_text('{"id": "u", "audio_filepath": "u.wav", "text": "Bifu ñ"}\n')
    config = EstimationConfig(order=1, discount_fallback=FALLBACK)
    save_model(estimate([b"lato lato\nlato\n"], config), tmp_path / "lm.bin")
    out = tmp_path / "lexicon.txt"
    files = [part for name in ("text.txt", "train.jsonl", "lm.bin") for part in ("--words", tmp_path / name)]
    status, printed, err = run(capsys, "lexicon", *files, "--dictionary", dictionary, "-o", out)
    assert (status, printed) == (0, "")
    assert "words: " in err
    lexicon = read_lexicon(out)
    assert set(lexicon.words) == {"nemoxa", "gado", "bifu", "n", "lato"}
    assert lexicon["lato"] == (("L", "A", "T", "O"),)


def test_words_that_cannot_be_pronounced_are_left_out_and_named(capsys, dictionary):
    status, out, err = run(capsys, "lexicon", "gado", "qy", "--dictionary", dictionary)
    assert (status, out) == (0, "gado G A D O\n")
    assert "cannot be pronounced: 'qy'" in err
    status, out, err = run(capsys, "lexicon", "qy", "--dictionary", dictionary)
    assert (status, out) == (1, "")
    assert err.startswith("asr: none of 1 words can be pronounced: 'qy'")


def test_words_that_the_form_cannot_write_are_named(capsys, dictionary, tmp_path):
    (tmp_path / "text.txt").write_text("gado, R2D2 日本!\n", encoding="utf-8")
    command = ["lexicon", "--dictionary", dictionary, "42", "--words", tmp_path / "text.txt", "gado"]
    status, out, err = run(capsys, *command)
    assert status == 0
    assert "gado G A D O" in out.splitlines()
    assert "left out, because letters-v1 cannot write them whole: '42', 'R2D2', '日本!'" in err
    status, out, err = run(capsys, "lexicon", "--dictionary", dictionary, "42")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("asr: no words are left in the form letters-v1")


def test_lexicon_without_words_is_wrong_usage(capsys, dictionary):
    assert run(capsys, "lexicon", "--dictionary", dictionary)[0] == 2
