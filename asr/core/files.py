"""Writing files so that nobody ever finds half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Hand out a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    The folder is made when it is missing. When the block raises, ``path`` is left as it was
    and the temporary file is removed. The data is synced before the rename, so that a power
    cut leaves either the old file or the new one. An ``OSError`` names ``path``, not the temporary file,
    of which the user knows nothing; of full disks it would name none.
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
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sync(path: Path) -> None:
    """Force what was written to ``path``, a file or a folder, onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
