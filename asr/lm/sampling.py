"""Sentences sampled from a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from asr.core.compiled import compile_function
from asr.lm.model import NgramModel
from asr.lm.packed import Trie, score_word
from asr.lm.vocabulary import BEGIN


def predict_next(model: NgramModel, state: int) -> np.ndarray:
    """Compute natural log P(word | state) of every word of the vocabulary: ``(words,)`` float64."""
    log_probs = np.empty(len(model.vocabulary))
    _fill_log_probs(model.trie, state, log_probs)
    return log_probs


@compile_function
def _fill_log_probs(trie: Trie, state: int, log_probs: np.ndarray) -> None:
    for word in range(len(log_probs)):
        log_probs[word] = score_word(trie, state, word)[0]


def sample_sentences(model: NgramModel, count: int, seed: int, longest: int = 100) -> Iterator[str]:
    """Sample ``count`` sentences from ``model``, each cut off after ``longest`` words.

    ``<unk>`` is never sampled. The same seed gives the same sentences.
    """
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield " ".join(model.vocabulary.words[word] for word in _sample_sentence(model, generator, longest))


def _sample_sentence(model: NgramModel, generator: np.random.Generator, longest: int) -> list[int]:
    """Sample the words of one sentence, up to ``</s>``."""
    words: list[int] = []
    state = model.begin
    while len(words) < longest:
        probabilities = np.exp(predict_next(model, state))
        probabilities[[model.vocabulary.find(BEGIN), model.unknown]] = 0
        cumulative = np.cumsum(probabilities)
        word = int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
        if word == model.end:
            break
        words.append(word)
        _, state = score_word(model.trie, state, word)
    return words
