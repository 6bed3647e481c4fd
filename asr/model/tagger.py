"""The tagger's network: embeddings of pieces, bidirectional LSTM layers, marks and cases of words.

``asr.text.punctuation`` computes the same without torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.text.punctuation import CLASSES, TaggerConfig


class TaggerNetwork(nn.Module):
    """Pieces to scores of marks and cases at every piece."""

    def __init__(self, config: TaggerConfig, vocabulary_size: int) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(vocabulary_size, config.embedding)
        widths = [config.embedding, *[2 * config.size] * (config.layers - 1)]
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.LSTM(width, config.size, batch_first=True) for _ in range(2)) for width in widths
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(2 * config.size, CLASSES)

    def forward(self, pieces: Tensor, lengths: Tensor, use_tiles: bool = False) -> Tensor:
        """Compute scores ``(batch, steps, CLASSES)`` of ``pieces`` (batch, steps) of ``lengths`` (batch,).

        ``use_tiles`` computes in bfloat16 in tile registers. What stands beyond the lengths is undefined.
        """
        states = self.embedding(pieces)
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            states = self.dropout(run_both_ways(list(layer), states, lengths, use_tiles))
        scores: Tensor = self.output(states.float())
        return scores


def run_both_ways(layer: list[nn.Module], states: Tensor, lengths: Tensor, use_tiles: bool) -> Tensor:
    """Run a layer from either end of each sequence, from states of zero."""
    if use_tiles:
        from asr.model.tiled_lstm import run_tiled_lstm

        return run_tiled_lstm(states, lengths, layer)
    ahead, back = layer
    turned = back(reverse_steps(states, lengths))[0]
    return torch.cat([ahead(states)[0], reverse_steps(turned, lengths)], 2)


def reverse_steps(states: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each sequence within its own length; the rest stays."""
    steps = torch.arange(states.shape[1])
    places = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return states.gather(1, places[:, :, None].expand_as(states))
