"""Rescoring: a recurrent language model ranks the best hypotheses of a search anew.

The score of a hypothesis is a weighted sum: what it heard, the n-gram model's log-prob, the recurrent
model's, and a bonus for each word (log-linear interpolation; Mikolov et al. 2010 rescore lists so).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr.lm.model import NgramModel
from asr.lm.packed import score_words
from asr.lm.recurrent import RecurrentModel
from asr.lm.vocabulary import BEGIN
from asr.search.config import SearchConfig

Words = tuple[str, ...]
NOTHING = -1  # stands where a sentence has no word before, and for a beginning that a model does not know
REACH = 12  # pieces by which the recurrent model tells what came before: about eight words


@dataclass(frozen=True)
class WordScores:
    """What rescoring knows of each hypothesis of a list, float64 and whole numbers, ``(hypotheses,)`` each.

    ``scores`` are the search's, ``ngram`` and ``recurrent`` log-probs of all words and the end, ``words``
    counts.
    """

    scores: np.ndarray
    ngram: np.ndarray
    recurrent: np.ndarray
    words: np.ndarray

    def combine(self, config: SearchConfig) -> np.ndarray:
        """Combine them as ``config`` says: ``(hypotheses,)``."""
        return (
            self.scores
            + (config.rescore_lm_weight - config.lm_weight) * self.ngram
            + config.rescore_weight * self.recurrent
            + (config.rescore_word_bonus - config.word_bonus) * self.words
        )

    def rank(self, config: SearchConfig) -> list[tuple[int, float]]:
        """Rank the hypotheses: number and new score of each, best first; of equal ones the earlier first."""
        combined = self.combine(config)
        return [(int(number), float(combined[number])) for number in np.argsort(-combined, kind="stable")]


def count_with_ngrams(texts: Sequence[Words], model: NgramModel) -> np.ndarray:
    """Compute natural log P of texts, their ends included, ``(texts,)``.

    Words are looked up behind as many others as the model's n-grams have; each such sequence once, and all of
    them together.
    """
    reach = model.order - 1
    begin = [*[NOTHING] * (reach - 1), model.vocabulary.find(BEGIN)][:reach]
    end = model.end
    known = {word: model.find_number(word) for word in set().union(*texts)}
    sequences: dict[tuple[int, ...], int] = {}
    places: list[int] = []
    for words in texts:
        numbers = [*begin, *map(known.__getitem__, words), end]
        for last in range(reach, len(numbers)):
            places.append(sequences.setdefault(tuple(numbers[last - reach : last + 1]), len(sequences)))
    states = np.zeros(len(sequences), np.int64)
    log_probs = np.zeros(len(sequences))
    for column in np.array(list(sequences)).reshape(len(sequences), reach + 1).T:
        rows = np.flatnonzero(column != NOTHING)
        log_probs[rows], states[rows] = score_words(model.trie, states[rows], column[rows])
    ends = np.cumsum([len(words) + 1 for words in texts])
    return np.array([part.sum() for part in np.split(log_probs[places], ends)[:-1]])


def score_hypotheses(
    texts: Sequence[Words], scores: Sequence[float], ngram: NgramModel | None, recurrent: RecurrentModel
) -> WordScores:
    """Score the words of hypotheses with both language models."""
    return score_lists([texts], [scores], ngram, recurrent)[0]


def score_lists(
    texts: Sequence[Sequence[Words]],
    scores: Sequence[Sequence[float]],
    ngram: NgramModel | None,
    recurrent: RecurrentModel,
) -> list[WordScores]:
    """Score the words of several lists of hypotheses, of a recording each: together that takes less time."""
    every = [words for hypotheses in texts for words in hypotheses]
    counted = np.zeros(len(every)) if ngram is None else count_with_ngrams(every, ngram)
    ends = np.cumsum([len(hypotheses) for hypotheses in texts])
    return [
        WordScores(np.array(own, np.float64), ngrams, network, np.array([len(words) for words in hypotheses]))
        for hypotheses, own, ngrams, network in zip(
            texts, scores, np.split(counted, ends)[:-1], recurrent.score_lists(texts, REACH), strict=True
        )
    ]
