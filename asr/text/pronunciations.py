"""A lexicon as arrays: in the order of its file, and sorted by pronunciation as a search reads it.

The sorted form of a large lexicon takes half a second to make, so it is kept in the user's cache folder, in
a file that is mapped into memory. The file's name is the checksum of the lexicon's text: a text that has
changed finds no file. Opening reads every number once, since they go to compiled code; a file that is
damaged is made again.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np

from asr.core.arrays import map_arrays, write_arrays
from asr.core.files import map_file, replace_file

MAGIC = b"asr lexicon 0001"
MOST_FILES = 4  # that are kept; each has the size of two or three lexicons
ALIGNMENT = 64
# Types of the arrays of a ``SortedLexicon``, and of the phones as text behind them.
KINDS = [np.dtype(name) for name in ["u1", "i8", "i4", "i4", "u1", "i8", "i4", "i4", "u1", "i4", "u1"]]
HEADER = struct.Struct(f"<16s{len(KINDS)}qI")  # magic, lengths of the arrays, their checksum


@dataclass(frozen=True, eq=False)
class Columns:
    """A lexicon as arrays: reading a large one this way takes a fraction of the time.

    Pronunciation ``p`` is that of ``words[p]`` and has the phones ``phones[code]`` for every code in
    ``codes[bounds[p]:bounds[p + 1]]`` (uint8, int64). The pronunciations of a word keep their order.
    """

    words: Sequence[str]
    phones: tuple[str, ...]  # sorted
    codes: np.ndarray
    bounds: np.ndarray


@dataclass(frozen=True, eq=False)
class SortedLexicon:
    """Words with a pronunciation each, sorted by pronunciation, so that homophones stand side by side.

    phones: every phone, sorted; codes are places in it.
    letters, spellings: the distinct words in UTF-8; word ``w`` is ``letters[spellings[w]:spellings[w + 1]]``,
        uint8 and int64.
    words: ``(entries,)`` int32, the word of each entry. places: int32, where it stands in the lexicon's file.
    codes, bounds: entry ``e`` has the phones ``codes[bounds[e]:bounds[e + 1]]``, uint8 and int64.
    firsts: ``(pronunciations + 1,)`` int32; distinct pronunciation ``p`` is that of the entries
        ``firsts[p]:firsts[p + 1]``.
    first_child, labels, ends: a trie of the distinct pronunciations, as ``grow_trie`` makes it.

    All arrays are read-only, so that compiled code sees one type wherever they are from.
    """

    phones: tuple[str, ...]
    letters: np.ndarray
    spellings: np.ndarray
    words: np.ndarray
    places: np.ndarray
    codes: np.ndarray
    bounds: np.ndarray
    firsts: np.ndarray
    first_child: np.ndarray
    labels: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All fields but the phones."""
        return [getattr(self, field.name) for field in fields(self)[1:]]

    def spell(self, word: int) -> str:
        """Spell a word."""
        return self.letters[self.spellings[word] : self.spellings[word + 1]].tobytes().decode()

    def list_words(self) -> list[str]:
        """List all distinct words."""
        letters, bounds = self.letters.tobytes(), self.spellings.tolist()
        return [letters[begin:end].decode() for begin, end in pairwise(bounds)]

    def restore_columns(self) -> Columns:
        """Put the entries back in the order of the lexicon's file."""
        every = self.list_words()
        order = np.empty(len(self), np.int64)
        order[self.places] = np.arange(len(self))
        lengths = np.diff(self.bounds)[order]
        bounds = np.append(0, np.cumsum(lengths))
        within = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
        codes = self.codes[np.repeat(self.bounds[:-1][order], lengths) + within]
        return Columns([every[word] for word in self.words[order].tolist()], self.phones, codes, bounds)


def sort_columns(columns: Columns) -> SortedLexicon:
    """Sort a lexicon by pronunciation; entries that sound alike keep their order."""
    order, codes, bounds, is_new = sort_codes(columns.codes, columns.bounds)
    numbers: dict[str, int] = {}
    words = np.array([numbers.setdefault(word, len(numbers)) for word in columns.words], np.int32)
    spelled = [word.encode() for word in numbers]
    lengths = np.diff(bounds)
    first_child, labels, _, ends = grow_trie(
        codes[np.repeat(is_new, lengths)], np.append(0, np.cumsum(lengths[is_new]))
    )
    arrays = [
        np.frombuffer(b"".join(spelled), np.uint8),
        np.cumsum([0, *map(len, spelled)], dtype=np.int64),
        words[order],
        order.astype(np.int32),
        codes,
        bounds,
        np.append(np.flatnonzero(is_new), len(order)).astype(np.int32),
        first_child,
        labels,
        ends,
    ]
    for array in arrays:
        array.setflags(write=False)
    return SortedLexicon(columns.phones, *arrays)


def sort_codes(
    codes: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sort pronunciations; return the order, sorted codes and bounds, and which differ from the one before.

    A pronunciation comes before those that begin with it.
    """
    lengths = np.diff(bounds)
    columns = np.arange(lengths.max(initial=1))
    table = np.zeros((len(lengths), len(columns)), np.uint8)
    table[columns < lengths[:, None]] = codes + np.uint8(1)  # there are at most 255 phones
    keys = table.view(f"S{len(columns)}")[:, 0]
    order = np.argsort(keys, kind="stable")
    lengths, keys = lengths[order], keys[order]
    return (
        order,
        table[order][columns < lengths[:, None]] - np.uint8(1),
        np.append(0, np.cumsum(lengths)),
        np.append(True, keys[1:] != keys[:-1]),
    )


def grow_trie(
    letters: np.ndarray, bounds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Grow the trie of distinct words that are sorted by their bytes, level by level.

    Returns, with nodes in the order of breadth-first search: ``first_child`` ``(nodes + 1,)`` int32, the
    children of ``n`` being ``first_child[n]:first_child[n + 1]``; the letter that leads to each node, uint8;
    how many do, int32; the place of the word that ends there, or -1, int32.
    """
    lengths = np.diff(bounds)
    rows = np.arange(len(lengths), dtype=np.int32)  # the words that have a letter at this depth
    parents = np.zeros(len(lengths), np.int32)  # the node of what they have before it
    levels = [np.array([next(iter(rows[lengths == 0].tolist()), -1)], np.int32)]
    every_label, every_parent = [np.zeros(1, np.uint8)], [np.zeros(0, np.int32)]
    nodes, depth = 1, 0
    while True:
        goes_on = lengths[rows] > depth
        rows, parents = rows[goes_on], parents[goes_on]
        if not len(rows):
            break
        labels = letters[bounds[rows] + depth]
        is_new = np.append(True, (parents[1:] != parents[:-1]) | (labels[1:] != labels[:-1]))
        every_label.append(labels[is_new])
        every_parent.append(parents[is_new])
        places = np.cumsum(is_new, dtype=np.int32) - np.int32(1)
        depth += 1
        ends = np.full(places[-1] + 1, -1, np.int32)
        is_end = lengths[rows] == depth
        ends[places[is_end]] = rows[is_end]
        levels.append(ends)
        parents = places + np.int32(nodes)
        nodes += len(ends)
    counts = np.bincount(np.concatenate(every_parent), minlength=nodes)
    first_child = np.append(1, 1 + np.cumsum(counts)).astype(np.int32)
    depths = np.repeat(np.arange(len(levels), dtype=np.int32), [len(ends) for ends in levels])
    return first_child, np.concatenate(every_label), depths, np.concatenate(levels)


# --- files ----------------------------------------------------------------------------------------


def find_cache_folder() -> Path:
    """Find the folder where the user's programs keep what they can make again."""
    if sys.platform == "win32" and "LOCALAPPDATA" in os.environ:
        return Path(os.environ["LOCALAPPDATA"]) / "asr" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr"


def name_sorted_file(path: str | Path) -> Path | None:
    """Name the file with the sorted form of a lexicon's text; ``None`` where the text cannot be read."""
    if not Path(path).is_file():
        return None
    with suppress(OSError, RuntimeError), Path(path).open("rb") as file:  # or there is no home
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return find_cache_folder() / "lexicons" / f"{digest}.bin"
    return None


def keep_sorted(lexicon: SortedLexicon, path: Path) -> None:
    """Write the file for later programs, all of it or nothing; a full disk is no error."""
    with suppress(OSError):
        write_sorted(lexicon, path)
        kept = sorted(path.parent.glob("*.bin"), key=lambda one: one.stat().st_mtime, reverse=True)
        for old in kept[MOST_FILES:]:
            old.unlink()


def write_sorted(lexicon: SortedLexicon, path: Path) -> None:
    """Write a sorted lexicon: a header, then arrays, little-endian, each at a multiple of 64 bytes."""
    arrays = [*lexicon.arrays, np.frombuffer("\n".join(lexicon.phones).encode(), np.uint8)]
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER.size))
        checksum = write_arrays(file, arrays, ALIGNMENT)
        file.seek(0)
        file.write(HEADER.pack(MAGIC, *map(len, arrays), checksum))


def open_sorted(path: Path) -> SortedLexicon | None:
    """Map what ``write_sorted`` wrote; ``None`` where there is no such file, or it is damaged."""
    try:
        content = map_file(path)
    except (OSError, ValueError):
        return None
    if len(content) < HEADER.size or sys.byteorder != "little":
        return None
    magic, *lengths, expected = HEADER.unpack(content[: HEADER.size])
    mapped = map_arrays(content, HEADER.size, list(zip(lengths, KINDS, strict=True)), ALIGNMENT)
    if magic != MAGIC or mapped is None or mapped[1] != expected:
        return None
    arrays, _ = mapped
    try:
        phones = tuple(arrays[-1].tobytes().decode().split("\n"))
    except UnicodeDecodeError:
        return None
    lexicon = SortedLexicon(phones, *arrays[:-1])
    return lexicon if is_sound(lexicon) else None


def is_sound(lexicon: SortedLexicon) -> bool:
    """Whether every number leads to a place that is there, and the trie has no circles."""
    pronunciations, nodes = len(lexicon.firsts) - 1, len(lexicon.labels)
    return (
        are_bounds(lexicon.spellings, len(lexicon.letters))
        and are_texts(lexicon.letters, lexicon.spellings)
        and are_bounds(lexicon.bounds, len(lexicon.codes))
        and are_bounds(lexicon.firsts, len(lexicon))
        and len(lexicon.bounds) == 1 + len(lexicon) == 1 + len(lexicon.places)
        and are_within(lexicon.words, 0, len(lexicon.spellings) - 1)
        and are_within(lexicon.places, 0, len(lexicon))
        and bool((np.bincount(lexicon.places, minlength=len(lexicon)) == 1).all())
        and are_within(lexicon.codes, 0, len(lexicon.phones))
        and nodes == len(lexicon.ends) == len(lexicon.first_child) - 1
        and are_within(lexicon.labels, 0, len(lexicon.phones))
        and are_within(lexicon.ends, -1, pronunciations)
        and bool((np.diff(lexicon.first_child) >= 0).all())
        and bool((lexicon.first_child > np.arange(nodes + 1) - (np.arange(nodes + 1) == nodes)).all())
        and lexicon.first_child[0] == 1
        and lexicon.first_child[-1] == nodes
    )


def are_bounds(bounds: np.ndarray, length: int) -> bool:
    """Whether ``bounds`` cut ``length`` things into one piece or more, none of them empty."""
    return len(bounds) > 1 and bounds[0] == 0 and bounds[-1] == length and bool((np.diff(bounds) > 0).all())


def are_texts(letters: np.ndarray, bounds: np.ndarray) -> bool:
    """Whether each piece that ``bounds`` cut is UTF-8: all together are, and no character is cut in two."""
    try:
        letters.tobytes().decode()
    except UnicodeDecodeError:
        return False
    return not ((letters[bounds[:-1]] & 0xC0) == 0x80).any()


def are_within(numbers: np.ndarray, least: int, end: int) -> bool:
    """Whether there are numbers, each at least ``least`` and below ``end``."""
    return len(numbers) > 0 and bool(numbers.min() >= least) and bool(numbers.max() < end)
