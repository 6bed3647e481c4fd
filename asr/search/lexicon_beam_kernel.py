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
from asr.search.lexicon_beam_tables import HISTORIES, NONE, SIZE, LexiconBeamState, Limits, PronunciationTable
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
    count, best = 0, -np.inf
    for i in range(search.numbers[SIZE]):
        old = beam[i]
        history, state, hot = np.int64(old.history), np.int64(old.state), np.int64(old.hot)
        node, last = np.int64(old.node), np.int64(old.last)
        add_mass(search, count, old.words_hash, node, last, -np.inf, history, state, hot, NONE)
        new = search.candidates[count]
        count += 1
        new.blank = add_logs(old.blank, old.token) + rows[frame, BLANK_TOKEN]
        new.token = old.token + rows[frame, last] if last >= 0 else -np.inf
        new.rank = add_logs(new.blank, new.token) + tree.ahead[node] + hot_words.ahead[hot]
        best = max(best, new.rank)
    for i in range(search.numbers[SIZE]):
        old = beam[i]
        history, state, hot = np.int64(old.history), np.int64(old.state), np.int64(old.hot)
        total = add_logs(old.blank, old.token)
        most = max(tree.ahead[old.node] + hot_words.ahead[hot], pronunciations.ending)
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
                    pair = (state << 32) | word
                    slot = (pair * FNV_PRIME ^ (pair * FNV_PRIME >> 32)) & (len(search.pairs) - 1)
                    if search.pairs[slot] == pair:
                        lm, after = search.pair_log_probs[slot], search.pair_states[slot]
                    else:
                        lm, after = score_word(trie, state, word)
                        search.pairs[slot] = pair
                        search.pair_log_probs[slot], search.pair_states[slot] = lm, after
                    ended += limits.lm_weight * lm
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
        new.rank = add_logs(new.blank, new.token) + tree.ahead[new.node] + hot_words.ahead[new.hot]
        search.table[new.slot] = NONE
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
    mask = len(search.table) - 1
    code = (((words_hash ^ node) * FNV_PRIME) ^ last) * FNV_PRIME
    slot = (code ^ (code >> 32)) & mask
    while search.table[slot] != NONE:
        new = search.candidates[search.table[slot]]
        if new.words_hash == words_hash and new.node == node and new.last == last:
            if entry != NONE and new.entry != NONE and mass > new.token:  # the better pronunciation is kept
                new.history, new.entry = history, entry
            new.token = add_logs(new.token, mass)
            return count
        slot = (slot + 1) & mask
    search.table[slot] = count
    new = search.candidates[count]
    new.words_hash, new.node, new.last, new.slot = words_hash, node, last, slot
    new.blank, new.token = -np.inf, mass
    new.history, new.state, new.hot, new.entry = history, state, hot, entry
    return count + 1


@compile_inline
def add_logs(a: float, b: float) -> float:
    """Compute log(exp(a) + exp(b)), leaving out what is below exp(-36) of the other, float64's precision."""
    low, high = min(a, b), max(a, b)
    return high if low < high - 36.0 or high == -np.inf else high + np.log1p(np.exp(low - high))


@compile_inline
def select_survivors(limits: Limits, search: LexiconBeamState, count: int) -> None:
    """Make the best candidates the beam, of equal ones those that were found first.

    With ``recombine``, one that is worse in both its endings than another with the same future is dropped.
    """
    candidates, beam, numbers, heap = search.candidates, search.beam, search.numbers, search.order
    best = -np.inf
    for i in range(count):
        best = max(best, candidates[i].rank)
    if best == -np.inf:  # a frame that allows nothing, not even a blank, says nothing
        return
    near = 0
    for i in range(count):
        if candidates[i].rank >= best - limits.beam_threshold and candidates[i].rank > -np.inf:
            heap[near] = i
            near += 1
    for first in range(near // 2, 0, -1):
        sift_down(candidates, heap, first - 1, near)
    size = 0
    while near > 0 and size < limits.beam_size:
        place = heap[0]
        new = candidates[place]
        near -= 1
        heap[0] = heap[near]
        sift_down(candidates, heap, 0, near)
        is_beaten = False
        if limits.recombine:
            for i in range(size):
                other = beam[i]
                same = other.node == new.node and other.state == new.state and other.last == new.last
                if same and other.hot == new.hot and other.blank >= new.blank and other.token >= new.token:
                    is_beaten = True
                    break
        if is_beaten:
            continue
        if new.entry != NONE:
            at = numbers[HISTORIES]
            search.parents[at], search.entries[at] = new.history, new.entry
            new.history, new.entry = at, NONE
            numbers[HISTORIES] += 1
        beam[size] = new
        size += 1
    numbers[SIZE] = size


@compile_inline
def sift_down(candidates: np.ndarray, heap: np.ndarray, at: int, size: int) -> None:
    """Move ``heap[at]`` down to where no better candidate is below it (Williams 1964)."""
    moved = heap[at]
    rank = candidates[moved].rank
    while 2 * at + 1 < size:
        child = 2 * at + 1
        one, other = candidates[heap[child]].rank, -np.inf
        if child + 1 < size:
            other = candidates[heap[child + 1]].rank
            if other > one or (other == one and heap[child + 1] < heap[child]):
                child, one = child + 1, other
        if rank > one or (rank == one and moved < heap[child]):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved
