"""Recordings that have their text beside them, as ``{stem}.txt``, ``.lab`` or ``.TextGrid``, at any depth."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from asr.data.corpora.recordings import CorpusError, is_recording, measure_recordings
from asr.data.corpora.textgrid import Interval, read_textgrid
from asr.data.manifest import Utterance, read_numbered_lines
from asr.errors import UserError

SPLITS = ("train", "dev", "valid", "validation", "test")
TEXT_ENDINGS = (".txt", ".lab", ".textgrid")  # of several beside one recording the first is read
WORD_TIERS = ("words", "word", "ort", "ort-mau")
PHONE_TIERS = ("phones", "phone", "phonemes", "characters", "pieces", "kan-mau", "mau", "syllables")
SILENCES = ("sil", "sp", "<sil>", "<eps>", "#", "<p:>")
TIMED_LABEL = re.compile(r"\d+\s+\d+\s+(.*)")  # HTK: begin and end in units of 100 ns

log = logging.getLogger(__name__)


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """The one split ``all`` or, where all is below folders of such names, ``SPLITS``.

    An id is the path below ``corpus`` without its ending. A TextGrid with a tier of words is the text of its
    recording; each interval of its other tiers is an utterance, by the speaker that the tier is named after
    where there are several. Recordings without a text, texts without a
    recording and unreadable recordings are skipped with a warning; of several with one name, the first
    readable one is taken. Raises ``CorpusError`` when nothing is left.
    """
    files = sorted(corpus.rglob("*"))
    recordings: dict[Path, list[Path]] = {}
    for path in filter(is_recording, files):
        recordings.setdefault(path.with_suffix(""), []).append(path)
    texts: dict[Path, Path] = {}
    for ending in reversed(TEXT_ENDINGS):
        texts |= {path.with_suffix(""): path for path in files if path.suffix.lower() == ending}
    pairs = sorted(recordings.keys() & texts.keys())
    if not pairs:
        others = [
            path.name for path in files if path.with_suffix("") in recordings and not is_recording(path)
        ]
        raise CorpusError(
            f"{corpus}: holds no recording with a text beside it: expected NAME.wav and NAME.txt, NAME.lab "
            "or NAME.TextGrid" + (f"; found {others[0]}" if others else "")
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
            try:
                utterances += _read_texts(texts[stem], Utterance(name, audio, duration=lengths[audio]))
            except UserError as error:
                log.warning("left out: %s", error)
    if not utterances:
        raise CorpusError(f"{corpus}: none of its texts can be used: expected words in NAME.txt")
    _warn("recordings beside another of the same name", doubles)
    return group_by_split(utterances)


def group_by_split(utterances: list[Utterance]) -> dict[str, list[Utterance]]:
    """The utterances by the topmost folder in their ids, if all of these are splits; else as one split."""
    splits: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        splits.setdefault(utterance.id.partition("/")[0], []).append(utterance)
    return splits if set(splits) <= set(SPLITS) else {"all": utterances}


def _read_texts(path: Path, whole: Utterance) -> list[Utterance]:
    """The utterances of one recording from the file beside it."""
    whole = replace(whole, duration=round(whole.duration or 0.0, 6))
    if path.suffix.lower() == ".textgrid":
        return _read_tiers(path, whole)
    lines = [line.strip() for _, line in read_numbered_lines(path)]
    labels = [TIMED_LABEL.fullmatch(line) for line in lines]
    if path.suffix.lower() == ".lab" and lines and all(labels):
        lines = [label[1] for label in labels if label]
        if not any(" " in line for line in lines):
            raise CorpusError(
                f"{path}: has times and labels, which may be phones: write the words without times"
            )
    return [replace(whole, text=" ".join(lines))]


def _read_tiers(path: Path, whole: Utterance) -> list[Utterance]:
    """The utterances in a TextGrid: all of its words, or else every interval."""
    tiers = [
        tier._replace(intervals=[i for i in tier.intervals if i.text and i.text.casefold() not in SILENCES])
        for tier in read_textgrid(path)
    ]
    kinds = [tier.name.casefold().rpartition(" - ")[2].strip() for tier in tiers]
    speakers = [tier.name.rpartition(" - ")[0] for tier in tiers]  # as in "anna - words"
    words = [tier for tier, kind in zip(tiers, kinds, strict=True) if kind in WORD_TIERS and tier.intervals]
    if len(words) == 1:
        return [replace(whole, text=" ".join(interval.text for interval in words[0].intervals))]
    found: list[tuple[Interval, str]] = []
    for tier, kind, speaker in zip(tiers, kinds, speakers, strict=True):
        if words and tier in words:
            text = " ".join(interval.text for interval in tier.intervals)
            found.append((Interval(tier.intervals[0].start, tier.intervals[-1].end, text), speaker))
        elif not words and kind not in PHONE_TIERS:
            found += [(interval, tier.name if len(tiers) > 1 else "") for interval in tier.intervals]
    if not found:
        raise CorpusError(f"{path}: has no tier of words or sentences")
    return [
        replace(
            whole,
            id=f"{whole.id}-{number:04d}",
            start=round(interval.start, 6),
            duration=round(interval.end - interval.start, 6),
            text=interval.text,
            speaker=speaker,
        )
        for number, (interval, speaker) in enumerate(sorted(found), start=1)
    ]


def _warn(what: str, things: Iterable[object]) -> None:
    names = sorted(map(str, things))
    if names:
        first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        log.warning("%d %s: %s", len(names), what, first)
