"""What the layouts share: finding recordings whatever their ending, and how long they last."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from tqdm import tqdm

from asr.audio.reading import measure_duration
from asr.audio.sources import AudioError, is_recording
from asr.data.manifest import Utterance
from asr.data.tars import to_source
from asr.errors import UserError

MOST_NAMES = 10  # of missing recordings in a message

log = logging.getLogger(__name__)


class CorpusError(UserError):
    """A folder that does not hold the corpus it should; names the file and what was expected."""


def find_recordings(utterances: Sequence[Utterance], folders: Sequence[Path] = (Path(),)) -> list[Utterance]:
    """The utterances with ``audio`` changed from the published name to a file that exists.

    Names are looked up below each of ``folders`` in turn. A copy may have been re-encoded: where
    ``84-1.flac`` is missing, ``84-1`` with any other audio ending is taken.

    Utterances whose recordings are missing are left out with a warning. Raises ``CorpusError`` with the
    first of them where all are missing.
    """
    listing = cache(_list_files)  # asking the disk about every file would take longer than reading them

    def find(name: str) -> str:
        for path in (folder / name for folder in folders):
            files = listing(path.parent)
            if path.name in files or path.stem in files:
                return files.get(path.name) or files[path.stem]
        return ""

    found = [replace(utterance, audio=find(utterance.audio)) for utterance in utterances]
    missing = [wanted.audio for wanted, there in zip(utterances, found, strict=True) if not there.audio]
    if missing and len(missing) == len(utterances):
        starts = ", ".join(str(folder.resolve()) for folder in folders)
        raise CorpusError(
            f"{missing[0]}: no such recording, with any audio ending (relative names start at {starts}); "
            f"missing: {len(missing)} of {len(utterances)} recordings"
        )
    if missing:
        log.warning(
            "left out: %d of %d recordings are missing: %s%s",
            *(len(missing), len(utterances)),
            *(", ".join(missing[:MOST_NAMES]), ", ..." if len(missing) > MOST_NAMES else ""),
        )
    return [utterance for utterance in found if utterance.audio]


def _list_files(folder: Path) -> dict[str, str]:
    """The files in ``folder`` by their names, recordings by their stems as well."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    names = {path.name: str(path) for path in files}
    return names | {path.stem: str(path) for path in files if is_recording(path)}


def measure_recordings(names: Iterable[str]) -> tuple[dict[str, float], list[AudioError]]:
    """The seconds of every recording, and what is wrong with those that cannot be read."""
    lengths, faults = {}, []
    # disable=None: a bar only on a terminal
    for name in tqdm(sorted(names), desc="durations", unit=" recordings", leave=False, disable=None):
        try:
            lengths[name] = measure_duration(to_source(name))
        except AudioError as error:
            faults.append(error)
    return lengths, faults


def fill_in_durations(splits: dict[str, list[Utterance]]) -> dict[str, list[Utterance]]:
    """The splits with every unknown ``duration`` measured.

    Utterances whose recordings cannot be read are left out with a warning each, and so are splits of which
    nothing is left. Raises ``CorpusError`` with the first of them where nothing is left at all.
    """
    unknown = {u.audio for utterances in splits.values() for u in utterances if u.duration is None}
    lengths, faults = measure_recordings(unknown)
    readable = {
        split: [u for u in utterances if u.duration is not None or u.audio in lengths]
        for split, utterances in splits.items()
    }
    if faults and not any(readable.values()):
        more = f"; unreadable: {len(faults)} of {len(unknown)} recordings" if len(faults) > 1 else ""
        raise CorpusError(f"{faults[0]}{more}")
    for fault in faults:
        log.warning("left out: %s", fault)
    for split in [split for split, utterances in readable.items() if not utterances and splits[split]]:
        log.warning("left out: the split %s, of which no recording can be read", split)
        del readable[split]

    def with_duration(utterance: Utterance) -> Utterance:
        if utterance.duration is not None:
            return utterance
        rest = lengths[utterance.audio] - utterance.start
        return replace(utterance, duration=round(max(rest, 0.0), 6))

    return {split: [with_duration(utterance) for utterance in readable[split]] for split in readable}
