"""Label priors: measured, taken off, of use where a model is too fond of blanks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asr.core.config import ConfigError
from asr.errors import UserError
from asr.search import SearchConfig
from asr.search.prefix_beam import PrefixBeamSearch
from asr.search.priors import measure_log_priors, take_off_priors
from asr.text.tokenizer import BLANK, Tokenizer

LETTERS = Tokenizer((BLANK, "a", "b"))


def make_frames(*rows: tuple[float, ...]) -> np.ndarray:
    return np.log(np.array(rows, np.float32))


def test_priors_are_mean_probabilities():
    first, second = make_frames((0.8, 0.1, 0.1)), make_frames((0.2, 0.7, 0.1), (0.5, 0.4, 0.1))
    np.testing.assert_allclose(np.exp(measure_log_priors([first, second])), [0.5, 0.4, 0.1], atol=1e-4)
    never = np.array([[0.0, -50.0, -50.0]], np.float32)
    assert measure_log_priors([never])[1] == pytest.approx(np.log(1e-6), abs=1e-3)


def test_all_of_the_priors_off_is_bayes_rule():
    log_probs = make_frames((0.6, 0.3, 0.1), (0.2, 0.2, 0.6))
    config = SearchConfig(prior_weight=1.0, log_priors=tuple(np.log([0.5, 0.25, 0.25]).tolist()))
    expected = np.array([[1.2, 1.2, 0.4], [0.4, 0.8, 2.4]])
    np.testing.assert_allclose(
        np.exp(take_off_priors(log_probs, config, 3)),
        expected / expected.sum(axis=1, keepdims=True),
        atol=1e-6,
    )
    np.testing.assert_array_equal(take_off_priors(log_probs, replace(config, prior_weight=0.0), 3), log_probs)
    half = np.array([0.6, 0.3, 0.1]) / np.sqrt([0.5, 0.25, 0.25])
    found = np.exp(take_off_priors(log_probs, replace(config, prior_weight=0.5), 3)[0])
    np.testing.assert_allclose(found, half / half.sum(), atol=1e-6)


def test_a_rare_token_is_found_that_blanks_had_hidden():
    log_probs = make_frames((0.55, 0.4, 0.05), (0.9, 0.05, 0.05), (0.55, 0.05, 0.4))
    plain = SearchConfig(beam_size=8)
    priors = replace(plain, prior_weight=0.6, log_priors=measure_log_priors([log_probs]))
    texts = [
        PrefixBeamSearch(config, LETTERS).find_hypotheses(log_probs, 0.04)[0].text
        for config in (plain, priors)
    ]
    assert texts == ["", "ab"]


def test_priors_of_another_vocabulary_are_refused():
    config = SearchConfig(beam_size=8, prior_weight=0.5, log_priors=(0.0, 0.0))
    with pytest.raises(UserError, match="of 2 tokens, the model has 3"):
        PrefixBeamSearch(config, LETTERS).find_hypotheses(make_frames((0.6, 0.3, 0.1)), 0.04)
    with pytest.raises(ConfigError, match="prior_weight"):
        SearchConfig(prior_weight=0.5)
