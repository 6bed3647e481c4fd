"""Prefix beam search over CTC log-probs with word n-gram fusion, compiled.

The algorithm is that of Hannun et al. (2014, arXiv:1408.2873, algorithm 1), the probabilities of all
paths of a prefix summed, with five changes that make it fast:

- Probabilities are multiplied, not added as logarithms, and every frame is scaled so that its best
  prefix has 1: merging two paths is one addition, and no exponential or logarithm is taken per
  candidate. What was scaled away is kept as one logarithm.
- A prefix is a node of a tree in flat arrays. Two paths to one prefix meet in its node, found
  through the parent's children; no string or list is ever compared. Nodes that nothing refers to
  return to a free list, so that memory depends on the beam and not on the length of the audio.
- A node has a place in the trie of the vocabulary. The best unigram that can be reached from there
  ranks unfinished words (look-ahead), but is no part of their probability, so that nothing has to be
  taken back. The language model is asked once per node, when a word may end there.
- Prefixes with the same future (same language model state, same place in the trie, same last token)
  compete: one that is worse in both its endings is dropped. That is all but exact: only paths that
  still come to it from its own parent could have made it the better one.
- Frames that are surely blank only say that a token ended; a run of them costs as much as one.
"""

# mypy: disable-error-code="attr-defined"
# (numba knows the fields of records, mypy does not)

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr.core.compiled import compile_inline, compile_no_alloc
from asr.lm.look_up import score_word
from asr.lm.packed import Trie
from asr.search.hotwords import SPACE, HotWordAutomaton
from asr.search.lexicon_trie import OUT, ROOT, LexiconTrie
from asr.text.tokenizer import BLANK_TOKEN

NONE = -1
MOST_TOKENS = 40  # that are tried in a frame, besides the blank

# What keeps every product of probabilities a finite number, however heavy the weights of a search are.
MOST_GROWTH = 200.0  # natural logarithm of what one step may multiply a probability by
MOST_FACTOR = 1e100  # by which a token may multiply a probability
LEAST_BEST = 1e-300  # a frame whose best prefix is less probable allows nothing


class TokenTexts(NamedTuple):
    """What each token contributes to the text, as bytes.

    letters: uint8, of all tokens one after the other.
    bounds: ``(tokens + 1,)`` int32; token ``t`` is ``letters[bounds[t]:bounds[t + 1]]``.
    borders: ``(tokens,)`` bool, whether there is a space in it, so that a word may end.
    single: ``(tokens,)`` uint8, the byte of a token that is one byte and no space, else 0.
    """

    letters: np.ndarray
    bounds: np.ndarray
    borders: np.ndarray
    single: np.ndarray


class Fusion(NamedTuple):
    """Weights and bounds of the fusion with a language model and hot words.

    ``lm_weight`` is 0 without a language model. A word outside the lexicon adds ``unknown`` for every letter,
    besides the log probability of ``unknown_word``; minus infinity closes the lexicon. The letters are paid
    for when a prefix leaves the lexicon, or when its word ends inside it. ``outside`` ranks a prefix outside
    the lexicon by what its end will cost. A token multiplies a prefix's rank by at most ``inner_bound``; a
    token with a space makes it at most the prefix's probability times ``border_bound``.
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
    """What the search leaves out; see ``SearchConfig``. ``recombine`` drops all but the best of rivals."""

    beam_size: int
    worst_share: float  # exp(-beam_threshold)
    token_threshold: float
    blank_threshold: float  # a log-prob
    recombine: bool


class SearchTables(NamedTuple):
    """What a search reads besides log-probs; arrays that many searches share."""

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
# language model and hot words. ``step`` is the factor by which fusion changed the probability from parent
# to node. ``end_state`` and ``end_factor``: what ``finish_word`` returns, when ``ended``.
NODE = np.dtype(
    [
        *((name, np.int32) for name in ("parent", "token", "first", "sibling", "links", "slot")),
        *((name, np.int32) for name in ("place", "state", "hot", "end_state", "ended")),
        *((name, np.float64) for name in ("step", "end_factor")),
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
    """A search under way: everything that changes from frame to frame.

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
def find_child(lexicon: LexiconTrie, node: int, letter: int) -> int:
    """Find the child of ``node`` by ``letter``, or ``OUT``."""
    if node < 0:
        return OUT
    low, high = lexicon.first_child[node], lexicon.first_child[node + 1]
    end = high
    while high - low > 4:
        middle = (low + high) >> 1
        if lexicon.letters[middle] <= letter:
            low = middle
        else:
            high = middle
    while low < end and lexicon.letters[low] < letter:
        low += 1
    return low if low < end and lexicon.letters[low] == letter else OUT


@compile_inline
def finish_word(tables: SearchTables, place: int, state: int) -> tuple[float, int]:
    """Finish a word at ``place`` after the language model's ``state``.

    Returns the factor on the prefix's probability and the language model's next state.
    """
    fusion = tables.fusion
    word = tables.lexicon.words[place] if place >= 0 else NONE
    extra, log_prob = 0.0, 0.0
    if word < 0:
        word = fusion.unknown_word
        if place >= 0:
            extra = fusion.unknown * tables.lexicon.depths[place]
    if fusion.lm_weight != 0.0:
        log_prob, state = score_word(tables.trie, state, word)
    growth = min(fusion.lm_weight * log_prob + fusion.word_bonus + extra, MOST_GROWTH)
    return np.exp(growth), state


@compile_inline
def remember_word_end(tables: SearchTables, nodes: np.ndarray, at: int) -> None:
    """Finish the last word of a node and remember what that does."""
    node = nodes[at]
    factor, state = finish_word(tables, node.place, node.state)
    node.end_factor, node.end_state = factor, state
    node.ended = 1


@compile_inline
def append_token(tables: SearchTables, nodes: np.ndarray, at: int, token: int) -> tuple[float, int, int, int]:
    """Append ``token`` to the prefix of a node.

    Returns the factor on its probability (0 where a closed lexicon ends) and its places in the lexicon,
    in the language model and among the hot words.
    """
    node = nodes[at]
    place, state, hot = node.place, node.state, node.hot
    factor = 1.0
    pieces, fusion = tables.pieces, tables.fusion
    closed = fusion.unknown == -np.inf
    first = pieces.bounds[token]
    for i in range(first, pieces.bounds[token + 1]):
        letter = pieces.letters[i]
        if letter == SPACE:
            if place == ROOT:  # a second space ends no word
                continue
            if i == first:
                if not node.ended:
                    remember_word_end(tables, nodes, at)
                end_factor, state = node.end_factor, node.end_state
            else:
                end_factor, state = finish_word(tables, place, state)
            factor = min(factor * end_factor, MOST_FACTOR)
            place = ROOT
        else:
            before = place
            place = find_child(tables.lexicon, before, letter)
            if place == OUT:
                if closed:
                    return 0.0, place, state, hot
                fee = fusion.unknown * (1 if before < 0 else tables.lexicon.depths[before] + 1)
                factor = min(factor * np.exp(min(fee, MOST_GROWTH)), MOST_FACTOR)
        hot = tables.hot.following[hot, letter]
        gain = tables.hot.gains[hot]
        if gain != 0.0:
            factor = min(factor * np.exp(min(gain, MOST_GROWTH)), MOST_FACTOR)
    return factor, place, state, hot


@compile_inline
def look_ahead(tables: SearchTables, place: int, hot: int) -> float:
    """Return the factor that ranks a prefix by what its unfinished word can become."""
    return (tables.ahead[place] if place >= 0 else tables.fusion.outside) * tables.hot_ahead[hot]


@compile_no_alloc
def start(search: PrefixBeamState, state: int, hot: int) -> None:
    """Start with the empty prefix, whatever was searched before."""
    numbers, free = search.numbers, search.free
    for i in range(len(free)):
        free[i] = len(free) - 1 - i
    numbers[FREE] = len(free)
    root = add_node(search, NONE, NONE)
    node = search.nodes[root]
    node.place, node.state, node.hot = ROOT, state, hot
    node.step, node.slot = 1.0, 0
    node.links += 1  # the root is never free
    numbers[SIZE], numbers[ROOT_NODE], numbers[SKIPPED] = 1, root, 0
    entry = search.beam[0]
    entry.node, entry.last, entry.blank, entry.token, entry.ahead = root, NONE, 1.0, 0.0, 1.0
    search.scale[0] = 0.0


@compile_inline
def add_node(search: PrefixBeamState, parent: int, token: int) -> int:
    """Add a node in the beam, first among its parent's children; the caller fills in where it stands."""
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
    """Take one link from a node; when it was the last one, free the node and continue with its parent."""
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
def advance(tables: SearchTables, search: PrefixBeamState, log_probs: np.ndarray, frame: int) -> int:
    """Read log-probs ``(frames, vocabulary)`` from ``frame`` on.

    Returns the number of the next frame: that after the last, or one before which the tree needs more room.
    """
    pruning, numbers = tables.pruning, search.numbers
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
            if best > LEAST_BEST:  # a frame that allows nothing, not even a blank, says nothing
                select_survivors(tables, search, extend_with_tokens(tables, search, likely, best))
                numbers[SKIPPED] = 0
            for i in range(likely):
                search.probs[search.tokens[i]] = 0.0
        frame += 1
    return frame


@compile_inline
def skip_blank(beam: np.ndarray, size: int) -> None:
    """Read a frame that is surely blank: all paths end in it."""
    for i in range(size):
        beam[i].blank += beam[i].token
        beam[i].token = 0.0


@compile_inline
def pick_likely_tokens(tokens: np.ndarray, probs: np.ndarray, row: np.ndarray, threshold: float) -> int:
    """Fill in the tokens above the threshold, likely ones first, and their probabilities; return how many.

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
    """Fill in the candidates that add no token: a blank, the last token again, or what the parent adds.

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
def extend_with_tokens(tables: SearchTables, search: PrefixBeamState, likely: int, best: float) -> int:
    """Fill in the candidates that add a token, after those that add none; return the number of all."""
    nodes, beam, candidates = search.nodes, search.beam, search.candidates
    tokens, probs = search.tokens, search.probs
    worst_share, borders = tables.pruning.worst_share, tables.pieces.borders
    inner_bound, border_bound = tables.fusion.inner_bound, tables.fusion.border_bound
    single, lexicon, ahead, outside = (
        tables.pieces.single,
        tables.lexicon,
        tables.ahead,
        tables.fusion.outside,
    )
    unknown = tables.fusion.unknown
    heated = len(tables.hot.gains) > 1
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
            if letter > 0 and not heated:  # what append_token and look_ahead do for one letter, inlined
                before = nodes[entry.node].place
                place = find_child(lexicon, before, letter)
                if place >= 0:
                    rank = mass * ahead[place]
                else:
                    fee = unknown * (1 if before < 0 else lexicon.depths[before] + 1)
                    mass *= np.exp(min(fee, MOST_GROWTH))
                    rank = mass * outside
            else:
                factor, place, _, hot = append_token(tables, nodes, entry.node, token)
                mass *= factor
                rank = mass * look_ahead(tables, place, hot)
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
def select_survivors(tables: SearchTables, search: PrefixBeamState, count: int) -> None:
    """Make the best candidates the beam, scaled so that the best ranks 1."""
    nodes, beam, successors = search.nodes, search.beam, search.successors
    candidates, numbers, pruning = search.candidates, search.numbers, tables.pruning
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
        if candidate.rank < threshold or candidate.rank == 0.0 or (candidate.rank == threshold and room < 0):
            if c < size:
                candidate.origin = NONE  # its node is released below
            continue
        entry, after = beam[candidate.origin], successors[kept]
        if c < size:  # its successor is in place already, at the slot that is filled or after it
            after.node, after.last, after.ahead = entry.node, entry.last, entry.ahead
            after.blank, after.token = successors[c].blank * scale, successors[c].token * scale
        else:
            node = get_child(tables, search, entry.node, candidate.added)
            after.node, after.last = node, candidate.added
            after.ahead = look_ahead(tables, nodes[node].place, nodes[node].hot)
            after.blank, after.token = 0.0, candidate.mass * scale
        kept += 1
        if kept == pruning.beam_size:
            for other in range(c + 1, size):
                candidates[other].origin = NONE
            break
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
def get_child(tables: SearchTables, search: PrefixBeamState, parent: int, token: int) -> int:
    """Get the child of ``parent`` by ``token``: one that its descendants have kept, or a new one."""
    nodes = search.nodes
    at = nodes[parent].first
    while at >= 0 and nodes[at].token != token:
        at = nodes[at].sibling
    if at >= 0:
        nodes[at].links += 1
        return at
    at = add_node(search, parent, token)
    node = nodes[at]
    factor, place, state, hot = append_token(tables, nodes, parent, token)
    node.step, node.place, node.state, node.hot = factor, place, state, hot
    return at


@compile_inline
def drop_rivals(search: PrefixBeamState, size: int) -> int:
    """Drop each successor that another one with the same future equals or beats; return how many stay."""
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
    """Find the ``n``-th largest of the first ``count`` values, which are reordered (Hoare 1961)."""
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

    Writes the tokens on the way into ``tokens``, as many as fit, and returns how many these are.
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
    """Count the tokens that lead from the root to a node."""
    depth = 0
    while nodes[at].parent >= 0:
        at = nodes[at].parent
        depth += 1
    return depth


@compile_inline
def find_ancestor(nodes: np.ndarray, at: int, distance: int) -> int:
    """Find the node ``distance`` tokens nearer to the root."""
    for _ in range(distance):
        at = nodes[at].parent
    return at


@compile_no_alloc
def score_endings(tables: SearchTables, search: PrefixBeamState, table: np.ndarray) -> None:
    """Score every prefix in the beam as if the recording ended here; the search can still go on.

    ``table`` is ``(beam, 2)`` float64: filled with the score, and with the score without an end. A score is
    minus infinity where a closed lexicon does not know the last word.
    """
    beam, fusion = search.beam, tables.fusion
    for i in range(search.numbers[SIZE]):
        node = search.nodes[beam[i].node]
        total = beam[i].blank + beam[i].token
        state = node.state
        table[i, 1] = np.log(total) + search.scale[0]
        if node.place != ROOT:
            factor, state = finish_word(tables, node.place, state)
            gain = tables.hot.gains[tables.hot.following[node.hot, SPACE]]
            total *= factor * np.exp(min(gain, MOST_GROWTH))
        if fusion.lm_weight != 0.0:
            log_prob, _ = score_word(tables.trie, state, fusion.end_word)
            total *= np.exp(min(fusion.lm_weight * log_prob, MOST_GROWTH))
        table[i, 0] = np.log(total) + search.scale[0] if total > 0.0 else -np.inf


@compile_no_alloc
def spell_backwards(search: PrefixBeamState, entry: int, tokens: np.ndarray) -> int:
    """Write the tokens from the root to a prefix in the beam, last one first; return how many."""
    nodes, at = search.nodes, search.beam[entry].node
    count = 0
    while nodes[at].parent >= 0:
        tokens[count] = nodes[at].token
        count += 1
        at = nodes[at].parent
    return count


def make_state(beam_size: int, vocabulary: int) -> PrefixBeamState:
    """Make room for a search; ``start`` fills in its beginning."""
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
    """Copy a search into one with room for twice as many nodes."""
    size = len(search.nodes)
    nodes, free = np.zeros(2 * size, NODE), np.zeros(2 * size, np.int32)
    nodes[:size], free[:size] = search.nodes, search.free
    free[search.numbers[FREE] : search.numbers[FREE] + size] = np.arange(size, 2 * size)
    search.numbers[FREE] += size
    return search._replace(nodes=nodes, free=free)
