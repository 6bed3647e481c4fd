"""Search token by token: a wide beam is exhaustive search, by whatever hypotheses are weighed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from asr.search.config import SearchConfig
from asr.search.spelling_beam import (
    COVERED,
    END,
    SpellingConfig,
    WordFusion,
    _begin_prefixes,
    _extend_prefixes,
    _score_prefixes,
    spell,
)
from tests.reference import ctc_log_probability, every_label_sequence
from tests.tiny import estimate_bigrams

FRAMES, TOKENS, LONGEST = 4, 3, 4
SURFACES = ("", " a", "b")


class TableScorer:
    """A decoder whose log-probs are a table: by the last two tokens."""

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        scores = generator.normal(0, 1.5, (TOKENS, TOKENS, TOKENS))
        self.table = scores - np.log(np.exp(scores).sum(2, keepdims=True))
        self.looks = generator.dirichlet(np.full(FRAMES, 0.3), TOKENS)
        self.texts: list[tuple[int, ...]] = [()]

    def step(self, parents: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.texts = [(*self.texts[p], int(t)) for p, t in zip(parents, tokens, strict=True)]
        rows = [self.table[text[-2] if len(text) > 1 else END, text[-1]] for text in self.texts]
        return np.array(rows), self.looks[np.asarray(tokens)]

    def score(self, text: tuple[int, ...]) -> tuple[float, np.ndarray]:
        """What it says of a whole text and its end, and where it looked, summed over steps."""
        path = (END, END, *text, END)
        total = sum(self.table[a, b, c] for a, b, c in zip(path, path[1:], path[2:], strict=False))
        return float(total), self.looks[[END, *text]].sum(0)


def draw_rows(seed: int = 1) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(0, 1, (FRAMES, TOKENS))
    return scores - np.log(np.exp(scores).sum(1, keepdims=True))


def every_text() -> list[tuple[int, ...]]:
    return [t for n in range(LONGEST + 1) for t in itertools.product(range(1, TOKENS), repeat=n)]


def score_words(fusion: WordFusion, text: tuple[int, ...]) -> float:
    words = "".join(SURFACES[token] for token in text).split()
    config, model = fusion.config, fusion.model
    if model is None:
        return config.word_bonus * len(words)
    log_probs, state = model.score_words(words, model.begin)
    end, _ = model.score_words(["</s>"], state)
    unknown = sum(len(word) for word in words if model.vocabulary.find(word) < 0)
    total = config.lm_weight * (sum(log_probs) + end[0]) + config.word_bonus * len(words)
    return total + config.unknown_score * unknown


FUSIONS = {
    "none": None,
    "words": WordFusion(SearchConfig(word_bonus=0.4), SURFACES),
    "bigrams": WordFusion(
        SearchConfig(lm_weight=0.7, word_bonus=-0.3), SURFACES, estimate_bigrams("a ab", "ab a a", "abb")
    ),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("fusion", FUSIONS.values(), ids=FUSIONS)
@pytest.mark.parametrize(("length_bonus", "coverage"), [(0.0, 0.0), (0.5, 0.7)])
def test_a_wide_beam_is_exhaustive_search(seed, share, fusion, length_bonus, coverage):
    scorer, rows = TableScorer(seed), draw_rows(seed)
    expected: dict[tuple[int, ...], float] = {}
    for text in every_text():
        own, looked = scorer.score(text)
        heard = ctc_log_probability(rows, text) if share else 0.0
        if heard > -math.inf:
            score = (1 - share) * own + share * heard + length_bonus * len(text)
            score += coverage * (looked > COVERED).sum() + (score_words(fusion, text) if fusion else 0.0)
            expected[text] = score
    config = SpellingConfig(200, LONGEST, share, length_bonus, coverage)
    found = {result.tokens: result.score for result in spell(scorer, config, rows, fusion)}
    assert found.keys() == expected.keys()
    for text, score in expected.items():
        assert found[text] == pytest.approx(score, abs=1e-9)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    few = spell(TableScorer(seed), SpellingConfig(40, LONGEST, share, length_bonus, coverage), rows, fusion)
    assert few[0].tokens == max(expected, key=expected.__getitem__)


def test_greedy_takes_the_best_token_each_time():
    scorer = TableScorer(5)
    text: tuple[int, ...] = ()
    while len(text) < 50:
        path = (END, END, *text)
        best = int(scorer.table[path[-2], path[-1]].argmax())
        if best == END:
            break
        text += (best,)
    (found, *_) = spell(TableScorer(5), SpellingConfig(1, 50))
    # It may go on past an end that is the best token: what ended first is better then.
    assert found.score >= scorer.score(text)[0] - 1e-9
    assert len(found.log_probs) == len(found.tokens) + 1
    assert sum(found.log_probs) == pytest.approx(found.score)
    assert found.weights.shape == (len(found.tokens) + 1, FRAMES)


@pytest.mark.parametrize("text", [(), (1,), (1, 1), (2, 1)])
def test_prefixes_have_the_probability_of_all_that_begins_so(text):
    rows = draw_rows(3)
    states, last = _begin_prefixes(rows)[None], np.array([END])
    for number, token in enumerate(text):
        states = _extend_prefixes(rows, states, last, np.array([token]), number == 0)
        last = np.array([token])
    scores = _score_prefixes(rows, states, last)[0]
    texts = every_label_sequence(rows)
    assert math.exp(scores[END]) == pytest.approx(math.exp(ctc_log_probability(rows, text)), abs=1e-9)
    for token in range(1, TOKENS):
        begin = (*text, token)
        total = sum(math.exp(p) for other, p in texts.items() if tuple(other[: len(begin)]) == begin)
        assert math.exp(scores[token]) == pytest.approx(total, abs=1e-9)


def test_a_closed_vocabulary_lets_no_other_word_end():
    model = estimate_bigrams("a", "ab")
    fusion = WordFusion(SearchConfig(closed=True), SURFACES, model)
    for result in spell(TableScorer(2), SpellingConfig(60, LONGEST), None, fusion):
        words = "".join(SURFACES[token] for token in result.tokens).split()
        assert set(words) <= {"a", "ab"}
