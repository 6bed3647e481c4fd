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


def add_sounds(rate: int, sounds: list[tuple[float, np.ndarray]]) -> np.ndarray:
    """Sounds, each from its second on."""
    samples = np.zeros(rate * UNSPOKEN_SECONDS)
    for second, sound in sounds:
        begin = int(second * rate)
        samples[begin : begin + len(sound)] += sound[: len(samples) - begin]
    return 0.5 * samples / np.abs(samples).max()


def ring(rate: int, hertz: float, seconds: float, decay: float, harmonics: int = 10) -> np.ndarray:
    """A note that is struck and dies away."""
    times = np.arange(int(rate * seconds)) / rate
    waves = [
        np.sin(2 * np.pi * hertz * number * times) / number**1.2
        for number in range(1, harmonics + 1)
        if hertz * number < 0.45 * rate
    ]
    return sum(waves) * np.minimum(times / 0.005, 1) * np.exp(-times / decay)


def play_piano(rate: int) -> np.ndarray:
    generator = np.random.default_rng(4)
    notes = generator.choice([262, 294, 330, 349, 392, 440, 494, 523], 34)
    melody = [(0.35 * number, ring(rate, note, 0.9, 0.4)) for number, note in enumerate(notes)]
    chords = [(1.4 * number, ring(rate, note, 1.6, 0.7)) for number in range(8) for note in (131, 165, 196)]
    return add_sounds(rate, melody + chords)


def play_organ(rate: int) -> np.ndarray:
    """Chords that change every second and a half."""
    times = np.arange(int(1.5 * rate)) / rate
    rise = np.minimum(1, np.minimum(times / 0.03, (1.5 - times) / 0.05))
    chords = [(262, 330, 392), (220, 262, 330), (175, 220, 262), (196, 247, 294)]
    waves = [
        (1.5 * number, rise * np.sin(2 * np.pi * note * harmonic * times) / harmonic)
        for number in range(8)
        for note in chords[number % 4]
        for harmonic in (1, 2, 3, 4, 6, 8)
    ]
    return add_sounds(rate, waves)


def press_keys(rate: int) -> np.ndarray:
    """Tones of a telephone's keypad (ITU-T Q.23), pressed fast."""
    generator = np.random.default_rng(4)
    times = np.arange(int(0.12 * rate)) / rate
    keys = zip(
        generator.choice([697, 770, 852, 941], 59), generator.choice([1209, 1336, 1477], 59), strict=True
    )
    return add_sounds(
        rate,
        [
            (0.2 * number, np.sin(2 * np.pi * low * times) + np.sin(2 * np.pi * high * times))
            for number, (low, high) in enumerate(keys)
        ],
    )


def beat_drums(rate: int) -> np.ndarray:
    """A bass drum, a snare and a hi-hat, two beats a second."""
    generator = np.random.default_rng(4)
    times = np.arange(int(0.3 * rate)) / rate
    bass = np.sin(2 * np.pi * np.cumsum(50 + 80 * np.exp(-times / 0.03)) / rate) * np.exp(-times / 0.12)
    snare = 0.6 * generator.standard_normal(len(times)) + 0.4 * np.sin(2 * np.pi * 190 * times)
    hat = 0.2 * np.diff(generator.standard_normal(len(times)), prepend=0)
    beats = [bass, hat * np.exp(-times / 0.02), snare * np.exp(-times / 0.05), hat * np.exp(-times / 0.02)]
    return add_sounds(rate, [(0.25 * number, beats[number % 4]) for number in range(47)])


def sound_alarm(rate: int, period: float) -> np.ndarray:
    """A siren that sweeps from 600 to 1500 Hz and back every ``period`` seconds."""
    times = np.arange(rate * UNSPOKEN_SECONDS) / rate
    phase = 2 * np.pi * np.cumsum(600 * 2.5 ** (0.5 - 0.5 * np.cos(2 * np.pi * times / period))) / rate
    waves = sum(np.sin(number * phase) / number for number in (1, 2, 3) if 1500 * number < 0.45 * rate)
    return 0.2 * waves + 1e-4 * white_noise(rate)


def applaud(rate: int, people: int = 40) -> np.ndarray:
    """Each claps four times a second, more or less, and each hand has a sound of its own."""
    generator = np.random.default_rng(5)
    times = np.arange(int(0.15 * rate)) / rate
    hertz = np.fft.rfftfreq(2 * len(times), 1 / rate)
    claps = []
    for _ in range(people):
        middle, second = generator.uniform(800, 3000), generator.uniform(0, 0.25)
        while second < UNSPOKEN_SECONDS - 0.2:
            noise = np.fft.rfft(generator.standard_normal(len(times)), 2 * len(times))
            sound = np.fft.irfft(noise * (0.1 + 1 / (1 + ((hertz - middle) / (0.4 * middle)) ** 2)))
            claps.append((second, sound[: len(times)] * np.exp(-times / 0.02)))
            second += 0.25 * max(0.2, 1 + 0.15 * generator.standard_normal())
    return add_sounds(rate, claps)


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
    "a piano": play_piano,
    "an organ": play_organ,
    "keypad tones": press_keys,
    "drums": beat_drums,
    "a line that is busy": lambda rate: (sine(rate, 480) + sine(rate, 620)) * alternate(rate, 0.5) / 2,
    "a siren": lambda rate: sound_alarm(rate, 4.0),
    "a siren that yelps": lambda rate: sound_alarm(rate, UNSPOKEN_SECONDS / 39),
    "an alarm": lambda rate: sound_alarm(rate, UNSPOKEN_SECONDS / 55),
    "hum": lambda rate: sine(rate, 50) + 0.3 * sine(rate, 100) + 0.001 * white_noise(rate),
}
