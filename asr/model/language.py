"""The recurrent language model's network: LSTM layers between one table of embeddings, used at both ends.

The table turns the pieces of words into vectors, and the last layer's states into scores of the next piece
(Press & Wolf 2017; Inan et al. 2017). ``asr.lm.recurrent`` computes the same without torch.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from asr.lm.recurrent import RecurrentConfig

LOSS_ROWS = 4096  # whose scores are in memory at a time
FORGET_BIAS = 1.0  # a cell begins by keeping what it has (Jozefowicz et al. 2015)


class LanguageNetwork(nn.Module):
    """Embeddings, LSTM layers with residual connections, and the same embeddings again."""

    def __init__(self, config: RecurrentConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocabulary_size, config.size)
        self.layers = nn.ModuleList(
            nn.LSTM(config.size, config.size, batch_first=True) for _ in range(config.layers)
        )
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=config.size**-0.5)
        for layer in self.layers:
            for name in ("bias_ih_l0", "bias_hh_l0"):
                nn.init.zeros_(layer.get_parameter(name))
            with torch.no_grad():
                layer.get_parameter("bias_ih_l0")[config.size : 2 * config.size] = FORGET_BIAS

    def forward(self, tokens: Tensor, lengths: Tensor, use_tiles: bool = False) -> Tensor:
        """Compute states ``(batch, steps, size)`` from ``tokens`` (batch, steps).

        ``use_tiles`` computes in bfloat16 in tile registers (``asr.model.tiled_lstm``). What stands beyond
        the lengths (batch,) is undefined.
        """
        states = self.dropout(self.embedding(tokens))
        for number, layer in enumerate(self.layers):
            output = self.dropout(run_layer(layer, states, lengths, use_tiles))
            states = output + states if number else output
        return states

    def loss(self, states: Tensor, targets: Tensor, low_precision: bool = False) -> Tensor:
        """Sum over ``states`` (rows, size) of ``-ln P(target)``; ``targets`` is ``(rows,)``.

        ``low_precision`` multiplies in bfloat16.
        """
        return cast(Tensor, TiedLoss.apply(states, self.embedding.weight, self.bias, targets, low_precision))


def run_layer(layer: nn.Module, states: Tensor, lengths: Tensor, use_tiles: bool) -> Tensor:
    """Run one layer from states of zero."""
    if use_tiles:
        from asr.model.tiled_lstm import run_tiled_lstm

        return run_tiled_lstm(states, lengths, [layer])
    return cast(Tensor, layer(states)[0])


class TiedLoss(torch.autograd.Function):
    """The sum of cross entropies, with its gradients computed at once, some rows at a time.

    So the scores of all rows, thousands of numbers each, are never in memory together.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, bias: Tensor, targets: Tensor, low_precision: bool
    ) -> Tensor:
        differentiate = differentiate_rounded if low_precision else differentiate_exactly
        dtype = torch.bfloat16 if low_precision else table.dtype
        rows, weights = states.detach().to(dtype), table.detach().to(dtype)
        total = 0.0
        state_gradient = torch.empty_like(states)
        table_gradient, bias_gradient = torch.zeros_like(table), torch.zeros_like(bias)
        for first in range(0, len(rows), LOSS_ROWS):
            part = rows[first : first + LOSS_ROWS]
            wanted = targets[first : first + LOSS_ROWS]
            loss, change = differentiate(part @ weights.T, bias.detach(), wanted, bias_gradient)
            total += loss
            state_gradient[first : first + LOSS_ROWS] = change @ weights
            table_gradient += change.T @ part
        ctx.save_for_backward(state_gradient, table_gradient, bias_gradient)
        return torch.tensor(total, dtype=torch.float64)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale = float(gradient)
        return (*(value.mul_(scale) for value in ctx.saved_tensors), None, None)


def differentiate_exactly(
    scores: Tensor, bias: Tensor, targets: Tensor, bias_gradient: Tensor
) -> tuple[float, Tensor]:
    """Return the sum of cross entropies of ``scores`` (rows, classes) and its gradient by them.

    That by the bias is added to ``bias_gradient``.
    """
    log_probs = F.log_softmax(scores + bias, 1)
    loss = -float(log_probs.gather(1, targets[:, None]).sum())
    change = log_probs.exp_()
    change[torch.arange(len(change)), targets] -= 1
    bias_gradient += change.sum(0)
    return loss, change


def differentiate_rounded(
    scores: Tensor, bias: Tensor, targets: Tensor, bias_gradient: Tensor
) -> tuple[float, Tensor]:
    """As ``differentiate_exactly``, for bfloat16 scores, which the gradient replaces."""
    from asr.model.tied_loss import LANES, replace_scores
    from asr.model.tiled_lstm import to_bits

    loss = replace_scores(
        to_bits(scores),
        bias.numpy(),
        targets.numpy(),
        bias_gradient.numpy(),
        np.empty(len(bias), np.float32),
        np.empty(LANES, np.float32),
    )
    return loss, scores
