"""Measure what lies between two voices: utterances in pairs, with silence and tones between, and alone.

    python tools/bench/pairs.py data/english/dev-report.jsonl --pairs 60

Each recording is one utterance, five seconds with keypad tones in their middle, and another utterance that is
20 dB fainter. It prints both word error rates; exit status 1 means that pairs have more than a point more.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import click
import numpy as np

from asr.audio.arrays import to_wav
from asr.audio.reading import read_audio
from asr.data.manifest import read_manifest
from asr.recognition.recognizer import open_recognizer
from asr.scoring.counts import ErrorCounts, compare_texts
from asr.text.tokenizer import NORMALISERS

MOST_POINTS = 1.0
BETWEEN_SECONDS = 5.0
FAINTER_DB = 20.0
KEYS = [(697, 1209), (770, 1336), (852, 1477), (941, 1336), (697, 1477)]  # hertz, ITU-T Q.23


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--model", default="english", help="A model folder, or the name of a shipped model.")
@click.option("--pairs", default=60, type=click.IntRange(1), help="How many.")
@click.option("--seed", default=7, help="Draws the utterances.")
@click.option("--threads", default=1, type=click.IntRange(1))
def main(manifest: Path, model: str, pairs: int, seed: int, threads: int) -> None:
    """Compare the word error rates of MANIFEST's utterances in pairs and alone."""
    recognizer = open_recognizer(model, "cpu", threads=threads)
    rate = recognizer.sample_rate
    normalise = NORMALISERS[recognizer.text.normaliser]
    utterances = read_manifest(manifest)
    chosen = random.Random(seed).sample(utterances, min(2 * pairs, len(utterances) // 2 * 2))
    samples = {u.id: read_audio(u.audio, rate, u.start, u.duration) for u in chosen}
    texts = {u.id: normalise(u.text) for u in chosen}

    def transcribe(recordings: dict[str, np.ndarray]) -> dict[str, str]:
        transcripts = recognizer.transcribe_all([to_wav(array, rate) for array in recordings.values()])
        return {name: transcript.text for name, transcript in zip(recordings, transcripts, strict=True)}

    names = [(first.id, second.id) for first, second in zip(chosen[::2], chosen[1::2], strict=True)]
    between, fainter = make_tones(rate), 10 ** (-FAINTER_DB / 20)
    joined = {
        first: np.concatenate([samples[first], between, fainter * samples[second]]) for first, second in names
    }
    alone = print_errors("alone", compare_texts(texts, transcribe(samples)).words)
    together = {first: f"{texts[first]} {texts[second]}" for first, second in names}
    paired = print_errors("in pairs", compare_texts(together, transcribe(joined)).words)
    points = 100 * (paired - alone)
    print(f"{points:+.2f} points; at most {MOST_POINTS} are allowed")
    sys.exit(points > MOST_POINTS)


def make_tones(rate: int) -> np.ndarray:
    """Silence with keypad tones in its middle."""
    samples = np.zeros(round(BETWEEN_SECONDS * rate), np.float32)
    times = np.arange(round(0.12 * rate)) / rate
    for number in range(10):
        low, high = KEYS[number % len(KEYS)]
        begin = round((1.5 + 0.2 * number) * rate)
        samples[begin : begin + len(times)] = 0.2 * (
            np.sin(2 * np.pi * low * times) + np.sin(2 * np.pi * high * times)
        )
    return samples


def print_errors(name: str, score: ErrorCounts) -> float:
    """Print an error rate and what it is made of; return it."""
    print(
        f"{name}: WER {100 * score.error_rate:.2f} %; {score.substitutions} substitutions, "
        f"{score.deletions} deletions, {score.insertions} insertions, {score.reference_length} words",
        flush=True,
    )
    return score.error_rate


if __name__ == "__main__":
    main()
