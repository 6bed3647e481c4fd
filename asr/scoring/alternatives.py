"""What NIST's formats allow beside plain words: alternatives, optional words, nothing at all.

``{ i am / im } going`` is right either way, braces may nest, ``@`` is no word, ``(uh)`` may be said or left
out, and what follows a semicolon in a word (``go;verb``) is a tag. Of all readings the one is scored that
NIST's ``sclite -D`` takes: the cheapest, with 3 for a deletion or an insertion, 4 for a substitution, 2 for
an optional word that is left out, and of equally cheap ones the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from asr.data.manifest import ManifestError
from asr.scoring.counts import ScoringError
from asr.text.normalise import Normaliser

NIST_FORMATS = ("trn", "stm", "ctm")
DEEPEST = 20  # braces within braces
MOST_CELLS = 2_000_000  # nodes of a reference times nodes of a hypothesis; some 300 bytes each

# Costs of sclite in thousandths, a deletion being an insertion of the other side. Nothing at all costs the
# least there is, so that words are preferred where the rest is equal.
SUBSTITUTION, DELETION, OPTIONAL, NOTHING = 4000, 3000, 2000, 1

MARKS = re.compile(r"[{}@();]")
OPTIONAL_WORD = re.compile(r"\(([^\s()]*)\)")


class Run(NamedTuple):
    """Words in a row, or one optional word."""

    text: str
    is_optional: bool = False


class Choice(NamedTuple):
    """Alternatives, each a passage."""

    branches: tuple[Passage, ...]


Passage = tuple["Run | Choice", ...]


def parse_passage(text: str, where: str = "") -> Passage:
    """Parse a text of one of ``NIST_FORMATS``.

    Raises ``ManifestError``, which says ``where``, for braces that are not closed, not opened, empty or
    inside a word.
    """
    if not MARKS.search(text):
        return parse_plain(text)
    reader = _PassageReader(text, where)
    return reader.read_passage(depth=0)


def parse_plain(text: str) -> Passage:
    """Make a passage of a text of any other format, in which every character is as it is."""
    return (Run(text),) if text.split() else ()


class _PassageReader:
    """Reads a passage from left to right; ``place`` is the next character."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.place = text, where, 0

    def read_passage(self, depth: int) -> Passage:
        """Read up to the end, or inside braces up to the next ``/`` or ``}`` that is not deeper."""
        elements: list[Run | Choice] = []
        word = re.compile(r"[^\s{}/]+" if depth else r"[^\s{]+")
        while True:
            while self.place < len(self.text) and self.text[self.place].isspace():
                self.place += 1
            if self.place == len(self.text):
                if depth:
                    raise self.make_error("a brace is not closed")
                return tuple(elements)
            if depth and self.text[self.place] in "/}":
                return tuple(elements)
            if self.text[self.place] == "{":
                elements.append(self.read_choice(depth + 1))
                continue
            match = word.match(self.text, self.place)
            assert match is not None
            self.place = match.end()
            if match[0] == "}":
                raise self.make_error("a brace is closed that was not opened")
            if self.text[self.place : self.place + 1] == "{":
                raise self.make_error(f"a brace stands inside a word, behind {match[0]!r}")
            _add_word(elements, match[0])

    def read_choice(self, depth: int) -> Choice:
        """Read alternatives from their opening brace to behind the closing one; empty ones are left out."""
        if depth > DEEPEST:
            raise self.make_error(f"braces are more than {DEEPEST} deep")
        branches = []
        while self.text[self.place] != "}":
            self.place += 1
            begin = self.place
            branch = self.read_passage(depth)
            if self.text[begin : self.place].split():
                branches.append(branch)
        self.place += 1
        if not branches:
            raise self.make_error("braces hold no words; write @ for none")
        return Choice(tuple(branches))

    def make_error(self, reason: str) -> ManifestError:
        return ManifestError(f"{self.where}: {reason}; alternatives are written as {{ one / two }}")


def _add_word(elements: list[Run | Choice], word: str) -> None:
    """Add a word without its tag; plain words in a row become one run."""
    if word == "@":
        return
    word = word[0] + word[1:].partition(";")[0]
    optional = OPTIONAL_WORD.fullmatch(word)
    if optional:
        if optional[1]:
            elements.append(Run(optional[1], is_optional=True))
    elif elements and isinstance(elements[-1], Run) and not elements[-1].is_optional:
        elements[-1] = Run(f"{elements[-1].text} {word}")
    else:
        elements.append(Run(word))


def is_plain(passage: Passage) -> bool:
    """Whether a passage has one reading only."""
    return all(isinstance(element, Run) and not element.is_optional for element in passage)


class Reading(NamedTuple):
    """One reading of a passage: its text, and the optional words that it leaves out."""

    text: str
    omitted: str


def read_plainly(passage: Passage) -> Reading:
    """Take the reading of a passage that ``is_plain``."""
    return Reading(" ".join(element.text for element in passage if isinstance(element, Run)), "")


# --- the graph of all readings ---------------------------------------------------------------------


class Arc(NamedTuple):
    """A word, or nothing (``""``), that leads on from a node.

    ``run`` is the number of the run that it is from, -1 where it is from none; ``cost`` is what it costs to
    take it while the other side stays where it is.
    """

    source: int
    word: str
    run: int
    cost: int


@dataclass
class Graph:
    """The readings of a passage; ``arcs[node]`` are those that end there, and begin at smaller nodes."""

    runs: list[Run] = field(default_factory=list)
    arcs: list[list[Arc]] = field(default_factory=lambda: [[]])

    def add_node(self, *arcs: Arc) -> int:
        """Add a node at the end of ``arcs`` and return its number."""
        self.arcs.append(list(arcs))
        return len(self.arcs) - 1


def build_graph(passage: Passage, normalise: Normaliser) -> Graph:
    """Build the graph of the words that ``normalise`` makes of each run."""
    graph = Graph()
    _add_passage(graph, passage, 0, normalise)
    return graph


def _add_passage(graph: Graph, passage: Passage, node: int, normalise: Normaliser) -> int:
    """Add the arcs of a passage that begins at ``node``; return the node at its end."""
    for element in passage:
        if isinstance(element, Choice):
            ends = [_add_passage(graph, branch, node, normalise) for branch in element.branches]
            arcs = [Arc(end, "", -1, NOTHING if end == node else 0) for end in ends]
            node = graph.add_node(*arcs)
            continue
        graph.runs.append(element)
        run = len(graph.runs) - 1
        words = normalise(element.text).split()
        for word in words:
            node = graph.add_node(Arc(node, word, run, OPTIONAL if element.is_optional else DELETION))
        if not words:
            node = graph.add_node(Arc(node, "", run, 0))
    return node


class _Step(NamedTuple):
    """The last step to a pair of nodes: its cost so far, the pair before it, and the arcs that it takes."""

    cost: int
    before: tuple[int, int]
    reference: Arc | None
    hypothesis: Arc | None


START = _Step(0, (0, 0), None, None)


def choose_readings(
    reference: Passage, hypothesis: Passage, normalise: Normaliser
) -> tuple[Reading, Reading]:
    """Choose the readings of reference and hypothesis that differ least once they are normalised.

    Time grows with the product of their lengths. Raises ``ScoringError`` for texts that are too long.
    """
    left, right = build_graph(reference, normalise), build_graph(hypothesis, normalise)
    if len(left.arcs) * len(right.arcs) > MOST_CELLS:
        raise ScoringError("a text with alternatives is too long to be aligned: cut it into segments")
    steps: list[list[_Step]] = []
    for row in range(len(left.arcs)):
        steps.append([])
        for column in range(len(right.arcs)):
            candidates = _list_steps(left, right, row, column, steps)
            steps[row].append(min(candidates, key=lambda step: step.cost, default=START))
    return _make_reading(left, right, steps)


def _list_steps(
    left: Graph, right: Graph, row: int, column: int, steps: list[list[_Step]]
) -> Iterator[_Step]:
    """List the steps to a pair of nodes; of equally cheap ones the first counts."""
    for arc in left.arcs[row]:
        for other in right.arcs[column] if arc.word else ():
            if other.word:
                cost = 0 if arc.word == other.word else SUBSTITUTION
                before = steps[arc.source][other.source]
                yield _Step(before.cost + cost, (arc.source, other.source), arc, other)
        yield _Step(steps[arc.source][column].cost + arc.cost, (arc.source, column), arc, None)
    for other in right.arcs[column]:
        yield _Step(steps[row][other.source].cost + other.cost, (row, other.source), None, other)


def _make_reading(left: Graph, right: Graph, steps: list[list[_Step]]) -> tuple[Reading, Reading]:
    """Walk back from the end and make a reading of each side."""
    sides: tuple[dict[int, bool], dict[int, bool]] = ({}, {})  # the runs that are taken: all left out?
    place = (len(left.arcs) - 1, len(right.arcs) - 1)
    while place != (0, 0):
        step = steps[place[0]][place[1]]
        for runs, arc, other in (
            (sides[0], step.reference, step.hypothesis),
            (sides[1], step.hypothesis, step.reference),
        ):
            if arc is not None and arc.run >= 0:
                is_omitted = arc.cost == OPTIONAL and other is None
                runs[arc.run] = is_omitted and runs.get(arc.run, True)
        place = step.before
    return _join_runs(left, sides[0]), _join_runs(right, sides[1])


def _join_runs(graph: Graph, runs: dict[int, bool]) -> Reading:
    spoken, omitted = (
        " ".join(graph.runs[run].text for run in sorted(runs) if runs[run] is wanted)
        for wanted in (False, True)
    )
    return Reading(spoken, omitted)
