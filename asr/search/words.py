"""Words from log-probs of phones, behind the same calls as ``Decoder``'s."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from asr.align import align
from asr.g2p import G2PError, Pronouncer
from asr.lm.model import NgramModel
from asr.pronunciation import Lexicon, Pronunciations
from asr.search.confidence import calibrated
from asr.search.decoder import Decoder, Found, SearchError, on_threads
from asr.search.hotwords import HotWords, hot_phrases
from asr.search.knowledge import NO_TRIE, unigram
from asr.search.lexicon import ROOT, lexicon_of
from asr.search.options import SearchConfig
from asr.search.tokenpassing import SIZE, Limits, Passing, Sounds, advance, new_passing, with_room
from asr.text import Tokenizer
from asr.transcript import Hypothesis, Word

MOST_TOKENS = 256  # a token is a byte of a pronunciation
VARIANTS = 2  # pronunciations of a hot word that the lexicon lacks


@dataclass(frozen=True)
class Entry:
    """A word with one of its pronunciations, in tokens."""

    word: str
    tokens: bytes
    number: int  # of the word, in the language model
    fee: float  # what it adds besides the language model's opinion


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
        self.hot, self.heat = hot_phrases(phrases, config.hotword_weight)
        self.entries = entries_of(config, tokenizer, model, self.heat)
        self.sounds = sounds_of(config, self.entries, model, self.hot, self.heat)
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
        passing = new_passing(self.sounds, self.config.beam_size, state)
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
            backwards.append(self.entries[passing.entries[history]])
            history = int(passing.parents[history])
        return tuple(reversed(backwards))

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
            state = int(self.hot.following[state, self.heat.get(entry.word, 0)])
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
    config: SearchConfig, tokenizer: Tokenizer, model: NgramModel | None, hot: Collection[str] = ()
) -> list[Entry]:
    """The words that can be found, those that sound alike side by side, in the order of their sounds.

    A ``hot`` word counts as one that the language model knows: it pays no fee for its letters.
    """
    assert tokenizer.lexicon is not None
    if len(tokenizer) > MOST_TOKENS:
        raise SearchError(f"{len(tokenizer) - 1} phones are too many to search: at most {MOST_TOKENS - 1}")
    numbers = {symbol: number for number, symbol in enumerate(tokenizer.symbols)}
    entries = []
    for word, variants in with_pronunciations(tokenizer.lexicon, hot).items():
        number, fee = 0, config.word_bonus
        if model is not None:
            number = model.vocabulary.find(word)
            if number < 0:
                number = model.unknown
                if word not in hot:
                    if config.closed:
                        continue
                    fee += config.unknown_score * len(word)
        entries += [Entry(word, bytes(numbers[phone] for phone in said), number, fee) for said in variants]
    if not entries:
        raise SearchError("no word of the language model is in the model's lexicon")
    return sorted(entries, key=lambda entry: entry.tokens)


def with_pronunciations(lexicon: Lexicon, words: Collection[str]) -> Mapping[str, Pronunciations]:
    """All words of a lexicon, and ``words``, each with its pronunciations."""
    pronouncer = Pronouncer(lexicon, VARIANTS)
    try:
        new = {word: pronouncer.pronounced(word)[0] for word in words if word not in lexicon}
    except G2PError as error:
        raise SearchError(f"hot words: {error}") from error
    return {**lexicon.words, **new}


def sounds_of(
    config: SearchConfig,
    entries: list[Entry],
    model: NgramModel | None,
    hot: HotWords,
    heat: Mapping[str, int],
) -> Sounds:
    """The entries as arrays; ``heat`` is what the automaton of hot phrases calls words."""
    words = {word: number for number, word in enumerate(dict.fromkeys(entry.word for entry in entries))}
    alike = [list(group) for _, group in groupby(entries, key=lambda entry: entry.tokens)]
    sounds = [group[0].tokens for group in alike]

    def highest(entry: Entry) -> float:
        gain = config.hotword_weight if entry.word in heat else 0.0
        return gain + entry.fee + (0.0 if model is None else config.lm_weight * unigram(model, entry.number))

    return Sounds(
        tree=lexicon_of(
            np.frombuffer(b"".join(sounds), np.uint8),
            np.cumsum([0, *map(len, sounds)], dtype=np.int64),
            np.arange(len(sounds), dtype=np.int32),
            np.array([max(map(highest, group)) for group in alike], np.float32),
        ),
        firsts=np.cumsum([0, *map(len, alike)], dtype=np.int32),
        words=np.array([words[entry.word] for entry in entries], np.int32),
        numbers=np.array([entry.number for entry in entries], np.int32),
        fees=np.array([entry.fee for entry in entries]),
        hot=hot,
        heat=np.array([heat.get(entry.word, 0) for entry in entries], np.int32),
    )
