"""Words from log-probs of phones, behind the same calls as ``Decoder``'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr.g2p.model import G2PError, add_pronunciations
from asr.lm.model import NgramModel
from asr.lm.packed import score_word
from asr.search.alignment import align_tokens
from asr.search.confidence import calibrate
from asr.search.config import SearchConfig
from asr.search.hotwords import HotWordAutomaton, build_word_automaton
from asr.search.lexicon_beam_kernel import (
    SIZE,
    LexiconBeamState,
    Limits,
    PronunciationTable,
    advance,
    count_ways_on,
    make_room,
    make_state,
)
from asr.search.lexicon_trie import ROOT, build_lexicon_trie
from asr.search.prefix_beam import OTHER_FORM, Found, PrefixBeamSearch, SearchError, search_on_threads
from asr.search.prefix_beam_tables import NO_TRIE
from asr.search.priors import take_off_priors
from asr.text.tokenizer import Tokenizer
from asr.transcript.values import Hypothesis, Word


@dataclass(frozen=True, eq=False)
class Entries:
    """Words with a pronunciation each, in the order of their sounds: those that sound alike side by side.

    tokens: uint8, all pronunciations; that of entry ``p`` is ``tokens[bounds[p]:bounds[p + 1]]``.
    new: bool, whether an entry sounds otherwise than the one before.
    numbers: int32, what the language model calls the words. fees: float64, what a word adds besides the
    language model's opinion. heat: int32, what the automaton of hot phrases calls the words.
    """

    words: Sequence[str]
    tokens: np.ndarray
    bounds: np.ndarray
    new: np.ndarray
    numbers: np.ndarray
    fees: np.ndarray
    heat: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, place: int) -> Entry:
        tokens = self.tokens[self.bounds[place] : self.bounds[place + 1]].tobytes()
        fee, heat = float(self.fees[place]), int(self.heat[place])
        return Entry(self.words[place], tokens, int(self.numbers[place]), fee, heat)


class Entry(NamedTuple):
    """One of the entries."""

    word: str
    tokens: bytes
    number: int
    fee: float
    heat: int


@dataclass(frozen=True)
class FoundWords(Found):
    """One result of a word search; ``tokens`` are those of the pronunciations."""

    entries: tuple[Entry, ...]


class LexiconBeamSearch:
    """A search made ready for one lexicon of pronunciations, one language model and one set of hot words.

    Only words of the lexicon are found, and hot words, whose pronunciation is made up where the lexicon
    lacks them: learning to pronounce from it takes some seconds. Any number of threads may use a decoder
    at the same time. Raises ``SearchError`` for a hot word that cannot be pronounced.
    """

    def __init__(
        self,
        config: SearchConfig,
        tokenizer: Tokenizer,
        model: NgramModel | None = None,
        phrases: Sequence[str] = (),
    ) -> None:
        self.config = config
        self.model = model
        self.hot, heat = build_word_automaton(phrases, config.hotword_weight)
        self.entries = gather_entries(config, tokenizer, model, heat)
        self.sounds = build_pronunciation_table(config, self.entries, model, self.hot)
        self.most_candidates = config.beam_size * count_ways_on(self.sounds)
        self.limits = Limits(
            lm_weight=float(config.lm_weight) if model is not None else 0.0,
            beam_size=config.beam_size,
            beam_threshold=float(config.beam_threshold),
            token_threshold=float(config.token_threshold),
            blank_threshold=float(np.log(config.blank_threshold)),
            recombine=config.recombine,
        )
        self.description = {
            "language_model": None if model is None else list(model.counts),
            "pronunciations": len(self.entries),
            "phrases": list(phrases),
        }

    def find(self, log_probs: np.ndarray, n_best: int = 1) -> list[FoundWords]:
        """The best word sequences of one recording, best first, without the times of the words."""
        limits = self.limits if n_best == 1 else self.limits._replace(recombine=False)
        trie, state = (NO_TRIE, 0) if self.model is None else (self.model.trie, self.model.begin)
        rows = take_off_priors(log_probs, self.config)
        passing = make_state(self.config.beam_size, self.most_candidates, state)
        frame = advance(self.sounds, trie, limits, passing, rows, 0)
        while frame < len(rows):
            passing = make_room(passing)
            frame = advance(self.sounds, trie, limits, passing, rows, frame)
        return self._results(passing, n_best)

    def hypotheses(self, log_probs: np.ndarray, frame_seconds: float, n_best: int = 1) -> list[Hypothesis]:
        """The best hypotheses of one recording, best first.

        Args:
            log_probs: ``(frames, vocabulary)``, natural logarithms, normalised, the blank first.
            frame_seconds: seconds from one frame to the next.
            n_best: how many; the beam may hold fewer.
        """
        return [
            Hypothesis(
                found.tokens,
                " ".join(entry.word for entry in found.entries),
                found.score,
                self._timed(found, log_probs, frame_seconds),
            )
            for found in self.find(log_probs, n_best)
        ]

    def batch(
        self, log_probs: Sequence[np.ndarray], frame_seconds: float, threads: int | None = None
    ) -> list[Hypothesis]:
        """The best hypothesis of every recording, found on ``threads`` threads (default: all cores)."""
        return search_on_threads(lambda rows: self.hypotheses(rows, frame_seconds)[0], log_probs, threads)

    def _results(self, passing: LexiconBeamState, n_best: int) -> list[FoundWords]:
        """What the hypotheses of the beam come to, were the recording to end here, best first."""
        beam = passing.beam[: passing.numbers[SIZE]]
        whole = beam[beam["node"] == ROOT]
        if not len(whole):  # the last word is not finished: it is left out
            best = int(beam["rank"].argmax())
            whole = beam[best : best + 1]
        totals: dict[int, float] = {}
        firsts: dict[int, np.void] = {}
        for one in whole[np.argsort(-whole["rank"], kind="stable")]:
            said = int(one["said"])
            firsts.setdefault(said, one)
            total = np.logaddexp(one["blank"], one["token"])
            totals[said] = float(np.logaddexp(totals.get(said, -np.inf), total))
        if self.model is not None:
            for said, one in firsts.items():
                end, _ = score_word(self.model.trie, one["state"], self.model.end)
                totals[said] += self.limits.lm_weight * end
        best_first = sorted(totals, key=lambda said: -totals[said])[:n_best]
        return [
            self._result(totals[said], self._spelled(passing, int(firsts[said]["history"])))
            for said in best_first
        ]

    def _spelled(self, passing: LexiconBeamState, history: int) -> tuple[Entry, ...]:
        """The words that lead to a node of the tree of words."""
        backwards = []
        while history > 0:
            backwards.append(self.entries[int(passing.entries[history])])
            history = int(passing.parents[history])
        return tuple(reversed(backwards))

    def _result(self, total: float, entries: tuple[Entry, ...]) -> FoundWords:
        """A result whose score is ``total``, and what that is made of."""
        lm = 0.0
        if self.model is not None:
            state = self.model.begin
            for number in (*(entry.number for entry in entries), self.model.end):
                log_prob, state = score_word(self.model.trie, state, number)
                lm += log_prob
        fees = sum(entry.fee for entry in entries) + self._heated(entries)
        tokens = tuple(token for entry in entries for token in entry.tokens)
        acoustic = total - self.limits.lm_weight * lm - fees
        extra = fees - self.config.word_bonus * len(entries)
        return FoundWords(tokens, total, acoustic, lm, len(entries), extra, entries)

    def _heated(self, entries: Sequence[Entry]) -> float:
        """What the hot phrases in some words add."""
        gained, state = 0.0, 0
        for entry in entries:
            state = int(self.hot.following[state, entry.heat])
            gained += float(self.hot.gains[state])
        return gained

    def _timed(self, found: FoundWords, log_probs: np.ndarray, frame_seconds: float) -> tuple[Word, ...]:
        """The words with the times of their phones; as sure as the geometric mean of these."""
        placed = align_tokens(log_probs, np.array(found.tokens, np.int32))
        words, last = [], 0
        for entry in found.entries:
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


def make_beam_search(
    config: SearchConfig, tokenizer: Tokenizer, model: NgramModel | None = None, phrases: Sequence[str] = ()
) -> PrefixBeamSearch | LexiconBeamSearch:
    """The search that goes with a vocabulary; ``phrases`` are hot words."""
    if tokenizer.lexicon is None:
        return PrefixBeamSearch(config, tokenizer, model, phrases)
    return LexiconBeamSearch(config, tokenizer, model, phrases)


def gather_entries(
    config: SearchConfig, tokenizer: Tokenizer, model: NgramModel | None, heat: Mapping[str, int]
) -> Entries:
    """The words that can be found, and how; ``heat`` has the hot ones.

    A hot word counts as one that the language model knows: it pays no fee for its letters.
    """
    assert tokenizer.lexicon is not None
    try:
        columns = add_pronunciations(tokenizer.lexicon, heat).columns
    except G2PError as error:
        raise SearchError(f"hot words: {error}") from error
    symbols = {symbol: number for number, symbol in enumerate(tokenizer.symbols)}
    tokens = np.array([symbols[phone] for phone in columns.phones], np.uint8)[columns.codes]
    order, tokens, bounds, new = sort_pronunciations(tokens, columns.bounds)
    words = [columns.words[place] for place in order.tolist()]
    hot = np.array([heat.get(word, 0) for word in words], np.int32)
    fees = np.full(len(words), float(config.word_bonus))
    if model is None:
        return Entries(words, tokens, bounds, new, np.zeros(len(words), np.int32), fees, hot)
    known = model.vocabulary.numbers
    numbers = np.array([known.get(word, -1) for word in words], np.int32)
    strange = numbers < 0
    lengths = np.array([len(word) for word in words])
    fees += np.where(strange & (hot == 0), config.unknown_score * lengths, 0.0)
    if strange.all():
        raise SearchError(f"no word of the language model is in the model's lexicon: {OTHER_FORM}")
    if config.closed:
        fees[strange & (hot == 0)] = -np.inf
    numbers[strange] = model.unknown
    return Entries(words, tokens, bounds, new, numbers, fees, hot)


def sort_pronunciations(
    tokens: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The order that sorts pronunciations, their tokens and bounds in that order, and which are new there.

    Tokens are above 0, the blank, so that shorter ones filled up with zeros come before those that go on.
    """
    lengths = np.diff(bounds)
    columns = np.arange(lengths.max(initial=1))
    table = np.zeros((len(lengths), len(columns)), np.uint8)
    table[columns < lengths[:, None]] = tokens
    keys = table.view(f"S{len(columns)}")[:, 0]
    order = np.argsort(keys, kind="stable")
    lengths, keys = lengths[order], keys[order]
    in_use = columns < lengths[:, None]
    return (
        order,
        table[order][in_use],
        np.append(0, np.cumsum(lengths)),
        np.append(True, keys[1:] != keys[:-1]),
    )


def build_pronunciation_table(
    config: SearchConfig, entries: Entries, model: NgramModel | None, hot: HotWordAutomaton
) -> PronunciationTable:
    """The entries as arrays."""
    words = {word: number for number, word in enumerate(dict.fromkeys(entries.words))}
    firsts = np.append(np.flatnonzero(entries.new), len(entries)).astype(np.int32)
    lengths = np.diff(entries.bounds)
    highest = entries.fees + config.hotword_weight * (entries.heat > 0)
    if model is not None:
        highest += config.lm_weight * model.unigrams[entries.numbers]
    tree = build_lexicon_trie(
        entries.tokens[np.repeat(entries.new, lengths)],
        np.append(0, np.cumsum(lengths[entries.new])),
        np.arange(len(firsts) - 1, dtype=np.int32),
        np.maximum.reduceat(highest, firsts[:-1]).astype(np.float32),
    )
    return PronunciationTable(
        tree=tree,
        firsts=firsts,
        words=np.array([words[word] for word in entries.words], np.int32),
        numbers=entries.numbers,
        fees=entries.fees,
        hot=hot,
        heat=entries.heat,
        ending=float(entries.fees.max() + hot.gains.max() + hot.ahead.max() + tree.ahead[ROOT]),
    )
