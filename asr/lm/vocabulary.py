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

KEY_LETTERS = 8  # that are compared at once, as one number


@dataclass(frozen=True, eq=False)
class _Spellings:
    """Words one after the other, read ``KEY_LETTERS`` at a time."""

    every: np.ndarray  # the letters from each place on, as numbers
    bounds: np.ndarray
    lengths: np.ndarray

    @staticmethod
    def read(letters: np.ndarray, bounds: np.ndarray) -> _Spellings:
        padded = np.concatenate([letters, np.zeros(KEY_LETTERS, np.uint8)])
        every = np.ndarray(len(letters) + 1, ">u8", padded, 0, (1,))
        return _Spellings(every, bounds, np.diff(bounds))

    def keys(self, words: np.ndarray, depth: int) -> np.ndarray:
        """Read the letters of words from ``depth`` on, uint64, zeros behind their ends."""
        left = np.clip(self.lengths[words] - depth, 0, KEY_LETTERS)
        beyond = (8 * (KEY_LETTERS - left)).astype(np.uint64)
        every = self.every[np.where(left > 0, self.bounds[words] + depth, 0)].astype(np.uint64)
        return np.where(left > 0, every >> beyond << beyond, np.uint64(0))

    def find_place(
        self, low: np.ndarray, high: np.ndarray, depth: int, keys: np.ndarray, behind: bool
    ) -> np.ndarray:
        """Find where ``keys`` come among the sorted words ``low:high``, before or behind equal ones."""
        place, left = low.copy(), high - low
        while (left > 0).any():
            half = left >> 1
            own = self.keys(np.minimum(place + half, len(self.lengths) - 1), depth)
            is_before = ((own <= keys) if behind else (own < keys)) & (left > 0)
            place += np.where(is_before, half + 1, 0)
            left = np.where(is_before, left - half - 1, half)
        return place


def is_ascending(letters: np.ndarray, bounds: np.ndarray) -> bool:
    """Whether no word is empty, and each comes behind the one before it by its bytes.

    ``bounds`` are ascending and within ``letters``.
    """
    lengths = np.diff(bounds)
    if (lengths == 0).any():
        return False
    spellings = _Spellings.read(letters, bounds)
    depth, words = 0, np.arange(1, len(lengths))  # those that are so far like the one before
    while len(words):
        keys, before = spellings.keys(words, depth), spellings.keys(words - 1, depth)
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
        """Find the number of every word ``letters[bounds[w]:bounds[w + 1]]``, or -1, int32; none is empty.

        Some letters of all words at a time; fastest where these words are sorted, too.
        """
        ours, theirs = _Spellings.read(self.letters, self.bounds), _Spellings.read(letters, bounds)
        wanted = theirs.keys(np.arange(len(theirs.lengths)), 0)
        own = ours.keys(np.arange(len(self)), 0)
        # Ours with the letters so far; the first of them has no others where any has not.
        low, high = np.searchsorted(own, wanted), np.searchsorted(own, wanted, "right")
        depth, words = KEY_LETTERS, np.flatnonzero((low < high) & (theirs.lengths > KEY_LETTERS))
        while len(words):
            keys = theirs.keys(words, depth)
            before, behind = (
                ours.find_place(low[words], high[words], depth, keys, is_behind)
                for is_behind in (False, True)
            )
            low[words], high[words] = before, behind
            depth += KEY_LETTERS
            words = words[(before < behind) & (theirs.lengths[words] > depth)]
        place = np.minimum(low, max(len(self) - 1, 0))
        is_found = (low < high) & (ours.lengths[place] == theirs.lengths)
        numbers = np.where(is_found, low, -1).astype(np.int32)
        for word in np.unique(np.searchsorted(bounds, np.flatnonzero(letters == 0), "right") - 1):
            numbers[word] = self.find(
                letters[bounds[word] : bounds[word + 1]].tobytes().decode()
            )  # as keys, zeros end
        return numbers


def build_vocabulary(words: Iterable[bytes]) -> Vocabulary:
    """Build the vocabulary of words that are sorted and distinct."""
    words = list(words)
    bounds = np.zeros(len(words) + 1, np.int64)
    np.cumsum([len(word) for word in words], out=bounds[1:])
    return Vocabulary(np.frombuffer(b"".join(words), np.uint8), bounds)
