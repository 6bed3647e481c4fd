"""From public corpora to manifests: one module per layout in which corpora are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asr.data.corpora import (
    commonvoice,
    folder,
    fsdd,
    huggingface,
    kaldi,
    librispeech,
    ljspeech,
    table,
    webdataset,
)
from asr.data.corpora.recordings import fill_in_durations
from asr.data.manifest import Utterance

LAYOUTS: dict[str, Callable[[Path, Path], dict[str, list[Utterance]]]] = {
    "librispeech": librispeech.prepare,
    "commonvoice": commonvoice.prepare,
    "ljspeech": ljspeech.prepare,
    "kaldi": kaldi.prepare,
    "fsdd": fsdd.prepare,
    "folder": folder.prepare,
    "csv": table.prepare,
    "huggingface": huggingface.prepare,
    "webdataset": webdataset.prepare,
}


def prepare(layout: str, corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """The utterances of every split of the corpus in the folder ``corpus``, with their durations.

    A split's name is the path of its manifest below ``out``, without ``.jsonl``. Layouts
    that make audio of their own put it below ``out`` as well.

    Recordings that are missing or cannot be read are left out with a warning. Raises ``CorpusError`` when
    the folder does not hold such a corpus, or none of its recordings.
    """
    return fill_in_durations(LAYOUTS[layout](corpus, out))
