"""Where somebody speaks, judged by how loud a recording is in bands of frequency.

Speech rises above the quiet around it in many bands at once, which a tone does not, and it does not
stay the same for long, which noise does. Both are measured against the recording itself, so that neither
its loudness nor its noise matters. A voice does not hold its pitch, which music and keypads do (``tones``),
and does not only die away, which drums do; nor does it say the same again and again, as alarms, or keep the
shape of its spectrum, as applause. What is doubtful counts as speech: the model hears it and decides.

``SpeechDetector`` is fed samples as they come; ``detect_speech`` feeds it those of a whole recording. What is
on the edge of speech belongs to it (hysteresis): fewer active bands go on with speech than begin it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from asr.audio.tones import CONTEXT, find_tones, measure_power

HOP_SECONDS = 0.02  # from one frame to the next
BLOCK = 50  # frames that are decided on together: a second
TOGETHER = 4  # seconds that are measured at once: what takes longer than to measure one is to begin
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
GOING_ON_SHARE = 0.15  # of them are, where speech has begun and not yet ended
LAG = 3  # frames: what changes within this time changes as fast as speech
CHANGE_REACH = 25  # frames to either side whose changes count
CHANGE_SHARE = 0.75  # of them are at most the typical one: in a loud place, words may be few among noise
LEAST_ACTIVE = 25  # active frames among these: anything shorter is never steady noise
LEAST_SPEECH = 4  # frames; fewer are a click, or where a noise begins
LEAST_CHANGE_DB = 3.2  # within LAG, in the active bands; steady noise stays below it
TONE_REACH = 25  # active frames up to so far away to either side say together whether they are tones
TONE_SHARE = 0.6  # of them hold their pitch; of speech no more than 0.3 were measured
FALL_REACH = 75  # the same for blows, which are rarer
FALL_SHARE = 0.66  # of them are fainter than the one before; of speech 0.5, no more than 0.63
FALL_DB = 0.3
LEAST_FALLS = 40  # active frames in which blows can be told from speech
WIDE = 2  # seconds to either side that are looked through for what is the same all the time
LEAST_SAME = 75  # active frames there; fewer may be the same by chance
SHAPE_FLOOR_DB = 30.0  # below the loudest band of a frame: fainter ones are no part of its shape
SHAPE_FRAMES = 7  # averaged, so that the chances of noise do not count
SHAPE_LAG = 20  # frames; a syllable later, a voice says something else
SHAPE_SHARE = 0.9  # of the frames differ by at most the typical difference: words may be few
LEAST_SHAPE_DB = 2.4  # between frames of speech; applause 1.5 to 2.3, speech in loud noise 2.7, or else 4
LAGS = np.arange(8, 51)  # frames after which an alarm may begin again: a sixth of a second to a second
LEAST_COMPARED = 100  # frames with those a lag later
LEAST_REPEATS = 3  # of a lag are compared: a voice that was recorded once may say "four four four"
LEAST_REPEATED_DB = 3.2  # what comes again differs by less; speech in loud noise by 4, else 10 and more


class SpeechDetector:
    """Decides about samples as they come.

    Args:
        rate: their sampling rate in hertz, mono.
        ahead: seconds that it waits for before it decides about one, to know the quiet around it; less than
            1 makes it worse at the end of words.
    """

    def __init__(self, rate: int, ahead: int = REACH) -> None:
        self.rate, self.ahead = rate, ahead
        self.hop = hop_samples(rate)
        self.before = np.zeros(CONTEXT * self.hop, np.float32)  # of what is next measured
        self.rest = np.zeros(0, np.float32)  # not yet measured
        self.around: list[Second] = []  # measured
        self.place = 0  # in there, of what is next decided
        self.settled: Second | None = None  # the part of ``rest`` that need not be measured again

    def feed(self, samples: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Take the next samples; return those that are decided on by that, like ``detect_speech``."""
        self.rest = np.concatenate([self.rest, samples])
        size, beyond = BLOCK * self.hop, CONTEXT * self.hop
        decided = []
        begin = 0
        while (count := min(TOGETHER, (len(self.rest) - begin - beyond) // size)) > 0:
            end = begin + count * size
            for second in self._measure(self.rest[begin:end], self.rest[end : end + beyond]):
                self.around.append(second)
                if len(self.around) > self.place + self.ahead:
                    decided.append(self._decide())
            begin = end
        self.rest = self.rest[begin:].copy()
        return decided

    def finish(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return what is left when no more samples come."""
        if len(self.rest):
            self.around += self._measure(self.rest, self.rest[:0])
        self.rest = self.rest[:0]
        return [self._decide() for _ in range(len(self.around) - self.place)]

    def guess(self, again: int = 0) -> np.ndarray:
        """Decide about what is not yet decided, as if no more came, ``(frames,)``; all of it may change.

        So many seconds that were decided before are judged ``again`` by what has come since, at most those
        that are remembered.
        """
        around = [*self.around, self._measure_rest()] if len(self.rest) else self.around
        guesses = [is_speech(around, place) for place in range(max(0, self.place - again), len(around))]
        return np.concatenate([np.zeros(0, bool), *guesses])

    def _measure_rest(self) -> Second:
        """Measure what is no whole second yet; frames that no window reaches beyond are measured once."""
        place = 0 if self.settled is None else len(self.settled.tones)
        place = min(place, len(self.rest) // self.hop)
        before = np.concatenate([self.before, self.rest[: place * self.hop]])[-CONTEXT * self.hop :]
        levels, tones = np.zeros((0, BANDS)), np.zeros(0, bool)
        if place and self.settled is not None:
            levels, tones = self.settled.levels[:place], self.settled.tones[:place]
        if place * self.hop < len(self.rest):
            new = Second.measure(before, self.rest[place * self.hop :], self.rest[:0], self.rate)
            levels, tones = np.concatenate([levels, new.levels]), np.concatenate([tones, new.tones])
        rest = Second(self.rest, levels, find_quiet(levels), tones)
        whole = max(0, len(self.rest) // self.hop - CONTEXT)
        self.settled = Second(self.rest[:0], levels[:whole], rest.quiet, tones[:whole])
        return rest

    def _measure(self, samples: np.ndarray, beyond: np.ndarray) -> list[Second]:
        """Measure several seconds; less than one more goes with the last."""
        stretch = Second.measure(self.before, samples.copy(), beyond, self.rate)
        self.settled = None
        self.before = np.concatenate([self.before, samples])[-CONTEXT * self.hop :]
        return stretch.divide(self.hop)

    def _decide(self) -> tuple[np.ndarray, np.ndarray]:
        second, speech = self.around[self.place], is_speech(self.around, self.place)
        self.place += 1
        if self.place > REACH:
            del self.around[0]
            self.place -= 1
        return second.samples, speech


def detect_speech(blocks: Iterable[np.ndarray], rate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same samples in other blocks, with a decision for each frame.

    Args:
        blocks: the samples of a recording, mono, in pieces of any size.
        rate: their sampling rate in hertz.

    Yields:
        Samples of a second (at the end, of up to ``CONTEXT`` frames more) and ``(frames,)`` booleans, true
        where there is speech; a frame stands for ``hop_samples(rate)`` samples, and the last one is filled
        up with zeros.
    """
    detector = SpeechDetector(rate)
    for block in blocks:
        yield from detector.feed(block)
    yield from detector.finish()


def assume_speech(blocks: Iterable[np.ndarray], rate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Like ``detect_speech``, but everything counts as speech."""
    size, rest = BLOCK * hop_samples(rate), np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        for _ in range(len(rest) // size):
            yield rest[:size], np.ones(BLOCK, bool)
            rest = rest[size:]
    if len(rest):
        yield rest, np.ones(num_frames(len(rest), rate), bool)


def repeat_decisions(
    blocks: Iterable[np.ndarray], flags: np.ndarray, rate: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Like ``detect_speech``, where the decisions about all frames, ``(frames,)``, are known."""
    hop, done, rest = hop_samples(rate), 0, np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= (BLOCK + CONTEXT) * hop:
            yield rest[: BLOCK * hop], flags[done : done + BLOCK]
            rest, done = rest[BLOCK * hop :], done + BLOCK
    if len(rest):
        yield rest, flags[done:]


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
    """A block of a recording and what is measured in it: a second, or several before they are divided."""

    samples: np.ndarray
    levels: np.ndarray  # (frames, bands), decibels
    quiet: np.ndarray  # (bands,): the quietest moment
    tones: np.ndarray  # (frames,) booleans: the pitch is held

    @staticmethod
    def measure(before: np.ndarray, samples: np.ndarray, beyond: np.ndarray, rate: int) -> Second:
        """``before`` and ``beyond`` are the samples around: windows reach into them."""
        levels = measure_levels(samples, beyond, rate)
        hop = hop_samples(rate)
        missing = (CONTEXT + len(levels) + CONTEXT) * hop - len(before) - len(samples) - len(beyond)
        around = np.concatenate([before, samples, beyond, np.zeros(max(0, missing), np.float32)])
        tones = find_tones(around, len(levels), hop, rate)
        return Second(samples, levels, find_quiet(levels), tones)

    def divide(self, hop: int) -> list[Second]:
        """Divide several seconds; less than one more stays with the last."""
        places = range(BLOCK, len(self.levels) - BLOCK + 1, BLOCK)
        samples = np.split(self.samples, [place * hop for place in places])
        parts = zip(samples, np.split(self.levels, places), np.split(self.tones, places), strict=True)
        return [Second(own, levels, find_quiet(levels), tones) for own, levels, tones in parts]


def find_quiet(levels: np.ndarray) -> np.ndarray:
    """Find how loud each band is in the quietest moment, ``(bands,)``."""
    return average_frames(levels, QUIET_FRAMES).min(axis=0)


def is_speech(around: list[Second], place: int) -> np.ndarray:
    """Which frames of the second at ``place`` are speech, judged by the seconds ``around``."""
    quiets = np.sort([second.quiet for second in around], axis=0)
    quiet = quiets[int(QUIET_SHARE * (len(around) - 1))]
    near = around[max(0, place - 1) : place + 2]
    levels = np.concatenate([second.levels for second in near])
    smooth = average_frames(levels, ACTIVE_FRAMES)
    active = (smooth > quiet + RISE_DB) & (smooth > smooth.max(axis=1, keepdims=True) - LEAKAGE_DB)
    speech = extend_runs(active.mean(axis=1) >= ACTIVE_SHARE, active.mean(axis=1) >= GOING_ON_SHARE)
    if speech.any():
        tones = np.concatenate([second.tones for second in near])
        speech &= measure_share(tones, speech, TONE_REACH) < TONE_SHARE
        falls = np.diff(10 * np.log10((10 ** (levels / 10)).sum(axis=1)), prepend=0.0) < -FALL_DB
        is_many = count_around(speech, FALL_REACH) >= LEAST_FALLS
        speech &= (measure_share(falls, speech, FALL_REACH) < FALL_SHARE) | ~is_many
    if speech.any():
        speech &= measure_changes(levels, active & speech[:, None]) > LEAST_CHANGE_DB
    first = 0 if place == 0 else len(near[0].levels)
    speech = speech[first : first + len(around[place].levels)]
    if speech.any():
        wide = np.concatenate([second.levels for second in around[max(0, place - WIDE) : place + WIDE + 1]])
        smooth = average_frames(wide, ACTIVE_FRAMES)
        active = (smooth > quiet + RISE_DB) & (smooth > smooth.max(axis=1, keepdims=True) - LEAKAGE_DB)
        speech &= not is_the_same_all_the_time(wide, active.mean(axis=1) >= GOING_ON_SHARE)
    return speech


def is_the_same_all_the_time(levels: np.ndarray, active: np.ndarray) -> bool:
    """Whether the ``active`` frames of ``levels``, ``(frames, bands)``, are those of no voice.

    Applause keeps the shape of its spectrum; an alarm that sweeps or beeps says the same again and again.
    """
    if active.sum() < LEAST_SAME:
        return False
    levels = np.maximum(levels, levels.max(axis=1, keepdims=True) - SHAPE_FLOOR_DB)
    return (
        measure_shape(levels, active) < LEAST_SHAPE_DB
        or measure_repetition(levels, active) < LEAST_REPEATED_DB
    )


def measure_shape(levels: np.ndarray, active: np.ndarray) -> float:
    """By how many decibels the shape of the spectrum changes within ``SHAPE_LAG`` frames, loudness apart."""
    smooth = average_frames(levels, SHAPE_FRAMES)
    shapes = smooth - smooth.mean(axis=1, keepdims=True)
    middle = active[SHAPE_LAG // 2 : len(active) - SHAPE_LAG // 2]
    changes = np.sort(np.abs(shapes[SHAPE_LAG:] - shapes[:-SHAPE_LAG]).mean(axis=1)[middle])
    if not len(changes):
        return np.inf
    place = SHAPE_SHARE * (len(changes) - 1)
    below, above = changes[int(place)], changes[min(int(place) + 1, len(changes) - 1)]
    return float(below + (above - below) * (place % 1))


def measure_repetition(levels: np.ndarray, active: np.ndarray) -> float:
    """By how many decibels, root mean square, frames differ from those a lag later, for the best of ``LAGS``.

    The squares of all differences at all lags are sums of products, which the Fourier transform adds up.
    """
    size = 1 << (2 * len(levels)).bit_length()
    counted = active.astype(float)
    centred = (levels - levels[active].mean(axis=0)) * counted[:, None]
    squares = (centred**2).mean(axis=1)
    bands = np.fft.rfft(centred.T, size)
    own, ones = np.fft.rfft(np.stack([squares, counted]), size)
    power = (bands.real**2 + bands.imag**2).mean(axis=0)
    total = np.fft.irfft(2 * (np.conj(own) * ones).real - 2 * power)[LAGS]
    pairs = np.fft.irfft(ones.real**2 + ones.imag**2)[LAGS]
    means = total / np.maximum(pairs, 1.0)
    means = np.maximum(means[np.round(pairs) >= np.maximum(LEAST_COMPARED, LEAST_REPEATS * LAGS)], 0.0)
    return float(np.sqrt(means.min(initial=np.inf)))


def extend_runs(certain: np.ndarray, likely: np.ndarray) -> np.ndarray:
    """The ``certain`` frames and runs of ``likely`` ones with ``LEAST_SPEECH`` certain frames in a row."""
    extended = certain.copy()
    begins = find_speech(certain)
    for first, last in find_runs(likely | certain):
        if any(first <= begin < last for begin, _ in begins):
            extended[first:last] = True
    return extended


def measure_share(flags: np.ndarray, among: np.ndarray, reach: int) -> np.ndarray:
    """The share of ``flags`` among the frames ``among`` up to ``reach`` to either side, ``(frames,)``."""
    return count_around(flags & among, reach) / np.maximum(count_around(among, reach), 1)


def count_around(flags: np.ndarray, reach: int) -> np.ndarray:
    """How many ``flags`` are set up to ``reach`` frames to either side of each frame, ``(frames,)``."""
    sums = np.zeros(len(flags) + 2 * reach + 1, int)
    np.cumsum(flags, out=sums[reach + 1 : len(sums) - reach])
    sums[len(sums) - reach :] = sums[-1 - reach]
    return sums[2 * reach + 1 :] - sums[: -2 * reach - 1]


def average_frames(levels: np.ndarray, frames: int) -> np.ndarray:
    """The mean over an odd number of ``frames`` around each one; the first and last are repeated."""
    reach = frames // 2
    padded = np.concatenate([levels[:1].repeat(reach, axis=0), levels, levels[-1:].repeat(reach, axis=0)])
    total = padded[: len(levels)].copy()
    for shift in range(1, frames):
        total += padded[shift : shift + len(levels)]
    total /= frames
    return total


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
    nothing = np.full(CHANGE_REACH, np.inf)
    values = np.concatenate([nothing, changes, nothing])
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(values, 2 * CHANGE_REACH + 1), axis=1)
    counts = np.isfinite(windows).sum(axis=1)
    changes = np.take_along_axis(
        windows, (CHANGE_SHARE * np.maximum(counts - 1, 0)).astype(int)[:, None], axis=1
    )[:, 0]
    return np.where(counts < LEAST_ACTIVE, np.inf, changes)


def measure_loudness(samples: np.ndarray, rate: int) -> np.ndarray:
    """Power of each frame in all bands together, in decibels, ``(frames,)``."""
    levels = measure_levels(samples, samples[:0], rate)
    return 10 * np.log10((10 ** (levels / 10)).sum(axis=1))


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
    edges = np.minimum(band_edges(rate, bands, low_hz, high_hz), hop)
    power = np.empty((whole, bands), np.float32)
    for first in range(0, whole, BLOCK):  # what a second takes stays in a core's cache
        part = slice(first, first + BLOCK)
        spectrum = measure_power(windows[part] * (window / window.sum()))
        power[part] = np.add.reduceat(spectrum, edges, axis=1)[:, :bands]
    levels = 10 * np.log10(np.maximum(power, 10 ** (FAINTEST_DB / 10)))
    return levels[np.minimum(np.arange(frames), whole - 1)]


def band_edges(rate: int, bands: int = BANDS, low_hz: float = LOW_HZ, high_hz: float = HIGH_HZ) -> np.ndarray:
    """The first line of the spectrum in each band, and the one behind the last; mel scale (HTK)."""
    low, high = (np.log1p(hertz / 700) for hertz in (low_hz, min(high_hz, 0.98 * rate / 2)))
    hertz = 700 * np.expm1(np.linspace(low, high, bands + 1))
    lines = np.ceil(hertz * 2 * hop_samples(rate) / rate).astype(int)
    return np.maximum.accumulate(np.maximum(lines, lines[0] + np.arange(bands + 1)))
