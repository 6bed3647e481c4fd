#!/usr/bin/env python3
"""Run a peer of tools/bench/decode.py, with the Python of the environment that has the peers.

    python decode_peers.py pyctcdecode|flashlight FOLDER < tasks.jsonl

FOLDER has ``task.npz`` (log_probs, lengths, symbols), ``lm.arpa`` or ``lm.binary``, ``words.txt``, and
``spellings.txt``, words with the symbols that they are made of, a line for each spelling.
Each line of stdin asks for one pass, ``{"rows": [...], "beam": N, "lm_weight": W, "word_bonus": B}``; each
line of stdout answers with the texts, milliseconds per utterance, and megabytes since the imports.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    task = np.load(folder / "task.npz")
    symbols = [str(symbol) for symbol in task["symbols"]]
    log_probs = task["log_probs"].astype(np.float32)
    ends = np.cumsum(task["lengths"])
    arrays = [log_probs[end - length : end] for end, length in zip(ends, task["lengths"], strict=True)]
    binary = folder / "lm.binary"
    lm = str(binary if binary.exists() else folder / "lm.arpa")
    words = (folder / "words.txt").read_text().split()
    decoders = {"pyctcdecode": serve_pyctcdecode, "flashlight": serve_flashlight}
    decoders[name](symbols, lm, words, folder, arrays)


def measure_megabytes() -> float:
    """Measure the resident memory of this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) * 1024 / 1e6


def answer_all(decode: Callable[[Any], Callable[[Any], str]], arrays: list[Any], before: float) -> None:
    """Do every pass that stdin asks for, and print its result."""
    for line in sys.stdin:
        asked = json.loads(line)
        one = decode(asked)
        one(arrays[asked["rows"][0]])
        started = time.perf_counter()
        texts = [one(arrays[row]) for row in asked["rows"]]
        each = 1000 * (time.perf_counter() - started) / len(texts)
        print(json.dumps({"texts": texts, "ms": each, "mb": measure_megabytes() - before}), flush=True)


def serve_pyctcdecode(symbols: list[str], lm: str, words: list[str], folder: Path, arrays: list[Any]) -> None:
    from pyctcdecode import build_ctcdecoder

    before = measure_megabytes()
    decoder = build_ctcdecoder(["", *symbols[1:]], lm, words)

    def decode(asked: Any) -> Callable[[Any], str]:
        decoder.reset_params(alpha=asked["lm_weight"], beta=asked["word_bonus"])
        return lambda array: decoder.decode(array, beam_width=asked["beam"])

    answer_all(decode, arrays, before)


def serve_flashlight(symbols: list[str], lm: str, words: list[str], folder: Path, arrays: list[Any]) -> None:
    import torch
    from torchaudio.models.decoder import ctc_decoder

    torch.set_num_threads(1)
    before = measure_megabytes()
    tokens = ["|" if symbol == " " else symbol for symbol in symbols]
    tokens[0] = "-"
    if "|" not in tokens:  # phones, pieces: the decoder requires it, but it never occurs
        tokens.append("|")
        arrays = [np.pad(array, ((0, 0), (0, 1)), constant_values=-1e3) for array in arrays]

    def decode(asked: Any) -> Callable[[Any], str]:
        decoder = ctc_decoder(
            lexicon=str(folder / "spellings.txt"), tokens=tokens, lm=lm, beam_size=asked["beam"],
            beam_threshold=15, lm_weight=asked["lm_weight"], word_score=asked["word_bonus"],
            blank_token="-", sil_token="|",
        )  # fmt: skip
        return lambda array: " ".join(decoder(torch.from_numpy(array)[None])[0][0].words)

    answer_all(decode, arrays, before)


if __name__ == "__main__":
    main()
