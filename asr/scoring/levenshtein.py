"""The edits of rapidfuzz where rapidfuzz is missing: on machines that only train, validation counts errors.

The part of ``rapidfuzz.distance.Levenshtein`` that ``asr.scoring.counts`` uses, with the same results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

Tag = Literal["equal", "replace", "delete", "insert"]


class Editop(NamedTuple):
    """One edit, and where it is in the source and in the destination."""

    tag: Tag
    src_pos: int
    dest_pos: int


class Opcode(NamedTuple):
    """One stretch that is treated alike: ``source[src_start:src_end]`` to ``destination[...]``."""

    tag: Tag
    src_start: int
    src_end: int
    dest_start: int
    dest_end: int


@dataclass(frozen=True)
class Editops:
    """The edits from first to last. ``steps`` also has the items that are kept; ``end`` has both lengths."""

    steps: list[Editop]
    end: tuple[int, int]

    def __iter__(self) -> Iterator[Editop]:
        return iter(self.as_list())

    def __len__(self) -> int:
        return len(self.as_list())

    def as_list(self) -> list[Editop]:
        """List the edits."""
        return [step for step in self.steps if step.tag != "equal"]

    def as_opcodes(self) -> list[Opcode]:
        """Cover both sequences with stretches, cut where the kind of treatment changes."""
        ends = [*((step.src_pos, step.dest_pos) for step in self.steps), self.end]
        codes: list[Opcode] = []
        for step, ((src, dest), (src_end, dest_end)) in zip(self.steps, pairwise(ends), strict=True):
            if codes and codes[-1].tag == step.tag:
                codes[-1] = codes[-1]._replace(src_end=src_end, dest_end=dest_end)
            else:
                codes.append(Opcode(step.tag, src, src_end, dest, dest_end))
        return codes


def editops(source: Sequence[str], destination: Sequence[str]) -> Editops:
    """Find the fewest edits that turn ``source`` into ``destination`` (Wagner & Fischer 1974)."""
    return Editops(find_steps(source, destination), (len(source), len(destination)))


def find_steps(source: Sequence[str], destination: Sequence[str]) -> list[Editop]:
    """Find a step for every item that is kept, replaced, deleted or inserted.

    Of several cheapest ways it takes the one of rapidfuzz: what both have at their beginnings and ends is
    kept; between, walking back from the end, a deletion goes before an insertion, and an insertion before
    keeping or replacing, unless the insertion only puts off a deletion.
    """
    shorter = min(len(source), len(destination))
    first = next((n for n in range(shorter) if source[n] != destination[n]), shorter)
    rest = shorter - first
    last = next((n for n in range(rest) if source[-1 - n] != destination[-1 - n]), rest)
    row, column = len(source) - last, len(destination) - last
    table = np.pad(compute_distances(source[first:row], destination[first:column]), ((first, 0), (first, 0)))
    found = [Editop("equal", row + n, column + n) for n in reversed(range(last))]
    while row > first or column > first:
        if row > first and table[row, column] == table[row - 1, column] + 1:
            row -= 1
            found.append(Editop("delete", row, column))
        elif row == first or table[row, column - 1] == table[row - 1, column - 1] - 1:
            column -= 1
            found.append(Editop("insert", row, column))
        else:
            row, column = row - 1, column - 1
            same = source[row] == destination[column]
            found.append(Editop("equal" if same else "replace", row, column))
    found += [Editop("equal", n, n) for n in reversed(range(first))]
    return found[::-1]


def compute_distances(source: Sequence[str], destination: Sequence[str]) -> np.ndarray:
    """Return ``(source + 1, destination + 1)`` integers: the distances between all beginnings of the two."""
    numbers = {item: number for number, item in enumerate({*source, *destination})}
    wanted = np.array([numbers[item] for item in destination], dtype=np.int64)
    columns = np.arange(len(destination) + 1)
    table = np.empty((len(source) + 1, len(destination) + 1), dtype=np.int64)
    table[0] = columns
    for row, item in enumerate(source, start=1):
        table[row, 0] = row
        table[row, 1:] = np.minimum(table[row - 1, 1:] + 1, table[row - 1, :-1] + (wanted != numbers[item]))
        # Insertions go along the row: each place is at most one more than the one before it.
        table[row] = np.minimum.accumulate(table[row] - columns) + columns
    return table
