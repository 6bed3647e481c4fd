"""Why a recipe does not learn: a check of its data, then ten utterances to overfit.

A model that cannot overfit ten utterances will not learn ten thousand. Each fault is one sentence that
says what was seen and what to change.
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
from asr.errors import UserError
from asr.model.acoustic import AcousticModel, new_acoustic_model
from asr.model.ctc import frames_needed
from asr.text.tokenizer import NORMALISERS, TextError, Tokenizer, canonicalise, learn_tokenizer
from asr.training.augment import AugmentConfig
from asr.training.evaluation import is_alignable
from asr.training.examples import Example, Reader, training_examples
from asr.training.experiment import Experiment
from asr.training.judgement import Evaluation
from asr.training.run import Run, assemble_run, epoch_updates, read_manifests
from asr.training.selection import validate
from asr.training.steps import load_own_batches, take_step

UTTERANCES = 10
OVERFIT_CER = 0.05  # the CER up to which ten utterances count as overfitted
LOOK_STEPS = 25  # between two validations
SILENT_PEAK = 1e-3  # 60 dB below full scale
BLANK_RATE = 0.98
NAMES = 3  # ids listed before "and more"

Say = Callable[[str], None]


@dataclass(frozen=True)
class OverfitResult:
    """How training on the few utterances went."""

    losses: list[float]  # nats per utterance, of each step
    blank_rate: float  # of the last step
    cer: float | None
    texts: dict[str, str]  # the model's transcripts at the end, by utterance id

    @property
    def has_diverged(self) -> bool:
        """Whether the loss became infinite, or is far above where it began."""
        return not all(map(math.isfinite, self.losses)) or self.losses[-1] > 2 * self.losses[0]

    @property
    def has_overfitted(self) -> bool:
        """Whether the model overfits the utterances."""
        return self.cer is not None and self.cer <= OVERFIT_CER


def diagnose(experiment: Experiment, device: torch.device, say: Say, steps: int = 300) -> list[str]:
    """List everything wrong with a recipe and its data; nothing when it overfits ten utterances.

    ``say`` gets lines of news. Raises ``UserError`` for what makes it impossible to start.
    """
    if experiment.training.objective != "tokens":
        raise UserError("asr doctor looks at recipes that learn to transcribe: training.objective = 'tokens'")
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
        *check_symbols(tokenizer, valid, normalise),
        *check_texts(train, normalise),
        *check_lengths(model, examples),
    ]
    usable = [e for e in examples if is_alignable(e, count_frames(model, e))]
    if not usable:
        return faults
    few = [example.utterance for example in usable]
    plain = without_regularisation(experiment, steps)
    run = assemble_run(plain, Path("doctor"), device, tokenizer, few, few)
    faults += check_silence(run.data.train, run.data.read)
    return faults + explain_failure(experiment, overfit(run, steps, say))


def without_regularisation(experiment: Experiment, steps: int) -> Experiment:
    """The recipe without what makes overfitting harder: augmentation, dropout, decay, a schedule."""
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


def overfit(run: Run, steps: int, say: Say) -> OverfitResult:
    """Train on the run's few utterances until the model overfits them or ``steps`` are over."""
    losses: list[float] = []
    metrics = {"blank_rate": 0.0}
    evaluation: Evaluation | None = None
    while len(losses) < steps:
        updates = epoch_updates(run)
        loaded = load_own_batches(run, updates)
        for update in updates:
            metrics, _ = take_step(run, update, [next(loaded) for _ in update])
            losses.append(metrics["loss"])
            if len(losses) % LOOK_STEPS == 0:
                measured = validate(run)
                assert isinstance(measured, Evaluation)
                evaluation = measured
                say(f"step {len(losses)}: loss {losses[-1]:.3f}, {evaluation.summary}")
        done = evaluation is not None and (evaluation.comparison.rates["cer"] or 0.0) <= OVERFIT_CER / 10
        if done or not math.isfinite(losses[-1]):
            break
        run.progress.epoch += 1
    final = validate(run)
    assert isinstance(final, Evaluation)
    return OverfitResult(
        losses=losses,
        blank_rate=float(metrics["blank_rate"]),
        cer=final.comparison.rates["cer"],
        texts={name: hypothesis.text for name, hypothesis in final.hypotheses.items()},
    )


# --- what can be wrong with the data --------------------------------------------------------------


def check_symbols(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], normalise: Callable[[str], str]
) -> Iterator[str]:
    """Report validation texts with symbols that no training text has."""
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
                f"lacks ({listed}), in {name_some(names)}; make it of all manifests with asr lexicon"
            )
            return
        yield (
            f"vocabulary mismatch: {len(names)} of {len(utterances)} validation texts have symbols that no "
            f"training text has ({listed}), in {name_some(names)}; choose a text.normaliser that removes the "
            "difference (letters-v1 for English), or train on texts that have them"
        )


def check_texts(utterances: Sequence[Utterance], normalise: Callable[[str], str]) -> Iterator[str]:
    """Report training texts of which the normaliser leaves nothing."""
    names = [u.id for u in utterances if not canonicalise(normalise(u.text))]
    if names:
        yield (
            f"no text: nothing is left of {len(names)} of {len(utterances)} training texts after "
            f"normalisation ({name_some(names)}); is text.normaliser the right one for this language?"
        )


def check_lengths(model: AcousticModel, examples: Sequence[Example]) -> Iterator[str]:
    """Report utterances with fewer frames than CTC needs for their tokens."""
    frames = [count_frames(model, example) for example in examples]
    short = [(e, n) for e, n in zip(examples, frames, strict=True) if not is_alignable(e, n)]
    if short:
        example, count = short[0]
        needed = frames_needed(example.tokens or ())
        yield (
            f"too few frames: {len(short)} of {len(examples)} utterances have fewer frames than their tokens "
            f"need ({example.utterance.id}: {example.duration:.2f} s are {count} frames, its text needs "
            f"{needed}); a frame lasts {1000 * model.frame_seconds:g} ms: use a front_end that leaves more "
            "frames, a shorter hop or bpe tokens; or the texts belong to other recordings"
        )


def count_frames(model: AcousticModel, example: Example) -> int:
    """Count the rows of log-probs of an utterance."""
    return model.num_frames(int(example.duration * model.sample_rate))


def check_silence(examples: Sequence[Example], read: Reader) -> Iterator[str]:
    """Report utterances that are silent."""
    peaks = {e.utterance.id: float(np.abs(read(e.utterance)).max(initial=0.0)) for e in examples}
    names = [name for name, peak in peaks.items() if peak < SILENT_PEAK]
    if names:
        yield (
            f"silent audio: {len(names)} of {len(examples)} utterances stay 60 dB below full scale or more "
            f"({name_some(names)}); listen to them: are the channel, the offset and the file the right ones?"
        )


def name_some(names: Sequence[str]) -> str:
    """List the first few of many names."""
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")


# --- what can be wrong with the training ----------------------------------------------------------


def explain_failure(experiment: Experiment, trace: OverfitResult) -> list[str]:
    """Explain why the model does not overfit the utterances; nothing when it does."""
    training = experiment.training
    count, first, last = len(trace.losses), trace.losses[0], trace.losses[-1]
    if trace.has_overfitted:
        return []
    if trace.has_diverged:
        return [
            f"diverging: the loss went from {first:.1f} to {last:.1f} in {count} steps; lower "
            f"training.learning_rate (it is {training.learning_rate:g}), set training.clip_norm "
            f"(it is {training.clip_norm:g}) or let the rate rise over more training.warmup_steps"
        ]
    if trace.blank_rate > BLANK_RATE or not any(trace.texts.values()):
        return [
            f"all blank: after {count} steps {100 * trace.blank_rate:.0f} % of the frames say blank and the "
            f"loss is {last:.1f} (it began at {first:.1f}): the model cannot tell its inputs apart, is too "
            "small or learns too slowly; raise training.learning_rate or encoder.size, or look at the "
            "recordings with asr features --plot"
        ]
    return [
        f"not learned: after {count} steps {100 * (trace.cer or 0.0):.0f} % of the characters are wrong, the "
        f"loss went from {first:.1f} to {last:.1f}; if it still falls, raise training.learning_rate or "
        "--steps; if not, the texts may belong to other recordings"
    ]
