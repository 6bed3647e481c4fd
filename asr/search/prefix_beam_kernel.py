"""Prefix beam search over CTC log-probs with word n-gram fusion, compiled.

The algorithm is that of Hannun et al. (2014, arXiv:1408.2873, algorithm 1), the probabilities of all
paths of a prefix summed, with five changes that make it fast:

- Probabilities are multiplied, not added as logarithms, and every frame is scaled so that its best
  prefix has 1: merging two paths is one addition, and no exponential or logarithm is taken per
  candidate. What was scaled away is kept as one logarithm.
- A prefix is a node of a tree in flat arrays. Two paths to one prefix meet in its node, found
  through the parent's children; no string or list is ever compared. Nodes that nothing refers to
  go back to a free list, so that memory depends on the beam and not on the length of the audio.
- A node knows its place in the trie of the vocabulary. The best unigram that can be reached from
  there ranks unfinished words (look-ahead), but is no part of their probability, so that nothing
  has to be taken back. The language model is asked once per node, when a word may end there.
- Prefixes between which the future cannot tell (same language model state, same place in the
  trie, same last token) compete: one that is worse in both its endings is dropped. That is all but
  exact: only paths that still come to it from its own parent could have made it the better one.
- Frames that are surely blank only say that a token ended; runs of them cost as much as one.
"""

# mypy: disable-error-code="attr-defined"
# (numba knows the fields of records, mypy does not)

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_inline, compile_no_alloc
from asr.lm.packed import Trie, score_word
from asr.search.hotwords import SPACE, HotWordAutomaton
from asr.search.lexicon_trie import OUT, ROOT, LexiconTrie, find_child
from asr.text.tokenizer import BLANK_TOKEN

NONE = -1
MOST_TOKENS = 40  # that are tried in a frame, besides the blank


class TokenTexts(NamedTuple):
    """What each token contributes to the text, as bytes.

    letters: uint8, of all tokens one after the other.
    bounds: ``(tokens + 1,)`` int32; token ``t`` is ``letters[bounds[t]:bounds[t + 1]]``.
    borders: ``(tokens,)`` bool, whether there is a space in it, so that a word may end.
    """

    letters: np.ndarray
    bounds: np.ndarray
    borders: np.ndarray
    single: np.ndarray


class Fusion(NamedTuple):
    """The numbers behind the words: weights as they enter scores, and the language model's own.

    ``lm_weight`` is 0 without a language model. A word outside the lexicon adds ``unknown`` for every
    letter besides the language model's opinion of ``unknown_word``; minus infinity closes the lexicon.
    The letters are paid for when a prefix leaves the lexicon, or when its word ends inside it.
    ``outside`` ranks a prefix outside the lexicon by what its end will cost. A token multiplies
    a prefix's rank by ``inner_bound`` at most; one with a space takes it to its probability times
    ``border_bound`` at most.
    """

    lm_weight: float
    word_bonus: float
    unknown: float
    outside: float
    inner_bound: float
    border_bound: float
    unknown_word: int
    end_word: int


class Pruning(NamedTuple):
    """What is not looked at; see ``SearchConfig``. ``recombine`` drops all but the best of rivals."""

    beam_size: int
    worst_share: float  # exp(-beam_threshold)
    token_threshold: float
    blank_threshold: float  # a log-prob
    recombine: bool


class SearchTables(NamedTuple):
    """All that a search knows besides log-probs; arrays that many searches share."""

    pieces: TokenTexts
    lexicon: LexiconTrie
    ahead: np.ndarray  # (lexicon's nodes,) float32: exp(lm_weight * look-ahead), for ranking
    trie: Trie
    hot: HotWordAutomaton
    hot_ahead: np.ndarray  # (hot states,) exp of their look-ahead
    fusion: Fusion
    pruning: Pruning


# A prefix. ``links`` counts its children, and one more while it is in the beam; at 0 the node is free.
# ``slot`` is its place in the beam. ``place``, ``state`` and ``hot`` are where it stands in lexicon,
# language model and hot words. ``lm``, ``words`` and ``extra`` are sums over its finished words: log
# probability, number, and all that unknown and hot words add. ``step`` is the factor by which fusion
# changed the probability from parent to node. ``end_*``: what ``word_end`` says, when ``ended``.
NODE = np.dtype(
    [
        *((name, np.int32) for name in ("parent", "token", "first", "sibling", "links", "slot")),
        *((name, np.int32) for name in ("place", "state", "hot", "words", "end_state", "ended")),
        *((name, np.float64) for name in ("lm", "extra", "step", "end_lm", "end_extra", "end_factor")),
    ],
    align=True,
)

# A prefix in the beam. ``blank`` and ``token`` are the probabilities of its paths that end in blank
# and in its last token, fusion included, scaled; ``ahead`` is the factor that ranks it. ``child`` and
# ``brother`` lead to prefixes in the beam that are its children, during one frame.
ENTRY = np.dtype(
    [
        ("blank", np.float64), ("token", np.float64), ("ahead", np.float64),
        ("node", np.int32), ("last", np.int32), ("child", np.int32), ("brother", np.int32),
    ],
    align=True,
)  # fmt: skip

# A prefix that may come into the next beam: entry ``origin`` with the token ``added``, or NONE for the
# entry itself; its probability and rank. ``mass`` is used for those with a token.
CANDIDATE = np.dtype(
    [("mass", np.float64), ("rank", np.float64), ("origin", np.int32), ("added", np.int32)], align=True
)


class PrefixBeamState(NamedTuple):
    """A search under way: everything that changes.

    numbers: prefixes in the beam, free nodes, the root, whether the last frame was skipped.
    scale: ``(1,)``, the logarithm of what probabilities were divided by.
    beam, successors: entries now and after this frame.
    candidates, order, tokens, probs, table: what a frame needs and the next one overwrites; ``probs``
    has an entry for every token, 0 for pruned ones, ``table`` is a hash table of entries.
    """

    numbers: np.ndarray
    scale: np.ndarray
    nodes: np.ndarray
    free: np.ndarray
    beam: np.ndarray
    successors: np.ndarray
    candidates: np.ndarray
    order: np.ndarray
    tokens: np.ndarray
    probs: np.ndarray
    table: np.ndarray


SIZE, FREE, ROOT_NODE, SKIPPED = 0, 1, 2, 3


@compile_inline
def finish_word(known: SearchTables, place: int, state: int) -> tuple[float, float, int, float]:
    """What finishing a word at ``place`` after ``state`` does.

    Returns the factor on the prefix's probability, the language model's log probability and state,
    and what an unknown word adds.
    """
    fusion = known.fusion
    word = known.lexicon.words[place] if place >= 0 else NONE
    extra, log_prob = 0.0, 0.0
    if word < 0:
        word = fusion.unknown_word
        if place >= 0:
            extra = fusion.unknown * known.lexicon.depths[place]
    if fusion.lm_weight != 0.0:
        log_prob, state = score_word(known.trie, state, word)
    return np.exp(fusion.lm_weight * log_prob + fusion.word_bonus + extra), log_prob, state, extra


@compile_inline
def remember_word_end(known: SearchTables, nodes: np.ndarray, at: int) -> None:
    """Ask what finishing the last word of a node does, and remember it."""
    node = nodes[at]
    factor, log_prob, state, extra = finish_word(known, node.place, node.state)
    node.end_factor, node.end_lm, node.end_state, node.end_extra = factor, log_prob, state, extra
    node.ended = 1


@compile_inline
def append_token(
    known: SearchTables, nodes: np.ndarray, at: int, token: int
) -> tuple[float, int, int, int, int, float, float]:
    """Where a node gets to by ``token``.

    Returns the factor on its probability (0 where a closed lexicon ends), its places in the lexicon,
    in the language model and among the hot words, and what is added to its words, lm and extra.
    """
    node = nodes[at]
    place, state, hot = node.place, node.state, node.hot
    factor, words, lm, extra = 1.0, 0, 0.0, 0.0
    pieces, fusion = known.pieces, known.fusion
    closed = fusion.unknown == -np.inf
    first = pieces.bounds[token]
    for i in range(first, pieces.bounds[token + 1]):
        letter = pieces.letters[i]
        if letter == SPACE:
            if place == ROOT:  # a second space ends no word
                continue
            if i == first:
                if not node.ended:
                    remember_word_end(known, nodes, at)
                end_factor, end_lm = node.end_factor, node.end_lm
                state, end_extra = node.end_state, node.end_extra
            else:
                end_factor, end_lm, state, end_extra = finish_word(known, place, state)
            factor, words, lm, extra = factor * end_factor, words + 1, lm + end_lm, extra + end_extra
            place = ROOT
        else:
            before = place
            place = find_child(known.lexicon, before, letter)
            if place == OUT:
                if closed:
                    return 0.0, place, state, hot, words, lm, extra
                fee = fusion.unknown * (1 if before < 0 else known.lexicon.depths[before] + 1)
                factor, extra = factor * np.exp(fee), extra + fee
        hot = known.hot.following[hot, letter]
        gain = known.hot.gains[hot]
        if gain != 0.0:
            factor, extra = factor * np.exp(gain), extra + gain
    return factor, place, state, hot, words, lm, extra


@compile_inline
def look_ahead(known: SearchTables, place: int, hot: int) -> float:
    """The factor that ranks a prefix by what its unfinished word can become."""
    return (known.ahead[place] if place >= 0 else known.fusion.outside) * known.hot_ahead[hot]


@compile_no_alloc
def start(search: PrefixBeamState, state: int, hot: int) -> None:
    """Start anew with the empty prefix, whatever was searched before."""
    numbers, free = search.numbers, search.free
    for i in range(len(free)):
        free[i] = len(free) - 1 - i
    numbers[FREE] = len(free)
    root = add_node(search, NONE, NONE)
    node = search.nodes[root]
    node.place, node.state, node.hot = ROOT, state, hot
    node.words, node.lm, node.extra, node.step, node.slot = 0, 0.0, 0.0, 1.0, 0
    node.links += 1  # the root is never free
    numbers[SIZE], numbers[ROOT_NODE], numbers[SKIPPED] = 1, root, 0
    entry = search.beam[0]
    entry.node, entry.last, entry.blank, entry.token, entry.ahead = root, NONE, 1.0, 0.0, 1.0
    search.scale[0] = 0.0


@compile_inline
def add_node(search: PrefixBeamState, parent: int, token: int) -> int:
    """A node in the beam, first among its parent's children; where it stands is for the caller to say."""
    nodes, numbers = search.nodes, search.numbers
    numbers[FREE] -= 1
    at = search.free[numbers[FREE]]
    node = nodes[at]
    node.parent, node.token, node.first, node.sibling = parent, token, NONE, NONE
    node.links, node.ended, node.slot = 1, 0, NONE
    if parent >= 0:
        node.sibling = nodes[parent].first
        nodes[parent].first = at
        nodes[parent].links += 1
    return at


@compile_inline
def release(search: PrefixBeamState, at: int) -> None:
    """Take one link from a node; when it was the last one, free the node and go on with its parent."""
    nodes, numbers = search.nodes, search.numbers
    nodes[at].links -= 1
    while nodes[at].links == 0:
        parent = nodes[at].parent
        if nodes[parent].first == at:
            nodes[parent].first = nodes[at].sibling
        else:
            brother = nodes[parent].first
            while nodes[brother].sibling != at:
                brother = nodes[brother].sibling
            nodes[brother].sibling = nodes[at].sibling
        search.free[numbers[FREE]] = at
        numbers[FREE] += 1
        at = parent
        nodes[at].links -= 1


@compile_no_alloc
def advance(known: SearchTables, search: PrefixBeamState, log_probs: np.ndarray, frame: int) -> int:
    """Read log-probs ``(frames, vocabulary)`` from ``frame`` on.

    Returns the first frame that was not read: there is none, or the tree needs more room first.
    """
    pruning, numbers = known.pruning, search.numbers
    while frame < len(log_probs):
        blank = log_probs[frame, BLANK_TOKEN]
        if blank >= pruning.blank_threshold:
            search.scale[0] += blank
            if not numbers[SKIPPED]:
                skip_blank(search.beam, numbers[SIZE])
                numbers[SKIPPED] = 1
        else:
            if numbers[FREE] < pruning.beam_size:
                return frame
            likely = pick_likely_tokens(
                search.tokens, search.probs, log_probs[frame], pruning.token_threshold
            )
            best = extend_without_token(search)
            if best > 0.0:  # a frame that allows nothing, not even a blank, says nothing
                select_survivors(known, search, extend_with_tokens(known, search, likely, best))
                numbers[SKIPPED] = 0
            for i in range(likely):
                search.probs[search.tokens[i]] = 0.0
        frame += 1
    return frame


@compile_inline
def skip_blank(beam: np.ndarray, size: int) -> None:
    """A frame that is surely blank: all paths end in it."""
    for i in range(size):
        beam[i].blank += beam[i].token
        beam[i].token = 0.0


@compile_inline
def pick_likely_tokens(tokens: np.ndarray, probs: np.ndarray, row: np.ndarray, threshold: float) -> int:
    """Fill in the tokens above the threshold, likely ones first, and what is probable; returns how many.

    Where more are above it than ``tokens`` has room for, the likeliest are taken.
    """
    count, room = 0, len(tokens)
    for token in range(1, len(row)):
        if row[token] > threshold:
            at = min(count, room - 1)
            while at > 0 and row[tokens[at - 1]] < row[token]:
                tokens[at] = tokens[at - 1]
                at -= 1
            tokens[at] = token
            count = min(count + 1, room)
            if count == room:
                threshold = max(threshold, row[tokens[room - 1]])
    probs[BLANK_TOKEN] = np.exp(np.float64(row[BLANK_TOKEN]))
    for i in range(count):
        probs[tokens[i]] = np.exp(np.float64(row[tokens[i]]))
    return count


@compile_inline
def extend_without_token(search: PrefixBeamState) -> float:
    """The candidates that add no token: a blank, the last token again, or the parent that adds it now.

    Returns the highest rank.
    """
    nodes, beam, probs = search.nodes, search.beam, search.probs
    size = search.numbers[SIZE]
    for i in range(size):
        beam[i].child = NONE
    best = 0.0
    for i in range(size):
        entry, after = beam[i], search.successors[i]
        blank = (entry.blank + entry.token) * probs[BLANK_TOKEN]
        again = 0.0
        if entry.last >= 0:
            again = entry.token * probs[entry.last]
            node = nodes[entry.node]
            j = nodes[node.parent].slot if node.parent >= 0 else NONE
            if j >= 0:
                parent = beam[j]
                entry.brother = parent.child
                parent.child = i
                mass = parent.blank if parent.last == entry.last else parent.blank + parent.token
                again += mass * probs[entry.last] * node.step
        after.blank, after.token = blank, again
        rank = (blank + again) * entry.ahead
        candidate = search.candidates[i]
        candidate.origin, candidate.added, candidate.rank = i, NONE, rank
        best = max(best, rank)
    return best


@compile_inline
def extend_with_tokens(known: SearchTables, search: PrefixBeamState, likely: int, best: float) -> int:
    """The candidates that add a token, behind those that stay; returns how many there are in all."""
    nodes, beam, candidates = search.nodes, search.beam, search.candidates
    tokens, probs = search.tokens, search.probs
    worst_share, borders = known.pruning.worst_share, known.pieces.borders
    inner_bound, border_bound = known.fusion.inner_bound, known.fusion.border_bound
    single, lexicon, ahead, outside = known.pieces.single, known.lexicon, known.ahead, known.fusion.outside
    unknown = known.fusion.unknown
    heated = len(known.hot.gains) > 1
    size = search.numbers[SIZE]
    count = size
    threshold = best * worst_share
    for i in range(size):
        entry = beam[i]
        total = entry.blank + entry.token
        inner = entry.ahead * inner_bound
        bound = max(inner, border_bound) * total
        for k in range(likely):
            token = tokens[k]
            prob = probs[token]
            if prob * bound <= threshold:
                break
            mass = (entry.blank if token == entry.last else total) * prob
            if not borders[token] and mass * inner <= threshold:
                continue
            j = entry.child
            while j >= 0 and beam[j].last != token:
                j = beam[j].brother
            if j >= 0:  # it is in the beam and has its share already
                continue
            letter = single[token]
            if letter > 0 and not heated:  # what walk and look_ahead do for one letter, inlined
                before = nodes[entry.node].place
                place = find_child(lexicon, before, letter)
                if place >= 0:
                    rank = mass * ahead[place]
                else:
                    mass *= np.exp(unknown * (1 if before < 0 else lexicon.depths[before] + 1))
                    rank = mass * outside
            else:
                factor, place, _, hot, _, _, _ = append_token(known, nodes, entry.node, token)
                mass *= factor
                rank = mass * look_ahead(known, place, hot)
            if rank <= threshold:
                continue
            if rank > best:
                best = rank
                threshold = best * worst_share
            candidate = candidates[count]
            candidate.origin, candidate.added, candidate.mass, candidate.rank = i, token, mass, rank
            count += 1
    return count


@compile_inline
def select_survivors(known: SearchTables, search: PrefixBeamState, count: int) -> None:
    """Make the beam of the best candidates, scaled so that the best ranks 1."""
    nodes, beam, successors = search.nodes, search.beam, search.successors
    candidates, numbers, pruning = search.candidates, search.numbers, known.pruning
    best = 0.0
    for c in range(count):
        best = max(best, candidates[c].rank)
    threshold = best * pruning.worst_share
    if count > pruning.beam_size:
        for c in range(count):
            search.order[c] = candidates[c].rank
        threshold = max(threshold, find_nth_largest(search.order, count, pruning.beam_size))
    room = pruning.beam_size  # for those that rank exactly at the threshold
    for c in range(count):
        if candidates[c].rank > threshold:
            room -= 1
    size, kept = numbers[SIZE], 0
    scale = 1.0 / best
    for i in range(size):
        nodes[beam[i].node].slot = NONE
    for c in range(count):
        candidate = candidates[c]
        if candidate.rank == threshold:
            room -= 1
        if candidate.rank < threshold or (candidate.rank == threshold and room < 0):
            if c < size:
                candidate.origin = NONE  # its node is let go below
            continue
        entry, after = beam[candidate.origin], successors[kept]
        if c < size:  # what becomes of it is in place already, at or behind the one that is filled
            after.node, after.last, after.ahead = entry.node, entry.last, entry.ahead
            after.blank, after.token = successors[c].blank * scale, successors[c].token * scale
        else:
            node = get_child(known, search, entry.node, candidate.added)
            after.node, after.last = node, candidate.added
            after.ahead = look_ahead(known, nodes[node].place, nodes[node].hot)
            after.blank, after.token = 0.0, candidate.mass * scale
        kept += 1
    # Only now, because a prefix that goes may be the parent of one that comes.
    for i in range(size):
        if candidates[i].origin < 0:
            release(search, beam[i].node)
    if pruning.recombine:
        kept = drop_rivals(search, kept)
    for i in range(kept):
        beam[i] = successors[i]
        nodes[beam[i].node].slot = i
    numbers[SIZE] = kept
    search.scale[0] += np.log(best)


@compile_inline
def get_child(known: SearchTables, search: PrefixBeamState, parent: int, token: int) -> int:
    """The child of ``parent`` by ``token`` in the beam: one that descendants have kept, or a new one."""
    nodes = search.nodes
    at = nodes[parent].first
    while at >= 0 and nodes[at].token != token:
        at = nodes[at].sibling
    if at >= 0:
        nodes[at].links += 1
        return at
    at = add_node(search, parent, token)
    node, before = nodes[at], nodes[parent]
    factor, place, state, hot, words, lm, extra = append_token(known, nodes, parent, token)
    node.step, node.place, node.state, node.hot = factor, place, state, hot
    node.words, node.lm, node.extra = before.words + words, before.lm + lm, before.extra + extra
    return at


@compile_inline
def drop_rivals(search: PrefixBeamState, size: int) -> int:
    """Drop each successor that another one with the same future equals or beats; returns how many stay."""
    nodes, successors, table = search.nodes, search.successors, search.table
    table[:] = NONE
    mask = len(table) - 1
    kept = 0
    for i in range(size):
        entry = successors[i]
        node = nodes[entry.node]
        key = np.int64(node.place) * 2654435761 ^ np.int64(node.state) * 2246822519
        at = (key ^ key >> 17) & mask
        while table[at] >= 0 and not has_same_future(nodes, successors[table[at]], entry):
            at = (at + 1) & mask
        if table[at] >= 0:
            rival = successors[table[at]]
            if rival.blank >= entry.blank and rival.token >= entry.token:
                release(search, entry.node)
                continue
            if rival.blank <= entry.blank and rival.token <= entry.token:
                release(search, rival.node)
                successors[table[at]] = entry
                continue
        table[at] = kept
        successors[kept] = entry
        kept += 1
    return kept


@compile_inline
def has_same_future(nodes: np.ndarray, one: np.void, other: np.void) -> bool:
    """Whether whatever is said next changes the probabilities of two entries alike."""
    a, b = nodes[one.node], nodes[other.node]
    return a.place == b.place and a.state == b.state and a.hot == b.hot and one.last == other.last


@compile_inline
def find_nth_largest(values: np.ndarray, count: int, n: int) -> float:
    """The ``n``-th largest of the first ``count`` values, which are put in another order (Hoare 1961)."""
    low, high = 0, count - 1
    n -= 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if n <= j:
            high = j
        elif n >= i:
            low = i
        else:
            break
    return values[n]


@compile_no_alloc
def commit(search: PrefixBeamState, tokens: np.ndarray) -> int:
    """Move the root down to where the prefixes of the beam part.

    Writes the tokens on the way into ``tokens``, as many as fit, and returns how many.
    """
    nodes, numbers = search.nodes, search.numbers
    count = 0
    while count < len(tokens):
        root = numbers[ROOT_NODE]
        if nodes[root].links != 2:  # its own and that of an only child
            break
        child = nodes[root].first
        tokens[count] = nodes[child].token
        count += 1
        nodes[child].links += 1
        nodes[child].parent = NONE
        numbers[ROOT_NODE] = child
        search.free[numbers[FREE]] = root
        numbers[FREE] += 1
    return count


@compile_no_alloc
def decide(search: PrefixBeamState) -> None:
    """Drop the prefixes that do not share the first half of the best one, so that it can be committed."""
    nodes, beam, numbers = search.nodes, search.beam, search.numbers
    best, size, most = 0, numbers[SIZE], -1.0
    for i in range(size):
        rank = (beam[i].blank + beam[i].token) * beam[i].ahead
        if rank > most:
            best, most = i, rank
    half = find_ancestor(nodes, beam[best].node, (measure_depth(nodes, beam[best].node) + 1) // 2)
    depth = measure_depth(nodes, half)
    kept = 0
    for i in range(size):
        at = beam[i].node
        distance = measure_depth(nodes, at) - depth
        if distance >= 0 and find_ancestor(nodes, at, distance) == half:
            beam[kept] = beam[i]
            nodes[at].slot = kept
            kept += 1
        else:
            nodes[at].slot = NONE
            release(search, at)
    numbers[SIZE] = kept


@compile_inline
def measure_depth(nodes: np.ndarray, at: int) -> int:
    """How many tokens lead from the root to a node."""
    depth = 0
    while nodes[at].parent >= 0:
        at = nodes[at].parent
        depth += 1
    return depth


@compile_inline
def find_ancestor(nodes: np.ndarray, at: int, distance: int) -> int:
    """The node ``distance`` tokens nearer to the root."""
    for _ in range(distance):
        at = nodes[at].parent
    return at


@compile_no_alloc
def score_endings(known: SearchTables, search: PrefixBeamState, table: np.ndarray) -> None:
    """What every prefix in the beam comes to when the recording ends here; the search can still go on.

    ``table`` is ``(beam, 5)`` float64; it is filled with score, lm, words and extra, and with the score
    without an end. A score is minus infinity where a closed lexicon does not know the last word.
    """
    beam, fusion = search.beam, known.fusion
    for i in range(search.numbers[SIZE]):
        node = search.nodes[beam[i].node]
        total = beam[i].blank + beam[i].token
        words, lm, extra, state = node.words, node.lm, node.extra, node.state
        table[i, 4] = np.log(total) + search.scale[0]
        if node.place != ROOT:
            factor, log_prob, state, end_extra = finish_word(known, node.place, state)
            gain = known.hot.gains[known.hot.following[node.hot, SPACE]]
            total *= factor * np.exp(gain)
            words, lm, extra = words + 1, lm + log_prob, extra + end_extra + gain
        if fusion.lm_weight != 0.0:
            log_prob, _ = score_word(known.trie, state, fusion.end_word)
            total *= np.exp(fusion.lm_weight * log_prob)
            lm += log_prob
        table[i, 0] = np.log(total) + search.scale[0] if total > 0.0 else -np.inf
        table[i, 1], table[i, 2], table[i, 3] = lm, words, extra


@compile_no_alloc
def spell_backwards(search: PrefixBeamState, entry: int, tokens: np.ndarray) -> int:
    """Write the tokens from the root to a prefix in the beam, last one first; returns how many."""
    nodes, at = search.nodes, search.beam[entry].node
    count = 0
    while nodes[at].parent >= 0:
        tokens[count] = nodes[at].token
        count += 1
        at = nodes[at].parent
    return count


def make_state(beam_size: int, vocabulary: int) -> PrefixBeamState:
    """Room for a search; ``begin`` makes it ready."""
    nodes = 32 * beam_size + 64
    tokens = min(vocabulary, MOST_TOKENS)
    candidates = beam_size * (1 + tokens)
    return PrefixBeamState(
        numbers=np.zeros(4, np.int64),
        scale=np.zeros(1),
        nodes=np.zeros(nodes, NODE),
        free=np.zeros(nodes, np.int32),
        beam=np.zeros(beam_size, ENTRY),
        successors=np.zeros(beam_size, ENTRY),
        candidates=np.zeros(candidates, CANDIDATE),
        order=np.zeros(candidates),
        tokens=np.zeros(tokens, np.int32),
        probs=np.zeros(vocabulary),
        table=np.zeros(1 << (2 * beam_size).bit_length(), np.int32),
    )


def enlarge_tree(search: PrefixBeamState) -> PrefixBeamState:
    """The same search with room for twice as many nodes."""
    size = len(search.nodes)
    nodes, free = np.zeros(2 * size, NODE), np.zeros(2 * size, np.int32)
    nodes[:size], free[:size] = search.nodes, search.free
    free[search.numbers[FREE] : search.numbers[FREE] + size] = np.arange(size, 2 * size)
    search.numbers[FREE] += size
    return search._replace(nodes=nodes, free=free)
