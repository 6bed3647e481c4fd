"""Sentences sampled from a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asr.core.compiled import compile_function
from asr.lm.look_up import score_word
from asr.lm.model import NgramModel
from asr.lm.packed import Trie
from asr.lm.recurrent import RecurrentModel
from asr.lm.vocabulary import BEGIN
from asr.text.pieces import END_PIECE, UNKNOWN_PIECE

MOST_PIECES_A_WORD = 32


def predict_next(model: NgramModel, state: int) -> np.ndarray:
    """Compute natural log P(word | state) of every word of the vocabulary: ``(words,)`` float64."""
    log_probs = np.empty(len(model.vocabulary))
    _fill_log_probs(model.trie, state, log_probs)
    return log_probs


@compile_function
def _fill_log_probs(trie: Trie, state: int, log_probs: np.ndarray) -> None:
    for word in range(len(log_probs)):
        log_probs[word] = score_word(trie, state, word)[0]


@dataclass(frozen=True)
class SamplingConfig:
    """How sentences are drawn."""

    seed: int = 0  # the same one makes the same text
    longest: int = 100  # words after which a sentence is cut off
    temperature: float = 1.0  # divides log-probs; at 0 the likeliest comes
    begin: tuple[str, ...] = ()  # the words that each sentence begins with


def sample_sentences(
    model: NgramModel | RecurrentModel,
    count: int,
    config: SamplingConfig = SamplingConfig(),
) -> Iterator[str]:
    """Sample ``count`` sentences from ``model``; what it does not know is never sampled."""
    generator = np.random.default_rng(config.seed)
    for _ in range(count):
        if isinstance(model, RecurrentModel):
            yield _sample_pieces(model, generator, config)
        else:
            yield _sample_words(model, generator, config)


def _sample_words(model: NgramModel, generator: np.random.Generator, config: SamplingConfig) -> str:
    """Sample the words of one sentence, up to ``</s>``."""
    words = list(config.begin)
    state = model.score_words(words, model.begin)[1]
    forbidden = [model.vocabulary.find(BEGIN), model.unknown]
    while len(words) < config.longest:
        word = draw(predict_next(model, state), forbidden, generator, config.temperature)
        if word == model.end:
            break
        words.append(model.vocabulary.words[word])
        _, state = score_word(model.trie, state, word)
    return " ".join(words)


def _sample_pieces(model: RecurrentModel, generator: np.random.Generator, config: SamplingConfig) -> str:
    """Sample the pieces of one sentence, up to its end."""
    pieces = model.spell(config.begin)
    states = model.begin()
    for piece in [END_PIECE, *pieces]:
        states = model.advance(states, np.array([piece]))
    words = len(config.begin)
    for _ in range(MOST_PIECES_A_WORD * config.longest):
        log_probs = model.predict(states)[0].astype(np.float64)
        piece = draw(log_probs, [UNKNOWN_PIECE], generator, config.temperature)
        words += model.pieces.surfaces[piece].startswith(" ") or not pieces
        if piece == END_PIECE or words > config.longest:
            break
        pieces.append(piece)
        states = model.advance(states, np.array([piece]))
    return model.pieces.join(pieces)


def draw(
    log_probs: np.ndarray, forbidden: Sequence[int], generator: np.random.Generator, temperature: float
) -> int:
    """Draw a class by its natural log-prob, ``(classes,)``, none of the ``forbidden`` ones."""
    if temperature == 0:
        log_probs[forbidden] = -np.inf
        return int(log_probs.argmax())
    if temperature != 1:
        log_probs = (log_probs - log_probs.max()) / temperature
    probabilities = np.exp(log_probs)
    probabilities[forbidden] = 0
    cumulative = np.cumsum(probabilities)
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
