"""Lines of a text file with their numbers, for every reader of this room."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from asr.core.files import read_text
from asr.data.manifest import ManifestError


def number_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield all lines with their numbers, without line ends and without a byte order mark.

    A line ends at a line feed, with or without a carriage return before it, and nowhere else: a text
    may hold U+2028 or a form feed. Raises ``ManifestError`` when the file cannot be read as UTF-8.
    """
    text = read_text(path, ManifestError, newline="\n")
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        yield number, line.removesuffix("\n").removesuffix("\r")


def number_filled_lines(path: Path, comment: str = "\0never") -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank and do not begin with ``comment``."""
    return (
        (number, line) for number, line in number_lines(path) if line.strip() and not line.startswith(comment)
    )


def parse_seconds(value: object) -> float | None:
    """Read a time in seconds; ``None`` for what is not one."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < 1e9 else None
