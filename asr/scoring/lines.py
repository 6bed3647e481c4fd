"""The text of a file that is read, its lines and their numbers, for every reader of this room."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr.core.files import read_text
from asr.data.manifest import ManifestError

STDIN = Path("-")


@dataclass(frozen=True)
class Document:
    """The text of one file; ``path`` is what messages call it."""

    path: Path
    text: str

    def number_lines(self) -> Iterator[tuple[int, str]]:
        """Yield all lines with their numbers, without line ends.

        A line ends at a line feed, with or without a carriage return before it, and nowhere else: a text
        may hold U+2028 or a form feed.
        """
        for number, line in enumerate(io.StringIO(self.text, newline="\n"), start=1):
            yield number, line.removesuffix("\n").removesuffix("\r")

    def number_filled_lines(self, comment: str = "\0never") -> Iterator[tuple[int, str]]:
        """Yield the lines that are not blank and do not begin with ``comment``."""
        return (
            (number, line)
            for number, line in self.number_lines()
            if line.strip() and not line.startswith(comment)
        )


def read_document(path: Path) -> Document:
    """Read a file, or stdin for ``-``, as UTF-8 without a byte order mark; raises ``ManifestError``."""
    if path != STDIN:
        return Document(path, read_text(path, ManifestError, newline="\n"))
    try:
        return Document(path, sys.stdin.buffer.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ManifestError("stdin: is not UTF-8 text") from error


def parse_seconds(value: object) -> float | None:
    """Read a time in seconds; ``None`` for what is not one."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < 1e9 else None
