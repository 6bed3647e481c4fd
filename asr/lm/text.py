"""Text files as bytes, compressed or not, or the standard input."""

from __future__ import annotations

import gzip
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from numba import njit

from asr.errors import UserError

GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
SPACE, TAB, RETURN, NEWLINE = ord(" "), ord("\t"), ord("\r"), ord("\n")


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where it is gzip or xz (by content, not by name); ``-`` is stdin.

    Raises ``UserError`` naming the file when it cannot be read or unpacked.
    """
    name = "stdin" if str(path) == "-" else str(path)
    try:
        if str(path) == "-":
            yield _unpacked(sys.stdin.buffer)
        else:
            with Path(path).open("rb") as file:
                yield _unpacked(file)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{name}: is damaged: {error}") from error
    except OSError as error:
        raise UserError(f"{name}: cannot be read: {error.strerror or error}") from error


def _unpacked(file: BinaryIO) -> BinaryIO:
    begin = file.peek(6)[:6]  # type: ignore[attr-defined]  # both kinds are buffered readers
    if begin.startswith(GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if begin.startswith(XZ):
        return cast(BinaryIO, lzma.LZMAFile(file))
    return file


@njit(cache=True)
def is_space(byte: int) -> bool:
    """Whether a byte stands between words."""
    return byte in (SPACE, TAB, NEWLINE, RETURN)
