"""The files of a model folder, and how to read those that need no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asr.core.config import from_table, read_toml
from asr.errors import UserError
from asr.pretrained import CONFIG_FILE, ModelFolderError
from asr.search import SearchConfig
from asr.text.tokenizer import TextConfig

FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"  # the same weights, with the features, for programs without torch
SEARCH_FILE = "search.toml"
SEARCH_FILE_WITHOUT_LM = "search-without-lm.toml"  # for `--lm none`
LANGUAGE_MODEL_FILE = "language-model.bin"
RECURRENT_MODEL_FILE = "language-model.safetensors"  # which ranks the best hypotheses anew
PUNCTUATION_FILE = "punctuation.safetensors"


def read_config_table(folder: Path) -> dict[str, Any]:
    """Read ``config.toml``; raises ``ModelFolderError`` when a later version of the program wrote it."""
    path = folder / CONFIG_FILE
    table = read_toml(path)
    version = table.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        given = version if isinstance(version, int) and abs(version) < 1000 else "no number that is known"
        raise ModelFolderError(
            f"{path}: format_version is {given}; this program reads up to {FORMAT_VERSION}"
        )
    return table


def read_text_config(folder: Path) -> TextConfig:
    """Read how the model's texts are written, the ``[text]`` of its ``config.toml``."""
    table = read_config_table(folder).get("text", {})
    path = folder / CONFIG_FILE
    if not isinstance(table, dict):
        raise ModelFolderError(f"{path}: 'text' is a section: write [text] with keys below it")
    try:
        return from_table(TextConfig, table, "text.")
    except UserError as error:
        raise ModelFolderError(f"{path}: {error}") from error


def has_decoder(folder: Path) -> bool:
    """Whether the model has an attention decoder beside CTC."""
    table = read_config_table(folder).get("decoder", {})
    return isinstance(table, dict) and table.get("kind", "none") != "none"


def read_search_config(folder: Path, lm: str | Path | None = None) -> SearchConfig:
    """Read what ``asr tune`` wrote into a model folder; the defaults where it wrote nothing.

    A search that was tuned with a language model works badly without one: nothing holds short words
    back. So ``lm="none"`` has a file of its own, and the other file is read only where that is missing.
    """
    path = folder / SEARCH_FILE_WITHOUT_LM
    if str(lm) != "none" or not path.exists():
        path = folder / SEARCH_FILE
    if not path.exists():
        return SearchConfig()
    table = read_toml(path)
    try:
        return from_table(SearchConfig, table)
    except UserError as error:
        raise ModelFolderError(f"{path}: {error}") from error


def find_recurrent_model(folder: Path) -> Path | None:
    """Find the recurrent language model in a model folder; ``None`` where there is none."""
    path = folder / RECURRENT_MODEL_FILE
    return path if path.exists() else None


def find_tagger(folder: Path) -> Path | None:
    """Find the model of punctuation in a model folder; ``None`` where there is none."""
    path = folder / PUNCTUATION_FILE
    return path if path.exists() else None


def find_language_model(folder: Path) -> Path | None:
    """Find the language model in a model folder; ``None`` where there is none."""
    path = folder / LANGUAGE_MODEL_FILE
    return path if path.exists() else None
