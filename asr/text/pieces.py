"""Words as sequences of pieces: a few thousand pieces spell every word, so that none is unknown.

The pieces are byte-pair encodings of words (Sennrich et al. 2016), learned and found by sentencepiece.
Piece 0 stands for characters that the text to learn from did not have, piece 1 for the end of a sentence.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from asr.core.files import quote_path
from asr.core.rounded import Format, read_rounded, write_rounded
from asr.errors import UserError

UNKNOWN_PIECE, END_PIECE = 0, 1
MOST_WORDS = 4_000_000  # of a text that pieces are learned from, by the counts of its words
WORDS_A_LINE = 1000
PIECES = "pieces"  # in the file of a network


class HasPieces(Protocol):
    """The options of a network that reads pieces."""

    @property
    def pieces(self) -> int:
        """How many there are."""


Config = TypeVar("Config", bound=HasPieces)


class Pieces:
    """A vocabulary of pieces; ``model`` is a serialised sentencepiece model.

    Raises ``ValueError`` for bytes that are none.
    """

    def __init__(self, model: bytes) -> None:
        import sentencepiece  # only recurrent models pay for it

        self.model = model
        try:
            self._processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("is damaged: its pieces are no sentencepiece model") from error
        if self._processor.unk_id() != UNKNOWN_PIECE or self._processor.eos_id() != END_PIECE:
            raise ValueError("is damaged: its pieces are not those of a language model")
        self._spellings: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._processor)

    @cached_property
    def surfaces(self) -> list[str]:
        """What each piece writes; a space begins a word."""
        return [self._processor.id_to_piece(piece).replace("▁", " ") for piece in range(len(self))]

    def spell(self, word: str) -> list[int]:
        """Return the pieces of a word, with ``UNKNOWN_PIECE`` for characters without one."""
        spelling = self._spellings.get(word)
        if spelling is None:
            spelling = self._spellings[word] = self._processor.encode(word)
        return spelling

    def spell_all(self, words: Sequence[str]) -> list[list[int]]:
        """Return the pieces of each word."""
        return self._processor.encode(list(words))

    def join(self, pieces: Sequence[int]) -> str:
        """Return the text that pieces write."""
        return "".join(self.surfaces[piece] for piece in pieces).strip()


def learn_pieces(counts: Mapping[str, int], size: int) -> Pieces:
    """Learn ``size`` pieces from words, each counted as often as a text has it.

    Raises ``UserError`` where there are too few words for so many.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_write_lines(counts),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            character_coverage=1.0,
            normalization_rule_name="identity",
            unk_id=UNKNOWN_PIECE,
            eos_id=END_PIECE,
            bos_id=-1,
            pad_id=-1,
            max_sentence_length=1 << 20,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).split(") ")[-1].strip()
        raise UserError(f"'network.pieces' = {size} does not fit the text: {reason}") from error
    return Pieces(model.getvalue())


def _write_lines(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield lines with each word as often as a text has it, or less often where that is too often."""
    share = min(1.0, MOST_WORDS / max(1, sum(counts.values())))
    for word, count in counts.items():
        left = max(1, round(share * count))
        while left > 0:
            yield " ".join([word] * min(left, WORDS_A_LINE))
            left -= WORDS_A_LINE


# --- networks that read pieces, in one file -----------------------------------------------------------


def write_network(
    kind: Format[Config], config: Config, weights: Mapping[str, np.ndarray], pieces: Pieces, path: str | Path
) -> None:
    """Write a network and its pieces, all of it or nothing."""
    write_rounded(kind, config, weights, {PIECES: pieces.model}, path)


def read_network(
    kind: Format[Config], path: str | Path, error: Callable[[str], UserError]
) -> tuple[Config, dict[str, np.ndarray], Pieces]:
    """Read options, weights and pieces; raises ``error`` naming the file where it is another, or damaged."""
    config, weights, blobs = read_rounded(kind, path, error)
    try:
        pieces = Pieces(blobs[PIECES])
    except ValueError as fault:
        raise error(f"{quote_path(path)}: {fault}") from fault
    if len(pieces) != config.pieces:
        raise error(f"{quote_path(path)}: is damaged: it has {len(pieces)} pieces, not {config.pieces}")
    return config, weights, pieces
