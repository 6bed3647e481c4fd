"""What the files of a model folder must be before anything reads them: there, whole, and not too large.

Nothing here reads a large file: what a file says is checked by the module that reads it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from asr.core.files import check_regular, quote_path, read_text, write_text
from asr.pretrained import CONFIG_FILE, ModelFolderError
from asr.recognition.folder import (
    LANGUAGE_MODEL_FILE,
    ONNX_FILE,
    PUNCTUATION_FILE,
    RECURRENT_MODEL_FILE,
    SEARCH_FILE,
    SEARCH_FILE_WITHOUT_LM,
    WEIGHTS_FILE,
    read_text_config,
)
from asr.text.tokenizer import BPE_FILE, LEXICON_FILE, PACKED_LEXICON_FILE, TOKENS_FILE, find_lexicon_file

# Bytes that each file may have; a vocabulary or a network beyond them is no speech model.
MOST_BYTES = {
    CONFIG_FILE: 1 << 20,
    SEARCH_FILE: 1 << 20,
    SEARCH_FILE_WITHOUT_LM: 1 << 20,
    TOKENS_FILE: 1 << 22,
    BPE_FILE: 1 << 24,
    LEXICON_FILE: 1 << 27,
    PACKED_LEXICON_FILE: 1 << 26,
    WEIGHTS_FILE: 1 << 32,
    ONNX_FILE: 1 << 31,
    LANGUAGE_MODEL_FILE: 1 << 32,
    RECURRENT_MODEL_FILE: 1 << 29,
    PUNCTUATION_FILE: 1 << 26,
}
CHECKSUMS_FILE = "SHA256SUMS"  # in the form of sha256sum, of the files in HASHED
HASHED = (
    WEIGHTS_FILE,
    ONNX_FILE,
    TOKENS_FILE,
    BPE_FILE,
    LEXICON_FILE,
    PACKED_LEXICON_FILE,
    RECURRENT_MODEL_FILE,
    PUNCTUATION_FILE,
)  # a language model has its own checksums
REQUIRED = {"bpe": BPE_FILE, "phones": LEXICON_FILE}  # by text.tokens


def check_model_folder(folder: Path, lm: str | Path | None = None) -> None:
    """Check every file of a model folder that is there, and that every one is there that the others need.

    ``lm`` is that of ``open_recognizer``. Raises ``ModelFolderError`` naming the file: it is no regular file,
    too long, a pointer of Git LFS, not what was written together with the others, or missing.
    """
    for name, most in MOST_BYTES.items():
        if (folder / name).exists() or (folder / name).is_symlink():
            check_regular(folder / name, ModelFolderError, most)
    needed = REQUIRED.get(read_text_config(folder).tokens)
    for required, reason in (
        (TOKENS_FILE, "every model has one"),
        (needed, f"{CONFIG_FILE} says that tokens are {read_text_config(folder).tokens}"),
        (find_missing_language_model(folder, lm), f"{SEARCH_FILE} is tuned with it; give --lm FILE or none"),
    ):
        if required is None or (folder / required).exists():
            continue
        if required != LEXICON_FILE or find_lexicon_file(folder) is None:
            raise ModelFolderError(f"{quote_path(folder / required)}: is missing: {reason}")
    check_checksums(folder)


def find_missing_language_model(folder: Path, lm: str | Path | None) -> str | None:
    """The language model's file where the folder's search was tuned with one and nobody gives another.

    A folder whose search is tuned both with and without one has a file for each.
    """
    is_tuned_with_one = (folder / SEARCH_FILE).exists() and (folder / SEARCH_FILE_WITHOUT_LM).exists()
    return LANGUAGE_MODEL_FILE if lm is None and is_tuned_with_one else None


def write_checksums(folder: Path) -> None:
    """Write the checksums of the files that make up a model, so that a damaged or mixed-up one is noticed."""
    lines = [f"{compute_checksum(folder / name)}  {name}\n" for name in HASHED if (folder / name).exists()]
    write_text(folder / CHECKSUMS_FILE, "".join(lines))


def renew_checksums(folder: Path) -> None:
    """Write the checksums anew after a file of the model was replaced, where the folder has any."""
    if (folder / CHECKSUMS_FILE).exists():
        write_checksums(folder)


def check_checksums(folder: Path) -> None:
    """Raise ``ModelFolderError`` for a file that is not what ``write_checksums`` saw, where it was called."""
    path = folder / CHECKSUMS_FILE
    if not path.exists():
        return
    check_regular(path, ModelFolderError, 1 << 16)
    for number, line in enumerate(read_text(path, ModelFolderError).splitlines(), start=1):
        expected, _, name = line.partition("  ")
        if name not in HASHED:
            raise ModelFolderError(f"{quote_path(path)}:{number}: names no file that a model has")
        if not (folder / name).exists():
            raise ModelFolderError(f"{quote_path(folder / name)}: is missing; {CHECKSUMS_FILE} lists it")
        if compute_checksum(folder / name) != expected:
            raise ModelFolderError(
                f"{quote_path(folder / name)}: is damaged, or of another model: copy the folder again "
                f"(if you changed it yourself, remove its line from {CHECKSUMS_FILE})"
            )


def compute_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
