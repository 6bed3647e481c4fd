"""Words as numbers: a sorted vocabulary in two arrays."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

UNKNOWN = "<unk>"
BEGIN = "<s>"
END = "</s>"

# The hash FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv, its basis as a signed number.
FNV_BASIS, FNV_PRIME = 14695981039346656037 - (1 << 64), 1099511628211

HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits without a pattern: 2 ** 64 / golden ratio
HASHED_AT_ONCE = 1 << 15  # letters
COMPARED_AT_ONCE = 1 << 12  # words
KEY_LETTERS = 8  # that are compared at once, as one number


def is_ascending(letters: np.ndarray, bounds: np.ndarray) -> bool:
    """Whether no word is empty, and each comes behind the one before it by its bytes.

    ``bounds`` are ascending and within ``letters``.
    """
    lengths = np.diff(bounds)
    if (lengths == 0).any():
        return False
    padded = np.concatenate([letters, np.zeros(KEY_LETTERS, np.uint8)])
    every = np.ndarray(len(letters) + 1, ">u8", padded, 0, (1,))  # the letters from each place on

    def read_keys(words: np.ndarray) -> np.ndarray:
        left = np.minimum(lengths[words] - depth, KEY_LETTERS)
        beyond = (8 * (KEY_LETTERS - left)).astype(np.uint64)
        return (every[bounds[words] + depth].astype(np.uint64) >> beyond) << beyond

    depth, words = 0, np.arange(1, len(lengths))  # those that are so far like the one before
    while len(words):
        keys, before = read_keys(words), read_keys(words - 1)
        if (keys < before).any():
            return False
        words = words[keys == before]
        depth += KEY_LETTERS
        is_end = np.minimum(lengths[words], lengths[words - 1]) <= depth
        if (lengths[words] <= lengths[words - 1])[is_end].any():  # of two alike the shorter comes first
            return False
        words = words[~is_end]
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
        alike = np.flatnonzero(is_found)
        for first in range(0, len(alike), COMPARED_AT_ONCE):
            found = alike[first : first + COMPARED_AT_ONCE]
            sizes = lengths[found]
            begins = np.cumsum(sizes) - sizes
            within = np.arange(sizes.sum()) - np.repeat(begins, sizes)
            is_same = (
                self.letters[np.repeat(self.bounds[numbers[found]], sizes) + within]
                == letters[np.repeat(bounds[found], sizes) + within]
            )
            is_found[np.repeat(found, sizes)[~is_same]] = False
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
