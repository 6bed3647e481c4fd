#!/usr/bin/env python3
"""Measure how well confidences tell a recording's own text from another one; `asr align` warns by them.

    python tools/wrong_texts.py MANIFEST [--model english] [--recordings 40]

Recordings drawn from a manifest are aligned with their own texts and with those of others. It prints how
many texts have a median word confidence below `UNLIKELY`; texts too long for the recording are not counted.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import median

from asr.cli.align import UNLIKELY
from asr.data.manifest import read_manifest
from asr.pretrained import DEFAULT_MODEL
from asr.recognition.recognizer import Recognizer, open_recognizer
from asr.search.alignment import AlignmentError


def measure_confidence(recognizer: Recognizer, audio: str, text: str) -> float | None:
    """Measure the median confidence of the words of ``text`` in a recording; ``None`` for too long a text."""
    try:
        return median(word.word.confidence for word in recognizer.align(audio, text).words)
    except AlignmentError:
        return None


def main() -> None:
    """Read the command line, align, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--recordings", type=int, default=40)
    given = parser.parse_args()
    recognizer = open_recognizer(given.model, "cpu", lm="none", beam_size=1, engine="torch")
    utterances = list(read_manifest(given.manifest))
    random.Random(1).shuffle(utterances)
    ours, others = utterances[: given.recordings], utterances[given.recordings :][: given.recordings]
    pairs = list(zip(ours, others, strict=True))
    for name, texts in (("right", [u.text for u, _ in pairs]), ("wrong", [v.text for _, v in pairs])):
        found = [
            measure_confidence(recognizer, u.audio, text) for (u, _), text in zip(pairs, texts, strict=True)
        ]
        sure = [value for value in found if value is not None]
        below = sum(value < UNLIKELY for value in sure)
        print(f"{name} texts: {below} of {len(sure)} below {UNLIKELY}, median {median(sure):.3f}")


if __name__ == "__main__":
    main()
