"""Tar files with recordings and their texts: WebDataset, and Lhotse's Shar."""

from __future__ import annotations

import re
from pathlib import Path

from asr.data.corpora.recordings import CorpusError
from asr.data.manifest import Utterance
from asr.data.tars import TAR, read_foreign

SPLITS = ("train", "dev", "valid", "validation", "val", "test")


def prepare(corpus: Path, out: Path) -> dict[str, list[Utterance]]:
    """The splits that the tar files are named after, as ``train-000001.tar``, or one split ``all``.

    The recordings stay where they are. Raises ``CorpusError`` for a folder without tar files, or without
    recordings in them.
    """
    tars = sorted(str(path) for path in corpus.glob(f"*{TAR}"))
    if not tars:
        raise CorpusError(f"{corpus}: holds no tar files: expected train-000000.tar and the like")
    splits: dict[str, list[Utterance]] = {}
    for tar in tars:
        name = re.sub(r"[-_.]?\d+$", "", Path(tar).stem)
        splits.setdefault(name if name in SPLITS else "all", []).extend(read_foreign([tar]))
    if not any(splits.values()):
        raise CorpusError(f"{tars[0]}: holds no recordings: expected KEY.flac and KEY.txt or KEY.json")
    return splits
