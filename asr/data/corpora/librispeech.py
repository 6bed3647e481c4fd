"""LibriSpeech: ``{split}/{speaker}/{chapter}/{speaker}-{chapter}.trans.txt`` and its recordings beside it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from asr.data.corpora.recordings import CorpusError, find_recordings
from asr.data.manifest import Utterance, read_numbered_lines


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """One split per folder; ``corpus`` may be the folder above ``LibriSpeech``, it, or one split of it."""
    corpus = corpus.resolve()  # a split is named after its folder, which "." does not tell
    for pattern in ("LibriSpeech/*/*/*/*.trans.txt", "*/*/*/*.trans.txt", "*/*/*.trans.txt"):
        transcripts = sorted(corpus.glob(pattern))
        if transcripts:
            by_split = groupby(transcripts, key=lambda path: path.parents[2])
            return {folder.name: _read_utterances(paths) for folder, paths in by_split}
    raise CorpusError(
        f"{corpus}: is not a LibriSpeech folder: expected {{split}}/{{speaker}}/{{chapter}}/*.trans.txt"
    )


def _read_utterances(transcripts: Iterable[Path]) -> list[Utterance]:
    """The utterances of one split, where every line is ``{id} {text}``."""
    utterances = []
    for transcript in transcripts:
        for _, line in read_numbered_lines(transcript):
            name, _, text = line.strip().partition(" ")
            audio = str(transcript.parent / f"{name}.flac")
            utterances.append(Utterance(name, audio, text=text, speaker=name.split("-")[0]))
    return find_recordings(utterances)
