"""What pauses say of punctuation, learned from recordings with their written texts. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from asr.errors import UserError
from asr.longform.punctuating import measure_pauses
from asr.scoring.counts import align_items
from asr.text.marks import NONE, MarkedWord
from asr.text.punctuation import PAUSES
from asr.transcript.values import Word


def learn_pauses(texts: Iterable[tuple[Sequence[MarkedWord], Sequence[Word]]]) -> tuple[float, ...]:
    """Learn what a pause of each class adds to the log probability of a mark.

    It is how much likelier such a pause is behind a word with a mark than behind one without. Which mark is
    left to the tagger: hardly a recording has enough question marks to learn from.

    Args:
        texts: recordings, each as its written text and as its words were recognised. What is behind the last
            word of each is not known.

    Raises ``UserError`` where no recognised word has a mark behind it.
    """
    counts = np.ones((len(PAUSES) + 1, 2))  # so that what was never seen is not impossible
    for reference, words in texts:
        classes = np.digitize(measure_pauses(words)[:-1], PAUSES)
        steps = align_items([word.text for word in reference], [word.text for word in words])
        ahead = behind = 0
        for step in steps:
            if step.kind not in ("insertion", "deletion") and behind < len(classes):
                counts[classes[behind], int(reference[ahead].mark != NONE)] += 1
            ahead += step.kind != "insertion"
            behind += step.kind != "deletion"
    if counts[:, 1].sum() == len(counts):
        raise UserError("no recognised word has a mark behind it: there is nothing to learn of pauses")
    shares = np.log(counts / counts.sum(axis=0))
    return tuple(round(float(gain), 4) for gain in shares[:, 1] - shares[:, 0])
