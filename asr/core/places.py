"""Files that lie on this machine or behind a URL (``s3://``, ``gs://``, ``hdfs://``), by way of fsspec.

A place is a path or a URL as fsspec understands it, chains such as ``filecache::s3://...`` among them. Paths
need no fsspec.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from asr.core.files import quote_path, replace_file
from asr.errors import UserError

URL = re.compile(r"^[\w+.-]{2,}:")  # one letter and a colon is a drive of Windows
TEMPORARY = ".part-"  # begins the name of a file that is being written behind a URL


class PlaceError(UserError):
    """A file that cannot be read or written; the text names it."""


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL and no path."""
    return isinstance(place, str) and "://" in place and URL.match(place) is not None


def join_place(folder: str | Path, name: str) -> str:
    """The place of ``name``, which may be whole by itself, in a folder."""
    if is_url(name) or Path(name).is_absolute():
        return name
    return f"{str(folder).rstrip('/')}/{name}" if is_url(folder) else str(Path(folder) / name)


def find_folder(place: str | Path) -> str:
    """The folder that a file lies in."""
    return str(place).rpartition("/")[0] if is_url(place) else str(Path(place).parent)


def find_name(place: str | Path) -> str:
    """A file's name without its folder."""
    return str(place).rpartition("/")[2] if is_url(place) else Path(place).name


def open_place(place: str | Path) -> IO[bytes]:
    """Open a file to read, to be closed by the caller; raises ``PlaceError``."""
    with name_place(place):
        if not is_url(place):
            return Path(place).open("rb")
        system, path = find_system(str(place))
        return cast(IO[bytes], system.open(path, "rb"))


def read_place(place: str | Path) -> bytes:
    """Read a whole file, front to back; raises ``PlaceError``."""
    with open_place(place) as file, name_place(place):
        return file.read()


def measure_place(place: str | Path) -> int:
    """The bytes of a file; raises ``PlaceError``."""
    with name_place(place):
        if not is_url(place):
            return Path(place).stat().st_size
        system, path = find_system(str(place))
        return int(system.size(path))


def write_place(place: str | Path, content: bytes) -> None:
    """Write a file, all of it or nothing, whoever else writes the same one; raises ``PlaceError``.

    Behind a URL it gets a name that nobody reads, and is then moved: stores of objects copy and delete,
    file systems rename.
    """
    with name_place(place, "written"):
        if not is_url(place):
            with replace_file(place) as temporary:
                temporary.write_bytes(content)
            return
        system, path = find_system(str(place))
        folder, _, name = path.rpartition("/")
        system.makedirs(folder, exist_ok=True)
        part = f"{folder}/{TEMPORARY}{make_mark()}-{name}"
        system.pipe_file(part, content)
        system.mv(part, path)


def delete_place(place: str | Path) -> None:
    """Delete a file that may not be there; raises ``PlaceError`` where it stays."""
    with name_place(place, "deleted"):
        if not is_url(place):
            Path(place).unlink(missing_ok=True)
            return
        system, path = find_system(str(place))
        if system.exists(path):
            system.rm_file(path)


def list_places(folder: str | Path) -> dict[str, int]:
    """The names of the files in a folder, each with its size in bytes; none where there is no folder."""
    with name_place(folder):
        if not is_url(folder):
            if not Path(folder).is_dir():
                return {}
            files = [entry for entry in Path(folder).iterdir() if entry.is_file()]
            return {entry.name: entry.stat().st_size for entry in files}
        system, path = find_system(str(folder))
        system.invalidate_cache()
        try:
            entries = system.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rpartition("/")[2]: int(entry.get("size") or 0)
            for entry in entries
            if entry["type"] == "file"
        }


def expand_place(place: str, *endings: str) -> list[str]:
    """The files that a place means, sorted: those that match a pattern, those of a folder, or itself.

    Of a folder only names with one of the ``endings`` count, and none that begins with a dot.
    """
    with name_place(place):
        if not is_url(place):
            if Path(place).is_dir():
                found = [str(entry) for entry in Path(place).iterdir()]
            elif glob.has_magic(place) and not Path(place).exists():
                found = glob.glob(place, recursive=True)  # noqa: PTH207
            else:
                return [place]
        else:
            system, path = find_system(place)
            if glob.has_magic(place):
                found = [system.unstrip_protocol(name) for name in system.glob(path)]
            elif system.isdir(path):
                found = [system.unstrip_protocol(name) for name in system.ls(path, detail=False)]
            else:
                return [place]
    return sorted(
        name
        for name in found
        if name.lower().endswith(endings) and not find_name(name).startswith((".", TEMPORARY))
    )


def find_system(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it; raises ``UserError`` where a library for it is missing."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise UserError(f"{url}: URLs need fsspec: pip install 'asr[cluster]'") from error
    try:
        system, path = url_to_fs(url)
    except ImportError as error:  # says which library
        raise PlaceError(f"{url}: {error}") from error
    except ValueError as error:
        raise PlaceError(f"{url}: {error}") from error
    return system, path


def make_mark() -> str:
    """A name that nobody else makes."""
    import uuid

    return uuid.uuid4().hex[:12]


@contextmanager
def name_place(place: str | Path, done: str = "read") -> Iterator[None]:
    """Whatever the block's input and output fails with becomes a ``PlaceError`` that names ``place``.

    Clients of object stores raise errors of many kinds, all of them their own.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise PlaceError(f"{quote_path(place)}: cannot be {done}: no such file") from error
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PlaceError(f"{quote_path(place)}: cannot be {done}: {reason}") from error
