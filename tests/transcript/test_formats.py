"""How transcripts are written: read back by parsers that are not ours, and by strict ones."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import soundfile
import srt
import webvtt
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr import __version__
from asr.cli import cli
from asr.transcript.formats import FORMATS, Layout, make_cues
from asr.transcript.values import Segment, Transcript, Word, clip_words
from tests.reference import read_srt, read_vtt

STRING = Path(__file__).parents[2] / "samples" / "digits-lucas.flac"

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), min_size=1, max_size=12)
GAPS = st.one_of(st.integers(0, 50), st.integers(0, 5000))  # milliseconds


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words of a millisecond or more, one after the other, in segments, inside the recording."""
    now = 0
    segments = []
    for _ in range(draw(st.integers(0, 4))):
        words = []
        for text in draw(st.lists(TEXTS, min_size=1, max_size=8)):
            start = now + draw(GAPS)
            now = start + 1 + draw(GAPS)
            words.append(Word(text, start / 1000, now / 1000, 0.5))
        text = " ".join(word.text for word in words)
        segments.append(Segment(words[0].start, words[-1].end, text, tuple(words)))
    return Transcript("a b.wav", (now + draw(GAPS)) / 1000, tuple(segments), "digits")


# How long examples take depends on what else the machine does, and says nothing about them.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LAYOUTS = st.builds(Layout, st.integers(1, 50), st.integers(1, 3), st.booleans())


def words_of(transcript: Transcript) -> list[str]:
    return [word.text for segment in transcript.segments for word in segment.words]


def clock(text: str) -> timedelta:
    return datetime.strptime(text, "%H:%M:%S.%f") - datetime(1900, 1, 1)


def check_times(times: list[tuple[timedelta, timedelta]], duration: float) -> None:
    """Each cue lasts, they follow each other, and all of it is inside the recording."""
    edges = [edge for pair in times for edge in pair]
    assert edges == sorted(edges)
    assert all(start < end for start, end in times)
    assert not edges or timedelta(0) <= edges[0] <= edges[-1] <= timedelta(seconds=duration)


@UNHURRIED
@given(transcripts(), LAYOUTS)
def test_srt_reads_back(transcript, layout):
    written = FORMATS["srt"](transcript, layout)
    read = list(srt.parse(written, ignore_errors=False))
    assert [cue.index for cue in read] == list(range(1, len(read) + 1))
    assert " ".join(cue.content for cue in read).split() == words_of(transcript)
    check_times([(cue.start, cue.end) for cue in read], transcript.duration)
    assert srt.compose(read, reindex=False, strict=True) == written


@UNHURRIED
@given(transcripts(), LAYOUTS)
def test_vtt_reads_back(transcript, layout):
    written = FORMATS["vtt"](transcript, layout)
    assert webvtt.WebVTT.from_string(written).content.split() == written.split()
    read = list(webvtt.WebVTT.from_string(written))
    escaped = " ".join(words_of(transcript)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert " ".join(cue.raw_text for cue in read).split() == escaped.split()
    times = [(clock(cue.start), clock(cue.end)) for cue in read]
    check_times(times, transcript.duration)


STRICT = {"srt": read_srt, "vtt": read_vtt}


@pytest.mark.parametrize("kind", STRICT)
@UNHURRIED
@given(transcript=transcripts(), layout=LAYOUTS)
def test_subtitles_keep_to_the_letter_of_their_format(kind, transcript, layout):
    # The arrow is the one text that SubRip has no way to write.
    if kind == "srt" and any("-->" in word for word in words_of(transcript)):
        return
    read = STRICT[kind](FORMATS[kind](transcript, layout))
    assert [line.split() for _, _, lines in read for line in lines] == [
        list(line.split()) for cue in make_cues(transcript, layout) for line in cue.lines
    ]
    assert " ".join(line for _, _, lines in read for line in lines).split() == words_of(transcript)
    assert not read or read[-1][1] <= transcript.duration * 1000 + 1e-6


@pytest.mark.parametrize("kind", STRICT)
@pytest.mark.parametrize("options", [[], ["--word-timestamps"], ["--max-line-width", "5"]])
def test_subtitles_of_real_speech_are_inside_the_recording(kind, options):
    done = CliRunner().invoke(cli, ["transcribe", "--model", "digits", str(STRING), "-f", kind, *options])
    read = STRICT[kind](done.stdout)
    assert " ".join(line for _, _, lines in read for line in lines) == "one eight seven two"
    assert read[-1][1] <= soundfile.info(STRING).duration * 1000


@pytest.mark.parametrize(
    "text",
    [
        "1\n00:00:00,000 --> 00:00:01,000\na\n", "2\n00:00:00,000 --> 00:00:01,000\na\n\n",
        "1\n00:00:00.000 --> 00:00:01.000\na\n\n", "1\n00:00:01,000 --> 00:00:01,000\na\n\n",
        "1\n00:00:00,000 --> 00:00:01,000\n\n", "1\n0:00:00,000 --> 0:00:01,000\na\n\n",
        "1\n00:00:00,000 --> 00:00:02,000\na\n\n2\n00:00:01,000 --> 00:00:03,000\nb\n\n", "a\n\n",
        "1\n00:00:00,000 --> 00:00:61,000\na\n\n",
    ],
)  # fmt: skip
def test_the_strict_parser_is_strict(text):
    with pytest.raises(ValueError):
        read_srt(text)
    with pytest.raises(ValueError):
        read_vtt("WEBVTT\n\n" + text)


@UNHURRIED
@given(transcripts(), st.integers(1, 50), st.integers(1, 3))
def test_cues_keep_to_their_width_and_their_lines(transcript, width, lines):
    for cue in make_cues(transcript, Layout(width, lines)):
        assert len(cue.lines) <= lines
        assert all(len(line) <= width or " " not in line for line in cue.lines)


@UNHURRIED
@given(transcripts())
def test_every_word_can_have_its_own_cue(transcript):
    found = make_cues(transcript, Layout(cue_per_word=True))
    assert [cue.lines for cue in found] == [(word,) for word in words_of(transcript)]
    words = [word for segment in transcript.segments for word in segment.words]
    assert [cue.start for cue in found] == [round(word.start * 1000) for word in words]
    assert [cue.end for cue in found] == [round(word.end * 1000) for word in words]


@UNHURRIED
@given(transcripts(), LAYOUTS)
def test_tsv_reads_back(transcript, layout):
    written = FORMATS["tsv"](transcript, layout)
    rows = list(csv.DictReader(io.StringIO(written), delimiter="\t", quoting=csv.QUOTE_NONE))
    texts = [re.sub(r"^'(?='*[=+@-])", "", row["text"]) for row in rows]
    assert " ".join(texts).split() == words_of(transcript)
    times = [tuple(timedelta(milliseconds=int(row[key])) for key in ("start", "end")) for row in rows]
    check_times(times, transcript.duration)


@UNHURRIED
@given(transcripts())
def test_ctm_has_six_columns_a_word(transcript):
    rows = [line.split(" ") for line in FORMATS["ctm"](transcript, Layout()).splitlines()]
    assert all(row[:2] == ["a_b", "1"] and row[5] == "0.500" and len(row) == 6 for row in rows)
    assert [row[4] for row in rows] == words_of(transcript)
    assert all(float(row[3]) >= 0.001 for row in rows)
    assert sum(float(row[3]) for row in rows) <= transcript.duration + 1e-6 * len(rows)


@UNHURRIED
@given(transcripts())
def test_json_holds_everything(transcript):
    line = FORMATS["jsonl"](transcript, Layout())
    assert line.count("\n") == 1
    keys = json.loads(line)
    assert keys == json.loads(FORMATS["json"](transcript, Layout()))
    assert [word["text"] for segment in keys["segments"] for word in segment["words"]] == words_of(transcript)
    assert keys["version"] == __version__
    assert keys["model"] == "digits"


def talk(*words: tuple[str, float, float], duration: float = 60.0) -> Transcript:
    spoken = tuple(Word(text, start, end, 1.0) for text, start, end in words)
    text = " ".join(word.text for word in spoken)
    return Transcript("talk.wav", duration, (Segment(0.0, duration, text, spoken),), "digits")


def test_a_cue_stays_long_enough_to_be_read_but_not_into_the_next_one():
    (alone,) = make_cues(talk(("one", 1.0, 1.04)), Layout())
    assert (alone.start, alone.end) == (1000, 1800)
    first, second = make_cues(
        talk(("one", 1.0, 1.04), ("two", 1.5, 1.54), duration=1.6), Layout(line_width=3, lines=1)
    )
    assert (first.start, first.end) == (1000, 1500)
    assert (second.start, second.end) == (1500, 1600)


def test_a_pause_begins_a_new_cue():
    short, long = ("two", 1.9, 2.0), ("three", 3.1, 3.2)
    assert [cue.lines for cue in make_cues(talk(("one", 0.0, 1.0), short, long), Layout())] == [
        ("one two",),
        ("three",),
    ]


def test_what_has_a_meaning_in_vtt_is_escaped():
    assert "a&amp;b &lt;i&gt; --&gt;\n" in FORMATS["vtt"](
        talk(("a&b", 0.0, 0.2), ("<i>", 0.3, 0.4), ("-->", 0.5, 0.6)), Layout()
    )


@pytest.mark.parametrize(
    ("kind", "written"),
    [("txt", "\n"), ("srt", ""), ("vtt", "WEBVTT\n\n"), ("tsv", "start\tend\ttext\n"), ("ctm", "")],
)
def test_nothing_said(kind, written):
    assert FORMATS[kind](Transcript("a.wav", 1.0, (), "digits"), Layout()) == written


def test_subtitles_written_out():
    transcript = talk(("one", 0.5, 1.25), ("two", 3661.25, 3662.0), duration=4000.0)
    assert FORMATS["srt"](transcript, Layout()) == (
        "1\n00:00:00,500 --> 00:00:01,300\none\n\n2\n01:01:01,250 --> 01:01:02,050\ntwo\n\n"
    )
    assert FORMATS["vtt"](transcript, Layout()) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.300\none\n\n01:01:01.250 --> 01:01:02.050\ntwo\n\n"
    )


def test_a_word_ends_with_its_recording():
    first, last = clip_words((Word("one", 0.1, 0.5, 1.0), Word("two", 0.96, 1.04, 1.0)), 1.0)
    assert (first.start, first.end) == (0.1, 0.5)
    assert (last.start, last.end) == (0.96, 1.0)
