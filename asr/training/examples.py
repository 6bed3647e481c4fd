"""Examples: utterances ready to be learned from or scored, in batches of similar length. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from asr.audio import reading as audio
from asr.data.manifest import Utterance
from asr.data.tars import to_source
from asr.text.tokenizer import NORMALISERS, TextConfig, TextError, Tokenizer

Reader = Callable[[Utterance], np.ndarray]
Plan = list[tuple[int, ...]]


@dataclass(frozen=True)
class Example:
    """An utterance with its duration and tokens (``None``: the vocabulary cannot write its text)."""

    utterance: Utterance
    duration: float
    tokens: tuple[int, ...] | None


def training_examples(
    utterances: Iterable[Utterance], tokenizer: Tokenizer, config: TextConfig
) -> list[Example]:
    """Normalise and tokenise utterances; raises ``TextError`` at a symbol outside the vocabulary."""
    normalise = NORMALISERS[config.normaliser]
    return [
        Example(u, measure_duration(u), tuple(tokenizer.encode(normalise(u.text), u.id))) for u in utterances
    ]


def evaluation_examples(
    utterances: Iterable[Utterance], tokenizer: Tokenizer, config: TextConfig
) -> list[Example]:
    """As ``training_examples``, but keep texts that the vocabulary cannot write: they are scored, too."""

    def tokens(utterance: Utterance) -> tuple[int, ...] | None:
        try:
            return tuple(tokenizer.encode(NORMALISERS[config.normaliser](utterance.text)))
        except TextError:
            return None

    return [Example(u, measure_duration(u), tokens(u)) for u in utterances]


def measure_duration(utterance: Utterance) -> float:
    """Seconds of an utterance, from the manifest or else from the recording."""
    if utterance.duration is not None:
        return utterance.duration
    return audio.measure_duration(to_source(utterance.audio)) - utterance.start


def plan_by_duration(
    durations: Sequence[float], batch_seconds: float, windows: Sequence[Sequence[int]] = ()
) -> Plan:
    """Plan batches for evaluation: every example once, the longest first; one window after another."""
    if not windows:
        return fill_batches(durations, np.argsort(durations, kind="stable")[::-1], batch_seconds)
    parts = [(window, plan_by_duration([durations[i] for i in window], batch_seconds)) for window in windows]
    return [tuple(window[i] for i in batch) for window, part in parts for batch in part]


def fill_batches(durations: Sequence[float], order: Iterable[int], batch_seconds: float) -> Plan:
    """Cut ``order`` into batches of at most ``batch_seconds``, padding included."""
    batches: Plan = []
    current: list[int] = []
    longest = 0.0
    for index in map(int, order):
        longest = max(longest, durations[index])
        if current and longest * (len(current) + 1) > batch_seconds:
            batches.append(tuple(current))
            current, longest = [], durations[index]
        current.append(index)
    return [*batches, tuple(current)] if current else batches


def new_sample_reader(rate: int, keep: bool) -> Reader:
    """A function that reads an utterance's samples; with ``keep`` it decodes each only once."""

    def read(path: str, start: float, duration: float | None) -> np.ndarray:
        return audio.read_audio(to_source(path), rate, start, duration)

    remembered = cache(read) if keep else read

    return lambda utterance: remembered(utterance.audio, utterance.start, utterance.duration)
