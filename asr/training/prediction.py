"""Forecasting: an encoder that reads from the start learns what it will hear, without any text.

Autoregressive predictive coding (Chung et al. 2019): from what it has read up to a frame, a network predicts
the features some frames ahead; the loss is the mean absolute error. What it learns serves as initial weights
(``training.initial``) where there are few transcripts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.ctc import CTCModel
from asr.model.encoders import Encoder
from asr.model.features import length_mask
from asr.model.precision import autocast
from asr.training.batching import load_batch
from asr.training.evaluation import batch_statistics
from asr.training.examples import Example, plan_by_duration
from asr.training.objective import BatchLosses, Objective, ObjectiveError

if TYPE_CHECKING:
    from asr.training.run import Run


class Prediction(Objective):
    """A model and the error with which its encoder foresees features; gradients are those of its ``forward``.

    A frame is one of the encoder's output, of several feature frames where it has a front end. For each of
    ``horizons`` a linear layer says from the states of frame ``t`` what the features of frame ``t + n`` are.
    These layers are trained and saved in checkpoints; the model ships without them.

    Raises ``ObjectiveError`` for an encoder that sees what it would have to predict.
    """

    def __init__(
        self, model: CTCModel, features: int, horizons: Sequence[int], precision: str = "float32"
    ) -> None:
        super().__init__(model, precision)
        check_horizons(model.encoder, horizons)
        self.horizons = tuple(horizons)
        self.size = features * model.encoder.subsampling
        self.intermediate = nn.Linear(model.encoder.output_size, self.size * len(self.horizons))

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        taught: Tensor | None = None,
        learned: Tensor | None = None,
    ) -> BatchLosses:
        """Compute the loss of each utterance: the errors of its frames, added up, mean over horizons.

        The arguments are those of ``Objective``; there are no tokens, one view and no teacher.
        """
        errors, _, log_probs, frames = self.compute_errors(features, lengths)
        losses = errors.sum(dim=1) / len(self.horizons) + 0.0 * log_probs.sum()
        kept = losses.detach()
        return BatchLosses(losses, kept, kept, log_probs.detach(), frames)

    def compute_errors(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute absolute errors, mean over the numbers of a frame.

        Returns:
            ``(batch, horizons)``, the errors of all frames added up, and the number of frames that they
            are of; then log-probs and frames as the model gives them.
        """
        with autocast(features.device, self.precision):
            states, log_probs, frames = self.model.encode(features, lengths)
            assert self.intermediate is not None
            predicted = self.intermediate(states).float()
        predicted = predicted.view(*predicted.shape[:2], len(self.horizons), self.size)
        whole = lengths // self.model.encoder.subsampling  # a frame cut off is not to be foreseen
        targets = join_frames(features, self.model.encoder.subsampling, predicted.shape[1])
        errors, counts = [], []
        # By unbind, because the gradient of an index is as large as all horizons together.
        for ahead, of_horizon in zip(self.horizons, predicted.unbind(2), strict=True):
            foreseen, came = of_horizon[:, : max(0, targets.shape[1] - ahead)], targets[:, ahead:]
            each = (foreseen - came[:, : foreseen.shape[1]]).abs().mean(dim=2)
            count = (whole - ahead).clamp(min=0)
            errors.append((each * length_mask(count, each.shape[1])).sum(dim=1))
            counts.append(count)
        return torch.stack(errors, 1), torch.stack(counts, 1), log_probs, frames


def join_frames(features: Tensor, subsampling: int, frames: int) -> Tensor:
    """Join every ``subsampling`` feature frames: ``(batch, frames, subsampling * features)``."""
    missing = frames * subsampling - features.shape[1]
    return F.pad(features, (0, 0, 0, max(0, missing)))[:, : frames * subsampling].reshape(
        len(features), frames, -1
    )


def check_horizons(encoder: Encoder, horizons: Sequence[int]) -> None:
    """Raise ``ObjectiveError`` where a state already depends on features that it is to foresee."""
    if not encoder.can_stream or getattr(encoder, "chunk", False):
        raise ObjectiveError(
            "'training.objective' = 'predict' needs an encoder that reads from the start only: "
            "encoder.bidirectional = false"
        )
    if getattr(encoder, "pyramid_from", len(encoder.layers)) < len(encoder.layers):
        raise ObjectiveError("'training.objective' = 'predict' does not go with 'encoder.pyramid'")
    seen = 0 if encoder.front_end is None else encoder.front_end.reach[1]
    least = seen // encoder.subsampling + 1
    if min(horizons) < least:
        raise ObjectiveError(
            f"'training.predict_frames' begins with {min(horizons)}, which the front end already sees; "
            f"this encoder can be asked for {least} frames ahead and more"
        )


@dataclass(frozen=True)
class Forecast:
    """How well a network foresees a set of examples: the mean absolute error for each horizon."""

    errors: dict[int, float]

    @property
    def error(self) -> float:
        """The mean over horizons."""
        return sum(self.errors.values()) / len(self.errors)

    @property
    def metrics(self) -> dict[str, float]:
        """For logs; the criterion chooses the weights."""
        each = {f"valid_error_{ahead}": error for ahead, error in self.errors.items()}
        return {"valid_criterion": self.error, **each}

    @property
    def summary(self) -> str:
        """For people."""
        return f"error {self.error:.4f}"


@torch.no_grad()
def measure_forecast(run: Run, examples: Sequence[Example] | None = None) -> Forecast:
    """Measure the present weights on examples, those for validation if none are given.

    Among several processes, each does all of it.
    """
    examples = run.data.valid if examples is None else examples
    objective, model = run.objective, run.model
    assert isinstance(objective, Prediction)
    training = objective.training
    objective.eval()
    total = torch.zeros(2, len(objective.horizons), dtype=torch.float64)
    try:
        seconds = run.experiment.training.batch_seconds
        for indices in plan_by_duration([example.duration for example in examples], seconds):
            batch = load_batch([examples[i] for i in indices], run.data.read).to(model.device)
            known = batch_statistics(run.valid_statistics, batch, model.device)
            features, lengths = model.features(batch.samples, batch.sample_lengths, known)
            errors, counts, *_ = objective.compute_errors(features, lengths)
            total += torch.stack([errors.sum(0), counts.sum(0)]).double().cpu()
    finally:
        objective.train(training)
    means = (total[0] / total[1].clamp(min=1)).tolist()
    return Forecast(dict(zip(objective.horizons, means, strict=True)))
