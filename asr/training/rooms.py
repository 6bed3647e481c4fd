"""Rooms as impulse responses, from a sound to a microphone: simulated, or prepared from recordings."""

from __future__ import annotations

import math

import numpy as np

SOUND_SPEED = 343.0  # metres a second
SMALLEST_ROOM, LARGEST_ROOM = (3.0, 3.0, 2.5), (8.0, 8.0, 3.5)  # metres
WALL_METRES = 0.5  # the distance that speaker and microphone keep from the walls
LONGEST_RESPONSE = 1.0  # seconds; the rest of an impulse response is cut off


def prepare_response(response: np.ndarray, rate: int) -> np.ndarray:
    """Cut an impulse response to begin with the direct sound, and scale it to energy 1: ``(taps,)``."""
    first = int(np.argmax(np.abs(response)))
    response = response[first : first + int(LONGEST_RESPONSE * rate)]
    return (response / np.linalg.norm(response)).astype(np.float32)


def sample_room(number: int, seconds: tuple[float, ...], rate: int) -> np.ndarray:
    """Draw a room by its ``number``: size, positions and reverberation time; its ``(taps,)`` response.

    ``seconds`` are the shortest and the longest T60; ``rate`` is in hertz.
    """
    generator = np.random.default_rng(number)
    size = generator.uniform(SMALLEST_ROOM, LARGEST_ROOM)
    speaker, microphone = generator.uniform(WALL_METRES, size - WALL_METRES, (2, 3))
    t60 = generator.uniform(seconds[0], seconds[1])
    return prepare_response(simulate_response(size, speaker, microphone, t60, rate), rate)


def simulate_response(
    size: np.ndarray, speaker: np.ndarray, microphone: np.ndarray, t60: float, rate: int
) -> np.ndarray:
    """Simulate the impulse response of a box-shaped room by the image method (Allen & Berkley 1979).

    Args:
        size: ``(3,)`` metres; ``speaker`` and ``microphone`` are positions in it.
        t60: seconds in which sound falls by 60 decibels; sets the walls' reflection coefficient by
            Eyring's formula.
        rate: hertz.

    Returns:
        ``(taps,)`` from the time the sound is made until it is 45 decibels down.

    The coefficient is negative, which keeps the image method's surplus of low frequencies away
    (Lehmann & Johansson 2008).
    """
    taps = math.ceil(0.75 * t60 * rate)
    reach = SOUND_SPEED * taps / rate
    volume = np.prod(size)
    surface = 2 * volume * np.sum(1 / size)
    log_reflection = -12 * math.log(10) * volume / (SOUND_SPEED * surface * t60)
    squares, reflections = [], []
    for length, source, listener in zip(size, speaker, microphone, strict=True):
        n = np.arange(-math.ceil(reach / (2 * length)) - 1, math.ceil(reach / (2 * length)) + 2)
        images = np.concatenate([source + 2 * n * length, -source + 2 * n * length])
        squares.append((images - listener) ** 2)
        reflections.append(np.concatenate([2 * np.abs(n), np.abs(n) + np.abs(n - 1)]))
    distance = np.sqrt(squares[0][:, None, None] + squares[1][:, None] + squares[2])
    count = reflections[0][:, None, None] + reflections[1][:, None] + reflections[2]
    near = distance < reach - SOUND_SPEED / rate
    distance, count = distance[near], count[near]
    strength = np.where(count % 2, -1.0, 1.0) * np.exp(log_reflection * count) / distance
    delays = np.rint(distance * (rate / SOUND_SPEED)).astype(np.int64)
    return np.bincount(delays, strength, taps)
