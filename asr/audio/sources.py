"""What a recording comes from: a path, bytes or an open file, each opened as a binary file without a name."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

from asr.errors import UserError

Source = str | Path | bytes | IO[bytes]  # a path, the bytes of a whole file, or a file that can seek

# How the names of recordings end; what a file is, its content decides.
ENDINGS = (
    *(".wav", ".flac", ".opus", ".ogg", ".oga", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".sph"),
    *(".m4a", ".m4b", ".aac", ".mp4", ".mov", ".3gp", ".mkv", ".mka", ".webm", ".wma"),  # by asr.audio.media
)


class AudioError(UserError):
    """A recording that cannot be read; the text names the file and says what is wrong."""


def is_recording(path: Path) -> bool:
    """Whether the name of ``path`` ends as those of recordings do."""
    return path.suffix.lower() in ENDINGS


def name_source(source: Source) -> str:
    """What messages call the source, on one line."""
    if isinstance(source, bytes):
        return "audio bytes"
    if not isinstance(source, str | Path):
        return "audio stream"
    return str(source) if str(source).isprintable() else repr(str(source))


def open_source(source: Source) -> AbstractContextManager[IO[bytes]]:
    """The source as a binary file that has no name, because names mislead soundfile.

    Raises ``AudioError`` for what is no file, ``OSError`` for one that cannot be opened, ``TypeError``
    for what is no source.
    """
    if isinstance(source, bytes):
        return MemoryFile(source)
    if not isinstance(source, str | Path) and not hasattr(source, "seek"):
        raise TypeError(
            f"{type(source).__name__} is no recording: give a file name, the bytes of a file, or an open "
            "file; for samples there is transcribe_samples"
        )
    if not isinstance(source, str | Path):
        return nullcontext(cast(IO[bytes], PatchedFile(source)))
    if Path(source).exists() and not Path(source).is_file():  # opening a pipe would wait for its writer
        raise AudioError("is a directory or a device, not a file")
    try:
        return NamelessFile(source, "rb")
    except ValueError as error:
        raise AudioError(f"is no file name: {error}") from error


class LenientSeek:
    """A file in which an impossible place is its end, so that nothing is read there.

    Libraries seek to such places in damaged files, and print the Python exceptions that they cannot raise.
    """

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return super().seek(offset, whence)  # type: ignore[misc]
        except (OSError, ValueError, OverflowError):
            return super().seek(0, io.SEEK_END)  # type: ignore[misc]


class MemoryFile(LenientSeek, io.BytesIO):
    """A file in memory."""


class NamelessFile(LenientSeek, io.FileIO):
    """A file whose ``name`` is hidden: soundfile would take ``x.raw`` for headerless samples."""

    name = property(lambda self: "", lambda self, value: None)


class PatchedFile(io.RawIOBase):
    """Another file, whose bytes from ``place`` on are replaced by ``new``; it has no name."""

    def __init__(self, file: IO[bytes], place: int = 0, new: bytes = b"") -> None:
        self.file, self.place, self.new = file, place, new

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # as in LenientSeek
            return self.file.seek(0, io.SEEK_END)

    def tell(self) -> int:
        return self.file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        begin = self.file.tell()
        content = self.file.read(len(buffer))
        buffer[: len(content)] = content
        first, last = max(self.place, begin), min(self.place + len(self.new), begin + len(content))
        if first < last:
            buffer[first - begin : last - begin] = self.new[first - self.place : last - self.place]
        return len(content)
