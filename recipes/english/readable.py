#!/usr/bin/env python3
"""Measure punctuation and capitals of what is recognised of a book, and what pauses say about them.

    python recipes/english/readable.py BOOK.txt data/english/dev-report.jsonl -o results/words

The manifest's references have no punctuation; BOOK.txt, the book that some of its utterances were read from,
has. Utterances whose words are found in it are measured, those of a chapter joined to one text: the tagger
alone on their own words (`reference`), what `asr transcribe` writes (`recognised`), and the same with pauses
(`recognised-pauses`): the logarithm of how much more often a mark has a pause of such a length behind it than
words have on average, measured on the other chapters, is added to what the tagger says of the mark.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import asr
from asr.core.files import write_text
from asr.core.provenance import describe_machine, make_provenance
from asr.data.manifest import Utterance, read_manifest
from asr.recognition.recognizer import Recognizer
from asr.scoring.counts import align_items
from asr.scoring.punctuation import count_marks
from asr.text.marks import MARKS, MarkedWord, read_case, read_marked_words
from asr.text.normalise import normalise_letters
from asr.text.punctuation import Tagger

PAUSES = (0.05, 0.15, 0.3, 0.5, 0.8)  # seconds between the classes of pauses
DIRECT = 6  # words in a row by which an utterance is found
Text = list[MarkedWord]


@dataclass(frozen=True)
class Chapter:
    """The utterances of a chapter: their words as the book has them, and as they were recognised.

    ``scores`` are the tagger's of the recognised words, ``pauses`` the seconds behind each of them.
    """

    reference: Text
    alone: Text
    recognised: Text
    scores: np.ndarray
    pauses: np.ndarray


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


def to_marked(words: Sequence[str], written: Sequence[str]) -> Text:
    """Read what a recogniser wrote of words."""
    marks = [MARKS.index(word[-1]) if word[-1] in MARKS[1:] else 0 for word in written]
    return [MarkedWord(w, m, read_case(s)) for w, m, s in zip(words, marks, written, strict=True)]


def recognise_chapter(recogniser: Recognizer, utterances: list[tuple[Utterance, Text]]) -> Chapter:
    """Recognise the utterances of a chapter."""
    tagger = recogniser.tagger
    assert isinstance(tagger, Tagger)
    reference, alone, recognised = [], [], []
    scores, pauses = [np.zeros((0, len(MARKS)))], []
    for utterance, expected in utterances:
        reference += expected
        own = [word.text for word in expected]
        alone += to_marked(own, tagger.punctuate(own))
        transcript = recogniser.transcribe(utterance.audio)
        words = [word for segment in transcript.segments for word in segment.words]
        if not words:
            continue
        texts = [word.text for word in words]
        recognised += to_marked(texts, [w for segment in transcript.segments for w in segment.written])
        scores.append(tagger.tag(texts)[:, : len(MARKS)])
        ends = [*(word.start for word in words[1:]), transcript.duration]
        pauses += [max(0.0, end - word.end) for word, end in zip(words, ends, strict=True)]
    return Chapter(reference, alone, recognised, np.concatenate(scores), np.array(pauses))


def count_pauses(chapters: Sequence[Chapter]) -> np.ndarray:
    """Count how often a pause of each class stands where the book has each mark: ``(classes, marks)``."""
    counts = np.ones((len(PAUSES) + 1, len(MARKS)))
    for chapter in chapters:
        classes = np.digitize(chapter.pauses, PAUSES)
        steps = align_items([w.text for w in chapter.reference], [w.text for w in chapter.recognised])
        ahead = behind = 0
        for step in steps:
            if step.kind not in ("insertion", "deletion"):
                counts[classes[behind], chapter.reference[ahead].mark] += 1
            ahead += step.kind != "insertion"
            behind += step.kind != "deletion"
    return counts


def use_pauses(chapter: Chapter, counts: np.ndarray) -> Text:
    """Choose the marks of recognised words anew, knowing the pauses behind them."""
    gains = np.log(counts / counts.sum(0)) - np.log(counts.sum(1, keepdims=True) / counts.sum())
    marks = (chapter.scores + gains[np.digitize(chapter.pauses, PAUSES)]).argmax(axis=1)
    return [
        MarkedWord(word.text, int(mark), word.case)
        for word, mark in zip(chapter.recognised, marks, strict=True)
    ]


def main() -> None:
    """Read the command line, measure, write a file for each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("book", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="english")
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    book = read_book(given.book)
    places = {
        tuple(word.text for word in book[first : first + DIRECT]): first
        for first in range(len(book) - DIRECT, -1, -1)
    }
    groups: dict[str, list[tuple[Utterance, Text]]] = {}
    for utterance in read_manifest(given.manifest):
        words = find_words(book, places, utterance.text)
        if words is not None:
            groups.setdefault(utterance.id.rpartition("-")[0], []).append((utterance, words))
    recogniser = asr.load(given.model)
    chapters = [recognise_chapter(recogniser, group) for group in groups.values()]
    others = [[other for other in chapters if other is not chapter] for chapter in chapters]
    with_pauses = [use_pauses(one, count_pauses(rest)) for one, rest in zip(chapters, others, strict=True)]
    ways = {
        "reference": [chapter.alone for chapter in chapters],
        "recognised": [chapter.recognised for chapter in chapters],
        "recognised-pauses": with_pauses,
    }
    for way, texts in ways.items():
        counts = count_marks([(one.reference, text) for one, text in zip(chapters, texts, strict=True)])
        table = {
            "model": given.model,
            "texts": [str(given.book), str(given.manifest)],
            "utterances": sum(map(len, groups.values())),
            "words": sum(len(chapter.reference) for chapter in chapters),
            "marks": {name: {**vars(count), "f1": count.f1} for name, count in counts.items()},
        }
        write_text(
            given.out / f"punctuation.dev-report-{way}.json",
            json.dumps(table | make_provenance(describe_machine(1)), indent=2) + "\n",
        )
        print(way, ", ".join(f"{name} {100 * count.f1:.1f} %" for name, count in counts.items()))


if __name__ == "__main__":
    main()
