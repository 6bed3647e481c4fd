"""Recordings in tar files, as WebDataset and Lhotse's Shar lay them out, read front to back.

A manifest names one ``train-000003.tar/00000017.flac``: the tar file, which may lie behind a URL, and the
member in it. Disks and stores of objects that are slow at a million small files are fast at a thousand large
ones.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np

from asr.audio.reading import measure_duration, open_recording, read_audio, read_stated_duration
from asr.audio.sources import ENDINGS, AudioError, Source
from asr.core.files import format_bytes, quote_path
from asr.core.places import (
    PlaceError,
    find_name,
    join_place,
    measure_place,
    open_place,
    read_place,
    write_place,
)
from asr.data.manifest import DURATION_TOLERANCE, Utterance, parse_object
from asr.errors import UserError

TAR = ".tar"
MOST_BYTES = 1 << 32  # of a tar file that is read as a whole
TEXT_KEYS = ("text", "transcript", "transcription", "txt", "sentence")


class TarError(UserError):
    """A tar file that cannot be used; the text names it."""


def split_member(audio: str) -> tuple[str, str] | None:
    """The tar file and the member that a recording's name means; ``None`` where it is a file by itself."""
    tar, found, member = audio.partition(f"{TAR}/")
    if not found or not member or ("://" not in audio and Path(tar + TAR).is_dir()):
        return None
    return tar + TAR, member


def to_source(audio: str) -> Source:
    """What a recording's name stands for: a path, or the bytes of a member of a tar file.

    Raises ``AudioError`` where there is no such member.
    """
    place = split_member(audio)
    return audio if place is None else read_member(*place)


def read_member(tar: str, member: str) -> bytes:
    """Read one member; the others are only skipped. Raises ``AudioError``."""
    try:
        begin, size = list_members(tar, measure_place(tar))[member]
        with open_place(tar) as file:
            file.seek(begin)
            return file.read(size)
    except (TarError, PlaceError) as error:
        raise AudioError(str(error)) from error
    except KeyError as error:
        raise AudioError(f"{quote_path(tar)}: has no member {member!r}") from error


@lru_cache(maxsize=64)
def list_members(tar: str, size: int) -> dict[str, tuple[int, int]]:
    """Where the bytes of each member begin, and how many they are; ``size`` is that of the tar file."""
    with open_place(tar) as file:
        return {name: (begin, length) for name, begin, length in walk_members(file, tar)}


def walk_members(file: IO[bytes], tar: str) -> Iterator[tuple[str, int, int]]:
    """Yield the name, the first byte and the length of each file in a tar file; raises ``TarError``."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isfile():
                    yield member.name.removeprefix("./"), member.offset_data, member.size
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise TarError(f"{quote_path(tar)}: is damaged or no tar file: {error}") from error


def read_members(tar: str) -> dict[str, memoryview]:
    """Read a whole tar file at once, front to back: its members by name; raises ``TarError``."""
    size = measure_place(tar)
    if size > MOST_BYTES:
        raise TarError(f"{quote_path(tar)}: is too large to be read as a whole, {format_bytes(size)}")
    content = memoryview(read_place(tar))
    members = {}
    for name, begin, length in walk_members(io.BytesIO(content), tar):
        if begin + length > len(content):
            raise TarError(f"{quote_path(tar)}: is cut off in {name!r}")
        members[name] = content[begin : begin + length]
    return members


class TarReader:
    """Reads samples of utterances; keeps in memory the tar files that were used last.

    Any number of threads may use it: one that needs a tar file that another is reading waits for it.
    ``reads`` counts how often a tar file was read.
    """

    def __init__(self, rate: int, capacity: int) -> None:
        self.rate = rate
        self.capacity = capacity
        self.reads = 0
        self._tars: OrderedDict[str, Future[dict[str, memoryview]]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, utterance: Utterance) -> np.ndarray:
        """``(samples,)`` float32; raises ``AudioError`` or ``TarError``."""
        place = split_member(utterance.audio)
        if place is None:
            return read_audio(utterance.audio, self.rate, utterance.start, utterance.duration)
        tar, member = place
        members = self._open(tar)
        if member not in members:
            raise AudioError(f"{quote_path(tar)}: has no member {member!r}")
        try:
            return read_audio(bytes(members[member]), self.rate, utterance.start, utterance.duration)
        except AudioError as error:
            raise AudioError(f"{quote_path(utterance.audio)}: {error}") from error

    def _open(self, tar: str) -> dict[str, memoryview]:
        with self._lock:
            found = self._tars.get(tar)
            if found is not None:
                self._tars.move_to_end(tar)
            else:
                mine: Future[dict[str, memoryview]] = Future()
                self._tars[tar] = mine
                self.reads += 1
                while len(self._tars) > self.capacity:
                    self._tars.popitem(last=False)
        if found is not None:
            return found.result()
        try:
            mine.set_result(read_members(tar))
        except BaseException as error:
            mine.set_exception(error)
        return mine.result()


def group_windows(utterances: Sequence[Utterance], size: int) -> list[list[int]]:
    """The indices of utterances in windows of ``size`` tar files, in the order in which they first appear.

    Empty where no utterance is in a tar file. Raises ``TarError`` where some are and others are not.
    """
    tars: dict[str, list[int]] = {}
    for index, utterance in enumerate(utterances):
        place = split_member(utterance.audio)
        tars.setdefault("" if place is None else place[0], []).append(index)
    if "" in tars:
        if len(tars) > 1:
            raise TarError("some training utterances are in tar files and others are not; pack all of them")
        return []
    members = list(tars.values())
    return [list(chain(*members[first : first + size])) for first in range(0, len(members), size)]


# --- writing --------------------------------------------------------------------------------------


def pack_utterances(
    utterances: Sequence[Utterance], folder: str, name: str, size: int, seed: int = 1
) -> Iterator[list[Utterance]]:
    """Write utterances, in a drawn order, to tar files of ``size`` each; yield those of each as it is done.

    The names of their recordings are then relative to ``folder``. A recording that is an utterance by itself
    keeps its bytes; stretches of longer ones become FLAC. Beside each ``KEY.flac`` stands ``KEY.json``, which
    makes it a WebDataset. Raises ``AudioError`` for a recording that cannot be read.
    """
    order = np.random.default_rng(seed).permutation(len(utterances)).tolist()
    for number, first in enumerate(range(0, len(order), size)):
        tar = f"{name}-{number:06d}{TAR}"
        packed = []
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for index in order[first : first + size]:
                utterance, content, ending = encode_utterance(utterances[index])
                key = f"{index:08d}"
                keys = {"id": utterance.id, "text": utterance.text, "duration": utterance.duration}
                if utterance.speaker:
                    keys["speaker"] = utterance.speaker
                add_member(archive, f"{key}{ending}", content)
                add_member(archive, f"{key}.json", json.dumps(keys | dict(utterance.extra)).encode())
                packed.append(replace(utterance, audio=f"{tar}/{key}{ending}"))
        write_place(join_place(folder, tar), buffer.getvalue())
        yield packed


def encode_utterance(utterance: Utterance) -> tuple[Utterance, bytes, str]:
    """An utterance that begins where its recording does, the bytes of that, and how its name ends."""
    source = to_source(utterance.audio)
    ending = Path(utterance.audio).suffix.lower()
    if utterance.start == 0:
        stated = read_stated_duration(source) if utterance.duration else measure_duration(source)
        if stated is not None and abs((utterance.duration or stated) - stated) <= DURATION_TOLERANCE:
            content = source if isinstance(source, bytes) else read_place(str(source))
            return replace(utterance, duration=utterance.duration or stated), content, ending
    import soundfile

    with open_recording(source) as recording:
        rate = recording.sound.samplerate
    samples = read_audio(source, rate, utterance.start, utterance.duration)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    return replace(utterance, start=0.0, duration=len(samples) / rate), buffer.getvalue(), ".flac"


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a tar file; equal contents make equal bytes."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


# --- those of others ------------------------------------------------------------------------------


def read_foreign(tars: Iterable[str]) -> Iterator[Utterance]:
    """Read the utterances of tar files that others made: recordings with a ``.txt`` or ``.json`` of a key.

    A key ends at the first dot of the file's name. Of Lhotse's Shar, ``recording.000000.tar`` holds the
    recordings and ``cuts.000000.jsonl.gz`` beside it the texts. A recording without a text has an empty one.
    """
    for tar in tars:
        texts = read_cuts(tar)
        parts: dict[str, dict[str, memoryview]] = {}
        for member, content in read_members(tar).items():
            folder, slash, file = member.rpartition("/")
            stem, _, ending = file.rpartition(".") if texts else file.partition(".")
            parts.setdefault(folder + slash + stem, {})["." + ending] = content
        for key, files in parts.items():
            sound = next((ending for ending in files if ending.lower() in ENDINGS), None)
            if sound is None:
                continue
            keys: dict[str, Any] = {}
            if ".json" in files:
                keys = parse_object(bytes(files[".json"]).decode("utf-8", "replace"), f"{tar}/{key}.json")
            keys |= texts.get(key, {})
            text = next((keys[known] for known in TEXT_KEYS if isinstance(keys.get(known), str)), "")
            if ".txt" in files:
                text = bytes(files[".txt"]).decode("utf-8", "replace").strip()
            speaker = keys.get("speaker")
            name = str(keys.get("id") or key)
            yield Utterance(name, f"{tar}/{key}{sound}", text=text, speaker=str(speaker) if speaker else "")


def read_cuts(tar: str) -> dict[str, dict[str, Any]]:
    """The texts that Lhotse's Shar has beside a tar file of recordings, by the ids of cuts."""
    name = find_name(tar)
    if not name.startswith("recording."):
        return {}
    beside = tar.removesuffix(name) + name.replace("recording.", "cuts.").removesuffix(TAR) + ".jsonl.gz"
    found = {}
    try:
        lines = gzip.decompress(read_place(beside)).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise TarError(f"{beside}: is damaged: {error}") from error
    for number, line in enumerate(lines, start=1):
        cut = parse_object(line.decode("utf-8", "replace"), f"{beside}:{number}")
        spoken = [part for part in cut.get("supervisions", []) if isinstance(part, dict)]
        texts = [part["text"] for part in spoken if isinstance(part.get("text"), str)]
        speaker = next((part["speaker"] for part in spoken if isinstance(part.get("speaker"), str)), "")
        found[str(cut.get("id"))] = {"text": " ".join(texts), "speaker": speaker, "id": str(cut.get("id"))}
    return found
