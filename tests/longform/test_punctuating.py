"""Segments are punctuated with what comes before and after them, in recordings and in streams."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from asr.longform.punctuating import Punctuator, measure_pauses, punctuate_segments
from asr.transcript.values import Segment, Word


class Fake:
    """Writes each word with how many words come before and after it; "stop" ends a sentence."""

    def __init__(self) -> None:
        self.pauses = []

    def punctuate(self, words, before=(), after=(), begins_sentence=True, pauses=()):
        self.pauses.append(pauses)
        marks = ["." if word == "stop" else "" for word in words]
        first = "^" if begins_sentence else "_"
        return [
            f"{first}{len(before)}{word}{len(after)}{mark}" for word, mark in zip(words, marks, strict=True)
        ]


def make_segment(text: str, start: float = 0.0) -> Segment:
    words = tuple(Word(word, start + n, start + n + 0.5, 0.9) for n, word in enumerate(text.split()))
    return Segment(start, start + len(words), text, words)


def test_each_segment_sees_its_neighbours_and_a_recording_ends_it():
    parts = [make_segment("a b"), make_segment("c stop"), make_segment("d"), "end", make_segment("e"), "end"]
    written = [part if isinstance(part, str) else part.written for part in punctuate_segments(parts, Fake())]
    assert written == [
        ("^0a2", "^0b2"),
        ("_2c1", "_2stop1."),
        ("^4d0",),
        "end",
        ("^0e0",),
        "end",
    ]


def test_nothing_else_of_a_segment_changes_and_without_a_tagger_nothing_at_all():
    parts = [make_segment("a b", 3.0), "end"]
    assert list(punctuate_segments(parts, None)) == parts
    changed = next(iter(punctuate_segments(parts, Fake())))
    assert replace(changed, written=()) == parts[0]
    assert changed.readable == "^0a0 ^0b0"
    assert parts[0].readable == "a b"


def test_a_stream_knows_what_came_before_but_not_what_comes():
    punctuator = Punctuator(Fake())
    assert punctuator.write(make_segment("a stop")).written == ("^0a0", "^0stop0.")
    assert punctuator.write(make_segment("b")).written == ("^2b0",)
    assert punctuator.write(make_segment("")).written == ()
    assert punctuator.write(make_segment("c")).written == ("_3c0",)


def test_a_pause_reaches_from_a_word_to_the_next_one_even_of_the_next_segment():
    fake = Fake()
    parts = [make_segment("a b"), make_segment("c", 2.25), "end"]
    list(punctuate_segments(parts, fake))
    assert fake.pauses[0] == pytest.approx([0.5, 0.75])  # words of half a second begin a second apart
    assert len(fake.pauses[1]) == 1
    assert math.isnan(fake.pauses[1][0])  # nothing is known of what comes


def test_words_that_touch_or_overlap_have_no_pause_between_them():
    words = [Word("a", 0.0, 1.0, 1.0), Word("b", 1.0, 2.0, 1.0), Word("c", 1.9, 3.0, 1.0)]
    pauses = measure_pauses(words)
    assert pauses[:2] == [0.0, 0.0]
    assert math.isnan(pauses[2])
    assert measure_pauses([]) == []
