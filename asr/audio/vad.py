"""Where somebody speaks, judged by how loud a recording is in bands of frequency.

Speech rises above the quiet around it in many bands at once, which a tone does not, and it does not
stay the same for long, which noise does. Both are measured against the recording itself, so that neither
its loudness nor its noise matters. What is doubtful counts as speech: the model hears it and decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

HOP_SECONDS = 0.02  # from one frame to the next
BLOCK = 50  # frames that are decided on together: a second
BANDS = 16
LOW_HZ, HIGH_HZ = 120.0, 4000.0  # above the hum of the mains, and what a telephone lets through
FAINTEST_DB = -115.0  # in a band, full scale 0: fainter than what rounding to 16 bits leaves there
REACH = 8  # blocks to either side in which the quiet of a band is looked for
QUIET_SHARE = 0.25  # of those blocks are at most as loud as what counts as quiet
QUIET_FRAMES = 5  # averaged before the quietest moment of a block is taken
RISE_DB = 6.0  # above the quiet: the band is active
LEAKAGE_DB = 50.0  # below the loudest band: what the window of analysis lets through from there
ACTIVE_FRAMES = 3  # averaged before that is decided
ACTIVE_SHARE = 0.25  # of the bands are active in a frame of speech; a tone fills one or two
LAG = 3  # frames: what changes within this time changes as fast as speech
CHANGE_REACH = 25  # frames to either side whose changes count
CHANGE_SHARE = 0.75  # of them are at most the typical one: in a loud place, words may be few among noise
LEAST_ACTIVE = 25  # active frames among these: anything shorter is never steady noise
LEAST_SPEECH = 4  # frames; fewer are a click, or where a noise begins
LEAST_CHANGE_DB = 3.2  # within LAG, in the active bands; steady noise stays below it


def detect_speech(blocks: Iterable[np.ndarray], rate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same samples in other blocks, with a decision for each frame.

    Args:
        blocks: the samples of a recording, mono, in pieces of any size.
        rate: their sampling rate in hertz.

    Yields:
        Samples of a second (at the end, fewer) and ``(frames,)`` booleans, true where there is speech;
        a frame stands for ``hop_samples(rate)`` samples, and the last one is filled up with zeros.
    """
    seconds = (Second.measure(samples, beyond, rate) for samples, beyond in split_seconds(blocks, rate))
    for around, place in add_neighbours(seconds, REACH):
        yield around[place].samples, is_speech(around, place)


def assume_speech(blocks: Iterable[np.ndarray], rate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Like ``detect_speech``, but everything counts as speech."""
    for samples, _ in split_seconds(blocks, rate):
        yield samples, np.ones(num_frames(len(samples), rate), bool)


def hop_samples(rate: int) -> int:
    """Samples from one frame to the next."""
    return round(HOP_SECONDS * rate)


def num_frames(samples: int, rate: int) -> int:
    """Frames that ``samples`` fill, the last one perhaps only in part."""
    return -(-samples // hop_samples(rate))


def find_speech(flags: np.ndarray) -> list[tuple[int, int]]:
    """Where there is speech, without clicks: first frame, and the one behind the last."""
    return [(first, last) for first, last in find_runs(flags) if last - first >= LEAST_SPEECH]


def find_runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """The runs in which ``flags`` are true: first index, and the one behind the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


# --- the decision ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Second:
    """A block of a recording and the decibels measured in it."""

    samples: np.ndarray
    levels: np.ndarray  # (frames, bands)
    quiet: np.ndarray  # (bands,): the quietest moment

    @staticmethod
    def measure(samples: np.ndarray, beyond: np.ndarray, rate: int) -> Second:
        """``beyond`` are the samples that follow: the last window reaches into them."""
        levels = measure_levels(samples, beyond, rate)
        return Second(samples, levels, average_frames(levels, QUIET_FRAMES).min(axis=0))


def is_speech(around: list[Second], place: int) -> np.ndarray:
    """Which frames of the second at ``place`` are speech, judged by the seconds ``around``."""
    quiets = np.sort([second.quiet for second in around], axis=0)
    quiet = quiets[int(QUIET_SHARE * (len(around) - 1))]
    near = around[max(0, place - 1) : place + 2]
    levels = np.concatenate([second.levels for second in near])
    smooth = average_frames(levels, ACTIVE_FRAMES)
    active = (smooth > quiet + RISE_DB) & (smooth > smooth.max(axis=1, keepdims=True) - LEAKAGE_DB)
    speech = active.mean(axis=1) >= ACTIVE_SHARE
    if speech.any():
        speech &= measure_changes(levels, active & speech[:, None]) > LEAST_CHANGE_DB
    first = 0 if place == 0 else len(near[0].levels)
    return speech[first : first + len(around[place].levels)]


def average_frames(levels: np.ndarray, frames: int) -> np.ndarray:
    """The mean over an odd number of ``frames`` around each one; the first and last are repeated."""
    reach = frames // 2
    padded = np.concatenate([levels[:1].repeat(reach, axis=0), levels, levels[-1:].repeat(reach, axis=0)])
    return np.sum([padded[shift : shift + len(levels)] for shift in range(frames)], axis=0) / frames


def measure_changes(levels: np.ndarray, active: np.ndarray) -> np.ndarray:
    """By how many decibels the ``active`` bands change around each frame, ``(frames,)``.

    A quantile over the active frames: what begins or ends suddenly and stays the same in between does
    not change. Infinity where there are too few of them to judge by.
    """
    changes = np.full(len(levels), np.inf)
    bands = active[LAG:] | active[:-LAG]
    moved = np.abs(levels[LAG:] - levels[:-LAG])
    changes[LAG:] = (moved * bands).sum(axis=1) / np.maximum(bands.sum(axis=1), 1)
    changes[~active.any(axis=1)] = np.inf
    values = np.pad(changes, CHANGE_REACH, constant_values=np.inf)
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(values, 2 * CHANGE_REACH + 1), axis=1)
    counts = np.isfinite(windows).sum(axis=1)
    changes = np.take_along_axis(
        windows, (CHANGE_SHARE * np.maximum(counts - 1, 0)).astype(int)[:, None], axis=1
    )[:, 0]
    return np.where(counts < LEAST_ACTIVE, np.inf, changes)


def measure_levels(
    samples: np.ndarray,
    beyond: np.ndarray,
    rate: int,
    bands: int = BANDS,
    low_hz: float = LOW_HZ,
    high_hz: float = HIGH_HZ,
) -> np.ndarray:
    """Power in each band in decibels, ``(frames, bands)``; a window is two frames long.

    Windows that reach beyond the end of the recording get the levels of the last one that does not:
    filled up with zeros, they would hold a click.
    """
    hop = hop_samples(rate)
    frames = num_frames(len(samples), rate)
    known = np.concatenate([samples, beyond[:hop]])
    whole = min(frames, max(1, len(known) // hop - 1))
    known = np.pad(known, (0, max(0, 2 * hop - len(known))))
    windows = np.lib.stride_tricks.sliding_window_view(known, 2 * hop)[::hop][:whole]
    window = np.hanning(2 * hop).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(windows * window, axis=1) / window.sum()) ** 2
    edges = np.minimum(band_edges(rate, bands, low_hz, high_hz), hop)
    power = np.add.reduceat(spectrum, edges, axis=1)[:, :bands]
    levels = 10 * np.log10(np.maximum(power, 10 ** (FAINTEST_DB / 10)))
    return levels[np.minimum(np.arange(frames), whole - 1)]


def band_edges(rate: int, bands: int = BANDS, low_hz: float = LOW_HZ, high_hz: float = HIGH_HZ) -> np.ndarray:
    """The first line of the spectrum in each band, and the one behind the last; mel scale (HTK)."""
    low, high = (np.log1p(hertz / 700) for hertz in (low_hz, min(high_hz, 0.98 * rate / 2)))
    hertz = 700 * np.expm1(np.linspace(low, high, bands + 1))
    lines = np.ceil(hertz * 2 * hop_samples(rate) / rate).astype(int)
    return np.maximum.accumulate(np.maximum(lines, lines[0] + np.arange(bands + 1)))


# --- blocks ---------------------------------------------------------------------------------------


def split_seconds(blocks: Iterable[np.ndarray], rate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of any size as seconds, each with the samples of a frame that follow it.

    The last one is two frames longer at most, so that none but a whole recording has less than a window.
    """
    hop = hop_samples(rate)
    size = BLOCK * hop
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        begin = 0
        while len(rest) - begin >= size + 2 * hop:
            yield rest[begin : begin + size], rest[begin + size : begin + size + hop]
            begin += size
        rest = rest[begin:].copy()
    if len(rest):
        yield rest, rest[:0]


def add_neighbours(seconds: Iterable[Second], reach: int) -> Iterator[tuple[list[Second], int]]:
    """Each second with those up to ``reach`` before and behind it, and its place among them."""
    around: deque[Second] = deque()
    place = 0
    for second in seconds:
        around.append(second)
        if len(around) > place + reach:
            yield list(around), place
            place += 1
            if place > reach:
                around.popleft()
                place -= 1
    while place < len(around):
        yield list(around), place
        place += 1
        if place > reach:
            around.popleft()
            place -= 1
