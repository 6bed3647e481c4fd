"""Decimal numbers read from bytes and written to bytes, by compiled code."""

from __future__ import annotations

import numpy as np

from asr.core.compiled import compile_function

# As numbers, because a byte of an array is one.
PLUS, MINUS, POINT, ZERO, NINE = ord("+"), ord("-"), ord("."), ord("0"), ord("9")
LOWER = 32  # this bit makes an ASCII letter lower-case
EXPONENT = ord("e")
INF = (ord("i"), ord("n"), ord("f"))

POWERS = 10.0 ** np.arange(23)  # the powers of ten that a float has exactly

DECIMALS = 7  # single precision has no more of a log10 between -1 and -10
WIDTH = 24  # more bytes than any number takes


@compile_function
def parse_decimal(text: np.ndarray, begin: int, end: int) -> float:
    """Parse the number ``text[begin:end]``, perhaps with an exponent, or infinity; NaN where it is none."""
    place = begin
    negative = place < end and text[place] == MINUS
    if place < end and (negative or text[place] == PLUS):
        place += 1
    value, place, scale = _parse_mantissa(text, place, end)
    if np.isnan(value):
        return value
    if place < end:
        exponent = _parse_exponent(text, place, end)
        if exponent == NO_EXPONENT:
            return np.nan
        scale += exponent
    if -len(POWERS) < scale <= 0:
        value /= POWERS[-scale]
    else:
        value *= 10.0**scale
    return -value if negative else value


@compile_function
def _parse_mantissa(text: np.ndarray, place: int, end: int) -> tuple[float, int, int]:
    """Parse digits with or without a point: their value without the point, where they end, its exponent."""
    if end - place == 3 and (text[place] | LOWER, text[place + 1] | LOWER, text[place + 2] | LOWER) == INF:
        return np.inf, place + 3, 0
    value, digits, decimals, point = 0.0, 0, 0, False
    while place < end:
        if text[place] == POINT and not point:
            point = True
        elif ZERO <= text[place] <= NINE:
            value = 10.0 * value + (text[place] - ZERO)
            digits += 1
            decimals += point
        else:
            break
        place += 1
    return (value if digits else np.nan), place, -decimals


NO_EXPONENT = 1 << 20


@compile_function
def _parse_exponent(text: np.ndarray, place: int, end: int) -> int:
    """Parse an exponent such as ``e-5``, within ±400; ``NO_EXPONENT`` where there is something else."""
    if text[place] | LOWER != EXPONENT:
        return NO_EXPONENT
    place += 1
    negative = place < end and text[place] == MINUS
    if place < end and (negative or text[place] == PLUS):
        place += 1
    if place == end:
        return NO_EXPONENT
    exponent = 0
    while place < end:
        if not ZERO <= text[place] <= NINE:
            return NO_EXPONENT
        exponent = min(10 * exponent + int(text[place] - ZERO), 400)
        place += 1
    return -exponent if negative else exponent


@compile_function
def write_decimal(value: float, text: np.ndarray, place: int) -> int:
    """Write ``value``, below a billion, with up to seven decimals; return the place after it."""
    if value < 0:
        text[place] = MINUS
        place += 1
        value = -value
    if np.isinf(value):
        text[place], text[place + 1], text[place + 2] = INF
        return place + 3
    whole, rest = divmod(int(value * 10.0**DECIMALS + 0.5), 10**DECIMALS)
    place = _write_whole(whole, text, place)
    if rest == 0:
        return place
    text[place] = POINT
    power = 10 ** (DECIMALS - 1)
    while rest:
        place += 1
        digit, rest = divmod(rest, power)
        text[place] = ZERO + digit
        power //= 10
    return place + 1


@compile_function
def _write_whole(value: int, text: np.ndarray, place: int) -> int:
    """Write a whole number that is not negative; return the place after it."""
    end, power = place + 1, 10
    while power <= value:
        end, power = end + 1, power * 10
    for i in range(end - 1, place - 1, -1):
        text[i] = ZERO + value % 10
        value //= 10
    return end
