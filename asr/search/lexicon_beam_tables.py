"""What a search by a lexicon works on, whether compiled code or numpy advances it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.lm.vocabulary import FNV_BASIS
from asr.search.hotwords import HotWordAutomaton
from asr.search.lexicon_trie import LexiconTrie

NONE = -1
PAIRS = 1 << 15  # that are remembered; a frame of the English model asks about some four thousand
SLOTS = 1 << 12  # of the hash table at first: what a frame usually needs, so that a core's cache has it


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
    """Weight and pruning; see ``SearchConfig``. ``lm_weight`` is 0 without a language model.

    ``rivals``: a hypothesis is dropped when so many others with the same future are better in both endings;
    0: none is.
    """

    lm_weight: float
    beam_size: int
    beam_threshold: float
    token_threshold: float
    blank_threshold: float  # a log-prob
    rivals: int


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


# What the language model was asked, its state * 2 ** 32 + the word, or NONE, and what it said. Four numbers,
# so that a pair lies in one line of the cache.
PAIR = np.dtype([("key", np.int64), ("log_prob", np.float64), ("state", np.int64), ("", np.int64)])


class LexiconBeamState(NamedTuple):
    """A search under way: everything that changes from frame to frame.

    numbers: hypotheses in the beam, entries in the tree of words, slots of the hash table that are in use.
    beam, candidates: hypotheses now and after the next frame.
    ranks, order, counts: of the candidates, for sorting them; table: a hash table of them. For compiled code
        alone, as are pairs: what the language model was asked, each at its hash.
    parents, entries: the tree of words; node 0 is the beginning.
    """

    numbers: np.ndarray
    beam: np.ndarray
    candidates: np.ndarray
    ranks: np.ndarray
    order: np.ndarray
    counts: np.ndarray
    table: np.ndarray
    pairs: np.ndarray
    parents: np.ndarray
    entries: np.ndarray


SIZE, HISTORIES, SLOTS_USED = range(3)


def count_ways_on(pronunciations: PronunciationTable) -> int:
    """Count the ways in which a hypothesis can continue in a frame, at most."""
    children = pronunciations.tree.first_child
    homophones = np.append(np.diff(pronunciations.firsts), 0)  # 0 for nodes where no word ends, number -1
    ways = np.concatenate([[0], np.cumsum(1 + homophones[pronunciations.tree.words])])
    return 1 + int((ways[children[1:]] - ways[children[:-1]]).max())


def make_state(beam_size: int, most: int, state: int) -> LexiconBeamState:
    """Make a search with room for ``most`` candidates; ``state`` is the language model's at the start."""
    slots = 1 << (2 * most).bit_length()
    search = LexiconBeamState(
        numbers=np.array([1, 1, min(SLOTS, slots)]),
        beam=np.zeros(beam_size, HYPOTHESIS),
        candidates=np.zeros(most, HYPOTHESIS),
        ranks=np.zeros(most),
        order=np.zeros(most, np.int32),
        counts=np.zeros(slots, np.int32),
        table=np.zeros(slots, np.int32),
        pairs=np.zeros(PAIRS, PAIR),
        parents=np.zeros(16 * beam_size + 1, np.int32),
        entries=np.zeros(16 * beam_size + 1, np.int32),
    )
    search.pairs["key"] = NONE
    first = search.beam[0]
    first["token"], first["words_hash"], first["last"], first["state"] = -np.inf, FNV_BASIS, NONE, state
    return search


def make_room(search: LexiconBeamState) -> LexiconBeamState:
    """Copy a search, keeping of the tree of words what the beam needs, with as much room after it."""
    beam, parents = search.beam[: search.numbers[SIZE]], search.parents
    needed = np.zeros(search.numbers[HISTORIES], bool)
    needed[0] = True
    at = np.unique(beam["history"])
    while len(at):
        needed[at] = True
        at = parents[at]
        at = at[~needed[at]]
    kept = np.flatnonzero(needed)
    places = np.cumsum(needed) - 1
    room = np.zeros(len(kept) + len(search.beam), np.int32)
    beam["history"] = places[beam["history"]]
    search.numbers[HISTORIES] = len(kept)
    return search._replace(
        parents=np.concatenate([places[parents[kept]].astype(np.int32), room]),
        entries=np.concatenate([search.entries[kept], room]),
    )
