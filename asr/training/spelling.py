"""How a ``Speller`` learns to pronounce: from the words of a dictionary, and so that a killed run goes on.

Batches, rates, clipping, optimiser and checkpoints are those of recognisers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from asr.core.config import section
from asr.errors import UserError
from asr.model.attention import attention_loss
from asr.model.precision import autocast
from asr.model.speller import USUAL_DECODER, Speller, SpellerConfig, load_speller, pad_numbers, save_speller
from asr.recognition.folder import WEIGHTS_FILE
from asr.text.lexicon import Lexicon, Pronunciation
from asr.training.batching import batch_sizes, plan_epoch
from asr.training.checkpoints import newest_checkpoint, write_checkpoint
from asr.training.experiment import TrainingConfig
from asr.training.optimisation import (
    clip_gradients,
    compute_learning_rate,
    new_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from asr.training.steps import batch_seed

# Letters are the seconds of a batch here; weights and rates are found on held-out words of CMUdict.
USUAL_TRAINING = TrainingConfig(
    epochs=5, batch_seconds=1500.0, learning_rate=3e-3, warmup_steps=300, weight_decay=0.01, clip_norm=5.0
)


@dataclass(frozen=True)
class SpellingExperiment:
    """The network and how it is trained."""

    speller: SpellerConfig = section(SpellerConfig)
    training: TrainingConfig = section(TrainingConfig)


def make_experiment(dictionary: Lexicon, epochs: int = USUAL_TRAINING.epochs) -> SpellingExperiment:
    """Make the usual experiment for a dictionary; raises ``UserError`` where no word has only letters."""
    pairs = list_pairs(dictionary)
    if not pairs:
        raise UserError("the dictionary has no word from which pronouncing can be learned")
    letters = tuple(sorted({letter for word, _ in pairs for letter in word}))
    phones = tuple(sorted({phone for _, said in pairs for phone in said}))
    config = SpellerConfig(letters=letters, phones=phones, decoder=USUAL_DECODER)
    return SpellingExperiment(config, replace(USUAL_TRAINING, epochs=epochs))


def list_pairs(dictionary: Lexicon) -> list[tuple[str, Pronunciation]]:
    """List the words of letters and apostrophes with each of their pronunciations."""
    return [
        (word, phones)
        for word, variants in dictionary.words.items()
        if word.replace("'", "").isalpha()
        for phones in variants
    ]


def train_speller(
    dictionary: Lexicon,
    folder: Path,
    experiment: SpellingExperiment | None = None,
    say: Callable[[str], None] = print,
    smoothing: float = 0.1,
) -> Speller:
    """Train in ``folder``, from nothing or from its newest sound checkpoint, and write the model there.

    ``say`` gets a line of news for every epoch. Raises ``UserError`` for a folder that was begun with other
    words or settings.
    """
    experiment = experiment or make_experiment(dictionary)
    if (folder / WEIGHTS_FILE).exists():
        return load_speller(folder)
    training = experiment.training
    torch.manual_seed(training.seed)
    speller = Speller(experiment.speller)
    pairs = list_pairs(dictionary)
    words = [speller.encode_word(word) for word, _ in pairs]
    phones = [speller.encode_phones(said) for _, said in pairs]
    optimizer = new_optimizer(speller, training)
    lengths = [float(len(word)) for word in words]
    total = training.epochs * len(batch_sizes(lengths, training.batch_seconds))
    step = resume_speller(speller, optimizer, experiment, folder, say)
    parameters = sum(p.numel() for p in speller.parameters())
    say(f"{len(pairs):,} pronunciations; {parameters:,} parameters; {total} steps")
    done = 0
    for epoch in range(training.epochs):
        plan = plan_epoch(lengths, training.batch_seconds, training.seed, epoch)
        if done + len(plan) <= step:
            done += len(plan)
            continue
        started, sums, count = time.monotonic(), 0.0, 0
        speller.train()
        for batch in plan[max(0, step - done) :]:
            torch.manual_seed(batch_seed(training.seed, step, 0))
            for group in optimizer.param_groups:
                group["lr"] = compute_learning_rate(step, total, training)
            losses = compute_losses(
                speller, [words[i] for i in batch], [phones[i] for i in batch], smoothing, training.precision
            )
            optimizer.zero_grad(set_to_none=True)
            losses.mean().backward()
            clip_gradients(list(speller.parameters()), training)
            optimizer.step()
            sums, count, step = sums + float(losses.detach().sum()), count + len(batch), step + 1
        done += len(plan)
        tensors = dict(speller.state_dict()) | {
            f"optimizer.{name}": value for name, value in optimizer_tensors(optimizer).items()
        }
        write_checkpoint(folder, step, tensors, {"step": step, "words": len(pairs)}, experiment)
        say(
            f"epoch {epoch + 1}/{training.epochs}: loss {sums / max(1, count):.4f} nats a word, "
            f"{time.monotonic() - started:.0f} s"
        )
    save_speller(speller, folder)
    return speller.eval()


def compute_losses(
    speller: Speller, words: list[list[int]], phones: list[list[int]], smoothing: float, precision: str
) -> Tensor:
    """The loss of each word of a batch, nats."""
    letters, lengths = pad_numbers(words)
    targets, counts = pad_numbers(phones)
    with autocast(letters.device, precision):
        log_probs = speller(letters, lengths, targets)
    return attention_loss(log_probs, targets, counts, smoothing)


def resume_speller(
    speller: Speller,
    optimizer: torch.optim.Optimizer,
    experiment: SpellingExperiment,
    folder: Path,
    say: Callable[[str], None],
) -> int:
    """Put the state of the newest checkpoint into ``speller`` and ``optimizer``; return its step, or 0."""
    checkpoint = newest_checkpoint(folder, say)
    if checkpoint is None:
        return 0
    prefix = "optimizer."
    own = {name: value for name, value in checkpoint.tensors.items() if not name.startswith(prefix)}
    try:
        speller.load_state_dict(own)
        restore_optimizer(
            optimizer,
            {n.removeprefix(prefix): v for n, v in checkpoint.tensors.items() if n.startswith(prefix)},
        )
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{checkpoint.path}: is of another dictionary or network; choose another folder"
        ) from error
    say(f"resuming at step {checkpoint.progress['step']}")
    return int(checkpoint.progress["step"])
