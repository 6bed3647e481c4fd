"""Recordings that have their text beside them, as ``{stem}.txt``, in a folder of any depth."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from asr.corpora.recordings import CorpusError, is_recording, readable
from asr.data import Utterance, numbered_lines

log = logging.getLogger(__name__)


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """The one split ``all``; an id is the path below ``corpus`` without its ending.

    Recordings without a text, texts without a recording and recordings that cannot be read are passed
    over with a warning. Raises ``CorpusError`` when nothing is left.
    """
    files = sorted(corpus.rglob("*"))
    recordings = {path.with_suffix(""): path for path in files if is_recording(path)}
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    pairs = sorted(recordings.keys() & texts.keys())
    if not pairs:
        raise CorpusError(
            f"{corpus}: holds no recording with a text beside it: expected NAME.wav and NAME.txt"
        )
    _warn("recordings without a text", [recordings[stem] for stem in recordings.keys() - texts.keys()])
    _warn("texts without a recording", [texts[stem] for stem in texts.keys() - recordings.keys()])
    lengths, faults = readable([str(recordings[stem]) for stem in pairs])
    _warn("recordings that cannot be read", faults)
    if not lengths:
        raise CorpusError(f"{corpus}: none of its recordings can be read: {faults[0]}")
    utterances = [
        Utterance(
            stem.relative_to(corpus).as_posix(),
            str(recordings[stem]),
            duration=round(lengths[str(recordings[stem])], 6),
            text=_text(texts[stem]),
        )
        for stem in pairs
        if str(recordings[stem]) in lengths
    ]
    return {"all": utterances}


def _text(path: Path) -> str:
    """The lines of a text file as one."""
    return " ".join(line.strip() for _, line in numbered_lines(path))


def _warn(what: str, things: Iterable[object]) -> None:
    names = sorted(map(str, things))
    if names:
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        log.warning("%d %s: %s", len(names), what, first)
