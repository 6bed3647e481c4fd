"""Progress on stderr: bars and lines of news."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Self

from asr.audio.reading import read_stated_duration
from asr.audio.sources import AudioError, Source

PATIENCE_SECONDS = 2.0  # before a bar appears


class HiddenBar:
    """A bar where there is no terminal. It shows nothing, and nobody has to import tqdm for it."""

    n = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def update(self, amount: float = 1) -> None:
        """Go on by ``amount``."""
        self.n += amount

    def clear(self) -> None:
        """Leave the line to others."""

    def refresh(self) -> None:
        """Show where it is."""


def new_audio_bar(sources: Sequence[Source]) -> Any:
    """A bar over the seconds in ``sources`` that appears on a terminal, after a while.

    Where a header does not tell how long its recording is, the bar counts seconds without a goal: to
    decode everything first would cost more than the bar is worth.
    """
    if not sys.stderr.isatty():
        return HiddenBar()
    from tqdm import tqdm

    total = sum_durations(sources)
    with_goal = "{percentage:3.0f} % |{bar:40}| {remaining} left"
    return tqdm(
        total=total,
        bar_format="{n:.0f} s of audio in {elapsed}" if total is None else with_goal,
        delay=PATIENCE_SECONDS,
        leave=False,
    )


def sum_durations(sources: Sequence[Source]) -> float | None:
    """Seconds in all ``sources`` by their headers; ``None`` where one does not tell.

    A recording that cannot be read has none; its message comes when its turn does.
    """
    total = 0.0
    for source in sources:
        try:
            seconds = read_stated_duration(source)
        except AudioError:
            continue
        if seconds is None:
            return None
        total += seconds
    return total


def new_utterance_bar(total: int) -> Any:
    """A bar over utterances, on a terminal alone."""
    if not sys.stderr.isatty():
        return HiddenBar()
    from tqdm import tqdm

    return tqdm(total=total, unit="utterance")


def print_news(line: str) -> None:
    """Print a line on stderr, above a progress bar where there is one."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
