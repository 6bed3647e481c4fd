"""A decoder with attention: it spells a text token by token and looks, for each, where in the input it is.

Bahdanau et al. 2015 for attention by content, Chorowski et al. 2015 for attention that also knows where it
looked last, Luong et al. 2015 (section 3.3) for feeding the context back into the next step. The states that
it looks at may come from any encoder: of sound (``asr.model.ctc``) or of letters (``asr.model.speller``).

Token 0 is the blank of CTC, which no text has; here it stands for the beginning and the end of a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.core.config import check_bounds, option
from asr.model.features import length_mask
from asr.text.tokenizer import BLANK_TOKEN

END = BLANK_TOKEN  # before the first token and after the last one


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder beside CTC, if there is one, and how the two share the loss."""

    kind: Literal["none", "attention"] = option(
        "none", "none: CTC alone; attention: also an LSTM that spells the text token by token."
    )
    size: int = option(256, "Hidden units of its LSTM.", minimum=1, maximum=16384)
    embedding: int = option(64, "Numbers that stand for a token.", minimum=1, maximum=16384)
    attention: int = option(
        128, "Size in which states and what is looked for are compared.", minimum=1, maximum=16384
    )
    filters: int = option(
        10,
        "Convolutions over where it looked last (Chorowski et al. 2015); 0: it goes by content alone.",
        minimum=0,
        maximum=1024,
    )
    reach: int = option(
        10,
        "Frames to either side that these convolutions see; the next token should be among them.",
        minimum=1,
        maximum=1000,
    )
    dropout: float = option(
        0.0, "Share of the numbers set to zero before the output, in training.", minimum=0, below=1
    )
    ctc_weight: float = option(
        0.3,
        "Share of CTC in the loss (Watanabe et al. 2017); the rest is the decoder's. With 0 CTC learns "
        "nothing, and the model can neither align nor transcribe live.",
        minimum=0,
        maximum=1,
    )

    def __post_init__(self) -> None:
        check_bounds(self, "decoder")


class Memory(NamedTuple):
    """What a decoder looks at: a row for each utterance, or one row for all hypotheses of one utterance."""

    states: Tensor  # (batch, frames, encoder)
    keys: Tensor  # (batch, frames, attention)
    inside: Tensor  # (batch, frames) booleans

    def select(self, row: int) -> Memory:
        """One utterance of the batch, without its padding."""
        frames = int(self.inside[row].sum())
        return Memory(*(part[row : row + 1, :frames] for part in self))


class DecoderState(NamedTuple):
    """What a decoder carries from token to token, a row for each utterance or hypothesis."""

    hidden: Tensor  # (rows, size)
    cell: Tensor  # (rows, size)
    context: Tensor  # (rows, encoder): what it saw last
    weights: Tensor  # (rows, frames): where it looked last, zeros at the beginning

    def select(self, rows: Tensor) -> DecoderState:
        """Return the states of ``rows``, ``(n,)`` integer, in their order."""
        return DecoderState(*(part[rows] for part in self))


class Attention(nn.Module):
    """Where to look: a weight for each frame (Chorowski et al. 2015, equations 5 to 9).

    ``e_t = v tanh(W s + V h_t + U f_t + b)``, ``f`` the filters over the weights of the step before;
    the weights are the softmax of ``e``.
    """

    def __init__(self, config: DecoderConfig, encoder_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(config.size, config.attention)
        self.key = nn.Linear(encoder_size, config.attention, bias=False)
        self.energy = nn.Linear(config.attention, 1, bias=False)
        self.filters: nn.Conv1d | None = None
        self.location: nn.Linear | None = None
        if config.filters:
            width = 2 * config.reach + 1
            self.filters = nn.Conv1d(1, config.filters, width, padding=config.reach, bias=False)
            self.location = nn.Linear(config.filters, config.attention, bias=False)

    def forward(self, hidden: Tensor, before: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Look once.

        Args:
            hidden: ``(rows, size)`` of the decoder.
            before: ``(rows, frames)``, where it looked last.

        Returns:
            what it sees, ``(rows, encoder)``, and where it looks, ``(rows, frames)``.
        """
        sums = self.query(hidden)[:, None] + memory.keys
        if self.filters is not None and self.location is not None:
            sums = sums + self.location(self.filters(before[:, None]).transpose(1, 2))
        energies = self.energy(torch.tanh(sums))[..., 0].to(before.dtype)
        weights = energies.masked_fill(~memory.inside, -torch.inf).softmax(dim=1)
        states = memory.states.expand(len(weights), -1, -1)  # in their own precision: casts cost more
        return torch.bmm(weights[:, None].to(states.dtype), states)[:, 0], weights


class AttentionDecoder(nn.Module):
    """An LSTM that spells: from a token and what it saw to the log-probs of the next token."""

    def __init__(self, config: DecoderConfig, encoder_size: int, vocabulary_size: int) -> None:
        super().__init__()
        self.size, self.encoder_size = config.size, encoder_size
        self.embedding = nn.Embedding(vocabulary_size, config.embedding)
        self.cell = nn.LSTMCell(config.embedding + encoder_size, config.size)
        self.attention = Attention(config, encoder_size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.size + encoder_size, vocabulary_size)

    def remember(self, states: Tensor, lengths: Tensor) -> Memory:
        """Prepare ``(batch, frames, encoder)`` to be looked at, as far as ``lengths``.

        An utterance without a frame has one of padding: attending to nothing is 0 divided by 0.
        """
        inside = length_mask(lengths.clamp(min=1), states.shape[1])
        return Memory(states, self.attention.key(states), inside)

    def initial_state(self, memory: Memory) -> DecoderState:
        """The state before the first token, a row for each one of ``memory``."""
        rows, frames = memory.inside.shape
        like = self.output.weight
        return DecoderState(
            *(like.new_zeros(rows, size) for size in (self.size, self.size, self.encoder_size, frames))
        )

    def step(self, tokens: Tensor, state: DecoderState, memory: Memory) -> tuple[Tensor, DecoderState]:
        """Take one token; ``memory`` has as many rows as ``state``, or one for all.

        Args:
            tokens: ``(rows,)`` integer, the tokens before; ``END`` at the beginning.

        Returns:
            ``(rows, vocabulary)`` natural logarithms, float32 unless weights are float64, and the state.
        """
        inputs = torch.cat([self.embedding(tokens), state.context], dim=1)
        hidden, cell = self.cell(inputs, (state.hidden, state.cell))
        context, weights = self.attention(hidden, state.weights, memory)
        logits = self.output(self.dropout(torch.cat([hidden, context.to(hidden.dtype)], dim=1)))
        dtype = self.output.weight.dtype
        after = DecoderState(*(part.to(dtype) for part in (hidden, cell, context, weights)))
        return F.log_softmax(logits.to(dtype), dim=1), after

    def forward(
        self, states: Tensor, lengths: Tensor, tokens: Tensor, sampling: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Spell given texts: every step sees the right token before (teacher forcing).

        Args:
            states: ``(batch, frames, encoder)``.
            lengths: ``(batch,)`` integer, frames of each.
            tokens: ``(batch, tokens)`` integer.
            sampling: share of steps that see a token drawn from what the step before it gave instead
                (scheduled sampling, Bengio et al. 2015).

        Returns:
            ``(batch, tokens + 1, vocabulary)`` natural logarithms, the last for the end, and where it
            looked, ``(batch, tokens + 1, frames)``.
        """
        memory = self.remember(states, lengths)
        state = self.initial_state(memory)
        log_probs: list[Tensor] = []
        weights: list[Tensor] = []
        for number, given in enumerate(F.pad(tokens, (1, 0), value=END).unbind(1)):
            if sampling and number:
                drawn = torch.multinomial(log_probs[-1].detach().exp(), 1)[:, 0]
                given = torch.where(torch.rand(len(given), device=given.device) < sampling, drawn, given)
            scores, state = self.step(given, state, memory)
            log_probs.append(scores)
            weights.append(state.weights)
        return torch.stack(log_probs, 1), torch.stack(weights, 1)


class DecoderScorer:
    """A decoder at work on one utterance, a ``StepScorer`` of the search."""

    def __init__(self, decoder: AttentionDecoder, memory: Memory) -> None:
        self._decoder = decoder
        self._memory = memory
        self._state: DecoderState = decoder.initial_state(memory)

    @torch.no_grad()
    def step(self, parents: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Continue the hypotheses ``parents`` of the step before with ``tokens``, as ``StepScorer``."""
        state = self._state.select(
            torch.from_numpy(np.asarray(parents, np.int64)).to(self._memory.keys.device)
        )
        given = torch.from_numpy(np.asarray(tokens, np.int64)).to(self._memory.keys.device)
        training = self._decoder.training
        self._decoder.eval()  # no dropout, whatever mode the network is in
        try:
            log_probs, self._state = self._decoder.step(given, state, self._memory)
        finally:
            self._decoder.train(training)
        return log_probs.float().cpu().numpy(), self._state.weights.float().cpu().numpy()


def attention_loss(
    log_probs: Tensor, tokens: Tensor, token_lengths: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Minus the log probability of each text and its end, in nats: ``(batch,)``.

    Args:
        log_probs: ``(batch, tokens + 1, vocabulary)`` natural logarithms.
        tokens: ``(batch, tokens)`` integer; anything beyond the lengths.
        token_lengths: ``(batch,)`` integer.
        smoothing: share of each step's probability that the target gives to all tokens alike (label
            smoothing, Szegedy et al. 2016, section 7).
    """
    inside = length_mask(token_lengths, tokens.shape[1])
    targets = F.pad(tokens.masked_fill(~inside, END), (0, 1), value=END)
    right = log_probs.gather(2, targets[..., None])[..., 0]
    steps = (1 - smoothing) * right + smoothing * log_probs.mean(dim=2) if smoothing else right
    return -(steps * length_mask(token_lengths + 1, targets.shape[1])).sum(dim=1)
