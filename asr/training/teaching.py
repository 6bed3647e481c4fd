"""Writing a teacher: the log-probs of a model for utterances. Needs no torch where the model does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

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
            path = locate_rows(folder, utterance)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replace_file(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.maximum(rows[:, : len(symbols)], LOWEST).astype(np.float16))
        progress(len(arrays))
    return len(missing)
