#!/usr/bin/env python3
"""Measure punctuation and capitals of what is recognised, with what pauses say about them and without.

    python recipes/english/readable.py data/english/dev-report.jsonl --book BOOK.txt -o results/words
    python recipes/english/readable.py data/english/cv24-dev.jsonl -o results/words

The written text of an utterance stands under `raw` in its manifest, or in the book that it was read from:
then those whose words are found in BOOK.txt are measured, and those of a chapter are joined to one text. The
tagger on their own words (`reference`), what `asr transcribe` writes (`recognised`), and what it writes where
it knows nothing of pauses (`recognised-no-pauses`).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import asr
from asr.core.files import write_text
from asr.core.provenance import describe_machine, make_provenance
from asr.data.manifest import Utterance, read_manifest
from asr.longform.punctuating import punctuate_segments
from asr.recognition.recognizer import Recognizer
from asr.scoring.punctuation import count_marks
from asr.text.marks import MARKS, MarkedWord, read_case, read_marked_words
from asr.text.normalise import normalise_letters
from asr.text.punctuation import Tagger
from asr.transcript.values import Segment

DIRECT = 6  # words in a row by which an utterance is found
Text = list[MarkedWord]


@dataclass(frozen=True)
class Measured:
    """Utterances that are joined: their text, and their words with the marks that each way gives them."""

    expected: Text
    found: dict[str, Text]


def read_book(path: Path) -> Text:
    """Read the words of a book with their marks."""
    paragraphs = re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
    return [word for paragraph in paragraphs for word in read_marked_words(" ".join(paragraph.split()))]


def find_words(book: Text, places: dict[tuple[str, ...], int], text: str) -> Text | None:
    """Find the words of an utterance in the book, all of them in a row; ``None`` where they are not there."""
    words = normalise_letters(text).split()
    for first in range(len(words) - DIRECT + 1):
        place = places.get(tuple(words[first : first + DIRECT]))
        if place is not None and place >= first:
            found = book[place - first : place - first + len(words)]
            return found if [word.text for word in found] == words else None
    return None


def group_by_chapter(utterances: Sequence[Utterance], book: Text) -> list[list[tuple[Utterance, Text]]]:
    """Group the utterances that are found in a book by chapter."""
    places = {
        tuple(word.text for word in book[first : first + DIRECT]): first
        for first in range(len(book) - DIRECT, -1, -1)
    }
    groups: dict[str, list[tuple[Utterance, Text]]] = {}
    for utterance in utterances:
        words = find_words(book, places, utterance.text)
        if words is not None:
            groups.setdefault(utterance.id.rpartition("-")[0], []).append((utterance, words))
    return list(groups.values())


def to_marked(words: Sequence[str], written: Sequence[str]) -> Text:
    """Read what a recogniser wrote of words."""
    marks = [MARKS.index(word[-1]) if word[-1] in MARKS[1:] else 0 for word in written]
    return [MarkedWord(w, m, read_case(s)) for w, m, s in zip(words, marks, written, strict=True)]


def read_segments(segments: Sequence[Segment]) -> Text:
    """Read what a recogniser wrote of a recording."""
    words = [word.text for segment in segments for word in segment.words]
    return to_marked(words, [word for segment in segments for word in segment.written])


def measure_utterances(recogniser: Recognizer, utterances: list[tuple[Utterance, Text]]) -> Measured:
    """Transcribe utterances that are joined, and write them in every way."""
    tagger = recogniser.tagger
    assert isinstance(tagger, Tagger)
    without = replace(tagger, config=replace(tagger.config, pauses=()))
    expected: Text = []
    found: dict[str, Text] = {"reference": [], "recognised": [], "recognised-no-pauses": []}
    for utterance, text in utterances:
        expected += text
        own = [word.text for word in text]
        found["reference"] += to_marked(own, tagger.punctuate(own))
        segments = recogniser.transcribe(utterance.audio).segments
        again = [one for one in punctuate_segments([*segments, None], without) if isinstance(one, Segment)]
        found["recognised"] += read_segments(segments)
        found["recognised-no-pauses"] += read_segments(again)
    return Measured(expected, found)


def main() -> None:
    """Read the command line, measure, write a file for each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--book", type=Path)
    parser.add_argument("--model", default="english")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    utterances = read_manifest(given.manifest)
    if given.book is not None:
        groups = group_by_chapter(utterances, read_book(given.book))
    else:
        groups = [[(one, text)] for one in utterances if (text := read_marked_words(one.extra["raw"]))]
    recogniser = asr.load(given.model)
    measured = [measure_utterances(recogniser, group) for group in groups]
    for way in measured[0].found:
        counts = count_marks([(one.expected, one.found[way]) for one in measured])
        table = {
            "model": given.model,
            "texts": [str(path) for path in (given.book, given.manifest) if path is not None],
            "utterances": sum(map(len, groups)),
            "words": sum(len(one.expected) for one in measured),
            "marks": {name: {**vars(count), "f1": count.f1} for name, count in counts.items()},
        }
        write_text(
            given.out / f"punctuation.{given.manifest.stem}-{way}.json",
            json.dumps(table | make_provenance(describe_machine(1)), indent=2) + "\n",
        )
        print(way, ", ".join(f"{name} {100 * count.f1:.1f} %" for name, count in counts.items()))


if __name__ == "__main__":
    main()
