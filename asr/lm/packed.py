"""The n-gram model as it is looked up and stored: a trie of bit-packed columns.

Nodes are numbered by order and, within an order, sorted: node 0 is the empty context, node ``1 + word``
the unigram of ``word``, then come the bigrams, and so on; the children of a node stand side by side, and
those of the next node follow them. *Inner* nodes are the empty context and the n-grams below the highest
order; only they have children and a back-off.

Each order stores columns of the fewest bits that hold their largest value (Whittaker & Raj 2001; the trie
of Heafield 2011, "KenLM: Faster and smaller language model queries"):

- *rank*: for a bigram the number of its last word, for a longer n-gram the place of its last word among the
  children of the context's suffix (Pibiri & Venturini 2017, "Efficient data structures for massive n-gram
  datasets", section 3.1). ``u v w`` is found by the place of ``w`` below ``v``, which takes fewer bits than
  ``w`` does, and finding it finds ``v w``, too, which is the state when ``u v w`` is as long as n-grams get.
- *log-prob* and *back-off*: a place in the order's table of values. A table holds every value that occurs,
  or 2 ** bits values that stand for them: each is the mean of those in its step.
- *first child*: a node number. *suffix*: of the inner n-grams of three and more words, a node number.

So every n-gram has its suffix in the model: ``asr.lm.building`` puts in those that are missing.

A *state*, what a model remembers of the words so far, is the number of an inner node (an int; 0 remembers
nothing). From compiled code::

    log_prob, state = score_word(trie, state, word)          # natural logarithm
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from asr.core.compiled import compile_function, compile_inline, compile_no_alloc
from asr.lm.building import Nodes

# Columns of ``Trie.layout``, a row for each order: its first node and the number of its nodes; where each
# column begins in the bits and how many it has for a node; where tables of values begin, how long they are.
(
    FIRST,
    COUNT,
    RANKS,
    RANK_BITS,
    PROBS,
    PROB_BITS,
    BACKOFFS,
    BACKOFF_BITS,
    CHILDREN,
    CHILD_BITS,
    SUFFIXES,
    SUFFIX_BITS,
    PROB_VALUES,
    NUM_PROB_VALUES,
    BACKOFF_VALUES,
    NUM_BACKOFF_VALUES,
) = range(16)
FIELDS = 16

LEAST_ROUNDED = -100.0  # natural logarithm
LARGEST_VALUE = 1e6  # of a log-prob or a back-off; sums of some thousands are finite in any type


class Trie(NamedTuple):
    """The arrays of a model; all read-only, so that compiled code sees one type wherever they are from.

    bits: uint64, the columns of all orders one after the other, and one word more than they need.
    layout: ``(1 + order, FIELDS)`` int64; row 0 is the empty context, whose first child is node 1.
    values: float32, the tables of values, natural logarithms.
    """

    bits: np.ndarray
    layout: np.ndarray
    values: np.ndarray


@intrinsic
def _load(typing_context, bits, place):  # type: ignore[no-untyped-def]
    """The 64 bits that begin at byte ``place`` of an array, which need not be a multiple of 8."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        bytes_ = builder.bitcast(array.data, ir.IntType(8).as_pointer())
        address = builder.bitcast(builder.gep(bytes_, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(address, align=1)

    return types.uint64(bits, types.int64), generate


@compile_inline
def unpack(bits: np.ndarray, begin: int, width: int, place: int) -> int:
    """Number ``place`` of a column of ``width`` bits each (at most 56) that begins at bit ``begin``."""
    first = begin + place * width
    word = _load(bits, first >> 3) >> np.uint64(first & 7)  # type: ignore[call-arg]
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    return np.int64(word & mask)


@compile_inline
def find_rank(trie: Trie, row: int, low: int, high: int, rank: int) -> int:
    """The node of order ``row`` among the sorted ``low:high`` with ``rank``, or -1."""
    begin, width = trie.layout[row, RANKS], trie.layout[row, RANK_BITS]
    end = high
    while low < high:
        middle = (low + high) >> 1
        if unpack(trie.bits, begin, width, middle) < rank:
            low = middle + 1
        else:
            high = middle
    if low < end and unpack(trie.bits, begin, width, low) == rank:
        return low + trie.layout[row, FIRST]
    return -1


@compile_inline
def find_order(trie: Trie, node: int) -> int:
    """How many words the n-gram of ``node`` has."""
    order = 0
    while order + 1 < len(trie.layout) and node >= trie.layout[order + 1, FIRST]:
        order += 1
    return order


@compile_inline
def find_child(trie: Trie, order: int, node: int) -> int:
    """The first child of an inner node of ``order``; that of the next node is where its children end."""
    layout = trie.layout
    place = node - layout[order, FIRST]
    return unpack(trie.bits, layout[order, CHILDREN], layout[order, CHILD_BITS], place)


@compile_inline
def find_log_prob(trie: Trie, order: int, node: int) -> float:
    """Natural log P(last word | the words before) of a node of ``order``."""
    layout = trie.layout
    place = node - layout[order, FIRST]
    code = unpack(trie.bits, layout[order, PROBS], layout[order, PROB_BITS], place)
    return trie.values[layout[order, PROB_VALUES] + code]


@compile_inline
def find_backoff(trie: Trie, order: int, node: int) -> float:
    """The natural log of the back-off weight of an inner node of ``order``."""
    layout = trie.layout
    place = node - layout[order, FIRST]
    code = unpack(trie.bits, layout[order, BACKOFFS], layout[order, BACKOFF_BITS], place)
    return trie.values[layout[order, BACKOFF_VALUES] + code]


@compile_inline
def find_suffix(trie: Trie, order: int, node: int) -> int:
    """The node of an inner n-gram of ``order`` without its first word."""
    layout = trie.layout
    if order < 2:
        return 0
    place = node - layout[order, FIRST]
    if order == 2:
        return 1 + unpack(trie.bits, layout[order, RANKS], layout[order, RANK_BITS], place)
    return unpack(trie.bits, layout[order, SUFFIXES], layout[order, SUFFIX_BITS], place)


@compile_no_alloc
def score_word(trie: Trie, state: int, word: int) -> tuple[float, int]:
    """Natural log P(word | state) and the state after it.

    ``word`` is a number of the vocabulary; the caller turns others into ``<unk>``. The product of back-off
    weights and the probability of the longest n-gram that is there (Katz 1987). The new state is the longest
    n-gram that has children or a back-off: contexts between which the model cannot tell are one state.
    """
    highest = len(trie.layout) - 1
    longest = find_order(trie, state)
    order, node, shorter, rank = 1, 1 + word, 0, word
    while order <= longest:
        context, length = state, longest
        while length > order:
            context, length = find_suffix(trie, length, context), length - 1
        start = trie.layout[order + 1, FIRST]
        low = find_child(trie, order, context) - start
        found = find_rank(trie, order + 1, low, find_child(trie, order, context + 1) - start, rank)
        if found < 0:
            break
        shorter, node, order, rank = node, found, order + 1, found - start - low
    log_prob, context, length = 0.0, state, longest
    while length >= order:
        log_prob += find_backoff(trie, length, context)
        context, length = find_suffix(trie, length, context), length - 1
    log_prob += find_log_prob(trie, order, node)
    if order == highest:
        node, order = shorter, order - 1
    while order > 0 and not is_live(trie, order, node):
        node, order = find_suffix(trie, order, node), order - 1
    return log_prob, node


@compile_inline
def is_live(trie: Trie, order: int, node: int) -> bool:
    """Whether an inner node has children or a back-off; only then it matters that a state is this one."""
    if find_backoff(trie, order, node) != 0.0:
        return True
    return find_child(trie, order, node) < find_child(trie, order, node + 1)


@compile_function
def fill_column(bits: np.ndarray, begin: int, width: int, numbers: np.ndarray) -> None:
    """Write ``numbers`` as a column of ``width`` bits each from bit ``begin`` on, where all bits are 0."""
    for place in range(len(numbers)):
        first = begin + place * width
        word, shift = first >> 6, np.uint64(first & 63)
        number = np.uint64(numbers[place])
        bits[word] |= number << shift
        bits[word + 1] |= (number >> np.uint64(1)) >> (np.uint64(63) - shift)


@compile_function
def read_column(bits: np.ndarray, begin: int, width: int, count: int) -> np.ndarray:
    """A column of bits as int64."""
    numbers = np.empty(count, np.int64)
    for place in range(count):
        numbers[place] = unpack(bits, begin, width, place)
    return numbers


def tabulate(values: np.ndarray, bits: int | None) -> tuple[np.ndarray, np.ndarray]:
    """A table of values (float32, ascending) and the place in it of each of ``values``.

    Without ``bits`` the table is exact. With ``bits`` it has at most ``2 ** bits`` values, 0 among them if it
    is among ``values`` (no back-off stays none): the range of the others is cut into equal steps, and the
    table has the mean of each. Steps, not equal shares of the n-grams: those that texts are full of are few,
    and would share a value with many others.
    """
    exact, places = np.unique(values, return_inverse=True)
    if bits is None or len(exact) <= 1 << bits:
        return exact.astype(np.float32), places
    # A log10 of -100 (no <unk>) or of -99 (<s>) would stretch the steps of all others.
    is_special = (values == 0.0) | (values < LEAST_ROUNDED)
    special, ordinary = np.unique(values[is_special]), values[~is_special]
    steps = max(1, (1 << bits) - len(special))
    low, high = float(ordinary.min()), float(ordinary.max())
    cells = np.minimum(((ordinary - low) * (steps / max(high - low, 1e-6))).astype(np.int64), steps - 1)
    counts = np.bincount(cells, minlength=steps)
    means = np.bincount(cells, ordinary.astype(np.float64), steps) / np.maximum(counts, 1)
    table = np.unique(np.concatenate([special, means[counts > 0].astype(np.float32)]))
    rounded = values.astype(np.float32, copy=True)
    rounded[~is_special] = means.astype(np.float32)[cells]
    return table, np.searchsorted(table, rounded)


def make_empty_model() -> Trie:
    """A trie without words, for compiled code that is given no language model and asks nothing of it."""
    return _freeze(Trie(np.zeros(2, np.uint64), np.zeros((2, FIELDS), np.int64), np.zeros(1, np.float32)))


def _freeze(trie: Trie) -> Trie:
    for array in trie:
        array.setflags(write=False)
    return trie


def pack_nodes(nodes: Nodes, counts: tuple[int, ...], bits: int | None = None) -> Trie:
    """The packed trie of nodes, of which ``counts`` are of each order.

    ``bits`` (1 to 24) rounds probabilities and back-offs, each order with tables of its own; without, they
    are exact.
    """
    highest = len(counts)
    starts = np.concatenate([[0, 1], 1 + np.cumsum(counts)]).astype(np.int64)
    layout = np.zeros((1 + highest, FIELDS), np.int64)
    layout[:, FIRST], layout[:, COUNT] = starts[:-1], np.diff(starts)
    columns: list[tuple[int, int, np.ndarray]] = []  # row and field of the layout, numbers
    tables: list[np.ndarray] = []
    size = 0

    def add_table(order: int, field: int, values: np.ndarray) -> np.ndarray:
        nonlocal size
        table, places = tabulate(np.clip(values, -LARGEST_VALUE, LARGEST_VALUE), bits)
        layout[order, field : field + 2] = size, len(table)
        tables.append(table)
        size += len(table)
        return places

    for order in range(highest + 1):
        begin, end = starts[order : order + 2]
        if order > 0:
            columns.append((order, RANKS, _compute_ranks(nodes, order, begin, end)))
            columns.append((order, PROBS, add_table(order, PROB_VALUES, nodes.log_probs[begin:end])))
        if order < highest:
            columns.append((order, CHILDREN, nodes.first_child[begin : end + 1]))
            columns.append((order, BACKOFFS, add_table(order, BACKOFF_VALUES, nodes.backoffs[begin:end])))
            if order > 2:
                columns.append((order, SUFFIXES, nodes.suffixes[begin:end]))
    place = 0
    for order, field, numbers in columns:
        width = int(numbers.max(initial=0)).bit_length()
        if field == RANKS and order == 1:
            width = 0  # the rank of a unigram is its place
        layout[order, field : field + 2] = place, width
        place += width * len(numbers)
    packed = np.zeros(place // 64 + 2, np.uint64)
    for order, field, numbers in columns:
        if layout[order, field + 1]:
            fill_column(packed, layout[order, field], layout[order, field + 1], numbers.astype(np.int64))
    return _freeze(Trie(packed, layout, np.concatenate(tables).astype(np.float32)))


def _compute_ranks(nodes: Nodes, order: int, begin: int, end: int) -> np.ndarray:
    """The ranks of the nodes of an order."""
    if order < 3:
        return nodes.words[begin:end]
    contexts = np.repeat(np.arange(len(nodes.backoffs)), np.diff(nodes.first_child))[begin - 1 : end - 1]
    return nodes.suffixes[begin:end] - nodes.first_child[nodes.suffixes[contexts]]


def unpack_nodes(trie: Trie) -> Nodes:
    """The nodes of a packed trie."""
    highest = len(trie.layout) - 1
    children = [_read_column(trie, order, CHILDREN, 1) for order in range(highest)]
    first_child = np.concatenate([*(column[:-1] for column in children), children[-1][-1:]])
    contexts = np.repeat(np.arange(len(first_child) - 1), np.diff(first_child))
    words, suffixes = [np.array([-1])], [np.zeros(1, np.int64)]
    log_probs, backoffs = [np.zeros(1, np.float32)], [_read_values(trie, 0, BACKOFFS, BACKOFF_VALUES)]
    for order in range(1, highest + 1):
        first, count = trie.layout[order, [FIRST, COUNT]]
        ranks = _read_column(trie, order, RANKS) if order > 1 else np.arange(count)
        log_probs.append(_read_values(trie, order, PROBS, PROB_VALUES))
        if order < highest:
            backoffs.append(_read_values(trie, order, BACKOFFS, BACKOFF_VALUES))
        if order < 3:
            words.append(ranks)
            suffixes.append(1 + ranks if order == 2 else np.zeros(count, np.int64))
        else:
            context_suffixes = np.concatenate(suffixes)[contexts[first - 1 : first - 1 + count]]
            suffixes.append(first_child[context_suffixes] + ranks)
            words.append(np.concatenate(words)[suffixes[-1]])
    return Nodes(
        first_child.astype(np.int32),
        np.concatenate(words).astype(np.int32),
        np.concatenate(log_probs),
        np.concatenate(backoffs),
        np.concatenate(suffixes).astype(np.int32),
    )


def _read_column(trie: Trie, order: int, field: int, more: int = 0) -> np.ndarray:
    begin, width = trie.layout[order, field : field + 2]
    return read_column(trie.bits, begin, width, trie.layout[order, COUNT] + more)


def _read_values(trie: Trie, order: int, field: int, table: int) -> np.ndarray:
    return trie.values[trie.layout[order, table] + _read_column(trie, order, field)]


def read_unigrams(trie: Trie) -> np.ndarray:
    """Natural log P(word) of every word, float32."""
    return _read_values(trie, 1, PROBS, PROB_VALUES)


def is_sound(trie: Trie, words: int) -> bool:
    """Whether every number of the trie leads to a place that is there, so that ``score_word`` stays inside.

    ``words`` is how many the vocabulary has. Reads all of it: some ten milliseconds for a million n-grams.
    """
    bits, layout, values = trie
    highest = len(layout) - 1
    if highest < 1 or layout.shape[1] != FIELDS or (layout < 0).any() or layout.max() > 1 << 40:
        return False
    starts = np.concatenate([[0, 1], 1 + np.cumsum(layout[1:, COUNT])])
    if layout[0, COUNT] != 1 or (layout[:, FIRST] != starts[:-1]).any() or layout[1, COUNT] != words:
        return False
    for order, row in enumerate(layout):
        for field in (RANKS, PROBS, BACKOFFS, CHILDREN, SUFFIXES):
            begin, width = row[field : field + 2]
            entries = row[COUNT] + (field == CHILDREN)
            if width > 40 or begin + width * entries > 64 * (len(bits) - 1):
                return False
        for field, needed in ((PROB_VALUES, order > 0), (BACKOFF_VALUES, order < highest)):
            begin, length = row[field : field + 2]
            if begin + length > len(values) or (needed and length == 0 and row[COUNT] > 0):
                return False
    if not (np.abs(values) <= LARGEST_VALUE).all():  # in this form NaN is refused, too
        return False
    return bool(_is_sound(trie))


@compile_no_alloc
def _is_sound(trie: Trie) -> bool:
    bits, layout = trie.bits, trie.layout
    highest = len(layout) - 1
    for order in range(highest + 1):
        count = layout[order, COUNT]
        if order > 0 and not _are_below(
            trie, layout[order, PROBS], layout[order, PROB_BITS], count, layout[order, NUM_PROB_VALUES]
        ):
            return False
        if order == highest:
            break
        width = layout[order, BACKOFF_BITS]
        if not _are_below(trie, layout[order, BACKOFFS], width, count, layout[order, NUM_BACKOFF_VALUES]):
            return False
        start = layout[order + 1, FIRST]
        before = find_child(trie, order, layout[order, FIRST])
        if before != start:
            return False
        for node in range(layout[order, FIRST], layout[order, FIRST] + count):
            after = find_child(trie, order, node + 1)
            if after < before or after > start + layout[order + 1, COUNT]:
                return False
            if order > 0 and before < after:
                suffix = find_suffix(trie, order, node)
                if suffix < layout[order - 1, FIRST] or suffix >= layout[order, FIRST]:
                    return False
                limit = layout[1, COUNT]
                if order > 1:
                    limit = find_child(trie, order - 1, suffix + 1) - find_child(trie, order - 1, suffix)
                last = -1
                for child in range(before - start, after - start):
                    rank = unpack(bits, layout[order + 1, RANKS], layout[order + 1, RANK_BITS], child)
                    if rank <= last:
                        return False
                    last = rank
                if last >= limit:
                    return False
            elif order > 2:
                suffix = find_suffix(trie, order, node)
                if suffix < layout[order - 1, FIRST] or suffix >= layout[order, FIRST]:
                    return False
            before = after
        if before != start + layout[order + 1, COUNT]:
            return False
    return True


@compile_no_alloc
def _are_below(trie: Trie, begin: int, width: int, count: int, limit: int) -> bool:
    """Whether all numbers of a column are below ``limit``."""
    if count == 0 or 1 << width <= limit:
        return True
    largest = 0
    for place in range(count):
        largest = max(largest, unpack(trie.bits, begin, width, place))
    return largest < limit
