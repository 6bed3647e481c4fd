"""Reading text files with one message for each fault; writing files so that nobody ever finds half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from asr.errors import UserError


def read_text(path: str | Path, error: Callable[[str], UserError], newline: str | None = None) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    ``newline`` is that of ``open``: by default every kind of line end becomes a line feed. Raises
    ``error`` with a message that names the file when it cannot be read or is not UTF-8.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except OSError as fault:
        raise error(f"{path}: cannot be read: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{path}: is not UTF-8 text") from fault


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
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
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
