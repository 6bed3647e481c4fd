"""How transcripts (txt, json, jsonl, srt, vtt, tsv, ctm) and alignments (ctm, TextGrid, json) are written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from asr import __version__
from asr.transcript.values import AlignedText, Segment, Transcript, Word

SURROGATE = re.compile("[\ud800-\udfff]")
PAUSE_SECONDS = 1.0  # between two words; the next one begins a new cue
MARKS = (",", ".", "?", "!", ";", ":")  # behind a word; recognised words have none
SENTENCE_MARKS = (".", "?", "!")
READABLE_SECONDS = 0.8  # a cue stays at least this long where the next one leaves it the time


@dataclass(frozen=True)
class Layout:
    """How srt, vtt and tsv cut a transcript into cues, and what ctm calls the recording."""

    line_width: int = 42  # characters; only a longer word exceeds it
    lines: int = 2  # in a cue, at most
    cue_per_word: bool = False
    name: str = ""  # of the recording, where that of its file without folder and ending is not distinct


@dataclass(frozen=True)
class Cue:
    """Lines of text that show together, from ``start`` to ``end`` in milliseconds."""

    start: int
    end: int
    lines: tuple[str, ...]
    speaker: str = ""


def format_txt(transcript: Transcript, layout: Layout = Layout()) -> str:
    """The text alone, a line per segment; behind the speaker where channels are speakers."""
    return (
        "\n".join(_name_speaker(segment.speaker) + segment.readable for segment in transcript.segments) + "\n"
    )


def _name_speaker(speaker: str) -> str:
    """What stands before the words of a speaker."""
    return f"{speaker}: " if speaker else ""


def format_json(transcript: Transcript, layout: Layout = Layout()) -> str:
    """Everything, indented for people."""
    return _dump_json(make_table(transcript), indent=2)


def format_jsonl(transcript: Transcript, layout: Layout = Layout()) -> str:
    """Everything on one line, so that many transcripts make one file."""
    return _dump_json(make_table(transcript))


def format_srt(transcript: Transcript, layout: Layout = Layout()) -> str:
    """SubRip subtitles: numbered cues, a comma before the milliseconds."""
    return "".join(
        f"{number}\n{_format_clock(cue.start, ',')} --> {_format_clock(cue.end, ',')}\n"
        + _name_speaker(cue.speaker)
        + "\n".join(map(_escape_srt, cue.lines))
        + "\n\n"
        for number, cue in enumerate(make_cues(transcript, layout), start=1)
    )


def format_vtt(transcript: Transcript, layout: Layout = Layout()) -> str:
    """WebVTT subtitles (W3C WebVTT, section 4), with its three special characters escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{_format_clock(cue.start, '.')} --> {_format_clock(cue.end, '.')}\n"
        + (f"<v {_escape(cue.speaker)}>" if cue.speaker else "")
        + _escape("\n".join(cue.lines))
        + "\n\n"
        for cue in make_cues(transcript, layout)
    )


def format_tsv(transcript: Transcript, layout: Layout = Layout()) -> str:
    """A table with start and end in milliseconds and the text; a row per segment, or per word."""
    if layout.cue_per_word:
        rows = [
            (cue.start, cue.end, _name_speaker(cue.speaker) + cue.lines[0])
            for cue in make_cues(transcript, layout)
        ]
    else:
        rows = [
            (_to_milliseconds(s.start), _to_milliseconds(s.end), _name_speaker(s.speaker) + s.text)
            for s in transcript.segments
        ]
    return "start\tend\ttext\n" + "".join(
        f"{start}\t{end}\t{_escape_cell(str(text))}\n" for start, end, text in rows
    )


def format_ctm(transcript: Transcript, layout: Layout = Layout()) -> str:
    """NIST's time-marked words: recording, channel, start, duration, word, confidence.

    The channel is 1, or A, B and so on where channels are speakers, as in an STM of a call.
    """
    name = layout.name or Path(transcript.audio).stem
    letters = {"": "1", "left": "A", "right": "B"}
    return "".join(
        _format_ctm(name, segment.words, letters.get(segment.speaker, segment.speaker.split(" ")[-1]))
        for segment in transcript.segments
    )


FORMATS: dict[str, Callable[[Transcript, Layout], str]] = {
    "txt": format_txt,
    "json": format_json,
    "jsonl": format_jsonl,
    "srt": format_srt,
    "vtt": format_vtt,
    "tsv": format_tsv,
    "ctm": format_ctm,
}
JOINABLE = ("txt", "json", "jsonl", "ctm")  # formats of which several transcripts make one valid file


# --- alignments -----------------------------------------------------------------------------------


def format_word_ctm(aligned: AlignedText) -> str:
    """The words of an aligned text as ``format_ctm`` writes them."""
    return _format_ctm(Path(aligned.audio).stem, (word.word for word in aligned.words))


def format_unit_ctm(aligned: AlignedText) -> str:
    """Characters, pieces or phones as ``format_ctm`` writes words."""
    return _format_ctm(Path(aligned.audio).stem, (unit for word in aligned.words for unit in word.units))


def format_textgrid(aligned: AlignedText) -> str:
    """Praat's TextGrid in its long form: a tier of words, one of their units; silence has no text."""
    tiers = {
        "words": [word.word for word in aligned.words],
        aligned.unit: [unit for word in aligned.words for unit in word.units],
    }
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
    span = f"xmin = 0\nxmax = {_format_seconds(aligned.duration)}\n"
    body = "".join(
        f'    item [{number}]:\n        class = "IntervalTier"\n        name = "{name}"\n'
        f"        xmin = 0\n        xmax = {_format_seconds(aligned.duration)}\n"
        + _format_intervals(_fill_gaps(marks, aligned.duration))
        for number, (name, marks) in enumerate(tiers.items(), start=1)
    )
    return f"{head}{span}tiers? <exists>\nsize = {len(tiers)}\nitem []:\n{body}"


def format_alignment_json(aligned: AlignedText) -> str:
    """Everything, indented for people; each word holds its units."""
    words = [asdict(word.word) | {"units": [asdict(unit) for unit in word.units]} for word in aligned.words]
    keys = {"audio": aligned.audio, "text": aligned.text} | asdict(aligned) | {"words": words}
    return _dump_json(_round_numbers(keys | {"version": __version__}), indent=2)


def format_aligned_srt(aligned: AlignedText) -> str:
    """The given text as SubRip subtitles."""
    return format_srt(aligned.transcript)


def format_aligned_vtt(aligned: AlignedText) -> str:
    """The given text as WebVTT subtitles."""
    return format_vtt(aligned.transcript)


ALIGNMENT_FORMATS: dict[str, Callable[[AlignedText], str]] = {
    "ctm": format_word_ctm,
    "ctm-units": format_unit_ctm,
    "textgrid": format_textgrid,
    "json": format_alignment_json,
    "srt": format_aligned_srt,
    "vtt": format_aligned_vtt,
}


def _fill_gaps(marks: Sequence[Word], duration: float) -> Iterator[tuple[float, float, str]]:
    """Start, end and text from 0 to ``duration``, with an empty text wherever there is no mark."""
    now = 0.0
    for mark in marks:
        if _format_seconds(now) != _format_seconds(mark.start):
            yield now, mark.start, ""
        yield mark.start, mark.end, mark.text
        now = mark.end
    if _format_seconds(now) != _format_seconds(duration):
        yield now, duration, ""


def _format_intervals(intervals: Iterable[tuple[float, float, str]]) -> str:
    """A tier's intervals as Praat writes them; quotation marks are doubled."""
    lines = []
    for number, (start, end, text) in enumerate(intervals, start=1):
        quoted = text.replace('"', '""')
        lines.append(
            f"        intervals [{number}]:\n            xmin = {_format_seconds(start)}\n"
            f'            xmax = {_format_seconds(end)}\n            text = "{quoted}"\n'
        )
    return f"        intervals: size = {len(lines)}\n" + "".join(lines)


def _format_seconds(seconds: float) -> str:
    """Seconds to a tenth of a millisecond, as in JSON."""
    return f"{seconds:.4f}".rstrip("0").rstrip(".")


def _format_ctm(recording: str, words: Iterable[Word], channel: str = "1") -> str:
    name = "".join(c if c.isprintable() else "_" for c in "_".join(recording.split())) or "-"
    return "".join(
        f"{name} {channel} {word.start:.3f} {word.end - word.start:.3f} {word.text} {word.confidence:.3f}\n"
        for word in words
    )


# --- cues -----------------------------------------------------------------------------------------


def make_cues(transcript: Transcript, layout: Layout) -> list[Cue]:
    """The transcript cut into cues that leave no recording and overlap only where channels are speakers."""
    speakers_and_groups = [
        (segment.speaker, group)
        for segment in map(spell_words, transcript.segments)
        for group in (
            ([[word]] for word in segment.words) if layout.cue_per_word else wrap_words(segment, layout)
        )
    ]
    groups = [group for _, group in speakers_and_groups]
    starts = [group[0][0].start for group in groups]
    ends = [group[-1][-1].end for group in groups]
    if not layout.cue_per_word:
        latest = [*starts, transcript.duration][1:]
        readable = [start + READABLE_SECONDS for start in starts]
        ends = [max(end, min(limit, after)) for end, limit, after in zip(ends, readable, latest, strict=True)]
    return [
        Cue(
            _to_milliseconds(start),
            _to_milliseconds(end),
            tuple(" ".join(w.text for w in line) for line in group),
            speaker,
        )
        for start, end, (speaker, group) in zip(starts, ends, speakers_and_groups, strict=True)
    ]


def spell_words(segment: Segment) -> Segment:
    """The segment with its words as they are written, where that is known."""
    if not segment.written:
        return segment
    pairs = zip(segment.words, segment.written, strict=True)
    return replace(segment, words=tuple(replace(word, text=text) for word, text in pairs))


def wrap_words(segment: Segment, layout: Layout) -> Iterator[list[list[Word]]]:
    """The words of a segment as the lines of one cue after the other.

    A pause ends a cue, and so does a sentence that ends in the later half of a cue's last line. Of two lines
    the first ends behind a mark, where there is one in its later half.
    """
    lines: list[list[Word]] = []
    for word in segment.words:
        is_paused = bool(lines) and word.start - lines[-1][-1].end > PAUSE_SECONDS
        if lines and (is_paused or ends_cue(lines, layout)):
            yield lines
            lines = []
        if lines and measure_line([*lines[-1], word]) <= layout.line_width:
            lines[-1].append(word)
            continue
        rest: list[Word] = []
        if lines:
            place = find_mark(lines[-1], layout)
            lines[-1], rest = lines[-1][:place], lines[-1][place:]
            if len(lines) == layout.lines:
                yield lines
                lines = []
        if rest and measure_line([*rest, word]) > layout.line_width:
            lines.append(rest)  # the word is as long as a line
            rest = []
            if len(lines) == layout.lines:
                yield lines
                lines = []
        lines.append([*rest, word])
    if lines:
        yield lines


def measure_line(words: Sequence[Word]) -> int:
    """The characters of a line."""
    return sum(len(word.text) for word in words) + len(words) - 1


def ends_cue(lines: Sequence[Sequence[Word]], layout: Layout) -> bool:
    """Whether a sentence ends in the later half of the last line that a cue may have."""
    is_full = len(lines) == layout.lines and 2 * measure_line(lines[-1]) >= layout.line_width
    return is_full and lines[-1][-1].text.endswith(SENTENCE_MARKS)


def find_mark(line: Sequence[Word], layout: Layout) -> int:
    """The place behind the last mark in the later half of a line; its end where there is none."""
    for place in range(len(line) - 1, 0, -1):
        if 2 * measure_line(line[:place]) < layout.line_width:
            break
        if line[place - 1].text.endswith(MARKS):
            return place
    return len(line)


def _to_milliseconds(seconds: float) -> int:
    """Rounded down, so that nothing begins before the end of what precedes it, or ends too late."""
    return math.floor(seconds * 1000 + 1e-6)


def _format_clock(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{rest:03d}"


def _escape_srt(text: str) -> str:
    """SubRip has no escapes: an arrow in a text would begin a cue."""
    return " ".join(text.split()).replace("-->", "->")


def _escape_cell(text: str) -> str:
    """A cell on one line; an apostrophe before what a spreadsheet would compute."""
    text = " ".join(text.split())
    return f"'{text}" if text.lstrip("'").startswith(("=", "+", "-", "@")) else text


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- JSON -----------------------------------------------------------------------------------------


def make_table(transcript: Transcript) -> dict[str, object]:
    """Everything as plain values under the keys of json and jsonl, numbers to four digits."""
    keys = (
        {"audio": transcript.audio, "text": transcript.text} | asdict(transcript) | {"version": __version__}
    )
    keys["segments"] = [_describe_segment(segment) for segment in transcript.segments]
    keys["readable"] = transcript.readable if any(segment.written for segment in transcript.segments) else ""
    left_out = _leave_out_empty(keys, "faults", "notes", "readable")
    return {key: _round_numbers(value) for key, value in left_out.items()}


def _describe_segment(segment: Segment) -> dict[str, object]:
    """A segment with its words, and as it reads where that is known."""
    keys = asdict(segment)
    del keys["written"]
    keys["readable"] = segment.readable if segment.written else ""
    return _leave_out_empty(keys, "speaker", "readable")


def _leave_out_empty(table: dict[str, object], *names: str) -> dict[str, object]:
    """The table without those of the keys ``names`` that hold nothing."""
    return {key: value for key, value in table.items() if value or key not in names}


def _dump_json(value: object, indent: int | None = None) -> str:
    """JSON in UTF-8; a name that is not UTF-8 has the escapes with which Python opens the file again."""
    text = json.dumps(value, ensure_ascii=False, indent=indent) + "\n"
    return SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _round_numbers(value: object) -> object:
    """Times and confidences to four digits: nobody measures less than a tenth of a millisecond."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _round_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_round_numbers(item) for item in value]
    return value
