"""Our comparisons as results of jiwer, and jiwer's as ours.

jiwer pairs texts by their place in two lists, we by utterance id. Both align as rapidfuzz does, so that the
counts are the same either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from asr.scoring.counts import Comparison, ScoringError, compare_texts, index_by_id, split_words

if TYPE_CHECKING:
    from jiwer import AlignmentChunk, WordOutput

TYPES = {  # from our kinds to jiwer's names
    "equal": "equal",
    "substitution": "substitute",
    "deletion": "delete",
    "insertion": "insert",
}


def to_jiwer(comparison: Comparison) -> WordOutput:
    """Turn a comparison of words into what ``jiwer.process_words`` returns, utterances in their order.

    Raises ``ScoringError`` where there is no word in the references, for which jiwer has no rates, and
    where words were spared, which it does not know.
    """
    from jiwer import WordOutput

    counts = comparison.words
    if not counts.reference_length:
        raise ScoringError("the references are empty: jiwer has no rates for them")
    if any(comparison.spared.values()):
        raise ScoringError("jiwer knows no words that may be left out")
    names = list(comparison.references)
    return WordOutput(
        references=[split_words(comparison.references[name]) for name in names],
        hypotheses=[split_words(comparison.hypotheses.get(name, "")) for name in names],
        alignments=[list_chunks(comparison, name) for name in names],
        wer=counts.error_rate,
        mer=counts.match_error_rate,
        wil=counts.word_information_lost,
        wip=1 - counts.word_information_lost,
        hits=counts.hits,
        substitutions=counts.substitutions,
        insertions=counts.insertions,
        deletions=counts.deletions,
    )


def list_chunks(comparison: Comparison, utterance: str) -> list[AlignmentChunk]:
    """List the alignment of an utterance as jiwer does: a chunk for each run of one kind."""
    from jiwer import AlignmentChunk

    chunks, reference, hypothesis = [], 0, 0
    for kind, run in groupby(step.kind for step in comparison.align(utterance)):
        length = len(list(run))
        ends = reference + length * (kind != "insertion"), hypothesis + length * (kind != "deletion")
        chunks.append(AlignmentChunk(TYPES[kind], reference, ends[0], hypothesis, ends[1]))
        reference, hypothesis = ends
    return chunks


def from_jiwer(output: WordOutput, names: Sequence[str] | None = None) -> Comparison:
    """Turn what ``jiwer.process_words`` returns into a comparison.

    The texts are those that jiwer compared, after its transformations. ``names`` are the utterance ids,
    ``"1"``, ``"2"`` and so on without them. Raises ``ScoringError`` when there are not as many as texts, or
    one comes twice.
    """
    names = names if names is not None else [str(number + 1) for number in range(len(output.references))]
    if len(names) != len(output.references):
        raise ScoringError(f"{len(names)} names for the {len(output.references)} texts of a result of jiwer")
    references, hypotheses = (
        index_by_id(zip(names, map(" ".join, side), strict=True))
        for side in (output.references, output.hypotheses)
    )
    return compare_texts(references, hypotheses)
