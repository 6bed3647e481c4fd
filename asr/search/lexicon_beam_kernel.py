"""Token passing through the pronunciations of a lexicon, for tokens that do not spell, compiled.

A hypothesis is a sequence of words and a place in the trie of pronunciations, with the probabilities of
its CTC paths that end in blank and in the last token, summed over paths and pronunciations (Graves et
al. 2006; the lexicon as in Ney & Ortmanns 2000, "Progress in dynamic programming search for LVCSR").
Where a pronunciation ends, the hypothesis continues with longer pronunciations that begin with it, and it
also ends each of the words with this pronunciation and begins a new word. The language model tells
homophones apart; the best unigram that can still be reached is its look-ahead. No token separates words.
"""

# mypy: disable-error-code="attr-defined"
# (numba knows the fields of records, mypy does not)

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_function, compile_inline, compile_no_alloc
from asr.lm.packed import Trie, score_word
from asr.lm.vocabulary import FNV_BASIS, FNV_PRIME
from asr.search.hotwords import HotWordAutomaton
from asr.search.lexicon_trie import ROOT, LexiconTrie
from asr.text.tokenizer import BLANK_TOKEN

NONE = -1


class PronunciationTable(NamedTuple):
    """How words are pronounced, as compiled code reads it.

    tree: the trie of pronunciations, with tokens as letters; its look-ahead is already weighted.
    firsts: ``(pronunciations + 1,)`` int32; pronunciation ``p`` is that of the entries
        ``firsts[p]:firsts[p + 1]``, an entry being a word with a pronunciation.
    words: int32, the word of each entry. numbers: int32, the language model's number of it.
    fees: float64, what an entry adds besides the language model, natural logarithm.
    hot: the automaton of hot phrases, which reads words. hot_symbols: int32, its symbols of the words.
    ending: the most that the end of a word adds to a rank, the language model not counted.
    """

    tree: LexiconTrie
    firsts: np.ndarray
    words: np.ndarray
    numbers: np.ndarray
    fees: np.ndarray
    hot: HotWordAutomaton
    hot_symbols: np.ndarray
    ending: float


class Limits(NamedTuple):
    """Weight and pruning; see ``SearchConfig``. ``lm_weight`` is 0 without a language model."""

    lm_weight: float
    beam_size: int
    beam_threshold: float
    token_threshold: float
    blank_threshold: float  # a log-prob
    recombine: bool


# ``blank`` and ``token``: log probabilities of the paths that end in blank and in ``last``, fusion
# included. ``rank``: with the look-ahead. ``words_hash``: of the words; ``history``: their place in the
# tree of words. ``entry``: the entry that ended in this frame, not yet in that tree, or NONE. ``hot``: the
# state of the automaton of hot phrases.
HYPOTHESIS = np.dtype(
    [
        *((name, np.float64) for name in ("blank", "token", "rank")),
        ("words_hash", np.int64),
        *((name, np.int32) for name in ("history", "node", "last", "state", "hot", "entry", "slot")),
    ],
    align=True,
)


class LexiconBeamState(NamedTuple):
    """A search under way: everything that changes from frame to frame.

    numbers: hypotheses in the beam, entries in the tree of words.
    beam, candidates: hypotheses now and after the next frame. table: a hash table of candidates.
    parents, entries: the tree of words; node 0 is the beginning.
    """

    numbers: np.ndarray
    beam: np.ndarray
    candidates: np.ndarray
    table: np.ndarray
    parents: np.ndarray
    entries: np.ndarray


SIZE, HISTORIES = 0, 1


def count_ways_on(pronunciations: PronunciationTable) -> int:
    """Count the ways in which a hypothesis can continue in a frame, at most."""
    children = pronunciations.tree.first_child
    homophones = np.append(np.diff(pronunciations.firsts), 0)  # 0 for nodes where no word ends, number -1
    ways = np.concatenate([[0], np.cumsum(1 + homophones[pronunciations.tree.words])])
    return 1 + int((ways[children[1:]] - ways[children[:-1]]).max())


def make_state(beam_size: int, most: int, state: int) -> LexiconBeamState:
    """Make a search with room for ``most`` candidates; ``state`` is the language model's at the start."""
    search = LexiconBeamState(
        numbers=np.array([1, 1]),
        beam=np.zeros(beam_size, HYPOTHESIS),
        candidates=np.zeros(most, HYPOTHESIS),
        table=np.full(1 << (2 * most).bit_length(), NONE, np.int32),
        parents=np.zeros(16 * beam_size + 1, np.int32),
        entries=np.zeros(16 * beam_size + 1, np.int32),
    )
    first = search.beam[0]
    first["token"], first["words_hash"], first["last"], first["state"] = -np.inf, FNV_BASIS, NONE, state
    return search


@compile_function
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
        row = rows[frame]
        if row[BLANK_TOKEN] >= limits.blank_threshold:
            for i in range(search.numbers[SIZE]):
                kept = search.beam[i]
                kept.blank = add_logs(kept.blank, kept.token) + row[BLANK_TOKEN]
                kept.token = -np.inf
        else:
            if len(search.parents) - search.numbers[HISTORIES] < limits.beam_size:
                return frame
            select_survivors(limits, search, grow_beam(pronunciations, trie, limits, search, row))
        frame += 1
    return frame


@compile_no_alloc
def grow_beam(
    pronunciations: PronunciationTable, trie: Trie, limits: Limits, search: LexiconBeamState, row: np.ndarray
) -> int:
    """Fill in the candidates that the beam may become in a frame; return how many there are."""
    tree, beam = pronunciations.tree, search.beam
    count, best = 0, -np.inf
    for i in range(search.numbers[SIZE]):
        old = beam[i]
        place = find_candidate(search, count, old.words_hash, old.node, old.last)
        new = search.candidates[place]
        count += 1
        new.history, new.state, new.hot, new.entry = old.history, old.state, old.hot, NONE
        new.blank = add_logs(old.blank, old.token) + row[BLANK_TOKEN]
        new.token = old.token + row[old.last] if old.last >= 0 else -np.inf
        best = max(
            best, add_logs(new.blank, new.token) + tree.ahead[old.node] + pronunciations.hot.ahead[old.hot]
        )
    for i in range(search.numbers[SIZE]):
        old = beam[i]
        total = add_logs(old.blank, old.token)
        most = max(tree.ahead[old.node] + pronunciations.hot.ahead[old.hot], pronunciations.ending)
        for child in range(tree.first_child[old.node], tree.first_child[old.node + 1]):
            token = int(tree.letters[child])
            if row[token] <= limits.token_threshold:
                continue
            mass = (old.blank if token == old.last else total) + row[token]
            if mass + most < best - limits.beam_threshold:
                continue
            if tree.first_child[child] < tree.first_child[child + 1]:
                rank = mass + tree.ahead[child] + pronunciations.hot.ahead[old.hot]
                if rank >= best - limits.beam_threshold:
                    best = max(best, rank)
                    count = add_mass(
                        search,
                        count,
                        old.words_hash,
                        child,
                        token,
                        mass,
                        old.history,
                        old.state,
                        old.hot,
                        NONE,
                    )
            sound = tree.words[child]
            if sound < 0:
                continue
            for entry in range(pronunciations.firsts[sound], pronunciations.firsts[sound + 1]):
                hot = pronunciations.hot.following[old.hot, pronunciations.hot_symbols[entry]]
                ended = mass + pronunciations.fees[entry] + pronunciations.hot.gains[hot]
                ahead, state = tree.ahead[ROOT] + pronunciations.hot.ahead[hot], int(old.state)
                if limits.lm_weight > 0.0:
                    if ended + ahead < best - limits.beam_threshold:
                        continue  # no log probability of the language model is above 0
                    log_prob, state = score_word(trie, state, pronunciations.numbers[entry])
                    ended += limits.lm_weight * log_prob
                if ended + ahead >= best - limits.beam_threshold:
                    best = max(best, ended + ahead)
                    words_hash = (
                        old.words_hash ^ pronunciations.words[entry]
                    ) * FNV_PRIME  # wraps around at 64 bits
                    count = add_mass(
                        search, count, words_hash, ROOT, token, ended, old.history, state, hot, entry
                    )
    for i in range(count):
        new = search.candidates[i]
        new.rank = add_logs(new.blank, new.token) + tree.ahead[new.node] + pronunciations.hot.ahead[new.hot]
        search.table[new.slot] = NONE
    return count


@compile_inline
def find_candidate(search: LexiconBeamState, count: int, words_hash: int, node: int, last: int) -> int:
    """Find the one of ``count`` candidates with these words, this node and last token.

    One that is new is put after the others, its key filled in.
    """
    mask = len(search.table) - 1
    code = (((words_hash ^ node) * FNV_PRIME) ^ last) * FNV_PRIME
    slot = (code ^ (code >> 32)) & mask
    while search.table[slot] != NONE:
        other = search.candidates[search.table[slot]]
        if other.words_hash == words_hash and other.node == node and other.last == last:
            return int(search.table[slot])
        slot = (slot + 1) & mask
    search.table[slot] = count
    new = search.candidates[count]
    new.words_hash, new.node, new.last, new.slot = words_hash, node, last, slot
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
    """Add more paths that end in ``last`` to a candidate; return how many candidates there are."""
    place = find_candidate(search, count, words_hash, node, last)
    new = search.candidates[place]
    if place == count:
        new.blank, new.token = -np.inf, mass
        new.history, new.state, new.hot, new.entry = history, state, hot, entry
        return count + 1
    if entry != NONE and new.entry != NONE and mass > new.token:  # the better pronunciation is kept
        new.history, new.entry = history, entry
    new.token = add_logs(new.token, mass)
    return count


@compile_inline
def add_logs(a: float, b: float) -> float:
    """Compute log(exp(a) + exp(b)), leaving out what is below exp(-36) of the other, float64's precision."""
    low, high = min(a, b), max(a, b)
    return high if low < high - 36.0 or high == -np.inf else high + np.log1p(np.exp(low - high))


@compile_function
def select_survivors(limits: Limits, search: LexiconBeamState, count: int) -> None:
    """Make the best candidates the beam.

    With ``recombine``, one that is worse in both its endings than another with the same future is dropped.
    """
    candidates, beam, numbers = search.candidates, search.beam, search.numbers
    ranks = np.zeros(count)
    best = -np.inf
    for i in range(count):
        ranks[i] = candidates[i].rank
        best = max(best, ranks[i])
    if best == -np.inf:  # a frame that allows nothing, not even a blank, says nothing
        return
    near = np.flatnonzero((ranks >= best - limits.beam_threshold) & (ranks > -np.inf))
    size = 0
    for i in near[np.argsort(-ranks[near])]:
        new = candidates[i]
        if limits.recombine and is_beaten(beam, size, new):
            continue
        if new.entry != NONE:
            at = numbers[HISTORIES]
            search.parents[at], search.entries[at] = new.history, new.entry
            new.history, new.entry = at, NONE
            numbers[HISTORIES] += 1
        beam[size] = new
        size += 1
        if size == limits.beam_size:
            break
    numbers[SIZE] = size


@compile_inline
def is_beaten(beam: np.ndarray, size: int, new: np.void) -> bool:
    """Whether one of the first ``size`` hypotheses has the same future and is better in both endings."""
    for i in range(size):
        other = beam[i]
        same = other.node == new.node and other.state == new.state and other.last == new.last
        if same and other.hot == new.hot and other.blank >= new.blank and other.token >= new.token:
            return True
    return False


@compile_function
def make_room(search: LexiconBeamState) -> LexiconBeamState:
    """Copy a search, keeping of the tree of words what the beam needs, with as much room after it."""
    size, count = search.numbers[SIZE], search.numbers[HISTORIES]
    needed = np.zeros(count, np.bool_)
    needed[0] = True
    for i in range(size):
        at = search.beam[i].history
        while not needed[at]:
            needed[at] = True
            at = search.parents[at]
    kept = needed.sum()
    room = 2 * kept + len(search.beam)
    parents, entries = np.zeros(room, np.int32), np.zeros(room, np.int32)
    places = np.zeros(count, np.int32)
    at = 0
    for i in range(count):  # parents come before their children
        if needed[i]:
            parents[at], entries[at], places[i] = places[search.parents[i]], search.entries[i], at
            at += 1
    for i in range(size):
        search.beam[i].history = places[search.beam[i].history]
    search.numbers[HISTORIES] = kept
    return LexiconBeamState(search.numbers, search.beam, search.candidates, search.table, parents, entries)
