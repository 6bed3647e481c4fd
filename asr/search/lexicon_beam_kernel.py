"""Token passing through the pronunciations of a lexicon, for tokens that do not spell, compiled.

A hypothesis is a sequence of words and a place in the trie of pronunciations, with the probabilities of
its CTC paths that end in blank and in the last token, summed over paths and pronunciations (Graves et
al. 2006; the lexicon as in Ney & Ortmanns 2000, "Progress in dynamic programming search for LVCSR").
Where a pronunciation ends, the hypothesis continues with longer pronunciations that begin with it, and it
also ends each of the words with this pronunciation and begins a new word. The language model tells
homophones apart; the best unigram that can still be reached is its look-ahead. No token separates words.
"""

# mypy: disable-error-code="attr-defined, arg-type, assignment"
# (numba knows the fields of records and that an int64 is an int, mypy does not)

from __future__ import annotations

import numpy as np

from asr.core.compiled import compile_inline, compile_no_alloc
from asr.lm.look_up import score_word
from asr.lm.packed import Trie
from asr.lm.vocabulary import FNV_PRIME
from asr.search.lexicon_beam_tables import (
    HISTORIES,
    NONE,
    SIZE,
    SLOTS_USED,
    LexiconBeamState,
    Limits,
    PronunciationTable,
)
from asr.search.lexicon_trie import ROOT
from asr.text.tokenizer import BLANK_TOKEN

# Numbers are int64 wherever they are handed on: a function is compiled once more for every other type.


@compile_no_alloc
def advance(
    pronunciations: PronunciationTable,
    trie: Trie,
    limits: Limits,
    search: LexiconBeamState,
    rows: np.ndarray,
    frame: int,
) -> int:
    """Read log-probs ``(frames, vocabulary)`` from ``frame`` on.

    Returns the number of the next frame: that after the last, or one before which the tree of words needs
    more room.
    """
    while frame < len(rows):
        blank = rows[frame, BLANK_TOKEN]
        if blank >= limits.blank_threshold:
            for i in range(search.numbers[SIZE]):
                kept = search.beam[i]
                kept.blank = add_logs(kept.blank, kept.token) + blank
                kept.token = -np.inf
        else:
            if len(search.parents) - search.numbers[HISTORIES] < limits.beam_size:
                return frame
            select_survivors(limits, search, grow_beam(pronunciations, trie, limits, search, rows, frame))
        frame += 1
    return frame


@compile_inline
def grow_beam(
    pronunciations: PronunciationTable,
    trie: Trie,
    limits: Limits,
    search: LexiconBeamState,
    rows: np.ndarray,
    frame: int,
) -> int:
    """Fill in the candidates that the beam may become in a frame; return how many there are."""
    tree, beam, hot_words = pronunciations.tree, search.beam, pronunciations.hot
    count, best, top = 0, -np.inf, -np.inf
    for token in range(rows.shape[1]):
        if token != BLANK_TOKEN:
            top = max(top, rows[frame, token])
    for i in range(search.numbers[SIZE]):
        old = beam[i]
        history, state, hot = np.int64(old.history), np.int64(old.state), np.int64(old.hot)
        node, last = np.int64(old.node), np.int64(old.last)
        add_mass(search, count, old.words_hash, node, last, -np.inf, history, state, hot, NONE)
        new = search.candidates[count]
        count += 1
        new.blank = add_logs(old.blank, old.token) + rows[frame, BLANK_TOKEN]
        new.token = old.token + rows[frame, last] if last >= 0 else -np.inf
        best = max(best, add_logs(new.blank, new.token) + tree.ahead[node] + hot_words.ahead[hot])
    for i in range(search.numbers[SIZE]):
        old = beam[i]
        history, state, hot = np.int64(old.history), np.int64(old.state), np.int64(old.hot)
        total = add_logs(old.blank, old.token)
        most = max(tree.ahead[old.node] + hot_words.ahead[hot], pronunciations.ending)
        if total + top + most < best - limits.beam_threshold:
            continue
        for child in range(np.int64(tree.first_child[old.node]), np.int64(tree.first_child[old.node + 1])):
            token = np.int64(tree.letters[child])
            log_prob = rows[frame, token]
            if log_prob <= limits.token_threshold:
                continue
            mass = (old.blank if token == old.last else total) + log_prob
            if mass + most < best - limits.beam_threshold:
                continue
            if tree.first_child[child] < tree.first_child[child + 1]:
                rank = mass + tree.ahead[child] + hot_words.ahead[hot]
                if rank >= best - limits.beam_threshold:
                    best = max(best, rank)
                    count = add_mass(
                        search, count, old.words_hash, child, token, mass, history, state, hot, NONE
                    )
            sound = tree.words[child]
            if sound < 0:
                continue
            for entry in range(
                np.int64(pronunciations.firsts[sound]), np.int64(pronunciations.firsts[sound + 1])
            ):
                heated = np.int64(hot_words.following[hot, pronunciations.hot_symbols[entry]])
                ended = mass + pronunciations.fees[entry] + hot_words.gains[heated]
                ahead, after = tree.ahead[ROOT] + hot_words.ahead[heated], state
                if limits.lm_weight > 0.0:
                    if ended + ahead < best - limits.beam_threshold:
                        continue  # no log probability of the language model is above 0
                    # Most hypotheses are those of the frame before, and could end the same words.
                    word = np.int64(pronunciations.numbers[entry])
                    key = (state << 32) | word
                    pair = search.pairs[(key * FNV_PRIME ^ (key * FNV_PRIME >> 32)) & (len(search.pairs) - 1)]
                    if pair.key != key:
                        pair.key = key
                        pair.log_prob, pair.state = score_word(trie, state, word)
                    ended += limits.lm_weight * pair.log_prob
                    after = np.int64(pair.state)
                if ended + ahead >= best - limits.beam_threshold:
                    best = max(best, ended + ahead)
                    words_hash = (
                        old.words_hash ^ pronunciations.words[entry]
                    ) * FNV_PRIME  # wraps around at 64 bits
                    count = add_mass(
                        search, count, words_hash, ROOT, token, ended, history, after, heated, entry
                    )
    for i in range(count):
        new = search.candidates[i]
        search.ranks[i] = add_logs(new.blank, new.token) + tree.ahead[new.node] + hot_words.ahead[new.hot]
        search.table[new.slot] = 0
    return count


@compile_inline
def add_mass(
    search: LexiconBeamState,
    count: int,
    words_hash: int,
    node: int,
    last: int,
    mass: float,
    history: int,
    state: int,
    hot: int,
    entry: int,
) -> int:
    """Add paths that end in ``last`` to the one of ``count`` candidates with these words and this node.

    One that is new is put after the others. Returns how many candidates there are.
    """
    slot = find_slot(search, words_hash, node, last)
    if search.table[slot] > 0:
        new = search.candidates[search.table[slot] - 1]
        if entry != NONE and new.entry != NONE and mass > new.token:  # the better pronunciation is kept
            new.history, new.entry = history, entry
        new.token = add_logs(new.token, mass)
        return count
    new = search.candidates[count]
    count += 1
    search.table[slot] = count
    new.words_hash, new.node, new.last, new.slot = words_hash, node, last, slot
    new.blank, new.token = -np.inf, mass
    new.history, new.state, new.hot, new.entry = history, state, hot, entry
    if 2 * count > search.numbers[SLOTS_USED]:
        use_more_slots(search, count)
    return count


@compile_inline
def find_slot(search: LexiconBeamState, words_hash: int, node: int, last: int) -> int:
    """Find the slot of the hash table that has the number of a candidate, counted from 1, or room for it."""
    mask = search.numbers[SLOTS_USED] - 1
    code = (((words_hash ^ node) * FNV_PRIME) ^ last) * FNV_PRIME
    slot = (code ^ (code >> 32)) & mask
    while search.table[slot] > 0:
        new = search.candidates[search.table[slot] - 1]
        if new.words_hash == words_hash and new.node == node and new.last == last:
            break
        slot = (slot + 1) & mask
    return slot


@compile_no_alloc
def use_more_slots(search: LexiconBeamState, count: int) -> None:
    """Spread ``count`` candidates over twice as many slots of the hash table."""
    for i in range(count):
        search.table[search.candidates[i].slot] = 0
    search.numbers[SLOTS_USED] *= 2
    for i in range(count):
        new = search.candidates[i]
        new.slot = find_slot(search, np.int64(new.words_hash), np.int64(new.node), np.int64(new.last))
        search.table[new.slot] = i + 1


@compile_inline
def add_logs(a: float, b: float) -> float:
    """Compute log(exp(a) + exp(b)), leaving out what is below exp(-36) of the other, float64's precision."""
    low, high = min(a, b), max(a, b)
    return high if low < high - 36.0 or high == -np.inf else high + np.log1p(np.exp(low - high))


@compile_inline
def select_survivors(limits: Limits, search: LexiconBeamState, count: int) -> None:
    """Make the best candidates the beam, of equal ones those that were found first.

    One that is worse in both its endings than ``rivals`` others with the same future is dropped.
    """
    candidates, beam, numbers, ranks = search.candidates, search.beam, search.numbers, search.ranks
    best = -np.inf
    for i in range(count):
        best = max(best, ranks[i])
    if best == -np.inf:  # a frame that allows nothing, not even a blank, says nothing
        return
    size = 0
    for i in range(sort_candidates(search, count, best, best - limits.beam_threshold)):
        place = search.order[i]
        new = candidates[place]
        if limits.rivals > 0:
            slot = find_future(search, new)
            other, better = np.int64(search.table[slot]), 0
            while other > 0:
                better += beam[other - 1].blank >= new.blank and beam[other - 1].token >= new.token
                if better == limits.rivals:
                    break
                other = np.int64(beam[other - 1].slot)
            if other > 0:
                continue
            beam[size] = new
            beam[size].slot = search.table[slot]  # the one before it with the same future
            search.table[slot] = size + 1
            search.order[size] = slot  # what stood there has been read
        else:
            beam[size] = new
        kept = beam[size]
        kept.rank = ranks[place]
        if new.entry != NONE:
            at = numbers[HISTORIES]
            search.parents[at], search.entries[at] = new.history, new.entry
            kept.history, kept.entry = at, NONE
            numbers[HISTORIES] += 1
        size += 1
        if size == limits.beam_size:
            break
    numbers[SIZE] = size
    if limits.rivals > 0:
        for i in range(size):
            search.table[search.order[i]] = 0


@compile_inline
def find_future(search: LexiconBeamState, hypothesis: np.ndarray) -> int:
    """Find the slot of the hash table for hypotheses of the beam with the same future.

    It has the number of the last of them, counted from 1.
    """
    mask = search.numbers[SLOTS_USED] - 1
    node, state = np.int64(hypothesis.node), np.int64(hypothesis.state)
    last, hot = np.int64(hypothesis.last), np.int64(hypothesis.hot)
    code = ((((node * FNV_PRIME) ^ state) * FNV_PRIME ^ last) * FNV_PRIME ^ hot) * FNV_PRIME
    slot = (code ^ (code >> 32)) & mask
    while search.table[slot] > 0:
        other = search.beam[search.table[slot] - 1]
        if other.node == node and other.state == state and other.last == last and other.hot == hot:
            break
        slot = (slot + 1) & mask
    return slot


@compile_inline
def sort_candidates(search: LexiconBeamState, count: int, best: float, lowest: float) -> int:
    """Sort those of ``count`` candidates with a rank of at least ``lowest``, best first, into ``order``.

    Equal ones stay in order. Returns how many they are. They are dealt into buckets, of which most get one or
    none, and what is not yet in order moves to its place.
    """
    ranks, order, counts = search.ranks, search.order, search.counts
    near, least = 0, best
    for i in range(count):
        if ranks[i] >= lowest and ranks[i] > -np.inf:
            near += 1
            least = min(least, ranks[i])
    buckets = 256
    while buckets < near:
        buckets *= 2
    buckets = min(buckets, len(counts))
    scale = (buckets - 1) / max(best - least, 1e-9)
    counts[:buckets] = 0
    for i in range(count):
        if ranks[i] >= least:
            counts[int((best - ranks[i]) * scale)] += 1
    begin = 0
    for bucket in range(buckets):
        begin, counts[bucket] = begin + counts[bucket], begin
    for i in range(count):
        if ranks[i] >= least:
            bucket = int((best - ranks[i]) * scale)
            order[counts[bucket]] = i
            counts[bucket] += 1
    for i in range(1, near):
        moved = order[i]
        at = i
        while at > 0 and ranks[order[at - 1]] < ranks[moved]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = moved
    return near
