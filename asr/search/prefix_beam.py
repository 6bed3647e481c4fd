"""Prefix beam search for tokens that spell words (characters, pieces of words).

``PrefixBeamSearch`` is made once for a vocabulary, a language model and hot words, and searches any number of
recordings. Log-probs are read in blocks. What all prefixes in the beam agree on after a block is committed:
its words get their times, and its frames and its part of the tree are dropped, so that an hour of log-probs
needs no more memory than a minute. The algorithm is in ``prefix_beam_kernel``.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from asr.lm.model import NgramModel
from asr.lm.recurrent import RecurrentModel
from asr.lm.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from asr.search import prefix_beam_kernel as kernel
from asr.search.alignment import Alignment, align_tokens
from asr.search.confidence import calibrate
from asr.search.config import OTHER_FORM, Phrases, SearchConfig, SearchError
from asr.search.prefix_beam_kernel import FREE, SIZE, PrefixBeamState, enlarge_tree, make_state
from asr.search.prefix_beam_tables import build_search_tables
from asr.search.priors import take_off_priors
from asr.search.rescoring import Words, WordScores, score_hypotheses
from asr.search.threads import search_on_threads
from asr.text.tokenizer import Tokenizer
from asr.transcript.values import Hypothesis, Word, make_words

BLOCK = 1000  # frames read at once; from so many on, the words of committed tokens are aligned
MOST_NODES = 512  # of the tree, for every prefix in the beam; beyond that, half of the best prefix is decided


@dataclass(frozen=True)
class ScoredTokens:
    """One result of a search: its tokens, and the natural logarithm of their fused probability."""

    tokens: tuple[int, ...]
    score: float


class PrefixBeamSearch:
    """A search for one vocabulary of tokens, one language model and one set of hot words.

    Any number of threads may use it at the same time. Raises ``SearchError`` for tokens that are phones, for
    a language model of which the tokens can spell no word, and for a hot word that they cannot spell.
    """

    def __init__(
        self,
        config: SearchConfig,
        tokenizer: Tokenizer,
        model: NgramModel | None = None,
        phrases: Phrases = (),
        recurrent: RecurrentModel | None = None,
    ) -> None:
        if tokenizer.lexicon is not None:
            raise SearchError(
                "this model's tokens are phones: make_beam_search picks LexiconBeamSearch for them"
            )
        check_hot_words(tokenizer, phrases)
        if model is not None and not can_spell_any(tokenizer, model.vocabulary):
            unit = tokenizer.unit
            raise SearchError(f"no word of the language model is made of this model's {unit}: {OTHER_FORM}")
        self.config = config
        self.model = model
        self.recurrent = recurrent
        self.tokenizer = tokenizer
        self.tables = build_search_tables(config, tokenizer, model, phrases)
        self.begin_state = 0 if model is None else model.begin
        self.phrases = phrases
        self.description: dict[str, object] = {
            "language_model": None if model is None else list(model.counts),
            "phrases": list(phrases),
        }
        if recurrent is not None:
            self.description["recurrent_model"] = recurrent.weights
        self._idle: list[PrefixBeamState] = []  # append and pop are safe between threads

    def find_best(self, log_probs: np.ndarray, n_best: int = 1) -> list[ScoredTokens]:
        """Find the best token sequences of one recording, best first, without the times of their words.

        The arguments are those of ``find_hypotheses``.
        """
        stream = PrefixBeamStream(self, None, n_best)
        stream.read(log_probs)
        return stream.take_results()

    def find_hypotheses(
        self, log_probs: np.ndarray, frame_seconds: float, n_best: int = 1
    ) -> list[Hypothesis]:
        """Find the best hypotheses of one recording, best first.

        Args:
            log_probs: ``(frames, vocabulary)``, natural logarithms, normalised, the blank first.
            frame_seconds: seconds from one frame to the next.
            n_best: how many; the beam may hold fewer. With more than one, no prefix is dropped for
                a rival with the same future.
        """
        stream = PrefixBeamStream(self, frame_seconds, n_best)
        for begin in range(0, len(log_probs), BLOCK):
            stream.read(log_probs[begin : begin + BLOCK])
        return [stream._make_hypothesis(result) for result in stream.take_results()]

    def search_batch(
        self, log_probs: Sequence[np.ndarray], frame_seconds: float, threads: int | None = None
    ) -> list[Hypothesis]:
        """Find the best hypothesis of every recording on ``threads`` threads (default: all cores)."""
        return search_on_threads(
            lambda rows: self.find_hypotheses(rows, frame_seconds)[0], log_probs, threads
        )

    def score_anew(self, results: Sequence[ScoredTokens]) -> tuple[list[Words], WordScores]:
        """Score results with both language models; also return their words."""
        assert self.recurrent is not None
        texts = [tuple(self.tokenizer.decode(result.tokens).split()) for result in results]
        scores = [result.score for result in results]
        return texts, score_hypotheses(texts, scores, self.model, self.recurrent)

    def score_best(self, log_probs: np.ndarray) -> tuple[list[Words], WordScores]:
        """Find the hypotheses of one recording that are to be rescored, and what that goes by."""
        stream = PrefixBeamStream(self, None)
        stream.read(log_probs)
        results = stream.rank_results(self.config.rescore_size)
        self._take_back_state(stream._state)
        return self.score_anew(results)

    def start_stream(self, frame_seconds: float) -> PrefixBeamStream:
        """Start to search a recording of which the log-probs come block by block."""
        return PrefixBeamStream(self, frame_seconds)

    def _lend_state(self) -> PrefixBeamState:
        try:
            return self._idle.pop()
        except IndexError:
            return make_state(self.config.beam_size, len(self.tokenizer))

    def _take_back_state(self, state: PrefixBeamState) -> None:
        self._idle.append(state)


def check_hot_words(tokenizer: Tokenizer, phrases: Phrases) -> None:
    """Raise ``SearchError`` for a phrase that could never be found."""
    for phrase in phrases:
        if missing := tokenizer.find_unknown(phrase):
            raise SearchError(
                f"hot words: {phrase!r} cannot be written with this model's {tokenizer.unit}: "
                f"they lack {' '.join(sorted(missing))}"
            )


def can_spell_any(tokenizer: Tokenizer, vocabulary: Vocabulary) -> bool:
    """Whether the tokens have every byte of some word, ``<unk>`` and the like not counted."""
    known = np.zeros(256, bool)
    known[list("".join(tokenizer.surfaces).replace(" ", "").encode())] = True
    is_foreign = np.logical_or.reduceat(~known[vocabulary.letters], vocabulary.bounds[:-1])
    specials = [number for number in map(vocabulary.find, (BEGIN, END, UNKNOWN)) if number >= 0]
    is_foreign[specials] = True
    return not is_foreign.all()


class PrefixBeamStream:
    """One recording on its way through a search, block by block.

    ``frame_seconds`` is ``None`` when the times of words are not wanted.
    """

    def __init__(self, search: PrefixBeamSearch, frame_seconds: float | None, n_best: int = 1) -> None:
        self.tokens: list[int] = []  # committed: no prefix in the beam differs from them any more
        self.words: list[Word] = []  # those of committed tokens that have their times
        self._search = search
        self._frame_seconds = frame_seconds
        self._n_best = n_best
        self._tables = search.tables
        if n_best > 1 or search.recurrent is not None:
            self._tables = self._tables._replace(pruning=self._tables.pruning._replace(recombine=False))
        self._state = search._lend_state()
        kernel.start(self._state, search.begin_state, self._tables.hot.start)
        self._timed = 0  # committed tokens whose words have their times
        self._first_frame = 0
        self._kept = np.zeros((0, len(search.tokenizer)), np.float32)  # frames of all tokens after them

    def read(self, log_probs: np.ndarray) -> None:
        """Read the next log-probs ``(frames, vocabulary)``."""
        rows = take_off_priors(log_probs, self._search.config, len(self._search.tokenizer))
        frame = kernel.advance(self._tables, self._state, rows, 0)
        while frame < len(rows):
            self._make_room()
            frame = kernel.advance(self._tables, self._state, rows, frame)
        if self._frame_seconds is not None:
            self._kept = np.concatenate([self._kept, log_probs], dtype=np.float32)
            if len(self._kept) >= BLOCK:
                self._commit()
                self._time_committed_words()

    def rank_results(self, n_best: int | None = None) -> list[ScoredTokens]:
        """Rank the results as if the recording ended here, best first, as many as were asked for."""
        table = np.zeros((int(self._state.numbers[SIZE]), 2))
        kernel.score_endings(self._tables, self._state, table)
        finished = np.flatnonzero(table[:, 0] > -np.inf)
        if not len(finished):  # a closed lexicon does not know the last word, which is left out
            entry = int(table[:, 1].argmax())
            return [ScoredTokens(self._drop_last_word(self._spell(entry)), float(table[entry, 1]))]
        order = finished[np.argsort(-table[finished, 0], kind="stable")]
        order = order[: n_best or self._n_best]
        return [ScoredTokens(self._spell(entry), float(table[entry, 0])) for entry in order]

    def take_results(self) -> list[ScoredTokens]:
        """Rank the results for the last time; the stream cannot be used after that."""
        results = self._rank_finally()
        self._search._take_back_state(self._state)
        return results

    def _rank_finally(self) -> list[ScoredTokens]:
        """Rank the results when the recording has ended, best first, rescored where that is asked."""
        search, n_best = self._search, self._n_best
        if search.recurrent is None:
            return self.rank_results()
        results = self.rank_results(max(n_best, search.config.rescore_size))
        ranked = search.score_anew(results)[1].rank(search.config)
        return [ScoredTokens(results[number].tokens, score) for number, score in ranked[:n_best]]

    def guess(self, log_probs: np.ndarray) -> list[str]:
        """Find the words there would be if ``log_probs`` came next and were the last; they are not read."""
        fork = self.fork()
        fork.read(log_probs)
        return self._search.tokenizer.decode(fork.rank_results()[0].tokens).split()

    def fork(self) -> PrefixBeamStream:
        """Return a copy that reads on by itself and is only asked to guess: its words have no times."""
        fork = self._copy()
        fork._frame_seconds = None
        return fork

    def conclude(self, log_probs: np.ndarray) -> Hypothesis:
        """Return the best hypothesis if ``log_probs`` came next and were the last; they are not read."""
        copied = self._copy()
        copied.read(log_probs)
        return copied._make_hypothesis(copied._rank_finally()[0])

    def _copy(self) -> PrefixBeamStream:
        """Copy what reading changes; the search does not take the copy's state back."""
        copied = copy(self)
        copied._state = PrefixBeamState(*(array.copy() for array in self._state))
        copied.tokens, copied.words = self.tokens.copy(), self.words.copy()
        return copied

    def count_certain_words(self) -> int:
        """Count the words with which every prefix in the beam begins: what comes does not change them."""
        self._commit()
        whole = self._search.tokenizer.decode(self.tokens).split()
        return max(0, len(whole) - 1)  # the last one may go on

    def finish(self) -> Hypothesis:
        """Return the best hypothesis; the stream cannot be used after that."""
        return self._make_hypothesis(self.take_results()[0])

    def _make_hypothesis(self, result: ScoredTokens) -> Hypothesis:
        rest = np.array(result.tokens[self._timed :], np.int32)
        words = (*self.words, *self._make_words(rest, align_tokens(self._kept, rest)))
        text = self._search.tokenizer.decode(result.tokens)
        return Hypothesis(result.tokens, text, result.score, words)

    def _make_words(self, tokens: np.ndarray, alignment: Alignment) -> tuple[Word, ...]:
        """Make words of ``tokens`` that were aligned with the frames kept."""
        seconds = self._frame_seconds or 0.0
        surfaces = self._search.tokenizer.surfaces
        words = make_words(
            [surfaces[token] for token in tokens],
            [float(self._first_frame + frame) * seconds for frame in alignment.begins[: len(tokens)]],
            [float(self._first_frame + frame) * seconds for frame in alignment.ends[: len(tokens)]],
            np.exp(alignment.peaks[: len(tokens)]).tolist(),
        )
        return calibrate(words, self._search.config)

    def _spell(self, entry: int) -> tuple[int, ...]:
        """Return all tokens of a prefix in the beam, committed ones included."""
        backwards = np.zeros(len(self._state.free), np.int32)
        count = kernel.spell_backwards(self._state, entry, backwards)
        return (*self.tokens, *backwards[:count][::-1].tolist())

    def _drop_last_word(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``tokens`` up to the last one that ends a word."""
        borders = self._tables.pieces.borders
        ends = [i for i, token in enumerate(tokens) if borders[token]]
        return tokens[: ends[-1]] if ends else ()

    def _commit(self) -> None:
        tokens = np.zeros(len(self._state.free), np.int32)
        count = kernel.commit(self._state, tokens)
        self.tokens += tokens[:count].tolist()

    def _make_room(self) -> None:
        """Make sure that the tree has nodes for the next frame: commit, else enlarge it, else decide."""
        state, size = self._state, self._search.config.beam_size
        self._commit()
        if state.numbers[FREE] >= size:
            return
        if len(state.free) < MOST_NODES * size:
            self._state = enlarge_tree(state)
            return
        kernel.decide(state)
        self._commit()

    def _time_committed_words(self) -> None:
        """Give the words of committed tokens their times, and drop their frames."""
        borders = self._tables.pieces.borders
        pending = self.tokens[self._timed :]
        whole = next((i for i in range(len(pending) - 1, 0, -1) if borders[pending[i]]), 0)
        if not whole:
            return
        best = np.array(self.rank_results()[0].tokens[self._timed :], np.int32)
        alignment = align_tokens(self._kept, best)
        self.words += self._make_words(best[:whole], alignment)
        self._timed += whole
        first_kept = int(alignment.begins[whole])
        self._kept = self._kept[first_kept:].copy()
        self._first_frame += first_kept
