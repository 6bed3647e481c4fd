"""Punctuation and capitals for what was recognised: a bidirectional LSTM tagger, computed with numpy.

It reads words as pieces (``asr.text.pieces``) and says of each word, at its last piece, which mark stands
behind it and how it is written. Long texts are read in windows that overlap. Where words were heard, the
pauses behind them have a say, too: whether a mark stands there, not which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr.core.config import ConfigError, check_bounds, option
from asr.core.recurrence import LSTMWeights, list_lstm_shapes, name_lstm, run_lstm, take_lstm
from asr.core.rounded import Format, Shapes
from asr.errors import UserError
from asr.text.marks import CASES, COMMA, MARKS, NONE, QUESTION, STOP, write_words
from asr.text.pieces import END_PIECE, PIECES, Pieces, read_network, write_network

WINDOW = 160  # words that are read together
CONTEXT = 32  # of them on either side, where there are more, only help to judge the others
WINDOWS_AT_ONCE = 32
CLASSES = len(MARKS) + len(CASES)
DIRECTIONS = ("ahead", "back")
PAUSES = (0.05, 0.15, 0.3, 0.5, 0.8)  # seconds at which one class of pauses ends and the next begins


class PunctuationError(UserError):
    """A model of punctuation that cannot be used; the text names the file."""


@dataclass(frozen=True)
class TaggerConfig:
    """The network of a tagger."""

    pieces: int = option(6000, "Pieces of words that it knows.", minimum=8, maximum=1 << 15)
    embedding: int = option(128, "Numbers in an embedding.", minimum=1, maximum=1024)
    size: int = option(192, "Units of a layer in each direction.", minimum=1, maximum=1024)
    layers: int = option(2, "Bidirectional LSTM layers.", minimum=1, maximum=8)
    dropout: float = option(0.1, "Share of a layer's outputs left out in training.", minimum=0, below=1)
    pauses: tuple[float, ...] = option(
        (),
        "What a pause behind a word adds to the log probability of a mark there, for pauses below "
        f"{PAUSES[0]} s, from there to {PAUSES[1]} s, and so on; measured by asr punctuation pauses.",
        minimum=-20,
        maximum=20,
    )

    def __post_init__(self) -> None:
        check_bounds(self, "network")
        if len(self.pauses) not in (0, len(PAUSES) + 1):
            raise ConfigError(f"'network.pauses' has {len(self.pauses)} numbers, not {len(PAUSES) + 1}")


@dataclass(frozen=True, eq=False)
class Tagger:
    """A model of punctuation; any number of threads may use it at the same time."""

    config: TaggerConfig
    pieces: Pieces
    embedding: np.ndarray  # (pieces, embedding) float32
    layers: tuple[tuple[LSTMWeights, LSTMWeights], ...]  # ahead and back
    output: np.ndarray  # (CLASSES, 2 * size) float32, marks first
    bias: np.ndarray  # (CLASSES,) float32

    def punctuate(
        self,
        words: Sequence[str],
        before: Sequence[str] = (),
        after: Sequence[str] = (),
        begins_sentence: bool = True,
        pauses: Sequence[float] = (),
    ) -> list[str]:
        """Write words with capitals and marks.

        ``before`` and ``after`` are other words of the same text, which help to judge these. Where none come
        after, the text ends as a sentence does. ``pauses`` are the seconds behind each of the words, NaN
        where nobody knows; none at all for words that were not heard.
        """
        if not words:
            return []
        log_probs = self.tag([*before, *words, *after])[len(before) : len(before) + len(words)]
        return self.write(words, log_probs, not after, begins_sentence, pauses)

    def write(
        self,
        words: Sequence[str],
        log_probs: np.ndarray,
        is_last: bool = True,
        begins_sentence: bool = True,
        pauses: Sequence[float] = (),
    ) -> list[str]:
        """Write words whose marks and cases are as probable as ``log_probs`` says, ``(words, CLASSES)``.

        ``is_last``: a text ends with them. The others are those of ``punctuate``.
        """
        if not words:
            return []
        if self.config.pauses and len(pauses):
            log_probs = log_probs.copy()
            log_probs[:, NONE + 1 : len(MARKS)] += weigh_pauses(self.config.pauses, pauses)[:, None]
        marks = log_probs[:, : len(MARKS)].argmax(axis=1)
        if is_last and marks[-1] in (NONE, COMMA):
            marks[-1] = QUESTION if log_probs[-1, QUESTION] > log_probs[-1, STOP] else STOP
        cases = log_probs[:, len(MARKS) :].argmax(axis=1)
        return write_words(words, marks.tolist(), cases.tolist(), begins_sentence)

    def tag(self, words: Sequence[str], window: int = WINDOW, context: int = CONTEXT) -> np.ndarray:
        """Compute natural log P of each mark, then of each case, of each word: ``(words, CLASSES)`` float32.

        Words are read in windows of ``window``, of which ``context`` on either side count in another one.
        """
        return self.tag_texts([words], window, context)[0]

    def tag_texts(
        self, texts: Sequence[Sequence[str]], window: int = WINDOW, context: int = CONTEXT
    ) -> list[np.ndarray]:
        """Do what ``tag`` does for several texts at once: many short ones take little longer than one."""
        spelled = [[self.pieces.spell(word) or [END_PIECE] for word in words] for words in texts]
        results = [np.empty((len(words), CLASSES), np.float32) for words in texts]
        spans = [
            (number, begin, min(len(words), begin + window))
            for number, words in enumerate(texts)
            for begin in list_windows(len(words), window, context)
        ]
        # Those of one length are read together, so that few steps are padding.
        order = sorted(range(len(spans)), key=lambda place: spans[place][2] - spans[place][1])
        tagged: dict[int, np.ndarray] = {}
        for first in range(0, len(order), WINDOWS_AT_ONCE):
            some = order[first : first + WINDOWS_AT_ONCE]
            windows = [spelled[number][begin:end] for number, begin, end in (spans[place] for place in some)]
            tagged |= zip(some, self._tag_windows(windows), strict=True)
        for place, (number, begin, end) in enumerate(spans):
            own = begin + context if begin else 0
            results[number][own:end] = tagged[place][own - begin :]  # the next window writes over the rest
        return results

    def _tag_windows(self, windows: Sequence[Sequence[Sequence[int]]]) -> list[np.ndarray]:
        """Compute the rows of the words of each window; shorter ones are padded behind their ends."""
        flat = [[piece for word in words for piece in word] for words in windows]
        lengths = np.array([len(pieces) for pieces in flat])
        inputs = np.full((len(flat), lengths.max()), END_PIECE)
        for row, pieces in zip(inputs, flat, strict=True):
            row[: len(pieces)] = pieces
        states = self.embedding[inputs]
        for ahead, back in self.layers:
            turned = run_lstm(back, reverse_rows(states, lengths))
            states = np.concatenate([run_lstm(ahead, states), reverse_rows(turned, lengths)], axis=2)
        results = []
        for row, words in zip(states, windows, strict=True):
            places = np.cumsum([len(word) for word in words]) - 1
            scores = row[places] @ self.output.T + self.bias
            results.append(
                np.concatenate(
                    [normalise(scores[:, : len(MARKS)]), normalise(scores[:, len(MARKS) :])], axis=1
                )
            )
        return results


def list_windows(words: int, window: int, context: int) -> list[int]:
    """List where the windows over so many words begin; none over no words."""
    if words <= window:
        return [0] if words else []
    return list(range(0, words - 2 * context, window - 2 * context))


def weigh_pauses(gains: Sequence[float], pauses: Sequence[float]) -> np.ndarray:
    """What each of ``pauses`` (seconds) adds to the log probability of a mark; 0 where it is NaN."""
    seconds = np.asarray(pauses, np.float64)
    return np.where(np.isnan(seconds), 0.0, np.asarray(gains)[np.digitize(seconds, PAUSES)])


def reverse_rows(states: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Reverse each row of ``(rows, steps, size)`` within its own length; the rest stays."""
    steps = np.arange(states.shape[1])
    places = np.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return np.take_along_axis(states, places[:, :, None], axis=1)


def normalise(scores: np.ndarray) -> np.ndarray:
    """Natural log of the softmax of each row."""
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


# --- the file -------------------------------------------------------------------------------------


def list_shapes(config: TaggerConfig) -> Shapes:
    """List the shapes of the weights of a network by name."""
    size, width = config.size, config.embedding
    shapes: Shapes = {"embedding": (config.pieces, width)}
    for number in range(config.layers):
        for direction in DIRECTIONS:
            shapes |= list_lstm_shapes(f"layers.{number}.{direction}.", width, size)
        width = 2 * size
    return shapes | {"output": (CLASSES, width), "bias": (CLASSES,)}


FORMAT = Format("punctuation model of asr", 1, TaggerConfig, list_shapes, (PIECES,), most_bytes=1 << 26)


def save_tagger(tagger: Tagger, path: str | Path) -> None:
    """Write a tagger, all of it or nothing."""
    weights = {"embedding": tagger.embedding, "output": tagger.output, "bias": tagger.bias}
    for number, layer in enumerate(tagger.layers):
        for direction, lstm in zip(DIRECTIONS, layer, strict=True):
            weights |= name_lstm(f"layers.{number}.{direction}.", lstm)
    write_network(FORMAT, tagger.config, weights, tagger.pieces, path)


def open_tagger(path: str | Path) -> Tagger:
    """Read a tagger; raises ``PunctuationError`` naming the file where it is none, or damaged."""
    return make_tagger(*read_network(FORMAT, path, PunctuationError))


def make_tagger(config: TaggerConfig, weights: Mapping[str, np.ndarray], pieces: Pieces) -> Tagger:
    """Make a tagger of weights by name."""
    layers = tuple(
        (take_lstm(f"layers.{number}.ahead.", weights), take_lstm(f"layers.{number}.back.", weights))
        for number in range(config.layers)
    )
    return Tagger(config, pieces, weights["embedding"], layers, weights["output"], weights["bias"])
