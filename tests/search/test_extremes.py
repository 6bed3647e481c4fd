"""Searches at the bounds of their options, with strange log-probs: finite scores, no more than the beam."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.core.config import ConfigError
from asr.lm.model import NgramModel
from asr.search.alignment import align_tokens
from asr.search.beam_search import make_beam_search
from asr.search.confidence import calibrate
from asr.search.config import HIGHEST, WIDEST_BEAM, SearchConfig, SearchError
from asr.search.lexicon_beam import MOST_CANDIDATES, LexiconBeamSearch
from asr.search.log_probs import LogProbsError
from asr.search.prefix_beam import PrefixBeamSearch, PrefixBeamStream
from asr.search.prefix_beam_kernel import SIZE
from asr.text.lexicon import make_lexicon
from asr.text.tokenizer import BLANK, SPACE, Tokenizer
from asr.transcript.values import Word
from tests.tiny import estimate_bigrams

UNHURRIED = settings(deadline=None, max_examples=150)
LETTERS = Tokenizer((BLANK, SPACE, "a", "b"))
PHONES = Tokenizer(
    (BLANK, "A", "B"), lexicon=make_lexicon([("a", ("A",)), ("b", ("B",)), ("ab", ("A", "B"))])
)
MODEL = estimate_bigrams("a", "a b", "ab a", "b ab", "a a b")
PHRASES = ("a b " * 40, "b", "a " * 60)

weights = st.sampled_from([0.0, 1e-300, 1.0, HIGHEST])
scores = st.sampled_from([-HIGHEST, -1e-300, 0.0, 3.0, HIGHEST])
configs = st.builds(
    SearchConfig,
    beam_size=st.sampled_from([1, 2, 7]),
    lm_weight=weights,
    word_bonus=scores,
    unknown_score=scores,
    closed=st.booleans(),
    hotword_weight=weights,
    beam_threshold=st.sampled_from([1e-300, 12.0, 1000.0]),
    token_threshold=st.sampled_from([-1000.0, -12.0, -1e-300]),
    blank_threshold=st.sampled_from([5e-324, 0.99, 1.0]),
    recombine=st.booleans(),
    confidence_slope=scores,
    confidence_offset=scores,
)
log_probs = st.lists(
    st.lists(st.sampled_from([0.0, -0.7, -12.0, -90.0, -700.0, -1e30, -math.inf]), min_size=4, max_size=4),
    max_size=30,
)


@UNHURRIED
@given(configs, log_probs, st.booleans(), st.booleans(), st.booleans())
def test_no_option_within_its_bounds_breaks_a_search(config, rows, with_model, with_phrases, by_lexicon):
    tokenizer = PHONES if by_lexicon else LETTERS
    heard = np.array(rows, np.float32).reshape(-1, 4)[:, : len(tokenizer)]
    model: NgramModel | None = MODEL if with_model else None
    decoder = make_beam_search(config, tokenizer, model, PHRASES if with_phrases else ())
    found = decoder.find_hypotheses(heard, 0.04, n_best=3)
    assert 1 <= len(found) <= max(3, config.beam_size)
    assert all(not math.isnan(hypothesis.score) and hypothesis.score < math.inf for hypothesis in found)
    assert all(0 <= word.confidence <= 1 for hypothesis in found for word in hypothesis.words)


@UNHURRIED
@given(configs, log_probs, st.booleans())
def test_survivors_never_exceed_the_beam(config, rows, with_phrases):
    decoder = PrefixBeamSearch(config, LETTERS, MODEL, PHRASES if with_phrases else ())
    stream = PrefixBeamStream(decoder, None)
    for row in rows:
        stream.read(np.array([row], np.float32))
        kept = stream._state.beam[: stream._state.numbers[SIZE]]
        assert 1 <= len(kept) <= config.beam_size
        assert np.isfinite(kept["blank"]).all()
        assert np.isfinite(kept["token"]).all()


@pytest.mark.parametrize("tokenizer", [LETTERS, PHONES])
@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.full((5, 9), -1.0, np.float32), "one column for each token"),
        (np.full((5, 2), -1.0, np.float32), "one column for each token"),
        (np.full(4, -1.0, np.float32), "one column for each token"),
        (np.full((5, 4), np.nan, np.float32), "not a number, or above 0"),
        (np.full((5, 4), 1e30, np.float32), "not a number, or above 0"),
        (np.full((5, 4), -1), "floating-point"),
    ],
)
def test_log_probs_that_are_none_are_refused(tokenizer, rows, said):
    if rows.shape == (5, 4):
        rows = rows[:, : len(tokenizer)]
    decoder = make_beam_search(SearchConfig(beam_size=4), tokenizer)
    with pytest.raises(LogProbsError, match=said):
        decoder.find_best(rows)


@pytest.mark.parametrize("field", dataclasses.fields(SearchConfig), ids=lambda field: field.name)
def test_every_number_of_a_search_has_bounds_on_both_sides(field):
    if isinstance(field.default, bool):
        return
    for number in (1e300, -1e300, math.inf, -math.inf, math.nan):
        value = (number,) if field.name == "log_priors" else number
        with pytest.raises(ConfigError, match=field.name):
            SearchConfig(**{field.name: value})


def test_homophones_without_end_are_refused_with_a_wide_beam():
    words = make_lexicon((f"a{number}", ("A",)) for number in range(MOST_CANDIDATES // WIDEST_BEAM + 1))
    with pytest.raises(SearchError, match="use at most"):
        LexiconBeamSearch(SearchConfig(beam_size=WIDEST_BEAM), Tokenizer((BLANK, "A"), lexicon=words))


def test_confidences_beyond_all_bounds_are_shares():
    words = [Word("a", 0.0, 1.0, share) for share in (0.0, 0.5, 1.0)]
    config = SearchConfig(confidence_slope=HIGHEST, confidence_offset=-HIGHEST)
    assert [word.confidence for word in calibrate(words, config)] == pytest.approx([0.0, 0.0, 1.0], abs=1e-9)


def test_tokens_are_placed_where_a_frame_allows_nothing():
    heard = np.log(np.array([[0.1, 0.1, 0.8, 0.1], [0.1, 0.1, 0.1, 0.8]], np.float32))
    heard = np.insert(heard, [0, 1, 2], np.full((1, 4), -np.inf, np.float32), axis=0)
    placed = align_tokens(heard, np.array([2, 3], np.int32))
    assert (placed.ends > placed.begins).all()
    assert placed.peaks == pytest.approx(np.log([0.8, 0.8]), abs=1e-6)
