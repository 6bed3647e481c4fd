"""Files are written whole or not at all, and messages name the file that the caller asked for."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest

from asr.core.files import read_text, replace_file, sync, write_text
from asr.errors import UserError


def test_a_file_is_replaced_whole_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("one\n", "two\n"):
        write_text(path, text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_is_interrupted_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, replace_file(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)


def test_an_error_names_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "a.txt"):
        with pytest.raises(OSError) as caught:
            write_text(path, "text")
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replace_file(tmp_path / "a.txt"):
        Path(tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


@pytest.mark.parametrize(
    ("content", "newline", "text"),
    [
        ("\ufeffärger\r\n".encode(), None, "ärger\n"),
        (b"one\r\ntwo\rthree\n", "\n", "one\r\ntwo\rthree\n"),
        (b"", None, ""),
    ],
)
def test_text_is_read_without_a_byte_order_mark(tmp_path, content, newline, text):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_text(tmp_path / "a.txt", UserError, newline) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file or directory"), (b"\xff", "is not UTF-8 text")],
)
def test_a_text_that_cannot_be_read_is_named(tmp_path, content, message):
    class TableError(UserError):
        pass

    path = tmp_path / "table.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError) as caught:
        read_text(path, TableError)
    assert str(caught.value) == f"{path}: {message}"


def test_a_file_is_synced_through_a_handle_that_can_write(tmp_path, monkeypatch):
    """Windows refuses to sync any other."""
    fcntl = pytest.importorskip("fcntl")
    modes = []
    monkeypatch.setattr(
        "os.fsync", lambda handle: modes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
    )
    write_text(tmp_path / "a.txt", "text")
    assert modes == [os.O_RDWR]
    sync(tmp_path)
    assert modes == [os.O_RDWR, os.O_RDONLY]


def test_windows_syncs_no_folders(tmp_path, monkeypatch):
    synced = []
    with monkeypatch.context() as patch:
        patch.setattr("os.name", "nt")
        patch.setattr("os.fsync", synced.append)
        sync(tmp_path)
    assert not synced


def test_a_text_that_ends_in_gz_is_unpacked_as_far_as_is_allowed(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("é\r\nb".encode()))
    assert read_text(path, UserError) == "é\nb"
    path.write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(UserError, match=r"a\.txt\.gz: is too long"):
        read_text(path, UserError, most_bytes=10**6 - 1)
    path.write_bytes(b"no gzip")
    with pytest.raises(UserError, match="not compressed by gzip"):
        read_text(path, UserError)
