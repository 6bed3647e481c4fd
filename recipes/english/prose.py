#!/usr/bin/env python3
"""Put prose with its punctuation together, a paragraph a line, to learn punctuation from and to measure it.

    python recipes/english/prose.py SOURCES_DIR -o data/prose [--held-out SENTENCES.sha1]

SOURCES_DIR holds what is there of `litbank` (github.com/dbamman/litbank), `Topical-Chat`
(github.com/alexa/Topical-Chat), `UD_English-EWT` (github.com/UniversalDependencies/UD_English-EWT) and
`corpora/*/manifest.jsonl` of Common Voice with the sentences as they were shown (key `raw`). Writes
`train.txt` (what is no book twice: there is less of it), `books.txt` (two novels that LibriSpeech's dev sets
were read from) and `modern.txt` (the test set of EWT), from which nothing is learned.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from asr.core.files import replace_file
from asr.lm.text import split_sentences
from asr.text.normalise import normalise_letters

HELD_OUT_BOOKS = ("233_", "27_")  # Sister Carrie, Far from the Madding Crowd
SHORTEST = 40  # characters of a paragraph: what is shorter is often a heading


def read_books(folder: Path, held_out: bool) -> Iterator[str]:
    """Yield the paragraphs of LitBank's novels."""
    for path in sorted((folder / "litbank" / "original").glob("*.txt")):
        if path.name.startswith(HELD_OUT_BOOKS) == held_out:
            for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
                text = " ".join(paragraph.split())
                if len(text) >= SHORTEST and not text.isupper():
                    yield text


def read_chats(folder: Path) -> Iterator[str]:
    """Yield the messages of Topical-Chat's smaller sets."""
    for path in sorted((folder / "Topical-Chat" / "conversations").glob("*_*.json")):
        for conversation in json.loads(path.read_text(encoding="utf-8")).values():
            for turn in conversation["content"]:
                yield " ".join(turn["message"].split())


def read_treebank(folder: Path, part: str) -> Iterator[str]:
    """Yield the paragraphs of a part of EWT."""
    path = folder / "UD_English-EWT" / f"en_ewt-ud-{part}.conllu"
    sentences: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        if line.startswith(("# newpar", "# newdoc")) and sentences:
            yield " ".join(sentences)
            sentences = []
        if line.startswith("# text = "):
            sentences.append(line.removeprefix("# text = "))
    if sentences:
        yield " ".join(sentences)


def read_shown_sentences(folder: Path) -> Iterator[str]:
    """Yield what Common Voice's volunteers were shown."""
    seen = set()
    for path in sorted((folder / "corpora").glob("cv-*/manifest.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            text = " ".join(str(json.loads(line).get("raw", "")).split())
            if text and text not in seen:
                seen.add(text)
                yield text


def leave_out(paragraph: str, digests: set[str]) -> str:
    """A paragraph without sentences of a final measure; without anything behind the first of them."""
    if not digests:
        return paragraph
    kept = []
    for sentence in split_sentences(paragraph):
        if hashlib.sha1(normalise_letters(sentence).encode()).hexdigest() in digests:
            break
        kept.append(sentence)
    return " ".join(kept)


def main() -> None:
    """Read the command line, write the texts, say how many words each has."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--held-out", type=Path)
    given = parser.parse_args()
    digests = set(given.held_out.read_text().split()) if given.held_out else set()
    modern = [*read_chats(given.folder), *read_treebank(given.folder, "train")]
    modern += [*read_treebank(given.folder, "dev"), *read_shown_sentences(given.folder)]
    texts = {
        "train.txt": [*read_books(given.folder, False), *modern, *modern],
        "books.txt": list(read_books(given.folder, True)),
        "modern.txt": list(read_treebank(given.folder, "test")),
    }
    for name, paragraphs in texts.items():
        kept = [leave_out(paragraph, digests if name == "train.txt" else set()) for paragraph in paragraphs]
        with replace_file(given.out / name) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept if line), encoding="utf-8")
        print(f"{name}: {sum(line.count(' ') + 1 for line in kept if line)} words")


if __name__ == "__main__":
    main()
