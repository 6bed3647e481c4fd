"""The stand-in for rapidfuzz gives what rapidfuzz gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from asr.scoring import levenshtein
from tests.reference import edit_distance

TEXTS = st.text("abc", max_size=12)


@given(TEXTS, TEXTS)
def test_the_edits_are_those_of_rapidfuzz(source, destination):
    expected = [tuple(edit) for edit in Levenshtein.editops(source, destination).as_list()]
    found = levenshtein.editops(source, destination).as_list()
    assert [tuple(edit) for edit in found] == expected
    assert len(found) == edit_distance(source, destination)


@given(TEXTS, TEXTS)
def test_the_stretches_are_those_of_rapidfuzz(source, destination):
    expected = [
        (step.tag, step.src_start, step.src_end, step.dest_start, step.dest_end)
        for step in Levenshtein.opcodes(source, destination)
    ]
    assert [tuple(code) for code in levenshtein.editops(source, destination).as_opcodes()] == expected


def test_items_may_be_words():
    edits = levenshtein.editops(["go", "on", "then"], ["go", "off"])
    assert sorted(edit.tag for edit in edits) == ["delete", "replace"]
