#!/usr/bin/env python3
"""Turn the corpora of the English recipe into one set of manifests.

    python recipes/english/prepare.py CORPORA_DIR --out data/english

CORPORA_DIR holds LibriSpeech, CommonVoice-v1, speechocean762, dataset-voice-kathleen and LJSpeech-1.1,
each laid out as it is published; what is missing is left out with a warning, so that a person with
LibriSpeech alone can begin. Writes, texts in `letters-v1`:

- `train.jsonl`, and its random subsets `train-2h.jsonl` and `train-5h.jsonl` for a learning curve;
- `dev-tune.jsonl` and `dev-report.jsonl` (LibriSpeech dev-clean, by speaker), `cv-dev.jsonl` (by
  sentence), `speechocean-dev.jsonl` (by speaker): none of their recordings or sentences is trained on;
- `train.txt`: the training sentences, each once, for the language model;
- `left-out.jsonl`: the training clips whose length and text cannot belong together, with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from asr.core.files import write_text
from asr.data import corpora
from asr.data.corpora.recordings import CorpusError
from asr.data.manifest import Utterance, write_manifest
from asr.text.normalise import normalise_letters

TUNE_SPEAKERS = {"1272", "1462", "1673", "174", "1919"}
REPORT_SPEAKERS = {"1988", "1993", "2035", "2078", "2086"}

# Characters a second: people read at 8 to 20. Beyond these bounds a clip was cut off, holds another
# text or is mostly silence; a single word may stand in a few seconds of it.
SLOWEST, FASTEST = 4.0, 26.0
SILENCE_SECONDS = 4.0
LONGEST_SECONDS = 25.0  # a few clips this long would set the length of a whole batch
SUBSET_HOURS = (2, 5)


def librispeech(splits: dict[str, list[Utterance]]) -> dict[str, list[Utterance]]:
    """The training sets there are, and dev-clean in its two halves."""
    sets = {"train": [u for name, part in splits.items() if name.startswith("train") for u in part]}
    dev = splits.get("dev-clean", [])
    return sets | {
        "dev-tune": [u for u in dev if u.speaker in TUNE_SPEAKERS],
        "dev-report": [u for u in dev if u.speaker in REPORT_SPEAKERS],
    }


def commonvoice(splits: dict[str, list[Utterance]]) -> dict[str, list[Utterance]]:
    """By sentence, because one sentence is read by several people."""
    everything = [u for part in splits.values() for u in part]
    held_out = {u.text for u in everything if hashlib.sha1(u.text.encode()).hexdigest()[0] == "0"}
    return {
        "train": [u for u in everything if u.text not in held_out],
        "cv-dev": [u for u in everything if u.text in held_out],
    }


def speechocean(splits: dict[str, list[Utterance]]) -> dict[str, list[Utterance]]:
    """By speaker."""
    everything = [u for part in splits.values() for u in part]
    return {
        "train": [u for u in everything if not u.speaker.endswith("0")],
        "speechocean-dev": [u for u in everything if u.speaker.endswith("0")],
    }


def one_speaker(name: str) -> Callable[[dict[str, list[Utterance]]], dict[str, list[Utterance]]]:
    """All of a corpus by one reader, whom the corpus itself may not name."""
    return lambda splits: {"train": [replace(u, speaker=name) for part in splits.values() for u in part]}


# Folder below CORPORA_DIR, its layout, and what its splits are used for.
SOURCES: list[tuple[str, str, Callable[[dict[str, list[Utterance]]], dict[str, list[Utterance]]]]] = [
    ("LibriSpeech", "librispeech", librispeech),
    ("CommonVoice-v1", "commonvoice", commonvoice),
    ("speechocean762", "kaldi", speechocean),
    ("dataset-voice-kathleen", "folder", one_speaker("kathleen")),
    ("LJSpeech-1.1", "ljspeech", one_speaker("linda")),
]


def all_sets(corpora_folder: Path, out: Path) -> dict[str, list[Utterance]]:
    """The utterances of every set, ids unique across corpora, texts in ``letters-v1``."""
    sets: dict[str, list[Utterance]] = {}
    for folder, layout, use in SOURCES:
        try:
            splits = corpora.prepare(layout, corpora_folder / folder, out)
        except CorpusError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        texts = {
            name: [
                replace(u, id=f"{folder}/{u.id}", text=normalise_letters(u.text), extra=kept(u)) for u in part
            ]
            for name, part in splits.items()
        }
        for name, part in use(texts).items():
            sets.setdefault(name, []).extend(part)
    if not sets.get("train"):
        sys.exit(f"{corpora_folder}: holds none of the corpora {', '.join(name for name, _, _ in SOURCES)}")
    return sets


def kept(utterance: Utterance) -> dict[str, object]:
    """What else a line says; where the letters lost something, also the text as it was."""
    lost = re.search(r"\d", utterance.text)
    return dict(utterance.extra) | ({"original_text": utterance.text} if lost else {})


def fault(utterance: Utterance) -> str:
    """Why an utterance cannot be trained on; empty when it can."""
    seconds = utterance.duration or 0.0
    letters_spoken = len(utterance.text)
    if "original_text" in utterance.extra:
        return "the text has figures, whose words are not known"
    if not utterance.text:
        return "the text is empty"
    if seconds > LONGEST_SECONDS:
        return f"lasts {seconds:.1f} s"
    if not letters_spoken / FASTEST <= seconds <= letters_spoken / SLOWEST + SILENCE_SECONDS:
        return f"{letters_spoken} characters in {seconds:.1f} s"
    return ""


def subset(utterances: list[Utterance], hours: float) -> list[Utterance]:
    """Utterances drawn at random until they last ``hours``, in their own order."""
    order = np.random.default_rng(1).permutation(len(utterances))
    ends = np.cumsum([utterances[i].duration or 0.0 for i in order])
    chosen = sorted(order[: int(np.searchsorted(ends, 3600 * hours)) + 1])
    return [utterances[i] for i in chosen]


def hours_of(utterances: Iterable[Utterance]) -> float:
    """Hours of audio."""
    return sum(u.duration or 0.0 for u in utterances) / 3600


def main() -> None:
    """Read the corpora and write the manifests."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpora", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sets = all_sets(arguments.corpora, arguments.out)
    faults = {u.id: fault(u) for u in sets["train"]}
    left_out = [
        replace(u, extra=dict(u.extra) | {"reason": faults[u.id]}) for u in sets["train"] if faults[u.id]
    ]
    sets["train"] = [u for u in sets["train"] if not faults[u.id]]
    sets |= {f"train-{hours}h": subset(sets["train"], hours) for hours in SUBSET_HOURS}
    sets["left-out"] = left_out
    for name, utterances in sets.items():
        write_manifest(arguments.out / f"{name}.jsonl", utterances)
        print(f"{name}: {len(utterances)} utterances, {hours_of(utterances):.2f} hours")
    sentences = dict.fromkeys(u.text for u in sets["train"])
    write_text(arguments.out / "train.txt", "".join(f"{sentence}\n" for sentence in sentences))


if __name__ == "__main__":
    main()
