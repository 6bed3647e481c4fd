"""Training a tagger of punctuation and capitals on prose, resumed bit for bit, and measuring one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asr.core.config import section
from asr.core.recurrence import LSTMWeights
from asr.errors import UserError
from asr.model.tagger import TaggerNetwork
from asr.text.marks import MARKS, QUESTION, STOP, MarkedWord, read_marked_words
from asr.text.pieces import END_PIECE, Pieces, learn_pieces
from asr.text.punctuation import Tagger, TaggerConfig
from asr.training.text_run import (
    Say,
    TextTask,
    TextTraining,
    can_use_tiles,
    copy_lstm,
    open_run_folder,
    plan_by_length,
    restore_pieces,
    run_task,
)

LONGEST = 128  # pieces of a stretch that is learned from
MOST_SENTENCES = 6  # in it
IGNORED = -100  # cross entropy's word for a class that does not count


@dataclass(frozen=True)
class PunctuationExperiment:
    """All of the recipe of a tagger."""

    network: TaggerConfig = section(TaggerConfig)
    training: TextTraining = section(TextTraining)


@dataclass(frozen=True, eq=False)
class MarkedText:
    """A text in pieces with what is to be learned: classes at the last piece of each word, else ``IGNORED``.

    ``ends`` are the places behind sentences.
    """

    pieces: np.ndarray  # uint16
    marks: np.ndarray  # int8
    cases: np.ndarray  # int8
    ends: np.ndarray  # int64


def train_tagger(
    experiment: PunctuationExperiment, paragraphs: Iterable[str], folder: Path, say: Say = print
) -> Tagger:
    """Train in ``folder``, from nothing or from its newest sound checkpoint, to the last step.

    ``paragraphs`` are prose with its punctuation. Signals, resuming and errors are those of
    ``asr.training.language.train_language_model``.
    """
    with open_run_folder(experiment, folder, say) as checkpoint:
        words = [word for paragraph in paragraphs for word in read_marked_words(paragraph)]
        if not words:
            raise UserError("the text has no prose: there is nothing to learn punctuation from")
        if checkpoint is None:
            pieces = learn_pieces(Counter(word.text for word in words), experiment.network.pieces)
        else:
            pieces = restore_pieces(checkpoint)
        text = spell_words(words, pieces)
        say(f"{len(words):,} words, {len(text.pieces):,} pieces, {len(text.ends):,} sentences")
        del words
        task = make_task(experiment, pieces, text)
        run_task(experiment, folder, task, checkpoint, say)
    assert isinstance(task.network, TaggerNetwork)
    return to_tagger(task.network, pieces)


def spell_words(words: Sequence[MarkedWord], pieces: Pieces) -> MarkedText:
    """Spell marked words. The case of a word that begins a sentence says nothing and is not learned."""
    spellings = {text: pieces.spell(text) or [END_PIECE] for text in {word.text for word in words}}
    lengths = np.array([len(spellings[word.text]) for word in words])
    last = np.cumsum(lengths) - 1
    flat = np.array([piece for word in words for piece in spellings[word.text]], np.uint16)
    marks, cases = np.full(len(flat), IGNORED, np.int8), np.full(len(flat), IGNORED, np.int8)
    marks[last] = [word.mark for word in words]
    ends_sentence = np.array([word.mark in (STOP, QUESTION) for word in words])
    begins = np.concatenate([[True], ends_sentence[:-1]])
    cases[last] = np.where(begins, IGNORED, [word.case for word in words])
    ends_sentence[-1] = True
    return MarkedText(flat, marks, cases, (last[ends_sentence] + 1).astype(np.int64))


def make_task(experiment: PunctuationExperiment, pieces: Pieces, text: MarkedText) -> TextTask:
    """Make what is trained on what."""
    training = experiment.training
    torch.manual_seed(training.seed)
    network = TaggerNetwork(experiment.network, len(pieces))
    use_tiles = can_use_tiles(training, experiment.network.size)
    spans: dict[int, np.ndarray] = {}

    def plan(epoch: int) -> list[np.ndarray]:
        spans.clear()
        spans[epoch] = cut_stretches(text.ends, training.seed, epoch)
        lengths = spans[epoch][:, 1] - spans[epoch][:, 0]
        return [spans[epoch][rows] for rows in plan_by_length(lengths, training, epoch)]

    def compute_loss(batch: np.ndarray) -> tuple[Tensor, int]:
        inputs, marks, cases, lengths = load_batch(text, batch)
        scores = network(inputs, lengths, use_tiles).flatten(0, 1)
        loss = F.cross_entropy(scores[:, : len(MARKS)], marks.flatten(), reduction="sum")
        loss = loss + F.cross_entropy(scores[:, len(MARKS) :], cases.flatten(), reduction="sum")
        return loss, max(1, int((marks != IGNORED).sum()))

    digest = hashlib.sha256(text.pieces.tobytes() + text.marks.tobytes() + text.cases.tobytes()).hexdigest()
    return TextTask(network, plan, compute_loss, digest, pieces)


def cut_stretches(ends: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Cut a text into stretches of some sentences each, ``(stretches, 2)`` places of pieces.

    How many sentences is drawn: a recording may hold one, or a whole story. What is too long is cut anywhere.
    """
    generator = np.random.default_rng([seed, epoch, 1])
    counts = generator.integers(1, MOST_SENTENCES + 1, len(ends))
    borders, place = [0], 0
    for count in counts:
        first = place
        place = min(len(ends), place + int(count))
        while place > first + 1 and ends[place - 1] - borders[-1] > LONGEST:
            place -= 1
        borders += [*range(borders[-1] + LONGEST, int(ends[place - 1]), LONGEST), int(ends[place - 1])]
        if place == len(ends):
            break
    return np.stack([borders[:-1], borders[1:]], axis=1)


def load_batch(text: MarkedText, spans: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Load stretches: pieces, marks and cases, ``(rows, steps)`` each, and lengths ``(rows,)``."""
    lengths = spans[:, 1] - spans[:, 0]
    steps = np.arange(int(lengths.max()))
    is_real = steps < lengths[:, None]
    places = np.where(is_real, spans[:, :1] + steps, 0)
    inputs = torch.from_numpy(text.pieces[places].astype(np.int64))
    marks, cases = (
        torch.from_numpy(np.where(is_real, classes[places], IGNORED).astype(np.int64))
        for classes in (text.marks, text.cases)
    )
    return inputs, marks, cases, torch.from_numpy(lengths)


def to_tagger(network: TaggerNetwork, pieces: Pieces) -> Tagger:
    """Make the tagger that needs no torch."""
    layers = tuple(
        (LSTMWeights(*copy_lstm(layer[0])), LSTMWeights(*copy_lstm(layer[1])))  # type: ignore[index]
        for layer in network.layers
    )
    embedding, output, bias = (
        value.detach().numpy().copy()
        for value in (network.embedding.weight, network.output.weight, network.output.bias)
    )
    return Tagger(network.config, pieces, embedding, layers, output, bias)
