"""Products of bfloat16 matrices in a processor's tile registers (Intel AMX), for numba's compiled code.

A tile register holds 16 rows of 64 bytes. ``TDPBF16PS`` multiplies 16 x 32 numbers with 32 x 16 and
adds the products to 16 x 16 float32 ones (Intel Architecture Instruction Set Extensions Programming
Reference, chapter 3). Its right operand comes in pairs: row ``k`` of a tile holds, for each of 16
columns, what stands in rows ``2 k`` and ``2 k + 1`` of the matrix. ``pack_rows`` and ``pack_columns``
bring a matrix into that order, panel by panel of 32 columns:

    packed[n // 32, k // 32, (n % 32) // 16, (k % 32) // 2, n % 16, k % 2] = matrix[k, n]

bfloat16 numbers are held in arrays of ``uint16`` (or two at a time of ``uint32``). Nothing here checks
an index: the callers' shapes must be what the docstrings say.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.extending import intrinsic

from asr.core.compiled import compile_inline, compile_no_alloc

ROWS, STEP, PANEL = 16, 32, 32  # rows of a tile; numbers added up in one product; columns of a panel
TILE_BYTES = 1024
DEEPEST = 768  # rows of a right matrix that are worked through before the next ones
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18  # Linux on x86-64
NEAR = 1024 * 1024  # bytes of a right matrix that stay in the second cache while the left one passes by


@cache
def has_tiles() -> bool:
    """Whether this processor multiplies bfloat16 tiles, and both the system and numba let us use them.

    Linux gives a process the registers only when it asks: once, for all its threads.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    if any(getattr(config, name) for name in ("DISABLE_JIT", "CPU_NAME", "CPU_FEATURES")):
        return False  # numba compiles nothing, or for another processor
    features = binding.get_host_cpu_features()
    if not all(features.get(name) for name in ("amx-tile", "amx-bf16", "avx512f", "avx512bw")):
        return False
    system = ctypes.CDLL(None)
    return bool(system.syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)


def make_tile_layout() -> np.ndarray:
    """What ``configure_tiles`` needs: eight tiles of 16 rows of 64 bytes."""
    layout = np.zeros(64, np.uint8)
    layout[0] = 1  # the palette
    layout[16:32].view(np.uint16)[:] = 64
    layout[48:56] = ROWS
    return layout


# --- instructions ---------------------------------------------------------------------------------

_BYTE, _WORD, _LONG, _FLOAT = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_POINTER = _BYTE.as_pointer()


def _call(builder: Any, name: str, arguments: list[Any]) -> None:
    module = builder.module
    if name not in module.globals:
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        ir.Function(module, kind, name)
    builder.call(module.globals[name], arguments)


def _constant(kind: Any) -> Any:
    return ir.Constant(_BYTE, kind.literal_value)


@intrinsic
def address_of(typing: Any, array: Any) -> Any:
    """The address of an array's first number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, _LONG)

    return types.int64(array), generate


@intrinsic
def configure_tiles(typing: Any, where: Any) -> Any:
    """Set the tiles up, all zero, from the address of ``make_tile_layout()``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "llvm.x86.ldtilecfg", [builder.inttoptr(arguments[0], _POINTER)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def release_tiles(typing: Any) -> Any:
    """Give the tiles back: the system need not save them any more."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "llvm.x86.tilerelease", [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic(prefer_literal=True)
def zero_tile(typing: Any, tile: Any) -> Any:
    """Make a tile zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "llvm.x86.tilezero", [_constant(tile)])
        return context.get_dummy_value()

    return types.void(tile), generate


@intrinsic(prefer_literal=True)
def load_tile(typing: Any, tile: Any, where: Any, stride: Any) -> Any:
    """Fill a tile with rows of 64 bytes that lie ``stride`` bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[1], _POINTER)
        _call(builder, "llvm.x86.tileloadd64", [_constant(tile), pointer, arguments[2]])
        return context.get_dummy_value()

    return types.void(tile, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def store_tile(typing: Any, tile: Any, where: Any, stride: Any) -> Any:
    """Write a tile to rows of 64 bytes that lie ``stride`` bytes apart."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[1], _POINTER)
        _call(builder, "llvm.x86.tilestored64", [_constant(tile), pointer, arguments[2]])
        return context.get_dummy_value()

    return types.void(tile, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def multiply_tiles(typing: Any, total: Any, left: Any, right: Any) -> Any:
    """Add the product of two tiles to a third."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _call(builder, "llvm.x86.tdpbf16ps", [_constant(total), _constant(left), _constant(right)])
        return context.get_dummy_value()

    return types.void(total, left, right), generate


def _load_rows(builder: Any, kind: Any, where: Any, stride: Any, count: int) -> list[Any]:
    """Load ``count`` rows of 16 numbers."""
    found = []
    for _ in range(count):
        pointer = builder.inttoptr(where, ir.VectorType(kind, 16).as_pointer())
        found.append(builder.load(pointer, align=2))
        where = builder.add(where, stride)
    return found


def _join_pairs(builder: Any, rows: list[Any]) -> list[Any]:
    """Join every two rows of 16-bit numbers to one of 32-bit numbers, the first in the lower half."""
    kind = ir.VectorType(_WORD, 16)
    shift = ir.Constant(kind, [ir.Constant(_WORD, 16)] * 16)
    wide = [builder.zext(row, kind) for row in rows]
    return [
        builder.or_(low, builder.shl(high, shift)) for low, high in zip(wide[::2], wide[1::2], strict=True)
    ]


def _transpose_rows(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose 16 rows of 16 numbers: blocks of 1, 2, 4 and 8 change places across the diagonal."""
    for distance in (1, 2, 4, 8):
        after = list(rows)
        for i in range(16):
            if not i & distance:
                places = [(j, 16 + j - distance) for j in range(16)]
                upper = [near if not near & distance else far for near, far in places]
                lower = [j + distance if not j & distance else 16 + j for j in range(16)]
                for row, chosen in ((i, upper), (i + distance, lower)):
                    picks = ir.Constant(ir.VectorType(_WORD, 16), [ir.Constant(_WORD, n) for n in chosen])
                    after[row] = builder.shuffle_vector(rows[i], rows[i + distance], picks)
        rows = after
    return rows


def _store_rows(builder: Any, rows: list[Any], where: Any, stride: Any) -> None:
    for row in rows:
        builder.store(row, builder.inttoptr(where, row.type.as_pointer()), align=4)
        where = builder.add(where, stride)


@intrinsic
def pair_tile(typing: Any, source: Any, source_stride: Any, target: Any) -> Any:
    """Write 32 rows of 16 numbers of 16 bits as a tile of a right operand."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _join_pairs(builder, _load_rows(builder, ir.IntType(16), arguments[0], arguments[1], 32))
        _store_rows(builder, rows, arguments[2], ir.Constant(_LONG, 64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def transpose_tile(typing: Any, source: Any, source_stride: Any, target: Any) -> Any:
    """Transpose 16 rows of 16 pairs into a tile of a right operand."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _transpose_rows(builder, _load_rows(builder, _WORD, arguments[0], arguments[1], 16))
        _store_rows(builder, rows, arguments[2], ir.Constant(_LONG, 64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def transpose_block(typing: Any, source: Any, source_stride: Any, target: Any, target_stride: Any) -> Any:
    """Transpose 32 rows of 16 numbers of 16 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = _join_pairs(builder, _load_rows(builder, ir.IntType(16), arguments[0], arguments[1], 32))
        _store_rows(builder, _transpose_rows(builder, rows), arguments[2], arguments[3])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def bits_of(typing: Any, number: Any) -> Any:
    """A float32's bits as an int32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _WORD)

    return types.int32(types.float32), generate


@intrinsic
def from_bits(typing: Any, bits: Any) -> Any:
    """The float32 of an int32's bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], _FLOAT)

    return types.float32(types.int32), generate


@compile_inline
def round_to_bfloat16(number):  # type: ignore[no-untyped-def]
    """Round a float32 to bfloat16 bits: to the nearest, ties to even."""
    bits = np.uint32(bits_of(number))
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@compile_inline
def to_float32(bits):  # type: ignore[no-untyped-def]
    """The float32 that bfloat16 bits stand for."""
    return from_bits(np.int32(np.uint32(bits) << np.uint32(16)))


# --- packing --------------------------------------------------------------------------------------


@compile_no_alloc
def pack_rows(matrix, packed, first, depth):  # type: ignore[no-untyped-def]
    """Pack ``(rows, columns)`` uint16, multiples of 32, as the rows from ``first`` on of a right operand.

    ``packed``, uint32, has room for ``depth`` rows; ``first`` is a multiple of 32, too.
    """
    rows, columns = matrix.shape
    source, stride, target = address_of(matrix), matrix.strides[0], address_of(packed)
    for panel in range(columns // PANEL):
        for k in range(rows // STEP):
            for half in range(2):
                tile = ((panel * depth + first) // STEP + k) * 2 + half
                corner = source + k * STEP * stride + 2 * (panel * PANEL + half * ROWS)
                pair_tile(corner, stride, target + tile * TILE_BYTES)


@compile_no_alloc
def pack_columns(matrix, packed):  # type: ignore[no-untyped-def]
    """Pack ``(columns, rows)`` uint16, multiples of 32, transposed, as a right operand, uint32."""
    columns, depth = matrix.shape[0], matrix.shape[1] // STEP
    source, stride, target = address_of(matrix), matrix.strides[0], address_of(packed)
    for panel in range(columns // PANEL):
        for half in range(2):
            for k in range(depth):
                corner = source + (panel * PANEL + half * ROWS) * stride + 2 * k * STEP
                transpose_tile(corner, stride, target + ((panel * depth + k) * 2 + half) * TILE_BYTES)


@compile_no_alloc
def transpose(matrix, turned, first):  # type: ignore[no-untyped-def]
    """Write ``(rows, columns)`` uint16, multiples of 32, as the columns from ``first`` on of ``turned``.

    ``turned`` is ``(columns, >= first + rows)`` uint16.
    """
    rows, columns = matrix.shape
    source, stride = address_of(matrix), matrix.strides[0]
    target, turned_stride = address_of(turned) + 2 * first, turned.strides[0]
    for left in range(0, columns, ROWS):
        for k in range(0, rows, STEP):
            transpose_block(
                source + k * stride + 2 * left, stride, target + left * turned_stride + 2 * k, turned_stride
            )


# --- products -------------------------------------------------------------------------------------


@compile_inline
def multiply_block(left, left_stride, right, total, total_stride, is_high, depth, adds):  # type: ignore[no-untyped-def]
    """Multiply 32 rows (16 unless ``is_high``) with a panel of 32 columns, ``depth`` steps of 32 deep."""
    below = total + ROWS * total_stride
    if is_high:
        if adds:
            load_tile(0, total, total_stride)
            load_tile(1, total + 64, total_stride)
            load_tile(2, below, total_stride)
            load_tile(3, below + 64, total_stride)
        else:
            zero_tile(0)
            zero_tile(1)
            zero_tile(2)
            zero_tile(3)
        under = left + ROWS * left_stride
        for k in range(depth):
            load_tile(4, left + k * 64, left_stride)
            load_tile(6, right + k * 2048, 64)
            load_tile(7, right + k * 2048 + 1024, 64)
            multiply_tiles(0, 4, 6)
            load_tile(5, under + k * 64, left_stride)
            multiply_tiles(1, 4, 7)
            multiply_tiles(2, 5, 6)
            multiply_tiles(3, 5, 7)
        store_tile(2, below, total_stride)
        store_tile(3, below + 64, total_stride)
    else:
        if adds:
            load_tile(0, total, total_stride)
            load_tile(1, total + 64, total_stride)
        else:
            zero_tile(0)
            zero_tile(1)
        for k in range(depth):
            load_tile(4, left + k * 64, left_stride)
            load_tile(6, right + k * 2048, 64)
            multiply_tiles(0, 4, 6)
            load_tile(7, right + k * 2048 + 1024, 64)
            multiply_tiles(1, 4, 7)
    store_tile(0, total, total_stride)
    store_tile(1, total + 64, total_stride)


@compile_no_alloc
def multiply_at(left, left_stride, right, total, total_stride, rows, columns, depth):  # type: ignore[no-untyped-def]
    """Multiply ``(rows, depth)`` with a packed ``(depth, columns)``; float32 sums go to ``total``.

    Matrices are addresses, strides are in bytes. ``columns`` and ``depth`` are multiples of 32; rows are
    read and written up to the next multiple of 16. The tiles must be configured.
    """
    parts = (depth + DEEPEST - 1) // DEEPEST
    deepest = (depth // STEP + parts - 1) // parts * STEP
    for first in range(0, depth, deepest):
        deep = min(deepest, depth - first)
        widest = max(PANEL, NEAR // (2 * deep) // PANEL * PANEL)
        for left_most in range(0, columns, widest):
            end = min(columns, left_most + widest)
            for row in range(0, rows, 2 * ROWS):
                for column in range(left_most, end, PANEL):
                    multiply_block(
                        left + row * left_stride + 2 * first,
                        left_stride,
                        right + (column * (depth // STEP) + first) * 64,
                        total + row * total_stride + 4 * column,
                        total_stride,
                        row + ROWS < rows,
                        deep // STEP,
                        first > 0,
                    )


@compile_no_alloc
def multiply_packed(left, right, total, depth, layout):  # type: ignore[no-untyped-def]
    """Multiply ``(rows, >= depth)`` uint16 with a packed matrix of ``depth`` rows, into ``total``.

    ``total`` is float32 ``(rows, columns)``; ``rows`` is a multiple of 16, ``columns`` and ``depth`` of
    32. ``layout`` is ``make_tile_layout()``.
    """
    rows, columns = total.shape
    configure_tiles(address_of(layout))
    multiply_at(
        address_of(left),
        left.strides[0],
        address_of(right),
        address_of(total),
        total.strides[0],
        rows,
        columns,
        depth,
    )
    release_tiles()
