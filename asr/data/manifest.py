"""Utterances and the JSONL manifests that list them.

A manifest is a text file with one JSON object a line. The keys are those that NeMo made
common, and two more::

    {"id": "84-121123-0001", "audio_filepath": "84/121123/0001.flac", "offset": 0.0,
     "duration": 3.2, "text": "go on", "speaker": "84"}

``audio_filepath`` and ``text`` are required. A relative path starts at the manifest's own
folder. Keys not named here are kept through reading and writing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from asr.core.files import read_text, write_text
from asr.core.places import find_folder, find_name, is_url, join_place
from asr.errors import UserError

DURATION_TOLERANCE = 0.1  # seconds by which a manifest may be wrong: MP3 headers are not exact


class ManifestError(UserError):
    """A manifest that cannot be read; the text names the file and the line."""


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech and what was said in it.

    ``audio`` is the path of the recording, ``start`` the seconds into it at which the utterance
    begins, ``duration`` its length in seconds (``None``: to the end of the recording, not yet
    measured). ``speaker`` is empty where it is unknown. ``extra`` holds the keys of the manifest
    line that this class does not know.
    """

    id: str
    audio: str
    start: float = 0.0
    duration: float | None = None
    text: str = ""
    speaker: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(path: str | Path) -> list[Utterance]:
    """Read every line of the manifest at ``path``; blank lines are skipped.

    Raises ``ManifestError`` at the first line that is not a JSON object with the right keys.
    """
    path = Path(path)
    return [parse_line(line, path, number) for number, line in read_numbered_lines(path)]


def read_numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers counted from 1."""
    text = read_text(path, ManifestError)
    # Not splitlines(): a JSON string may hold U+2028, which splitlines() would cut at.
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def parse_object(line: str, where: str) -> dict[str, Any]:
    """The JSON object in ``line``; raises ``ManifestError``, which says ``where``, for anything else."""
    try:
        keys = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: is not JSON ({error})") from error
    if not isinstance(keys, dict):
        raise ManifestError(f"{where}: is not a JSON object")
    return keys


def parse_line(line: str, manifest: Path, number: int) -> Utterance:
    """Turn one manifest line into an ``Utterance``, its path resolved against the manifest's folder."""
    where = f"{manifest}:{number}"
    keys = parse_object(line, where)
    if "text" not in keys:
        raise ManifestError(f"{where}: 'text' is missing (an empty text is written as \"\")")
    return make_utterance(keys, str(manifest), number)


def make_utterance(keys: dict[str, Any], manifest: str, number: int) -> Utterance:
    """Turn the keys of a manifest's row, counted from 1, into an ``Utterance``; a text may be missing.

    ``manifest`` is a path or a URL. Raises ``ManifestError``, which names the row.
    """
    where = f"{manifest}:{number}"
    keys = dict(keys)
    audio = _take(keys, "audio_filepath", str, where)
    if not audio or "\0" in audio:
        raise ManifestError(f"{where}: 'audio_filepath' is missing, empty or not a path")
    text = _take(keys, "text", str, where)
    # A manifest made by another tool may have no ids: its name and the line number make a stable one.
    name = _take(keys, "id", str, where) or f"{Path(find_name(manifest)).stem}-{number:06d}"
    start = _take(keys, "offset", float, where) or 0.0
    duration = _take(keys, "duration", float, where)
    if start < 0 or (duration is not None and duration < 0):
        raise ManifestError(f"{where}: 'offset' and 'duration' are seconds and cannot be negative")
    return Utterance(
        id=name,
        audio=join_place(find_folder(manifest), audio),
        start=start,
        duration=duration,
        text=text or "",
        speaker=_take(keys, "speaker", str, where) or "",
        extra=keys,
    )


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, all of it or nothing.

    Recordings below the manifest's folder are named relative to it, so that the folder can be
    moved; all others by their absolute path, so that the manifest can.
    """
    folder = Path(path).parent.resolve()
    lines = (json.dumps(_line_keys(utterance, folder), ensure_ascii=False) for utterance in utterances)
    write_text(path, "".join(line + "\n" for line in lines))


def _line_keys(utterance: Utterance, folder: Path) -> dict[str, Any]:
    keys: dict[str, Any] = {"id": utterance.id, "audio_filepath": _write_audio(utterance.audio, folder)}
    if utterance.start:
        keys["offset"] = utterance.start
    if utterance.duration is not None:
        keys["duration"] = utterance.duration
    keys["text"] = utterance.text
    if utterance.speaker:
        keys["speaker"] = utterance.speaker
    return keys | dict(utterance.extra)


def _write_audio(audio: str, folder: Path) -> str:
    """How a manifest in ``folder`` names a recording."""
    if is_url(audio):
        return audio
    path = Path(audio).resolve()
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


@dataclass(frozen=True)
class ManifestCheck:
    """The readable utterances of manifests, and each fault as ``file:line: what is wrong``.

    An utterance without a duration gets the measured one, where there was anything to measure.
    """

    utterances: list[Utterance]
    faults: list[str]


def check_manifests(
    manifests: Iterable[Path],
    length: Callable[[str], float],
    normalise: Callable[[str], str] = str.strip,
    vocabulary: AbstractSet[str] | None = None,
) -> ManifestCheck:
    """Check every line of every manifest; a fault stops nothing.

    ``length`` returns the seconds that a recording lasts or raises a ``UserError``. A text that went
    through ``normalise`` must not be empty and, where there is a ``vocabulary``, must have no character
    outside it. Ids must be unique across all the manifests.

    Raises ``ManifestError`` for a file that cannot be read at all.
    """
    length = cache(length)  # the segments of one recording share its header
    utterances: list[Utterance] = []
    faults: list[str] = []
    places: dict[str, str] = {}
    for manifest in manifests:
        lines = [
            (number, _try_line(line, manifest, number)) for number, line in read_numbered_lines(manifest)
        ]
        if not lines:
            faults.append(f"{manifest}: lists no utterances")
        uses = Counter(line.audio for _, line in lines if isinstance(line, Utterance))
        for number, utterance in lines:
            if isinstance(utterance, ManifestError):
                faults.append(str(utterance))
                continue
            found = find_text_faults(normalise(utterance.text), vocabulary)
            where = f"{manifest}:{number}"
            if places.setdefault(utterance.id, where) != where:
                found.append(f"the id {utterance.id!r} is already used at {places[utterance.id]}")
            try:
                seconds = length(utterance.audio)
            except UserError as error:
                found.append(str(error))
            else:
                found += find_span_faults(utterance, seconds, alone=uses[utterance.audio] == 1)
                if utterance.duration is None:
                    utterance = replace(utterance, duration=max(seconds - utterance.start, 0.0))
            utterances.append(utterance)
            faults += [f"{where}: {fault}" for fault in found]
    return ManifestCheck(utterances, faults)


def find_text_faults(text: str, vocabulary: AbstractSet[str] | None) -> list[str]:
    """What is wrong with a normalised text: nothing in it, or characters outside ``vocabulary``."""
    if not text:
        return ["the text is empty"]
    foreign = sorted(set(text) - vocabulary) if vocabulary is not None else []
    names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in foreign)
    return [f"not in the vocabulary: {names}"] if foreign else []


def find_span_faults(utterance: Utterance, length: float, alone: bool) -> list[str]:
    """What is wrong with the stretch that an utterance takes of a recording of ``length`` seconds.

    One that begins with the recording and is ``alone`` in it should be all of it; any other is a
    segment and may end anywhere in it.
    """
    end = length if utterance.duration is None else utterance.start + utterance.duration
    if end <= utterance.start:
        return [f"there is nothing between {utterance.start:.2f} s and {end:.2f} s"]
    if utterance.start == 0 and alone:
        wrong = abs(end - length) > DURATION_TOLERANCE
        return [f"'duration' is {end:.2f} s, but the recording lasts {length:.2f} s"] if wrong else []
    wrong = end > length + DURATION_TOLERANCE
    return [f"ends at {end:.2f} s, but the recording lasts {length:.2f} s"] if wrong else []


def _try_line(line: str, manifest: Path, number: int) -> Utterance | ManifestError:
    try:
        return parse_line(line, manifest, number)
    except ManifestError as error:
        return error


def _take(keys: dict[str, Any], name: str, kind: type, where: str) -> Any:
    """Remove ``name`` from ``keys`` and return it, checked to be of ``kind``; ``None`` when absent."""
    value = keys.pop(name, None)
    if value is None:
        return None
    if kind is str and name in ("id", "speaker") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # numbers as ids are common in the wild
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number and abs(value) < 1e9:  # the bound keeps out Infinity and NaN
        return float(value)
    if kind is float or not isinstance(value, kind):
        wanted = "a number of seconds" if kind is float else "a string"
        raise ManifestError(f"{where}: {name!r} is {value!r}, not {wanted}")
    return value
