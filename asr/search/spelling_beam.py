"""Beam search for a decoder that spells: hypotheses grow token by token, not frame by frame.

What a hypothesis is worth is the weighted sum of what the decoder says of it, of CTC's probability of all
texts that begin like it (Watanabe et al. 2017, equations 15 to 17; the recursion is that of Graves 2012,
section 7.5.3) and of a word n-gram model, and of bonuses for length, words and coverage. Token 0 ends a text
for the decoder and is the blank for CTC.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from asr.core.compiled import compile_function
from asr.lm.look_up import score_word
from asr.lm.model import NgramModel
from asr.search.config import SearchConfig
from asr.text.tokenizer import BLANK_TOKEN

END = BLANK_TOKEN
COVERED = 0.5  # weight, summed over all steps, from which on a frame has been looked at
LETTERS_TRIED = 4  # tokens that each hypothesis is continued with, for each hypothesis in the beam


class StepScorer(Protocol):
    """A decoder at work on one utterance."""

    def step(self, parents: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Continue hypotheses of the step before; at first, number 0, the empty one, with ``END``.

        Args:
            parents: ``(n,)``, numbers of hypotheses in the order of the step before.
            tokens: ``(n,)``, the token that each is continued with.

        Returns:
            ``(n, vocabulary)`` natural logarithms of the next token, and where the decoder looks,
            ``(n, frames)``.
        """


@dataclass(frozen=True)
class SpellingConfig:
    """How hypotheses are weighed, and how long they may become."""

    beam_size: int = 1
    longest: int = 100  # tokens
    ctc_weight: float = 0.0  # the decoder has the rest
    length_bonus: float = 0.0  # for every token
    coverage_weight: float = 0.0  # for every frame that was looked at
    threshold: float = math.inf  # natural logarithm by which a hypothesis may be worse than the best


class Spelling(NamedTuple):
    """A result: its tokens, its score and where the decoder looked at each of them and at the end."""

    tokens: tuple[int, ...]
    score: float
    log_probs: tuple[float, ...]  # of the decoder, of each token and the end
    weights: np.ndarray  # (tokens + 1, frames)


@dataclass(frozen=True)
class WordFusion:
    """A word n-gram model that listens to texts as they are spelled.

    A word is scored when the next one begins or the text ends. Without a model only words are counted.
    """

    config: SearchConfig
    surfaces: Sequence[str]  # the text of each token
    model: NgramModel | None = None

    @property
    def start(self) -> FusionState:
        """Before the first token."""
        return FusionState(0 if self.model is None else self.model.begin, "")

    def extend(self, state: FusionState, token: int) -> tuple[float, FusionState]:
        """Take a token; returns what is added to the score, and the state after it."""
        surface = self.surfaces[token]
        if not surface.startswith(" "):
            return 0.0, FusionState(state.ngram, state.word + surface)
        growth, ngram = self._score_word(state)
        return growth, FusionState(ngram, surface.strip())

    def finish(self, state: FusionState) -> float:
        """Take the end of the text; returns what is added to the score."""
        growth, ngram = self._score_word(state)
        if self.model is None or not self.model.has_ends:
            return growth
        return growth + self.config.lm_weight * float(score_word(self.model.trie, ngram, self.model.end)[0])

    def _score_word(self, state: FusionState) -> tuple[float, int]:
        if not state.word:
            return 0.0, state.ngram
        if self.model is None:
            return self.config.word_bonus, state.ngram
        number = self.model.vocabulary.find(state.word)
        if number < 0 and self.config.closed:
            return -math.inf, state.ngram
        unknown = number < 0
        log_prob, ngram = score_word(self.model.trie, state.ngram, self.model.unknown if unknown else number)
        growth = self.config.lm_weight * float(log_prob) + self.config.word_bonus
        return growth + unknown * self.config.unknown_score * len(state.word), int(ngram)


class FusionState(NamedTuple):
    """What a language model knows of a hypothesis: its state after whole words, and the word begun."""

    ngram: int
    word: str


@dataclass(frozen=True, eq=False)
class _Hypothesis:
    """A text that may go on."""

    tokens: tuple[int, ...]
    decoder: float  # what the decoder says of its tokens
    extra: float  # of language model, words and length
    fusion: FusionState
    log_probs: tuple[float, ...]
    weights: tuple[np.ndarray, ...]
    score: float = 0.0


def spell(
    scorer: StepScorer,
    config: SpellingConfig,
    ctc: np.ndarray | None = None,
    fusion: WordFusion | None = None,
) -> list[Spelling]:
    """Find the best texts of one utterance, best first, at most ``config.beam_size``.

    With a beam as wide as there are texts of ``config.longest`` tokens the search is exhaustive. Without
    bonuses it ends when no hypothesis can become better than the best one that has ended.

    Args:
        ctc: log-probs of CTC, ``(frames, vocabulary)``, where ``config.ctc_weight`` is above 0.
        fusion: a language model, or what counts words.
    """
    share = config.ctc_weight if ctc is not None and len(ctc) else 0.0
    rows = np.ascontiguousarray(ctc if ctc is not None else np.zeros((0, 1)), np.float64)
    prefixes = _begin_prefixes(rows)[None] if share else np.zeros((1, 0, 2))
    start = fusion.start if fusion is not None else FusionState(0, "")
    beam = [_Hypothesis((), 0.0, 0.0, start, (), ())]
    parents, given = np.zeros(1, np.int64), np.full(1, END, np.int64)
    finished: list[Spelling] = []
    only_falls = max(config.length_bonus, config.coverage_weight) <= 0 and (
        fusion is None or max(fusion.config.word_bonus, fusion.config.unknown_score) <= 0
    )
    for length in range(config.longest + 1):
        log_probs, weights = scorer.step(parents, given)
        last = np.array([h.tokens[-1] if h.tokens else END for h in beam], np.int64)
        whole, ctc_scores = (1 - share) * log_probs.astype(np.float64), np.zeros(log_probs.shape)
        if share:
            ctc_scores = _score_prefixes(rows, prefixes, last)
        totals = whole + share * ctc_scores
        totals += np.array([(1 - share) * h.decoder + h.extra for h in beam])[:, None]
        for number, hypothesis in enumerate(beam):
            ended = _end(hypothesis, log_probs[number], weights[number], totals[number, END], config, fusion)
            if ended.score > -math.inf:
                finished.append(ended)
        finished = sorted(finished, key=lambda result: -result.score)[: config.beam_size]
        if length == config.longest:
            break
        totals[:, END] = -math.inf
        grown = _grow(beam, totals, log_probs, weights, config, fusion)
        best = max([h.score for _, h in grown] + [result.score for result in finished], default=-math.inf)
        least = best - config.threshold
        if only_falls and len(finished) >= config.beam_size:
            least = max(least, finished[-1].score)
        grown = [(parent, h) for parent, h in grown if h.score > least]
        if not grown:
            break
        parents = np.array([parent for parent, _ in grown], np.int64)
        beam = [hypothesis for _, hypothesis in grown]
        given = np.array([h.tokens[-1] for h in beam], np.int64)
        if share:
            prefixes = _extend_prefixes(rows, prefixes[parents], last[parents], given, length == 0)
    return finished


def _end(
    hypothesis: _Hypothesis,
    log_probs: np.ndarray,
    weights: np.ndarray,
    total: float,
    config: SpellingConfig,
    fusion: WordFusion | None,
) -> Spelling:
    """End a hypothesis; ``total`` is its score with the end, before the last word and coverage."""
    looked = np.stack([*hypothesis.weights, weights])
    score = float(total) + (0.0 if fusion is None else fusion.finish(hypothesis.fusion))
    if config.coverage_weight:
        score += config.coverage_weight * float((looked.sum(0) > COVERED).sum())
    return Spelling(hypothesis.tokens, score, (*hypothesis.log_probs, float(log_probs[END])), looked)


def _grow(
    beam: Sequence[_Hypothesis],
    totals: np.ndarray,
    log_probs: np.ndarray,
    weights: np.ndarray,
    config: SpellingConfig,
    fusion: WordFusion | None,
) -> list[tuple[int, _Hypothesis]]:
    """Continue hypotheses with their best tokens; the best of all, each with the number it comes from."""
    count = min(totals.size, max(config.beam_size, 1) * (1 if fusion is None else LETTERS_TRIED))
    flat = totals.ravel()
    places = np.argpartition(-flat, count - 1)[:count] if count < flat.size else np.arange(flat.size)
    found: list[tuple[int, _Hypothesis]] = []
    for place in places.tolist():
        parent, token = divmod(place, totals.shape[1])
        if not flat[place] > -math.inf:
            continue
        before = beam[parent]
        growth, state = (0.0, before.fusion) if fusion is None else fusion.extend(before.fusion, token)
        growth += config.length_bonus
        own = float(log_probs[parent, token])
        found.append(
            (
                parent,
                _Hypothesis(
                    (*before.tokens, token),
                    before.decoder + own,
                    before.extra + growth,
                    state,
                    (*before.log_probs, own),
                    (*before.weights, weights[parent]),
                    float(flat[place]) + growth,
                ),
            )
        )
    found.sort(key=lambda pair: -pair[1].score)
    return found[: config.beam_size]


# --- CTC's probability of everything that begins like a hypothesis ---------------------------------


def _begin_prefixes(rows: np.ndarray) -> np.ndarray:
    """The state of the empty text, ``(frames, 2)``: paths that end in a token, and in a blank."""
    state = np.full((len(rows), 2), -np.inf)
    state[:, 1] = np.cumsum(rows[:, BLANK_TOKEN])
    return state


@compile_function
def _score_prefixes(rows: np.ndarray, states: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Score every continuation of hypotheses: log P of all texts that begin so, ``(n, vocabulary)``.

    In the place of the blank: log P of the hypothesis itself and no more.

    Args:
        rows: ``(frames, vocabulary)``.
        states: ``(n, frames, 2)``.
        last: ``(n,)``, the last token of each; 0 for the empty text.
    """
    frames, vocabulary = rows.shape
    scores = np.full((len(states), vocabulary), -np.inf)
    for i in range(len(states)):
        for token in range(1, vocabulary):
            total = rows[0, token] if last[i] == BLANK_TOKEN else -np.inf
            for t in range(1, frames):
                before = states[i, t - 1, 1]
                if token != last[i]:
                    before = np.logaddexp(before, states[i, t - 1, 0])
                total = np.logaddexp(total, before + rows[t, token])
            scores[i, token] = total
        scores[i, BLANK_TOKEN] = np.logaddexp(states[i, frames - 1, 0], states[i, frames - 1, 1])
    return scores


@compile_function
def _extend_prefixes(
    rows: np.ndarray, states: np.ndarray, last: np.ndarray, tokens: np.ndarray, is_first: bool
) -> np.ndarray:
    """Continue hypotheses with a token each; the states after it, ``(n, frames, 2)``."""
    frames = len(rows)
    after = np.full((len(tokens), frames, 2), -np.inf)
    for i in range(len(tokens)):
        token = tokens[i]
        if is_first:
            after[i, 0, 0] = rows[0, token]
        for t in range(1, frames):
            before = states[i, t - 1, 1]
            if token != last[i]:
                before = np.logaddexp(before, states[i, t - 1, 0])
            after[i, t, 0] = np.logaddexp(after[i, t - 1, 0], before) + rows[t, token]
            after[i, t, 1] = np.logaddexp(after[i, t - 1, 0], after[i, t - 1, 1]) + rows[t, BLANK_TOKEN]
    return after
