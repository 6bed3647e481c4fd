"""Texts become word numbers, and word numbers become n-grams with counts, by sorting.

All n-grams of an order are packed into 64-bit keys and sorted, as long as their words fit; where
they do not, a key begins with the place of the first words among the n-grams of a lower order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_function
from asr.core.cores import run_in_order
from asr.lm.building import find_word
from asr.lm.text import NEWLINE, is_space
from asr.lm.vocabulary import BEGIN, END, UNKNOWN, Vocabulary, build_vocabulary
from asr.lm.word_table import WordTable, list_table_words, look_up, look_up_or_add, make_room, make_table

KEY_BITS = 63
PART = 1 << 18  # n-grams that are looked up at once


@dataclass(frozen=True)
class Corpus:
    """A text in numbers: ``tokens`` (int32) are ``<s> word ... </s> <s> ...``, numbers of ``vocabulary``."""

    tokens: np.ndarray
    vocabulary: Vocabulary


class NgramCounts(NamedTuple):
    """The n-grams of one order, sorted by their words, and how often each is there.

    words: the last word of each, int32.
    bounds: the n-grams of context ``c`` are ``bounds[c]:bounds[c + 1]``, int64.
    suffixes: where the words without the first stand in the order below, int32.
    counts: int64.
    """

    words: np.ndarray
    bounds: np.ndarray
    suffixes: np.ndarray
    counts: np.ndarray


def read_corpus(blocks: Iterable[bytes], size: int | None = None) -> Corpus:
    """Number the words of sentences, one per line; blank lines are no sentences.

    With ``size``, only that many of the most frequent words keep their numbers, of equally frequent ones
    those that sort first; the others become ``<unk>``.
    """
    places = {word.encode(): number for number, word in enumerate((UNKNOWN, BEGIN, END))}
    parts = [np.zeros(0, np.int32)]
    for numbers, own in run_in_order(_number_block, blocks):
        parts.append(np.array([places.setdefault(word, len(places)) for word in own], np.int32)[numbers])
    tokens = np.concatenate(parts)
    del parts
    words = list(places)
    by_bytes = sorted(range(len(words)), key=words.__getitem__)
    if size is not None and size + 3 < len(words):
        counts = np.bincount(tokens, minlength=len(words))
        ranked = sorted((n for n in by_bytes if n > 2), key=lambda n: -counts[n])
        kept = {0, 1, 2, *ranked[:size]}
        by_bytes = [n for n in by_bytes if n in kept]
    rank = np.full(len(words), by_bytes.index(0), np.int32)
    rank[by_bytes] = np.arange(len(by_bytes), dtype=np.int32)
    np.take(rank, tokens, out=tokens)
    return Corpus(tokens, build_vocabulary(words[n] for n in by_bytes))


def _number_block(block: bytes) -> tuple[np.ndarray, list[bytes]]:
    """Number the words of a block by themselves; also return these words."""
    table = make_table()
    for word in (UNKNOWN, BEGIN, END):
        text = np.frombuffer(word.encode(), np.uint8)
        look_up_or_add(table, text, 0, len(text))
    numbers, table = number_words(np.frombuffer(block, np.uint8), table, 1, 2, -1)
    return numbers, list_table_words(table)


@compile_function
def number_words(
    text: np.ndarray, table: WordTable, begin: int, end: int, unknown: int
) -> tuple[np.ndarray, WordTable]:
    """Number the words of a text by ``table``, with ``begin`` and ``end`` around those of every line.

    New words get ``unknown``, or, where that is negative, the next number in ``table``; the second value is
    then the table with them.
    """
    numbers = np.empty(len(text) * 3 // 2 + 2, np.int32)  # enough for lines of one letter
    count, place, inside = 0, 0, False
    while place < len(text):
        if is_space(text[place]):
            if text[place] == NEWLINE and inside:
                numbers[count] = end
                count += 1
                inside = False
            place += 1
            continue
        first = place
        while place < len(text) and not is_space(text[place]):
            place += 1
        number = look_up(table, text, first, place)
        if number < 0:
            number = unknown
            if unknown < 0:
                table = make_room(table, place - first)
                number = look_up_or_add(table, text, first, place)
        if not inside:
            numbers[count] = begin
            count += 1
            inside = True
        numbers[count] = number
        count += 1
    if inside:
        numbers[count] = end
        count += 1
    return numbers[:count].copy(), table


def count_ngrams(corpus: Corpus, order: int) -> list[NgramCounts]:
    """Count the n-grams of every order up to ``order``; ``<s>`` is only ever their first word."""
    tokens, size, begin = corpus.tokens, len(corpus.vocabulary), corpus.vocabulary.find(BEGIN)
    words = np.arange(size, dtype=np.int32)
    counts = np.bincount(tokens, minlength=size)
    levels = [NgramCounts(words, np.array([0, size]), np.zeros(size, np.int32), counts)]
    bits = max(1, int(size - 1).bit_length())
    base, places, shorter = 1, tokens, words.astype(np.int64)  # where n-grams of order ``base`` begin
    for length in range(2, order + 1):
        if (len(levels[base - 1].words) - 1).bit_length() + (length - base) * bits > KEY_BITS:
            while base < length - 1:
                level = levels[base]
                places = _extend_places(tokens, places, level.bounds, level.words, base, begin)
                base += 1
            shorter = np.arange(len(levels[-1].words))
        keys = _make_keys(tokens, places, base, length, bits, begin)
        keys.sort()
        keys, counts = _count_distinct(keys)
        contexts = _find_contexts(shorter, keys, bits)
        words = (keys & ((1 << bits) - 1)).astype(np.int32)
        bounds = np.concatenate([[0], np.cumsum(np.bincount(contexts, minlength=len(levels[-1].words)))])
        suffixes = words if length == 2 else _find_all_suffixes(words, contexts, levels[-1])
        levels.append(NgramCounts(words, bounds, suffixes, counts))
        shorter = keys
    return levels


@compile_function
def _extend_places(
    tokens: np.ndarray, places: np.ndarray, bounds: np.ndarray, words: np.ndarray, length: int, begin: int
) -> np.ndarray:
    """Find the place of the n-gram of ``length + 1`` words from each token on; -1 where none begins."""
    longer = np.full(len(tokens), -1, np.int32)
    for i in range(len(tokens) - length):
        if places[i] >= 0 and tokens[i + length] != begin:
            place = places[i]
            longer[i] = find_word(words, bounds[place], bounds[place + 1], tokens[i + length])
    return longer


@compile_function
def _make_keys(
    tokens: np.ndarray, places: np.ndarray, base: int, length: int, bits: int, begin: int
) -> np.ndarray:
    """Make the keys of all n-grams of ``length`` words: the place of the first ``base``, then the others."""
    keys = np.empty(len(tokens), np.int64)
    count = 0
    for i in range(len(tokens) - length + 1):
        key = np.int64(places[i])
        whole = key >= 0
        for j in range(i + 1, i + length):
            whole &= tokens[j] != begin
        if whole:
            for j in range(i + base, i + length):
                key = key << bits | tokens[j]
            keys[count] = key
            count += 1
    return keys[:count]


@compile_function
def _count_distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every value of a sorted array once, and how often it is there."""
    size = 0
    for i in range(len(keys)):
        size += i == 0 or keys[i] != keys[i - 1]
    distinct, counts = np.empty(size, np.int64), np.zeros(size, np.int64)
    last = -1
    for i in range(len(keys)):
        if i == 0 or keys[i] != keys[i - 1]:
            last += 1
            distinct[last] = keys[i]
        counts[last] += 1
    return distinct, counts


@compile_function
def _find_contexts(shorter: np.ndarray, keys: np.ndarray, bits: int) -> np.ndarray:
    """Find the place of each key without its last word in ``shorter``, for keys that are sorted."""
    contexts = np.empty(len(keys), np.int32)
    place = 0
    for i in range(len(keys)):
        context = keys[i] >> bits
        while shorter[place] < context:
            place += 1
        contexts[i] = place
    return contexts


def _find_all_suffixes(words: np.ndarray, contexts: np.ndarray, shorter: NgramCounts) -> np.ndarray:
    """Do what ``_find_suffixes`` does, on all cores."""
    parts = (slice(first, first + PART) for first in range(0, len(words), PART))
    found = run_in_order(lambda part: _find_suffixes(words[part], contexts[part], shorter), parts)
    return np.concatenate([np.zeros(0, np.int32), *found])


@compile_function
def _find_suffixes(words: np.ndarray, contexts: np.ndarray, shorter: NgramCounts) -> np.ndarray:
    """Find the place of each n-gram without its first word among those of the order below."""
    suffixes = np.empty(len(words), np.int32)
    place = 0
    for i in range(len(words)):
        suffix = shorter.suffixes[contexts[i]]
        if i == 0 or contexts[i] != contexts[i - 1]:
            place = shorter.bounds[suffix]
        # The words of one context are sorted: the next one comes after this one.
        place = find_word(shorter.words, place, shorter.bounds[suffix + 1], words[i])
        suffixes[i] = place
    return suffixes
