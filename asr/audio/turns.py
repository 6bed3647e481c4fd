"""Where in speech another voice begins, or the same voice at another microphone.

A model takes what is typical of a voice and of a room from all that it hears at once, and where two people
share that, it is typical of neither. At a pause two explanations of what is on either side of it are held
against each other: frames of one normal distribution, or of two. Two explain it always better, and have
twice the parameters, each of which has its price: the Bayesian information criterion (Chen & Gopalakrishnan
1998, "Speaker, environment and channel change detection and clustering via the Bayesian information
criterion", section 3).
"""

from __future__ import annotations

import numpy as np

from asr.audio.vad import band_levels, hop_samples, runs

BANDS = 24
LOW_HZ, HIGH_HZ = 100.0, 7600.0
COEFFICIENTS = 16  # of the cosine transform of the bands' levels: what is smooth in a spectrum
FLOOR_DB2 = 1.0  # added to each coefficient's variance: no smaller differences count

PAUSE = 20  # frames; shorter pauses are within one person's words
PAUSE_DB = 25.0  # below the loudest frame around
AROUND = 150  # frames to either side in which that is looked for
LEAST_SPEECH = 25  # frames; what is shorter between two pauses is a noise, and says nothing of a voice
ENOUGH = 50  # frames behind a pause; where there are fewer, what is behind the next pause counts, too
MOST = 600  # frames on either side: a voice is known well enough from these
PENALTY = 0.9  # what a parameter costs, as a multiple of what the criterion has it cost


def turns(samples: np.ndarray, rate: int) -> list[int]:
    """Where in ``samples`` somebody else begins to speak: places in the middle of pauses, in order.

    Args:
        samples: ``(samples,)``, mono.
        rate: their sampling rate in hertz.

    It misses some changes and takes some of a reader's own pauses for one; what it is worth in words is what
    ``tools/hour.py`` measures.
    """
    if not len(samples):
        return []
    levels = band_levels(samples, samples[:0], rate, BANDS, LOW_HZ, HIGH_HZ)
    quiet = is_pause(10 * np.log10((10 ** (levels / 10)).sum(axis=1)))
    found = between_speech(quiet)
    if not found:
        return []
    features = levels @ cosines(BANDS, COEFFICIENTS)
    places = []
    begin = 0  # of the present voice
    for number, (first, last) in enumerate(found):
        ends = [next_first for next_first, _ in found[number + 1 :]] + [len(quiet)]
        before = np.flatnonzero(~quiet[begin:first])[-MOST:] + begin
        after = next(
            heard
            for end in ends
            if len(heard := np.flatnonzero(~quiet[last:end])[:MOST] + last) >= ENOUGH or end == len(quiet)
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


def between_speech(quiet: np.ndarray) -> list[tuple[int, int]]:
    """The long pauses with speech before and behind them: first frame, and the one behind the last."""
    found: list[tuple[int, int]] = []
    begin = 0
    for first, last in runs(quiet):
        if last - first < PAUSE:
            continue
        if (~quiet[begin:first]).sum() >= LEAST_SPEECH:
            found.append((first, last))
        elif found:  # one pause with a noise in it
            found[-1] = (found[-1][0], last)
        begin = last
    if found and (~quiet[found[-1][1] :]).sum() < LEAST_SPEECH:
        found.pop()
    return found


def is_change(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two distributions explain ``(frames, features)`` before and after better than one."""
    size = before.shape[1]
    together = np.concatenate([before, after])
    gain = 0.5 * (spread(together) - spread(before) - spread(after))
    parameters = size + size * (size + 1) / 2
    return bool(gain > PENALTY * 0.5 * parameters * np.log(len(together)))


def spread(frames: np.ndarray) -> float:
    """The logarithm of the determinant of the covariance, once for each frame."""
    covariance = np.atleast_2d(np.cov(frames.T, bias=True)) + FLOOR_DB2 * np.eye(frames.shape[1])
    return float(len(frames) * np.linalg.slogdet(covariance)[1])


def cosines(size: int, count: int) -> np.ndarray:
    """The first ``count`` vectors of the orthogonal cosine transform, ``(size, count)``."""
    places = (np.arange(size) + 0.5)[:, None] * np.arange(count)
    return np.sqrt(2 / size) * np.cos(np.pi / size * places)
