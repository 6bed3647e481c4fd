"""LJSpeech: ``metadata.csv`` with lines ``id|text|text with numbers written out``, and ``wavs/``."""

from __future__ import annotations

from pathlib import Path

from asr.data.corpora.recordings import CorpusError, find_recordings
from asr.data.manifest import Utterance, read_numbered_lines

SPEAKER = "LJ"  # one reader, the LJ of every id


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """The one split ``all``, with the written-out text where there is one."""
    metadata = corpus / "metadata.csv"
    if not metadata.is_file():
        raise CorpusError(f"{corpus}: is not an LJSpeech folder: expected metadata.csv and wavs/")
    utterances = []
    for number, line in read_numbered_lines(metadata):
        name, *texts = line.split("|")
        if not texts:
            raise CorpusError(f"{metadata}:{number}: is not 'id|text|normalised text'")
        text = next((text for text in reversed(texts[:2]) if text), "").strip()
        utterances.append(Utterance(name, str(corpus / "wavs" / f"{name}.wav"), text=text, speaker=SPEAKER))
    return {"all": find_recordings(utterances)}
