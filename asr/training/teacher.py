"""A teacher: what another model hears in each recording, frame by frame, for a student to learn from.

A teacher is a folder of arrays, so that any program can write one. ``tokens.txt`` names the tokens, which
must be the student's; ``teacher.toml`` has the seconds from one row to the next (``frame_seconds``);
``ID.npy`` has the natural log-probs of the utterance with this id, ``(frames, tokens)``, float16 or float32.
An id with ``/`` is in a subfolder. An utterance that the teacher does not know has no file. ``asr teach``
writes such a folder with any model.

``States`` are a folder of the same form with the hidden states of another network, ``(frames, size)``,
and no ``tokens.txt``: the student learns to predict them. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np

from asr.core.config import check_bounds, from_table, option, read_toml
from asr.errors import UserError
from asr.text.tokenizer import BLANK_TOKEN, TOKENS_FILE, Tokenizer, read_symbols

TEACHER_FILE = "teacher.toml"
MEASURED = 500  # recordings whose states say how large states are
LARGEST = 5.0  # standard deviations: states that are further off are cut


class TeacherError(UserError):
    """A teacher's folder or one of its arrays that cannot be learned from."""


@dataclass(frozen=True)
class TeacherConfig:
    """What ``teacher.toml`` says."""

    frame_seconds: float = option(0.04, "From one row of log-probs to the next.", above=0, maximum=10)

    def __post_init__(self) -> None:
        check_bounds(self, "teacher")


@dataclass(frozen=True)
class Teacher:
    """A folder of log-probs, opened: ``read`` gives those of an utterance."""

    folder: Path
    frame_seconds: float
    tokens: int

    def knows(self, utterance: str) -> bool:
        """Whether there are log-probs of the utterance with this id."""
        return locate_rows(self.folder, utterance).is_file()

    def read(self, utterance: str) -> np.ndarray | None:
        """Read log-probs, ``(frames, tokens)`` float32; ``None`` where the utterance is not known.

        Raises ``TeacherError`` for a file that does not hold such an array.
        """
        rows = read_rows(self.folder, utterance, self.tokens)
        if rows is not None and (rows > 0.01).any():  # float16 rounds
            path = locate_rows(self.folder, utterance)
            raise TeacherError(f"{path}: has numbers that are no log-probs: they must be 0 or below")
        return rows


@dataclass(frozen=True, eq=False)
class States:
    """A folder of another network's hidden states, opened: ``read`` gives those of an utterance."""

    folder: Path
    frame_seconds: float
    mean: np.ndarray  # (size,) float32
    deviation: np.ndarray  # (size,) float32

    @property
    def size(self) -> int:
        """Numbers in a state."""
        return len(self.mean)

    def knows(self, utterance: str) -> bool:
        """Whether there are states of the utterance with this id."""
        return locate_rows(self.folder, utterance).is_file()

    def read(self, utterance: str) -> np.ndarray | None:
        """Read states, ``(frames, size)`` float32, each number in standard deviations from its mean.

        ``None`` where the utterance is not known. Raises ``TeacherError`` for a file that does not hold such
        an array.
        """
        rows = read_rows(self.folder, utterance, self.size)
        return None if rows is None else np.clip((rows - self.mean) / self.deviation, -LARGEST, LARGEST)


def read_rows(folder: Path, utterance: str, size: int | None = None) -> np.ndarray | None:
    """Read the array of an utterance, ``(frames, size)`` as float32; ``None`` where there is none.

    Raises ``TeacherError`` for a file that does not hold such an array of numbers.
    """
    path = locate_rows(folder, utterance)
    if not path.is_file():
        return None
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise TeacherError(f"{path}: is no array that NumPy can read: {error}") from error
    if (
        rows.ndim != 2
        or rows.shape[1] != (size or rows.shape[1])
        or rows.dtype not in (np.float16, np.float32)
    ):
        raise TeacherError(
            f"{path}: has shape {rows.shape} and type {rows.dtype}; it must be (frames, {size or 'size'}), "
            "float16 or float32"
        )
    rows = rows.astype(np.float32)
    if np.isnan(rows).any():
        raise TeacherError(f"{path}: has numbers that are NaN")
    return rows


def locate_rows(folder: Path, utterance: str) -> Path:
    """The file of an utterance's log-probs; raises ``TeacherError`` for an id that leaves the folder."""
    name = PurePosixPath(f"{utterance}.npy")
    if name.is_absolute() or ".." in name.parts or "\0" in utterance:
        raise TeacherError(f"utterance {utterance!r}: a file in {folder} cannot have this name")
    return folder / name


def open_teacher(folder: str | Path, tokenizer: Tokenizer) -> Teacher:
    """Open a teacher's folder for a student with these tokens.

    Raises ``TeacherError`` where the tokens differ, and as reading the files does where one is missing or
    wrong.
    """
    folder = Path(folder).expanduser()
    config = from_table(TeacherConfig, read_toml(folder / TEACHER_FILE))
    if read_symbols(folder) != tokenizer.symbols:
        raise TeacherError(f"{folder / TOKENS_FILE}: names other tokens than the model that is trained has")
    return Teacher(folder, config.frame_seconds, len(tokenizer.symbols))


def open_states(folder: str | Path, utterances: Iterable[str]) -> States:
    """Open a folder of states; the first ``MEASURED`` of ``utterances`` in it say how large they are.

    Raises ``TeacherError`` where it has those of none, and as reading the files does where one is wrong.
    """
    folder = Path(folder).expanduser()
    config = from_table(TeacherConfig, read_toml(folder / TEACHER_FILE))
    known = (utterance for utterance in utterances if locate_rows(folder, utterance).is_file())
    count, size = 0, None
    total = squares = np.zeros(0)
    for utterance in islice(known, MEASURED):
        rows = read_rows(folder, utterance, size)
        assert rows is not None
        if not np.isfinite(rows).all():
            raise TeacherError(f"{locate_rows(folder, utterance)}: has numbers that are infinite")
        if size is None:
            size = rows.shape[1]
            total, squares = np.zeros(size), np.zeros(size)
        count += len(rows)
        total += rows.sum(axis=0, dtype=np.float64)
        squares += np.square(rows, dtype=np.float64).sum(axis=0)
    if not count or not size:
        raise TeacherError(f"{folder}: has states of none of the training utterances")
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
    return States(folder, config.frame_seconds, mean.astype(np.float32), deviation.astype(np.float32))


# --- to the student's frames --------------------------------------------------------------------------


@dataclass(frozen=True)
class Heard:
    """How a student hears an utterance."""

    frames: int
    speed: float = 1.0
    shift_seconds: float = 0.0  # silence in front, at the new speed


def stretch_rows(rows: np.ndarray, teacher_seconds: float, heard: Heard, frame_seconds: float) -> np.ndarray:
    """Move a teacher's log-probs to a student's frames; returns probabilities, ``(heard.frames, tokens)``.

    Each row goes to the frame in which its middle falls. Of several rows in one frame each token has its
    highest probability, but for the blank, which has what is left: so no spike is lost where speech is
    played faster. A frame without any row, in front of the recording, behind it, or where speech is played
    slower, has zeros: there the teacher says nothing.
    """
    stretched = np.zeros((heard.frames, rows.shape[1]), np.float32)
    middles = (np.arange(len(rows)) + 0.5) * teacher_seconds / heard.speed + heard.shift_seconds
    places = np.floor(middles / frame_seconds).astype(np.int64)
    inside = (places >= 0) & (places < heard.frames)
    places = places[inside]
    np.maximum.at(stretched, places, np.exp(rows[inside]))
    several = np.flatnonzero(np.bincount(places, minlength=heard.frames) > 1)
    stretched[several, BLANK_TOKEN] = 0.0
    spoken = stretched[several].sum(axis=1)
    stretched[several, BLANK_TOKEN] = np.maximum(0.0, 1.0 - spoken)
    stretched[several] /= np.maximum(spoken, 1.0)[:, None]
    return stretched


def stretch_states(
    rows: np.ndarray, teacher_seconds: float, heard: Heard, frame_seconds: float
) -> np.ndarray:
    """Move hidden states to a student's frames, ``(heard.frames, size)``.

    Each frame has what lies between the two states that are nearest to its middle, in proportion. A frame in
    front of the first state or behind the last has zeros: nothing is known of it.
    """
    moved = np.zeros((heard.frames, rows.shape[1]), np.float32)
    middles = ((np.arange(heard.frames) + 0.5) * frame_seconds - heard.shift_seconds) * heard.speed
    places = middles / teacher_seconds - 0.5
    inside = (places >= 0) & (places <= len(rows) - 1)
    before = np.floor(places[inside]).astype(np.int64)
    behind = np.minimum(before + 1, len(rows) - 1)
    share = (places[inside] - before)[:, None].astype(np.float32)
    moved[inside] = (1 - share) * rows[before] + share * rows[behind]
    return moved
