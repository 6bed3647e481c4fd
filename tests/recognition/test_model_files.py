"""Model folders that are damaged, mixed up or made to do harm: one line that names the file, at once."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import asr
from asr.errors import UserError
from asr.model.folder import load_acoustic_model
from asr.pretrained import SHIPPED
from asr.recognition.model_files import check_model_folder, find_missing_language_model, write_checksums
from asr.recognition.recognizer import open_recognizer


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the smallest model, opened with torch."""
    copy = tmp_path / "model"
    shutil.copytree(SHIPPED / "digits", copy)
    for name in ("model.onnx", "SHA256SUMS"):
        (copy / name).unlink()
    return copy


def refuse(folder: Path, *words: str) -> None:
    """Opening the folder ends within a second in one line with all ``words``."""
    began = time.process_time()
    with pytest.raises(UserError) as caught:
        open_recognizer(folder, "cpu")
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.isprintable()
    assert len(message) < 500
    assert time.process_time() - began < 1


def test_a_whole_folder_opens(folder):
    write_checksums(folder)
    check_model_folder(folder)
    open_recognizer(folder, "cpu")


FILES = ("config.toml", "tokens.txt", "bpe.model", "model.safetensors", "search.toml", "language-model.bin")


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_refused_without_being_opened(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refuse(folder, name, "is not a file")
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    refuse(folder, name, "is not a file")
    (folder / name).unlink()
    (folder / name).mkdir()
    refuse(folder, name, "is not a file")


@pytest.mark.parametrize("name", FILES)
def test_a_file_too_long_is_refused_without_being_read(folder, name):
    with (folder / name).open("ab") as file:
        file.truncate(1 << 37)  # with holes: takes no room
    refuse(folder, name, "is too long")


@pytest.mark.parametrize("name", ["model.safetensors", "bpe.model", "language-model.bin", "tokens.txt"])
def test_a_pointer_of_git_lfs_is_named_as_such(folder, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1421144\n"
    (folder / name).write_text(pointer)
    refuse(folder, name, "git lfs pull")


@pytest.mark.parametrize("name", ["tokens.txt", "bpe.model", "model.safetensors"])
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / name).unlink()
    refuse(folder, name, "is missing")


def test_a_language_model_that_the_search_was_tuned_with_must_be_there(folder):
    for name in ("search.toml", "search-without-lm.toml"):
        (folder / name).write_text("beam_size = 4\n")
    refuse(folder, "language-model.bin", "is missing", "--lm")
    assert find_missing_language_model(folder, "none") is None
    assert open_recognizer(folder, "cpu", lm="none").decoder is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("beam_size = 999999999999999999999\n", ["beam_size", "too large"]),
        ("beam_size = " + "9" * 5000 + "\n", ["search.toml", "is not TOML"]),
        ("beam_size = 0x" + "f" * 5000 + "\n", ["beam_size", "too large"]),
        ("lm_weight = 1" + "0" * 400 + "\n", ["lm_weight", "too large"]),
        ("lm_weight = inf\n", ["lm_weight", "finite"]),
        ("word_bonus = 1e300\n", ["word_bonus", "at most 100"]),
        ("lm_weight = " + "[" * 50000 + "]" * 50000 + "\n", ["search.toml"]),
        ("a" * 100_000 + " = 1\n", ["unknown key"]),
        ("lm_weight = '" + "a" * 100_000 + "'\n", ["lm_weight"]),
        ("\x1b[2J = 1\n", ["search.toml", "is not TOML"]),
    ],
)
def test_numbers_and_nesting_beyond_sense_are_refused(folder, text, words):
    (folder / "search.toml").write_text(text)
    refuse(folder, *words)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("size = ", "size = 16384 #"),
        ("layers = ", "layers = 100 #"),
        ("n_mels = ", "n_mels = 1024 #"),
        ("window_ms = ", "window_ms = 1000.0 #"),
        ("bidirectional = true", "bidirectional = false"),
        ("stack = ", "stack = 64 #"),
    ],
)
def test_a_network_is_not_made_where_the_weights_are_another_one(folder, old, new):
    config = folder / "config.toml"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new))
    refuse(folder, "model.safetensors", "does not fit") if "window" not in old else refuse_or_open(folder)


def refuse_or_open(folder: Path) -> None:
    """A longer window fits the same weights: the folder opens, or says why not."""
    try:
        open_recognizer(folder, "cpu")
    except UserError as error:
        assert str(error).isprintable()


def test_numbers_that_are_not_finite_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].flatten()[0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    refuse(folder, name, "not finite")


def test_tensors_of_another_type_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    weights[name] = weights[name].to(torch.int64)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match="cannot be of type I64"):
        load_acoustic_model(folder)


@pytest.mark.parametrize("name", ["tokens.txt", "bpe.model", "model.safetensors"])
def test_a_file_that_is_not_what_was_written_is_named(folder, name):
    write_checksums(folder)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    refuse(folder, name, "damaged")
    (folder / "SHA256SUMS").write_text("0000  ../../etc/passwd\n")
    refuse(folder, "SHA256SUMS:1")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "no\nsuch\x1b[2J"])
def test_a_name_that_no_folder_can_have_is_one_line(name):
    with pytest.raises(UserError) as caught:
        asr.load(name)
    assert str(caught.value).isprintable()
