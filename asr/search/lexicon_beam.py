"""Lexicon beam search for tokens that are phones: words by their pronunciations.

``LexiconBeamSearch`` has the methods of ``PrefixBeamSearch``; the algorithm is in ``lexicon_beam_kernel``.
The first recordings are searched by ``lexicon_beam_arrays`` instead, which compiles nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr.lm.model import NgramModel
from asr.lm.packed import make_empty_model, score_words
from asr.lm.recurrent import RecurrentModel
from asr.search import lexicon_beam_arrays
from asr.search.alignment import align_tokens
from asr.search.confidence import calibrate
from asr.search.config import OTHER_FORM, Phrases, SearchConfig, SearchError
from asr.search.hotwords import HotWordAutomaton, build_word_automaton
from asr.search.lexicon_beam_tables import (
    SIZE,
    LexiconBeamState,
    Limits,
    PronunciationTable,
    count_ways_on,
    make_room,
    make_state,
)
from asr.search.lexicon_trie import ROOT, LexiconTrie, look_ahead
from asr.search.priors import take_off_priors
from asr.search.rescoring import Words, WordScores, score_lists
from asr.search.threads import search_on_threads
from asr.text.pronunciations import SortedLexicon
from asr.text.tokenizer import Tokenizer
from asr.transcript.values import Hypothesis, Word

MOST_CANDIDATES = 1 << 22  # in a frame, 100 bytes each
UNCOMPILED_ROWS = 500  # that are searched before it pays to load a compiler
# With the same future, that are kept to be ranked anew: with 12 or all of them the shipped model hears no
# better, and takes longer.
RIVALS = 8
NO_TRIE = make_empty_model()  # stands for a language model that is not there


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of a sorted lexicon, as a search scores them.

    tokens: uint8, the pronunciations of all entries, between ``lexicon.bounds``.
    numbers: int32, the language model's numbers of the words. fees: float64, what a word adds to a score
    besides the language model. hot_symbols: int32, the symbols of the words in the automaton of hot phrases.
    """

    lexicon: SortedLexicon
    tokens: np.ndarray
    numbers: np.ndarray
    fees: np.ndarray
    hot_symbols: np.ndarray

    def __len__(self) -> int:
        return len(self.lexicon)

    def __getitem__(self, place: int) -> Entry:
        lexicon = self.lexicon
        tokens = self.tokens[lexicon.bounds[place] : lexicon.bounds[place + 1]]
        return Entry(lexicon.spell(lexicon.words[place]), tokens.tobytes())


class Entry(NamedTuple):
    """A word and one of its pronunciations."""

    word: str
    tokens: bytes


@dataclass(frozen=True)
class ScoredWords:
    """One result of a search: words with the pronunciations found, and their fused log probability."""

    entries: tuple[Entry, ...]
    score: float

    @property
    def words(self) -> Words:
        """The words alone."""
        return tuple(entry.word for entry in self.entries)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens of all pronunciations."""
        return tuple(token for entry in self.entries for token in entry.tokens)


class LexiconBeamSearch:
    """A search for one lexicon of pronunciations, one language model and one set of hot words.

    It finds words of the lexicon, and hot words, which get a pronunciation where the lexicon lacks them:
    learning to pronounce takes some seconds. Any number of threads may use it at the same time. Raises
    ``SearchError`` for a language model without a word of the lexicon, and for a hot word that cannot be
    pronounced.
    """

    def __init__(
        self,
        config: SearchConfig,
        tokenizer: Tokenizer,
        model: NgramModel | None = None,
        phrases: Phrases = (),
        recurrent: RecurrentModel | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.recurrent = recurrent
        self.vocabulary = len(tokenizer)
        hot, symbols = build_word_automaton(phrases, config.hotword_weight)
        self.entries = gather_entries(config, tokenizer, model, symbols)
        self.table = build_pronunciation_table(config, tokenizer, self.entries, model, hot)
        self.most_candidates = config.beam_size * count_ways_on(self.table)
        if self.most_candidates > MOST_CANDIDATES:
            raise SearchError(
                f"'search.beam_size' cannot be {config.beam_size} with this lexicon, in which up to "
                f"{count_ways_on(self.table) - 1:,} words begin alike: "
                f"use at most {MOST_CANDIDATES // count_ways_on(self.table)}"
            )
        self.limits = Limits(
            lm_weight=float(config.lm_weight) if model is not None else 0.0,
            beam_size=config.beam_size,
            beam_threshold=float(config.beam_threshold),
            token_threshold=float(config.token_threshold),
            blank_threshold=float(np.log(config.blank_threshold)),
            rivals=int(config.recombine),
        )
        self.phrases = phrases
        self._rows_left = UNCOMPILED_ROWS
        self.description: dict[str, object] = {
            "language_model": None if model is None else list(model.counts),
            "pronunciations": len(self.entries),
            "phrases": list(phrases),
        }
        if recurrent is not None:
            self.description["recurrent_model"] = recurrent.weights

    def find_best(self, log_probs: np.ndarray, n_best: int = 1) -> list[ScoredWords]:
        """Find the best word sequences of one recording, best first, without the times of the words.

        The arguments are those of ``find_hypotheses``.
        """
        return self._rank_anew([self._list_results(log_probs, n_best)], n_best)[0]

    def choose_limits(self, n_best: int) -> Limits:
        """Choose how many rivals the beam keeps: all of them where several results are asked for."""
        if n_best > 1:
            return self.limits._replace(rivals=0)
        return self.limits._replace(rivals=RIVALS * self.limits.rivals) if self.recurrent else self.limits

    def score_best(self, log_probs: np.ndarray) -> tuple[list[Words], WordScores]:
        """Find the hypotheses of one recording that are to be rescored, and what that goes by."""
        results = self._list_results(log_probs, 1)
        return [result.words for result in results], self._score_anew([results])[0]

    def find_hypotheses(
        self, log_probs: np.ndarray, frame_seconds: float, n_best: int = 1
    ) -> list[Hypothesis]:
        """Find the best hypotheses of one recording, best first.

        Args:
            log_probs: ``(frames, vocabulary)``, natural logarithms, normalised, the blank first.
            frame_seconds: seconds from one frame to the next.
            n_best: how many; the beam may hold fewer.
        """
        results = self.find_best(log_probs, n_best)
        return [self._make_hypothesis(result, log_probs, frame_seconds) for result in results]

    def search_batch(
        self, log_probs: Sequence[np.ndarray], frame_seconds: float, threads: int | None = None
    ) -> list[Hypothesis]:
        """Find the best hypothesis of every recording on ``threads`` threads (default: all cores)."""
        lists = search_on_threads(lambda rows: self._list_results(rows, 1), log_probs, threads)
        return [
            self._make_hypothesis(results[0], rows, frame_seconds)
            for results, rows in zip(self._rank_anew(lists, 1), log_probs, strict=True)
        ]

    def start_stream(self, frame_seconds: float) -> LexiconBeamStream:
        """Start to search a recording of which the log-probs come block by block."""
        self._rows_left = 0  # a stream goes on, and must keep up
        return LexiconBeamStream(self, frame_seconds)

    def _make_state(self) -> LexiconBeamState:
        begin = 0 if self.model is None else self.model.begin
        return make_state(self.config.beam_size, self.most_candidates, begin)

    def _advance(self, state: LexiconBeamState, limits: Limits, log_probs: np.ndarray) -> LexiconBeamState:
        """Read log-probs ``(frames, vocabulary)``; the state given is used up."""
        trie = NO_TRIE if self.model is None else self.model.trie
        rows = take_off_priors(log_probs, self.config, self.vocabulary)
        advance = lexicon_beam_arrays.advance
        if self._rows_left < len(rows):
            from asr.search.lexicon_beam_kernel import advance  # imports numba
        self._rows_left -= min(len(rows), self._rows_left)
        frame = advance(self.table, trie, limits, state, rows, 0)
        while frame < len(rows):
            state = make_room(state)
            frame = advance(self.table, trie, limits, state, rows, frame)
        return state

    def _make_hypothesis(
        self, result: ScoredWords, log_probs: np.ndarray, frame_seconds: float
    ) -> Hypothesis:
        text = " ".join(result.words)
        words = self._make_words(result, log_probs, frame_seconds)
        return Hypothesis(result.tokens, text, result.score, words)

    def _list_results(self, log_probs: np.ndarray, n_best: int) -> list[ScoredWords]:
        """Find the best results of one recording, as many as are to be ranked anew where there is a model."""
        state = self._advance(self._make_state(), self.choose_limits(n_best), log_probs)
        return self._rank_results(state, self._count_results(n_best))

    def _count_results(self, n_best: int) -> int:
        """Count the results that ``n_best`` are chosen from."""
        return n_best if self.recurrent is None else max(n_best, self.config.rescore_size)

    def _rank_anew(self, lists: Sequence[Sequence[ScoredWords]], n_best: int) -> list[list[ScoredWords]]:
        """Choose the best results of each recording, rescored where there is a model for it."""
        if self.recurrent is None:
            return [list(results) for results in lists]
        return [
            [
                ScoredWords(results[number].entries, score)
                for number, score in scores.rank(self.config)[:n_best]
            ]
            for results, scores in zip(lists, self._score_anew(lists), strict=True)
        ]

    def _score_anew(self, lists: Sequence[Sequence[ScoredWords]]) -> list[WordScores]:
        """Score the results of each recording with both language models."""
        assert self.recurrent is not None
        texts = [[result.words for result in results] for results in lists]
        scores = [[result.score for result in results] for results in lists]
        return score_lists(texts, scores, self.model, self.recurrent)

    def _rank_results(self, state: LexiconBeamState, n_best: int) -> list[ScoredWords]:
        """Rank the hypotheses of the beam as if the recording ended here, best first."""
        beam = state.beam[: state.numbers[SIZE]]
        whole = beam[beam["node"] == ROOT]
        if not len(whole):  # the last word is not finished: it is left out
            best = int(beam["rank"].argmax())
            whole = beam[best : best + 1]
        endings = np.zeros(len(whole))
        if self.model is not None:
            end = np.full(len(whole), self.model.end)
            endings = self.limits.lm_weight * score_words(self.model.trie, whole["state"], end)[0]
        totals = np.logaddexp(whole["blank"], whole["token"]).tolist()
        hashes = whole["words_hash"].tolist()
        scores: dict[int, float] = {}
        firsts: dict[int, int] = {}
        for place in np.argsort(-whole["rank"], kind="stable").tolist():
            words, score = hashes[place], totals[place]
            if firsts.setdefault(words, place) != place:
                score = float(np.logaddexp(scores[words], score))
            scores[words] = score
        for words, place in firsts.items():
            scores[words] += float(endings[place])
        best_first = sorted(scores, key=lambda words: -scores[words])[:n_best]
        known: dict[int, Entry] = {}
        return [
            ScoredWords(self._trace_back(state, int(whole["history"][firsts[words]]), known), scores[words])
            for words in best_first
        ]

    def _trace_back(
        self, state: LexiconBeamState, history: int, known: dict[int, Entry]
    ) -> tuple[Entry, ...]:
        """Return the words that lead to a node of the tree of words; ``known`` has those of other nodes."""
        backwards = []
        while history > 0:
            number = int(state.entries[history])
            if number not in known:
                known[number] = self.entries[number]
            backwards.append(known[number])
            history = int(state.parents[history])
        return tuple(reversed(backwards))

    def _make_words(
        self, result: ScoredWords, log_probs: np.ndarray, frame_seconds: float
    ) -> tuple[Word, ...]:
        """Give the words the times of their phones; each is as sure as the geometric mean of its phones."""
        placed = align_tokens(log_probs, np.array(result.tokens, np.int32))
        words, last = [], 0
        for entry in result.entries:
            first, last = last, last + len(entry.tokens)
            words.append(
                Word(
                    entry.word,
                    float(placed.begins[first]) * frame_seconds,
                    float(placed.ends[last - 1]) * frame_seconds,
                    float(np.exp(placed.peaks[first:last].mean())),
                )
            )
        return calibrate(words, self.config)


class LexiconBeamStream:
    """One recording on its way through a search, block by block; the result is that of all at once."""

    def __init__(self, search: LexiconBeamSearch, frame_seconds: float) -> None:
        self._search = search
        self._frame_seconds = frame_seconds
        self._limits = search.choose_limits(1)
        self._state = search._make_state()
        self._blocks: list[np.ndarray] = []

    def read(self, log_probs: np.ndarray) -> None:
        """Read the next log-probs ``(frames, vocabulary)``."""
        self._state = self._search._advance(self._state, self._limits, log_probs)
        self._blocks.append(log_probs)

    def guess(self, log_probs: np.ndarray) -> list[str]:
        """Find the words there would be if ``log_probs`` came next and were the last; they are not read."""
        fork = self.fork()
        fork.read(log_probs)
        return [entry.word for entry in self._search._rank_results(fork._state, 1)[0].entries]

    def fork(self) -> LexiconBeamStream:
        """Return a copy that reads on by itself and is only asked to guess: it keeps no rivals.

        What both work with lies in the same place: one thread at a time may use them.
        """
        fork = self._copy()
        fork._limits, fork._blocks = self._search.limits, []
        return fork

    def conclude(self, log_probs: np.ndarray) -> Hypothesis:
        """Return the best hypothesis if ``log_probs`` came next and were the last; they are not read."""
        copied = self._copy()
        copied.read(log_probs)
        return copied.finish()

    def _copy(self) -> LexiconBeamStream:
        """Copy what reading changes."""
        copied = copy(self)
        copied._blocks = self._blocks.copy()
        copied._state = self._state._replace(
            numbers=self._state.numbers.copy(),
            beam=self._state.beam.copy(),
            parents=self._state.parents.copy(),
            entries=self._state.entries.copy(),
        )
        return copied

    def count_certain_words(self) -> int:
        """Count the words with which every hypothesis in the beam begins: what comes does not change them."""
        parents = self._state.parents
        ends = set(self._state.beam["history"][: self._state.numbers[SIZE]].tolist())
        while len(ends) > 1:  # parents come before their children
            last = max(ends)
            ends.remove(last)
            ends.add(int(parents[last]))
        count, at = 0, ends.pop()
        while at > 0:
            count, at = count + 1, int(parents[at])
        return count

    def finish(self) -> Hypothesis:
        """Return the best hypothesis; the stream cannot be used after that."""
        rows = np.concatenate(self._blocks) if self._blocks else np.zeros((0, self._search.vocabulary))
        results = self._search._rank_results(self._state, self._search._count_results(1))
        result = self._search._rank_anew([results], 1)[0][0]
        return self._search._make_hypothesis(result, rows.astype(np.float32), self._frame_seconds)


# --- tables ---------------------------------------------------------------------------------------


def gather_entries(
    config: SearchConfig, tokenizer: Tokenizer, model: NgramModel | None, hot_symbols: Mapping[str, int]
) -> Entries:
    """Gather the words that can be found, and how they are pronounced.

    ``hot_symbols`` has the words of hot phrases. A hot word counts as one that the language model knows: it
    pays no fee for its letters.
    """
    assert tokenizer.lexicon is not None
    spoken = tokenizer.lexicon
    if any(word not in spoken for word in hot_symbols):
        from asr.g2p.model import G2PError, add_pronunciations  # imports numba

        try:
            spoken = add_pronunciations(spoken, hot_symbols)
        except G2PError as error:
            raise SearchError(f"hot words: {error}") from error
    lexicon = spoken.by_sound
    tokens = number_phones(tokenizer, lexicon)[lexicon.codes]
    # What belongs to a word is found once, then given to its entries.
    words = len(lexicon.spellings) - 1
    hot = np.zeros(words, np.int32)
    if hot_symbols:
        hot[:] = [hot_symbols.get(word, 0) for word in lexicon.list_words()]
    fees = np.full(words, float(config.word_bonus))
    numbers = np.zeros(words, np.int32)
    if model is not None:
        numbers = model.vocabulary.find_all(lexicon.letters, lexicon.spellings)
        is_unknown = numbers < 0
        if is_unknown.all():
            raise SearchError(f"no word of the language model is in the model's lexicon: {OTHER_FORM}")
        is_letter = (lexicon.letters & 0xC0) != 0x80  # bytes of UTF-8 that begin one
        lengths = np.add.reduceat(is_letter, lexicon.spellings[:-1], dtype=np.int64)
        fees += np.where(is_unknown & (hot == 0), config.unknown_score * lengths, 0.0)
        if config.closed:
            fees[is_unknown & (hot == 0)] = -np.inf
        numbers[is_unknown] = model.unknown
    return Entries(lexicon, tokens, numbers[lexicon.words], fees[lexicon.words], hot[lexicon.words])


def number_phones(tokenizer: Tokenizer, lexicon: SortedLexicon) -> np.ndarray:
    """Number the phones of a lexicon as tokens, uint8."""
    symbols = {symbol: number for number, symbol in enumerate(tokenizer.symbols)}
    return np.array([symbols[phone] for phone in lexicon.phones], np.uint8)


def build_pronunciation_table(
    config: SearchConfig,
    tokenizer: Tokenizer,
    entries: Entries,
    model: NgramModel | None,
    hot: HotWordAutomaton,
) -> PronunciationTable:
    """Make arrays of the entries, as compiled code reads them."""
    lexicon = entries.lexicon
    highest = entries.fees + config.hotword_weight * (entries.hot_symbols > 0)
    if model is not None:
        highest += config.lm_weight * model.unigrams[entries.numbers]
    best = np.maximum.reduceat(highest, lexicon.firsts[:-1]).astype(np.float32)
    tree = LexiconTrie(
        lexicon.first_child,
        number_phones(tokenizer, lexicon)[lexicon.labels],
        np.zeros(0, np.int32),  # this search needs no depths
        lexicon.ends,
        look_ahead(lexicon.first_child, lexicon.ends, best),
    )
    return PronunciationTable(
        tree=tree,
        firsts=lexicon.firsts,
        words=lexicon.words,
        numbers=entries.numbers,
        fees=entries.fees,
        hot=hot,
        hot_symbols=entries.hot_symbols,
        ending=float(entries.fees.max() + hot.gains.max() + hot.ahead.max() + tree.ahead[ROOT]),
    )
