"""Alignment of a given text with log-probs: when each word and token is said, and how sure the model is."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from asr.errors import UserError
from asr.text.tokenizer import BLANK_TOKEN, Tokenizer, canonicalise
from asr.transcript.values import AlignedWord, Word

IMPOSSIBLE = -1e5  # log-probs below this are all alike
MOST_UNCOMPILED = 1 << 22  # scores; more of them are worth loading a compiler
MOST_STEPS = 1 << 25  # bytes; the steps of a longer path are computed again block by block


class AlignmentError(UserError):
    """A text that has no tokens, or more than the recording has room for."""


class Alignment(NamedTuple):
    """One entry per token: its first frame, the frame after its last, its highest log-prob there.

    ``score`` is the log-prob of the whole path.
    """

    begins: np.ndarray
    ends: np.ndarray
    peaks: np.ndarray
    score: float


# --- texts ----------------------------------------------------------------------------------------


def align_text(
    log_probs: np.ndarray, text: str, tokenizer: Tokenizer, frame_seconds: float, duration: float
) -> tuple[AlignedWord, ...]:
    """Find when the words of ``text`` and the tokens that each is made of are said.

    Of several pronunciations of a word, the one that fits best is taken. A token lasts from its first frame
    to its last, with CTC seldom more than a few frames: what lies between two tokens belongs to neither.

    Args:
        log_probs: ``(frames, vocabulary)``, natural logarithms, the blank first.
        text: normalised as the model's training texts were.
        frame_seconds: seconds from one frame to the next.
        duration: seconds of the recording; its last frame may go beyond them.

    Raises ``TextError`` for a text outside the vocabulary, ``AlignmentError`` for one that has no
    words or more tokens than the recording has room for.
    """
    words = canonicalise(text).split()
    if not words:
        raise AlignmentError("the text has no words that this model can spell")
    if tokenizer.lexicon is None:
        tokens = np.array(tokenizer.encode(text), np.int32)
        owners = list(assign_to_words(tokenizer.surfaces[token] for token in tokens))
    else:
        pronunciations = choose_pronunciations(
            log_probs, [tokenizer.encode_pronunciations(word) for word in words]
        )
        tokens = np.concatenate(pronunciations)
        owners = [number for number, phones in enumerate(pronunciations) for _ in phones]
    placed = align_tokens(log_probs, tokens)
    units = [
        Word(
            tokenizer.surfaces[token].strip(),
            float(begin) * frame_seconds,
            min(float(end) * frame_seconds, duration),
            math.exp(peak),
        )
        for token, begin, end, peak in zip(tokens, *placed[:3], strict=True)
    ]
    pairs = [(owner, unit) for owner, unit in zip(owners, units, strict=True) if owner is not None]
    return tuple(
        combine_units(words[owner], tuple(unit for _, unit in group))
        for owner, group in groupby(pairs, key=itemgetter(0))
    )


def assign_to_words(surfaces: Iterator[str]) -> Iterator[int | None]:
    """Yield the number of the word that each token is part of; ``None`` for a token that is only space."""
    number, within = -1, False
    for surface in surfaces:
        for character in surface:
            number += not within and not character.isspace()
            within = not character.isspace()
        yield number if surface.strip() else None


def combine_units(text: str, units: tuple[Word, ...]) -> AlignedWord:
    """Make a word of its units, as sure as their geometric mean."""
    confidence = math.prod(unit.confidence ** (1 / len(units)) for unit in units)
    return AlignedWord(Word(text, units[0].start, units[-1].end, confidence), units)


def join_spoken_words(
    words: Sequence[AlignedWord], written: Sequence[tuple[str, int]]
) -> tuple[AlignedWord, ...]:
    """Join the words that are said for each written one: ``written`` has its text and their number."""
    joined, place = [], 0
    for text, count in written:
        units = tuple(unit for word in words[place : place + count] for unit in word.units)
        joined.append(combine_units(text, units))
        place += count
    return tuple(joined)


def choose_pronunciations(log_probs: np.ndarray, words: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Choose for each word the pronunciation that fits best between its neighbours.

    The neighbours are placed with the first pronunciation of every word.
    """
    chosen = [variants[0] for variants in words]
    placed = align_tokens(log_probs, np.concatenate(chosen))
    borders = np.cumsum([0, *map(len, chosen)])
    for number, variants in enumerate(words):
        if len(variants) == 1:
            continue
        first, last = max(0, number - 1), min(len(words), number + 2)
        begin = placed.begins[borders[first]] if first else 0
        end = placed.ends[borders[last] - 1] if last < len(words) else len(log_probs)
        before, behind = chosen[first:number], chosen[number + 1 : last]
        scores = [score_path(log_probs[begin:end], np.concatenate([*before, v, *behind])) for v in variants]
        chosen[number] = variants[int(np.argmax(scores))]
    return chosen


def score_path(log_probs: np.ndarray, tokens: np.ndarray) -> float:
    """Compute the log-prob of the best path of ``tokens``; minus infinity where they have no room."""
    return (
        align_tokens(log_probs, tokens).score if len(log_probs) >= count_frames_needed(tokens) else -math.inf
    )


# --- tokens ---------------------------------------------------------------------------------------


def count_frames_needed(tokens: np.ndarray) -> int:
    """Count the fewest frames for ``tokens``: one each, and a blank between equal ones."""
    return len(tokens) + int((tokens[1:] == tokens[:-1]).sum())


def align_tokens(log_probs: np.ndarray, tokens: np.ndarray) -> Alignment:
    """Find the most probable path of ``tokens`` through ``log_probs`` (Viterbi over the states of CTC).

    Args:
        log_probs: ``(frames, vocabulary)``, natural logarithms, the blank first.
        tokens: token numbers without blanks.

    The path is exact, however long: nothing improbable is left out. Time grows with frames times tokens,
    memory with the power 2/3 of that: an hour with 40,000 tokens takes 40 MB besides ``log_probs``. Raises
    ``AlignmentError`` when there are fewer frames than the tokens and their repeats need.
    """
    tokens = np.ascontiguousarray(tokens, np.int32)
    frames, needed = len(log_probs), count_frames_needed(tokens)
    if frames < needed:
        raise AlignmentError(f"the text is too long: it needs {needed} frames, the recording has {frames}")
    states = 2 * len(tokens) + 1
    block = frames if frames * states <= MOST_STEPS else choose_block(frames, states)
    rows = np.ascontiguousarray(log_probs, np.float32)
    if rows.min(initial=0) < IMPOSSIBLE:  # or no path at all would lead through a frame that allows nothing
        rows = np.maximum(rows, np.float32(IMPOSSIBLE))
    path = _find_best_path(rows, tokens, block)
    begins = np.searchsorted(path, 2 * np.arange(len(tokens)) + 1, side="left")
    ends = np.searchsorted(path, 2 * np.arange(len(tokens)) + 1, side="right")
    peaks = [log_probs[b:e, token].max() for b, e, token in zip(begins, ends, tokens, strict=True)]
    symbols = np.zeros(states, np.int32)
    symbols[1::2] = tokens
    total = log_probs[np.arange(frames), symbols[path]].sum(dtype=np.float64)
    return Alignment(begins, ends, np.array(peaks, np.float64), float(total))


def choose_block(frames: int, states: int) -> int:
    """Choose the frames of a block with which ``_find_best_path`` needs the least memory.

    8 bytes for each state at the beginning of each block, and a byte for each step in the last one, in
    which a path can pass through twice as many states as there are frames: with ``b`` frames,
    ``8 * states * frames / b + 2 * b ** 2``, which is least where its derivative is 0.
    """
    return max(1, round((2 * states * frames) ** (1 / 3)))


def _find_best_path(log_probs: np.ndarray, tokens: np.ndarray, block: int) -> np.ndarray:
    """Find the state of every frame: ``2 * i`` is the blank before token ``i``, ``2 * i + 1`` the token.

    Going forwards, only the scores at the beginning of each block of so many frames are kept. Going
    backwards, each block is computed once more for its steps, and only in states from which its end, known
    by then, can be reached: two per frame.
    """
    frames, states = len(log_probs), 2 * len(tokens) + 1
    path = np.zeros(frames, np.int32)
    if frames == 0:
        return path
    symbols = np.full(states, BLANK_TOKEN)
    symbols[1::2] = tokens
    # What is added to a path that skips the blank between two tokens: nothing where they differ.
    skips = np.full(states, -np.inf)
    skips[3::2][tokens[1:] != tokens[:-1]] = 0.0
    advance = _advance
    if frames * states > MOST_UNCOMPILED or "numba" in sys.modules:  # both do the same, to the last bit
        from asr.search.alignment_kernel import advance  # imports numba
    unkept = np.zeros((1, states), np.uint8)
    blocks = -(-frames // block)
    before = np.full((blocks, states), -np.inf)
    scores = before[0].copy()
    for number in range(blocks - 1):
        advance(log_probs, symbols, skips, scores, unkept, number * block, (number + 1) * block, 0)
        before[number + 1] = scores
    state = -1
    steps = np.zeros((block, min(states, 2 * block + 2)), np.uint8)
    for number in range(blocks - 1, -1, -1):
        begin, end = number * block, min(frames, (number + 1) * block)
        low = max(0, (states - 2 if state < 0 else state) - 2 * (end - begin))
        scores = before[number][: low + steps.shape[1]]
        advance(log_probs, symbols, skips, scores, steps, begin, end, low)
        if state < 0:
            state = states - 1
            if states > 1 and scores[states - 2] > scores[states - 1]:
                state = states - 2
        for frame in range(end - 1, begin - 1, -1):
            path[frame] = state
            state -= int(steps[frame - begin, state - low])
    return path


def _advance(
    log_probs: np.ndarray,
    symbols: np.ndarray,
    skips: np.ndarray,
    scores: np.ndarray,
    steps: np.ndarray,
    begin: int,
    end: int,
    low: int,
) -> None:
    """Advance ``scores`` of the states from ``low`` on from before frame ``begin`` to before ``end``.

    How many states the path to each of them advanced in each frame is written into ``steps``, one row per
    frame; once the rows are used up, the last one is overwritten. Of the states from ``low`` on, the first
    two per frame have no valid scores: paths to them from below ``low`` are left out.
    """
    frames, states = len(log_probs), len(symbols)
    for frame in range(begin, end):
        # States that the beginning reaches and from which the end is still reached.
        last = min(len(scores) - 1, 2 * frame + 1)
        first = max(low, states - 2 * (frames - frame))
        if first > last:
            continue
        here = slice(first, last + 1)
        best = scores[here].copy()
        step = np.zeros(len(best), np.uint8)
        if frame == 0:
            best[:] = 0.0  # only the first two states are reached
        else:
            for back in (1, 2):
                earlier = max(back, first)  # the first state that has one so far before it
                other = scores[earlier - back : last + 1 - back]
                if back == 2:
                    other = other + skips[earlier : last + 1]
                is_better = other > best[earlier - first :]
                best[earlier - first :][is_better] = other[is_better]
                step[earlier - first :][is_better] = back
        scores[here] = best + log_probs[frame, symbols[here]]
        steps[min(frame - begin, len(steps) - 1), first - low : last + 1 - low] = step
