"""How a ``Speller`` learns to pronounce: from the words of a dictionary, resumed bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr.core.config import section
from asr.errors import UserError
from asr.model.attention import attention_loss
from asr.model.precision import autocast
from asr.model.speller import USUAL_SPELLER, Speller, SpellerConfig, load_speller, pad_numbers, save_speller
from asr.recognition.folder import WEIGHTS_FILE
from asr.text.lexicon import Lexicon, Pronunciation
from asr.training.text_run import (
    Say,
    TextTask,
    TextTraining,
    can_use_tiles,
    open_run_folder,
    plan_by_length,
    run_task,
)

SMOOTHING = 0.1  # of labels

# Letters and phones are the pieces of a batch here.
USUAL_TRAINING = TextTraining(
    epochs=6, batch_pieces=4000, learning_rate=3e-3, warmup_steps=300, clip_norm=5.0
)


@dataclass(frozen=True)
class SpellingExperiment:
    """The network and how it is trained."""

    speller: SpellerConfig = section(SpellerConfig)
    training: TextTraining = section(TextTraining)


def make_experiment(dictionary: Lexicon) -> SpellingExperiment:
    """Make the usual experiment for a dictionary; raises ``UserError`` where no word has only letters."""
    pairs = list_pairs(dictionary)
    if not pairs:
        raise UserError("the dictionary has no word from which pronouncing can be learned")
    letters = tuple(sorted({letter for word, _ in pairs for letter in word}))
    phones = tuple(sorted({phone for _, said in pairs for phone in said}))
    return SpellingExperiment(replace(USUAL_SPELLER, letters=letters, phones=phones), USUAL_TRAINING)


def list_pairs(dictionary: Lexicon) -> list[tuple[str, Pronunciation]]:
    """List the words of letters and apostrophes with each of their pronunciations."""
    return [
        (word, phones)
        for word, variants in dictionary.words.items()
        if word.replace("'", "").isalpha()
        for phones in variants
    ]


def train_speller(
    dictionary: Lexicon, folder: Path, experiment: SpellingExperiment | None = None, say: Say = print
) -> Speller:
    """Open the network in ``folder``, or train it, from nothing or from its newest sound checkpoint.

    Checkpoints are in a folder beside it, whose name ends in ``.run``. Signals, resuming and errors are those
    of ``asr.training.language.train_language_model``.
    """
    if (folder / WEIGHTS_FILE).exists():
        return load_speller(folder)
    experiment = experiment or make_experiment(dictionary)
    run_folder = folder.with_name(folder.name + ".run")
    with open_run_folder(experiment, run_folder, say) as checkpoint:
        pairs = list_pairs(dictionary)
        say(f"{len(pairs):,} pronunciations")
        task = make_task(experiment, pairs)
        run_task(experiment, run_folder, task, checkpoint, say)
    assert isinstance(task.network, Speller)
    save_speller(task.network, folder)
    say(f"{folder}: ready; {run_folder} is no longer needed")
    return task.network.eval()


def make_task(experiment: SpellingExperiment, pairs: Sequence[tuple[str, Pronunciation]]) -> TextTask:
    """Make what is trained on what."""
    training = experiment.training
    torch.manual_seed(training.seed)
    speller = Speller(experiment.speller)
    words = [speller.encode_word(word) for word, _ in pairs]
    phones = [speller.encode_phones(said) for _, said in pairs]
    lengths = np.array([len(word) + len(said) for word, said in zip(words, phones, strict=True)])
    precision = "bfloat16" if can_use_tiles(training, experiment.speller.size) else "float32"

    def compute_loss(batch: np.ndarray) -> tuple[Tensor, int]:
        losses = compute_losses(speller, [words[i] for i in batch], [phones[i] for i in batch], precision)
        return losses.sum(), len(batch)

    return TextTask(
        speller,
        lambda epoch: plan_by_length(lengths, training, epoch),
        compute_loss,
        hashlib.sha256(repr(pairs).encode()).hexdigest(),
    )


def compute_losses(
    speller: Speller, words: Sequence[Sequence[int]], phones: Sequence[Sequence[int]], precision: str
) -> Tensor:
    """The loss of each word of a batch, nats, labels smoothed."""
    letters, lengths = pad_numbers(words)
    targets, counts = pad_numbers(phones)
    with autocast(letters.device, precision):
        log_probs = speller(letters, lengths, targets)
    return attention_loss(log_probs, targets, counts, SMOOTHING)
