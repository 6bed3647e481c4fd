"""Where in speech another voice begins, or the same voice at another microphone.

A model takes what is typical of a voice and of a room from all that it hears at once, and where two people
share that, it is typical of neither. At a pause, two explanations of what is on either side of it compete:
frames of one normal distribution, or of two. Two always explain it better, and have twice the parameters,
each of which has its price: the Bayesian information criterion (Chen & Gopalakrishnan
1998, "Speaker, environment and channel change detection and clustering via the Bayesian information
criterion", section 3).
"""

from __future__ import annotations

import numpy as np

from asr.audio.vad import find_runs, hop_samples, measure_levels

BANDS = 24
LOW_HZ, HIGH_HZ = 100.0, 7600.0
COEFFICIENTS = 16  # of the cosine transform of the bands' levels: what is smooth in a spectrum
FLOOR_DB2 = 1.0  # added to each coefficient's variance: no smaller differences count

PAUSE = 20  # frames; shorter pauses are within one person's words
PAUSE_DB = 25.0  # below the loudest frame around
AROUND = 150  # frames to either side in which that one is looked for
LEAST_SPEECH = 25  # frames; anything shorter between two pauses is a noise and says nothing of a voice
ENOUGH = 50  # frames behind a pause; where there are fewer, those behind the next pause count as well
MOST = 600  # frames on either side: these show a voice well enough
PENALTY = 0.9  # what a parameter costs, as a multiple of what it costs in the criterion


def find_turns(samples: np.ndarray, rate: int) -> list[int]:
    """Where in ``samples`` somebody else begins to speak: places in the middle of pauses, in order.

    Args:
        samples: ``(samples,)``, mono.
        rate: their sampling rate in hertz.

    It misses some changes and takes some of a reader's own pauses for one; ``tools/hour.py`` measures what
    that is worth in words.
    """
    if not len(samples):
        return []
    levels = measure_levels(samples, samples[:0], rate, BANDS, LOW_HZ, HIGH_HZ)
    quiet = is_pause(10 * np.log10((10 ** (levels / 10)).sum(axis=1)))
    pauses = find_pauses(quiet)
    if not pauses:
        return []
    features = levels @ cosine_vectors(BANDS, COEFFICIENTS)
    places = []
    begin = 0  # of the present voice
    for number, (first, last) in enumerate(pauses):
        ends = [next_first for next_first, _ in pauses[number + 1 :]] + [len(quiet)]
        before = np.flatnonzero(~quiet[begin:first])[-MOST:] + begin
        after = next(
            frames
            for end in ends
            if len(frames := np.flatnonzero(~quiet[last:end])[:MOST] + last) >= ENOUGH or end == len(quiet)
        )
        if is_change(features[before], features[after]):
            places.append((first + last) // 2 * hop_samples(rate))
            begin = last
    return places


def is_pause(power: np.ndarray) -> np.ndarray:
    """Which frames, ``(frames,)`` in decibels, are much fainter than the loudest around them."""
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(power, AROUND, constant_values=-np.inf), 2 * AROUND + 1
    )
    return power < around.max(axis=1) - PAUSE_DB


def find_pauses(quiet: np.ndarray) -> list[tuple[int, int]]:
    """The long pauses with speech before and behind them: first frame, and the one behind the last."""
    pauses: list[tuple[int, int]] = []
    begin = 0
    for first, last in find_runs(quiet):
        if last - first < PAUSE:
            continue
        if (~quiet[begin:first]).sum() >= LEAST_SPEECH:
            pauses.append((first, last))
        elif pauses:  # one pause with a noise in it
            pauses[-1] = (pauses[-1][0], last)
        begin = last
    if pauses and (~quiet[pauses[-1][1] :]).sum() < LEAST_SPEECH:
        pauses.pop()
    return pauses


def is_change(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two distributions explain ``(frames, features)`` before and after better than one."""
    size = before.shape[1]
    together = np.concatenate([before, after])
    gain = 0.5 * (measure_spread(together) - measure_spread(before) - measure_spread(after))
    parameters = size + size * (size + 1) / 2
    return bool(gain > PENALTY * 0.5 * parameters * np.log(len(together)))


def measure_spread(frames: np.ndarray) -> float:
    """The logarithm of the determinant of the covariance, once for each frame."""
    covariance = np.atleast_2d(np.cov(frames.T, bias=True)) + FLOOR_DB2 * np.eye(frames.shape[1])
    return float(len(frames) * np.linalg.slogdet(covariance)[1])


def cosine_vectors(size: int, count: int) -> np.ndarray:
    """The first ``count`` vectors of the orthogonal cosine transform, ``(size, count)``."""
    places = (np.arange(size) + 0.5)[:, None] * np.arange(count)
    return np.sqrt(2 / size) * np.cos(np.pi / size * places)
