"""Models on disk: a binary file that is mapped into memory, so that it opens in no time.

Processes that open the same file share its memory. The file is a header (magic, version, counts,
checksums), then the arrays one after the other, little-endian, each at a multiple of 64 bytes; their
lengths follow from the counts. Opening checks the header and the size; ``verify`` reads every byte.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from asr.core.files import replace_file
from asr.lm.arpa import read_arpa
from asr.lm.model import MAX_ORDER, LanguageModelError, NgramModel, Trie
from asr.lm.vocabulary import Vocabulary

MAGIC = b"asr n-gram model"
VERSION = 1
ALIGNMENT = 64

# Magic, version, order, n-grams of each order, bytes of all words, checksums of the arrays and of the header.
HEADER = struct.Struct(f"<16sII{MAX_ORDER}qqII")


def load_model(path: str | Path, verify: bool = False) -> NgramModel:
    """The model of a binary file, which ``open_model`` opens, or of an ARPA file, which is read."""
    try:
        with Path(path).open("rb") as file:
            binary = file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise LanguageModelError(f"{path}: cannot be read: {error.strerror}") from error
    return open_model(path, verify) if binary else read_arpa(path)


def save_model(model: NgramModel, path: str | Path) -> None:
    """Write the binary file."""
    arrays = [*model.trie, model.vocabulary.bounds, model.vocabulary.letters]
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER.size))
        checksum = 0
        for array in arrays:
            file.write(bytes(-file.tell() % ALIGNMENT))
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data.cast("B")
            file.write(data)
            checksum = zlib.crc32(data, checksum)
        file.seek(0)
        file.write(_pack_header(model, checksum))


def open_model(path: str | Path, verify: bool = False) -> NgramModel:
    """Map the binary file at ``path``; with ``verify``, read all of it and check its checksum.

    Raises ``LanguageModelError`` when it is no such file, or one that was cut off or changed.
    """
    try:
        with Path(path).open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise LanguageModelError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if content[: len(MAGIC)] != MAGIC:
        raise LanguageModelError(f"{path}: is not a binary language model of this program")
    damaged = LanguageModelError(f"{path}: is damaged or cut off: make or copy it again")
    if len(content) < HEADER.size or zlib.crc32(content[: HEADER.size - 4]) != _read_header_checksum(content):
        raise damaged
    _, version, order, *counts, letters, checksum, _ = HEADER.unpack(content[: HEADER.size])
    if version != VERSION or sys.byteorder != "little":
        raise LanguageModelError(
            f"{path}: has format {version}, this program and computer read {VERSION}: make it again"
        )
    arrays = list(_lay_out_arrays(tuple(counts[:order]), letters))
    begin, length, dtype = arrays[-1]
    if len(content) != begin + length * dtype.itemsize:
        raise damaged
    mapped = [np.frombuffer(content, dtype, length, begin) for begin, length, dtype in arrays]
    if verify and checksum != _compute_checksum(mapped):
        raise damaged
    *trie, bounds, blob = mapped
    return NgramModel(Trie(*trie), Vocabulary(blob, bounds), tuple(counts[:order]))


def _pack_header(model: NgramModel, checksum: int) -> bytes:
    counts = model.counts + (0,) * (MAX_ORDER - model.order)
    letters = len(model.vocabulary.letters)
    header = HEADER.pack(MAGIC, VERSION, model.order, *counts, letters, checksum, 0)[:-4]
    return header + struct.pack("<I", zlib.crc32(header))


def _read_header_checksum(content: Any) -> int:
    number: int = struct.unpack("<I", content[HEADER.size - 4 : HEADER.size])[0]
    return number


def _compute_checksum(arrays: list[np.ndarray]) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(array.data.cast("B"), checksum)
    return checksum


def _lay_out_arrays(counts: tuple[int, ...], letters: int) -> Iterator[tuple[int, int, np.dtype]]:
    """Where each array begins, its length and its type, in the order in which they are written."""
    nodes, inner = 1 + sum(counts), 1 + sum(counts[:-1])
    whole, single = np.dtype(np.int32), np.dtype(np.float32)
    place = HEADER.size
    lengths_and_types: list[tuple[int, np.dtype]] = [
        (inner + 1, whole),
        (nodes, whole),
        (nodes, single),
        (nodes, whole),
        (inner, single),
        (inner, whole),
        (counts[0] + 1, np.dtype(np.int64)),
        (letters, np.dtype(np.uint8)),
    ]
    for length, dtype in lengths_and_types:
        place += -place % ALIGNMENT
        yield place, length, dtype
        place += length * dtype.itemsize
