"""Hypotheses paired with their references: by id, by the name of the recording, by time, or by position."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from asr.audio.sources import ENDINGS as AUDIO_ENDINGS
from asr.data.manifest import Utterance
from asr.scoring.alternatives import NIST_FORMATS
from asr.scoring.counts import ScoringError
from asr.scoring.files import ENDINGS, Texts
from asr.scoring.nist import pair_by_time, pair_in_any_case

ALL_ENDINGS = {*AUDIO_ENDINGS, *ENDINGS, ".textgrid", ".lab"}
MOST_PARTS = 8  # folders of a name that are compared


def pair_texts(references: Texts, hypotheses: Texts) -> Texts:
    """Give hypotheses the ids of their references.

    Plain lines are paired by position and must be as many as the references; the words of a CTM file are
    paired with the segments of an STM file by the time of their middle; all others are paired by id, in
    NIST's formats in any case, and those with other ids by the names of their recordings.
    Raises ``ScoringError`` for files that do not belong together.
    """
    if "lines" in (references.format, hypotheses.format):
        return pair_by_position(references, hypotheses)
    if references.format == "stm":
        if hypotheses.format == "ctm":
            paired = pair_by_time(references.utterances, references.ignored, hypotheses.utterances)
            return Texts(hypotheses.path, hypotheses.format, paired)
        raise ScoringError("references in STM are paired by time and need hypotheses in CTM")
    if references.format in NIST_FORMATS or hypotheses.format in NIST_FORMATS:
        paired = pair_in_any_case(references.utterances, hypotheses.utterances)
        hypotheses = Texts(hypotheses.path, hypotheses.format, paired)
    paired = pair_by_name(references.utterances, hypotheses.utterances)
    return Texts(hypotheses.path, hypotheses.format, paired)


def pair_by_position(references: Texts, hypotheses: Texts) -> Texts:
    """Give the n-th hypothesis the id of the n-th reference."""
    wanted, found = len(references.utterances), len(hypotheses.utterances)
    if wanted != found:
        raise ScoringError(
            f"{found} texts for {wanted} references: plain lines are paired by position and must be as many"
        )
    pairs = zip(references.utterances, hypotheses.utterances, strict=True)
    renamed = [
        Utterance(left.id, right.audio, right.start, right.duration, right.text, right.speaker, right.extra)
        for left, right in pairs
    ]
    return Texts(hypotheses.path, hypotheses.format, renamed)


def looks_like_kaldi(references: Texts, hypotheses: Texts) -> bool:
    """Whether most plain lines begin with ids of the other file, or in both files with the same ids.

    In any order; at least two, all different and each with a digit, so that no words are taken for ids.
    """
    if "lines" not in (references.format, hypotheses.format):
        return False
    left, right = (
        [utterance.text.split(maxsplit=1)[:1] for utterance in texts.utterances]
        if texts.format == "lines"
        else [[utterance.id] for utterance in texts.utterances]
        for texts in (references, hypotheses)
    )
    distinct = [{name for names in every for name in names} for every in (left, right)]
    if [*map(len, distinct)] != [len(left), len(right)]:
        return False
    shared = distinct[0] & distinct[1]
    numbered = all(re.search(r"\d", name) for name in shared)
    return numbered and len(shared) > max(1, len(left) / 2, len(right) / 2)


def pair_by_name(references: Sequence[Utterance], hypotheses: Sequence[Utterance]) -> list[Utterance]:
    """Give hypotheses whose ids no reference has the id of the reference with the same recording.

    ``calls/a.flac`` is ``/data/calls/a.wav`` and ``a``. As much as possible of the paths is compared, with
    and then without endings; what several on one side have in common pairs nothing.
    """
    known = {utterance.id for utterance in references}
    strangers = [utterance for utterance in hypotheses if utterance.id not in known]
    if not strangers:
        return list(hypotheses)
    taken = {utterance.id for utterance in hypotheses} & known
    free = [utterance for utterance in references if utterance.id not in taken]
    names: dict[str, str] = {}
    for with_ending in (True, False):
        for parts in range(MOST_PARTS, 0, -1):
            sides = [
                _index_names([u for u in side if u.id not in found], with_ending, parts)
                for side, found in ((free, names.values()), (strangers, names.keys()))
            ]
            names |= {sides[1][name]: sides[0][name] for name in sides[0].keys() & sides[1].keys()}
    return [replace(utterance, id=names.get(utterance.id, utterance.id)) for utterance in hypotheses]


def _index_names(utterances: Sequence[Utterance], with_ending: bool, parts: int) -> dict[str, str]:
    """Map the last ``parts`` of the names of recordings to ids, where only one utterance has them."""
    pairs = {
        (_shorten_name(name, with_ending, parts), utterance.id)
        for utterance in utterances
        for name in (utterance.id, utterance.audio)
        if name
    }
    counts = Counter(name for name, _ in pairs)
    return {name: id for name, id in pairs if counts[name] == 1}


def _shorten_name(name: str, with_ending: bool, parts: int) -> str:
    path = Path(name.replace("\\", "/"))
    if not with_ending and path.suffix.lower() in ALL_ENDINGS:
        path = path.with_suffix("")
    return "/".join(path.parts[-parts:])
