"""Slow oracles: what the fast code should return, computed in the most obvious way."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, product

import numpy as np

BLANK = 0


def edit_distance(a: Sequence, b: Sequence) -> int:
    """The fewest substitutions, deletions and insertions that turn ``a`` into ``b``: the textbook table."""
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    table[:, 0] = np.arange(len(a) + 1)
    table[0, :] = np.arange(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            substituted = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(substituted, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return int(table[-1, -1])


def collapse(path: Sequence[int]) -> list[int]:
    """A CTC path as tokens: repeats become one, then blanks go."""
    return [token for token, _ in groupby(path) if token != BLANK]


def ctc_log_probability(log_probs: np.ndarray, tokens: Sequence[int]) -> float:
    """The natural log of the probability of ``tokens``, summed over all paths that collapse to them.

    ``log_probs`` is ``(frames, vocabulary)``, natural logarithms, with the blank first. There are
    vocabulary to the power of frames many paths. Tokens that have no path give minus infinity.
    """
    frames, vocabulary = log_probs.shape
    scores = [
        log_probs[np.arange(frames), list(path)].sum()
        for path in product(range(vocabulary), repeat=frames)
        if collapse(path) == list(tokens)
    ]
    return float(np.logaddexp.reduce(scores, initial=-np.inf))


def best_ctc_path(log_probs: np.ndarray, tokens: Sequence[int]) -> list[int]:
    """Viterbi's table in full: the state of each frame, ``2 * i`` the blank before token ``i``.

    Of equal predecessors the one is taken from which the path advances least.
    """
    symbols = [BLANK, *(symbol for token in tokens for symbol in (token, BLANK))]
    table = np.full((len(log_probs), len(symbols)), -np.inf)
    steps = np.zeros(table.shape, int)
    for frame, row in enumerate(log_probs):
        for state, symbol in enumerate(symbols):
            skips = state > 1 and symbol not in (BLANK, symbols[state - 2])
            before = [table[frame - 1, state - step] for step in range(min(state, 1 + skips) + 1)]
            best = (0.0 if state < 2 else -np.inf) if frame == 0 else max(before)
            table[frame, state] = best + row[symbol]
            steps[frame, state] = 0 if frame == 0 else before.index(best)
    state = max(range(max(0, len(symbols) - 2), len(symbols)), key=lambda state: (table[-1, state], state))
    path = [state]
    for frame in range(len(log_probs) - 1, 0, -1):
        path.append(path[-1] - steps[frame, path[-1]])
    return path[::-1]


Ngrams = Mapping[tuple[str, ...], tuple[float, float]]


def backoff_log_prob(ngrams: Ngrams, context: Sequence[str], word: str) -> float:
    """The log probability of ``word`` after ``context`` in a back-off model, by its definition (Katz 1987).

    ``ngrams`` has the log probability and the log back-off weight of every n-gram; unigrams of all words.
    """
    context = tuple(context)
    if (*context, word) in ngrams:
        return ngrams[*context, word][0]
    return ngrams.get(context, (0.0, 0.0))[1] + backoff_log_prob(ngrams, context[1:], word)


def room_response_by_images(size, speaker, microphone, t60: float, rate: int) -> np.ndarray:
    """The image method, image by image (Allen & Berkley 1979): every mirrored room in reach is visited."""
    taps = math.ceil(0.75 * t60 * rate)
    volume = size[0] * size[1] * size[2]
    surface = 2 * (size[0] * size[1] + size[1] * size[2] + size[0] * size[2])
    absorbed = 1 - math.exp(-24 * math.log(10) / 343.0 * volume / (surface * t60))  # Eyring
    reflection = -math.sqrt(1 - absorbed)
    response = np.zeros(taps)
    orders = range(-8, 9)
    for mirrored in product((0, 1), repeat=3):
        for shift in product(orders, repeat=3):
            image = [
                (1 - 2 * q) * s + 2 * n * length
                for q, n, s, length in zip(mirrored, shift, speaker, size, strict=True)
            ]
            walls = sum(abs(n - q) + abs(n) for q, n in zip(mirrored, shift, strict=True))
            distance = math.dist(image, microphone)
            if distance < 343.0 * (taps - 1) / rate:
                response[round(distance * rate / 343.0)] += reflection**walls / distance
    return response


def kneser_ney(
    sentences: Sequence[Sequence[str]], order: int, thresholds: Sequence[int], fallback: Sequence[float]
) -> Ngrams:
    """Interpolated modified Kneser-Ney (Chen & Goodman 1998), probabilities and back-off weights as they are.

    N-grams whose count is not above their order's threshold are left out, words never. Where the
    discounts cannot be estimated they are those of ``fallback``.
    """
    raw: dict[tuple[str, ...], int] = Counter()
    for sentence in sentences:
        words = ("<s>", *sentence, "</s>")
        raw.update(
            words[i:j] for i in range(len(words)) for j in range(i + 1, min(i + order, len(words)) + 1)
        )
    raw.setdefault(("<unk>",), 0)
    before = Counter(ngram[1:] for ngram in raw)
    adjusted = {g: n if len(g) == order or g[0] == "<s>" else before[g] for g, n in raw.items()}
    adjusted["<s>",] = 0
    kept = {g for g, n in raw.items() if len(g) == 1 or n > thresholds[len(g) - 1]}
    discounts = [
        _discounts([n for g, n in adjusted.items() if len(g) == k + 1], fallback) for k in range(order)
    ]
    following: dict[tuple[str, ...], list] = {}
    for ngram in raw:
        following.setdefault(ngram[:-1], []).append(ngram)

    def discount(ngram: tuple[str, ...]) -> float:
        return adjusted[ngram] - discounts[len(ngram) - 1][min(adjusted[ngram], 3)] if ngram in kept else 0

    def weight(context: tuple[str, ...]) -> float:
        total = sum(adjusted[g] for g in following.get(context, ()))
        return (total - sum(map(discount, following[context]))) / total if total else 1.0

    def probability(ngram: tuple[str, ...]) -> float:
        if not ngram:
            return 1 / (len(following[()]) - 1)  # every word but <s>
        context = ngram[:-1]
        total = sum(adjusted[g] for g in following[context])
        return discount(ngram) / total + weight(context) * probability(ngram[1:])

    model = {g: (probability(g), weight(g) if len(g) < order else 1.0) for g in kept}
    return model | {("<s>",): (1.0, model["<s>",][1])}


def _discounts(counts: Sequence[int], fallback: Sequence[float]) -> Sequence[float]:
    n1, n2, n3, n4 = (sum(count == j for count in counts) for j in (1, 2, 3, 4))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        estimates = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 <= d <= j for j, d in enumerate(estimates, start=1)):
            return (0, *estimates)
    return (0, *fallback)


# --- recurrences, one utterance, frame by frame ---------------------------------------------------


def sigmoid(values: np.ndarray) -> np.ndarray:
    """The logistic function."""
    return 1 / (1 + np.exp(-values))


def normalise(values: np.ndarray) -> np.ndarray:
    """Mean 0, variance 1 (but for 1e-5 under the root)."""
    return (values - values.mean()) / np.sqrt(values.var() + 1e-5)


def peephole_lstm(inputs: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Graves, Mohamed & Hinton 2013, equations 3 to 7."""
    size = weights["weight_hh"].shape[1]
    w, u = (weights[key].reshape(4, size, -1) for key in ("weight_ih", "weight_hh"))
    b = (weights["bias_ih"] + weights["bias_hh"]).reshape(4, size)
    p = weights["peepholes"]
    h, c, states = np.zeros(size), np.zeros(size), []
    for x in inputs:
        i = sigmoid(w[0] @ x + u[0] @ h + p[0] * c + b[0])
        f = sigmoid(w[1] @ x + u[1] @ h + p[1] * c + b[1])
        c = f * c + i * np.tanh(w[2] @ x + u[2] @ h + b[2])
        o = sigmoid(w[3] @ x + u[3] @ h + p[2] * c + b[3])
        h = o * np.tanh(c)
        states.append(h)
    return np.array(states)


def cifg_lstm(inputs: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Greff et al. 2017: no forget gate, f = 1 - i."""
    size = weights["weight_hh"].shape[1]
    w, u = (weights[key].reshape(3, size, -1) for key in ("weight_ih", "weight_hh"))
    b = (weights["bias_ih"] + weights["bias_hh"]).reshape(3, size)
    h, c, states = np.zeros(size), np.zeros(size), []
    for x in inputs:
        i, z, o = (w[k] @ x + u[k] @ h + b[k] for k in range(3))
        c = (1 - sigmoid(i)) * c + sigmoid(i) * np.tanh(z)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return np.array(states)


def layer_normalised_lstm(inputs: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Ba, Kiros & Hinton 2016, equations 20 to 22."""
    size = weights["weight_hh"].shape[1]
    h, c, states = np.zeros(size), np.zeros(size), []
    for x in inputs:
        recurrent = weights["gain_hh"] * normalise(weights["weight_hh"] @ h)
        direct = weights["gain_ih"] * normalise(weights["weight_ih"] @ x)
        i, f, g, o = np.split(recurrent + direct + weights["bias"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(weights["gain_cell"] * normalise(c) + weights["bias_cell"])
        states.append(h)
    return np.array(states)


def light_gru(inputs: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Ravanelli et al. 2018, with the running statistics."""
    size = weights["weight_hh"].shape[1]
    scale = weights["gain"] / np.sqrt(weights["variance"] + 1e-5)
    h, states = np.zeros(size), []
    for x in inputs:
        direct = scale * (weights["weight_ih"] @ x - weights["mean"]) + weights["bias"]
        update, candidate = np.split(direct + weights["weight_hh"] @ h, 2)
        z = sigmoid(update)
        h = z * h + (1 - z) * np.maximum(0, candidate)
        states.append(h)
    return np.array(states)


def convolutional_lstm(inputs: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """Shi et al. 2015, equation 3, over one dimension."""
    channels = weights["weight_hh"].shape[1]
    bands = weights["peepholes"].shape[1] // channels
    p, b = weights["peepholes"].reshape(3, channels, bands), weights["bias"].reshape(4, channels, 1)

    def convolve(kernels: np.ndarray, maps: np.ndarray) -> np.ndarray:
        total = np.zeros((len(kernels), bands))
        for band in range(bands):
            for offset in (-1, 0, 1):
                if 0 <= band + offset < bands:
                    total[:, band] += kernels[:, :, offset + 1] @ maps[:, band + offset]
        return total.reshape(4, channels, bands)

    h, c, states = np.zeros((channels, bands)), np.zeros((channels, bands)), []
    for x in inputs.reshape(len(inputs), -1, bands):
        into = convolve(weights["weight_ih"], x) + convolve(weights["weight_hh"], h) + b
        i, f = sigmoid(into[0] + p[0] * c), sigmoid(into[1] + p[1] * c)
        c = f * c + i * np.tanh(into[2])
        h = sigmoid(into[3] + p[2] * c) * np.tanh(c)
        states.append(h.flatten())
    return np.array(states)


RECURRENCES = {
    "peephole": peephole_lstm,
    "cifg": cifg_lstm,
    "lnlstm": layer_normalised_lstm,
    "ligru": light_gru,
    "convlstm": convolutional_lstm,
}


def optimise(
    kind: str,
    weights: np.ndarray,
    gradients: Sequence[np.ndarray],
    rate: float,
    decay: float,
    momentum: float,
) -> np.ndarray:
    """``weights`` after one update for each of ``gradients``, by the equations of the papers.

    ``kind``: ``adam`` and ``adamw`` (Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2),
    ``rmsprop`` (Tieleman & Hinton 2012, with momentum), ``sgd`` (Nesterov's momentum, as Sutskever et al.
    2013 is usually written: the step looks ahead along the velocity).
    """
    weights, first, second = weights.astype(float), np.zeros(weights.shape), np.zeros(weights.shape)
    for count, gradient in enumerate(gradients, start=1):
        if kind == "adamw":
            weights = weights - rate * decay * weights
        else:
            gradient = gradient + decay * weights
        if kind in ("adam", "adamw"):
            first = momentum * first + (1 - momentum) * gradient
            second = 0.999 * second + 0.001 * gradient**2
            step = first / (1 - momentum**count) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
        elif kind == "rmsprop":
            second = 0.95 * second + 0.05 * gradient**2
            first = momentum * first + gradient / (np.sqrt(second) + 1e-8)
            step = first
        else:
            first = momentum * first + gradient
            step = gradient + momentum * first
        weights = weights - rate * step
    return weights


def every_label_sequence(log_probs: np.ndarray) -> dict[tuple[int, ...], float]:
    """The natural log of the probability of all sequences of tokens that ``(frames, vocabulary)`` allows."""
    frames, vocabulary = log_probs.shape
    found: dict[tuple[int, ...], float] = {}
    for path in product(range(vocabulary), repeat=frames):
        tokens = tuple(collapse(path))
        score = float(log_probs[np.arange(frames), list(path)].sum())
        found[tokens] = float(np.logaddexp(found.get(tokens, -np.inf), score))
    return found


def words_in_phrases(words: Sequence[str], phrases: Sequence[str]) -> int:
    """How many words are covered by phrases, counted for each phrase and each place where it stands."""
    wanted = {tuple(phrase.split()) for phrase in phrases}
    return sum(
        len(phrase)
        for phrase in wanted
        for begin in range(len(words))
        if tuple(words[begin : begin + len(phrase)]) == phrase
    )


def deal_out(count: int, phones: Sequence[str], most: int) -> list[tuple[tuple[str, ...], ...]]:
    """All ways to deal out ``phones`` in order to ``count`` letters, of which none gets over ``most``."""
    if count == 0:
        return [] if phones else [()]
    return [
        (tuple(phones[:length]), *rest)
        for length in range(min(most, len(phones)) + 1)
        for rest in deal_out(count - 1, phones[length:], most)
    ]


def graphone_counts(
    pairs: Sequence[tuple[str, tuple[str, ...]]],
    probs: Mapping[tuple[str, tuple[str, ...]], float],
    most: int,
) -> Counter:
    """The expected number of every graphone, summed alignment by alignment."""
    counts: Counter = Counter()
    for word, phones in pairs:
        ways = [list(zip(word, parts, strict=True)) for parts in deal_out(len(word), phones, most)]
        weights = [math.prod(probs[graphone] for graphone in way) for way in ways]
        for way, weight in zip(ways, weights, strict=True):
            for graphone in way:
                counts[graphone] += weight / sum(weights)
    return counts


def read_textgrid(text: str) -> tuple[float, dict[str, list[tuple[float, float, str]]]]:
    """A TextGrid of interval tiers in Praat's long form, read strictly: its end and each tier's intervals.

    Raises ``ValueError`` for anything that the format's description does not have in this place.
    """
    lines = iter(text.splitlines())

    def value(key: str) -> str:
        line = next(lines).strip()
        if not line.startswith(key):
            raise ValueError(f"{line!r} where {key!r} should be")
        return line.removeprefix(key)

    def read_quoted(key: str) -> str:
        raw = value(key)
        if len(raw) < 2 or raw[0] != '"' or raw[-1] != '"' or '"' in raw[1:-1].replace('""', ""):
            raise ValueError(f"{raw!r} is no quoted text")
        return raw[1:-1].replace('""', '"')

    value('File type = "ooTextFile"'), value('Object class = "TextGrid"'), value("")
    if float(value("xmin = ")) != 0:
        raise ValueError("begins late")
    end = float(value("xmax = "))
    value("tiers? <exists>")
    count = int(value("size = "))
    value("item []:")
    tiers: dict[str, list[tuple[float, float, str]]] = {}
    for tier in range(1, count + 1):
        value(f"item [{tier}]:"), value('class = "IntervalTier"')
        name = read_quoted("name = ")
        if (float(value("xmin = ")), float(value("xmax = "))) != (0, end):
            raise ValueError("a tier that is not as long as the grid")
        tiers[name] = []
        for number in range(1, int(value("intervals: size = ")) + 1):
            value(f"intervals [{number}]:")
            tiers[name].append((float(value("xmin = ")), float(value("xmax = ")), read_quoted("text = ")))
    if next(lines, None) is not None:
        raise ValueError("goes on behind its end")
    return end, tiers


Cues = list[tuple[int, int, list[str]]]  # from and to in milliseconds, lines


def read_srt(text: str) -> Cues:
    """SubRip subtitles, read strictly: numbers from 1, times in order, lines that are not blank.

    Raises ``ValueError`` for anything else. Every cue ends with a blank line.
    """
    cues = _cues(text, r"(\d\d+):([0-5]\d):([0-5]\d),(\d{3})", numbered=True)
    if any("-->" in line for _, _, lines in cues for line in lines):
        raise ValueError("a line that some players take for times")
    return cues


def read_vtt(text: str) -> Cues:
    """WebVTT (W3C, section 4.1), read as strictly as ``read_srt``; cues come with their text unescaped."""
    head, body = text[:8], text[8:]
    if head != "WEBVTT\n\n":
        raise ValueError(f"begins with {head!r}")
    cues = _cues(body, r"(\d\d+):([0-5]\d):([0-5]\d)\.(\d{3})", numbered=False)
    for _, _, lines in cues:
        for number, line in enumerate(lines):
            if re.search(r"[<>]|&(?!(?:amp|lt|gt);)", line):
                raise ValueError(f"{line!r} is not escaped")
            lines[number] = line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return cues


def _cues(text: str, clock: str, numbered: bool) -> Cues:
    """Blocks of lines between blank lines, each begun by its times and before them, perhaps, its number."""
    if text and not text.endswith("\n\n"):
        raise ValueError("does not end with a blank line")
    cues: Cues = []
    for block in text.removesuffix("\n\n").split("\n\n") if text else []:
        lines = block.split("\n")
        if numbered and lines.pop(0) != str(len(cues) + 1):
            raise ValueError(f"cue {len(cues) + 1} has another number")
        times = re.fullmatch(f"{clock} --> {clock}", lines.pop(0))
        if times is None:
            raise ValueError("a cue without times")
        hours, minutes, seconds, rest, *end = map(int, times.groups())
        start = ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest
        stop = ((end[0] * 60 + end[1]) * 60 + end[2]) * 1000 + end[3]
        if not (cues[-1][1] if cues else 0) <= start < stop:
            raise ValueError("times that do not follow each other")
        if not lines or not all(line.strip() for line in lines):
            raise ValueError("a cue without text, or with a blank line in it")
        cues.append((start, stop, lines))
    return cues


def crf_partition(
    log_probs: np.ndarray, sequence_log_prob: Callable[[list[int]], float]
) -> tuple[float, np.ndarray]:
    """The natural log of the sum over all CTC paths, each times the probability of what it collapses to.

    Also how probable each token is in each frame, ``(frames, vocabulary)``. ``log_probs`` is as for
    ``ctc_log_probability``; there are vocabulary to the power of frames many paths.
    """
    frames, vocabulary = log_probs.shape
    paths = [list(path) for path in product(range(vocabulary), repeat=frames)]
    scores = np.array(
        [log_probs[np.arange(frames), path].sum() + sequence_log_prob(collapse(path)) for path in paths]
    )
    total = float(np.logaddexp.reduce(scores))
    occupancies = np.zeros((frames, vocabulary))
    for path, score in zip(paths, scores, strict=True):
        occupancies[np.arange(frames), path] += np.exp(score - total)
    return total, occupancies


# --- recurrent language models --------------------------------------------------------------------


def lstm_states(inputs, recurrent, offsets, vectors):
    """Hidden states of one LSTM layer after each of ``vectors``: one number at a time, in Python's floats.

    The gates are in the order input, forget, cell, output.
    """

    def multiply(matrix, vector):
        return [sum(float(a) * b for a, b in zip(row, vector, strict=True)) for row in matrix]

    size = len(recurrent[0])
    hidden, cell = [0.0] * size, [0.0] * size
    states = []
    for vector in vectors:
        wide, recur = multiply(inputs, vector), multiply(recurrent, hidden)
        sums = [a + b + float(c) for a, b, c in zip(wide, recur, offsets, strict=True)]
        entering, forget, new, output = (sums[n * size : (n + 1) * size] for n in range(4))
        cell = [
            c / (1 + math.exp(-f)) + math.tanh(n) / (1 + math.exp(-e))
            for c, f, n, e in zip(cell, forget, new, entering, strict=True)
        ]
        hidden = [math.tanh(c) / (1 + math.exp(-o)) for c, o in zip(cell, output, strict=True)]
        states.append(hidden)
    return states


def lstm_log_probs(embedding, layers, bias, pieces):
    """Log-probs of the next piece after each of ``pieces``, in Python's floats.

    ``layers`` are ``(inputs, hidden, bias)``. A layer's output is added to its input from the second layer
    on, and the embedding is the output layer, too.
    """
    vectors = [[float(value) for value in embedding[piece]] for piece in pieces]
    for number, layer in enumerate(layers):
        states = lstm_states(*layer, vectors)
        if number:
            states = [
                [h + v for h, v in zip(*pair, strict=True)] for pair in zip(states, vectors, strict=True)
            ]
        vectors = states
    rows = []
    for vector in vectors:
        scores = [
            sum(float(a) * b for a, b in zip(row, vector, strict=True)) + float(offset)
            for row, offset in zip(embedding, bias, strict=True)
        ]
        total = math.log(sum(map(math.exp, scores)))
        rows.append([score - total for score in scores])
    return rows
