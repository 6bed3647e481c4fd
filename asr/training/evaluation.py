"""How good a model is: its loss and its word error rate on a set of examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asr.model.ctc import ctc_loss, frames_needed
from asr.model.engine import unwrap_model, unwrap_network
from asr.model.features import unpad
from asr.recognition.recognizer import Recognizer
from asr.training.batching import Batch, load_batch, measure_speakers, read_ahead
from asr.training.distributed import Ranks
from asr.training.examples import Example, Plan, Reader, plan_by_duration
from asr.training.judgement import Evaluation, compare_hypotheses
from asr.transcript.values import Hypothesis

if TYPE_CHECKING:
    from asr.training.denominator import DenominatorGraph  # imports numba, which CTC alone does without


def evaluate(
    recognizer: Recognizer,
    examples: Sequence[Example],
    read: Reader,
    batch_seconds: float = 60.0,
    statistics: dict[str, tuple[Tensor, Tensor]] | None = None,
    progress: Callable[[int], object] = lambda utterances: None,
    ranks: Ranks = Ranks(),  # noqa: B008 - a frozen value
    denominator: DenominatorGraph | None = None,
) -> Evaluation:
    """Transcribe every example and score it against its normalised text, or against its phones.

    ``statistics`` are those of the speakers, for features that need them; they are measured here when not
    given. ``progress`` is called with the number of utterances done since the last call. Several ``ranks``
    share the work; each of them gets the whole result. With a ``denominator`` the CTC-CRF loss is measured
    as well.
    """
    if statistics is None:
        model = unwrap_model(recognizer)
        asked = model.config.features.normalisation == "speaker"
        statistics = measure_speakers(model.features, examples, read, batch_seconds) if asked else {}
    plan = plan_by_duration([example.duration for example in examples], batch_seconds)
    shares = ranks.gather(
        evaluate_batches(
            recognizer, examples, plan[ranks.rank :: ranks.size], read, statistics, progress, denominator
        )
    )
    hypotheses = {name: h for share in shares for name, h in share.hypotheses.items()}
    losses = [loss for share in shares for loss in share.losses]
    criteria = [criterion for share in shares for criterion in share.criteria]
    return Evaluation(
        hypotheses=hypotheses,
        comparison=compare_hypotheses(recognizer, examples, hypotheses),
        loss=sum(losses) / len(losses) if losses else None,
        audio_seconds=sum(share.audio_seconds for share in shares),
        compute_seconds=sum(share.compute_seconds for share in shares),
        criterion=sum(criteria) / len(criteria) if criteria else None,
    )


@dataclass
class Share:
    """The results of one process."""

    hypotheses: dict[str, Hypothesis] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)  # nats, of utterances that CTC can align
    criteria: list[float] = field(default_factory=list)  # the same by CTC-CRF, if there is a denominator
    audio_seconds: float = 0.0
    compute_seconds: float = 0.0


def evaluate_batches(
    recognizer: Recognizer,
    examples: Sequence[Example],
    plan: Plan,
    read: Reader,
    statistics: dict[str, tuple[Tensor, Tensor]],
    progress: Callable[[int], object],
    denominator: DenominatorGraph | None = None,
) -> Share:
    """Transcribe the batches of ``plan`` and measure their losses."""
    share, network, model = Share(), unwrap_network(recognizer), unwrap_model(recognizer)
    jobs = (partial(load_batch, [examples[i] for i in indices], read) for indices in plan)
    for indices, batch in zip(plan, read_ahead(jobs, workers=1), strict=True):
        started = time.monotonic()
        rows, frames = network.compute_rows(
            batch.samples, batch.sample_lengths, batch_statistics(statistics, batch, model.device)
        )
        found = recognizer.search(unpad(rows, frames))
        share.hypotheses |= dict(zip(batch.ids, found, strict=True))
        share.compute_seconds += time.monotonic() - started
        share.audio_seconds += float(batch.sample_lengths.sum()) / model.sample_rate
        tokens, token_lengths = batch.tokens.to(model.device), batch.token_lengths.to(model.device)
        usable = [is_alignable(examples[i], count) for i, count in zip(indices, frames.tolist(), strict=True)]
        log_probs = rows[:, :, : len(recognizer.tokenizer)]
        batch_loss = ctc_loss(log_probs, frames, tokens, token_lengths)
        share.losses += batch_loss[usable].tolist()
        if denominator is not None:
            from asr.training.crf import crf_loss

            criteria = crf_loss(batch_loss, log_probs, frames, tokens, token_lengths, denominator)
            share.criteria += criteria[usable].tolist()
        progress(len(batch.ids))
    return share


def compute_arrays(
    recognizer: Recognizer, examples: Sequence[Example], read: Reader, batch_seconds: float
) -> Iterator[dict[str, np.ndarray]]:
    """Compute the log-probs of every example by its id, batch by batch."""
    model, network = unwrap_model(recognizer), unwrap_network(recognizer)
    asked = model.config.features.normalisation == "speaker"
    statistics = measure_speakers(model.features, examples, read, batch_seconds) if asked else {}
    for indices in plan_by_duration([example.duration for example in examples], batch_seconds):
        batch = load_batch([examples[i] for i in indices], read)
        known = batch_statistics(statistics, batch, model.device)
        arrays = unpad(*network.compute_rows(batch.samples, batch.sample_lengths, known))
        yield {name: array.copy() for name, array in zip(batch.ids, arrays, strict=True)}


def is_alignable(example: Example, frames: int) -> bool:
    """Whether CTC can place the example's tokens on so many frames; never when it has no tokens."""
    return example.tokens is not None and frames >= frames_needed(example.tokens)


def batch_statistics(
    statistics: dict[str, tuple[Tensor, Tensor]], batch: Batch, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of each utterance's speaker, ``(batch, features)`` each.

    ``None`` where there are no ``statistics``.
    """
    if not statistics:
        return None
    means, stds = zip(*(statistics[speaker] for speaker in batch.speakers), strict=True)
    return torch.stack(means).to(device), torch.stack(stds).to(device)
