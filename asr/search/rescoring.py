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
from asr.search.config import SearchConfig

Words = tuple[str, ...]


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
    """Compute natural log P of texts, their ends included, ``(texts,)``: a word of each at a time."""
    numbers = [[*map(model.find_number, words), model.end] for words in texts]
    totals, states = np.zeros(len(texts)), np.full(len(texts), model.begin)
    for place in range(max(map(len, numbers), default=0)):
        rows = np.array([row for row, text in enumerate(numbers) if place < len(text)])
        words = np.array([numbers[row][place] for row in rows])
        log_probs, states[rows] = score_words(model.trie, states[rows], words)
        totals[rows] += log_probs
    return totals


def score_hypotheses(
    texts: Sequence[Words], scores: Sequence[float], ngram: NgramModel | None, recurrent: RecurrentModel
) -> WordScores:
    """Score the words of hypotheses with both language models."""
    counted = np.zeros(len(texts)) if ngram is None else count_with_ngrams(texts, ngram)
    lengths = np.array([len(words) for words in texts])
    return WordScores(np.array(scores, np.float64), counted, recurrent.score_words(texts), lengths)
