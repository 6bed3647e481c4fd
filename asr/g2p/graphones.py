"""Spellings aligned with pronunciations: which phones each letter stands for.

A letter with its phones is a *graphone*; a word is a sequence of them. Their probabilities are
estimated by expectation maximisation over all ways to deal out a word's phones to its letters, the
order-1 case of Bisani & Ney 2008, "Joint-sequence models for grapheme-to-phoneme conversion" (Speech
Communication 50, 434-451, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_function
from asr.text.lexicon import Pronunciation

# Of a letter, as in the x of "box" and the u of "music". On held-out words of CMUdict 25.2 % were wrong, as
# with three; 26.0 % with graphones of two letters and one phone besides, 27.4 % with two and two as well.
MOST_PHONES = 2
ROUNDS = 8  # of expectation maximisation

Graphone = tuple[str, Pronunciation]


class Pairs(NamedTuple):
    """Words and their pronunciations in numbers.

    letters: int32, of all words; word ``w`` has those in ``letter_bounds[w]:letter_bounds[w + 1]``.
    parts: ``(phones, MOST_PHONES)`` int32, the number of the 1, 2, ... phones that end with this one;
        word ``w`` has the rows ``phone_bounds[w]:phone_bounds[w + 1]``. Part 0 has no phones.
    """

    letters: np.ndarray
    letter_bounds: np.ndarray
    parts: np.ndarray
    phone_bounds: np.ndarray


def align_letters(pairs: Sequence[tuple[str, Pronunciation]], rounds: int = ROUNDS) -> list[list[Graphone]]:
    """Align every word's letters with its phones: a graphone for each letter, none where phones are too many.

    Args:
        pairs: words with a pronunciation each.
        rounds: of expectation maximisation (Bisani & Ney 2008, section 3).
    """
    numbers, parts = number_pairs(pairs)
    probs = np.ones((int(numbers.letters.max(initial=0)) + 1, len(parts)))
    probs /= probs.size
    for _ in range(rounds):
        counts = expect_counts(numbers, probs)
        probs = counts / max(counts.sum(), np.finfo(float).tiny)  # all 0 where nothing can be aligned
    with np.errstate(divide="ignore"):
        found = find_best_alignments(numbers, np.log(probs))
    bounds = pairwise(numbers.letter_bounds.tolist())
    chosen = [found[begin:end].tolist() for begin, end in bounds]
    return [
        [] if -1 in own else [(letter, parts[part]) for letter, part in zip(word, own, strict=True)]
        for (word, _), own in zip(pairs, chosen, strict=True)
    ]


def number_pairs(pairs: Sequence[tuple[str, Pronunciation]]) -> tuple[Pairs, list[Pronunciation]]:
    """Number the letters of words and the parts of pronunciations; also return what part each number is."""
    alphabet: dict[str, int] = {}
    numbers: dict[Pronunciation, int] = {(): 0}
    letters, letter_bounds, parts, phone_bounds = [], [0], [], [0]
    for word, phones in pairs:
        letters += [alphabet.setdefault(letter, len(alphabet)) for letter in word]
        for end in range(1, len(phones) + 1):
            ending = (phones[max(0, end - length) : end] for length in range(1, MOST_PHONES + 1))
            parts.append([numbers.setdefault(part, len(numbers)) for part in ending])
        letter_bounds.append(len(letters))
        phone_bounds.append(len(parts))
    arrays = Pairs(
        np.array(letters, np.int32),
        np.array(letter_bounds, np.int64),
        np.array(parts, np.int32).reshape(-1, MOST_PHONES),
        np.array(phone_bounds, np.int64),
    )
    return arrays, list(numbers)


@compile_function
def get_part_before(parts: np.ndarray, end: int, length: int) -> int:
    """Return the number of the part that is the ``length`` phones before ``end``."""
    return parts[end - 1, length - 1] if length > 0 else 0


@compile_function
def expect_counts(pairs: Pairs, probs: np.ndarray) -> np.ndarray:
    """Compute how often every graphone is expected: forwards and backwards through all alignments.

    ``probs`` and the result are ``(letters of the alphabet, parts)``.
    """
    counts = np.zeros_like(probs)
    most = pairs.parts.shape[1]
    for word in range(len(pairs.letter_bounds) - 1):
        letters = pairs.letters[pairs.letter_bounds[word] : pairs.letter_bounds[word + 1]]
        parts = pairs.parts[pairs.phone_bounds[word] : pairs.phone_bounds[word + 1]]
        ahead = np.zeros((len(letters) + 1, len(parts) + 1))
        ahead[0, 0] = 1.0
        for i in range(len(letters)):
            for j in range(len(parts) + 1):
                for length in range(min(most, j) + 1):
                    graphone = probs[letters[i], get_part_before(parts, j, length)]
                    ahead[i + 1, j] += ahead[i, j - length] * graphone
        total = ahead[len(letters), len(parts)]
        if total == 0.0:  # more phones than the letters can have, or a probability too small for a float
            continue
        behind = np.zeros((len(letters) + 1, len(parts) + 1))
        behind[len(letters), len(parts)] = 1.0 / total
        for i in range(len(letters) - 1, -1, -1):
            for j in range(len(parts) + 1):
                for length in range(min(most, j) + 1):
                    part = get_part_before(parts, j, length)
                    share = probs[letters[i], part] * behind[i + 1, j]
                    behind[i, j - length] += share
                    counts[letters[i], part] += ahead[i, j - length] * share
    return counts


@compile_function
def find_best_alignments(pairs: Pairs, log_probs: np.ndarray) -> np.ndarray:
    """Find the part of each letter in the most probable alignment (Viterbi); -1 where there is none."""
    chosen = np.full(len(pairs.letters), -1, np.int32)
    most = pairs.parts.shape[1]
    for word in range(len(pairs.letter_bounds) - 1):
        first = pairs.letter_bounds[word]
        letters = pairs.letters[first : pairs.letter_bounds[word + 1]]
        parts = pairs.parts[pairs.phone_bounds[word] : pairs.phone_bounds[word + 1]]
        best = np.full((len(letters) + 1, len(parts) + 1), -np.inf)
        lengths = np.zeros((len(letters) + 1, len(parts) + 1), np.int64)
        best[0, 0] = 0.0
        for i in range(len(letters)):
            for j in range(len(parts) + 1):
                for length in range(min(most, j) + 1):
                    score = best[i, j - length] + log_probs[letters[i], get_part_before(parts, j, length)]
                    if score > best[i + 1, j]:
                        best[i + 1, j], lengths[i + 1, j] = score, length
        if best[len(letters), len(parts)] > -np.inf:
            j = len(parts)
            for i in range(len(letters), 0, -1):
                chosen[first + i - 1] = get_part_before(parts, j, lengths[i, j])
                j -= lengths[i, j]
    return chosen
