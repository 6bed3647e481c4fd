"""How good a model is: its loss and its word error rate on a set of examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from asr.model.ctc import ctc_loss, frames_needed
from asr.model.engine import unwrap_model, unwrap_network
from asr.model.features import unpad
from asr.recognition.recognizer import Recognizer
from asr.scoring.counts import Comparison, compare_texts, index_by_id
from asr.search.confidence import ConfidenceBin, bin_by_confidence
from asr.text.tokenizer import NORMALISERS
from asr.training.batching import (
    Batch,
    Example,
    Plan,
    Reader,
    load_batch,
    measure_speakers,
    plan_by_duration,
    read_ahead,
)
from asr.training.distributed import Ranks
from asr.transcript.values import Hypothesis

if TYPE_CHECKING:
    from asr.training.denominator import DenominatorGraph  # imports numba, which CTC alone does without


@dataclass(frozen=True)
class Evaluation:
    """The results of a model on a set of examples."""

    hypotheses: dict[str, Hypothesis]
    comparison: Comparison
    loss: float | None  # nats per utterance, over those that CTC can align
    audio_seconds: float
    compute_seconds: float  # from samples in memory to hypotheses, decoding of files excluded
    criterion: float | None = None  # like ``loss``, of CTC-CRF; ``None``: training does not minimise it

    @property
    def rtf(self) -> float:
        """The real-time factor: computing time per time of audio."""
        return self.compute_seconds / max(self.audio_seconds, 1e-9)

    @property
    def metrics(self) -> dict[str, float | None]:
        """Validation losses, and WER and CER as shares, for logs."""
        rates = self.comparison.rates
        metrics = {"valid_loss": self.loss, "valid_wer": rates["wer"], "valid_cer": rates["cer"]}
        return metrics if self.criterion is None else metrics | {"valid_criterion": self.criterion}

    @property
    def reliability(self) -> list[ConfidenceBin]:
        """Words grouped by confidence, and the share of right ones in each group."""
        return bin_by_confidence(*judge_words(self.comparison, self.hypotheses))

    @property
    def summary(self) -> str:
        """The metrics that could be measured, for people."""
        rates = self.comparison.rates
        parts = [f"{name.upper()} {100 * rate:.2f} %" for name, rate in rates.items() if rate is not None]
        losses = {"loss": self.loss, "CTC-CRF": self.criterion}
        measured = [f"{name} {value:.4f}" for name, value in losses.items() if value is not None]
        return ", ".join([*measured, *parts])


def judge_words(
    comparison: Comparison, hypotheses: Mapping[str, Hypothesis]
) -> tuple[list[float], list[bool]]:
    """The confidence of every word of the hypotheses, and whether the alignment says it is right."""
    confidences: list[float] = []
    right: list[bool] = []
    for name, hypothesis in hypotheses.items():
        confidences += [word.confidence for word in hypothesis.words]
        right += [step.kind == "equal" for step in comparison.align(name) if step.hypothesis]
    return confidences, right


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
    normalise = NORMALISERS[recognizer.text.normaliser]
    return Evaluation(
        hypotheses=hypotheses,
        comparison=compare_texts(
            index_by_id(
                (e.utterance.id, recognizer.to_reference(normalise(e.utterance.text))) for e in examples
            ),
            {name: hypothesis.text for name, hypothesis in hypotheses.items()},
        ),
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
