#!/usr/bin/env python3
"""Fetch published corpora from where they are published, and unpack them.

    python tools/fetch.py train-clean-5 dev-clean --into data/corpora
    python tools/fetch.py LJSpeech-1.1 --into data/corpora

A transfer that breaks off is taken up where it stopped, by itself or by the same command; an archive
is unpacked only when its checksum is the one known here. What is there already is not fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from asr.core.files import write_text
from asr.errors import UserError

ATTEMPTS = 5  # in a row that bring nothing new
PAUSE_SECONDS = 5.0  # before the second attempt; longer before each further one
BLOCK = 1 << 20
TIMEOUT_SECONDS = 60.0

OPENSLR = "https://www.openslr.org/resources"


class FetchError(UserError):
    """A corpus that could not be fetched whole."""


@dataclass(frozen=True)
class Archive:
    """A file to fetch; ``checksum`` is ``algorithm:hexadecimal``."""

    url: str
    checksum: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[-1]


# OpenSLR 31 publishes MD5 sums; those of OpenSLR 12 and of LJSpeech are the SHA-256 sums in torchaudio 2.11.
ARCHIVES = {
    "train-clean-5": Archive(f"{OPENSLR}/31/train-clean-5.tar.gz", "md5:5df7d4e78065366204ca6845bb08f490"),
    "dev-clean-2": Archive(f"{OPENSLR}/31/dev-clean-2.tar.gz", "md5:6d7ab67ac6a1d2c993d050e16d61080d"),
    "dev-clean": Archive(
        f"{OPENSLR}/12/dev-clean.tar.gz",
        "sha256:76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    ),
    "dev-other": Archive(
        f"{OPENSLR}/12/dev-other.tar.gz",
        "sha256:12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    ),
    "test-clean": Archive(
        f"{OPENSLR}/12/test-clean.tar.gz",
        "sha256:39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    ),
    "test-other": Archive(
        f"{OPENSLR}/12/test-other.tar.gz",
        "sha256:d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    ),
    "train-clean-100": Archive(
        f"{OPENSLR}/12/train-clean-100.tar.gz",
        "sha256:d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    ),
    "train-clean-360": Archive(
        f"{OPENSLR}/12/train-clean-360.tar.gz",
        "sha256:146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    ),
    "train-other-500": Archive(
        f"{OPENSLR}/12/train-other-500.tar.gz",
        "sha256:ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    ),
    "LJSpeech-1.1": Archive(
        "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
        "sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
    ),
}


def fetch(archive: Archive, folder: Path, pause: float = PAUSE_SECONDS) -> None:
    """Have ``archive`` unpacked in ``folder``; does nothing when it already is."""
    done = folder / f".{archive.name}.unpacked"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / archive.name
    if not path.exists():
        part = folder / f"{archive.name}.part"
        transfer(archive.url, part, pause)
        if checksum_of(part, archive.checksum) != archive.checksum:
            part.unlink()
            raise FetchError(f"{archive.url}: came with a wrong checksum and was deleted; try again later")
        part.replace(path)
    unpack(path, folder)
    write_text(done, archive.checksum + "\n")
    path.unlink()


def transfer(url: str, part: Path, pause: float) -> None:
    """Bring all of ``url`` to the file ``part``, beginning with what is not in it yet."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            receive(url, part)
            return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing lies beyond what is there: it is whole
                return
            if error.code < 500:
                raise FetchError(f"{url}: the server says {error.code} {error.reason}") from error
            reason: Exception = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > before else failures + 1
        if failures == ATTEMPTS:
            raise FetchError(f"{url}: {reason}; the same command goes on where it stopped") from reason
        time.sleep(pause * max(1, failures))


def receive(url: str, part: Path) -> None:
    """Append to ``part`` what the server sends; raises ``OSError`` when it ends too early."""
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        if response.status != 206:  # a server that cannot begin in the middle sends it all
            there = 0
        length = int(response.headers.get("Content-Length", 0))
        with part.open("ab" if there else "wb") as file, bar(part, there, length) as moved:
            while block := response.read(BLOCK):
                file.write(block)
                moved.update(len(block))
            if length and file.tell() < there + length:
                raise ConnectionError(f"broke off after {file.tell():,} of {there + length:,} bytes")


@contextmanager
def bar(part: Path, there: int, length: int) -> Iterator[tqdm]:
    """A progress bar, where somebody looks."""
    name = part.name.removesuffix(".part")
    total = there + length or None
    with tqdm(
        total=total, initial=there, desc=name, unit="B", unit_scale=True, disable=not sys.stderr.isatty()
    ) as shown:
        yield shown


def checksum_of(path: Path, like: str) -> str:
    """The checksum of a file, of the same kind as ``like``."""
    algorithm = like.partition(":")[0]
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def unpack(path: Path, folder: Path) -> None:
    """Unpack a tar archive; nothing in it can be written outside ``folder``."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
                if not inside or not (member.isfile() or member.isdir()):
                    raise FetchError(f"{path}: cannot be unpacked: {member.name} is no file within it")
            # Python has a filter of its own for the rest, such as odd permissions, from 3.11.4 on.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda entry, place: entry)
            archive.extractall(folder)
    except (tarfile.TarError, EOFError) as error:
        raise FetchError(f"{path}: cannot be unpacked: {error}") from error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=list(ARCHIVES), metavar="NAME", help=", ".join(ARCHIVES))
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    try:
        for name in options.names:
            fetch(ARCHIVES[name], options.into)
    except UserError as error:
        sys.exit(f"fetch: {error}")
    except OSError as error:
        sys.exit(f"fetch: {error.filename or options.into}: {error.strerror}")


if __name__ == "__main__":
    main()
