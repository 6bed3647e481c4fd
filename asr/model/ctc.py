"""The CTC model: an encoder, a projection to tokens and the loss (Graves et al. 2006).

Beside the projection there may be a decoder with attention, which looks at the same states.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from asr.model.attention import AttentionDecoder, DecoderConfig
from asr.model.encoders import Encoder
from asr.text.tokenizer import BLANK_TOKEN


class CTCModel(nn.Module):
    """An encoder and a linear projection: log-probs over the vocabulary for every frame."""

    def __init__(
        self,
        encoder: Encoder,
        vocabulary_size: int,
        decoder: DecoderConfig = DecoderConfig(),  # noqa: B008 - a frozen value
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Linear(encoder.output_size, vocabulary_size)
        self.decoder: AttentionDecoder | None = None
        if decoder.kind == "attention":
            self.decoder = AttentionDecoder(decoder, encoder.output_size, vocabulary_size)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map features to float32 log-probs ``(batch, frames', vocabulary)`` and lengths."""
        _, log_probs, lengths = self.encode(features, lengths)
        return log_probs, lengths

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``forward``, but first the encoder's states, ``(batch, frames', size)``."""
        states, lengths = self.encoder(features, lengths)
        return states, F.log_softmax(self.projection(states).float(), dim=2), lengths


def ctc_loss(log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> Tensor:
    """Minus the log probability of each utterance's tokens, in nats (Graves et al. 2006, equation 8).

    Args:
        log_probs: ``(batch, frames, vocabulary)`` float32, natural logarithms, normalised.
        lengths: ``(batch,)`` integer, frames per utterance.
        tokens: ``(batch, tokens)`` integer, without blanks.
        token_lengths: ``(batch,)`` integer, tokens per utterance.

    Returns:
        ``(batch,)``; infinite where the frames are too few (see ``frames_needed``).
    """
    if log_probs.device.type == "mps":  # torch has no CTC loss there
        log_probs, lengths = log_probs.cpu(), lengths.cpu()
        tokens, token_lengths = tokens.cpu(), token_lengths.cpu()
    return F.ctc_loss(
        log_probs.transpose(0, 1), tokens, lengths, token_lengths, blank=BLANK_TOKEN, reduction="none"
    )


def frames_needed(tokens: Sequence[int]) -> int:
    """The fewest frames that CTC can align ``tokens`` to: one each, and a blank between equal neighbours."""
    return len(tokens) + sum(left == right for left, right in pairwise(tokens))
