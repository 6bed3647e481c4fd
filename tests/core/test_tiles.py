"""Products in tile registers: exact where bfloat16 is, in every shape."""

from __future__ import annotations

import numpy as np
import pytest

from asr.core.compiled import compile_vectorised
from asr.core.tiles import (
    has_tiles,
    make_tile_layout,
    multiply_packed,
    pack_columns,
    pack_rows,
    round_to_bfloat16,
    to_float32,
    transpose,
)

pytestmark = pytest.mark.skipif(not has_tiles(), reason="the processor has no tiles")


def to_bits(values: np.ndarray) -> np.ndarray:
    """Small integers as bfloat16, which holds them exactly."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-8, 9, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [(16, 32, 32), (32, 64, 96), (48, 320, 64), (80, 800, 32), (16, 1568, 32), (32, 768, 1024)],
)
def test_products_of_integers_are_exact(rows, depth, columns):
    left, right = integers(rows, depth), integers(depth, columns)
    packed = np.zeros(depth * columns // 2, np.uint32)
    pack_rows(to_bits(right), packed, 0, depth)
    total = np.full((rows, columns), np.nan, np.float32)
    multiply_packed(to_bits(left), packed, total, depth, make_tile_layout())
    assert np.array_equal(total, left @ right)


def test_a_transposed_matrix_is_packed_alike():
    matrix = to_bits(integers(96, 64))
    straight, turned = np.zeros(96 * 32, np.uint32), np.ones(96 * 32, np.uint32)
    pack_rows(matrix, straight, 0, 96)
    pack_columns(np.ascontiguousarray(matrix.T), turned)
    assert np.array_equal(straight, turned)


def test_a_matrix_is_packed_and_transposed_in_parts():
    matrix = to_bits(integers(96, 64))
    whole, parts = np.zeros(96 * 32, np.uint32), np.ones(96 * 32, np.uint32)
    pack_rows(matrix, whole, 0, 96)
    turned = np.zeros((64, 128), np.uint16)
    for first, end in ((0, 32), (32, 96)):
        pack_rows(matrix[first:end], parts, first, 96)
        transpose(matrix[first:end], turned, first)
    assert np.array_equal(whole, parts)
    assert np.array_equal(turned[:, :96], matrix.T)
    assert not turned[:, 96:].any()


def test_rounding_is_to_the_nearest_and_ties_to_even():
    numbers = np.array([1.0, -1.0, 1.00390625, 1.01171875, 1.004, 3.14159274, 1e-38, 0.0], np.float32)
    bits, back = np.zeros(len(numbers), np.uint16), np.zeros(len(numbers), np.float32)
    _round(numbers, bits, back)
    assert back.tolist() == pytest.approx([1, -1, 1, 1.015625, 1.0078125, 3.140625, 1e-38, 0], rel=2**-8)
    assert back[:6].tolist() == [1, -1, 1, 1.015625, 1.0078125, 3.140625]


@compile_vectorised
def _round(numbers, bits, back):
    for n in range(len(numbers)):
        bits[n] = round_to_bfloat16(numbers[n])
        back[n] = to_float32(bits[n])
