"""Writing a teacher: log-probs of a model or states of an encoder. Needs no torch where these do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from asr.core.config import to_toml
from asr.core.files import replace_file, write_text
from asr.recognition.recognizer import Recognizer
from asr.text.tokenizer import TOKENS_FILE
from asr.training.examples import Example, Reader
from asr.training.teacher import TEACHER_FILE, TeacherConfig, TeacherError, locate_rows, open_teacher
from asr.training.tuning import iterate_log_probs

LOWEST = -1e4  # a log-prob far below all others, which float16 can hold


def write_teacher(
    recognizer: Recognizer,
    examples: Sequence[Example],
    read: Reader,
    folder: Path,
    batch_seconds: float = 60.0,
    progress: Callable[[int], object] = lambda utterances: None,
) -> int:
    """Write the log-probs of every example that ``folder`` lacks, as float16; returns how many.

    Interrupted, it goes on where it was. ``progress`` is called with the number of utterances done since the
    last call.

    Raises ``TeacherError`` where the folder is that of a model with other tokens or frames.
    """
    symbols = recognizer.tokenizer.symbols
    config = TeacherConfig(recognizer.frame_seconds)
    if (folder / TEACHER_FILE).exists():
        known = open_teacher(folder, recognizer.tokenizer)
        if known.frame_seconds != config.frame_seconds:
            raise TeacherError(f"{folder / TEACHER_FILE}: is of a teacher with other frames than this model")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TOKENS_FILE, "".join(f"{symbol}\n" for symbol in symbols))
    write_text(folder / TEACHER_FILE, to_toml(config))
    missing = [example for example in examples if not locate_rows(folder, example.utterance.id).is_file()]
    progress(len(examples) - len(missing))
    for arrays in iterate_log_probs(recognizer, missing, read, batch_seconds):
        for utterance, rows in arrays.items():
            write_rows(folder, utterance, np.maximum(rows[:, : len(symbols)], LOWEST))
        progress(len(arrays))
    return len(missing)


class StateEncoder(Protocol):
    """An encoder whose states are written (``asr.model.states``)."""

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Compute the states of samples, ``(frames, size)``."""


def write_states(
    encoder: StateEncoder,
    frame_seconds: float,
    examples: Sequence[Example],
    read: Reader,
    folder: Path,
    progress: Callable[[int], object] = lambda utterances: None,
) -> int:
    """Write the states of every example that ``folder`` lacks, as float16; returns how many.

    Interrupted, it goes on where it was. ``progress`` is as for ``write_teacher``.

    Raises ``TeacherError`` where the folder is one of log-probs, or has other frames.
    """
    config = TeacherConfig(frame_seconds)
    if (folder / TOKENS_FILE).exists():
        raise TeacherError(
            f"{folder}: has log-probs, as {TOKENS_FILE} says; states need a folder of their own"
        )
    if (folder / TEACHER_FILE).exists() and (folder / TEACHER_FILE).read_text() != to_toml(config):
        raise TeacherError(f"{folder / TEACHER_FILE}: is of states with other frames than these")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TEACHER_FILE, to_toml(config))
    missing = [example for example in examples if not locate_rows(folder, example.utterance.id).is_file()]
    progress(len(examples) - len(missing))
    for example in missing:
        write_rows(folder, example.utterance.id, encoder.encode(read(example.utterance)))
        progress(1)
    return len(missing)


def write_rows(folder: Path, utterance: str, rows: np.ndarray) -> None:
    """Write the array of an utterance as float16, all of it or nothing."""
    path = locate_rows(folder, utterance)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows.astype(np.float16))
