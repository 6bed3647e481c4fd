#!/usr/bin/env python3
"""Thirty minutes of one voice that no model has heard: sentences read by espeak-ng, in train, dev and test.

    python recipes/voice/prepare.py TEXT OUT

TEXT has a sentence a line, in letters and apostrophes; it may be compressed by xz. OUT gets a WAV file and a
text for each sentence, as `asr prepare folder` reads them.
"""

from __future__ import annotations

import lzma
import random
import subprocess
import sys
import wave
from pathlib import Path

SECONDS = {"train": 1800.0, "dev": 240.0, "test": 600.0}
VOICE = ("espeak-ng", "-v", "en-us+f3", "-s", "150")
WORDS = range(6, 21)  # of a sentence


def read_sentences(path: Path) -> list[str]:
    """Read the sentences that are neither short nor long, each once, in an order that is always the same."""
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        lines = sorted({line.strip() for line in file if len(line.split()) in WORDS})
    random.Random(1).shuffle(lines)
    return lines


def read_aloud(sentence: str, path: Path) -> float:
    """Write a sentence as speech; return its seconds."""
    subprocess.run([*VOICE, "-w", str(path), sentence], check=True)
    with wave.open(str(path)) as sound:
        return sound.getnframes() / sound.getframerate()


def main() -> None:
    text, out = map(Path, sys.argv[1:])
    sentences = iter(read_sentences(text))
    for split, wanted in SECONDS.items():
        folder, seconds, number = out / split, 0.0, 0
        folder.mkdir(parents=True)
        while seconds < wanted:
            sentence = next(sentences)
            seconds += read_aloud(sentence, folder / f"{number:04d}.wav")
            (folder / f"{number:04d}.txt").write_text(sentence + "\n", encoding="utf-8")
            number += 1
        print(f"{split}: {number} sentences, {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    main()
