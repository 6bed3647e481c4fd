"""A hash table from words to numbers, which compiled code fills and asks."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_function
from asr.lm.vocabulary import FNV_BASIS, FNV_PRIME


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
