"""Words as numbers: a sorted vocabulary in two arrays, and a hash table that compiled code fills."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_function, compile_no_alloc

UNKNOWN = "<unk>"
BEGIN = "<s>"
END = "</s>"

# The hash FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv, its basis as a signed number.
FNV_BASIS, FNV_PRIME = 14695981039346656037 - (1 << 64), 1099511628211

HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits without a pattern: 2 ** 64 / golden ratio
HASHED_AT_ONCE = 1 << 15  # letters


@compile_no_alloc
def is_ascending(letters: np.ndarray, bounds: np.ndarray) -> bool:
    """Whether no word is empty, and each comes behind the one before it by its bytes."""
    for word in range(len(bounds) - 1):
        begin, end = bounds[word], bounds[word + 1]
        if begin >= end:
            return False
        if word == 0:
            continue
        before = bounds[word - 1]
        common = min(begin - before, end - begin)
        i = 0
        while i < common and letters[before + i] == letters[begin + i]:
            i += 1
        if i < common:
            if letters[before + i] > letters[begin + i]:
                return False
        elif begin - before >= end - begin:
            return False
    return True


@dataclass(frozen=True)
class Vocabulary:
    """The words of a model, sorted by their UTF-8 bytes; a word's number is its place.

    ``letters`` (uint8) are all words one after the other, word ``w`` is
    ``letters[bounds[w]:bounds[w + 1]]``; ``bounds`` (int64) has one entry more than there are words.
    """

    letters: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def words(self) -> list[str]:
        """All words in order, made on first use; a large vocabulary takes some milliseconds."""
        letters, bounds = self.letters.tobytes(), self.bounds.tolist()
        return [letters[begin:end].decode("utf-8", "replace") for begin, end in pairwise(bounds)]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of every word."""
        return {word: number for number, word in enumerate(self.words)}

    def find(self, word: str) -> int:
        """Find the number of ``word``, or -1, without a table of all words."""
        wanted = word.encode()
        place = bisect_left(range(len(self)), wanted, key=self._bytes)
        return place if place < len(self) and self._bytes(place) == wanted else -1

    def _bytes(self, number: int) -> bytes:
        return self.letters[self.bounds[number] : self.bounds[number + 1]].tobytes()

    def find_all(self, letters: np.ndarray, bounds: np.ndarray) -> np.ndarray:
        """Find the number of every word ``letters[bounds[w]:bounds[w + 1]]``, or -1, int32; none is empty."""
        ours, theirs = hash_words(self.letters, self.bounds), hash_words(letters, bounds)
        order = np.argsort(ours, kind="stable")
        ours = ours[order]
        if not len(ours) or (ours[1:] == ours[:-1]).any():  # two of our words look alike
            every = letters.tobytes()
            spelled = (every[begin:end].decode() for begin, end in pairwise(bounds.tolist()))
            return np.array([self.numbers.get(word, -1) for word in spelled], np.int32)
        places = np.minimum(np.searchsorted(ours, theirs), len(ours) - 1)
        numbers = order[places].astype(np.int32)
        lengths = np.diff(bounds)
        is_found = (ours[places] == theirs) & (np.diff(self.bounds)[numbers] == lengths)
        found = np.flatnonzero(is_found)
        lengths = lengths[found]
        starts = np.append(0, np.cumsum(lengths))
        within = np.arange(starts[-1], dtype=np.int32) - np.repeat(starts[:-1].astype(np.int32), lengths)
        is_same = (
            self.letters[np.repeat(self.bounds[numbers[found]], lengths) + within]
            == letters[np.repeat(bounds[found], lengths) + within]
        )
        is_found[np.repeat(found, lengths)[~is_same]] = False
        return np.where(is_found, numbers, np.int32(-1))


def hash_words(letters: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Compute a number of 64 bits from each word, none of them empty; different words seldom share one."""
    codes = np.zeros(len(bounds) - 1, np.uint64)
    begin = 0
    while begin < len(codes):  # some at a time: memory
        end = max(begin + 1, int(np.searchsorted(bounds, bounds[begin] + HASHED_AT_ONCE, "right")) - 1)
        firsts = bounds[begin:end] - bounds[begin]
        part = letters[bounds[begin] : bounds[end]].astype(np.uint64) + np.uint64(1)
        within = np.arange(len(part)) - np.repeat(firsts, np.diff(bounds[begin : end + 1]))
        powers = np.full(int(within.max()) + 1, HASH_FACTOR, np.uint64).cumprod()
        codes[begin:end] = np.add.reduceat(part * powers[within], firsts)
        begin = end
    return codes


def build_vocabulary(words: Iterable[bytes]) -> Vocabulary:
    """Build the vocabulary of words that are sorted and distinct."""
    words = list(words)
    bounds = np.zeros(len(words) + 1, np.int64)
    np.cumsum([len(word) for word in words], out=bounds[1:])
    return Vocabulary(np.frombuffer(b"".join(words), np.uint8), bounds)


class WordTable(NamedTuple):
    """A hash table from words to numbers in order of arrival, as arrays for compiled code.

    ``slots`` (a power of two long) has numbers plus 1, and 0 where it is free; word ``n`` is
    ``letters[bounds[n]:bounds[n + 1]]``. ``size`` is an array of one: how many words there are.
    """

    slots: np.ndarray
    letters: np.ndarray
    bounds: np.ndarray
    size: np.ndarray


@compile_function
def make_table() -> WordTable:
    """Make a table without words."""
    return WordTable(
        np.zeros(1 << 12, np.int32),
        np.zeros(1 << 14, np.uint8),
        np.zeros(1 << 11, np.int64),
        np.zeros(1, np.int64),
    )


def list_table_words(table: WordTable) -> list[bytes]:
    """List the words of a table in order of arrival."""
    count = int(table.size[0])
    letters, bounds = table.letters[: table.bounds[count]].tobytes(), table.bounds[: count + 1].tolist()
    return [letters[begin:end] for begin, end in pairwise(bounds)]


@compile_function
def build_table(letters: np.ndarray, bounds: np.ndarray) -> WordTable:
    """Build a table that gives every word of a vocabulary its number there."""
    table = make_table()
    for word in range(len(bounds) - 1):
        table = make_room(table, bounds[word + 1] - bounds[word])
        look_up_or_add(table, letters, bounds[word], bounds[word + 1])
    return table


@compile_function
def look_up(table: WordTable, text: np.ndarray, begin: int, end: int) -> int:
    """Look up the number of the word ``text[begin:end]``; -1 minus its slot where it is not in the table."""
    code = FNV_BASIS
    for i in range(begin, end):
        code = (code ^ text[i]) * FNV_PRIME  # compiled: wraps around at 64 bits
    mask = len(table.slots) - 1
    slot = (code ^ (code >> 32)) & mask
    while True:
        number = int(table.slots[slot]) - 1
        if number < 0:
            return -1 - slot
        start = table.bounds[number]
        if table.bounds[number + 1] - start == end - begin:
            i = 0
            while i < end - begin and table.letters[start + i] == text[begin + i]:
                i += 1
            if i == end - begin:
                return number
        slot = (slot + 1) & mask


@compile_function
def look_up_or_add(table: WordTable, text: np.ndarray, begin: int, end: int) -> int:
    """Look up the number of the word ``text[begin:end]``, adding a new one; the table must have room."""
    number = look_up(table, text, begin, end)
    if number >= 0:
        return number
    slot, number = -1 - number, table.size[0]
    start = table.bounds[number]
    for i in range(end - begin):
        table.letters[start + i] = text[begin + i]
    table.bounds[number + 1] = start + end - begin
    table.slots[slot] = number + 1
    table.size[0] = number + 1
    return number


@compile_function
def make_room(table: WordTable, letters: int) -> WordTable:
    """Return the table, or a larger copy, with room for one more word of ``letters`` bytes."""
    count = table.size[0]
    used = table.bounds[count]
    if count + 2 <= len(table.bounds) and used + letters <= len(table.letters):
        return table
    more_letters = np.zeros(2 * (len(table.letters) + letters), np.uint8)
    for i in range(used):  # a slice would take the compiler seconds
        more_letters[i] = table.letters[i]
    if count + 2 <= len(table.bounds):
        return WordTable(table.slots, more_letters, table.bounds, table.size)
    more_bounds = np.zeros(2 * len(table.bounds), np.int64)
    for i in range(count + 1):
        more_bounds[i] = table.bounds[i]
    # Twice as many slots as words there is room for: chains stay short.
    larger = WordTable(np.zeros(4 * len(table.bounds), np.int32), more_letters, more_bounds, table.size)
    for word in range(count):
        slot = -1 - look_up(larger, more_letters, more_bounds[word], more_bounds[word + 1])
        larger.slots[slot] = word + 1
    return larger
