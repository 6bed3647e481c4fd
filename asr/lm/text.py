"""Text for language models: files, compressed or not, as blocks of sentences, one per line."""

from __future__ import annotations

import gzip
import lzma
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from asr.core.compiled import compile_function
from asr.core.config import option
from asr.errors import UserError
from asr.text.normalise import NORMALISERS

GZIP, XZ = b"\x1f\x8b", b"\xfd7zXZ\x00"
SPACE, TAB, RETURN, NEWLINE = ord(" "), ord("\t"), ord("\r"), ord("\n")
SPACES = bytes((SPACE, TAB, RETURN, NEWLINE))  # between words; other white space is a part of them

BLOCK = 1 << 22  # bytes read at once
RESERVED = re.compile(rb"(?<!\S)(?:<s>|</s>|<unk>)(?!\S)")

# The end of a sentence: its mark, closing quotes and brackets; a new one begins with a capital or a digit.
SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]*(\s+)(?=[\"'“‘(\[*_]*[A-Z0-9À-Þ])")
# Words whose full stop ends no sentence: titles, what stands before a number, single initials.
ABBREVIATION = re.compile(
    r"(?:^|[\s\"'“‘(\[*_-])(?:[A-Z]|Mr|Mrs|Ms|Messrs|Dr|Prof|Rev|Hon|St|Mme|Mlle|Capt|Col|Gen|Lt|Lieut|Maj|Sgt"
    r"|Gov|Sen|No|Nos|Vol|Fig|vs|cf|e\.g|i\.e|viz)\.$"
)


@dataclass(frozen=True)
class SentenceConfig:
    """How files become sentences."""

    normaliser: str = option("none-v1", "Named, versioned normaliser applied to every sentence.")
    split: bool = option(
        False, "Prose: split paragraphs into sentences, instead of taking every line as one."
    )


@contextmanager
def open_text(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed where its content is gzip or xz; ``-`` is stdin.

    Raises ``UserError`` naming the file when it cannot be read or decompressed.
    """
    try:
        if str(path) == "-":
            yield _unpack(sys.stdin.buffer)
        else:
            with Path(path).open("rb") as file:
                yield _unpack(file)
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{name_path(path)}: is damaged: {error}") from error
    except OSError as error:
        raise UserError(f"{name_path(path)}: cannot be read: {error.strerror or error}") from error


def name_path(path: str | Path) -> str:
    """Name a file in an error message."""
    return "stdin" if str(path) == "-" else str(path)


def _unpack(file: BinaryIO) -> BinaryIO:
    begin = file.peek(6)[:6]  # type: ignore[attr-defined]  # both kinds are buffered readers
    if begin.startswith(GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if begin.startswith(XZ):
        return cast(BinaryIO, lzma.LZMAFile(file))
    return file


def read_sentences(paths: Iterable[str | Path], config: SentenceConfig) -> Iterator[bytes]:
    """Yield the sentences of all files, some megabytes at a time: UTF-8, each ending in a line feed.

    Raises ``UserError`` naming file and line where a text is not UTF-8 or has a reserved word.
    """
    for path in paths:
        line = 1
        for block in _read_blocks(path, b"\n\n" if config.split else b"\n"):
            text = _check_block(block, path, line)
            line += block.count(b"\n")
            if config.split:
                block = "\n".join(split_sentences(text)).encode() + b"\n"
            if config.normaliser != "none-v1":
                normalised = map(NORMALISERS[config.normaliser], block.decode().split("\n"))
                block = "\n".join(normalised).encode() + b"\n"
            yield block


def require_words(blocks: Iterable[bytes], paths: Iterable[str | Path]) -> Iterator[bytes]:
    """Yield the blocks unchanged; raise ``UserError`` naming their files when all of them were blank."""
    blank = True
    for block in blocks:
        blank &= not block.strip(SPACES)
        yield block
    if blank:
        raise UserError(f"{', '.join(map(name_path, paths))}: no words in it")


def _read_blocks(path: str | Path, separator: bytes) -> Iterator[bytes]:
    """Yield the content of a file in blocks that end in ``separator``, the last one in a line feed."""
    with open_text(path) as file:
        rest = file.read(BLOCK).removeprefix(b"\xef\xbb\xbf")
        while more := file.read(BLOCK):
            block, found, rest = (rest + more).rpartition(separator)
            if not found:  # no blank line: better a sentence cut in two than the whole file in memory
                block, found, rest = rest.rpartition(b"\n")
            if found:
                yield block + found
        if rest:
            yield rest if rest.endswith(b"\n") else rest + b"\n"


def _check_block(block: bytes, path: str | Path, first_line: int) -> str:
    """Decode a block; raise ``UserError`` where it is not UTF-8 or has a reserved word."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + block.count(b"\n", 0, error.start)
        raise UserError(f"{name_path(path)}:{line}: is not UTF-8 text") from error
    if b"<" in block and (match := RESERVED.search(block)):
        line = first_line + block.count(b"\n", 0, match.start())
        raise UserError(
            f"{name_path(path)}:{line}: {match[0].decode()} is reserved and cannot be a word of a text"
        )
    return text


def split_sentences(text: str) -> list[str]:
    """Split prose, in paragraphs between blank lines, into sentences.

    A sentence ends at a full stop, a question or exclamation mark that a capital or a digit follows, unless
    a title or an initial precedes it. Line breaks within it become spaces.
    """
    sentences = []
    for paragraph in re.split(r"\n\s*\n", text):
        begin = 0
        for match in SENTENCE_END.finditer(paragraph):
            if not ABBREVIATION.search(paragraph, begin, match.start()):
                sentences.append(paragraph[begin : match.start(1)])
                begin = match.end()
        sentences.append(paragraph[begin:])
    return [" ".join(sentence.split()) for sentence in sentences if sentence.strip()]


@compile_function
def is_space(byte: int) -> bool:
    """Whether a byte separates words: one of ``SPACES``."""
    return byte in (SPACE, TAB, NEWLINE, RETURN)
