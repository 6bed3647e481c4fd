"""The n-gram model as compiled code looks it up: ``score_word`` and what it is made of.

The layout is that of ``asr.lm.packed``, which reads the same trie without compiled code.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from asr.core.compiled import compile_inline, compile_no_alloc
from asr.lm.packed import (
    BACKOFF_BITS,
    BACKOFF_VALUES,
    BACKOFFS,
    CHILD_BITS,
    CHILDREN,
    FIRST,
    PROB_BITS,
    PROB_VALUES,
    PROBS,
    RANK_BITS,
    RANKS,
    SUFFIX_BITS,
    SUFFIXES,
    Trie,
)


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
