"""Speech that anybody can learn: a tone for each letter, silence between words. And what is no speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from asr.data.manifest import Utterance, write_manifest

RATE = 8000
LETTERS = "abcdefgh"
LETTER_SECONDS = 0.08
PAUSE_SECONDS = 0.16


def speak(text: str, generator: np.random.Generator) -> np.ndarray:
    """``text`` as tones: letter ``n`` has 400 + 350 n hertz; a little noise under all of it."""
    parts = [np.zeros(int(RATE * PAUSE_SECONDS))]
    for character in text + " ":
        seconds = PAUSE_SECONDS if character == " " else LETTER_SECONDS * generator.uniform(0.9, 1.2)
        times = np.arange(int(RATE * seconds)) / RATE
        hertz = 0.0 if character == " " else 400 + 350 * LETTERS.index(character)
        parts.append(np.sin(2 * np.pi * hertz * times) * np.hanning(len(times)))
    samples = 0.3 * np.concatenate(parts)
    return (samples + 1e-3 * generator.standard_normal(len(samples))).astype(np.float32)


def make_sentence(generator: np.random.Generator) -> str:
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
            text = make_sentence(generator)
            samples = speak(text, generator)
            path = folder / split / f"{number:03d}.wav"
            soundfile.write(path, samples, RATE)
            speaker = f"speaker{number % 3}"
            utterances.append(
                Utterance(f"{split}-{number:03d}", str(path), 0.0, len(samples) / RATE, text, speaker)
            )
        write_manifest(folder / f"{split}.jsonl", utterances)


# --- no speech ------------------------------------------------------------------------------------

UNSPOKEN_SECONDS = 12


def white_noise(rate: int, seconds: float = UNSPOKEN_SECONDS) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(int(rate * seconds))


def colour_noise(rate: int, power: float) -> np.ndarray:
    """Noise whose power falls with the frequency to that ``power``."""
    spectrum = np.fft.rfft(white_noise(rate))
    hertz = np.maximum(np.fft.rfftfreq(rate * UNSPOKEN_SECONDS, 1 / rate), 20)
    noise = np.fft.irfft(spectrum * hertz ** (-power / 2))
    return 0.1 * noise / noise.std()


def sine(rate: int, hertz: float) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate * UNSPOKEN_SECONDS) / rate)


def alternate(rate: int, seconds: float) -> np.ndarray:
    """1 and 0 in turn."""
    return (np.arange(rate * UNSPOKEN_SECONDS) // int(rate * seconds) + 1) % 2


NO_SPEECH = {
    "nothing": lambda rate: np.zeros(rate * UNSPOKEN_SECONDS),
    "rounding": lambda rate: np.round(0.4 * white_noise(rate)) / 32768,
    "white noise": lambda rate: 0.1 * white_noise(rate),
    "white noise, clipped": lambda rate: np.clip(white_noise(rate), -1, 1),
    "pink noise": lambda rate: colour_noise(rate, 1),
    "brown noise": lambda rate: colour_noise(rate, 2),
    "noise begins": lambda rate: 0.1 * white_noise(rate) * (np.arange(rate * UNSPOKEN_SECONDS) > rate * 5),
    "noise on and off": lambda rate: 0.1 * white_noise(rate) * alternate(rate, 2.0),
    "a low tone": lambda rate: sine(rate, 150),
    "a tone": lambda rate: sine(rate, 440),
    "a high tone": lambda rate: sine(rate, 3000),
    "a tone in noise": lambda rate: sine(rate, 1000) + 0.05 * white_noise(rate),
    "beeps": lambda rate: sine(rate, 1000) * alternate(rate, 0.5),
    "a chord": lambda rate: (sine(rate, 262) + sine(rate, 330) + sine(rate, 392)) / 3,
    "a buzzer": lambda rate: 0.3 * np.sign(sine(rate, 200) - 0.01),
    "hum": lambda rate: sine(rate, 50) + 0.3 * sine(rate, 100) + 0.001 * white_noise(rate),
}
