"""Fetching corpora: from a server on this machine that breaks off, refuses or sends something else."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools.fetch import ARCHIVES, ATTEMPTS, Archive, FetchError, fetch

ROOT = Path(__file__).parents[2]


class Server(ThreadingHTTPServer):
    """Serves one file; ``breaks`` says after how many bytes the next answers break off."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.breaks: list[int] = []
        self.ranges = True  # whether it can begin in the middle
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/corpus.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path != "/corpus.tar.gz":
            self.send_error(404)
            return
        start = int(re.findall(r"\d+", wanted)[0]) if wanted and self.server.ranges else 0
        if start >= len(self.server.content):
            self.send_error(416)
            return
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks.pop(0)] if self.server.breaks else body)

    def log_message(self, *arguments: object) -> None:
        pass


def packed(*names: str) -> bytes:
    """A tar.gz of files that do not compress."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            content = hashlib.sha512(name.encode()).digest() * 500
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(packed("LibriSpeech/a/1.flac", "LibriSpeech/a/2.flac")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def archive_of(server: Server, checksum: str | None = None) -> Archive:
    return Archive(server.url, checksum or f"sha256:{hashlib.sha256(server.content).hexdigest()}")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


UNPACKED = [".corpus.tar.gz.unpacked", "LibriSpeech/a/1.flac", "LibriSpeech/a/2.flac"]


def test_an_archive_is_fetched_checked_and_unpacked_once(server, tmp_path):
    fetch(archive_of(server), tmp_path)
    assert files(tmp_path) == UNPACKED
    content = (tmp_path / "LibriSpeech/a/1.flac").read_bytes()
    assert content == hashlib.sha512(b"LibriSpeech/a/1.flac").digest() * 500
    fetch(archive_of(server), tmp_path)
    assert server.asked == [None]


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    server.breaks = [100, 50]
    fetch(archive_of(server), tmp_path, pause=0.0)
    assert server.asked == [None, "bytes=100-", "bytes=150-"]
    assert files(tmp_path) == UNPACKED


def test_another_run_goes_on_where_the_last_one_stopped(server, tmp_path):
    (tmp_path / "corpus.tar.gz.part").write_bytes(server.content[:123])
    fetch(archive_of(server), tmp_path)
    assert server.asked == ["bytes=123-"]
    assert files(tmp_path) == UNPACKED


def test_a_part_that_is_already_whole_is_taken(server, tmp_path):
    (tmp_path / "corpus.tar.gz.part").write_bytes(server.content)
    fetch(archive_of(server), tmp_path)
    assert files(tmp_path) == UNPACKED


def test_a_server_that_cannot_begin_in_the_middle_sends_all(server, tmp_path):
    server.ranges = False
    server.breaks = [100]
    fetch(archive_of(server), tmp_path, pause=0.0)
    assert files(tmp_path) == UNPACKED


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(server, tmp_path):
    with pytest.raises(FetchError, match="wrong checksum"):
        fetch(archive_of(server, "md5:" + "0" * 32), tmp_path)
    assert files(tmp_path) == []


def test_a_server_that_brings_nothing_is_given_up(server, tmp_path):
    server.breaks = [0] * 20
    with pytest.raises(FetchError, match="the same command goes on"):
        fetch(archive_of(server), tmp_path, pause=0.0)
    assert len(server.asked) == ATTEMPTS


def test_what_is_not_there_is_said_at_once(server, tmp_path):
    with pytest.raises(FetchError, match="404"):
        fetch(Archive(server.url.replace("corpus", "nothing"), "md5:0"), tmp_path)
    assert len(server.asked) == 1


def test_nothing_is_unpacked_outside_the_folder(server, tmp_path):
    server.content = packed("../outside.txt")
    with pytest.raises(FetchError, match="cannot be unpacked"):
        fetch(archive_of(server), tmp_path / "inside")
    assert not (tmp_path / "outside.txt").exists()


def test_the_list_is_in_order():
    for name, archive in ARCHIVES.items():
        assert archive.name.startswith(name + ".tar.")
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", archive.checksum)


def test_an_unknown_name_is_wrong_usage(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "fetch.py"), "train-clean-6", "--into", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "train-clean-5" in done.stderr
