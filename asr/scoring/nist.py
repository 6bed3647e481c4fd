"""The formats of NIST's ``sclite``: trn, STM and CTM, and the words of a CTM file shared out among segments.

What their texts may hold beside words is in ``asr.scoring.alternatives``. Names of utterances, recordings
and channels are the same in any case.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.data.manifest import ManifestError, Utterance
from asr.scoring.alternatives import parse_passage
from asr.scoring.counts import ScoringError, list_names
from asr.scoring.lines import Document, parse_seconds

TRN_LINE = re.compile(r"(?P<text>.*?)\s*\((?P<id>[^()\s]+)\)\s*")
LABELS = re.compile(r"<[^<>\s]*>\s*")
IGNORED = "ignore_time_segment_in_scoring"
ALTERNATIVE_MARKS = ("<alt_begin>", "<alt>", "<alt_end>")


def read_trn(document: Document) -> Iterator[Utterance]:
    for number, line in document.number_filled_lines(comment=";;"):
        match = TRN_LINE.fullmatch(line)
        if match is None:
            raise ManifestError(f"{document.path}:{number}: does not end in an id in parentheses")
        parse_passage(match["text"], f"{document.path}:{number}")
        yield Utterance(id=match["id"], audio="", text=match["text"])


def read_stm(document: Document) -> Iterator[Utterance]:
    for number, line in document.number_filled_lines(comment=";;"):
        where = f"{document.path}:{number}"
        fields = line.split(maxsplit=5)
        first, last = (
            (parse_seconds(fields[3]), parse_seconds(fields[4])) if len(fields) >= 5 else (None, None)
        )
        if first is None or last is None or last < first:
            raise ManifestError(f"{where}: is not: recording channel speaker start end words")
        recording, channel, speaker = fields[:3]
        text = fields[5] if len(fields) > 5 else ""
        labels = LABELS.match(text)
        if labels and (is_ignored(text[labels.end() :]) or not is_ignored(text)):
            text = text[labels.end() :]
        parse_passage(text, where)
        yield Utterance(
            id=f"{recording}-{channel}-{fields[3]}-{fields[4]}",
            audio="",
            start=first,
            duration=last - first,
            text=text,
            speaker=speaker,
            extra={"recording": recording, "channel": channel},
        )


def is_ignored(text: str) -> bool:
    """Whether a text excludes its segment from scoring, in any case and whatever comes after it."""
    return text.casefold().split()[:1] == [IGNORED]


def read_ctm(document: Document) -> Iterator[Utterance]:
    """Gather the words of each recording and channel, in the order of their times.

    Alternatives between ``<ALT_BEGIN>`` and ``<ALT_END>`` become one word, as ``{ one / two }``.
    """
    tracks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    reader = _CtmReader(document.path)
    for number, line in document.number_filled_lines(comment=";;"):
        for track, word in reader.read_line(number, line.split()):
            tracks.setdefault(track, []).append(word)
    reader.check_end()
    repeated = len({recording for recording, _ in tracks}) < len(tracks)
    for (recording, channel), words in tracks.items():
        words.sort(key=lambda word: word["start"])
        yield Utterance(
            id=f"{recording}-{channel}" if repeated else recording,
            audio="",
            text=" ".join(word["text"] for word in words),
            extra={"recording": recording, "channel": channel, "words": words},
        )


class _CtmReader:
    """Reads the lines of a CTM file; ``branches`` are the alternatives that are open, ``None`` outside."""

    def __init__(self, path: Path) -> None:
        self.path, self.begin = path, 0
        self.branches: list[list[dict[str, Any]]] | None = None

    def read_line(self, number: int, fields: list[str]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
        """Read one line; yield the track and the word, or the alternatives, that end with it."""
        where = f"{self.path}:{number}"
        mark = fields[4].casefold() if len(fields) == 5 else ""
        if mark in ALTERNATIVE_MARKS:
            if (mark == "<alt_begin>") != (self.branches is None):
                raise ManifestError(f"{where}: {fields[4]} is out of order: <ALT_BEGIN>, <ALT>, <ALT_END>")
            if mark == "<alt_begin>":
                self.branches, self.begin = [], number
            if self.branches is not None and mark != "<alt_end>":
                self.branches.append([])
            elif self.branches is not None:
                if any(self.branches):
                    yield (fields[0], fields[1]), _join_branches(self.branches)
                self.branches = None
            return
        start, length = (
            (parse_seconds(fields[2]), parse_seconds(fields[3])) if 5 <= len(fields) <= 8 else (None, None)
        )
        if start is None or length is None:
            raise ManifestError(f"{where}: is not: recording channel start duration word")
        if re.search(r"[{}]" if self.branches is None else r"[{}/]", fields[4]):
            raise ManifestError(
                f"{where}: {fields[4]!r} looks like alternatives: CTM has <ALT_BEGIN> for them"
            )
        word = {"text": fields[4], "start": start, "end": start + length}
        if self.branches is None:
            yield (fields[0], fields[1]), word
        else:
            self.branches[-1].append(word)

    def check_end(self) -> None:
        """Raise ``ManifestError`` for alternatives that have no end."""
        if self.branches is not None:
            raise ManifestError(f"{self.path}:{self.begin}: <ALT_BEGIN> has no <ALT_END>")


def _join_branches(branches: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Join alternatives to one word, which is said when the first of them that has words is."""
    texts = (" ".join(word["text"] for word in branch) or "@" for branch in branches)
    spoken = next(branch for branch in branches if branch)
    return {"text": f"{{ {' / '.join(texts)} }}", "start": spoken[0]["start"], "end": spoken[-1]["end"]}


# Pairing


def pair_by_time(
    references: Sequence[Utterance], ignored: Sequence[Utterance], hypotheses: Sequence[Utterance]
) -> list[Utterance]:
    """Assign the words of each recording to the segments of the references, as ``sclite`` does.

    A word belongs to the segment that holds its middle; between segments to the next one, and after the
    last to the last, as an insertion. Words in ignored segments are left out. Raises ``ScoringError`` for
    recordings without segments.
    """
    segments: dict[tuple[str, str], list[Utterance]] = {}
    for segment in sorted([*references, *ignored], key=lambda segment: segment.start):
        segments.setdefault(get_track(segment), []).append(segment)
    strangers = [recording for recording in hypotheses if get_track(recording) not in segments]
    if strangers:
        names = [f"{recording.extra['recording']} {recording.extra['channel']}" for recording in strangers]
        known = sorted({channel for _, channel in segments})
        raise ScoringError(
            f"no segments for recording and channel {list_names(names)}; the references have the channels "
            f"{', '.join(known[:5])} (asr transcribe --channels each -f ctm writes A and B)"
        )
    words: dict[str, list[dict[str, Any]]] = {segment.id: [] for segment in references}
    for recording in hypotheses:
        places = segments[get_track(recording)]
        ends = [segment.start + (segment.duration or 0.0) for segment in places]
        for word in recording.extra["words"]:
            at = bisect_right(ends, (word["start"] + word["end"]) / 2)
            words.get(places[min(at, len(places) - 1)].id, []).append(word)
    return [
        Utterance(name, "", text=" ".join(word["text"] for word in spoken), extra={"words": spoken})
        for name, spoken in words.items()
    ]


def get_track(utterance: Utterance) -> tuple[str, str]:
    """Return the recording and the channel that an utterance of an STM or CTM file is from, in lower case."""
    return utterance.extra["recording"].casefold(), utterance.extra["channel"].casefold()


def pair_in_any_case(references: Sequence[Utterance], hypotheses: Sequence[Utterance]) -> list[Utterance]:
    """Give hypotheses the ids of references that differ from theirs in case only."""
    known = {utterance.id for utterance in references}
    by_case: dict[str, list[str]] = {}
    for name in known:
        by_case.setdefault(name.casefold(), []).append(name)
    return [
        replace(utterance, id=matches[0])
        if utterance.id not in known and len(matches := by_case.get(utterance.id.casefold(), [])) == 1
        else utterance
        for utterance in hypotheses
    ]
