"""The Free Spoken Digit Dataset, and strings of digits made from it.

``recordings/{digit}_{speaker}_{n}.wav``, 8 kHz. The official test split is n = 0 to 4; n = 5 to 9
are dev, the rest is train.

The corpus holds single digits only. The splits that end in ``-connected`` are strings of one to
seven digits, each made from recordings of one speaker in one split. The splits below
``without-{speaker}/`` measure how well a model does on a speaker that it was not trained on.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import RandomState

from asr.audio.reading import read_audio
from asr.data.corpora.recordings import CorpusError, is_recording
from asr.data.manifest import Utterance

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE = 8000

STRINGS_PER_SPEAKER = {"train": 400, "dev": 50, "test": 100}
LONGEST_STRING = 7
EDGE_SECONDS = (0.1, 0.4)
PAUSE_SECONDS = (0.0, 0.5)
GAIN_DB = (-6.0, 6.0)
NOISE_DBFS = (-70.0, -50.0)
PEAK = 0.95  # no gain takes a recording beyond this; the rest is room for the noise


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """Single digits, connected digits (rendered below ``out/connected``), and both without each speaker."""
    single = _find_single_digits(corpus)
    connected = {
        f"{split}-connected": _make_connected_digits(split, recordings, out / "connected" / split)
        for split, recordings in single.items()
    }
    splits = single | connected
    speakers = sorted({utterance.speaker for utterances in single.values() for utterance in utterances})
    return splits | {
        name: split for speaker in speakers for name, split in _hold_out(speaker, splits).items()
    }


def _find_single_digits(corpus: Path) -> dict[str, list[Utterance]]:
    splits: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    # Sorted by stem, so that neither the order of the listing nor the endings change the result.
    for path in sorted(filter(is_recording, corpus.glob("recordings/*")), key=lambda path: path.stem):
        name = re.fullmatch(r"(?P<digit>[0-9])_(?P<speaker>.+)_(?P<n>[0-9]+)", path.stem)
        if name is None:
            raise CorpusError(f"{path}: is not named {{digit}}_{{speaker}}_{{n}}")
        split = "test" if int(name["n"]) < 5 else "dev" if int(name["n"]) < 10 else "train"
        text = DIGITS[int(name["digit"])]
        splits[split].append(Utterance(path.stem, str(path), text=text, speaker=name["speaker"]))
    if not any(splits.values()):
        raise CorpusError(
            f"{corpus}: is not the Free Spoken Digit Dataset: "
            "expected recordings/{digit}_{speaker}_{n}.wav (or another audio ending)"
        )
    return splits


def _hold_out(speaker: str, splits: dict[str, list[Utterance]]) -> dict[str, list[Utterance]]:
    """Train and dev of all other speakers; every recording of ``speaker`` is test."""
    own = {split: [u for u in utterances if u.speaker == speaker] for split, utterances in splits.items()}
    others = {split: [u for u in utterances if u.speaker != speaker] for split, utterances in splits.items()}
    chosen = {split: others[split] for split in ("train", "train-connected", "dev", "dev-connected")}
    chosen["test"] = own["train"] + own["dev"] + own["test"]
    chosen["test-connected"] = own["test-connected"]
    return {f"without-{speaker}/{split}": utterances for split, utterances in chosen.items()}


def _make_connected_digits(split: str, recordings: list[Utterance], folder: Path) -> list[Utterance]:
    folder.mkdir(parents=True, exist_ok=True)
    return [
        string
        for speaker in sorted({recording.speaker for recording in recordings})
        for string in _make_strings(split, speaker, [r for r in recordings if r.speaker == speaker], folder)
    ]


def _make_strings(split: str, speaker: str, recordings: list[Utterance], folder: Path) -> Iterator[Utterance]:
    """Render the strings of one speaker, the same ones whenever and wherever this runs."""
    # RandomState: numpy promises that its stream never changes. crc32: hash() differs between runs.
    random = RandomState(zlib.crc32(f"{split} {speaker}".encode()))
    samples = {recording.id: read_audio(recording.audio, RATE) for recording in recordings}
    deck = _shuffle_forever(recordings, random)
    count = STRINGS_PER_SPEAKER[split]
    lengths = random.permutation([1 + i % LONGEST_STRING for i in range(count)])
    for number, length in enumerate(lengths):
        digits = list(islice(deck, length))
        name = f"{split}-{speaker}-{number:03d}"
        audio = folder / f"{name}.flac"
        string = _render([samples[digit.id] for digit in digits], random)
        soundfile.write(audio, np.round(string * 32767).astype(np.int16), RATE)
        yield Utterance(
            id=name,
            audio=str(audio),
            duration=len(string) / RATE,
            text=" ".join(digit.text for digit in digits),
            speaker=speaker,
            extra={"digits": [digit.id for digit in digits]},
        )


def _shuffle_forever(recordings: list[Utterance], random: RandomState) -> Iterator[Utterance]:
    """Every recording once in random order, then every one again: all are used equally often."""
    while True:
        yield from (recordings[i] for i in random.permutation(len(recordings)))


def _render(digits: list[np.ndarray], random: RandomState) -> np.ndarray:
    """The digits one after the other, at random levels, with random pauses, on a bed of noise."""
    parts = [_make_silence(EDGE_SECONDS, random)]
    for digit in digits:
        gain = _to_ratio(random.uniform(*GAIN_DB))
        loudest = max(float(np.abs(digit).max(initial=0.0)), 1e-6)
        parts += [digit * min(gain, PEAK / loudest), _make_silence(PAUSE_SECONDS, random)]
    parts[-1] = _make_silence(EDGE_SECONDS, random)
    string = np.concatenate(parts)
    return string + _to_ratio(random.uniform(*NOISE_DBFS)) * random.standard_normal(len(string))


def _make_silence(seconds: tuple[float, float], random: RandomState) -> np.ndarray:
    return np.zeros(round(random.uniform(*seconds) * RATE))


def _to_ratio(decibels: float) -> float:
    return 10.0 ** (decibels / 20.0)
