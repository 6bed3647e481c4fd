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
nothing)::

    log_probs, states = score_words(trie, states, words)     # arrays; natural logarithms

``asr.lm.look_up`` does the same for one word from compiled code. Nothing here is compiled, so that a short
recording need not wait for a compiler.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

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

PART = 1 << 16  # nodes that are checked at once
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


class Nodes(NamedTuple):
    """The n-grams of a model, in arrays that are easily made.

    first_child: ``(inner + 1,)`` int32; node ``n`` has children ``first_child[n]:first_child[n + 1]``.
    words: ``(nodes,)`` int32, the last word of each n-gram; -1 for node 0.
    log_probs: ``(nodes,)`` float32, natural logarithm of P(last word | the words before); 0 for node 0.
    backoffs: ``(inner,)`` float32, natural logarithm of the back-off weight; 0 where there is none.
    suffixes: ``(nodes,)`` int32, the n-gram without its first word.
    """

    first_child: np.ndarray
    words: np.ndarray
    log_probs: np.ndarray
    backoffs: np.ndarray
    suffixes: np.ndarray


# --- columns of bits --------------------------------------------------------------------------------


def write_column(bits: np.ndarray, begin: int, width: int, numbers: np.ndarray) -> None:
    """Write ``numbers`` as a column of ``width`` bits each from bit ``begin`` on, where all bits are 0."""
    for first in range(min(64, len(numbers))):  # every 64th begins at the same bit of its word
        bit = begin + first * width
        shift = np.uint64(bit & 63)
        part = numbers[first::64].astype(np.uint64)
        words = (bit >> 6) + width * np.arange(len(part))
        bits[words] |= part << shift
        bits[words + 1] |= (part >> np.uint64(1)) >> (np.uint64(63) - shift)


def read_column(bits: np.ndarray, begin: int, width: int, count: int) -> np.ndarray:
    """Read a column of bits, int32 where that is wide enough, else int64."""
    numbers = np.zeros(count, np.int32 if width < 31 else np.int64)
    mask = np.uint64((1 << width) - 1)
    for first in range(min(8, count)):  # every 8th begins at the same bit of its byte
        bit = begin + first * width
        part = numbers[first::8]
        words = np.ndarray(len(part), np.uint64, bits, bit >> 3, (width,))
        part[:] = (words >> np.uint64(bit & 7)) & mask
    return numbers


def pick(bits: np.ndarray, begin: int, width: int, places: np.ndarray) -> np.ndarray:
    """Read numbers ``places`` of a column of ``width`` bits each that begins at bit ``begin``; int64."""
    first = places * width + begin
    every = np.ndarray(8 * len(bits) - 7, np.int64, bits, 0, (1,))  # the 64 bits that begin at each byte
    return (every[first >> 3] >> (first & 7)) & ((1 << width) - 1)


# --- look-up ----------------------------------------------------------------------------------------


def _pick_field(trie: Trie, field: int, order: int, nodes: np.ndarray) -> np.ndarray:
    """Read a field of nodes of ``order``."""
    begin, width = trie.layout[order, field : field + 2].tolist()
    return pick(trie.bits, begin, width, nodes - int(trie.layout[order, FIRST]))


def _pick_values(trie: Trie, field: int, table: int, order: int, nodes: np.ndarray) -> np.ndarray:
    """Read log-probs or back-offs of nodes of ``order``."""
    return trie.values[_pick_field(trie, field, order, nodes) + int(trie.layout[order, table])]


def _find_suffixes(trie: Trie, order: int, nodes: np.ndarray) -> np.ndarray:
    """Find the nodes of inner n-grams of ``order`` without their first word."""
    if order < 2:
        return np.zeros(len(nodes), np.int64)
    return 1 + _pick_field(trie, RANKS, 2, nodes) if order == 2 else _pick_field(trie, SUFFIXES, order, nodes)


def _find_ranks(trie: Trie, order: int, low: np.ndarray, high: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Find the places of nodes of ``order`` among the sorted ``low:high`` with ``ranks``, or -1."""
    begin, width = trie.layout[order, RANKS : RANKS + 2].tolist()
    place, left = low.copy(), high - low  # the place sought is in ``place:place + left`` or behind it
    while (left > 0).any():
        half = left >> 1
        is_before = pick(trie.bits, begin, width, place + half) < ranks
        is_before &= left > 0
        place += np.where(is_before, half + 1, 0)
        left = np.where(is_before, left - half - 1, half)
    is_there = (place < high) & (pick(trie.bits, begin, width, place) == ranks)
    return np.where(is_there, place, -1)


def score_words(trie: Trie, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score each of ``words`` after its state: natural log P(word | state), float64, and the states after.

    ``words`` are numbers of the vocabulary; the caller turns others into ``<unk>``. The product of back-off
    weights and the probability of the longest n-gram that is there (Katz 1987). A new state is the longest
    n-gram that has children or a back-off: contexts between which the model cannot tell are one state.
    """
    highest = len(trie.layout) - 1
    states, words = np.asarray(states, np.int64), np.asarray(words, np.int64)
    longest = np.searchsorted(trie.layout[:, FIRST], states, "right") - 1
    contexts = np.zeros((highest + 1, len(states)), np.int64)  # of each length, where the state has it
    for length in range(highest - 1, 0, -1):
        at = np.flatnonzero(longest == length)
        contexts[length, at] = states[at]
        at = np.flatnonzero(longest >= length)
        contexts[length - 1, at] = _find_suffixes(trie, length, contexts[length, at])
    orders, nodes, shorter, ranks = np.ones_like(states), 1 + words, np.zeros_like(states), words.copy()
    for order in range(1, highest):
        at = np.flatnonzero((orders == order) & (longest >= order))
        if not len(at):
            break
        start = int(trie.layout[order + 1, FIRST])
        low = _pick_field(trie, CHILDREN, order, contexts[order, at]) - start
        high = _pick_field(trie, CHILDREN, order, contexts[order, at] + 1) - start
        places = _find_ranks(trie, order + 1, low, high, ranks[at])
        is_there = places >= 0
        at, places, low = at[is_there], places[is_there], low[is_there]
        shorter[at], nodes[at], orders[at], ranks[at] = nodes[at], start + places, order + 1, places - low
    log_probs = np.zeros(len(states))
    for length in range(highest - 1, 0, -1):
        at = np.flatnonzero((longest >= length) & (orders <= length))
        log_probs[at] += _pick_values(trie, BACKOFFS, BACKOFF_VALUES, length, contexts[length, at])
    for order in range(1, highest + 1):
        at = np.flatnonzero(orders == order)
        log_probs[at] += _pick_values(trie, PROBS, PROB_VALUES, order, nodes[at])
    is_whole = orders == highest
    nodes, orders = np.where(is_whole, shorter, nodes), orders - is_whole
    for length in range(highest - 1, 0, -1):
        at = np.flatnonzero(orders == length)
        at = at[~_are_live(trie, length, nodes[at])]
        nodes[at] = _find_suffixes(trie, length, nodes[at])
        orders[at] -= 1
    return log_probs, nodes


def _are_live(trie: Trie, order: int, nodes: np.ndarray) -> np.ndarray:
    """Say which inner nodes have children or a back-off; only then it matters that a state is this one."""
    children = _pick_field(trie, CHILDREN, order, nodes), _pick_field(trie, CHILDREN, order, nodes + 1)
    is_discounted = _pick_values(trie, BACKOFFS, BACKOFF_VALUES, order, nodes) != 0.0
    return is_discounted | (children[0] < children[1])


# --- packing ----------------------------------------------------------------------------------------


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
    # A mean of nought would be a value of its own: that there is no back-off.
    means[(counts > 0) & (means.astype(np.float32) == 0)] = np.finfo(np.float32).smallest_normal
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
            write_column(packed, int(layout[order, field]), int(layout[order, field + 1]), numbers)
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
    begin, width = trie.layout[order, field : field + 2].tolist()
    return read_column(trie.bits, begin, width, int(trie.layout[order, COUNT]) + more)


def _read_values(trie: Trie, order: int, field: int, table: int) -> np.ndarray:
    return trie.values[trie.layout[order, table] + _read_column(trie, order, field)]


def read_unigrams(trie: Trie) -> np.ndarray:
    """Natural log P(word) of every word, float32."""
    return _read_values(trie, 1, PROBS, PROB_VALUES)


def is_sound(trie: Trie, words: int) -> bool:
    """Whether every number of the trie leads to a place that is there, so that ``score_word`` stays inside.

    ``words`` is how many the vocabulary has. Reads all of it: some twenty milliseconds for a million n-grams.
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
    return all(_is_order_sound(trie, order) for order in range(highest + 1))


def _is_order_sound(trie: Trie, order: int) -> bool:
    """Whether all numbers of an order, and the ranks of the children of its nodes, are within bounds.

    Some nodes at a time: a few megabytes, however large the model is.
    """
    layout, highest = trie.layout, len(trie.layout) - 1
    if order > 0 and not _are_below(trie, order, PROBS, layout[order, NUM_PROB_VALUES]):
        return False
    if order == highest:
        return True
    if not _are_below(trie, order, BACKOFFS, layout[order, NUM_BACKOFF_VALUES]):
        return False
    start, count = layout[order + 1, [FIRST, COUNT]].tolist()
    below, end = layout[max(order - 1, 0), FIRST], layout[order, FIRST]
    shorter = np.diff(_read_column(trie, order - 1, CHILDREN, 1)) if order > 1 else np.zeros(0, np.int32)
    last = 0  # child of the nodes so far
    for first, size in _list_parts(layout[order, COUNT]):
        children = _read_part(trie, order, CHILDREN, first, size + 1) - start
        families = np.diff(children)
        if children[0] != last or children[-1] > count or (families < 0).any():
            return False
        last = int(children[-1])
        has_children = np.flatnonzero(families)
        limits: np.ndarray | int = int(layout[1, COUNT])
        if order > 1:
            suffixes = _read_suffixes(trie, order, first, size)
            checked = suffixes if order > 2 else suffixes[has_children]
            if len(checked) and (checked.min() < below or checked.max() >= end):
                return False
            limits = shorter[suffixes[has_children] - below]
        if order == 0:
            continue  # the ranks of unigrams are their places
        ranks = _read_part(trie, order + 1, RANKS, int(children[0]), last - int(children[0]))
        begins, ends = (place[has_children] - children[0] for place in (children[:-1], children[1:]))
        is_behind = ranks[1:] > ranks[:-1]
        is_behind[begins[1:] - 1] = True  # the first child of a node follows another's
        if not (is_behind.all() and (ranks[ends - 1] < limits).all()):
            return False
    return last == count


def _list_parts(count: int) -> Iterator[tuple[int, int]]:
    """List where parts of ``count`` nodes begin, and how many are in each."""
    return ((first, min(PART, int(count) - first)) for first in range(0, int(count), PART))


def _read_part(trie: Trie, order: int, field: int, first: int, count: int) -> np.ndarray:
    """Read a part of a column."""
    begin, width = trie.layout[order, field : field + 2].tolist()
    return read_column(trie.bits, begin + first * width, width, count)


def _read_suffixes(trie: Trie, order: int, first: int, count: int) -> np.ndarray:
    if order == 2:
        return 1 + _read_part(trie, order, RANKS, first, count)
    return _read_part(trie, order, SUFFIXES, first, count)


def _are_below(trie: Trie, order: int, field: int, limit: int) -> bool:
    """Whether all numbers of a column are below ``limit``."""
    if 1 << int(trie.layout[order, field + 1]) <= limit:
        return True
    return all(
        int(_read_part(trie, order, field, first, size).max()) < limit
        for first, size in _list_parts(trie.layout[order, COUNT])
    )
