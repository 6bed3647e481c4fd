"""Training a recurrent language model: sentences in pieces to a model, resumed bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.core.config import section
from asr.core.recurrence import LSTMWeights
from asr.lm.counting import read_corpus
from asr.lm.recurrent import RecurrentConfig, RecurrentModel
from asr.lm.spelling import learn_corpus_pieces, spell_corpus
from asr.model.language import LanguageNetwork
from asr.text.pieces import END_PIECE, Pieces
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

LONGEST = 128  # pieces of a sentence; what is longer is cut


@dataclass(frozen=True)
class LanguageExperiment:
    """All of the recipe of a recurrent language model."""

    network: RecurrentConfig = section(RecurrentConfig)
    training: TextTraining = section(TextTraining)


@dataclass(frozen=True, eq=False)
class Sentences:
    """A text in pieces: sentence ``n`` is ``pieces[bounds[n]:bounds[n + 1]]``, its end included."""

    pieces: np.ndarray  # uint16
    bounds: np.ndarray  # int64

    def __len__(self) -> int:
        return len(self.bounds) - 1


def train_language_model(
    experiment: LanguageExperiment, blocks: Iterable[bytes], folder: Path, say: Say = print
) -> RecurrentModel:
    """Train in ``folder``, from nothing or from its newest sound checkpoint, to the last step.

    ``blocks`` are those of ``asr.lm.text.read_sentences``. SIGINT and SIGTERM save a checkpoint and raise
    ``TrainingStopped``. A run that was killed resumes and ends with exactly the weights of one that was not.

    Raises ``UserError`` when the folder belongs to another experiment or text, ``CheckpointError`` when every
    checkpoint is damaged.
    """
    with open_run_folder(experiment, folder, say) as checkpoint:
        corpus = read_corpus(blocks)
        if checkpoint is None:
            pieces = learn_corpus_pieces(corpus, experiment.network.pieces)
        else:
            pieces = restore_pieces(checkpoint)
        sentences = cut_sentences(spell_corpus(corpus, pieces))
        say(f"{len(sentences):,} sentences, {len(sentences.pieces):,} pieces")
        task = make_task(experiment, pieces, sentences)
        run_task(experiment, folder, task, checkpoint, say)
    assert isinstance(task.network, LanguageNetwork)
    return to_recurrent_model(task.network, pieces)


def make_task(experiment: LanguageExperiment, pieces: Pieces, sentences: Sentences) -> TextTask:
    """Make what is trained on what."""
    training = experiment.training
    torch.manual_seed(training.seed)
    network = LanguageNetwork(experiment.network, len(pieces))
    use_tiles = can_use_tiles(training, experiment.network.size)

    def compute_loss(batch: np.ndarray) -> tuple[Tensor, int]:
        inputs, targets, lengths = load_batch(sentences, batch)
        states = network(inputs, lengths, use_tiles)
        is_real = torch.arange(states.shape[1]) < lengths[:, None]
        loss = network.loss(states[is_real].float(), targets[is_real], use_tiles)
        return loss, int(lengths.sum())

    return TextTask(
        network,
        lambda epoch: plan_by_length(np.diff(sentences.bounds), training, epoch),
        compute_loss,
        hashlib.sha256(sentences.pieces.tobytes()).hexdigest(),
        pieces,
    )


def cut_sentences(spelled: np.ndarray) -> Sentences:
    """Find the sentences of a spelled text; those of more than ``LONGEST`` pieces are cut."""
    ends = np.flatnonzero(spelled == END_PIECE) + 1
    bounds = np.concatenate([[0], ends])
    if (np.diff(bounds) > LONGEST).any():
        parts = [np.arange(*span, LONGEST) for span in pairwise(bounds)]
        bounds = np.concatenate([*parts, bounds[-1:]])
    return Sentences(spelled, bounds.astype(np.int64))


def load_batch(sentences: Sentences, batch: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Load a batch: pieces to read and to predict, ``(rows, steps)`` each, and lengths ``(rows,)``."""
    lengths = sentences.bounds[batch + 1] - sentences.bounds[batch]
    steps = int(lengths.max())
    places = sentences.bounds[batch][:, None] + np.arange(steps)
    targets = sentences.pieces[np.minimum(places, len(sentences.pieces) - 1)].astype(np.int64)
    before = np.maximum(sentences.bounds[batch] - 1, 0)  # an end, or a piece of a cut sentence
    first = np.where(sentences.bounds[batch] == 0, END_PIECE, sentences.pieces[before])
    inputs = np.concatenate([first[:, None].astype(np.int64), targets[:, :-1]], axis=1)
    return torch.from_numpy(inputs), torch.from_numpy(targets), torch.from_numpy(lengths)


def to_recurrent_model(network: LanguageNetwork, pieces: Pieces) -> RecurrentModel:
    """Make the model that needs no torch."""
    layers = tuple(LSTMWeights(*copy_lstm(layer)) for layer in network.layers)
    embedding = network.embedding.weight.detach().numpy().copy()
    return RecurrentModel(network.config, pieces, embedding, layers, network.bias.detach().numpy().copy())
