"""Models on disk: a binary file that is mapped into memory.

Processes that open the same file share its memory. The file is a header (magic, version, order, n-grams of
each order, lengths, checksums), then the arrays one after the other, little-endian, each at a multiple of
64 bytes. Opening reads every byte once: checksums tell a damaged file, and no number reaches compiled code
before it is known to lead to a place that is there. Files of version 1, of whole arrays, are still read.
"""

from __future__ import annotations

import mmap
import struct
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from asr.core.arrays import map_arrays, write_arrays
from asr.core.files import map_file, replace_file
from asr.lm.model import MAX_ORDER, LanguageModelError, NgramModel
from asr.lm.packed import COUNT, FIELDS, LARGEST_VALUE, Trie, is_sound, pack_nodes, unpack_nodes
from asr.lm.vocabulary import UNKNOWN, Vocabulary, is_ascending

MAGIC = b"asr n-gram model"
VERSION = 2
ALIGNMENT = 64
QUANTISED_BITS = 8  # of a probability or a back-off in binary files, unless somebody asks for others

# Magic, version, order, n-grams of each order; the length of all words, of the trie's bits (in 64s) and of
# its values; checksums of the arrays and of the header.
HEADER = struct.Struct(f"<16sII{MAX_ORDER}qqqqII")
FIRST_HEADER = struct.Struct(f"<16sII{MAX_ORDER}qqII")  # of version 1


GIVE_ARPA = "give the ARPA file that it was made from"
# How other programs' files begin, what they are, and what to give instead.
FOREIGN = {
    b"mmap lm http://kheafield.com/code": f"is KenLM's binary format: {GIVE_ARPA}",
    b"SRILM_BINARY_NGRAM": "is SRILM's binary format: write it as ARPA with ngram -write-lm",
    b"blmt": "is IRSTLM's binary format: write it as ARPA with compile-lm --text=yes",
    b"Qblmt": "is IRSTLM's binary format: write it as ARPA with compile-lm --text=yes",
    b"Trie Language Model": f"is PocketSphinx's binary format: {GIVE_ARPA}",
    b"\xd6\xfd\xb2\x7e": f"is a transducer of OpenFst: {GIVE_ARPA}",
    b"BZh": "is compressed by bzip2: unpack it, or compress it by gzip or xz",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: unpack it, or compress it by gzip or xz",
    b"PK\x03\x04": "is a ZIP archive: unpack it",
}


LONGEST_MAGIC = 64


def refuse_foreign(begin: bytes, path: str | Path) -> None:
    """Raise ``LanguageModelError`` for a file that begins as those of other programs do."""
    for magic, fault in FOREIGN.items():
        if begin.startswith(magic):
            raise LanguageModelError(f"{path}: {fault}")


def load_model(path: str | Path) -> NgramModel:
    """Load a model from a binary file, which is mapped (``open_model``), or from an ARPA file, which is read.

    Raises ``LanguageModelError`` when the file cannot be read or is no language model.
    """
    try:
        with Path(path).open("rb") as file:
            begin = file.read(LONGEST_MAGIC)
    except OSError as error:
        raise LanguageModelError(f"{path}: cannot be read: {error.strerror}") from error
    refuse_foreign(begin, path)
    if begin.startswith(MAGIC):
        return open_model(path)
    from asr.lm.arpa import read_arpa  # imports numba, which a mapped file does without

    return read_arpa(path)


def quantise(model: NgramModel, bits: int) -> NgramModel:
    """The model with its probabilities and back-offs in so many bits."""
    return NgramModel(
        pack_nodes(unpack_nodes(model.trie), model.counts, bits), model.vocabulary, model.counts
    )


def save_model(model: NgramModel, path: str | Path) -> None:
    """Write a model as a binary file, all of it or nothing."""
    arrays = [model.trie.layout, model.trie.bits, model.trie.values]
    arrays += [model.vocabulary.bounds.astype(np.uint32), model.vocabulary.letters]
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER.size))
        checksum = write_arrays(file, arrays, ALIGNMENT)
        file.seek(0)
        file.write(_pack_header(model, checksum))


def open_model(path: str | Path) -> NgramModel:
    """Map the binary file at ``path``.

    Raises ``LanguageModelError`` when it is not a binary model, or was cut off or changed.
    """
    try:
        content = map_file(path)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise LanguageModelError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from error
    if content[: len(MAGIC)] != MAGIC:
        raise LanguageModelError(f"{path}: is not a binary language model of this program")
    version = int.from_bytes(content[len(MAGIC) : len(MAGIC) + 4], "little")
    if version not in (1, VERSION) or sys.byteorder != "little":
        raise LanguageModelError(
            f"{path}: has format {version}, this program and computer read up to {VERSION}: make it again"
        )
    model = _map_arrays(content) if version == VERSION else _convert_first_version(content)
    if model is None:
        raise LanguageModelError(f"{path}: is damaged or cut off: make or copy it again")
    return model


def _map_arrays(content: mmap.mmap) -> NgramModel | None:
    """The model of a file, or None when it is damaged."""
    numbers = _read_header(content, HEADER)
    if numbers is None:
        return None
    order, counts = numbers[0], numbers[1 : 1 + MAX_ORDER]
    letters, bits, values = numbers[1 + MAX_ORDER : -1]
    words = counts[0]
    mapped = map_arrays(
        content,
        HEADER.size,
        [
            ((1 + order) * FIELDS, np.dtype(np.int64)),
            (bits, np.dtype(np.uint64)),
            (values, np.dtype(np.float32)),
            (words + 1, np.dtype(np.uint32)),
            (letters, np.dtype(np.uint8)),
        ],
        ALIGNMENT,
    )
    if mapped is None or mapped[1] != numbers[-1]:
        return None
    layout, packed, table, bounds, blob = mapped[0]
    trie = Trie(packed, layout.reshape(1 + order, FIELDS), table)
    counts = counts[:order]
    bounds = bounds.astype(np.int64)
    if (
        not _are_bounds(bounds, blob)
        or not is_sound(trie, words)
        or tuple(trie.layout[1:, COUNT].tolist()) != counts
    ):
        return None
    return _make_model(trie, Vocabulary(blob, bounds), counts)


def _make_model(trie: Trie, vocabulary: Vocabulary, counts: tuple[int, ...]) -> NgramModel | None:
    """The model, or None when it has no ``<unk>``, which every model needs."""
    return None if vocabulary.find(UNKNOWN) < 0 else NgramModel(trie, vocabulary, counts)


def _convert_first_version(content: mmap.mmap) -> NgramModel | None:
    """The model of a file of version 1, or None when it is damaged."""
    numbers = _read_header(content, FIRST_HEADER)
    if numbers is None:
        return None
    order, counts, letters = numbers[0], numbers[1 : 1 + MAX_ORDER], numbers[1 + MAX_ORDER]
    counts = counts[:order]
    nodes, inner = 1 + sum(counts), 1 + sum(counts[:-1])
    whole, single = np.dtype(np.int32), np.dtype(np.float32)
    mapped = map_arrays(
        content,
        FIRST_HEADER.size,
        [
            (inner + 1, whole),
            (nodes, whole),
            (nodes, single),
            (nodes, whole),
            (inner, single),
            (inner, whole),
            (counts[0] + 1, np.dtype(np.int64)),
            (letters, np.dtype(np.uint8)),
        ],
        ALIGNMENT,
    )
    if mapped is None or mapped[1] != numbers[-1]:
        return None
    first_child, words, log_probs, _, backoffs, _, bounds, blob = mapped[0]
    starts = np.cumsum([0, 1, *counts])
    if (
        (np.diff(first_child) < 0).any()
        or any(first_child[start] != end for start, end in pairwise(starts))
        or (words[1 : 1 + counts[0]] != np.arange(counts[0])).any()
        or words[1:].min(initial=0) < 0
        or words.max(initial=0) >= counts[0]
        or not _are_children_ascending(first_child, words)
        or not (np.abs(np.concatenate([log_probs, backoffs])) <= LARGEST_VALUE).all()
        or not _are_bounds(bounds, blob)
    ):
        return None
    from asr.lm.building import complete_nodes  # imports numba

    arrays = [array.copy() for array in (first_child, words, log_probs, backoffs)]
    completed, counts = complete_nodes(arrays[0], arrays[1], arrays[2], arrays[3], counts)
    trie = pack_nodes(completed, counts)
    return _make_model(trie, Vocabulary(blob, bounds), counts) if is_sound(trie, counts[0]) else None


def _are_children_ascending(first_child: np.ndarray, words: np.ndarray) -> bool:
    """Whether the words of the children of each node differ and are in order."""
    is_behind = np.diff(words) > 0
    is_behind[first_child[first_child < len(words)] - 1] = True  # the first child of a node follows another's
    return bool(is_behind[1:].all())


def _pack_header(model: NgramModel, checksum: int) -> bytes:
    counts = model.counts + (0,) * (MAX_ORDER - model.order)
    lengths = len(model.vocabulary.letters), len(model.trie.bits), len(model.trie.values)
    header = HEADER.pack(MAGIC, VERSION, model.order, *counts, *lengths, checksum, 0)[:-4]
    return header + struct.pack("<I", zlib.crc32(header))


def _read_header(content: mmap.mmap, form: struct.Struct) -> tuple[int, ...] | None:
    """Order, counts, lengths and the arrays' checksum; None when the header is damaged or makes no sense."""
    if len(content) < form.size:
        return None
    *numbers, last = form.unpack(content[: form.size])
    order, counts, sizes = numbers[2], numbers[3 : 3 + MAX_ORDER], numbers[3:-1]
    if last != zlib.crc32(content[: form.size - 4]) or not 1 <= order <= MAX_ORDER:
        return None
    if min(sizes) < 0 or max(sizes[:-1]) > len(content) or counts[0] == 0 or any(counts[order:]):
        return None
    return tuple(numbers[2:])


def _are_bounds(bounds: np.ndarray, letters: np.ndarray) -> bool:
    """Whether words between these bounds are all there, one after the other, in order and all different."""
    if bounds[0] != 0 or bounds[-1] != len(letters) or (bounds[1:] < bounds[:-1]).any():
        return False
    return bool(is_ascending(letters, bounds))
