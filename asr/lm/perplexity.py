"""Perplexity: how well a model predicts a text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from asr.core.compiled import compile_function
from asr.errors import UserError
from asr.lm.counting import number_words
from asr.lm.look_up import score_word
from asr.lm.model import NgramModel
from asr.lm.packed import Trie
from asr.lm.recurrent import RecurrentModel
from asr.lm.text import SPACES
from asr.lm.word_table import build_table

SENTENCE, SENTENCE_END = -2, -3  # in place of words, where a sentence begins and ends
SENTENCES_AT_ONCE = 256  # that a recurrent model scores

GAP = re.compile(b"[" + SPACES + b"]+")

LanguageModel = NgramModel | RecurrentModel


@dataclass(frozen=True)
class Perplexity:
    """How a model scores a text, in counts and natural logarithms.

    A token is a word or the end of a sentence; a model without ``</s>`` has no ``ends``. ``unknown`` are the
    words outside the vocabulary; ``known_log_prob`` is the sum over all other tokens.
    """

    sentences: int
    words: int
    unknown: int
    known_log_prob: float
    unknown_log_prob: float
    ends: int

    @property
    def tokens(self) -> int:
        """Words and ends of sentences."""
        return self.words + self.ends

    @property
    def log_prob(self) -> float:
        """The sum over all tokens; minus infinity where the model says that one of them cannot be."""
        return self.known_log_prob + self.unknown_log_prob

    @property
    def including_unknown(self) -> float:
        """Perplexity per token, unknown words as ``<unk>``."""
        return exponentiate(-self.log_prob / self.tokens)

    @property
    def excluding_unknown(self) -> float | None:
        """Perplexity per token, unknown words not counted; they stay in the contexts of others.

        ``None`` where there are no other tokens.
        """
        known = self.tokens - self.unknown
        return exponentiate(-self.known_log_prob / known) if known else None

    @property
    def unknown_rate(self) -> float:
        """Unknown words per word."""
        return self.unknown / self.words


def exponentiate(x: float) -> float:
    """Compute ``e`` to the ``x``, infinite where that is too large for a float."""
    with np.errstate(over="ignore"):
        return float(np.exp(x))


def measure_perplexity(model: LanguageModel, blocks: Iterable[bytes]) -> Perplexity:
    """Measure the perplexity of a text: UTF-8, a sentence per line, in blocks of whole lines.

    Raises ``UserError`` when the text has no words.
    """
    totals, sentences = np.zeros(4), 0
    score = _score_with_network if isinstance(model, RecurrentModel) else _score_blocks
    for _, rows in score(model, blocks):  # type: ignore[arg-type]  # of the model's kind
        totals += rows.sum(axis=0)
        sentences += len(rows)
    if not sentences:
        raise UserError("the text has no words: perplexity is not defined")
    return _make_perplexity(sentences, totals, model)


def measure_sentence_perplexities(
    model: LanguageModel, blocks: Iterable[bytes]
) -> Iterator[tuple[str, Perplexity]]:
    """Yield each sentence of a text with its own perplexity."""
    score = _score_with_network if isinstance(model, RecurrentModel) else _score_blocks
    for block, rows in score(model, blocks):  # type: ignore[arg-type]  # of the model's kind
        lines = [line.strip(SPACES) for line in block.split(b"\n")]
        for sentence, row in zip(filter(None, lines), rows, strict=True):
            yield sentence.decode(), _make_perplexity(1, row, model)


def _score_with_network(model: RecurrentModel, blocks: Iterable[bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
    """As ``_score_blocks``, for a recurrent model: a word's log-prob is the sum of its pieces'."""
    for block in blocks:
        lines = [line for line in block.split(b"\n") if line.strip(SPACES)]
        for first in range(0, len(lines), SENTENCES_AT_ONCE):
            part = lines[first : first + SENTENCES_AT_ONCE]
            sentences = [[word.decode() for word in GAP.split(line.strip(SPACES))] for line in part]
            spelled = [model.spell(words) for words in sentences]
            rows = [
                _count_words(model, words, log_probs)
                for words, log_probs in zip(sentences, model.score_pieces(spelled), strict=True)
            ]
            yield b"\n".join(part), np.array(rows)


def _count_words(model: RecurrentModel, words: list[str], log_probs: np.ndarray) -> list[float]:
    """Make the row of ``_score_tokens`` of a sentence from the log-probs of its pieces."""
    unknown, unknown_log_prob, place = 0, 0.0, 0
    for word in words:
        end = place + len(model.pieces.spell(word))
        if model.is_unknown(word):
            unknown += 1
            unknown_log_prob += float(log_probs[place:end].sum())
        place = end
    return [len(words), unknown, float(log_probs.sum()) - unknown_log_prob, unknown_log_prob]


def _make_perplexity(sentences: int, row: np.ndarray, model: LanguageModel) -> Perplexity:
    words, unknown, known_log_prob, unknown_log_prob = row.tolist()
    ends = sentences if model.has_ends else 0
    return Perplexity(sentences, int(words), int(unknown), known_log_prob, unknown_log_prob, ends)


def _score_blocks(model: NgramModel, blocks: Iterable[bytes]) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield each block with a row for each of its sentences, as ``_score_tokens`` makes them."""
    table = build_table(model.vocabulary.letters, model.vocabulary.bounds)
    for block in blocks:
        tokens, table = number_words(
            np.frombuffer(block, np.uint8), table, SENTENCE, SENTENCE_END, model.unknown
        )
        yield (
            block,
            _score_tokens(
                model.trie, tokens, model.begin, model.end if model.has_ends else -1, model.unknown
            ),
        )


@compile_function
def _score_tokens(trie: Trie, tokens: np.ndarray, begin: int, end: int, unknown: int) -> np.ndarray:
    """Make a row for each sentence: words, unknown words, log-probs of all other tokens and of unknown words.

    Ends of sentences are left out where ``end`` is negative.
    """
    rows = np.zeros((np.sum(tokens == SENTENCE), 4))
    number, state = -1, begin
    for token in tokens:
        if token == SENTENCE:
            number += 1
            state = begin
            continue
        if token == SENTENCE_END and end < 0:
            continue
        log_prob, state = score_word(trie, state, end if token == SENTENCE_END else token)
        rows[number, 0] += token != SENTENCE_END
        if token == unknown:
            rows[number, 1] += 1
            rows[number, 3] += log_prob
        else:
            rows[number, 2] += log_prob
    return rows
