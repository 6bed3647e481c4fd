"""Decoded samples on disk: one memory-mapped file for each manifest, checked against it.

A run that reads its samples from here decodes and resamples nothing, and a machine that only trains
needs no audio library. A file is in the safetensors format, so that other programs can read it:
``samples``, 16-bit integers, one utterance after the other, and ``ends``, where each of them ends.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from asr.audio.arrays import FULL_SCALE
from asr.audio.reading import read_audio
from asr.core.cores import count_cores
from asr.core.files import replace_file
from asr.data.manifest import Utterance, read_manifest
from asr.errors import UserError

HEADER_BYTES = 1024  # kept free at the beginning of a file until its length is known
BLOCK = 256  # utterances decoded before they are written
ABANDONED = 600  # seconds without a write after which nobody is making a file any more


class CacheError(UserError):
    """A cache that cannot be made or does not fit; the text names the file."""


@dataclass(frozen=True)
class SampleCache:
    """The samples of a manifest's utterances, in its order."""

    samples: np.ndarray  # (samples,) int16, memory-mapped
    ends: np.ndarray  # (utterances,) int64

    def __getitem__(self, index: int) -> np.ndarray:
        """``(samples,)`` float32, full scale 1."""
        first = int(self.ends[index - 1]) if index else 0
        return self.samples[first : int(self.ends[index])] * np.float32(1 / FULL_SCALE)


def make_cached_reader(
    folder: Path, manifests: Iterable[Path], rate: int
) -> Callable[[Utterance], np.ndarray]:
    """A function that reads the samples of any utterance of ``manifests`` from their caches in ``folder``.

    Missing caches are made. Raises ``CacheError`` for one that is damaged, or that would have to be made
    where no audio can be decoded.
    """
    places: dict[tuple[str, float, float | None], tuple[SampleCache, int]] = {}
    for manifest in manifests:
        utterances = read_manifest(manifest)
        cache = ensure_sample_cache(folder, manifest.stem, utterances, rate)
        places |= {samples_key(utterance): (cache, index) for index, utterance in enumerate(utterances)}

    def read(utterance: Utterance) -> np.ndarray:
        cache, index = places[samples_key(utterance)]
        return cache[index]

    return read


def samples_key(utterance: Utterance) -> tuple[str, float, float | None]:
    """What decides which samples an utterance has: recording, start and duration."""
    return utterance.audio, utterance.start, utterance.duration


def ensure_sample_cache(folder: Path, name: str, utterances: Sequence[Utterance], rate: int) -> SampleCache:
    """The cache of a manifest's ``utterances`` at ``rate`` hertz, which is made if ``folder`` lacks it."""
    mark = fingerprint(utterances, rate)
    path = cache_path(folder, name, mark, rate)
    if not path.exists():
        write_cache(path, utterances, rate, mark)
    cache = open_cache(path, mark)
    if len(cache.ends) != len(utterances):
        raise cache_error(path)
    return cache


def is_cached(folder: Path, manifests: Iterable[Path], rate: int) -> bool:
    """Whether ``make_cached_reader`` would find all that it needs and make nothing."""
    return all(
        cache_path(folder, path.stem, fingerprint(read_manifest(path), rate), rate).exists()
        for path in manifests
    )


def cache_path(folder: Path, name: str, mark: str, rate: int) -> Path:
    """Where the cache of a manifest with that name and fingerprint is."""
    return folder / f"{name}-{rate}-{mark[:12]}.safetensors"


def fingerprint(utterances: Sequence[Utterance], rate: int) -> str:
    """A digest that changes whenever the cached samples, or their order, would.

    It depends on ids, file names, starts and durations, and not on folders, so that a cache can move to
    another machine, nor on texts. It does not notice a recording that is replaced under its old name.
    """
    digest = hashlib.sha256(f"{rate}\n".encode())
    for utterance in utterances:
        known = [utterance.id, Path(utterance.audio).name, utterance.start, utterance.duration]
        digest.update(json.dumps(known).encode() + b"\n")
    return digest.hexdigest()


def write_cache(path: Path, utterances: Sequence[Utterance], rate: int, mark: str) -> None:
    """Decode ``utterances`` to the file ``path``, on all cores."""
    delete_abandoned(path)
    ends = np.zeros(len(utterances), np.int64)
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(bytes(HEADER_BYTES))
        size = 0
        for index, samples in enumerate(decode_utterances(utterances, rate, path)):
            file.write(samples.tobytes())
            size += len(samples)
            ends[index] = size
        padding = -size % 4  # the integers that follow have 8 bytes
        file.write(bytes(2 * padding))
        file.write(ends.astype("<i8").tobytes())
        file.seek(0)
        file.write(make_header(size + padding, len(ends), mark))


def delete_abandoned(path: Path) -> None:
    """Delete the gigabytes that runs have left which were killed while they made the file ``path``."""
    for part in path.parent.glob(f".{path.stem}-*{path.suffix}"):
        with suppress(FileNotFoundError):  # another run clears, too
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink()


def decode_utterances(utterances: Sequence[Utterance], rate: int, path: Path) -> Iterator[np.ndarray]:
    """The samples of each utterance as 16-bit integers, little-endian."""
    try:
        import soundfile  # noqa: F401 - to find out before the threads do
        import soxr  # noqa: F401
    except ImportError as error:
        raise CacheError(
            f"{path}: does not exist and cannot be made here, where {error.name} is missing; "
            "copy the folder from a machine on which the same recipe was started"
        ) from error
    with (
        ThreadPoolExecutor(count_cores()) as pool,
        tqdm(total=len(utterances), desc=f"decoding to {path}", unit="utterance", disable=None) as bar,
    ):
        for first in range(0, len(utterances), BLOCK):
            for samples in pool.map(
                partial(decode_to_integers, rate=rate), utterances[first : first + BLOCK]
            ):
                yield samples
                bar.update()


def decode_to_integers(utterance: Utterance, rate: int) -> np.ndarray:
    """The samples of an utterance, rounded, and clipped at full scale."""
    samples = read_audio(utterance.audio, rate, utterance.start, utterance.duration)
    return np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def make_header(samples: int, utterances: int, mark: str) -> bytes:
    """The first bytes of a safetensors file: how long the header is, JSON, and spaces to its end."""
    between, last = 2 * samples, 2 * samples + 8 * utterances
    entries = {
        "__metadata__": {"fingerprint": mark},
        "samples": {"dtype": "I16", "shape": [samples], "data_offsets": [0, between]},
        "ends": {"dtype": "I64", "shape": [utterances], "data_offsets": [between, last]},
    }
    text = json.dumps(entries).encode().ljust(HEADER_BYTES - 8)
    return struct.pack("<Q", len(text)) + text


def open_cache(path: Path, mark: str) -> SampleCache:
    """Map a file that ``write_cache`` wrote; raises ``CacheError`` unless it is whole and has ``mark``."""
    try:
        with path.open("rb") as file:
            entries = read_header(file)
        samples, ends = entries["samples"]["shape"][0], entries["ends"]["shape"][0]
        if entries["__metadata__"]["fingerprint"] != mark:
            raise cache_error(path)
        if path.stat().st_size != HEADER_BYTES + 2 * samples + 8 * ends:
            raise cache_error(path)
        mapped = np.memmap(path, "<i2", "r", HEADER_BYTES, (samples,)) if samples else np.zeros(0, "<i2")
        places = np.fromfile(path, "<i8", ends, offset=HEADER_BYTES + 2 * samples)
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise cache_error(path) from error
    if ends and (np.diff(places, prepend=0).min() < 0 or places[-1] > samples):
        raise cache_error(path)
    return SampleCache(mapped.view(np.ndarray), places)


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The JSON at the beginning of a safetensors file."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length != HEADER_BYTES - 8:
        raise ValueError("not a header of ours")
    entries = json.loads(file.read(length))
    if not isinstance(entries, dict):
        raise ValueError("not an object")
    return entries


def cache_error(path: Path) -> CacheError:
    """The error for a file that is not what its name promises."""
    return CacheError(
        f"{path}: is damaged or belongs to another manifest; delete it, and it will be made anew"
    )
