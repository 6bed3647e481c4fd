#!/usr/bin/env python3
"""Make recordings that only a network with memory can transcribe.

    python recipes/bells/prepare.py --out data/bells

Each begins with a bell, and after a pause a few notes are played. After a low bell (ding) the notes are
called do, re, mi, fa; after a high one (dong) the same notes are la, si, ut, sol. So every name depends on
a sound seconds before it: the temporal order problem of Hochreiter & Schmidhuber (1997), made audible.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile

from asr.data.manifest import Utterance, write_manifest

RATE = 8000
SIZES = {"train": 800, "test": 100}
BELLS = {300.0: "ding", 3000.0: "dong"}  # hertz
NAMES = {"ding": ("do", "re", "mi", "fa"), "dong": ("la", "si", "ut", "sol")}  # of the notes after each bell
NOTES = (600.0, 900.0, 1300.0, 1900.0)  # hertz
NOTE_SECONDS, PAUSE_SECONDS = 0.15, (1.0, 2.0)


def make_tone(hertz: float, generator: np.random.Generator) -> np.ndarray:
    """A note that swells and dies away."""
    times = np.arange(int(RATE * NOTE_SECONDS * generator.uniform(0.8, 1.2))) / RATE
    return 0.3 * np.sin(2 * np.pi * hertz * times) * np.hanning(len(times))


def make_silence(seconds: float) -> np.ndarray:
    return np.zeros(int(RATE * seconds))


def make_recording(generator: np.random.Generator) -> tuple[np.ndarray, str]:
    """Make samples and their text: a bell, a pause, three to six notes."""
    bell = generator.choice(list(BELLS))
    notes = generator.integers(0, len(NOTES), generator.integers(3, 7))
    parts = [make_tone(bell, generator), make_silence(generator.uniform(*PAUSE_SECONDS))]
    for note in notes:
        parts += [make_tone(NOTES[note], generator), make_silence(0.1)]
    samples = np.concatenate(parts)
    samples += 0.003 * generator.standard_normal(len(samples))
    return samples.astype(np.float32), " ".join([BELLS[bell], *(NAMES[BELLS[bell]][note] for note in notes)])


def write_split(folder: Path, split: str, generator: np.random.Generator) -> None:
    """Write ``{split}.jsonl`` and its recordings."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    utterances = []
    for number in range(SIZES[split]):
        samples, text = make_recording(generator)
        path = folder / split / f"{number:03d}.flac"
        soundfile.write(path, samples, RATE)
        utterances.append(Utterance(f"{split}-{number:03d}", str(path), 0.0, len(samples) / RATE, text))
    write_manifest(folder / f"{split}.jsonl", utterances)


def main() -> None:
    """Write training and test recordings, the same ones every time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().out
    generator = np.random.default_rng(1)
    for split in SIZES:
        write_split(folder, split, generator)


if __name__ == "__main__":
    main()
