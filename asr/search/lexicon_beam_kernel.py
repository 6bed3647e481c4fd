"""Word search for tokens that do not spell: token passing through the pronunciations of a lexicon, compiled.

A hypothesis is a sequence of words and a place in the trie of pronunciations, with the probabilities of
its CTC paths that end in blank and in the last token, summed over paths and pronunciations (Graves et
al. 2006; the lexicon as in Ney & Ortmanns 2000, "Progress in dynamic programming search for LVCSR").
Where a pronunciation ends, the hypothesis goes on, if a longer one begins so, and besides begins a new
word behind each of the words that sound like this: homophones are told apart by the language model, of
which the best unigram that can still be reached is looked ahead to. No token stands between words.
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
    """What words sound like.

    tree: the trie of pronunciations, tokens as letters; its look-ahead is weighted already.
    firsts: ``(pronunciations + 1,)`` int32; pronunciation ``p`` is that of the entries
        ``firsts[p]:firsts[p + 1]``, an entry being a word with a pronunciation.
    words: int32, the word of each entry. numbers: int32, what the language model calls it.
    fees: float64, what an entry adds besides the language model's opinion, natural logarithm.
    hot: the automaton of hot phrases, which reads words. heat: int32, what it calls the word of each entry.
    ending: what the end of a word adds to a rank at most, the language model's opinion left out.
    """

    tree: LexiconTrie
    firsts: np.ndarray
    words: np.ndarray
    numbers: np.ndarray
    fees: np.ndarray
    hot: HotWordAutomaton
    heat: np.ndarray
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
# included. ``rank``: with the look-ahead. ``said``: a hash of the words; ``history``: their place in the
# tree of words. ``entry``: the entry that ended in this frame, not yet in that tree, or NONE. ``hot``: the
# state of the automaton of hot phrases.
HYPOTHESIS = np.dtype(
    [
        *((name, np.float64) for name in ("blank", "token", "rank")),
        ("said", np.int64),
        *((name, np.int32) for name in ("history", "node", "last", "state", "hot", "entry", "slot")),
    ],
    align=True,
)


class LexiconBeamState(NamedTuple):
    """A search under way: everything that changes.

    numbers: hypotheses in the beam, entries in the tree of words.
    beam, candidates: hypotheses now and after the next frame. table: a hash table of candidates.
    parents, entries: the tree of words; node 0 is no word at all.
    """

    numbers: np.ndarray
    beam: np.ndarray
    candidates: np.ndarray
    table: np.ndarray
    parents: np.ndarray
    entries: np.ndarray


SIZE, HISTORIES = 0, 1


def count_ways_on(sounds: PronunciationTable) -> int:
    """In how many ways a hypothesis can go on in a frame, at most."""
    children = sounds.tree.first_child
    alike = np.append(np.diff(sounds.firsts), 0)  # and 0 for nodes where no word ends, whose number is -1
    ways = np.concatenate([[0], np.cumsum(1 + alike[sounds.tree.words])])
    return 1 + int((ways[children[1:]] - ways[children[:-1]]).max())


def make_state(beam_size: int, most: int, state: int) -> LexiconBeamState:
    """A search before its first frame, with room for ``most`` candidates; ``state``: the language model's."""
    passing = LexiconBeamState(
        numbers=np.array([1, 1]),
        beam=np.zeros(beam_size, HYPOTHESIS),
        candidates=np.zeros(most, HYPOTHESIS),
        table=np.full(1 << (2 * most).bit_length(), NONE, np.int32),
        parents=np.zeros(16 * beam_size + 1, np.int32),
        entries=np.zeros(16 * beam_size + 1, np.int32),
    )
    first = passing.beam[0]
    first["token"], first["said"], first["last"], first["state"] = -np.inf, FNV_BASIS, NONE, state
    return passing


@compile_function
def advance(
    sounds: PronunciationTable,
    trie: Trie,
    limits: Limits,
    passing: LexiconBeamState,
    rows: np.ndarray,
    frame: int,
) -> int:
    """Read log-probs ``(frames, vocabulary)`` from ``frame`` on.

    Returns the first frame that was not read: there is none, or the tree of words needs more room first.
    """
    while frame < len(rows):
        row = rows[frame]
        if row[BLANK_TOKEN] >= limits.blank_threshold:
            for i in range(passing.numbers[SIZE]):
                kept = passing.beam[i]
                kept.blank = add_logs(kept.blank, kept.token) + row[BLANK_TOKEN]
                kept.token = -np.inf
        else:
            if len(passing.parents) - passing.numbers[HISTORIES] < limits.beam_size:
                return frame
            select_survivors(limits, passing, grow_beam(sounds, trie, limits, passing, row))
        frame += 1
    return frame


@compile_no_alloc
def grow_beam(
    sounds: PronunciationTable, trie: Trie, limits: Limits, passing: LexiconBeamState, row: np.ndarray
) -> int:
    """All that the hypotheses of the beam may become by a frame; returns how many candidates there are."""
    tree, beam = sounds.tree, passing.beam
    count, best = 0, -np.inf
    for i in range(passing.numbers[SIZE]):
        old = beam[i]
        place = find_candidate(passing, count, old.said, old.node, old.last)
        new = passing.candidates[place]
        count += 1
        new.history, new.state, new.hot, new.entry = old.history, old.state, old.hot, NONE
        new.blank = add_logs(old.blank, old.token) + row[BLANK_TOKEN]
        new.token = old.token + row[old.last] if old.last >= 0 else -np.inf
        best = max(best, add_logs(new.blank, new.token) + tree.ahead[old.node] + sounds.hot.ahead[old.hot])
    for i in range(passing.numbers[SIZE]):
        old = beam[i]
        total = add_logs(old.blank, old.token)
        most = max(tree.ahead[old.node] + sounds.hot.ahead[old.hot], sounds.ending)
        for child in range(tree.first_child[old.node], tree.first_child[old.node + 1]):
            token = int(tree.letters[child])
            if row[token] <= limits.token_threshold:
                continue
            mass = (old.blank if token == old.last else total) + row[token]
            if mass + most < best - limits.beam_threshold:
                continue
            if tree.first_child[child] < tree.first_child[child + 1]:
                rank = mass + tree.ahead[child] + sounds.hot.ahead[old.hot]
                if rank >= best - limits.beam_threshold:
                    best = max(best, rank)
                    count = add_mass(
                        passing, count, old.said, child, token, mass, old.history, old.state, old.hot, NONE
                    )
            sound = tree.words[child]
            if sound < 0:
                continue
            for entry in range(sounds.firsts[sound], sounds.firsts[sound + 1]):
                hot = sounds.hot.following[old.hot, sounds.heat[entry]]
                ended = mass + sounds.fees[entry] + sounds.hot.gains[hot]
                ahead, state = tree.ahead[ROOT] + sounds.hot.ahead[hot], int(old.state)
                if limits.lm_weight > 0.0:
                    if ended + ahead < best - limits.beam_threshold:
                        continue  # no opinion of the language model is above 0
                    log_prob, state = score_word(trie, state, sounds.numbers[entry])
                    ended += limits.lm_weight * log_prob
                if ended + ahead >= best - limits.beam_threshold:
                    best = max(best, ended + ahead)
                    said = (old.said ^ sounds.words[entry]) * FNV_PRIME  # wraps around at 64 bits
                    count = add_mass(passing, count, said, ROOT, token, ended, old.history, state, hot, entry)
    for i in range(count):
        new = passing.candidates[i]
        new.rank = add_logs(new.blank, new.token) + tree.ahead[new.node] + sounds.hot.ahead[new.hot]
        passing.table[new.slot] = NONE
    return count


@compile_inline
def find_candidate(passing: LexiconBeamState, count: int, said: int, node: int, last: int) -> int:
    """Where among ``count`` candidates the one with these words, this node and last token stands.

    One that is new stands behind the others, its key filled in.
    """
    mask = len(passing.table) - 1
    code = (((said ^ node) * FNV_PRIME) ^ last) * FNV_PRIME
    slot = (code ^ (code >> 32)) & mask
    while passing.table[slot] != NONE:
        other = passing.candidates[passing.table[slot]]
        if other.said == said and other.node == node and other.last == last:
            return int(passing.table[slot])
        slot = (slot + 1) & mask
    passing.table[slot] = count
    new = passing.candidates[count]
    new.said, new.node, new.last, new.slot = said, node, last, slot
    return count


@compile_inline
def add_mass(
    passing: LexiconBeamState,
    count: int,
    said: int,
    node: int,
    last: int,
    mass: float,
    history: int,
    state: int,
    hot: int,
    entry: int,
) -> int:
    """Give a candidate the probability of more paths that end in ``last``; returns how many there are."""
    place = find_candidate(passing, count, said, node, last)
    new = passing.candidates[place]
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
    """log(exp(a) + exp(b)); what is less than exp(-36) of the other, about as much as float64 can tell from
    nothing, is left out."""
    low, high = min(a, b), max(a, b)
    return high if low < high - 36.0 or high == -np.inf else high + np.log1p(np.exp(low - high))


@compile_function
def select_survivors(limits: Limits, passing: LexiconBeamState, count: int) -> None:
    """Make the best candidates the beam.

    With ``recombine``, one that is worse in both its endings than another with the same future is none.
    """
    candidates, beam, numbers = passing.candidates, passing.beam, passing.numbers
    ranks = np.zeros(count)
    for i in range(count):
        ranks[i] = candidates[i].rank
    best = ranks.max()
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
            passing.parents[at], passing.entries[at] = new.history, new.entry
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
def make_room(passing: LexiconBeamState) -> LexiconBeamState:
    """The same search; of the tree of words, what the beam needs is kept, with as much room behind it."""
    size, count = passing.numbers[SIZE], passing.numbers[HISTORIES]
    needed = np.zeros(count, np.bool_)
    needed[0] = True
    for i in range(size):
        at = passing.beam[i].history
        while not needed[at]:
            needed[at] = True
            at = passing.parents[at]
    kept = needed.sum()
    room = 2 * kept + len(passing.beam)
    parents, entries = np.zeros(room, np.int32), np.zeros(room, np.int32)
    places = np.zeros(count, np.int32)
    at = 0
    for i in range(count):  # parents come before their children
        if needed[i]:
            parents[at], entries[at], places[i] = places[passing.parents[i]], passing.entries[i], at
            at += 1
    for i in range(size):
        passing.beam[i].history = places[passing.beam[i].history]
    passing.numbers[HISTORIES] = kept
    return LexiconBeamState(
        passing.numbers, passing.beam, passing.candidates, passing.table, parents, entries
    )
