#!/usr/bin/env python3
"""Compare the shipped model with Whisper and PocketSphinx on the same files: time, memory and wrong words.

    python tools/bench/side_by_side.py MANIFEST --limit 50 [--sphinx PYTHON] [--whisper PYTHON MODEL]

The recordings of MANIFEST become WAV files, 16 kHz, 16 bit. Each program reads all of them in one process of
one thread, libraries and models loaded: the processor time, the user's and the system's, and the highest
memory of that process. Ours runs twice, with and without rescoring. References and texts are brought to one
form, english-v1, which writes numbers as figures, and errors are counted by asr.scoring.counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr.core.provenance import find_processor, find_source_commit
from asr.data.manifest import Utterance, read_manifest
from asr.scoring.counts import compare_texts
from asr.text.english import normalise_english

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.bench.transcribe import run_programs, write_files

HERE = Path(__file__).parent


def list_sides(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    """List the command of each program."""
    ours = [sys.executable, "-m", "asr", "transcribe", "--device", "cpu", "--threads", "1", str(folder)]
    sides = {"asr": ours, "asr without rescoring": [*ours, "--rescore", "none"]}
    if options.whisper:
        sides["whisper"] = [options.whisper[0], str(HERE / "whisper.py"), options.whisper[1]]
    if options.sphinx:
        sides["pocketsphinx"] = [options.sphinx, str(HERE / "sphinx.py")]
    return sides


def measure_side(
    command: Sequence[str], paths: Sequence[Path], utterances: Sequence[Utterance], audio: float
) -> dict[str, Any]:
    """Run a program over all files and count the words that it got wrong."""
    done = run_programs(command, inputs=["".join(f"{path}\n" for path in paths)], threads=1)
    lines = done.output.splitlines()
    if len(lines) != len(paths):
        sys.exit(f"{command[0]} answered for {len(lines)} of {len(paths)} files")
    texts = [json.loads(line)["text"] if line[0] == "{" else line.partition("\t")[2] for line in lines]
    counts = compare_texts(
        {one.id: normalise_english(one.text) for one in utterances},
        {one.id: normalise_english(text) for one, text in zip(utterances, texts, strict=True)},
    ).words
    return {
        "processor_seconds": round(done.processor, 2),
        "times_real_time": round(audio / done.processor, 1),
        "megabytes": round(done.megabytes),
        "wer_percent": round(100 * counts.error_rate, 2),
        "wrong_words": counts.errors,
        "words": counts.reference_length,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--limit", type=int, help="only so many utterances, evenly drawn")
    parser.add_argument("--sphinx", metavar="PYTHON", help="of an environment that has pocketsphinx")
    parser.add_argument("--whisper", nargs=2, metavar=("PYTHON", "MODEL"), help="one that has faster-whisper")
    options = parser.parse_args()
    utterances = read_manifest(options.manifest)
    if options.limit:
        utterances = utterances[:: max(1, len(utterances) // options.limit)][: options.limit]
    result: dict[str, Any] = {
        "hardware": f"{find_processor()}, {os.cpu_count()} cores",
        "commit": find_source_commit(),
        "manifest": options.manifest.name,
        "files": len(utterances),
    }
    with tempfile.TemporaryDirectory() as temporary:
        paths, audio = write_files(utterances, Path(temporary))
        result["seconds"] = round(audio, 1)
        for name, command in list_sides(options, Path(temporary)).items():
            result[name] = measure_side(command, paths, utterances, audio)
            print(name, result[name], file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
