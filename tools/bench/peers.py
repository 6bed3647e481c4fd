#!/usr/bin/env python3
"""Measure the word error rate of PocketSphinx 5, with its own model, on the recordings of a manifest.

    python -m venv /tmp/peers && /tmp/peers/bin/pip install pocketsphinx
    python tools/bench/peers.py data/english/cv-dev.jsonl --python /tmp/peers/bin/python > RESULT.json

Prints what `asr evaluate --json` prints, so that one table can have both: references and hypotheses in
letters-v1, errors counted by asr.scoring.counts. Recordings are read and resampled by this project and passed
as 16-bit WAV; the times do not include reading.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tqdm import tqdm

from asr.audio.reading import read_audio
from asr.cli._json import comparison_to_json, intervals_to_json
from asr.core.provenance import make_provenance
from asr.data.manifest import Utterance, read_manifest
from asr.model.precision import describe_device
from asr.scoring.counts import compare_texts
from asr.scoring.systems import compute_intervals, list_speakers
from asr.text.normalise import normalise_letters

RATE = 16000
SIDE = Path(__file__).with_name("sphinx.py")


def ask_peer(python: str, utterances: Sequence[Utterance]) -> Iterator[dict[str, Any]]:
    """Yield PocketSphinx's answer to each utterance."""
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "utterance.wav"
        with subprocess.Popen(
            [python, str(SIDE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as peer:
            assert peer.stdin is not None and peer.stdout is not None
            for utterance in utterances:
                samples = read_audio(utterance.audio, RATE, utterance.start, utterance.duration)
                soundfile.write(wav, np.clip(samples, -1, 1), RATE, subtype="PCM_16")
                peer.stdin.write(f"{wav}\n")
                peer.stdin.flush()
                line = peer.stdout.readline()
                if not line:
                    sys.exit(f"{python}: stopped at utterance {utterance.id}; does it have pocketsphinx?")
                yield json.loads(line) | {"audio": len(samples) / RATE}
            peer.stdin.close()


def get_version(python: str) -> str:
    """Get the version of PocketSphinx."""
    asked = "import importlib.metadata as m; print(m.version('pocketsphinx'))"
    return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Decode, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--python", required=True, help="of an environment that has pocketsphinx")
    options = parser.parse_args()
    utterances = read_manifest(options.manifest)
    found = list(tqdm(ask_peer(options.python, utterances), total=len(utterances), disable=None))
    comparison = compare_texts(
        {u.id: normalise_letters(u.text) for u in utterances},
        {u.id: normalise_letters(answer["text"]) for u, answer in zip(utterances, found, strict=True)},
    )
    audio = sum(answer["audio"] for answer in found)
    made = {
        "manifest": str(options.manifest),
        "model": f"PocketSphinx {get_version(options.python)}, its own English model",
        "unit": "words",
        "search": "its own",
        "normaliser": "letters-v1",
        **comparison_to_json(comparison),
        "intervals": intervals_to_json(compute_intervals(comparison, list_speakers(utterances))),
        "hours": round(audio / 3600, 4),
        "rtf": round(sum(answer["seconds"] for answer in found) / audio, 6),
        "parameters": None,
        "seed": None,
        **make_provenance(describe_device(torch.device("cpu")), torch=torch.__version__),
        "command": f"python tools/bench/peers.py {options.manifest} --python PYTHON",
    }
    print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
