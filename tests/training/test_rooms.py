"""Rooms: the image method against its loops, and what a room does to sound."""

from __future__ import annotations

import numpy as np
import pytest

from asr.training.rooms import prepare_response, sample_room, simulate_response
from tests.reference import room_response_by_images


def test_the_response_is_that_of_its_images_one_by_one():
    size, speaker, microphone = (
        np.array([3.1, 4.2, 2.6]),
        np.array([1.0, 1.5, 1.2]),
        np.array([2.2, 3.0, 1.6]),
    )
    fast = simulate_response(size, speaker, microphone, 0.12, 8000)
    slow = room_response_by_images(size, speaker, microphone, 0.12, 8000)
    assert len(fast) == len(slow)
    np.testing.assert_allclose(fast, slow, atol=1e-9)


def test_direct_sound_comes_first_and_falls_with_the_distance():
    size, speaker = np.array([6.0, 5.0, 3.0]), np.array([1.0, 2.0, 1.5])
    responses = [
        simulate_response(size, speaker, speaker + np.array([d, 0, 0]), 0.3, 16000) for d in (1.0, 2.0)
    ]
    firsts = [int(np.flatnonzero(response)[0]) for response in responses]
    assert firsts == [round(16000 / 343), round(2 * 16000 / 343)]
    assert responses[0][firsts[0]] == pytest.approx(2 * responses[1][firsts[1]])


def decay_seconds(response: np.ndarray, rate: int) -> float:
    """T60 from the fall between -5 and -25 dB of the energy still to come (Schroeder 1965)."""
    left = np.cumsum(response[::-1] ** 2)[::-1]
    level = 10 * np.log10(left / left[0] + 1e-12)
    return 3 * float(np.argmax(level < -25) - np.argmax(level < -5)) / rate


@pytest.mark.parametrize("t60", [0.2, 0.5])
def test_rooms_ring_as_long_as_asked(t60):
    # Eyring's formula takes a field without direction; a box rings some 10 to 30 % longer.
    measured = [decay_seconds(sample_room(number, (t60, t60), 16000), 16000) for number in range(20)]
    assert 1.0 < np.mean(measured) / t60 < 1.3


def test_rooms_differ_and_stay_what_they_are():
    rooms = [sample_room(number, (0.1, 0.5), 8000) for number in range(4)]
    assert len({len(room) for room in rooms}) == 4
    np.testing.assert_array_equal(rooms[2], sample_room(2, (0.1, 0.5), 8000))
    assert all(np.sum(room**2) == pytest.approx(1, rel=1e-5) for room in rooms)


def test_a_response_begins_with_its_direct_sound_and_ends():
    response = np.random.default_rng(0).uniform(-0.1, 0.1, 20000)
    response[1234] = -3.0
    prepared = prepare_response(response, 8000)
    assert len(prepared) == 8000
    assert np.argmax(np.abs(prepared)) == 0
    assert np.sum(prepared**2) == pytest.approx(1, rel=1e-5)
