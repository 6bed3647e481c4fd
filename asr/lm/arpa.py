"""ARPA files, the text format of n-gram models: read into a trie and written from one.

The format: http://www.speech.sri.com/projects/srilm/manpages/ngram-format.5.html. A line of order
``n`` is a log10 probability, ``n`` words and, where there is one, a log10 back-off weight, between
white space. Compiled code reads numbers and words, a million lines in about a second.
"""

from __future__ import annotations

import codecs
import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from asr.core.compiled import compile_function
from asr.core.cores import run_in_order
from asr.core.files import replace_file
from asr.lm.building import Level, Nodes, RepeatedError, add_ngrams, build_nodes
from asr.lm.digits import WIDTH, parse_decimal, write_decimal
from asr.lm.model import MAX_ORDER, NO_UNKNOWN, LanguageModelError, NgramModel
from asr.lm.packed import pack_nodes, unpack_nodes
from asr.lm.text import NEWLINE, SPACE, TAB, is_space, open_text
from asr.lm.vocabulary import UNKNOWN, Vocabulary, build_vocabulary
from asr.lm.word_table import WordTable, list_table_words, look_up, look_up_or_add, make_room, make_table

LN10 = float(np.log(10))
BACKSLASH = ord("\\")
DATA_LINE = re.compile(rb"^[ \t]*\\data\\[ \t\r]*$", re.M)
COUNT_LINE = re.compile(rb"\s*ngram[ \t]+(\d{1,2})[ \t]*=[ \t]*(\d{1,18})[ \t\r]*(?:\n|$)")
TEXT_LINE = re.compile(rb"\s*([^\n]*)")

ENDS_EARLY, BAD_NUMBER, BAD_FIELDS, UNKNOWN_WORD, REPEATED, POSITIVE = range(1, 7)


def read_arpa(path: str | Path) -> NgramModel:
    """Read an ARPA file, compressed by gzip or xz or not.

    A model without ``<unk>`` gets one with log10 probability -100. Where the beginning of an n-gram is
    missing in the file, it is added with the probability that backing off gives and the back-off weight 1:
    nothing else changes. Raises ``LanguageModelError`` naming the line that is not in the format.
    """
    with open_text(path) as file:
        content = file.read()
    return _ArpaReader(str(path), content.removeprefix(codecs.BOM_UTF8)).read_model()


def write_arpa(model: NgramModel, path: str | Path) -> None:
    """Write ``model`` as ARPA, compressed where the name ends in ``.gz``; numbers have seven decimals."""
    write_nodes(unpack_nodes(model.trie), model.vocabulary, model.counts, path)


def write_nodes(nodes: Nodes, vocabulary: Vocabulary, counts: tuple[int, ...], path: str | Path) -> None:
    """Write the nodes of a model as ``write_arpa`` does, on all cores."""
    contexts = np.repeat(np.arange(len(nodes.backoffs), dtype=np.int32), np.diff(nodes.first_child))
    with replace_file(path) as temporary, _create_file(temporary) as file:
        file.write(b"\\data\\\n")
        for order, count in enumerate(counts, start=1):
            file.write(f"ngram {order}={count}\n".encode())
        for order, end in enumerate(accumulate(counts, initial=1)):
            if order:
                file.write(f"\n\\{order}-grams:\n".encode())
                for text in _format_nodes(nodes, vocabulary, contexts, order, end - counts[order - 1], end):
                    file.write(text)
        file.write(b"\n\\end\\\n")


def _format_nodes(
    nodes: Nodes, vocabulary: Vocabulary, contexts: np.ndarray, order: int, begin: int, end: int
) -> Iterator[memoryview]:
    """Format the lines of the nodes from ``begin`` to before ``end``, about a megabyte at a time."""
    longest = 2 * WIDTH + order * (1 + int(np.diff(vocabulary.bounds).max()))
    step = max(1, (1 << 20) // longest)

    def format_part(first: int) -> memoryview:
        text = np.empty(step * longest, np.uint8)
        last = min(first + step, end)
        letters, bounds = vocabulary.letters, vocabulary.bounds
        return text[: _write_lines(nodes, contexts, letters, bounds, first, last, order, text)].data

    return run_in_order(format_part, range(begin, end, step))


@contextmanager
def _create_file(path: Path) -> Iterator[BinaryIO]:
    """Create a file to write into, compressed where its name ends in ``.gz``."""
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=file, mode="wb", filename="", compresslevel=6) as packed:
                yield cast(BinaryIO, packed)
        else:
            yield file


class _ArpaReader:
    """Reads an ARPA file from front to back; ``place`` is the next byte."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.content, self.place = name, content, 0
        self.array = np.frombuffer(content, np.uint8)

    def read_model(self) -> NgramModel:
        """Read all of the file."""
        counts = self.read_counts()
        table, levels = make_table(), []
        for order, count in enumerate(counts, start=1):
            self.expect(f"\\{order}-grams:")
            table, level = self.read_level(order, count, table)
            levels.append(level)
        self.expect("\\end\\")
        return self.build_model(levels, list_table_words(table))

    def read_counts(self) -> list[int]:
        """Read the header: how many n-grams there are of each order."""
        start = DATA_LINE.search(self.content)
        if start is None:
            raise self.make_error("is not an ARPA file: it has no line \\data\\", 0)
        header = self.place = min(start.end() + 1, len(self.content))
        counts: list[int] = []
        while match := COUNT_LINE.match(self.content, self.place):
            if int(match[1]) != len(counts) + 1:
                raise self.make_error(f"'ngram {len(counts) + 1}=' must come here", match.start(1))
            counts.append(int(match[2]))
            self.place = match.end()
        if not counts or not counts[0]:
            raise self.make_error("the number of 1-grams must come here, as 'ngram 1=5000'", header)
        if len(counts) > MAX_ORDER:
            raise self.make_error(
                f"has order {len(counts)}; the highest that can be used is {MAX_ORDER}", header
            )
        if sum(counts) > len(self.content) // 4:  # a line takes at least four bytes
            raise self.make_error(
                f"the file is too short for the {sum(counts)} n-grams promised here", header
            )
        return counts

    def expect(self, wanted: str) -> None:
        """Skip the next line that is not blank, which must be ``wanted``."""
        line = cast(re.Match, TEXT_LINE.match(self.content, self.place))
        if line[1].strip() != wanted.encode():
            there = f"not {quote_line(line[1])}" if line[1] else "but the file ends"
            raise self.make_error(f"{wanted} must come here, {there}", line.start(1))
        self.place = min(line.end() + 1, len(self.content))

    def read_level(self, order: int, count: int, table: WordTable) -> tuple[WordTable, Level]:
        """Read the n-grams of one order; unigrams fill the table."""
        first_line = self.number_line(self.place)
        table, words, log_probs, backoffs, self.place, fault = _read_section(
            self.array, self.place, count, order, table
        )
        if fault:
            raise self.make_error(self.explain_fault(fault, order, count))
        return table, Level(words, log_probs, backoffs, first_line)

    def explain_fault(self, fault: int, order: int, count: int) -> str:
        """Explain what is wrong with the line at which reading stopped."""
        text = quote_line(cast(re.Match, TEXT_LINE.match(self.content, self.place))[1])
        return {
            ENDS_EARLY: f"the header promises {count} {order}-grams, here they end",
            BAD_NUMBER: f"a log10 probability or back-off weight is no number in {text}",
            BAD_FIELDS: f"{text} is not a number, {order} words and perhaps another number",
            UNKNOWN_WORD: f"a word of {text} is not among the 1-grams",
            REPEATED: f"the word of {text} has a line already",
            POSITIVE: f"a log10 probability is above 0 in {text}",
        }[fault]

    def number_line(self, place: int) -> int:
        """Count the line at ``place``, from 1."""
        return self.content.count(b"\n", 0, place) + 1

    def make_error(self, reason: str, place: int | None = None) -> LanguageModelError:
        """Make the error for what is wrong at ``place``, or where reading stopped."""
        line = self.number_line(self.place if place is None else place)
        return LanguageModelError(f"{self.name}:{line}: {reason}")

    def build_model(self, levels: list[Level], words: list[bytes]) -> NgramModel:
        """Build the model: sort the words, put the n-grams into a trie."""
        unknown = UNKNOWN.encode()
        if unknown not in words and b"<UNK>" in words:  # how some tools write it
            words[words.index(b"<UNK>")] = unknown
        elif unknown not in words:
            levels[0] = add_ngrams(levels[0], np.array([[len(words)]], np.int32), NO_UNKNOWN)
            words.append(unknown)
        by_bytes = sorted(range(len(words)), key=words.__getitem__)
        rank = np.empty(len(words), np.int32)
        rank[by_bytes] = np.arange(len(words), dtype=np.int32)
        for level in levels:
            level.words[:] = rank[level.words]
        try:
            nodes, counts = build_nodes(levels)
        except RepeatedError as error:
            raise LanguageModelError(f"{self.name}:{error.line}: this n-gram has a line already") from error
        vocabulary = build_vocabulary([words[i] for i in by_bytes])
        return NgramModel(pack_nodes(nodes, counts), vocabulary, counts)


def quote_line(line: bytes) -> str:
    """Quote the beginning of a line."""
    return repr(line[:60].strip().decode("utf-8", "replace"))


@compile_function
def _read_section(
    text: np.ndarray, place: int, count: int, order: int, table: WordTable
) -> tuple[WordTable, np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Read ``count`` lines of one order from ``place`` on; the words of unigrams go into the table.

    Returns the table, ``(count, order)`` word numbers, log-probs and back-offs (natural logarithms), the
    place after the last line or at the beginning of a faulty one, and what is wrong there (0: nothing).
    """
    words = np.empty((count, order), np.int32)
    log_probs = np.empty(count, np.float32)
    backoffs = np.zeros(count, np.float32)
    fault = 0
    begins, ends = np.empty(order + 2, np.int64), np.empty(order + 2, np.int64)
    for row in range(count):
        fields, after = _split_line(text, place, begins, ends)
        if fields == 0 or (fields == 1 and text[begins[0]] == BACKSLASH):
            fault = ENDS_EARLY
            break
        if not order < fields <= order + 2:
            fault = BAD_FIELDS
            break
        log_prob = parse_decimal(text, begins[0], ends[0])
        backoff = parse_decimal(text, begins[order + 1], ends[order + 1]) if fields == order + 2 else 0.0
        if np.isnan(log_prob) or np.isnan(backoff) or backoff == np.inf:
            fault = BAD_NUMBER
            break
        if log_prob > 0.0:
            fault = POSITIVE
            break
        log_probs[row], backoffs[row] = log_prob * LN10, backoff * LN10
        if order == 1:
            table = make_room(table, ends[1] - begins[1])
            words[row, 0] = look_up_or_add(table, text, begins[1], ends[1])
            if words[row, 0] < row:
                fault = REPEATED
                break
        else:
            for i in range(order):
                words[row, i] = look_up(table, text, begins[i + 1], ends[i + 1])
                if words[row, i] < 0:
                    fault = UNKNOWN_WORD
            if fault:
                break
        place = after
    return table, words, log_probs, backoffs, place, fault


@compile_function
def _split_line(text: np.ndarray, place: int, begins: np.ndarray, ends: np.ndarray) -> tuple[int, int]:
    """Count the fields of the line at ``place``; also return the place after the line.

    The limits of the fields go into ``begins`` and ``ends``, as many as there is room for.
    """
    fields = 0
    while place < len(text) and text[place] != NEWLINE:
        if is_space(text[place]):
            place += 1
            continue
        begin = place
        while place < len(text) and not is_space(text[place]):
            place += 1
        if fields < len(begins):
            begins[fields], ends[fields] = begin, place
        fields += 1
    return fields, min(place + 1, len(text))


@compile_function
def _write_lines(
    nodes: Nodes,
    contexts: np.ndarray,
    letters: np.ndarray,
    bounds: np.ndarray,
    first: int,
    last: int,
    order: int,
    text: np.ndarray,
) -> int:
    """Write the lines of the nodes from ``first`` to before ``last``; return the bytes they take.

    ``contexts`` has the parent of every node except node 0, which has none.
    """
    place = 0
    ngram = np.empty(order, np.int32)
    for node in range(first, last):
        ancestor = node
        for i in range(order - 1, -1, -1):
            ngram[i] = nodes.words[ancestor]
            ancestor = contexts[ancestor - 1]
        place = write_decimal(nodes.log_probs[node] / LN10, text, place)
        for i in range(order):
            text[place] = SPACE if i else TAB
            place += 1
            for letter in letters[bounds[ngram[i]] : bounds[ngram[i] + 1]]:
                text[place] = letter
                place += 1
        if node < len(nodes.backoffs):
            text[place] = TAB
            place = write_decimal(nodes.backoffs[node] / LN10, text, place + 1)
        text[place] = NEWLINE
        place += 1
    return place
