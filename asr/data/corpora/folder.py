"""Recordings that have their text beside them, as ``{stem}.txt``, in a folder of any depth."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from asr.data.corpora.recordings import CorpusError, is_recording, measure_recordings
from asr.data.manifest import Utterance, read_numbered_lines

SPLITS = ("train", "dev", "valid", "test")

log = logging.getLogger(__name__)


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """The one split ``all`` or, where all is below folders of such names, ``SPLITS``.

    An id is the path below ``corpus`` without its ending. Recordings without a text, texts without a
    recording and unreadable recordings are skipped with a warning; of several with one name, the first
    readable one is taken. Raises ``CorpusError`` when nothing is left.
    """
    files = sorted(corpus.rglob("*"))
    recordings: dict[Path, list[Path]] = {}
    for path in filter(is_recording, files):
        recordings.setdefault(path.with_suffix(""), []).append(path)
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    pairs = sorted(recordings.keys() & texts.keys())
    if not pairs:
        raise CorpusError(
            f"{corpus}: holds no recording with a text beside it: expected NAME.wav and NAME.txt"
        )
    _warn(
        "recordings without a text",
        [path for stem in recordings.keys() - texts.keys() for path in recordings[stem]],
    )
    _warn("texts without a recording", [texts[stem] for stem in texts.keys() - recordings.keys()])
    lengths, faults = measure_recordings(str(path) for stem in pairs for path in recordings[stem])
    if not lengths:
        raise CorpusError(f"{corpus}: none of its recordings can be read: {faults[0]}")
    for fault in faults:
        log.warning("left out: %s", fault)
    utterances, doubles = [], []
    for stem in pairs:
        audio, *others = [str(path) for path in recordings[stem] if str(path) in lengths] or [""]
        doubles += others
        if audio:
            name = stem.relative_to(corpus).as_posix()
            seconds = round(lengths[audio], 6)
            utterances.append(Utterance(name, audio, duration=seconds, text=_read_text(texts[stem])))
    _warn("recordings beside another of the same name", doubles)
    return group_by_split(utterances)


def group_by_split(utterances: list[Utterance]) -> dict[str, list[Utterance]]:
    """The utterances by the topmost folder in their ids, if all of these are splits; else as one split."""
    splits: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        splits.setdefault(utterance.id.partition("/")[0], []).append(utterance)
    return splits if set(splits) <= set(SPLITS) else {"all": utterances}


def _read_text(path: Path) -> str:
    """The lines of a text file as one."""
    return " ".join(line.strip() for _, line in read_numbered_lines(path))


def _warn(what: str, things: Iterable[object]) -> None:
    names = sorted(map(str, things))
    if names:
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        log.warning("%d %s: %s", len(names), what, first)
