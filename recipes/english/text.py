#!/usr/bin/env python3
"""Put the texts of a folder together for a language model, without the sentences of a final measure.

    python recipes/english/text.py TEXT_DIR -o text.txt [--held-out SENTENCES.sha1]

TEXT_DIR holds `*.txt` or `*.txt.xz` in `letters-v1`, a sentence or clause a line. What is no book is written
twice: there is less of it, and more of what people say today. `--held-out` names a file of SHA-1 digests,
one a line, of the sentences to leave out.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
from collections.abc import Iterator
from pathlib import Path

from asr.core.files import replace_file

BOOKS = ("books", "litbank")  # how the names of books' files begin


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text that are not blank, without the white space around them."""
    with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as file:
        for line in file:
            if line.strip():
                yield line.strip()


def main() -> None:
    """Read the command line, write the text, say how many words each file has."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--held-out", type=Path)
    given = parser.parse_args()
    held_out = set(given.held_out.read_text().split()) if given.held_out else set()
    paths = sorted([*given.folder.glob("*.txt"), *given.folder.glob("*.txt.xz")])
    with replace_file(given.out) as temporary, temporary.open("w") as text:
        for path in paths:
            words = left_out = 0
            times = 1 if path.name.startswith(BOOKS) else 2
            for line in lines_of(path):
                if hashlib.sha1(line.encode()).hexdigest() in held_out:
                    left_out += 1
                    continue
                words += line.count(" ") + 1
                text.write((line + "\n") * times)
            print(f"{path.name}: {words} words, {left_out} sentences left out")


if __name__ == "__main__":
    main()
