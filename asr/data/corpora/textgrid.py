"""Praat's TextGrid files, in the long and the short form: tiers of intervals with texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from asr.data.corpora.recordings import CorpusError

TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![\w\[])(-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w\]])')


class Interval(NamedTuple):
    """A stretch of a recording in seconds, and what is said in it."""

    start: float
    end: float
    text: str


class Tier(NamedTuple):
    """A tier of intervals."""

    name: str
    intervals: list[Interval]


def read_textgrid(path: Path) -> list[Tier]:
    """Read the tiers of intervals; those of points are left out. Raises ``CorpusError``."""
    tokens = _Tokens(path, _decode(path))
    if tokens.take_text() != "ooTextFile" or tokens.take_text() != "TextGrid":
        raise CorpusError(f"{path}: is not a TextGrid")
    tokens.take_number()
    tokens.take_number()
    tiers = []
    for _ in range(round(tokens.take_number())):
        kind, name = tokens.take_text(), tokens.take_text()
        tokens.take_number()
        tokens.take_number()
        size = round(tokens.take_number())
        if kind == "IntervalTier":
            intervals = [
                Interval(tokens.take_number(), tokens.take_number(), " ".join(tokens.take_text().split()))
                for _ in range(size)
            ]
            tiers.append(Tier(name, intervals))
        else:
            for _ in range(size):
                tokens.take_number()
                tokens.take_text()
    return tiers


class _Tokens:
    """The texts and numbers of a file, one after the other; all else is for people."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.matches = path, TOKEN.finditer(text)

    def take_text(self) -> str:
        match = next(self.matches, None)
        if match is None or match[1] is None:
            raise CorpusError(f"{self.path}: is not a TextGrid, or ends early")
        return match[1].replace('""', '"')

    def take_number(self) -> float:
        match = next(self.matches, None)
        if match is None or match[2] is None:
            raise CorpusError(f"{self.path}: is not a TextGrid, or ends early")
        return float(match[2])


def _decode(path: Path) -> str:
    """Decode UTF-8, or UTF-16, which Praat writes where there are letters beyond ASCII."""
    try:
        content = path.read_bytes()
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        return content.decode("utf-16" if wide else "utf-8-sig")
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: is neither UTF-8 nor UTF-16 text") from error
