"""Arrays in files that are mapped into memory."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterable, Sequence
from typing import BinaryIO

import numpy as np


def write_arrays(file: BinaryIO, arrays: Iterable[np.ndarray], alignment: int) -> int:
    """Write arrays, little-endian, each at a multiple of ``alignment`` bytes; return their CRC-32."""
    checksum = 0
    for array in arrays:
        file.write(bytes(-file.tell() % alignment))
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B")
        file.write(data)
        checksum = zlib.crc32(data, checksum)
    return checksum


def map_arrays(
    content: mmap.mmap, begin: int, sections: Sequence[tuple[int, np.dtype]], alignment: int
) -> tuple[list[np.ndarray], int] | None:
    """View what ``write_arrays`` wrote behind the ``begin`` bytes of a header; also return its CRC-32.

    Args:
        content: a file, little-endian, as this computer has to be.
        sections: length and type of each array. Lengths come from the file: they are checked here.

    ``None`` where the file is not exactly as long as they say.
    """
    places = []
    for length, kind in sections:
        begin += -begin % alignment
        places.append(begin)
        if not 0 <= length <= len(content):
            return None
        begin += length * kind.itemsize
    if begin != len(content):
        return None
    arrays, checksum = [], 0
    for place, (length, kind) in zip(places, sections, strict=True):
        arrays.append(np.frombuffer(content, kind, length, place))
        checksum = zlib.crc32(arrays[-1].data.cast("B"), checksum)
    return arrays, checksum
