"""What a recording comes from: a path, bytes or an open file, each opened as a binary file without a name."""

from __future__ import annotations

import io
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

from asr.core.files import quote_path
from asr.errors import UserError

Source = str | Path | bytes | IO[bytes]  # a path, the bytes of a whole file, or an open file

# How the names of recordings end; what a file is, its content decides.
ENDINGS = (
    *(".wav", ".flac", ".opus", ".ogg", ".oga", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".sph"),
    *(".caf", ".w64", ".rf64", ".snd", ".wave", ".spx", ".g722"),
    # The rest by asr.audio.media.
    *(
        ".m4a",
        ".m4b",
        ".aac",
        ".mp4",
        ".m4v",
        ".mov",
        ".3gp",
        ".3g2",
        ".mkv",
        ".mka",
        ".webm",
        ".wma",
        ".wmv",
    ),
    *(".avi", ".flv", ".ts", ".mts", ".m2ts", ".mpg", ".amr", ".awb", ".ac3", ".mp2", ".wv", ".ape", ".tta"),
)


class AudioError(UserError):
    """A recording that cannot be read; the text names the file and says what is wrong."""


def is_recording(path: Path) -> bool:
    """Whether the name of ``path`` ends as those of recordings do."""
    return path.suffix.lower() in ENDINGS


def find_name(source: Source) -> str | None:
    """Find the path of a source, or the name that an open file tells; ``None`` where there is none.

    Files that the system names have numbers for names.
    """
    if isinstance(source, str | Path):
        return str(source)
    name = getattr(source, "name", None)
    return name if isinstance(name, str) and name else None


def name_source(source: Source) -> str:
    """What messages call the source, on one line."""
    name = find_name(source)
    if name is None:
        return "audio bytes" if isinstance(source, bytes) else "audio stream"
    return quote_path(name)


def open_source(source: Source) -> AbstractContextManager[IO[bytes]]:
    """The source as a binary file that can seek.

    Raises ``AudioError`` for what is no file, ``OSError`` for one that cannot be opened, ``TypeError``
    for what is no source.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, str | Path) and not hasattr(source, "read"):
        raise TypeError(
            f"{type(source).__name__} is no recording: give a file name, the bytes of a file, or an open "
            "file; for samples there is transcribe_samples"
        )
    if not isinstance(source, str | Path):
        return nullcontext(source) if is_seekable(source) else copy_to_disk(source)
    if Path(source).exists() and not Path(source).is_file():  # opening a pipe would wait for its writer
        raise AudioError("is a directory or a device, not a file")
    try:
        return cast(IO[bytes], io.FileIO(source, "rb"))
    except ValueError as error:
        raise AudioError(f"is no file name: {error}") from error


def is_seekable(file: IO[bytes]) -> bool:
    """Whether an open file can go back: a pipe cannot."""
    try:
        return bool(file.seekable())
    except AttributeError:
        return hasattr(file, "seek")


def copy_to_disk(file: IO[bytes]) -> IO[bytes]:
    """What is left of an open file that cannot seek, in a file that can and that nobody sees."""
    copy = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115, whoever asked for it closes it
    try:
        shutil.copyfileobj(file, copy)
    except BaseException:
        copy.close()
        raise
    return copy


class WindowFile(io.RawIOBase):
    """Bytes ``begin`` to ``end`` of another file, from ``place`` of them on ``new`` ones.

    It has no name, because names mislead soundfile.

    Libraries read it from inside their own code, where a Python exception is printed and forgotten. So an
    error is kept in ``error`` and looks like the end of the file; ``guard_library`` raises it again.
    """

    def __init__(self, file: IO[bytes], begin: int, end: int, place: int = 0, new: bytes = b"") -> None:
        self.file, self.begin, self.size = file, begin, end - begin
        self.place, self.new = place, new
        self.position = 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        wanted = base + offset
        self.position = (
            wanted if 0 <= wanted < 1 << 62 else self.size
        )  # in damaged files libraries go anywhere
        return self.position

    def tell(self) -> int:
        return self.position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        begin = self.position
        wanted = min(len(buffer), max(0, self.size - begin))
        try:
            self.file.seek(self.begin + begin)
            content = self.file.read(wanted)
        except OSError as error:
            self.error = self.error or error
            return 0
        buffer[: len(content)] = content
        first, last = max(self.place, begin), min(self.place + len(self.new), begin + len(content))
        if first < last:
            buffer[first - begin : last - begin] = self.new[first - self.place : last - self.place]
        self.position = begin + len(content)
        return len(content)


@contextmanager
def guard_library(*files: WindowFile) -> Iterator[None]:
    """Let no Ctrl-C and no error of a disk be lost in a library that reads ``files`` by callbacks.

    A Ctrl-C waits until the block is left: inside a callback its exception would be printed and forgotten.
    """
    pressed: list[tuple[int, FrameType | None]] = []
    handler = signal.getsignal(signal.SIGINT)
    is_mine = threading.current_thread() is threading.main_thread() and callable(handler)
    if is_mine:
        signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        yield
    finally:
        if is_mine:
            signal.signal(signal.SIGINT, handler)
        if pressed and callable(handler):
            handler(*pressed[0])
    raise_kept(files)


def raise_kept(files: Iterable[WindowFile]) -> None:
    """Raise the error that a file has kept."""
    for file in files:
        if file.error is not None:
            raise file.error
