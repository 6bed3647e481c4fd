"""Where a sound holds its pitch: keypad tones, bells, held notes of music. A voice never does for long.

Within a tenth of a second the harmonics of a voice move, those of a note stay where they are. Of the power of
each frame is measured how much lies in lines of the spectrum that are found again a little later or earlier.
Tones that are too short for that, as those of a keypad, have nearly all of their power in two lines.
"""

from __future__ import annotations

import numpy as np

WINDOW = 4  # frames of speech detection in a window: 80 ms
LAG = 6  # frames from a window to the one that it is compared with; they do not overlap
CONTEXT = LAG + WINDOW // 2  # frames on either side that a decision looks at
LOW_HZ, HIGH_HZ = 250.0, 3800.0  # above the first harmonic of most voices, which moves the least
LINE_DB = 6.0  # a line rises so far above the mean of the spectrum around it
AROUND = 12  # lines of the spectrum to either side of which that is the mean
FAINTEST_DB = 35.0  # below the loudest line of a frame
SAME_HZ = 2.0  # a line that moves less is the same
HELD_SHARE = 0.7  # of the power lies in lines that stay
BEEP_HZ = 600.0  # the two lines of a keypad's tones lie above, the strongest of a voice seldom do
BEEP_SHARE = 0.8  # of the power lies in two of them
TOGETHER = 50  # frames whose spectrum is measured at once: it stays in a core's cache
LINE_WIDTH = 3  # neighbours on either side into which a short tone spreads


def find_tones(samples: np.ndarray, frames: int, hop: int, rate: int) -> np.ndarray:
    """Say which frames hold their pitch.

    Args:
        samples: those of the frames, and ``CONTEXT * hop`` more before and behind them.
        frames: how many there are.
        hop: samples from one frame to the next.
        rate: sampling rate in hertz.

    Returns:
        ``(frames,)`` booleans.
    """
    size = WINDOW * hop
    hertz = rate / size  # from one line to the next
    low, high = round(LOW_HZ / hertz), round(min(HIGH_HZ, 0.48 * rate) / hertz)
    if high - low <= 2 * AROUND:
        return np.zeros(frames, bool)
    first = CONTEXT * hop - LAG * hop + hop // 2 - size // 2  # windows are centred on their frames
    windows = np.lib.stride_tricks.sliding_window_view(samples, size)[first::hop][: frames + 2 * LAG]
    window = np.hanning(size).astype(np.float32)
    spectrum = np.empty((len(windows), high - low), np.float32)
    for begin in range(0, len(windows), TOGETHER):
        part = slice(begin, begin + TOGETHER)
        spectrum[part] = measure_power(windows[part] * window)[:, low:high]
    spectrum += np.float32(1e-14)
    inner = slice(LAG, len(spectrum) - LAG)
    total = spectrum[inner].sum(axis=1)
    held = (spectrum[inner] * find_held_lines(10 * np.log10(spectrum), hertz)).sum(axis=1)
    beep = sum_two_lines(spectrum[inner, max(0, round(BEEP_HZ / hertz) - low) :])
    tones = (held > HELD_SHARE * total) | (beep > BEEP_SHARE * total)
    return np.pad(tones, (0, max(0, frames - len(tones))))[:frames]


def measure_power(windows: np.ndarray) -> np.ndarray:
    """Measure the power in each line of the spectrum of ``windows``, ``(frames, samples)``: float32."""
    lines = np.fft.rfft(windows, axis=1)
    power: np.ndarray = lines.real**2 + lines.imag**2
    return power


def find_held_lines(levels: np.ndarray, hertz: float) -> np.ndarray:
    """Find lines that another frame ``LAG`` away has, with two neighbours on either side.

    ``levels`` are decibels ``(LAG + frames + LAG, lines)``, ``hertz`` the distance of two lines. Returns
    booleans ``(frames, lines)``.
    """
    sums = np.cumsum(np.pad(levels, ((0, 0), (AROUND + 1, AROUND)), mode="edge"), axis=1, dtype=np.float64)
    width = 2 * AROUND + 1
    means = (sums[:, width:] - sums[:, :-width]) / width
    inner, left, right = levels[:, 1:-1], levels[:, :-2], levels[:, 2:]
    is_line = (inner > left) & (inner >= right) & (inner - means[:, 1:-1] > LINE_DB)
    is_line &= inner > levels.max(axis=1, keepdims=True) - FAINTEST_DB
    rows, columns = np.nonzero(is_line)  # few: the rest is done for them alone
    top, left, right = inner[rows, columns], left[rows, columns], right[rows, columns]
    columns += 1
    # The top of a parabola through three neighbours is where between two lines the tone lies.
    places = np.full(levels.shape, -np.inf)
    places[rows, columns] = columns + 0.5 * (left - right) / np.minimum(left - 2 * top + right, -1e-9)
    within = (rows >= LAG) & (rows < len(levels) - LAG)
    rows, columns = rows[within], columns[within]
    now = places[rows, columns]
    held = np.zeros(len(rows), bool)
    for lag in (-LAG, LAG):
        for shift in (-1, 0, 1):
            held |= np.abs(places[rows + lag, columns + shift] - now) <= SAME_HZ / hertz
    rows, columns = rows[held] - LAG, columns[held]
    wide = np.zeros((len(levels) - 2 * LAG, levels.shape[1]), bool)
    for shift in (-2, -1, 0, 1, 2):
        wide[rows, (columns + shift) % levels.shape[1]] = True
    return wide


def sum_two_lines(spectrum: np.ndarray) -> np.ndarray:
    """Add up the power of the two strongest lines and what leaks around them, ``(frames,)``."""
    rest = spectrum.copy()
    if not rest.shape[1]:
        return np.zeros(len(rest))
    total = rest.sum(axis=1)
    rows = np.arange(len(rest))[:, None]
    for _ in range(2):
        lines = rest.argmax(axis=1)[:, None] + np.arange(-LINE_WIDTH, LINE_WIDTH + 1)
        rest[rows, np.clip(lines, 0, rest.shape[1] - 1)] = 0
    return total - rest.sum(axis=1)
