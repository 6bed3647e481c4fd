#!/usr/bin/env python3
"""How many words change when a recording begins a little later, which should be none.

    python tools/shifts.py MANIFEST [--model english] [--milliseconds 5 15 25 35 45]

Each recording is transcribed as it is and again with so much silence in front. Printed for each is the word
error rate of the second against the first, which then stands for the reference, and their mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from asr.data.manifest import Utterance, read_manifest
from asr.pretrained import DEFAULT_MODEL
from asr.recognition.recognizer import Recognizer, open_recognizer
from asr.scoring.counts import compare_texts
from asr.training.evaluation import evaluate
from asr.training.examples import Reader, evaluation_examples, new_sample_reader

BATCH_SECONDS = 120.0


def texts_after(
    recognizer: Recognizer, utterances: list[Utterance], silence: int, read: Reader
) -> dict[str, str]:
    """What is heard in each utterance with so many samples of silence in front, by id."""

    def later(utterance: Utterance) -> np.ndarray:
        return np.concatenate([np.zeros(silence, np.float32), read(utterance)])

    examples = evaluation_examples(utterances, recognizer.tokenizer, recognizer.text)
    found = evaluate(recognizer, examples, later, BATCH_SECONDS).hypotheses
    return {name: hypothesis.text for name, hypothesis in found.items()}


def main() -> None:
    """Read the command line, transcribe, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[5, 15, 25, 35, 45])
    given = parser.parse_args()
    recognizer = open_recognizer(given.model, "cpu", engine="torch")
    utterances = read_manifest(given.manifest)
    read = new_sample_reader(recognizer.sample_rate, keep=False)
    first = texts_after(recognizer, utterances, 0, read)
    rates = []
    for milliseconds in given.milliseconds:
        silence = round(recognizer.sample_rate * milliseconds / 1000)
        again = texts_after(recognizer, utterances, silence, read)
        changed = compare_texts(first, again).rates["wer"]
        assert changed is not None, "no words to compare"
        rates.append(100 * changed)
        print(f"{milliseconds:g} ms: {rates[-1]:.1f} % of the words change")
    print(f"on average: {sum(rates) / len(rates):.1f} %")


if __name__ == "__main__":
    main()
