"""Prefix beam search behind one call: what is known is gathered once, then log-probs become hypotheses.

Log-probs are read in blocks. What all prefixes in the beam agree on after a block is committed: its
words get their times, its frames and its part of the tree are let go, so that an hour of log-probs
needs no more memory than a minute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from asr.core.cores import count_cores
from asr.errors import UserError
from asr.lm.model import NgramModel
from asr.lm.vocabulary import BEGIN, END, UNKNOWN, Vocabulary
from asr.search import prefix_beam_kernel as kernel
from asr.search.alignment import Alignment, align_tokens
from asr.search.confidence import calibrate
from asr.search.config import SearchConfig
from asr.search.prefix_beam_kernel import FREE, SIZE, PrefixBeamState, enlarge_tree, make_state
from asr.search.prefix_beam_tables import build_search_tables
from asr.search.priors import take_off_priors
from asr.text.tokenizer import Tokenizer
from asr.transcript.values import Hypothesis, Word, make_words

BLOCK = 1000  # frames that are read at once, and from which on the words of committed tokens are aligned
MOST_NODES = 512  # of the tree, for every prefix in the beam; then half of the best one is decided upon

OTHER_FORM = "it is of texts in another form, as in capitals (asr lm train has --normaliser)"


class SearchError(UserError):
    """A search that cannot be made."""


@dataclass(frozen=True)
class Found:
    """One result of a search and what its score is made of, natural logarithms.

    score = acoustic + lm_weight * lm + word_bonus * words + extra, where ``extra`` is what the
    letters of unknown words and hot words add.
    """

    tokens: tuple[int, ...]
    score: float
    acoustic: float
    lm: float
    words: int
    extra: float


class PrefixBeamSearch:
    """A search made ready for one vocabulary of tokens, one language model and one set of hot words.

    Any number of threads may use it at the same time. Raises ``SearchError`` for tokens that are phones, for
    a language model without a word that the tokens can spell, and for a hot word that they cannot.
    """

    def __init__(
        self,
        config: SearchConfig,
        tokenizer: Tokenizer,
        model: NgramModel | None = None,
        phrases: Sequence[str] = (),
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
        self.tokenizer = tokenizer
        self.known = build_search_tables(config, tokenizer, model, phrases)
        self.begin_state = 0 if model is None else model.begin
        self.description = {
            "language_model": None if model is None else list(model.counts),
            "phrases": list(phrases),
        }
        self._idle: list[PrefixBeamState] = []  # append and pop are safe between threads

    def find(self, log_probs: np.ndarray, n_best: int = 1) -> list[Found]:
        """The best token sequences of one recording, best first, without the times of their words."""
        stream = PrefixBeamStream(self, None, n_best)
        stream.read(log_probs)
        return stream.results()

    def hypotheses(self, log_probs: np.ndarray, frame_seconds: float, n_best: int = 1) -> list[Hypothesis]:
        """The best hypotheses of one recording, best first.

        Args:
            log_probs: ``(frames, vocabulary)``, natural logarithms, normalised, the blank first.
            frame_seconds: seconds from one frame to the next.
            n_best: how many; the beam may hold fewer. With more than one, no prefix is dropped for
                a rival with the same future.
        """
        stream = PrefixBeamStream(self, frame_seconds, n_best)
        for begin in range(0, len(log_probs), BLOCK):
            stream.read(log_probs[begin : begin + BLOCK])
        return stream.finish()

    def batch(
        self, log_probs: Sequence[np.ndarray], frame_seconds: float, threads: int | None = None
    ) -> list[Hypothesis]:
        """The best hypothesis of every recording, found on ``threads`` threads (default: all cores)."""
        return search_on_threads(lambda rows: self.hypotheses(rows, frame_seconds)[0], log_probs, threads)

    def _lend(self) -> PrefixBeamState:
        try:
            return self._idle.pop()
        except IndexError:
            return make_state(self.config.beam_size, len(self.tokenizer))

    def _take_back(self, search: PrefixBeamState) -> None:
        self._idle.append(search)


def check_hot_words(tokenizer: Tokenizer, phrases: Sequence[str]) -> None:
    """Raise ``SearchError`` for one that could never be found."""
    for phrase in phrases:
        if missing := tokenizer.find_unknown(phrase):
            raise SearchError(
                f"hot words: {phrase!r} cannot be written with this model's {tokenizer.unit}: "
                f"they lack {' '.join(sorted(missing))}"
            )


def can_spell_any(tokenizer: Tokenizer, vocabulary: Vocabulary) -> bool:
    """Whether there is a word, besides ``<unk>`` and the like, whose every byte some token has."""
    there = np.zeros(256, bool)
    there[list("".join(tokenizer.surfaces).replace(" ", "").encode())] = True
    strange = np.logical_or.reduceat(~there[vocabulary.letters], vocabulary.bounds[:-1])
    specials = [number for number in map(vocabulary.find, (BEGIN, END, UNKNOWN)) if number >= 0]
    strange[specials] = True
    return not strange.all()


def search_on_threads(
    best: Callable[[np.ndarray], Hypothesis], log_probs: Sequence[np.ndarray], threads: int | None
) -> list[Hypothesis]:
    """What ``best`` makes of every recording, on so many threads; ``None`` means all cores."""
    threads = min(threads or count_cores(), len(log_probs))
    if threads <= 1:
        return [best(rows) for rows in log_probs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(best, log_probs))


class PrefixBeamStream:
    """One recording on its way through a decoder, block by block.

    ``frame_seconds`` is ``None`` when the times of words are not wanted.
    """

    def __init__(self, decoder: PrefixBeamSearch, frame_seconds: float | None, n_best: int = 1) -> None:
        self.tokens: list[int] = []  # committed: no prefix in the beam differs from them any more
        self.words: list[Word] = []  # those of committed tokens that have their times
        self._decoder = decoder
        self._frame_seconds = frame_seconds
        self._n_best = n_best
        self._known = decoder.known
        if n_best > 1:
            self._known = self._known._replace(pruning=self._known.pruning._replace(recombine=False))
        self._search = decoder._lend()
        kernel.start(self._search, decoder.begin_state, self._known.hot.start)
        self._timed = 0  # committed tokens whose words have their times
        self._first_frame = 0
        self._kept = np.zeros((0, len(decoder.tokenizer)), np.float32)  # frames of all tokens behind them

    def read(self, log_probs: np.ndarray) -> None:
        """Read the next ``(frames, vocabulary)`` log-probs."""
        rows = take_off_priors(log_probs, self._decoder.config)
        frame = kernel.advance(self._known, self._search, rows, 0)
        while frame < len(rows):
            self._make_room()
            frame = kernel.advance(self._known, self._search, rows, frame)
        if self._frame_seconds is not None:
            self._kept = np.concatenate([self._kept, log_probs], dtype=np.float32)
            if len(self._kept) >= BLOCK:
                self._commit()
                self._place_committed()

    def ranked(self) -> list[Found]:
        """What was found so far, were the recording to end here."""
        search, known = self._search, self._known
        table = np.zeros((int(search.numbers[SIZE]), 5))
        kernel.score_endings(known, search, table)
        finished = np.flatnonzero(table[:, 0] > -np.inf)
        if not len(finished):  # a closed lexicon knows no last word: it is left out
            entry = int(table[:, 4].argmax())
            _, lm, words, extra, score = table[entry].tolist()
            return [self._made_of(self._whole_words(self._spelled(entry)), score, lm, words, extra)]
        order = finished[np.argsort(-table[finished, 0], kind="stable")][: self._n_best]
        return [self._made_of(self._spelled(entry), *table[entry, :4].tolist()) for entry in order]

    def finish(self) -> list[Hypothesis]:
        """The best hypotheses, best first. The stream is used up."""
        return [self._hypothesis(found) for found in self.results()]

    def results(self) -> list[Found]:
        """What ``ranked`` returns, for the last time: the stream is used up."""
        found = self.ranked()
        self._decoder._take_back(self._search)
        return found

    def _hypothesis(self, found: Found) -> Hypothesis:
        rest = np.array(found.tokens[self._timed :], np.int32)
        words = (*self.words, *self._placed(rest, align_tokens(self._kept, rest)))
        return Hypothesis(found.tokens, self._decoder.tokenizer.decode(found.tokens), found.score, words)

    def _placed(self, tokens: np.ndarray, alignment: Alignment) -> tuple[Word, ...]:
        """The words of ``tokens`` that were aligned with the frames kept."""
        seconds = self._frame_seconds or 0.0
        surfaces = self._decoder.tokenizer.surfaces
        words = make_words(
            [surfaces[token] for token in tokens],
            [float(self._first_frame + frame) * seconds for frame in alignment.begins[: len(tokens)]],
            [float(self._first_frame + frame) * seconds for frame in alignment.ends[: len(tokens)]],
            np.exp(alignment.peaks[: len(tokens)]).tolist(),
        )
        return calibrate(words, self._decoder.config)

    def _made_of(self, tokens: tuple[int, ...], score: float, lm: float, words: float, extra: float) -> Found:
        fusion = self._known.fusion
        acoustic = score - fusion.lm_weight * lm - fusion.word_bonus * words - extra
        return Found(tokens, score, acoustic, lm, int(words), extra)

    def _spelled(self, entry: int) -> tuple[int, ...]:
        """All tokens of a prefix in the beam, committed ones included."""
        backwards = np.zeros(len(self._search.free), np.int32)
        count = kernel.spell_backwards(self._search, entry, backwards)
        return (*self.tokens, *backwards[:count][::-1].tolist())

    def _whole_words(self, tokens: tuple[int, ...]) -> tuple[int, ...]:
        """``tokens`` up to the last one that ends a word."""
        borders = self._known.pieces.borders
        ends = [i for i, token in enumerate(tokens) if borders[token]]
        return tokens[: ends[-1]] if ends else ()

    def _commit(self) -> None:
        tokens = np.zeros(len(self._search.free), np.int32)
        count = kernel.commit(self._search, tokens)
        self.tokens += tokens[:count].tolist()

    def _make_room(self) -> None:
        """See to it that the tree has nodes for the next frame: commit, enlarge it, or else decide."""
        search, size = self._search, self._decoder.config.beam_size
        self._commit()
        if search.numbers[FREE] >= size:
            return
        if len(search.free) < MOST_NODES * size:
            self._search = enlarge_tree(search)
            return
        kernel.decide(search)
        self._commit()

    def _place_committed(self) -> None:
        """Give the words of committed tokens their times, and let their frames go."""
        borders = self._known.pieces.borders
        pending = self.tokens[self._timed :]
        whole = next((i for i in range(len(pending) - 1, 0, -1) if borders[pending[i]]), 0)
        if not whole:
            return
        best = np.array(self.ranked()[0].tokens[self._timed :], np.int32)
        alignment = align_tokens(self._kept, best)
        self.words += self._placed(best[:whole], alignment)
        self._timed += whole
        behind = int(alignment.begins[whole])
        self._kept = self._kept[behind:].copy()
        self._first_frame += behind
