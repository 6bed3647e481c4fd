#!/usr/bin/env python3
"""Put a run's selected weights into the package, or into a model folder elsewhere.

    python tools/release.py exp/fsdd digits
    python tools/release.py exp/english english --int8 --pack --lexicon words.txt --lm words.bin
    python tools/release.py exp/english exp/english-words --lexicon words.txt --lm words.bin

Writes `asr/pretrained/NAME`, or the folder, `model.onnx` included, except two files: `search.toml`, which
`asr tune MANIFEST --model asr/pretrained/NAME` writes, and `card.md`, which a person writes: what the model
is good and bad at, what it was trained on and under which licence, and how it was measured.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from asr.core.files import replace_file
from asr.model.folder import load_acoustic_model, save_weights
from asr.pretrained import CONFIG_FILE, SHIPPED
from asr.recognition.folder import LANGUAGE_MODEL_FILE
from asr.recognition.model_files import write_checksums
from asr.text.lexicon import read_lexicon
from asr.text.tokenizer import (
    LEXICON_FILE,
    PACKED_LEXICON_FILE,
    Tokenizer,
    load_tokenizer,
    save_tokenizer,
)
from asr.training.export import export_folder


def replace_lexicon(tokenizer: Tokenizer, path: Path) -> Tokenizer:
    """Replace a tokenizer's lexicon by another one of the same phones."""
    lexicon = read_lexicon(path)
    if lexicon.phones != tokenizer.symbols[1:]:
        raise SystemExit(f"{path}: has phones that differ from the model's")
    return replace(tokenizer, lexicon=lexicon)


def pack_lexicon(folder: Path) -> None:
    """Compress a folder's lexicon; the same text always makes the same bytes."""
    text = folder / LEXICON_FILE
    with replace_file(folder / PACKED_LEXICON_FILE) as temporary:
        temporary.write_bytes(gzip.compress(text.read_bytes(), 9, mtime=0))
    text.unlink()


def main() -> None:
    """Write the folder of a shipped model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name", help="of a shipped model; with a slash in it, the folder to write")
    parser.add_argument("--int8", action="store_true", help="matrices in 8 bits instead of 16")
    parser.add_argument("--lexicon", type=Path, help="the words to find, instead of those trained on")
    parser.add_argument("--pack", action="store_true", help="the lexicon by gzip, a quarter of its size")
    parser.add_argument("--lm", type=Path, help="a language model to ship along")
    options = parser.parse_args()

    model, tokenizer = load_acoustic_model(options.run), load_tokenizer(options.run)
    if options.lexicon is not None:
        tokenizer = replace_lexicon(tokenizer, options.lexicon)
    folder = Path(options.name) if "/" in options.name else SHIPPED / options.name
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder)
    if options.pack:
        pack_lexicon(folder)
    save_weights(model, folder, torch.int8 if options.int8 else torch.float16)
    shutil.copy(options.run / CONFIG_FILE, folder / CONFIG_FILE)
    if model.config.features.kind != "states":  # whose encoder no file of ONNX holds
        export_folder(folder, options.int8)
    if options.lm is not None:
        shutil.copy(options.lm, folder / LANGUAGE_MODEL_FILE)
    write_checksums(folder)
    print(folder)


if __name__ == "__main__":
    main()
