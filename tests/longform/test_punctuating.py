"""Segments are punctuated with what comes before and after them, in recordings and in streams."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from asr.longform.punctuating import Punctuator, measure_pauses, punctuate_segments
from asr.transcript.values import Segment, Word


class Fake:
    """Writes each word with its place in its text and how many words that has; "stop" ends a sentence."""

    def __init__(self) -> None:
        self.pauses = []
        self.rounds = []

    def tag_texts(self, texts):
        self.rounds.append(len(texts))
        return [np.array([(place, len(words)) for place in range(len(words))]) for words in texts]

    def write(self, words, log_probs, is_last, begins_sentence, pauses):
        self.pauses.append(pauses)
        first = ("^" if begins_sentence else "_") + ("." if is_last else "")
        return [
            f"{first}{place}{word}{total - place - 1}{'.' if word == 'stop' else ''}"
            for word, (place, total) in zip(words, log_probs.tolist(), strict=True)
        ]


def make_segment(text: str, start: float = 0.0) -> Segment:
    words = tuple(Word(word, start + n, start + n + 0.5, 0.9) for n, word in enumerate(text.split()))
    return Segment(start, start + len(words), text, words)


def write_all(rounds):
    fake = Fake()
    written = [part if isinstance(part, str) else part.written for part in punctuate_segments(rounds, fake)]
    return written, fake


def test_each_segment_sees_its_neighbours_and_a_recording_ends_it():
    parts = [make_segment("a b"), make_segment("c stop"), make_segment("d"), "end", make_segment("e"), "end"]
    expected = [
        ("^0a3", "^1b2"),
        ("_2c2", "_3stop1."),
        ("^.4d0",),
        "end",
        ("^.0e0",),
        "end",
    ]
    written, fake = write_all([parts])
    assert written == expected
    assert fake.rounds == [4]  # all of a round are read side by side
    for cut in range(1, len(parts)):  # wherever a round ends, nothing else comes of it
        assert write_all([parts[:cut], parts[cut:]])[0] == expected
    assert write_all([[part] for part in parts])[0] == expected


def test_nothing_else_of_a_segment_changes_and_without_a_tagger_nothing_at_all():
    parts = [make_segment("a b", 3.0), "end"]
    assert list(punctuate_segments([parts], None)) == parts
    changed = next(iter(punctuate_segments([parts], Fake())))
    assert replace(changed, written=()) == parts[0]
    assert changed.readable == "^.0a1 ^.1b0"
    assert parts[0].readable == "a b"


def test_a_stream_knows_what_came_before_but_not_what_comes():
    punctuator = Punctuator(Fake())
    assert punctuator.punctuate(make_segment("a stop")).written == ("^.0a1", "^.1stop0.")
    assert punctuator.punctuate(make_segment("b")).written == ("^.2b0",)
    assert punctuator.punctuate(make_segment("")).written == ()
    assert punctuator.punctuate(make_segment("c")).written == ("_.3c0",)


def test_a_pause_reaches_from_a_word_to_the_next_one_even_of_the_next_segment():
    parts = [make_segment("a b"), make_segment("c", 2.25), "end"]
    pauses = write_all([parts])[1].pauses
    assert pauses[0] == pytest.approx([0.5, 0.75])  # words of half a second begin a second apart
    assert len(pauses[1]) == 1
    assert math.isnan(pauses[1][0])  # nothing is known of what comes


def test_words_that_touch_or_overlap_have_no_pause_between_them():
    words = [Word("a", 0.0, 1.0, 1.0), Word("b", 1.0, 2.0, 1.0), Word("c", 1.9, 3.0, 1.0)]
    pauses = measure_pauses(words)
    assert pauses[:2] == [0.0, 0.0]
    assert math.isnan(pauses[2])
    assert measure_pauses([]) == []
