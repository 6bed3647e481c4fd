"""Kaldi data directories: ``wav.scp``, ``text`` and, where there are any, ``segments`` and ``utt2spk``."""

from __future__ import annotations

from pathlib import Path

from asr.data.corpora.recordings import CorpusError, find_recordings
from asr.data.manifest import Utterance, read_numbered_lines


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """One split per data directory, named after it: ``corpus`` itself, or else all directly below it.

    The file ``text`` says which utterances there are. Relative names of recordings start at the
    data directory, at the folder above it, or at the current one. Shell commands in ``wav.scp``
    are refused: reading a corpus runs nothing.
    """
    corpus = corpus.resolve()  # a split is named after its folder, which "." does not tell
    lists = [corpus / "wav.scp"] if (corpus / "wav.scp").is_file() else sorted(corpus.glob("*/wav.scp"))
    if not lists:
        raise CorpusError(
            f"{corpus}: is not a Kaldi data directory: expected wav.scp and text, in it or in its sub-folders"
        )
    return {path.parent.name: _read_utterances(path.parent) for path in lists}


def _read_utterances(folder: Path) -> list[Utterance]:
    recordings = _read_table(folder / "wav.scp")
    for name, where in recordings.values():
        if name.startswith("|") or name.endswith("|"):
            raise CorpusError(
                f"{where}: is a shell command ({name}); put the file that it makes in its place"
            )
    segments = _read_table(folder / "segments") if (folder / "segments").is_file() else None
    speakers = _read_table(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    utterances = []
    for key, (text, where) in _read_table(folder / "text").items():
        if segments is None:
            recording, start, duration = key, 0.0, None
        elif key in segments:
            recording, start, duration = _parse_segment(*segments[key])
        else:
            raise CorpusError(f"{where}: utterance {key} is not in segments")
        if recording not in recordings:
            raise CorpusError(f"{where}: recording {recording} is not in wav.scp")
        audio, _ = recordings[recording]
        speaker, _ = speakers.get(key, ("", ""))
        utterances.append(Utterance(key, audio, start, duration, text, speaker))
    return find_recordings(utterances, folders=(folder, folder.parent, Path()))


def _read_table(path: Path) -> dict[str, tuple[str, str]]:
    """A file whose lines are a key, white space and a value: key -> value and ``file:line``."""
    table: dict[str, tuple[str, str]] = {}
    for number, line in read_numbered_lines(path):
        key, *value = line.split(maxsplit=1)
        where = f"{path}:{number}"
        if key in table:
            raise CorpusError(f"{where}: {key} is listed a second time")
        table[key] = ("".join(value).strip(), where)
    return table


def _parse_segment(value: str, where: str) -> tuple[str, float, float | None]:
    """Recording, start and duration of ``{recording} {start} {end}``; the end -1 is the recording's."""
    try:
        recording, start, end = value.split()
        begins, ends = float(start), float(end)
    except ValueError as error:
        raise CorpusError(f"{where}: is not '{{utterance}} {{recording}} {{start}} {{end}}'") from error
    if ends == -1:
        return recording, begins, None
    if not 0 <= begins < ends:
        raise CorpusError(f"{where}: the segment from {start} to {end} seconds is empty")
    return recording, begins, round(ends - begins, 6)
