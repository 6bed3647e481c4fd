"""What a prefix beam search reads besides log-probs: tokens, words, n-grams and hot words as arrays."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import numpy as np

from asr.lm.model import NgramModel
from asr.lm.packed import make_empty_model
from asr.lm.vocabulary import BEGIN, END, UNKNOWN, build_vocabulary
from asr.search.config import Phrases, SearchConfig
from asr.search.hotwords import SPACE, build_byte_automaton
from asr.search.lexicon_trie import LexiconTrie, build_lexicon_trie, make_empty_trie
from asr.search.prefix_beam_kernel import MOST_GROWTH, Fusion, Pruning, SearchTables, TokenTexts
from asr.text.tokenizer import Tokenizer

SMALLEST = 1e-37  # that float32 holds with full precision

NO_TRIE = make_empty_model()  # stands for a language model that is not there


def build_search_tables(
    config: SearchConfig, tokenizer: Tokenizer, model: NgramModel | None, phrases: Phrases
) -> SearchTables:
    """Build what all searches with these options share; ``phrases`` are hot words."""
    hot = build_byte_automaton(phrases, config.hotword_weight)
    lexicon = make_empty_trie() if model is None else build_trie_with_phrases(model, phrases)
    weight = config.lm_weight if model is not None else 0.0
    unknown = 0.0 if model is None else -np.inf if config.closed else config.unknown_score
    unknown_word, end_word = (0, 0) if model is None else (model.unknown, model.end)
    outside = 0.0 if model is None else weight * look_up_unigram(model, unknown_word)
    if np.isinf(unknown):
        outside = -np.inf
    reachable = lexicon.ahead > -np.inf  # with a weight of 0, infinity times it would be no number
    ahead = np.where(reachable, weight * np.where(reachable, lexicon.ahead, 0.0).astype(np.float64), -np.inf)
    if not np.isinf(unknown):
        ahead = np.maximum(ahead, outside + unknown * lexicon.depths)
    ahead = np.exp(np.clip(ahead, np.log(SMALLEST), -np.log(SMALLEST))).astype(np.float32)
    inner_bound = raise_e(float(hot.ahead.max() + max(hot.gains.max(), 0.0)))
    best_end = max(config.word_bonus, 0.0) + max(config.unknown_score, 0.0)
    return SearchTables(
        pieces=encode_token_texts(tokenizer),
        lexicon=lexicon,
        ahead=ahead,
        trie=NO_TRIE if model is None else model.trie,
        hot=hot,
        hot_ahead=np.exp(np.minimum(hot.ahead, MOST_GROWTH)),
        fusion=Fusion(
            lm_weight=float(weight),
            word_bonus=float(config.word_bonus),
            unknown=float(unknown),
            outside=0.0 if np.isinf(unknown) else max(raise_e(outside), SMALLEST),
            inner_bound=inner_bound,
            border_bound=raise_e(best_end) * float(ahead[0]) * inner_bound,
            unknown_word=unknown_word,
            end_word=end_word,
        ),
        pruning=Pruning(
            beam_size=config.beam_size,
            worst_share=float(np.exp(-config.beam_threshold)),
            token_threshold=float(config.token_threshold),
            blank_threshold=float(np.log(config.blank_threshold)),
            recombine=config.recombine,
        ),
    )


def encode_token_texts(tokenizer: Tokenizer) -> TokenTexts:
    """Encode what tokens contribute to a text, as bytes."""
    surfaces = [surface.encode() for surface in tokenizer.surfaces]
    bounds = np.zeros(len(surfaces) + 1, np.int32)
    np.cumsum([len(surface) for surface in surfaces], out=bounds[1:])
    letters = np.frombuffer(b"".join(surfaces), np.uint8).copy()
    single = [surface[0] if len(surface) == 1 and surface[0] != SPACE else 0 for surface in surfaces]
    borders = [SPACE in surface for surface in surfaces]
    return TokenTexts(letters, bounds, np.array(borders), np.array(single, np.uint8))


def build_trie_with_phrases(model: NgramModel, phrases: Phrases) -> LexiconTrie:
    """Build the trie of a language model's vocabulary and of the words of hot phrases that it lacks.

    The language model scores a hot word that it lacks as ``<unk>``.
    """
    vocabulary = model.vocabulary
    numbers = np.arange(len(vocabulary), dtype=np.int32)
    log_probs = model.unigrams.copy()
    for special in (BEGIN, END, UNKNOWN):
        number = vocabulary.find(special)
        if number >= 0:
            numbers[number], log_probs[number] = -1, -np.inf
    new = sorted(
        {word.encode() for phrase in phrases for word in phrase.split() if vocabulary.find(word) < 0}
    )
    if new:
        letters, bounds = vocabulary.letters.tobytes(), vocabulary.bounds.tolist()
        known = [letters[begin:end] for begin, end in pairwise(bounds)]
        places = [bisect_left(known, word) for word in new]
        numbers = np.insert(numbers, places, model.unknown).astype(np.int32)
        log_probs = np.insert(log_probs, places, look_up_unigram(model, model.unknown))
        vocabulary = build_vocabulary(sorted([*known, *new]))
    return build_lexicon_trie(vocabulary.letters, vocabulary.bounds, numbers, log_probs)


def raise_e(exponent: float) -> float:
    """Raise e to a power, at most to ``MOST_GROWTH``."""
    return float(np.exp(min(exponent, MOST_GROWTH)))


def look_up_unigram(model: NgramModel, word: int) -> float:
    """Look up the log probability of a word without context."""
    return float(model.unigrams[word])
