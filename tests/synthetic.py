"""Speech that anybody can learn: one tone per letter, silence between words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from asr.data import Utterance, write_manifest

RATE = 8000
LETTERS = "abcdefgh"
LETTER_SECONDS = 0.08
PAUSE_SECONDS = 0.16


def spoken(text: str, generator: np.random.Generator) -> np.ndarray:
    """``text`` as tones: letter ``n`` has 400 + 350 n hertz; a little noise under all of it."""
    parts = [np.zeros(int(RATE * PAUSE_SECONDS))]
    for character in text + " ":
        seconds = PAUSE_SECONDS if character == " " else LETTER_SECONDS * generator.uniform(0.9, 1.2)
        times = np.arange(int(RATE * seconds)) / RATE
        hertz = 0.0 if character == " " else 400 + 350 * LETTERS.index(character)
        parts.append(np.sin(2 * np.pi * hertz * times) * np.hanning(len(times)))
    samples = 0.3 * np.concatenate(parts)
    return (samples + 1e-3 * generator.standard_normal(len(samples))).astype(np.float32)


def sentence(generator: np.random.Generator) -> str:
    """One to three words of one to four letters, no letter twice in a row."""
    words = []
    for _ in range(generator.integers(1, 4)):
        letters = generator.permutation(list(LETTERS))[: generator.integers(1, 5)]
        words.append("".join(letters))
    return " ".join(words)


def write_tones(folder: Path, sizes: dict[str, int], seed: int) -> None:
    """``{split}.jsonl`` with that many utterances each, recordings beside them."""
    generator = np.random.default_rng(seed)
    for split, size in sizes.items():
        (folder / split).mkdir(parents=True)
        utterances = []
        for number in range(size):
            text = sentence(generator)
            samples = spoken(text, generator)
            path = folder / split / f"{number:03d}.wav"
            soundfile.write(path, samples, RATE)
            speaker = f"speaker{number % 3}"
            utterances.append(
                Utterance(f"{split}-{number:03d}", str(path), 0.0, len(samples) / RATE, text, speaker)
            )
        write_manifest(folder / f"{split}.jsonl", utterances)
