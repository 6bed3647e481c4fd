"""What training minimises: losses of the output and of an inner layer, and how far two views disagree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.errors import UserError
from asr.model.attention import attention_loss
from asr.model.ctc import CTCModel, ctc_loss
from asr.model.encoders import RecurrentLayer
from asr.model.features import length_mask
from asr.model.precision import autocast
from asr.training.distillation import states_loss, teacher_loss

if TYPE_CHECKING:
    from asr.training.denominator import DenominatorGraph  # imports numba, which CTC alone does without


class ObjectiveError(UserError):
    """A loss that this encoder does not allow."""


@dataclass(frozen=True)
class BatchLosses:
    """The losses of a batch and what they were computed from."""

    losses: Tensor  # (batch,) nats: what is minimised
    ctc: Tensor  # (batch,) nats: the CTC loss of the output alone, without gradient
    # (batch,) nats, without gradient: CTC-CRF of the output alone, CTC with the decoder, or just ``ctc``
    criterion: Tensor
    log_probs: Tensor  # (batch, frames, vocabulary), without gradient
    frames: Tensor  # (batch,)


class Objective(nn.Module):
    """A model and the losses it is trained with; gradients are those of its ``forward``.

    With ``intermediate_layer`` (from 1; 0: none) the states of that encoder layer go through a
    projection of their own to a second CTC loss, which gets ``weight`` of the sum (Tjandra et al. 2020;
    Lee & Watanabe 2021). The projection is trained and saved in checkpoints; the model ships without it.

    With a ``denominator`` the output is trained by CTC-CRF, and ``ctc_weight`` times its CTC loss is added;
    the intermediate layer keeps CTC.

    A model with a decoder is trained by both: ``ctc_share`` of the sum is the losses above, the rest the
    decoder's (Watanabe et al. 2017, equation 14).

    A batch may come in two views, masked in different ways: every loss is then the mean of both, and
    ``consistency`` times their ``consistency_loss`` is added.

    ``teacher_weight`` times the ``teacher_loss`` of the output is added where a batch comes with what a
    teacher says, and ``states_weight`` times the ``states_loss`` of what a projection of layer
    ``states_layer`` (0: the last) predicts where it comes with the hidden states of another network, of
    ``states_size`` numbers each. An utterance without text learns from these alone.

    Raises ``ObjectiveError`` for a layer that the encoder does not have or that is its last.
    """

    def __init__(
        self,
        model: CTCModel,
        precision: str = "float32",
        intermediate_layer: int = 0,
        weight: float = 0.3,
        consistency: float = 0.0,
        ctc_weight: float = 0.1,
        ctc_share: float = 0.3,
        smoothing: float = 0.0,
        sampling: float = 0.0,
        teacher_weight: float = 1.0,
        teacher_lag: int = 0,
        temperature: float = 1.0,
        states_size: int = 0,
        states_layer: int = 0,
        states_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.model = model
        self.precision = precision
        self.weight = weight
        self.consistency = consistency
        self.ctc_weight = ctc_weight
        self.ctc_share, self.smoothing, self.sampling = ctc_share, smoothing, sampling
        self.teacher_weight, self.teacher_lag, self.temperature = teacher_weight, teacher_lag, temperature
        self.denominator: DenominatorGraph | None = None
        self.intermediate: nn.Linear | None = None
        self.regression: nn.Linear | None = None
        self.states_layer, self.states_weight = states_layer, states_weight
        self.layer = intermediate_layer
        self._inner: dict[int, Tensor] = {}  # states of layers in the present batch
        wanted = {intermediate_layer: "intermediate_layer"}
        if states_size:
            wanted.setdefault(states_layer, "states_layer")
        for number in sorted(set(wanted) - {0}):
            output = find_inner_output(model, number, wanted[number])
            output.register_forward_hook(partial(self._remember, number))
        if intermediate_layer:
            self.intermediate = nn.Linear(model.encoder.output_size, model.projection.out_features)
        if states_size:
            self.regression = nn.Linear(model.encoder.output_size, states_size)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        tokens: Tensor,
        token_lengths: Tensor,
        taught: Tensor | None = None,
        learned: Tensor | None = None,
    ) -> BatchLosses:
        """Compute the losses of a batch in one or two views.

        Args:
            features: ``(views * batch, frames, features)``, all first views before all second ones.
            lengths: ``(views * batch,)`` integer, frames of each.
            tokens: ``(batch, tokens)`` integer, without blanks.
            token_lengths: ``(batch,)`` integer.
            taught: ``(batch, frames, vocabulary)`` probabilities of a teacher, zeros where it says nothing.
            learned: ``(batch, frames, states_size)`` hidden states of another network, zeros where nothing
                is known.

        Raises ``ObjectiveError`` when an inner layer gives states of another number or size than the output.
        """
        size = len(tokens)
        views = len(features) // size
        targets = tokens.repeat(views, 1), token_lengths.repeat(views)
        with autocast(features.device, self.precision):
            states, log_probs, frames = self.model.encode(features, lengths)
        each = ctc_loss(log_probs, frames, *targets)
        losses = criterion = ctc = each.view(views, size).mean(dim=0)
        if self.denominator is not None:
            from asr.training.crf import crf_loss

            each = crf_loss(each, log_probs, frames, *targets, self.denominator)
            criterion = each.view(views, size).mean(dim=0)
            losses = criterion + self.ctc_weight * ctc
        if self.intermediate is not None:
            inner = ctc_loss(self._intermediate_log_probs(states), frames, *targets)
            losses = (1 - self.weight) * losses + self.weight * inner.view(views, size).mean(dim=0)
        if self.model.decoder is not None:
            spelled = self._compute_spelling_loss(states, frames, *targets).view(views, size).mean(dim=0)
            # With no share CTC's weights still get a gradient, of zeros: several processes wait for it.
            shared = self.ctc_share * losses if self.ctc_share else 0.0 * log_probs.sum()
            losses = shared + (1 - self.ctc_share) * spelled
            criterion = losses
        if taught is not None or learned is not None:
            losses = self._add_teachers(losses, log_probs, states, frames, taught, learned, token_lengths)
        self._inner.clear()
        if views == 2:
            losses = losses + self.consistency * consistency_loss(log_probs, frames)
        return BatchLosses(losses, ctc.detach(), criterion.detach(), log_probs[:size].detach(), frames[:size])

    def _add_teachers(
        self,
        losses: Tensor,
        log_probs: Tensor,
        states: Tensor,
        frames: Tensor,
        taught: Tensor | None,
        learned: Tensor | None,
        token_lengths: Tensor,
    ) -> Tensor:
        """Add the losses of what others hear; where there is no text, they take the place of all others."""
        views = len(log_probs) // len(losses)
        added = torch.zeros_like(losses)
        is_known = torch.zeros_like(token_lengths, dtype=torch.bool)
        if taught is not None:
            rows = taught.repeat(views, 1, 1)
            each = teacher_loss(log_probs, rows, frames, self.teacher_lag, self.temperature)
            added = added + self.teacher_weight * each.view(views, -1).mean(dim=0)
            is_known |= taught.flatten(1).any(dim=1)
        if learned is not None:
            assert self.regression is not None
            inner = self._get_inner(self.states_layer, states, "states_layer")
            with autocast(inner.device, self.precision):
                predicted = self.regression(inner)
            each = states_loss(predicted.float(), learned.repeat(views, 1, 1), frames)
            added = added + self.states_weight * each.view(views, -1).mean(dim=0)
            is_known |= learned.flatten(1).any(dim=1)
        return losses.masked_fill((token_lengths == 0) & is_known, 0.0) + added

    def _compute_spelling_loss(
        self, states: Tensor, frames: Tensor, tokens: Tensor, token_lengths: Tensor
    ) -> Tensor:
        assert self.model.decoder is not None
        sampling = self.sampling if self.training else 0.0
        with autocast(states.device, self.precision):
            log_probs, _ = self.model.decoder(states, frames, tokens, sampling)
        return attention_loss(log_probs, tokens, token_lengths, self.smoothing)

    def _remember(self, number: int, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.training:
            self._inner[number] = output[0] if isinstance(output, tuple) else output

    def _get_inner(self, number: int, states: Tensor, key: str) -> Tensor:
        """Get the states of layer ``number``; ``states`` are those of the output, 0."""
        if not number:
            return states
        inner = self._inner.get(number)
        assert inner is not None, "the encoder did not run in training mode"
        if inner.shape[1:] != states.shape[1:]:
            raise ObjectiveError(
                f"'training.{key}' names a layer whose states differ from those of the output "
                f"in number or size: {tuple(inner.shape[1:])}; choose another layer, or 0"
            )
        return inner

    def _intermediate_log_probs(self, states: Tensor) -> Tensor:
        assert self.intermediate is not None
        inner = self._get_inner(self.layer, states, "intermediate_layer")
        with autocast(inner.device, self.precision):
            logits = self.intermediate(inner)
        return F.log_softmax(logits.float(), dim=2)


def consistency_loss(log_probs: Tensor, frames: Tensor) -> Tensor:
    """How far two views of each utterance are from each other, nats, summed over frames: ``(batch,)``.

    Half the Kullback-Leibler divergence of each view from the other, which counts as constant: gradients
    pull each view towards the other (the loss L_CR of Yao et al. 2024, "CR-CTC").

    Args:
        log_probs: ``(2 * batch, frames, vocabulary)``, all first views before all second ones.
        frames: ``(2 * batch,)`` integer, frames of each.
    """
    one, other = log_probs.chunk(2)
    divergence = F.kl_div(one, other.detach(), reduction="none", log_target=True)
    divergence = divergence + F.kl_div(other, one.detach(), reduction="none", log_target=True)
    return 0.5 * (divergence.sum(dim=2) * length_mask(frames[: len(one)], one.shape[1])).sum(dim=1)


def find_inner_output(model: CTCModel, number: int, key: str = "intermediate_layer") -> nn.Module:
    """The module that gives the states of an encoder layer, counted from 1; ``key`` asks for it.

    Raises ``ObjectiveError`` unless it is a layer before the last.
    """
    outputs = model.encoder.outputs
    if getattr(model.encoder, "chunk", 0):
        raise ObjectiveError(f"'training.{key}' does not go with 'encoder.chunk'")
    if not 1 <= number < len(outputs):
        raise ObjectiveError(
            f"'training.{key}' is {number}, but the encoder has {len(outputs)} layers; "
            "choose one before the last"
        )
    return outputs[number - 1]


def truncate_recurrence(module: nn.Module, frames: int) -> None:
    """Let no gradient pass from one span of ``frames`` to the one before, in every recurrent layer.

    The outputs do not change: states are handed on, gradients are not (truncated back-propagation through
    time, Williams & Peng 1990). A layer that reads from the end is cut in the same way, counted from the end.

    Raises ``ObjectiveError`` when a layer does not run on one of torch's fused kernels, or none does.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.RNNBase)]
    unfused = any(m.recurrent_dropout or m.zoneout for m in module.modules() if isinstance(m, RecurrentLayer))
    if not layers or unfused:
        raise ObjectiveError(
            "'training.truncate_seconds' works with the cells rnn, rnn-relu, gru and lstm, without "
            "encoder.recurrent_dropout and encoder.zoneout"
        )
    for layer in layers:
        layer.forward = _TruncatedForward(layer, frames)


class _TruncatedForward:
    """The ``forward`` of a recurrent layer, span by span."""

    def __init__(self, layer: nn.RNNBase, frames: int) -> None:
        self.whole = layer.forward
        self.layer = layer
        self.frames = frames

    def __call__(self, states: Tensor, hidden: Any = None) -> tuple[Tensor, Any]:
        if not self.layer.training or states.shape[1] <= self.frames:
            return self.whole(states, hidden)
        outputs = []
        for span in states.split(self.frames, dim=1):
            output, hidden = self.whole(span, hidden)
            hidden = tuple(h.detach() for h in hidden) if isinstance(hidden, tuple) else hidden.detach()
            outputs.append(output)
        return torch.cat(outputs, dim=1), hidden
