"""Rescoring with a recurrent language model: against every reading, in streams, and its weights' tuning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from asr.lm.estimation import FALLBACK, EstimationConfig, estimate
from asr.lm.recurrent import RecurrentModel
from asr.search import SearchConfig
from asr.search.beam_search import make_beam_search
from asr.search.lexicon_beam import RIVALS, LexiconBeamSearch
from asr.search.rescoring import WordScores, count_with_ngrams
from asr.text.pieces import learn_pieces
from asr.text.tokenizer import BLANK, SPACE, Tokenizer
from asr.training.tuning import LogProbs, Task, count_errors, list_hypotheses, tune_rescoring
from tests.lm.test_recurrent import make_random_model
from tests.search.test_lexicon_beam import MODEL, TOKENIZER, WIDE, draw_log_probs, score_every_reading
from tests.tiny import estimate_bigrams

CONFIG = replace(
    WIDE,
    lm_weight=0.8,
    word_bonus=0.3,
    rescore_size=1000,
    rescore_weight=0.7,
    rescore_lm_weight=0.4,
    rescore_word_bonus=1.1,
)


@pytest.fixture(scope="module")
def recurrent() -> RecurrentModel:
    return make_random_model(learn_pieces({"to": 3, "two": 2, "toot": 2, "tea": 2, "ut": 1}, 12))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("with_model", [True, False])
def test_the_best_of_every_reading_is_found(recurrent, seed, with_model):
    log_probs, model = draw_log_probs(seed, 5), MODEL if with_model else None
    # The definition: what was heard, both models' log-probs with their weights, and a bonus for each word.
    heard_and_ngram = score_every_reading(
        log_probs, replace(CONFIG, lm_weight=0.4, word_bonus=1.1), model, []
    )
    expected = {
        words: score + 0.7 * float(recurrent.score_words([words])[0])
        for words, score in heard_and_ngram.items()
    }
    search = LexiconBeamSearch(CONFIG, TOKENIZER, model, (), recurrent)
    found = search.find_best(log_probs, n_best=10_000)
    assert {one.words: one.score for one in found} == pytest.approx(expected, abs=2e-4)
    assert found[0].score == pytest.approx(max(expected.values()), abs=2e-4)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ngrams_are_counted_as_a_walk_through_the_words_does(order):
    text = b"a b a c\nb a\nc c b a b a c\na\nb c a b\n" * 3
    model = estimate([text], EstimationConfig(order=order, discount_fallback=FALLBACK))
    generator = np.random.default_rng(order)
    texts = [tuple(generator.choice(["a", "b", "c", "new"], n).tolist()) for n in (0, 1, 1, 2, 3, 5, 9, 9)]
    expected = [sum(model.score_words([*words, "</s>"], model.begin)[0]) for words in texts]
    assert count_with_ngrams(texts, model) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("threads", [1, 2])
def test_recordings_are_ranked_together_as_alone(recurrent, threads):
    search = LexiconBeamSearch(replace(CONFIG, rescore_size=20), TOKENIZER, MODEL, (), recurrent)
    recordings = [draw_log_probs(seed, frames) for seed, frames in enumerate((30, 1, 12, 45))]
    together = search.search_batch(recordings, 0.04, threads)
    for log_probs, found in zip(recordings, together, strict=True):
        alone = search.find_hypotheses(log_probs, 0.04)[0]
        assert (found.tokens, found.words) == (alone.tokens, alone.words)
        assert found.score == pytest.approx(alone.score, abs=1e-4)


def test_only_the_best_few_are_ranked_anew(recurrent):
    log_probs = draw_log_probs(3, 5)
    first = LexiconBeamSearch(CONFIG, TOKENIZER, MODEL).find_best(log_probs)[0]
    one = LexiconBeamSearch(replace(CONFIG, rescore_size=1), TOKENIZER, MODEL, (), recurrent)
    assert one.find_best(log_probs)[0].words == first.words


def test_a_stream_ends_as_the_whole_does(recurrent):
    config = replace(CONFIG, beam_size=40, recombine=True, rescore_size=20)
    search = LexiconBeamSearch(config, TOKENIZER, MODEL, (), recurrent)
    for seed in range(4):
        log_probs = draw_log_probs(seed, 30)
        stream = search.start_stream(0.04)
        for first in range(0, 30, 7):
            stream.read(log_probs[first : first + 7])
            stream.fork().read(log_probs[::-1])  # what a copy reads changes nothing
        assert stream.finish() == search.find_hypotheses(log_probs, 0.04)[0]


def test_tokens_that_spell_are_rescored_too(recurrent):
    tokenizer = Tokenizer((BLANK, SPACE, "t", "o", "u"))
    model = estimate_bigrams("to tu", "too to")
    config = replace(CONFIG, beam_size=500, closed=False)
    log_probs = draw_log_probs(1, 5, vocabulary=5)
    plain = make_beam_search(config, tokenizer, model).find_best(log_probs, n_best=400)
    texts = [tuple(tokenizer.decode(one.tokens).split()) for one in plain]
    expected = [
        one.score
        + (0.4 - 0.8) * sum(model.score_words([*words, "</s>"], model.begin)[0])
        + 0.7 * float(recurrent.score_words([words])[0])
        + (1.1 - 0.3) * len(words)
        for one, words in zip(plain, texts, strict=True)
    ]
    search = make_beam_search(replace(config, rescore_size=400), tokenizer, model, (), recurrent)
    found = search.find_best(log_probs)[0]
    assert found.score == pytest.approx(max(expected), abs=1e-3)
    assert found.tokens == plain[int(np.argmax(expected))].tokens


def test_weights_are_tuned_on_lists_that_are_made_once(recurrent):
    log_probs = {str(seed): draw_log_probs(seed, 12) for seed in range(6)}
    said = ["to tea", "tea", "to to tea", "tea to", "to", "tea tea"]
    pairs = list(zip(log_probs, said, strict=True))
    references = dict(reversed(pairs))  # in another order than the log-probs
    config = SearchConfig(beam_size=64, lm_weight=0.8, rescore_size=30)
    task = Task(LogProbs(log_probs, references, 0.04), TOKENIZER, MODEL, recurrent)
    trials = []
    best = tune_rescoring(task, config, trials.append)
    assert best.wer == min(trial.wer for trial in trials)
    lists = list_hypotheses(task, best.config)
    decoder = make_beam_search(best.config, TOKENIZER, MODEL, (), recurrent)
    wrong = sum(
        Levenshtein.distance(references[name].split(), decoder.find_best(rows)[0].words)
        for name, rows in log_probs.items()
    )
    assert count_errors(lists, best.config) == wrong
    assert best.wer == wrong / sum(len(text.split()) for text in said)
    ranked = [scores.rank(best.config)[0][0] for scores, _ in lists]
    for number, rows, (scores, errors) in zip(ranked, log_probs.values(), lists, strict=True):
        assert decoder.find_best(rows)[0].score == pytest.approx(scores.combine(best.config).max())
        assert errors[number] >= errors.min()


def test_equal_scores_keep_their_order():
    zeros = np.zeros(3)
    scores = WordScores(np.array([1.0, 2.0, 2.0]), zeros, zeros, np.ones(3))
    assert [number for number, _ in scores.rank(SearchConfig())] == [1, 2, 0]


def test_few_rivals_are_kept_to_be_ranked_anew_and_all_where_several_results_are_asked_for(recurrent):
    plain = LexiconBeamSearch(replace(CONFIG, recombine=True), TOKENIZER, MODEL)
    search = LexiconBeamSearch(replace(CONFIG, recombine=True), TOKENIZER, MODEL, (), recurrent)
    exact = LexiconBeamSearch(replace(CONFIG, recombine=False), TOKENIZER, MODEL, (), recurrent)
    chosen = [one.choose_limits(n).rivals for one in (plain, search, exact) for n in (1, 2)]
    assert chosen == [1, 0, RIVALS, 0, 0, 0]
