"""What training makes small: CTC losses, of the output and a layer on the way, and how two views disagree."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.errors import UserError
from asr.model.ctc import CTCModel
from asr.model.encoders import RecurrentLayer
from asr.model.features import length_mask
from asr.model.precision import autocast
from asr.training.batching import Batch
from asr.training.evaluation import losses_of


class ObjectiveError(UserError):
    """A loss that cannot be had from this encoder."""


@dataclass(frozen=True)
class Outcome:
    """What a batch comes to."""

    losses: Tensor  # (batch,) nats: what is made small
    ctc: Tensor  # (batch,) nats: the loss of the output alone, without gradient
    log_probs: Tensor  # (batch, frames, vocabulary), without gradient
    frames: Tensor  # (batch,)


class Objective(nn.Module):
    """A model and what it takes to train it; its ``forward`` is what gradients are taken of.

    With ``intermediate_layer`` (from 1; 0: none) the states of that encoder layer go through a
    projection of their own to a second CTC loss, mixed in with ``weight``. The projection is trained
    and saved in checkpoints; the model is shipped without it.

    A batch may come in two views, mask_padding in different ways: every loss is then the mean of both, and
    ``consistency`` times their ``disagreement`` is added.
    """

    def __init__(
        self,
        model: CTCModel,
        precision: str = "float32",
        intermediate_layer: int = 0,
        weight: float = 0.3,
        consistency: float = 0.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.weight = weight
        self.consistency = consistency
        self.intermediate: nn.Linear | None = None
        self._states: Tensor | None = None
        if intermediate_layer:
            layer = encoder_layer(model, intermediate_layer)
            layer.register_forward_hook(self._remember)
            self.intermediate = nn.Linear(model.encoder.output_size, model.projection.out_features)

    def forward(self, features: Tensor, lengths: Tensor, batch: Batch) -> Outcome:
        """The losses of a batch whose features are ``(views * batch, frames, features)``, view after view."""
        size = len(batch.ids)
        views = len(features) // size
        targets = replace(
            batch, tokens=batch.tokens.repeat(views, 1), token_lengths=batch.token_lengths.repeat(views)
        )
        with autocast(features.device, self.precision):
            log_probs, frames = self.model(features, lengths)
        losses = ctc = losses_of(log_probs, frames, targets).view(views, size).mean(dim=0)
        if self.intermediate is not None:
            between = losses_of(self._intermediate_log_probs(log_probs.shape[1]), frames, targets)
            losses = (1 - self.weight) * ctc + self.weight * between.view(views, size).mean(dim=0)
        if views == 2:
            losses = losses + self.consistency * disagreement(log_probs, frames)
        return Outcome(losses, ctc.detach(), log_probs[:size].detach(), frames[:size])

    def _remember(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        if self.training:
            self._states = output[0] if isinstance(output, tuple) else output

    def _intermediate_log_probs(self, frames: int) -> Tensor:
        states, self._states = self._states, None
        assert self.intermediate is not None
        assert states is not None, "the encoder did not run in training mode"
        if states.shape[1:] != (frames, self.intermediate.in_features):
            raise ObjectiveError(
                "'training.intermediate_layer' names a layer whose states are not those of the output "
                f"in number and size: {tuple(states.shape[1:])}; choose another or 0"
            )
        with autocast(states.device, self.precision):
            logits = self.intermediate(states)
        return F.log_softmax(logits.float(), dim=2)


def disagreement(log_probs: Tensor, frames: Tensor) -> Tensor:
    """How far two views of each utterance are from each other, nats, summed over frames: ``(batch,)``.

    Half the Kullback-Leibler divergence of each view from the other, which is taken as it is: gradients
    teach a view to say what the other one says (the loss L_CR of Yao et al. 2024, "CR-CTC").

    Args:
        log_probs: ``(2 * batch, frames, vocabulary)``, all first views before all second ones.
        frames: of each, ``(2 * batch,)``.
    """
    one, other = log_probs.chunk(2)
    apart = F.kl_div(one, other.detach(), reduction="none", log_target=True)
    apart = apart + F.kl_div(other, one.detach(), reduction="none", log_target=True)
    return 0.5 * (apart.sum(dim=2) * length_mask(frames[: len(one)], one.shape[1])).sum(dim=1)


def encoder_layer(model: CTCModel, number: int) -> nn.Module:
    """The encoder's layer of that number, counted from 1."""
    layers = getattr(model.encoder, "layers", ())
    if not 1 <= number < len(layers):
        raise ObjectiveError(
            f"'training.intermediate_layer' is {number}, but the encoder has {len(layers)} layers; "
            "it must be one before the last"
        )
    if isinstance(layers[number - 1], nn.Conv1d):  # gives frames last, and not yet bent
        raise ObjectiveError("'training.intermediate_layer' does not go with an encoder of convolutions")
    return layers[number - 1]


def truncate_recurrence(module: nn.Module, frames: int) -> None:
    """Let no gradient pass from one stretch of ``frames`` to the one before, in every recurrent layer.

    The outputs stay what they were: states are handed on, gradients are not (truncated
    back-propagation through time, Williams & Peng 1990). A layer that reads from the end is cut the
    same way, counted from the end.

    Raises ``ObjectiveError`` when a layer does not run on one of torch's fused kernels, or none does.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.RNNBase)]
    unfused = any(m.recurrent_dropout or m.zoneout for m in module.modules() if isinstance(m, RecurrentLayer))
    if not layers or unfused:
        raise ObjectiveError(
            "'training.truncate_seconds' goes with the cells rnn, rnn-relu, gru and lstm, without "
            "encoder.recurrent_dropout and encoder.zoneout"
        )
    for layer in layers:
        layer.forward = _Truncated(layer, frames)


class _Truncated:
    """The ``forward`` of a recurrent layer in stretches."""

    def __init__(self, layer: nn.RNNBase, frames: int) -> None:
        self.whole = layer.forward
        self.layer = layer
        self.frames = frames

    def __call__(self, states: Tensor, hidden: Any = None) -> tuple[Tensor, Any]:
        if not self.layer.training or states.shape[1] <= self.frames:
            return self.whole(states, hidden)
        outputs = []
        for stretch in states.split(self.frames, dim=1):
            output, hidden = self.whole(stretch, hidden)
            hidden = tuple(h.detach() for h in hidden) if isinstance(hidden, tuple) else hidden.detach()
            outputs.append(output)
        return torch.cat(outputs, dim=1), hidden
