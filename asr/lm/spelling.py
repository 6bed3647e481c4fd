"""A text in numbers of words becomes one in pieces of words."""

from __future__ import annotations

import numpy as np

from asr.core.compiled import compile_function
from asr.lm.counting import Corpus
from asr.lm.vocabulary import BEGIN, END, UNKNOWN
from asr.text.pieces import END_PIECE, Pieces, learn_pieces


def learn_corpus_pieces(corpus: Corpus, size: int) -> Pieces:
    """Learn ``size`` pieces from the words of a text; raises ``UserError`` where it is too short."""
    words = corpus.vocabulary.words
    counts = np.bincount(corpus.tokens, minlength=len(words)).tolist()
    known = {word: count for word, count in zip(words, counts, strict=True) if count}
    for special in (BEGIN, END, UNKNOWN):
        known.pop(special, None)
    return learn_pieces(known, size)


def spell_corpus(corpus: Corpus, pieces: Pieces) -> np.ndarray:
    """Spell a text: the pieces of all sentences, uint16, with ``END_PIECE`` behind each."""
    words = corpus.vocabulary.words
    spellings = [
        [END_PIECE] if word == END else [] if word == BEGIN else spelling
        for word, spelling in zip(words, pieces.spell_all(words), strict=True)
    ]
    bounds = np.cumsum([0, *map(len, spellings)])
    flat = np.array([piece for spelling in spellings for piece in spelling], np.uint16)
    return _spell_tokens(corpus.tokens, bounds, flat)


@compile_function
def _spell_tokens(tokens: np.ndarray, bounds: np.ndarray, pieces: np.ndarray) -> np.ndarray:
    """Write the pieces between the ``bounds`` of each token one after the other."""
    total = 0
    for token in tokens:
        total += bounds[token + 1] - bounds[token]
    spelled = np.empty(total, np.uint16)
    place = 0
    for token in tokens:
        for n in range(bounds[token], bounds[token + 1]):
            spelled[place] = pieces[n]
            place += 1
    return spelled
