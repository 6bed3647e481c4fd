"""Model folders in which one file or two are changed, missing, or no file at all."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr.lm.arpa import read_arpa
from asr.lm.storage import save_model
from asr.model.acoustic import ModelConfig, new_acoustic_model
from asr.model.encoders import EncoderConfig
from asr.model.features import FeatureConfig
from asr.model.folder import save_config, save_weights
from asr.recognition.model_files import write_checksums
from asr.recognition.recognizer import open_recognizer
from asr.text.lexicon import make_lexicon
from asr.text.tokenizer import TextConfig, Tokenizer, learn_tokenizer, save_tokenizer
from tools.fuzz.changes import change_text, damage
from tools.fuzz.language_models import ARPA, LETTERS
from tools.fuzz.runner import RunCase

WORDS = [("a", ("A",)), ("b", ("B",)), ("ab", ("A", "B"))]
TEXTS = (".toml", ".txt", "SHA256SUMS")
SECONDS = 0.3  # of noise that a folder is tried with


def fuzz_model_folders(folder: Path) -> RunCase:
    """Folders of a tiny network with letters, pieces or phones, opened and used."""
    torch.manual_seed(1)
    (folder / "model.arpa").write_text(ARPA)
    lexicon = make_lexicon(WORDS)
    tokenizers = {
        "char": LETTERS,
        "bpe": learn_tokenizer(TextConfig(tokens="bpe", vocabulary_size=8), ["ab ba", "a b ab", "abba"]),
        "phones": Tokenizer(("<blank>", *lexicon.phones), lexicon=lexicon),
    }
    originals = [make_folder(folder, tokens, tokenizer) for tokens, tokenizer in tokenizers.items()]
    noise = np.random.default_rng(1).normal(0, 0.1, int(8000 * SECONDS)).astype(np.float32)

    def run_case(draw: random.Random, place: Path) -> str:
        copy = place / "model"
        shutil.copytree(draw.choice(originals), copy)
        if draw.randrange(2):
            (copy / "SHA256SUMS").unlink()
        for _ in range(draw.choice((1, 1, 1, 2))):
            change_file(draw.choice(sorted(copy.iterdir())), draw)
        options: dict[str, Any] = draw.choice(({}, {}, {"beam_size": 4}))
        recognizer = open_recognizer(copy, "cpu", threads=1, **options)
        recognizer.transcribe_samples([noise])
        return "opened"

    return run_case


def make_folder(folder: Path, tokens: str, tokenizer: Tokenizer) -> Path:
    """Make a folder with every file that a model may have."""
    path = folder / tokens
    path.mkdir()
    config = ModelConfig(
        features=FeatureConfig(sample_rate=8000, n_mels=8, normalisation="global"),
        text=TextConfig(tokens=tokens),  # type: ignore[arg-type]
        encoder=EncoderConfig(layers=1, size=8),
    )
    save_config(config, path)
    save_weights(new_acoustic_model(config, len(tokenizer)), path)
    save_tokenizer(tokenizer, path)
    save_model(read_arpa(folder / "model.arpa"), path / "language-model.bin")
    for name in ("search.toml", "search-without-lm.toml"):
        (path / name).write_text("beam_size = 4\nlm_weight = 0.5\nbeam_threshold = 10.0\n")
    write_checksums(path)
    return path


def change_file(path: Path, draw: random.Random) -> None:
    """Change a file, or put something else in its place."""
    kind = draw.randrange(10)
    if not path.is_file() or path.is_symlink():
        return
    content = path.read_bytes()
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.unlink()
        put_no_file(path, draw)
    elif path.name.endswith(TEXTS):
        text = content.decode(errors="replace")
        path.write_bytes(change_text(text, text, draw))
    else:
        path.write_bytes(damage(content, content, draw))


def put_no_file(path: Path, draw: random.Random) -> None:
    """Put something at ``path`` that is no file, or is another one."""
    kind = draw.randrange(5)
    if kind == 0 and hasattr(os, "mkfifo"):
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to(draw.choice(("/dev/zero", "/dev/urandom", "/nowhere", path.name)))
    elif kind == 3:
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    else:
        with path.open("wb") as file:
            file.truncate(draw.choice((0, 1, 1 << 25, 1 << 40)))
