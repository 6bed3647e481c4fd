"""The search of ``lexicon_beam_kernel`` in numpy, for short recordings.

To load a compiler and what it has compiled takes as long as this search takes for ten seconds of speech, a
third of the memory of the whole program, and half a minute where nothing is compiled yet. Both do the same;
this one, which sees all paths of a frame at once, may keep some that are hopeless, and adds in another order.
"""

from __future__ import annotations

import numpy as np

from asr.lm.packed import COUNT, Trie, score_words
from asr.lm.vocabulary import FNV_BASIS, FNV_PRIME
from asr.search.lexicon_beam_tables import (
    HISTORIES,
    NONE,
    SIZE,
    LexiconBeamState,
    Limits,
    PronunciationTable,
)
from asr.search.lexicon_trie import ROOT
from asr.text.tokenizer import BLANK_TOKEN

MOST_PAIRS = 1 << 16  # that are compared at once


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
    scores = PairScores(trie)
    while frame < len(rows):
        row = rows[frame].astype(np.float64)
        beam = search.beam[: search.numbers[SIZE]]
        if row[BLANK_TOKEN] >= limits.blank_threshold:
            beam["blank"] = np.logaddexp(beam["blank"], beam["token"]) + row[BLANK_TOKEN]
            beam["token"] = -np.inf
        else:
            if len(search.parents) - search.numbers[HISTORIES] < limits.beam_size:
                return frame
            with np.errstate(invalid="ignore"):  # hypotheses that are impossible fall away
                paths = grow_beam(pronunciations, scores, limits, beam, row)
            candidates = merge_paths(paths)
            # In this order, as compiled code adds them: ranks that are equal there must be equal here.
            candidates["rank"] = np.logaddexp(candidates["blank"], candidates["token"])
            candidates["rank"] += pronunciations.tree.ahead[candidates["node"]]
            candidates["rank"] += pronunciations.hot.ahead[candidates["hot"]]
            select_survivors(limits, search, candidates)
        frame += 1
    return frame


class PairScores:
    """What a language model says of words after states; remembers what it was asked last.

    Most hypotheses of a frame are those of the frame before, and could end the same words.
    """

    def __init__(self, trie: Trie) -> None:
        self.trie = trie
        self.pairs = np.zeros(0, np.int64)  # sorted
        self.log_probs, self.states = np.zeros(0), np.zeros(0, np.int64)

    def score(self, states: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Do what ``score_words`` does."""
        vocabulary = self.trie.layout[1, COUNT]
        pairs, places = np.unique(states * vocabulary + words, return_inverse=True)
        log_probs, after = np.zeros(len(pairs)), np.zeros(len(pairs), np.int64)
        before = np.searchsorted(self.pairs, pairs)
        is_known = np.append(self.pairs, -1)[before] == pairs
        before = before[is_known]
        log_probs[is_known], after[is_known] = self.log_probs[before], self.states[before]
        is_new = ~is_known
        new = score_words(self.trie, pairs[is_new] // vocabulary, pairs[is_new] % vocabulary)
        log_probs[is_new], after[is_new] = new
        self.pairs, self.log_probs, self.states = pairs, log_probs, after
        return log_probs[places], after[places]


def grow_beam(
    pronunciations: PronunciationTable, scores: PairScores, limits: Limits, beam: np.ndarray, row: np.ndarray
) -> np.ndarray:
    """List the paths that the beam may become in a frame, first those that stay where they are."""
    tree, hot_words = pronunciations.tree, pronunciations.hot
    blank, nodes, last = beam["blank"].copy(), beam["node"].copy(), beam["last"].copy()
    total = np.logaddexp(blank, beam["token"])
    stays = beam.copy()
    stays["entry"] = NONE
    stays["blank"] = total + row[BLANK_TOKEN]
    stays["token"] = np.where(last >= 0, beam["token"] + row[last], -np.inf)
    hot_ahead = hot_words.ahead[beam["hot"]]
    ahead = tree.ahead[nodes] + hot_ahead
    best = (np.logaddexp(stays["blank"], stays["token"]) + tree.ahead[nodes] + hot_ahead).max()

    owners, children = list_ranges(tree.first_child[nodes], tree.first_child[nodes + 1])
    tokens = tree.letters[children]
    mass = np.where(tokens == last[owners], blank[owners], total[owners]) + row[tokens]
    most = np.maximum(ahead, pronunciations.ending)
    near = (row[tokens] > limits.token_threshold) & (mass + most[owners] >= best - limits.beam_threshold)
    owners, children, tokens, mass = owners[near], children[near], tokens[near], mass[near]
    inner = np.flatnonzero(tree.first_child[children] < tree.first_child[children + 1])
    ranks = mass[inner] + tree.ahead[children[inner]] + hot_ahead[owners[inner]]
    best = max(best, ranks.max(initial=-np.inf))
    inner = inner[ranks >= best - limits.beam_threshold]

    sounds = tree.words[children]
    ends = np.flatnonzero((sounds >= 0) & (mass + pronunciations.ending >= best - limits.beam_threshold))
    places, entries = list_ranges(
        pronunciations.firsts[sounds[ends]], pronunciations.firsts[sounds[ends] + 1]
    )
    ends = ends[places]
    hot = hot_words.following[beam["hot"][owners[ends]], pronunciations.hot_symbols[entries]]
    ended = mass[ends] + pronunciations.fees[entries] + hot_words.gains[hot]
    ahead = tree.ahead[ROOT] + hot_words.ahead[hot]
    states = beam["state"][owners[ends]]
    if limits.lm_weight > 0.0:
        near = ended + ahead >= best - limits.beam_threshold  # no log probability of a word is above 0
        ends, entries, hot, ended = ends[near], entries[near], hot[near], ended[near]
        ahead, states = ahead[near], states[near]
        log_probs, states = scores.score(states, pronunciations.numbers[entries])
        ended = ended + limits.lm_weight * log_probs
    best = max(best, (ended + ahead).max(initial=-np.inf))
    near = ended + ahead >= best - limits.beam_threshold
    ends, entries, hot, ended, states = ends[near], entries[near], hot[near], ended[near], states[near]

    moved = beam[owners[inner]]
    moved["node"], moved["last"], moved["entry"] = children[inner], tokens[inner], NONE
    moved["blank"], moved["token"] = -np.inf, mass[inner]
    spoken = beam[owners[ends]]
    spoken["words_hash"] = (spoken["words_hash"] ^ pronunciations.words[entries]) * FNV_PRIME
    spoken["node"], spoken["last"], spoken["entry"] = ROOT, tokens[ends], entries
    spoken["blank"], spoken["token"] = -np.inf, ended
    spoken["state"], spoken["hot"] = states, hot
    order = np.argsort(np.concatenate([inner, ends]), kind="stable")
    return np.concatenate([stays, np.concatenate([moved, spoken])[order]])


def list_ranges(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List the numbers of all ranges one after the other; also which range each is from, before them."""
    counts = (ends - begins).astype(np.int64)
    owners = np.repeat(np.arange(len(counts)), counts)
    shifts = begins - (np.cumsum(counts) - counts)
    return owners, shifts[owners] + np.arange(len(owners))


def merge_paths(paths: np.ndarray) -> np.ndarray:
    """Merge paths with the same words, node and last token, in the order of the first of them."""
    codes = ((paths["words_hash"] ^ paths["node"]) * FNV_PRIME ^ paths["last"]) * FNV_PRIME
    order = np.argsort(codes, kind="stable")
    is_first = np.append(True, codes[order[1:]] != codes[order[:-1]])
    firsts = np.flatnonzero(is_first)
    counts = np.diff(np.append(firsts, len(order)))
    merged = paths[order[firsts]]
    for number in range(1, int(counts.max(initial=0))):
        at = np.flatnonzero(counts > number)
        more = paths[order[firsts[at] + number]]
        is_better = (more["entry"] != NONE) & (merged["entry"][at] != NONE)
        is_better &= more["token"] > merged["token"][at]  # the better pronunciation is kept
        for name in ("history", "entry"):
            merged[name][at[is_better]] = more[name][is_better]
        merged["token"][at] = np.logaddexp(merged["token"][at], more["token"])
    return merged[np.argsort(order[firsts])]


def select_survivors(limits: Limits, search: LexiconBeamState, candidates: np.ndarray) -> None:
    """Make the best candidates the beam, of equal ones those that were found first."""
    ranks = candidates["rank"]
    best = ranks.max()
    if best == -np.inf:  # a frame that allows nothing, not even a blank, says nothing
        return
    near = np.flatnonzero((ranks >= best - limits.beam_threshold) & (ranks > -np.inf))
    best_first = candidates[near[np.argsort(-ranks[near], kind="stable")]]
    if limits.rivals > 0:
        best_first = best_first[find_survivors(best_first, limits.rivals)]
    kept = best_first[: limits.beam_size]
    ended = np.flatnonzero(kept["entry"] != NONE)
    begin = search.numbers[HISTORIES]
    histories = slice(begin, begin + len(ended))
    search.parents[histories], search.entries[histories] = kept["history"][ended], kept["entry"][ended]
    kept["history"][ended] = np.arange(begin, begin + len(ended))
    kept["entry"] = NONE
    search.beam[: len(kept)] = kept
    search.numbers[HISTORIES] += len(ended)
    search.numbers[SIZE] = len(kept)


def find_survivors(hypotheses: np.ndarray, rivals: int) -> np.ndarray:
    """Find the places of those that fewer than ``rivals`` earlier ones beat: same future, better endings.

    Whoever beats one that is dropped beats all that this one beats, so that those dropped count like others.
    """
    codes = np.full(len(hypotheses), FNV_BASIS)
    for name in ("node", "state", "last", "hot"):
        codes = (codes ^ hypotheses[name]) * FNV_PRIME
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.append(True, codes[order[1:]] != codes[order[:-1]]))
    sizes = np.diff(np.append(starts, len(order)))
    firsts = np.repeat(starts, sizes)
    blank, token = hypotheses["blank"][order], hypotheses["token"][order]
    kept = np.ones(len(order), bool)
    crowded = np.flatnonzero(np.arange(len(order)) - firsts >= rivals)
    ends = np.cumsum(crowded - firsts[crowded])
    for part in np.split(crowded, np.flatnonzero(np.diff(ends // MOST_PAIRS)) + 1):
        owners, others = list_ranges(firsts[part], part)
        mine = part[owners]
        beaten = (blank[others] >= blank[mine]) & (token[others] >= token[mine])
        kept[part] = np.bincount(owners, beaten, len(part)) < rivals
    return np.sort(order[kept])
