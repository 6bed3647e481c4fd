"""Words from log-probs of phones, behind the same calls as ``Decoder``'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from asr.align import align
from asr.g2p import G2PError, Pronouncer
from asr.lm.model import NgramModel
from asr.pronunciation import Lexicon, Pronunciations
from asr.search.confidence import calibrated
from asr.search.decoder import Decoder, Found, SearchError, on_threads
from asr.search.hotwords import HotWords, hot_phrases
from asr.search.knowledge import NO_TRIE
from asr.search.lexicon import ROOT, lexicon_of
from asr.search.options import SearchConfig
from asr.search.tokenpassing import SIZE, Limits, Passing, Sounds, advance, new_passing, ways_on, with_room
from asr.text import Tokenizer
from asr.transcript import Hypothesis, Word

MOST_TOKENS = 256  # a token is a byte of a pronunciation
VARIANTS = 2  # pronunciations of a hot word that the lexicon lacks


@dataclass(frozen=True)
class Entries:
    """Words with a pronunciation each, in the order of their sounds: those that sound alike side by side.

    tokens: the pronunciations. numbers: int32, what the language model calls the words. fees: float64,
    what a word adds besides the language model's opinion. heat: int32, what the automaton of hot phrases
    calls the words.
    """

    words: Sequence[str]
    tokens: Sequence[bytes]
    numbers: np.ndarray
    fees: np.ndarray
    heat: np.ndarray

    def __len__(self) -> int:
        return len(self.words)


class Entry(NamedTuple):
    """One of the entries."""

    word: str
    tokens: bytes
    fee: float
    heat: int


@dataclass(frozen=True)
class FoundWords(Found):
    """One result of a word search; ``tokens`` are those of the pronunciations."""

    entries: tuple[Entry, ...]


class WordDecoder:
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
        self.hot, heat = hot_phrases(phrases, config.hotword_weight)
        self.entries = entries_of(config, tokenizer, model, heat)
        self.sounds = sounds_of(config, self.entries, model, self.hot)
        self.most_candidates = config.beam_size * ways_on(self.sounds)
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
        rows = np.ascontiguousarray(log_probs, np.float32)
        passing = new_passing(self.config.beam_size, self.most_candidates, state)
        frame = advance(self.sounds, trie, limits, passing, rows, 0)
        while frame < len(rows):
            passing = with_room(passing)
            frame = advance(self.sounds, trie, limits, passing, rows, frame)
        return self._results(passing)[:n_best]

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
        return on_threads(lambda rows: self.hypotheses(rows, frame_seconds)[0], log_probs, threads)

    def _results(self, passing: Passing) -> list[FoundWords]:
        """What the hypotheses of the beam come to, were the recording to end here, best first."""
        beam = passing.beam[: passing.numbers[SIZE]]
        whole = beam[beam["node"] == ROOT]
        if not len(whole):  # the last word is not finished: it is left out
            best = int(beam["rank"].argmax())
            whole = beam[best : best + 1]
        totals: dict[int, float] = {}
        histories: dict[int, int] = {}
        for one in whole[np.argsort(-whole["rank"], kind="stable")]:
            said = int(one["said"])
            histories.setdefault(said, int(one["history"]))
            total = np.logaddexp(one["blank"], one["token"])
            totals[said] = float(np.logaddexp(totals.get(said, -np.inf), total))
        results = [self._ended(totals[said], self._spelled(passing, histories[said])) for said in totals]
        return sorted(results, key=lambda found: -found.score)

    def _spelled(self, passing: Passing, history: int) -> tuple[Entry, ...]:
        """The words that lead to a node of the tree of words."""
        backwards = []
        while history > 0:
            backwards.append(self._entry(int(passing.entries[history])))
            history = int(passing.parents[history])
        return tuple(reversed(backwards))

    def _entry(self, place: int) -> Entry:
        every = self.entries
        fee, heat = float(every.fees[place]), int(every.heat[place])
        return Entry(every.words[place], every.tokens[place], fee, heat)

    def _ended(self, total: float, entries: tuple[Entry, ...]) -> FoundWords:
        """A result of all that was found for some words, the end of the sentence not yet counted."""
        lm, weight = 0.0, self.limits.lm_weight
        if self.model is not None:
            log_probs, state = self.model.score([entry.word for entry in entries], self.model.begin)
            (end,), _ = self.model.score(["</s>"], state)
            lm = sum(log_probs) + end
            total += weight * end
        fees = sum(entry.fee for entry in entries) + self._heated(entries)
        tokens = tuple(token for entry in entries for token in entry.tokens)
        extra = fees - self.config.word_bonus * len(entries)
        return FoundWords(tokens, total, total - weight * lm - fees, lm, len(entries), extra, entries)

    def _heated(self, entries: Sequence[Entry]) -> float:
        """What the hot phrases in some words add."""
        gained, state = 0.0, 0
        for entry in entries:
            state = int(self.hot.following[state, entry.heat])
            gained += float(self.hot.gains[state])
        return gained

    def _timed(self, found: FoundWords, log_probs: np.ndarray, frame_seconds: float) -> tuple[Word, ...]:
        """The words with the times of their phones; as sure as the geometric mean of these."""
        placed = align(log_probs, np.array(found.tokens, np.int32))
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
        return calibrated(words, self.config)


def new_decoder(
    config: SearchConfig, tokenizer: Tokenizer, model: NgramModel | None = None, phrases: Sequence[str] = ()
) -> Decoder | WordDecoder:
    """The search that goes with a vocabulary; ``phrases`` are hot words."""
    if tokenizer.lexicon is None:
        return Decoder(config, tokenizer, model, phrases)
    return WordDecoder(config, tokenizer, model, phrases)


def entries_of(
    config: SearchConfig, tokenizer: Tokenizer, model: NgramModel | None, heat: Mapping[str, int]
) -> Entries:
    """The words that can be found, and how; ``heat`` has the hot ones.

    A hot word counts as one that the language model knows: it pays no fee for its letters.
    """
    assert tokenizer.lexicon is not None
    if len(tokenizer) > MOST_TOKENS:
        raise SearchError(f"{len(tokenizer) - 1} phones are too many to search: at most {MOST_TOKENS - 1}")
    codes = {symbol: number for number, symbol in enumerate(tokenizer.symbols)}
    lexicon = with_pronunciations(tokenizer.lexicon, heat)
    known = {} if model is None else model.vocabulary.numbers
    listed = sorted(
        (bytes([codes[phone] for phone in said]), word)
        for word, variants in lexicon.items()
        if not config.closed or model is None or word in known or word in heat
        for said in variants
    )
    if not listed:
        raise SearchError("no word of the language model is in the model's lexicon")
    words = [word for _, word in listed]
    hot = np.array([heat.get(word, 0) for word in words], np.int32)
    numbers, fees = np.zeros(len(words), np.int32), np.full(len(words), config.word_bonus)
    if model is not None:
        numbers = np.array([known.get(word, -1) for word in words], np.int32)
        strange = numbers < 0
        fees += config.unknown_score * np.array([len(word) for word in words]) * (strange & (hot == 0))
        numbers[strange] = model.unknown
    return Entries(words, [tokens for tokens, _ in listed], numbers, fees, hot)


def with_pronunciations(lexicon: Lexicon, words: Collection[str]) -> Mapping[str, Pronunciations]:
    """All words of a lexicon, and ``words``, each with its pronunciations."""
    pronouncer = Pronouncer(lexicon, VARIANTS)
    try:
        new = {word: pronouncer.pronounced(word)[0] for word in words if word not in lexicon}
    except G2PError as error:
        raise SearchError(f"hot words: {error}") from error
    return {**lexicon.words, **new}


def sounds_of(config: SearchConfig, entries: Entries, model: NgramModel | None, hot: HotWords) -> Sounds:
    """The entries as arrays."""
    words = {word: number for number, word in enumerate(dict.fromkeys(entries.words))}
    changes = [i for i, (one, next_one) in enumerate(pairwise(entries.tokens), 1) if one != next_one]
    firsts = np.array([0, *changes, len(entries)], np.int32)
    sounds = [entries.tokens[first] for first in firsts[:-1]]
    highest = entries.fees + config.hotword_weight * (entries.heat > 0)
    if model is not None:
        highest += config.lm_weight * model.trie.log_probs[1 + entries.numbers]
    return Sounds(
        tree=lexicon_of(
            np.frombuffer(b"".join(sounds), np.uint8),
            np.cumsum([0, *map(len, sounds)], dtype=np.int64),
            np.arange(len(sounds), dtype=np.int32),
            np.maximum.reduceat(highest, firsts[:-1]).astype(np.float32),
        ),
        firsts=firsts,
        words=np.array([words[word] for word in entries.words], np.int32),
        numbers=entries.numbers,
        fees=entries.fees,
        hot=hot,
        heat=entries.heat,
    )
