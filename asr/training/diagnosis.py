"""Why a recipe does not learn: ten utterances looked at and learned by heart, and what is wrong in words.

A model that cannot learn ten utterances by heart will not learn ten thousand. Each fault found here is
one sentence that names what was seen and what to change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from asr.data.manifest import Utterance
from asr.model.acoustic import AcousticModel, new_acoustic_model
from asr.model.ctc import frames_needed
from asr.text.tokenizer import NORMALISERS, TextError, Tokenizer, canonicalise, learn_tokenizer
from asr.training.augment import AugmentConfig
from asr.training.batching import Example, Reader, training_examples
from asr.training.evaluation import alignable
from asr.training.experiment import Experiment
from asr.training.loop import own_batches, step, validated
from asr.training.run import Run, assembled_run, epoch_updates, read_manifests

UTTERANCES = 10
LEARNED = 0.05  # CER below which ten utterances are known by heart
LOOK_STEPS = 25  # between two looks at the transcripts
SILENT_PEAK = 1e-3  # 60 dB below full scale
BLANK_RATE = 0.98
NAMES = 3  # ids told before "and more"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trace:
    """How learning by heart went."""

    losses: list[float]  # nats per utterance, of each step
    blank_rate: float  # of the last step
    cer: float | None
    texts: dict[str, str]  # what the model makes of the utterances in the end

    @property
    def diverged(self) -> bool:
        """Whether the loss left for infinity, or is far above where it began."""
        return not all(map(math.isfinite, self.losses)) or self.losses[-1] > 2 * self.losses[0]

    @property
    def learned(self) -> bool:
        """Whether the utterances are known by heart."""
        return self.cer is not None and self.cer <= LEARNED


def diagnose(experiment: Experiment, device: torch.device, say: Say, steps: int = 300) -> list[str]:
    """Everything found wrong with a recipe and its data; nothing when it learns ten utterances by heart.

    ``say`` is given news. Raises a ``UserError`` for what makes it impossible to begin.
    """
    train = read_manifests(experiment.data, experiment.data.train)
    valid = read_manifests(experiment.data, experiment.data.valid)
    normalise = NORMALISERS[experiment.text.normaliser]
    try:
        tokenizer = learn_tokenizer(
            experiment.text, (normalise(u.text) for u in train), experiment.data.folder
        )
    except TextError as error:
        return [str(error)]
    model = new_acoustic_model(experiment.model, len(tokenizer))
    ten = train[:: max(1, len(train) // UTTERANCES)][:UTTERANCES]
    examples = training_examples(ten, tokenizer, experiment.text)
    say(f"{len(train)} training utterances, {len(tokenizer)} tokens; looking at {len(ten)}")
    faults = [
        *foreign_symbols(tokenizer, valid, normalise),
        *empty_texts(train, normalise),
        *crowded(model, examples),
    ]
    usable = [e for e in examples if alignable(e, frames_of(model, e))]
    if not usable:
        return faults
    heard = [example.utterance for example in usable]
    run = assembled_run(undisturbed(experiment, steps), Path("doctor"), device, tokenizer, heard, heard)
    faults += silent(run.data.train, run.data.read)
    return faults + unlearned(experiment, learned_by_heart(run, steps, say))


def undisturbed(experiment: Experiment, steps: int) -> Experiment:
    """The recipe without what makes learning by heart harder: augmentation, dropout, decay, a schedule."""
    encoder = replace(experiment.encoder, dropout=0.0, input_dropout=0.0, recurrent_dropout=0.0, zoneout=0.0)
    training = replace(
        experiment.training,
        epochs=steps,
        schedule="constant",
        warmup_steps=min(20, experiment.training.warmup_steps),
        weight_decay=0.0,
        average_decay=0.0,
        average_best=1,
        patience=0,
        cache="",
    )
    return replace(experiment, encoder=encoder, training=training, augment=AugmentConfig())


def learned_by_heart(run: Run, steps: int, say: Say) -> Trace:
    """Train on the run's few utterances until they are known or ``steps`` are over."""
    losses: list[float] = []
    metrics = {"blank_rate": 0.0}
    evaluation = None
    while len(losses) < steps:
        updates = epoch_updates(run)
        loaded = own_batches(run, updates)
        for update in updates:
            metrics, _ = step(run, update, [next(loaded) for _ in update])
            losses.append(metrics["loss"])
            if len(losses) % LOOK_STEPS == 0:
                evaluation = validated(run)
                say(f"step {len(losses)}: loss {losses[-1]:.3f}, {evaluation.summary}")
        known = evaluation is not None and (evaluation.comparison.rates["cer"] or 0.0) <= LEARNED / 10
        if known or not math.isfinite(losses[-1]):
            break
        run.progress.epoch += 1
    evaluation = validated(run)
    return Trace(
        losses=losses,
        blank_rate=float(metrics["blank_rate"]),
        cer=evaluation.comparison.rates["cer"],
        texts={name: hypothesis.text for name, hypothesis in evaluation.hypotheses.items()},
    )


# --- what can be wrong with the data --------------------------------------------------------------


def foreign_symbols(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], normalise: Callable[[str], str]
) -> Iterator[str]:
    """Validation texts that the vocabulary of the training texts cannot write."""
    symbols: Counter[str] = Counter()
    names = []
    for utterance in utterances:
        foreign = tokenizer.find_unknown(normalise(utterance.text))
        symbols.update(foreign)
        if foreign:
            names.append(utterance.id)
    if names:
        listed = ", ".join(repr(symbol) for symbol, _ in symbols.most_common(8))
        if tokenizer.lexicon is not None:
            yield (
                f"lexicon too small: {len(names)} of {len(utterances)} validation texts have words that it "
                f"lacks ({listed}), in {some(names)}; make it of all manifests with asr lexicon"
            )
            return
        yield (
            f"vocabulary mismatch: {len(names)} of {len(utterances)} validation texts have symbols that no "
            f"training text has ({listed}), in {some(names)}; choose a text.normaliser that removes the "
            "difference (letters-v1 for English), or train on texts that have them"
        )


def empty_texts(utterances: Sequence[Utterance], normalise: Callable[[str], str]) -> Iterator[str]:
    """Training utterances of which the normaliser leaves nothing."""
    names = [u.id for u in utterances if not canonicalise(normalise(u.text))]
    if names:
        yield (
            f"no text: nothing is left of {len(names)} of {len(utterances)} training texts after "
            f"normalisation ({some(names)}); is the text.normaliser meant for this language?"
        )


def crowded(model: AcousticModel, examples: Sequence[Example]) -> Iterator[str]:
    """Utterances with fewer frames than CTC needs for their tokens."""
    frames = [frames_of(model, example) for example in examples]
    short = [(e, n) for e, n in zip(examples, frames, strict=True) if not alignable(e, n)]
    if short:
        example, count = short[0]
        needed = frames_needed(example.tokens or ())
        yield (
            f"too few frames: {len(short)} of {len(examples)} utterances have fewer frames than their tokens "
            f"need ({example.utterance.id}: {example.duration:.2f} s are {count} frames, its text needs "
            f"{needed}); a frame lasts {1000 * model.frame_seconds:g} ms: use a front_end that divides "
            "time less, a shorter hop or bpe tokens; or the texts belong to other recordings"
        )


def frames_of(model: AcousticModel, example: Example) -> int:
    """Rows of log-probs that an utterance gives."""
    return model.num_frames(int(example.duration * model.sample_rate))


def silent(examples: Sequence[Example], read: Reader) -> Iterator[str]:
    """Utterances in which there is nothing to hear."""
    peaks = {e.utterance.id: float(np.abs(read(e.utterance)).max(initial=0.0)) for e in examples}
    names = [name for name, peak in peaks.items() if peak < SILENT_PEAK]
    if names:
        yield (
            f"silent audio: {len(names)} of {len(examples)} utterances stay 60 dB below full scale or more "
            f"({some(names)}); listen to them: is the channel, the offset or the file the right one?"
        )


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")


# --- what can be wrong with the learning ----------------------------------------------------------


def unlearned(experiment: Experiment, trace: Trace) -> list[str]:
    """Why the utterances are not known by heart; nothing when they are."""
    training = experiment.training
    count, first, last = len(trace.losses), trace.losses[0], trace.losses[-1]
    if trace.learned:
        return []
    if trace.diverged:
        return [
            f"diverging: the loss went from {first:.1f} to {last:.1f} in {count} steps; lower "
            f"training.learning_rate (it is {training.learning_rate:g}), set training.clip_norm "
            f"(it is {training.clip_norm:g}) or let the rate rise over more training.warmup_steps"
        ]
    if trace.blank_rate > BLANK_RATE or not any(trace.texts.values()):
        return [
            f"all blank: after {count} steps {100 * trace.blank_rate:.0f} % of the frames say blank and the "
            f"loss is {last:.1f} (it began at {first:.1f}): the model hears no difference between its "
            "inputs, is too small or learns too slowly; raise training.learning_rate or encoder.size, or "
            "look at what asr features draws of the recordings"
        ]
    return [
        f"not learned: after {count} steps {100 * (trace.cer or 0.0):.0f} % of the characters are wrong, the "
        f"loss went from {first:.1f} to {last:.1f}; if it still falls, raise training.learning_rate or "
        "--steps; if not, the texts may not be those of the recordings"
    ]
