"""The denominator graph of CTC-CRF: an n-gram model of token sequences, as states and arcs.

A *state* stands for what the n-gram model remembers, the last token included. As in CTC, each state
exists twice: on its token (further frames may repeat it) and on the blank after it. An arc for token
``w`` ends in a state whose last token is ``w``, so a state's token is known without its arcs. An arc that
repeats the last token starts from the blank only.

Backing off is exact and needs no arcs without tokens. The longest histories lead, for every token, to the
same state as the shorter history behind them. Their arcs carry only what they add to ``backoff * P(w |
shorter history)``; the rest goes through the shorter state, whose probability is increased by theirs times
``backoff`` before the arcs are taken. All other states have an arc for every token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asr.core.compiled import compile_function, compile_no_alloc
from asr.errors import UserError
from asr.lm.building import Nodes, find_word
from asr.lm.estimation import FALLBACK, EstimationConfig, estimate
from asr.lm.look_up import score_word
from asr.lm.model import NgramModel
from asr.lm.packed import Trie, unpack_nodes

MIN_PROBABILITY = 1e-8  # of a token after a state that does not back off


class GraphError(UserError):
    """A denominator graph that cannot be built, or whose arrays do not fit together."""


class DenominatorGraph(NamedTuple):
    """A denominator graph as flat arrays; state 0 is the start.

    A *row* is where an arc starts: row ``s`` is state ``s`` on its token or its blank, row ``states + s`` is
    its blank alone (for arcs that repeat its token).

    tokens: ``(states,)`` int32, the last token; 0 for the start, which has none.
    finals: ``(states,)`` float32, the probability that the sequence ends here.
    backoffs: ``(states,)`` float32, the weight of backing off to ``suffixes``; 0: the state does not.
    suffixes: ``(states,)`` int32, a state that does not back off itself.
    bounds: ``(states + 1,)`` int32; arcs ``bounds[s]:bounds[s + 1]`` end in state ``s``.
    rows: ``(arcs,)`` int32, the row where each arc starts.
    weights: ``(arcs,)`` float32, the probability of each arc.
    out_bounds: ``(2 * states + 1,)`` int32; the same arcs sorted by their rows: arcs
        ``out_bounds[r]:out_bounds[r + 1]`` of ``targets`` and ``out_weights`` start from row ``r``.
    targets: ``(arcs,)`` int32, the state where each arc ends.
    out_weights: ``(arcs,)`` float32.
    """

    tokens: np.ndarray
    finals: np.ndarray
    backoffs: np.ndarray
    suffixes: np.ndarray
    bounds: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    out_bounds: np.ndarray
    targets: np.ndarray
    out_weights: np.ndarray


def build_graph(
    sequences: Iterable[Sequence[int]], vocabulary_size: int, order: int = 3, prune: Sequence[int] = (0,)
) -> DenominatorGraph:
    """Build the graph of an n-gram model of token sequences (interpolated modified Kneser-Ney).

    Args:
        sequences: the tokens of each utterance, without blanks.
        vocabulary_size: number of tokens, the blank included.
        order: tokens in the longest n-grams, 2 or more.
        prune: leave out n-grams with this count or less, one number per order; the last one also holds for
            all higher orders.

    Raises ``GraphError`` when there are no tokens.
    """
    lines = [" ".join(map(str, sequence)) for sequence in sequences]
    if not any(lines):
        raise GraphError("no tokens to build a denominator graph from: every training transcript is empty")
    text = "".join(line + "\n" for line in lines).encode()
    model = estimate([text], EstimationConfig(order, tuple(prune), discount_fallback=FALLBACK))
    return convert_ngrams(model, vocabulary_size)


def convert_ngrams(model: NgramModel, vocabulary_size: int) -> DenominatorGraph:
    """Convert an n-gram model whose words are token numbers, written as text.

    Tokens that the model does not know share the probability of ``<unk>``.
    """
    if model.order < 2:
        raise GraphError("a denominator graph needs an n-gram model of order 2 or more")
    trie, nodes = model.trie, unpack_nodes(model.trie)
    words = np.array([model.vocabulary.find(str(token)) for token in range(vocabulary_size)], np.int32)
    unseen = words < 0
    words[unseen] = model.unknown
    shares = np.where(unseen, 1 / max(1, int(np.count_nonzero(unseen[1:]))), 1.0)

    # Find all states: follow every token from the start, and the shorter history behind each state.
    places: dict[tuple[int, int], int] = {(model.begin, 0): 0}
    keys = [(model.begin, 0)]

    def place(key: tuple[int, int]) -> int:
        if key not in places:
            places[key] = len(keys)
            keys.append(key)
        return places[key]

    probabilities, explicit, targets, shorter, finals = [], [], [], [], []
    done = 0
    while done < len(keys):
        context, last = keys[done]
        probs, found, nexts = _score_all(trie, nodes, context, words)
        probabilities.append(np.maximum(probs * shares, MIN_PROBABILITY))
        explicit.append(found & ~unseen)
        targets.append([-1, *(place((int(nexts[w]), w)) for w in range(1, vocabulary_size))])
        finals.append(math.exp(score_word(trie, context, model.end)[0]))
        behind = _find_live_suffix(nodes, context)
        same = last > 0 and behind > 0 and not unseen[last] and int(nodes.words[behind]) == int(words[last])
        shorter.append(place((behind, last)) if same else -1)
        done += 1

    count = len(keys)
    backoffs, suffixes = np.zeros(count, np.float32), np.zeros(count, np.int32)
    rows, ends, weights = [], [], []
    for state in sorted(range(count), key=lambda s: keys[s]):  # shorter histories first
        probs, last = probabilities[state], keys[state][1]
        chosen = np.arange(1, vocabulary_size)
        behind = shorter[state]
        if behind >= 0 and backoffs[behind] == 0 and targets[behind] == targets[state]:
            backoff = math.exp(float(nodes.backoffs[keys[state][0]]))
            added = probs - backoff * probabilities[behind]
            if backoff > 0 and (added[explicit[state]] >= 0).all():
                backoffs[state], suffixes[state] = backoff, behind
                chosen = chosen[explicit[state][1:]]
                probs = added
        for token in chosen.tolist():
            rows.append(state + count * (token == last))
            ends.append(targets[state][token])
            weights.append(probs[token])
    return check_graph(
        assemble_graph(
            np.array([last for _, last in keys], np.int32),
            np.array(finals, np.float32),
            backoffs,
            suffixes,
            np.array(rows, np.int32),
            np.array(ends, np.int32),
            np.array(weights, np.float32),
        ),
        vocabulary_size,
    )


def _find_live_suffix(nodes: Nodes, node: int) -> int:
    """The longest proper suffix that is a state: one with children or a back-off; 0 where there is none."""
    suffix = int(nodes.suffixes[node])
    while suffix > 0 and nodes.backoffs[suffix] == 0:
        if nodes.first_child[suffix] < nodes.first_child[suffix + 1]:
            break
        suffix = int(nodes.suffixes[suffix])
    return suffix


@compile_function
def _score_all(
    trie: Trie, nodes: Nodes, state: int, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every word: P(word | state), whether the n-gram exists, and the state after it."""
    probs = np.empty(len(words), np.float64)
    found = np.empty(len(words), np.bool_)
    nexts = np.empty(len(words), np.int32)
    for i in range(len(words)):
        log_prob, following = score_word(trie, state, words[i])
        probs[i] = math.exp(log_prob)
        first, end = nodes.first_child[state], nodes.first_child[state + 1]
        found[i] = state == 0 or find_word(nodes.words, first, end, words[i]) >= 0
        nexts[i] = following
    return probs, found, nexts


def assemble_graph(
    tokens: np.ndarray,
    finals: np.ndarray,
    backoffs: np.ndarray,
    suffixes: np.ndarray,
    rows: np.ndarray,
    ends: np.ndarray,
    weights: np.ndarray,
) -> DenominatorGraph:
    """Sort the arcs by where they end and by where they start."""
    count = len(tokens)
    into = np.lexsort((rows, ends))
    out = np.lexsort((ends, rows))
    return DenominatorGraph(
        tokens,
        finals,
        backoffs,
        suffixes,
        np.concatenate([[0], np.cumsum(np.bincount(ends, minlength=count))]).astype(np.int32),
        rows[into],
        weights[into],
        np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=2 * count))]).astype(np.int32),
        ends[out],
        weights[out],
    )


def check_graph(graph: DenominatorGraph, vocabulary_size: int) -> DenominatorGraph:
    """Return ``graph``; raise ``GraphError`` if an index is out of range or a number is no probability."""
    states, arcs = len(graph.tokens), len(graph.rows)
    shapes = (states, states, states, states, states + 1, arcs, arcs, 2 * states + 1, arcs, arcs)
    kinds = "iffiiifiif"
    ok = states > 0 and all(
        array.shape == (size,) and array.dtype == (np.int32 if kind == "i" else np.float32)
        for array, size, kind in zip(graph, shapes, kinds, strict=True)
    )
    ok = ok and all(
        bool(((array >= 0) & (array < limit)).all())
        for array, limit in (
            (graph.tokens, vocabulary_size),
            (graph.suffixes, states),
            (graph.rows, 2 * states),
            (graph.targets, states),
        )
    )
    ok = ok and all(
        bounds[0] == 0 and bounds[-1] == arcs and bool((np.diff(bounds) >= 0).all())
        for bounds in (graph.bounds, graph.out_bounds)
    )
    ok = ok and all(
        bool(((array >= 0) & (array <= 1.001)).all())
        for array in (graph.finals, graph.backoffs, graph.weights, graph.out_weights)
    )
    ok = ok and not graph.backoffs[graph.suffixes[graph.backoffs > 0]].any()
    if not ok:
        raise GraphError("the denominator graph is damaged: its arrays do not fit together")
    return graph


def graph_tensors(graph: DenominatorGraph) -> dict[str, Tensor]:
    """The arrays by name, to be saved in a checkpoint."""
    return {name: torch.from_numpy(array) for name, array in graph._asdict().items()}


def graph_from_tensors(tensors: Mapping[str, Tensor], vocabulary_size: int) -> DenominatorGraph:
    """The inverse of ``graph_tensors``.

    Raises ``GraphError`` when the arrays are damaged and ``KeyError`` when one is missing.
    """
    return check_graph(
        DenominatorGraph(*(tensors[name].numpy() for name in DenominatorGraph._fields)), vocabulary_size
    )


@compile_no_alloc
def _score_sequence(graph: DenominatorGraph, tokens: np.ndarray) -> float:
    """Natural log P(tokens, end); minus infinity where no path exists."""
    count = len(graph.tokens)
    state, total = 0, 0.0
    for token in tokens:
        probability, factor, place, end = 0.0, 1.0, state, -1
        while True:
            for row in (place, count + place):
                for arc in range(graph.out_bounds[row], graph.out_bounds[row + 1]):
                    if graph.tokens[graph.targets[arc]] == token:
                        probability += factor * graph.out_weights[arc]
                        end = graph.targets[arc]
            if graph.backoffs[place] == 0.0:
                break
            factor *= graph.backoffs[place]
            place = graph.suffixes[place]
        if end < 0 or probability <= 0.0:
            return -np.inf
        total += math.log(probability)
        state = end
    final = graph.finals[state]
    return total + math.log(final) if final > 0.0 else -np.inf


def score_sequence(graph: DenominatorGraph, tokens: Sequence[int] | np.ndarray) -> float:
    """Natural log of the probability that the n-gram model gives to ``tokens`` and the end after them."""
    return float(_score_sequence(graph, np.asarray(tokens, np.int32)))
