"""Reading text files with one message for each fault; writing files so that nobody ever finds half of one."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from asr.errors import UserError

LONGEST_STEM = 24  # characters of a name in that of its temporary file: names have 255 bytes at most
MOST_TEXT_BYTES = 1 << 29  # of a text that is read as a whole: ten million utterances, thirty million words
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def read_text(
    path: str | Path,
    error: Callable[[str], UserError],
    newline: str | None = None,
    most_bytes: int = MOST_TEXT_BYTES,
) -> str:
    """The text of a UTF-8 file, without a byte order mark; where its name ends in ``.gz``, of what is packed.

    ``newline`` is that of ``open``: by default every kind of line end becomes a line feed. Raises
    ``error`` with a message that names the file when it cannot be read, is a device, is longer than
    ``most_bytes`` or is not UTF-8.
    """
    name = quote_path(path)
    try:
        if is_device(path):
            raise error(f"{name}: is a device, not a file")
        with Path(path).open("rb") as file:
            content = file.read(most_bytes + 1)
        if Path(path).suffix == ".gz":
            with gzip.open(io.BytesIO(content)) as unpacked:
                content = unpacked.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise error(f"{name}: is too long; at most {format_bytes(most_bytes)} are read")
        with io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=newline) as text:
            return text.read()
    except UnicodeDecodeError as fault:
        raise error(f"{name}: is not UTF-8 text") from fault
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise error(f"{name}: is damaged, or not compressed by gzip") from fault
    except (OSError, ValueError) as fault:  # a path with a zero byte is a ValueError
        raise error(f"{name}: cannot be read: {getattr(fault, 'strerror', None) or fault}") from fault


def map_file(path: str | Path) -> mmap.mmap:
    """Map a file into memory, to be read only; raises ``OSError``, or ``ValueError`` for an empty file."""
    with Path(path).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def is_device(path: str | Path) -> bool:
    """Whether ``path`` is a device, which may never end; ``/dev/null`` does and is none here."""
    mode = Path(path).stat().st_mode
    return (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and str(path) != os.devnull


def check_regular(path: str | Path, error: Callable[[str], UserError], most_bytes: int) -> None:
    """Raise ``error`` unless ``path`` is a file of at most ``most_bytes``, whole and on this disk.

    For files that belong together in a folder. Opens nothing that could wait, such as a pipe. A pointer
    that Git LFS left in place of a large file is named as such.
    """
    name = quote_path(path)
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{name}: is not a file")
        if status.st_size > most_bytes:
            raise error(f"{name}: is too long; at most {format_bytes(most_bytes)} are read")
        with Path(path).open("rb") as file:
            is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except (OSError, ValueError) as fault:
        raise error(f"{name}: cannot be read: {getattr(fault, 'strerror', None) or fault}") from fault
    if is_pointer:
        raise error(f"{name}: is a pointer of Git LFS, not the file itself; run 'git lfs pull'")


def quote_path(path: str | Path) -> str:
    """A path as it stands in a message: on one line, and nothing that a terminal would obey."""
    return str(path) if str(path).isprintable() else repr(str(path))


def format_bytes(count: int) -> str:
    """A number of bytes in the largest unit that it fills."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} bytes"


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    The folder is made when it is missing. When the block raises, ``path`` stays as it was and the
    temporary file is removed. The data is synced before the rename, so that a power cut leaves either
    the old file or the new one. An ``OSError`` names ``path``: the user knows nothing of the temporary
    file, and the error of a full disk names no file at all.
    """
    path = Path(path)
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The ending stays last: libraries that choose the format by it (numpy, matplotlib) still can.
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:LONGEST_STEM]}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        sync(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp made it private; the result is a normal file
        temporary.replace(path)
    except BaseException as error:
        if name:
            Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and (not name or error.filename in (None, name)):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def name_errors(path: str | Path) -> Iterator[None]:
    """Give an ``OSError`` of the block that names no file, as that of a full disk, the name ``path``."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, all of it or nothing."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sync(path: Path) -> None:
    """Force what was written to ``path``, a file or a folder, onto the disk.

    Windows syncs only what is open for writing, and no folders.
    """
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
