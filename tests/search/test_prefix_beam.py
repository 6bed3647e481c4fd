"""Prefix beam search: what exhaustive search finds, the language model's say, hot words, long recordings."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import UserError
from asr.lm.model import NgramModel
from asr.search import SearchConfig, search_greedily
from asr.search import prefix_beam_kernel as kernel
from asr.search.confidence import bin_by_confidence, fit_calibration, measure_calibration_error
from asr.search.prefix_beam import BLOCK, PrefixBeamSearch, PrefixBeamStream
from asr.search.prefix_beam_kernel import SIZE
from asr.text.tokenizer import BLANK, SPACE, TextConfig, Tokenizer, learn_tokenizer
from tests.reference import collapse, every_label_sequence, words_in_phrases
from tests.tiny import estimate_bigrams

LETTERS = Tokenizer((BLANK, SPACE, "a", "b"))
PIECES = Tokenizer((BLANK, "▁a", "b", "b▁a"), b"pieces: a space before, inside and nowhere")
ALPHABET = Tokenizer((BLANK, SPACE, *"abcdefghijklmnopqrstuvwxyz"))
WIDE = SearchConfig(
    beam_size=4000,
    beam_threshold=500.0,
    token_threshold=-500.0,
    blank_threshold=1.0,
    unknown_score=-1.5,
    recombine=False,
)
UNHURRIED = settings(deadline=None, max_examples=40)


MODEL = estimate_bigrams("a", "a b", "ab a", "b ab", "a a b")


def fuse(
    tokens: tuple[int, ...],
    acoustic: float,
    config: SearchConfig,
    model: NgramModel | None,
    tokenizer: Tokenizer = LETTERS,
    phrases: tuple[str, ...] = (),
) -> float:
    """The score by its definition."""
    words = tokenizer.decode(tokens).split()
    lm, extra = 0.0, config.hotword_weight * words_in_phrases(words, phrases)
    if model is not None:
        scores, state = model.score_words(words, model.begin)
        lm = sum(scores) + model.score_words(["</s>"], state)[0][0]
        hot = " ".join(phrases).split()  # a hot word that the model lacks counts as known
        unknown = [w for w in words if model.vocabulary.find(w) < 0 and w not in hot]
        extra += config.unknown_score * sum(map(len, unknown))
    weight = config.lm_weight if model is not None else 0.0
    return acoustic + weight * lm + config.word_bonus * len(words) + extra


def draw_log_probs(seed: int, frames: int, vocabulary: int = 4) -> np.ndarray:
    """Random normalised log-probs."""
    logits = np.random.default_rng(seed).normal(0, 2, (frames, vocabulary))
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


@UNHURRIED
@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(0, 5),
    lm_weight=st.floats(0.1, 2.0),
    word_bonus=st.floats(-2.0, 2.0),
    with_model=st.booleans(),
    tokenizer=st.sampled_from([LETTERS, PIECES]),
    phrases=st.sampled_from([(), ("ab",), ("a b", "b"), ("ba", "b ba"), ("aab", "a aab", "ab a")]),
)
def test_a_wide_beam_finds_what_exhaustive_search_finds(
    seed, frames, lm_weight, word_bonus, with_model, tokenizer, phrases
):
    log_probs = draw_log_probs(seed, frames)
    model = MODEL if with_model else None
    config = replace(WIDE, lm_weight=lm_weight, word_bonus=word_bonus, hotword_weight=1.3)
    expected = {
        tokens: fuse(tokens, acoustic, config, model, tokenizer, phrases)
        for tokens, acoustic in every_label_sequence(log_probs.astype(np.float64)).items()
    }
    best = max(expected.values())
    found = PrefixBeamSearch(config, tokenizer, model, phrases).find_best(log_probs)[0]
    assert found.score == pytest.approx(best, abs=1e-4)
    assert found.score == pytest.approx(expected[found.tokens], abs=1e-4)
    quick = PrefixBeamSearch(replace(config, recombine=True), tokenizer, model, phrases).find_best(log_probs)[
        0
    ]
    assert best - 0.7 < quick.score < best + 1e-4  # what is lost is at most a rival's last paths


@UNHURRIED
@given(seed=st.integers(0, 10**6), frames=st.integers(1, 5))
def test_n_best_are_the_best_and_different(seed, frames):
    log_probs = draw_log_probs(seed, frames)
    everything = [
        fuse(tokens, acoustic, WIDE, MODEL)
        for tokens, acoustic in every_label_sequence(log_probs.astype(np.float64)).items()
    ]
    found = PrefixBeamSearch(WIDE, LETTERS, MODEL).find_best(log_probs, n_best=5)
    assert len({result.tokens for result in found}) == len(found) > 0
    assert [r.score for r in found] == pytest.approx(sorted(everything, reverse=True)[: len(found)], abs=1e-4)


@UNHURRIED
@given(st.lists(st.integers(0, 3), max_size=40))
def test_where_nothing_is_in_doubt_the_beam_says_what_greedy_says(path):
    log_probs = spell_path(path, 4)
    hypothesis = PrefixBeamSearch(SearchConfig(beam_size=8), LETTERS).find_hypotheses(log_probs, 0.04)[0]
    assert hypothesis.tokens == tuple(collapse(path))
    same = search_greedily(log_probs, LETTERS, 0.04)
    assert hypothesis.text == same.text
    assert [w.text for w in hypothesis.words] == [w.text for w in same.words]


@UNHURRIED
@given(seed=st.integers(0, 10**6), vocabulary=st.integers(2, 100), threshold=st.floats(-12.0, -0.5))
def test_the_likeliest_tokens_of_a_frame_are_tried(seed, vocabulary, threshold):
    (row,) = draw_log_probs(seed, 1, vocabulary)
    tokens, probs = np.zeros(min(vocabulary, kernel.MOST_TOKENS), np.int32), np.zeros(vocabulary)
    count = kernel.pick_likely_tokens(tokens, probs, row, threshold)
    above = [token for token in np.argsort(-row, kind="stable") if token != 0 and row[token] > threshold]
    assert tokens[:count].tolist() == above[: len(tokens)]
    expected = np.zeros(vocabulary)
    kept = [0, *above[: len(tokens)]]
    expected[kept] = np.exp(row[kept].astype(np.float64))
    assert probs == pytest.approx(expected)


def spell_path(path: list[int], vocabulary: int, peak: float = 0.98) -> np.ndarray:
    """Log-probs whose best token in each frame is that of ``path``."""
    probabilities = np.full((len(path), vocabulary), (1 - peak) / (vocabulary - 1))
    probabilities[np.arange(len(path)), path] = peak
    return np.log(probabilities).astype(np.float32)


def speak(text: str, tokenizer: Tokenizer = ALPHABET, peak: float = 0.98) -> np.ndarray:
    """Log-probs in which ``text`` is spelled, every token two frames long and a blank behind it."""
    path = [frame for token in tokenizer.encode(text) for frame in (token, token, 0)]
    return spell_path(path, len(tokenizer), peak)


def test_the_language_model_changes_the_word():
    """Four frames: 'b' is a little more likely than 'a', but the model has only ever seen 'a'."""
    log_probs = np.log(
        np.array([[0.1, 0.1, 0.35, 0.45], [0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]])
    ).astype(np.float32)
    config = SearchConfig(beam_size=20)
    text = [
        LETTERS.decode(PrefixBeamSearch(config, LETTERS, model).find_best(log_probs)[0].tokens)
        for model in (None, estimate_bigrams("a", "a", "a a"))
    ]
    assert text == ["b", "a"]


SAYINGS = estimate_bigrams("the cat sat on the mat", "the dog sat", "a cat and a dog", "he read the mat")


def test_a_word_the_model_lacks_comes_out_letter_by_letter_unless_the_lexicon_is_closed():
    heard = speak("the zebra sat")
    open_text = ALPHABET.decode(
        PrefixBeamSearch(SearchConfig(beam_size=50), ALPHABET, SAYINGS).find_best(heard)[0].tokens
    )
    assert open_text == "the zebra sat"
    closed = PrefixBeamSearch(SearchConfig(beam_size=50, closed=True), ALPHABET, SAYINGS).find_best(heard)[0]
    words = ALPHABET.decode(closed.tokens).split()
    assert words and all(SAYINGS.vocabulary.find(word) >= 0 for word in words)


def mix_letters(said_word: str, meant_word: str, share: float = 0.35) -> np.ndarray:
    """Log-probs of a word in which another one of the same length can be heard, too."""
    first, second = np.exp(speak(said_word)), np.exp(speak(meant_word))
    return np.log((1 - share) * first + share * second).astype(np.float32)


def test_hot_words_are_heard_where_they_can_be_and_nowhere_else():
    plain = SearchConfig(beam_size=50)
    heard = mix_letters("marten", "martin")
    listening = PrefixBeamSearch(plain, ALPHABET, SAYINGS, ["martin", "saint martin"])
    for decoder, text in ((PrefixBeamSearch(plain, ALPHABET, SAYINGS), "marten"), (listening, "martin")):
        assert ALPHABET.decode(decoder.find_best(heard)[0].tokens) == text
    unrelated = speak("the dog sat on the mat")
    with_them, without = (
        listening.find_best(unrelated)[0],
        PrefixBeamSearch(plain, ALPHABET, SAYINGS).find_best(unrelated)[0],
    )
    assert with_them.tokens == without.tokens
    assert with_them.score == pytest.approx(without.score, abs=1e-6)
    inside = speak("smartins")  # letters of a hot word within another word are not the hot word
    alone = [
        PrefixBeamSearch(plain, ALPHABET, None, phrases).find_best(inside)[0] for phrases in ([], ["martin"])
    ]
    assert alone[0].tokens == alone[1].tokens


def test_hot_words_work_without_a_language_model():
    heard = mix_letters("marten", "martin")
    config = SearchConfig(beam_size=50)
    assert ALPHABET.decode(PrefixBeamSearch(config, ALPHABET).find_best(heard)[0].tokens) == "marten"
    assert (
        ALPHABET.decode(PrefixBeamSearch(config, ALPHABET, None, ["martin"]).find_best(heard)[0].tokens)
        == "martin"
    )


def test_hot_words_that_could_never_be_heard_are_an_error():
    for tokenizer, unit in ((LETTERS, "characters"), (PIECES, "pieces")):
        with pytest.raises(UserError, match=rf"hot words: 'a cab' .* this model's {unit}: they lack c$"):
            PrefixBeamSearch(SearchConfig(beam_size=4), tokenizer, None, ["ab a", "a cab"])


def test_a_language_model_in_another_form_is_an_error():
    with pytest.raises(UserError, match=r"no word of the language model .* characters: .*perhaps capitals"):
        PrefixBeamSearch(SearchConfig(beam_size=4), ALPHABET, estimate_bigrams("THE CAT SAT", "A1 DOG"))
    PrefixBeamSearch(
        SearchConfig(beam_size=4), ALPHABET, estimate_bigrams("THE CAT SAT", "a1 dog")
    )  # one word is enough


def test_bpe_tokens_with_spaces_inside_find_words():
    tokenizer = learn_tokenizer(
        TextConfig(tokens="bpe", vocabulary_size=40),
        ["the cat sat on the mat", "the dog sat", "a cat and a dog", "he read the mat"],
    )
    for text in ("the dog sat on the mat", "a cat and a dog"):
        for model in (None, SAYINGS):
            decoder = PrefixBeamSearch(SearchConfig(beam_size=30), tokenizer, model)
            hypothesis = decoder.find_hypotheses(speak(text, tokenizer), 0.04)[0]
            assert hypothesis.text == text
            assert [word.text for word in hypothesis.words] == text.split()


def test_an_hour_needs_no_more_room_than_a_minute_and_loses_nothing():
    text = " ".join(["the cat sat on the mat a dog and he read"] * 60)
    heard = speak(text)
    assert len(heard) > 6 * BLOCK
    decoder = PrefixBeamSearch(SearchConfig(beam_size=20), ALPHABET, SAYINGS)
    hypothesis = decoder.find_hypotheses(heard, 0.04)[0]
    assert hypothesis.text == text
    assert [word.text for word in hypothesis.words] == text.split()
    times = [time for word in hypothesis.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= 0.04 * len(heard) + 1e-9
    assert hypothesis.tokens == decoder.find_best(heard)[0].tokens
    (search,) = decoder._idle
    assert len(search.nodes) <= 4 * (32 * 20 + 64)


def test_blocks_of_any_size_give_what_one_block_gives():
    """Recordings with much in doubt, read in pieces, so that words are committed while others are open."""
    heard = np.concatenate([draw_log_probs(seed, 200) for seed in range(2 * BLOCK // 200 + 3)])
    decoder = PrefixBeamSearch(SearchConfig(beam_size=30, lm_weight=0.5), LETTERS, MODEL)
    whole = decoder.find_best(heard)[0]
    stream, begin = PrefixBeamStream(decoder, 0.04), 0
    for size in itertools.cycle((1, 7, 300)):
        stream.read(heard[begin : begin + size])
        begin += size
        if begin >= len(heard):
            break
    assert stream.words  # some have their times before the end
    assert len(stream._kept) < BLOCK + 300
    hypothesis = stream.finish()
    assert hypothesis.tokens == whole.tokens
    assert hypothesis.score == pytest.approx(whole.score, rel=1e-9)
    assert [word.text for word in hypothesis.words] == hypothesis.text.split()
    times = [time for word in hypothesis.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= 0.04 * len(heard) + 1e-9


def test_half_of_the_best_is_decided_upon_where_prefixes_never_agree():
    decoder = PrefixBeamSearch(SearchConfig(beam_size=8), LETTERS)
    stream = PrefixBeamStream(decoder, None, n_best=8)
    stream.read(draw_log_probs(7, 12))
    before = stream.rank_results()
    best = before[0].tokens
    half = best[: len(best) // 2]
    assert any(found.tokens[: len(half)] != half for found in before)
    kernel.decide(stream._state)
    left = stream.rank_results()
    assert left[0] == before[0]
    assert [found for found in before if found.tokens[: len(half)] == half] == left
    assert stream._state.numbers[SIZE] == len(left)
    stream._commit()
    assert stream.tokens[: len(half)] == list(half)


def test_a_batch_is_its_members():
    decoder = PrefixBeamSearch(SearchConfig(beam_size=20), ALPHABET, SAYINGS)
    recordings = [speak(text) for text in ("the cat", "a dog sat", "", "he read the mat")]
    together = decoder.search_batch(recordings, 0.04, threads=2)
    assert together == [decoder.find_hypotheses(recording, 0.04)[0] for recording in recordings]
    assert together[2].words == ()


def test_frames_that_allow_nothing_and_scores_that_are_far_apart_do_no_harm():
    heard = speak("the cat")
    heard[3] = -np.inf
    decoder = PrefixBeamSearch(SearchConfig(beam_size=20), ALPHABET, SAYINGS)
    found = decoder.find_best(heard)[0]
    assert math.isfinite(found.score)
    sharp = np.where(heard > -1, 0.0, -200.0).astype(np.float32)
    assert ALPHABET.decode(decoder.find_best(sharp)[0].tokens) == "the cat"


# --- confidence -----------------------------------------------------------------------------------


def test_fitted_confidences_say_how_often_words_are_right():
    generator = np.random.default_rng(3)
    raw = generator.uniform(0.3, 1.0, 5000)
    truth = 1 / (1 + np.exp(-(0.7 * np.log(raw / (1.0000001 - raw)) - 0.4)))
    right = generator.random(5000) < truth
    slope, offset = fit_calibration(raw.tolist(), right.tolist())
    assert slope == pytest.approx(0.7, abs=0.1)
    assert offset == pytest.approx(-0.4, abs=0.15)
    calibrated = 1 / (1 + np.exp(-(slope * np.log(raw / (1.0000001 - raw)) + offset)))
    before, after = (
        measure_calibration_error(bin_by_confidence(c.tolist(), right.tolist())) for c in (raw, calibrated)
    )
    assert after < 0.03 < before


COMPILED = """
import numpy as np
from asr.search import SearchConfig
from asr.search import prefix_beam_kernel as kernel
from asr.search.prefix_beam import PrefixBeamSearch
from asr.text.tokenizer import BLANK, SPACE, Tokenizer
decoder = PrefixBeamSearch(SearchConfig(beam_size=4), Tokenizer((BLANK, SPACE, "a")))
decoder.find_hypotheses(np.log(np.full((9, 3), 1 / 3, np.float32)), 0.04)
print(sum(sum(f.stats.cache_misses.values()) for f in (kernel.advance, kernel.start, kernel.score_endings)))
"""


def test_the_second_process_compiles_nothing(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILED]
    runs = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert [run.stdout.strip() != "0" for run in runs] == [True, False]
