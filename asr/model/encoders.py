"""Encoders: feature frames to hidden states.

The contract, which a test holds over every entry of ``ENCODERS``: ``forward(features, lengths)`` takes
``(batch, frames, features)`` and integer lengths, and returns ``(batch, frames', output_size)``, zero
beyond the new lengths, and those lengths. An utterance gives the same output alone as in a batch,
whatever the padding holds.

Encoders that do not need a whole utterance (``can_stream``) also take one bit by bit: ``initial_state`` is
the state before its first frame, and ``advance(features, state, is_last)`` gives the states that are certain
by now and the state after them. Put together they are what ``forward`` gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr.core.config import ConfigError, check_bounds, option
from asr.model.cells import (
    CELLS,
    FUSED,
    Cell,
    State,
    advance_cell,
    draw_dropout_mask,
    new_fused,
    reverse_frames,
    scan,
    trace,
    unfuse,
)
from asr.model.features import length_mask, mask_padding


@dataclass(frozen=True)
class EncoderConfig:
    """The network between features and log-probs."""

    kind: Literal["recurrent", "tdnn", "transformer"] = option("recurrent", "The kind of network.")
    cell: Literal["rnn", "rnn-relu", "gru", "lstm", "peephole", "lnlstm", "cifg", "ligru", "convlstm"] = (
        option("lstm", "The cell of recurrent layers.")
    )
    layers: int = option(3, "Layers on top of each other.", minimum=1, maximum=100)
    size: int = option(
        320, "Hidden units per layer, and per direction in recurrent ones.", minimum=1, maximum=16384
    )
    bidirectional: bool = option(True, "Read the utterance from both ends; false: only from the start.")
    chunk: int = option(
        0,
        "Let the direction from the end see only this many frames at once (frames behind the front end) and "
        "the lookahead: a bidirectional network that can hear live (Zhang et al. 2016). 0: all of them.",
        minimum=0,
        maximum=10000,
    )
    lookahead: int = option(
        0,
        "Frames after a chunk that it also sees; they come again in the next one.",
        minimum=0,
        maximum=10000,
    )
    residual: bool = option(
        False, "Add a layer's input to its output where the shapes agree; a transformer always does."
    )
    norm: Literal["none", "layer"] = option("layer", "Normalise each layer's output (Ba et al. 2016).")
    pyramid: int = option(
        0,
        "How many of the topmost recurrent layers first join every two frames into one (Chan et al. 2016).",
        minimum=0,
        maximum=100,
    )
    dropout: float = option(0.0, "Share of each layer's outputs set to zero in training.", minimum=0, below=1)
    input_dropout: float = option(
        0.0,
        "Share of each layer's inputs set to zero, the same all through an utterance (Gal et al. 2016).",
        minimum=0,
        below=1,
    )
    recurrent_dropout: float = option(
        0.0,
        "As input_dropout, of the hidden units that a recurrent layer sees of the frame before.",
        minimum=0,
        below=1,
    )
    zoneout: float = option(
        0.0,
        "Share of a recurrent layer's units that keep their value, drawn for each frame (Krueger 2017).",
        minimum=0,
        below=1,
    )
    front_end: Literal["none", "conv2", "conv4", "vgg2", "vgg4"] = option(
        "none",
        "Convolutions that halve or quarter the frames: conv, two with strides; vgg, four with pooling.",
    )
    channels: int = option(
        32, "Channels of the front end's convolutions, where there is one.", minimum=1, maximum=4096
    )
    heads: int = option(4, "Attention heads of a transformer; nothing else has any.", minimum=1, maximum=256)

    def __post_init__(self) -> None:
        check_bounds(self, "encoder")
        if self.kind == "transformer" and self.size % self.heads:
            raise ConfigError(
                f"'encoder.heads' cannot be {self.heads}: it must divide encoder.size, {self.size}"
            )
        if self.kind == "transformer" and self.norm == "none":
            raise ConfigError("'encoder.norm' cannot be 'none': a transformer does not learn without one")
        if self.pyramid >= self.layers:
            raise ConfigError(
                f"'encoder.pyramid' cannot be {self.pyramid}: the lowest layer sees every frame, "
                f"so it is at most encoder.layers - 1, {self.layers - 1}"
            )
        if self.lookahead and not self.chunk:
            raise ConfigError("'encoder.lookahead' needs an 'encoder.chunk' above 0")
        if self.chunk and not self.bidirectional:
            raise ConfigError(
                "'encoder.chunk' is for encoder.bidirectional = true: from the start only, an "
                "encoder can hear live anyway"
            )
        if self.chunk:
            for key in ("pyramid", "recurrent_dropout", "zoneout"):
                if getattr(self, key):
                    raise ConfigError(f"'encoder.chunk' does not go with 'encoder.{key}'")
        if self.kind != "recurrent":
            for key in ("cell", "pyramid", "recurrent_dropout", "zoneout", "chunk"):
                if getattr(self, key) != getattr(EncoderConfig, key):
                    raise ConfigError(f"'encoder.{key}' is for recurrent layers, a {self.kind} has none")


class StreamState(NamedTuple):
    """What an encoder remembers of the utterances that it hears bit by bit.

    ``features`` are those that the front end still needs; the first ``given`` states that it makes of them
    have been read already. ``waiting`` are states from the front end that no layer has read. ``layers`` has
    what each layer carries, by name.
    """

    features: Tensor  # (rows, frames, features)
    given: int
    waiting: Tensor  # (rows, frames', layer_input)
    layers: tuple[State, ...]


class Encoder(nn.Module):
    """The base of every encoder: ``output_size``, ``subsampling``, ``layers`` and ``forward``.

    A front end comes first where the config asks for one; ``encode`` is what each kind implements. The
    ``input_size`` numbers of a frame are ``planes`` with the same frequencies (a spectrum, its deltas,
    stacked frames), one after the other; convolutions over frequency take them for channels.
    """

    output_size: int
    layers: nn.ModuleList

    def __init__(self, config: EncoderConfig, input_size: int, planes: int = 1) -> None:
        super().__init__()
        self.front_end: FrontEnd | None = None
        self.subsampling = 1  # frames in for one frame out
        self.input_size = input_size
        self.bands, self.layer_input = input_size // planes, input_size  # what the first layer gets
        if config.front_end != "none":
            kind = ConvSubsampling if config.front_end.startswith("conv") else VGGSubsampling
            self.front_end = kind(self.bands, planes, config.channels, int(config.front_end[-1]))
            self.bands, self.layer_input = self.front_end.bands, self.front_end.output_size
            self.subsampling = self.front_end.subsampling
        self.dropout = Dropout(config.dropout)
        self.input_dropout = config.input_dropout
        self.residual = config.residual

    @property
    def outputs(self) -> nn.ModuleList:
        """For each layer, the module to hook for its states, ``(batch, frames', size)``.

        These are the states after the nonlinearity; those of a recurrent layer are not yet normalised.
        """
        return self.layers

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode ``(batch, frames, features)`` as ``(batch, frames', output_size)`` with its lengths."""
        states = mask_padding(features, lengths)
        if self.front_end is not None:
            states, lengths = self.front_end(states, lengths)
        states, lengths = self.encode(states, lengths)
        return mask_padding(states, lengths), lengths

    def encode(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode ``(batch, frames, layer_input)`` as ``(batch, frames', output_size)`` with its lengths.

        Input and output may hold anything beyond the lengths: ``forward`` masks it.
        """
        raise NotImplementedError

    # --- bit by bit -------------------------------------------------------------------------------

    @property
    def can_stream(self) -> bool:
        """Whether it can hear an utterance bit by bit, in a time that does not grow with its length."""
        return False

    def initial_state(self, rows: int = 1) -> StreamState:
        """Make the state before the first frame of ``rows`` utterances.

        Raises ``ValueError`` for an encoder that hears utterances as a whole.
        """
        if not self.can_stream:
            raise ValueError("this encoder hears an utterance as a whole")
        like = next(self.parameters())
        features = like.new_zeros(rows, 0, self.input_size)
        waiting = like.new_zeros(rows, 0, self.layer_input)
        return StreamState(features, 0, waiting, tuple({} for _ in self.layers))

    @torch.no_grad()
    def advance(
        self, features: Tensor, state: StreamState, is_last: bool = False
    ) -> tuple[Tensor, StreamState]:
        """Take the next ``(rows, frames, features)``, as many of each utterance; there may be none.

        Returns the states that are certain by now, ``(rows, frames', output_size)``, and the state after
        them. There is no dropout where the encoder is in evaluation mode.
        """
        kept, given = state.features, state.given
        if self.front_end is None:
            states = features
        else:
            states, kept, given = self.front_end.advance(torch.cat([kept, features], 1), given, is_last)
        waiting = torch.cat([state.waiting, states], 1)
        encoded, waiting, layers = self.advance_layers(waiting, state.layers, is_last)
        return encoded, StreamState(kept, given, waiting, layers)

    def advance_layers(
        self, states: Tensor, before: tuple[State, ...], is_last: bool
    ) -> tuple[Tensor, Tensor, tuple[State, ...]]:
        """Read as many of ``(rows, frames', layer_input)`` as can be; also return the rest and the states."""
        raise NotImplementedError

    def drop_inputs(self, states: Tensor) -> Tensor:
        """Apply the variational dropout of Gal & Ghahramani (2016, equation 7) to a layer's input."""
        if not (self.training and self.input_dropout):
            return states
        return states * draw_dropout_mask(states, states.shape[2], self.input_dropout)[:, None]


def add_residual(states: Tensor, output: Tensor, residual: bool) -> Tensor:
    """Add a layer's input to its output where that is asked for and the shapes agree."""
    return states + output if residual and states.shape == output.shape else output


def new_norms(config: EncoderConfig, size: int) -> nn.ModuleList:
    """A normalisation for the output of each layer, or the identity."""
    kind = nn.LayerNorm if config.norm == "layer" else nn.Identity
    return nn.ModuleList(kind(size) for _ in range(config.layers))


class Dropout(nn.Dropout):
    """torch's dropout; on CPUs in bfloat16 with quicker random numbers.

    There torch draws a number for every unit, one after the other, which takes a tenth of a training
    step. A drawn word of 64 bits decides on four units, to within 1 / 65536 of the share.
    """

    def forward(self, states: Tensor) -> Tensor:
        """Drop units of a tensor of any shape, in training alone."""
        if not (self.training and self.p and states.device.type == "cpu" and states.dtype == torch.bfloat16):
            return super().forward(states)
        words = torch.empty((states.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int16)[: states.numel()].view(states.shape)
        dropped = min(round(self.p * 2**16), 2**16 - 1)
        return states * ((drawn >= dropped - 2**15) * (2**16 / (2**16 - dropped))).to(states.dtype)


# --- recurrent ------------------------------------------------------------------------------------


class RecurrentEncoder(Encoder):
    """Deep (bidirectional) recurrent layers of any cell (Graves, Mohamed & Hinton 2013, equations 8 to 11).

    Each of the topmost ``pyramid`` layers first joins every two frames into one of twice the size, as
    in the pyramid of Listen, Attend and Spell (Chan et al. 2016, equation 5).
    """

    def __init__(self, config: EncoderConfig, input_size: int, planes: int = 1) -> None:
        super().__init__(config, input_size, planes)
        self.output_size = config.size * (2 if config.bidirectional else 1)
        self.pyramid_from = config.layers - config.pyramid
        self.subsampling *= 2**config.pyramid
        sizes = [self.layer_input] + [
            self.output_size * (2 if layer >= self.pyramid_from else 1) for layer in range(1, config.layers)
        ]
        self.layers = nn.ModuleList(RecurrentLayer(config, size, self.bands) for size in sizes)
        self.norms = new_norms(config, self.output_size)
        self.bidirectional, self.chunk, self.lookahead = config.bidirectional, config.chunk, config.lookahead

    def encode(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.chunk:
            return self.encode_chunks(states, lengths), lengths
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            if number >= self.pyramid_from:
                states, lengths = join_pairs(states, lengths)
            output = self.dropout(norm(layer(self.drop_inputs(states), lengths)))
            states = add_residual(states, output, self.residual)
        return states, lengths

    def encode_chunks(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Encode ``(batch, frames, layer_input)`` chunk by chunk, each with its lookahead.

        From the start a layer is read without a break. From the end it is read anew in every chunk, from the
        last frame of the lookahead. What layers say of a lookahead serves its chunk alone: the next chunk,
        which knows more, says it again (latency-controlled, Zhang et al. 2016, section 3).
        """
        frames = states.shape[1]
        blocks, inside = cut_into_blocks(mask_padding(states, lengths), lengths, self.chunk, self.lookahead)
        before: tuple[State, ...] = tuple({} for _ in self.layers)
        encoded, _ = self.hear_blocks(blocks, inside, before)
        return encoded.flatten(1, 2)[:, :frames]

    def hear_blocks(
        self, blocks: Tensor, inside: Tensor, before: tuple[State, ...]
    ) -> tuple[Tensor, tuple[State, ...]]:
        """Run all layers over blocks, ``(batch, chunks, chunk + lookahead, layer_input)``.

        Args:
            inside: ``(batch, chunks)``, frames of each block.
            before: what each layer carried out of the chunk before; empty at the beginning.

        Returns:
            ``(batch, chunks, chunk, output_size)``, and what each layer carries out of the last chunk.
        """
        after = []
        for layer, norm, carried in zip(self.layers, self.norms, before, strict=True):
            inputs = self.drop_inputs(blocks.flatten(1, 2)).view(blocks.shape)
            heard, state = cast(RecurrentLayer, layer).hear_blocks(inputs, inside, self.chunk, carried)
            blocks = add_residual(blocks, self.dropout(norm(heard)), self.residual)
            after.append(state)
        return blocks[:, :, : self.chunk], tuple(after)

    @property
    def can_stream(self) -> bool:
        return not self.bidirectional or self.chunk > 0

    def advance_layers(
        self, states: Tensor, before: tuple[State, ...], is_last: bool
    ) -> tuple[Tensor, Tensor, tuple[State, ...]]:
        if self.chunk:
            return self.advance_chunks(states, before, is_last)
        after = []
        for number, (layer, norm, carried) in enumerate(zip(self.layers, self.norms, before, strict=True)):
            rest = {}
            if number >= self.pyramid_from:
                states = torch.cat([carried.get("rest", states[:, :0]), states], 1)
                if is_last:
                    states = F.pad(states, (0, 0, 0, states.shape[1] % 2))
                whole = states.shape[1] // 2 * 2
                rest = {"rest": states[:, whole:]}
                states = states[:, :whole].reshape(len(states), -1, 2 * states.shape[2])
            state = {name: value for name, value in carried.items() if name != "rest"}
            recurrent = cast(RecurrentLayer, layer)
            heard, state = advance_cell(recurrent.ahead, states, state, recurrent.zoneout)
            states = add_residual(states, self.dropout(norm(heard)), self.residual)
            after.append(state | rest)
        return states, states[:, :0].new_zeros(len(states), 0, self.layer_input), tuple(after)

    def advance_chunks(
        self, states: Tensor, before: tuple[State, ...], is_last: bool
    ) -> tuple[Tensor, Tensor, tuple[State, ...]]:
        """Read the chunks whose lookahead is there; at the end, all."""
        encoded = [states.new_zeros(len(states), 0, self.output_size)]
        while states.shape[1] >= self.chunk + self.lookahead or (is_last and states.shape[1]):
            block = states[:, : self.chunk + self.lookahead]
            frames = block.shape[1]
            block = F.pad(block, (0, 0, 0, self.chunk + self.lookahead - frames))
            inside = torch.full((len(states), 1), frames, device=states.device)
            heard, before = self.hear_blocks(block[:, None], inside, before)
            encoded.append(heard[:, 0, :frames])
            states = states[:, self.chunk :]
        return torch.cat(encoded, 1), states, before


def cut_into_blocks(states: Tensor, lengths: Tensor, chunk: int, lookahead: int) -> tuple[Tensor, Tensor]:
    """Cut ``(batch, frames, size)`` into chunks with their lookaheads.

    Returns ``(batch, chunks, chunk + lookahead, size)``, zeros beyond the lengths, where ``states`` must be
    zero, too, and the frames of each block, ``(batch, chunks)``.
    """
    chunks = -(-states.shape[1] // chunk)
    padded = F.pad(states, (0, 0, 0, chunks * chunk + lookahead - states.shape[1]))
    blocks = padded.unfold(1, chunk + lookahead, chunk).transpose(2, 3)
    begins = chunk * torch.arange(chunks, device=states.device)
    return blocks, (lengths[:, None] - begins).clamp(0, chunk + lookahead)


class RecurrentLayer(nn.Module):
    """One layer of a cell, in one direction or both.

    The backward direction has weights of its own and reads each utterance reversed within its own
    length. So in both directions the padding comes after the last real frame and reaches nothing,
    without packed sequences, which lose the fast kernel on CPUs.
    """

    def __init__(self, config: EncoderConfig, input_size: int, bands: int) -> None:
        super().__init__()
        self.recurrent_dropout, self.zoneout = config.recurrent_dropout, config.zoneout
        self.ahead = new_direction(config, input_size, bands)
        self.back = new_direction(config, input_size, bands) if config.bidirectional else None

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Run ``(batch, frames, input)`` to ``(batch, frames, size * directions)``; padding is undefined."""
        if self.can_use_tiles(states):
            from asr.model.tiled_lstm import run_tiled_lstm

            return run_tiled_lstm(states, lengths, self.directions)
        ahead = self.run_direction(self.ahead, states, lengths)
        if self.back is None:
            return ahead
        back = self.run_direction(self.back, reverse_frames(states, lengths), lengths)
        return torch.cat([ahead, reverse_frames(back, lengths)], dim=2)

    def hear_blocks(self, blocks: Tensor, inside: Tensor, chunk: int, before: State) -> tuple[Tensor, State]:
        """Run chunks of an utterance with their lookaheads.

        Args:
            blocks: ``(batch, chunks, chunk + lookahead, input)``.
            inside: ``(batch, chunks)``, frames of each block.
            before: the state of the direction from the start before the first chunk; empty for none.

        Returns:
            ``(batch, chunks, chunk + lookahead, 2 * size)`` and the state after the last chunk.
        """
        assert self.back is not None
        batch, chunks, width, _ = blocks.shape
        state, ahead, states = before, [], []
        for block in blocks[:, :, :chunk].unbind(1):
            heard, state = advance_cell(self.ahead, block, state)
            ahead.append(heard)
            states.append(state)
        both = [torch.stack(ahead, 1)]
        if width > chunk:
            ends = {name: torch.stack([s[name] for s in states], 1).flatten(0, 1) for name in state}
            looked, _ = advance_cell(self.ahead, blocks[:, :, chunk:].flatten(0, 1), ends)
            both.append(looked.view(batch, chunks, width - chunk, -1))
        rows, lengths = blocks.flatten(0, 1), inside.flatten()
        back = self.run_direction(self.back, reverse_frames(rows, lengths), lengths)
        back = reverse_frames(back, lengths).view(batch, chunks, width, -1)
        return torch.cat([torch.cat(both, 2), back], 3), state

    @property
    def directions(self) -> list[nn.Module]:
        """One or both."""
        return [direction for direction in (self.ahead, self.back) if direction is not None]

    def can_use_tiles(self, states: Tensor) -> bool:
        """Whether this is torch's LSTM, trained in bfloat16, on a processor with tiles (``tiled_lstm``)."""
        if not (self.training and torch.is_grad_enabled() and states.device.type == "cpu"):
            return False
        if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return False
        if self.zoneout or self.recurrent_dropout:
            return False
        if not all(is_plain_lstm(direction) for direction in self.directions):
            return False
        from asr.core.tiles import has_tiles  # numba takes its time, and only training comes here

        return has_tiles()

    def run_direction(self, direction: nn.RNNBase | Cell, states: Tensor, lengths: Tensor) -> Tensor:
        """The hidden states of one direction, by torch's fused kernel where that can do it."""
        unfused = self.zoneout or (self.training and self.recurrent_dropout)
        if not isinstance(direction, Cell) and not unfused:  # torch's own, perhaps quantised to 8 bits
            hidden, _ = direction(states)
            return hidden
        return scan(to_cell(direction), states, lengths, dropout=self.recurrent_dropout, zoneout=self.zoneout)

    def trace(self, states: Tensor, lengths: Tensor, backward: bool = False) -> State:
        """Trace one direction: hidden state, cell and gates, ``(batch, frames, size)`` each.

        Raises ``ValueError`` for a backward direction that is not there.
        """
        direction = self.back if backward else self.ahead
        if direction is None:
            raise ValueError("the layer has no backward direction")
        return trace(to_cell(direction), states, lengths, reverse=backward, zoneout=self.zoneout)


def is_plain_lstm(direction: nn.Module) -> bool:
    """Whether a direction is torch's LSTM, run as torch runs it, of a size that fills tiles."""
    return type(direction) is nn.LSTM and "forward" not in vars(direction) and direction.hidden_size % 32 == 0


def to_cell(direction: nn.RNNBase | Cell) -> Cell:
    """The written-out cell of a direction, whichever module runs it."""
    return unfuse(direction) if isinstance(direction, nn.RNNBase) else direction


def new_direction(config: EncoderConfig, input_size: int, bands: int) -> nn.RNNBase | Cell:
    """One direction of a layer: torch's fused module for the cells in ``FUSED``, else the written-out cell.

    Raises ``ConfigError`` for a convlstm whose size is not a multiple of its frequency bands.
    """
    if config.cell in FUSED:
        return new_fused(config.cell, input_size, config.size)
    if config.cell == "convlstm" and config.size % bands:
        raise ConfigError(
            f"'encoder.size' is {config.size}, which a convlstm cannot spread over {bands} frequency bands"
        )
    return CELLS[config.cell](input_size, config.size, bands)


def join_pairs(states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Join every two frames: ``(batch, ceil(frames / 2), 2 * size)``, zeros after an odd last frame."""
    batch, frames, size = states.shape
    states = F.pad(mask_padding(states, lengths), (0, 0, 0, frames % 2))
    return states.reshape(batch, -1, 2 * size), (lengths + 1) // 2


# --- not recurrent, for comparison ----------------------------------------------------------------


class TDNNEncoder(Encoder):
    """A time-delay network: convolutions over time alone (Waibel et al. 1989; Peddinti et al. 2015).

    Each layer sees three frames, 1, 2, 4 or 8 apart in turn, so that four layers reach 15 frames to
    either side. Without ``bidirectional`` a layer sees the present frame and two before it.
    """

    DISTANCES = (1, 2, 4, 8)

    def __init__(self, config: EncoderConfig, input_size: int, planes: int = 1) -> None:
        super().__init__(config, input_size, planes)
        self.output_size = config.size
        sizes = [self.layer_input] + [config.size] * (config.layers - 1)
        self.layers = nn.ModuleList(
            DelayLayer(size, config.size, self.DISTANCES[layer % len(self.DISTANCES)], config.bidirectional)
            for layer, size in enumerate(sizes)
        )
        self.norms = new_norms(config, self.output_size)
        self.activations = nn.ModuleList(nn.ReLU() for _ in range(config.layers))

        self.bidirectional = config.bidirectional

    @property
    def outputs(self) -> nn.ModuleList:
        return self.activations

    def encode(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        for layer, norm, activation in zip(self.layers, self.norms, self.activations, strict=True):
            output = self.dropout(activation(norm(layer(self.drop_inputs(states), lengths))))
            states = add_residual(states, output, self.residual)
        return states, lengths

    @property
    def can_stream(self) -> bool:
        return not self.bidirectional

    def advance_layers(
        self, states: Tensor, before: tuple[State, ...], is_last: bool
    ) -> tuple[Tensor, Tensor, tuple[State, ...]]:
        after: list[State] = []
        for layer, norm, activation, carried in zip(
            self.layers, self.norms, self.activations, before, strict=True
        ):
            heard, seen = cast(DelayLayer, layer).advance(states, carried.get("seen"))
            states = add_residual(states, self.dropout(activation(norm(heard))), self.residual)
            after.append({"seen": seen})
        return states, states.new_zeros(len(states), 0, self.layer_input), tuple(after)


class DelayLayer(nn.Module):
    """A convolution over three frames ``distance`` apart."""

    def __init__(self, input_size: int, size: int, distance: int, bidirectional: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(input_size, size, 3, dilation=distance)
        self.ends = (distance, distance) if bidirectional else (2 * distance, 0)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Convolve ``(batch, frames, input)`` to ``(batch, frames, size)``; padding is undefined."""
        frames = F.pad(mask_padding(states, lengths).transpose(1, 2), self.ends)
        return self.convolution(frames).transpose(1, 2)

    def advance(self, states: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Convolve the next frames, given those before them; also return what the next ones will see."""
        reach = sum(self.ends)
        if seen is None:
            seen = states.new_zeros(len(states), reach, states.shape[2])
        frames = torch.cat([seen, states], 1)
        if not states.shape[1]:
            return states.new_zeros(len(states), 0, self.convolution.out_channels), frames
        return self.convolution(frames.transpose(1, 2)).transpose(1, 2), frames[:, -reach:]


class TransformerEncoder(Encoder):
    """Self-attention (Vaswani et al. 2017), normalised before each part (Xiong et al. 2020).

    ``residual`` of the config changes nothing here: a transformer always is. Without ``bidirectional`` a
    frame attends to itself and to the frames before it.
    """

    def __init__(self, config: EncoderConfig, input_size: int, planes: int = 1) -> None:
        super().__init__(config, input_size, planes)
        self.output_size = config.size
        self.bidirectional = config.bidirectional
        self.entrance = nn.Linear(self.layer_input, config.size)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.size, config.heads, 4 * config.size, config.dropout, batch_first=True, norm_first=True
            )
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.size)

    def encode(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        frames = states.shape[1]
        positions = encode_positions(frames, self.output_size).to(states)
        states = self.dropout(self.entrance(states) * math.sqrt(self.output_size) + positions)
        # An utterance without a frame attends to its padding: attending to nothing is 0 divided by 0.
        padding = ~length_mask(lengths.clamp(min=1), frames)
        future = None
        if not self.bidirectional:
            future = torch.ones(frames, frames, dtype=torch.bool, device=states.device).triu(1)
        for layer in self.layers:
            states = layer(self.drop_inputs(states), src_mask=future, src_key_padding_mask=padding)
        return self.norm(states), lengths


def encode_positions(frames: int, size: int) -> Tensor:
    """Encode positions as sines and cosines, ``(frames, size)`` (Vaswani et al. 2017, section 3.5)."""
    times = torch.arange(frames)[:, None]
    rates = torch.exp(torch.arange(0, size, 2) * (-math.log(10000.0) / size))
    waves = torch.stack([torch.sin(times * rates), torch.cos(times * rates)], 2)
    return waves.flatten(1)[:, :size]


# --- front ends -----------------------------------------------------------------------------------


class FrontEnd(nn.Module):
    """Convolutions that leave fewer frames, of ``output_size = channels * bands``, channels first.

    The frames that come in are ``planes`` of ``bands`` frequencies each.
    """

    output_size: int
    bands: int
    reach: tuple[int, int]  # frames before and after the first of those that a state is made of, at most

    def __init__(self, bands: int, planes: int, channels: int, subsampling: int) -> None:
        super().__init__()
        self.planes = planes
        self.subsampling = subsampling
        self.strides = (2, 2 if subsampling == 4 else 1)  # over time; frequency is halved twice
        self.bands = (bands + 3) // 4
        self.output_size = channels * self.bands

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``(batch, frames, planes * bands)`` to ``(batch, ceil(frames / subsampling), output_size)``."""
        raise NotImplementedError

    def advance(self, features: Tensor, given: int, is_last: bool) -> tuple[Tensor, Tensor, int]:
        """Make the states that are certain of ``(rows, frames, features)``, but for the first ``given``.

        Also returns the features that later states need, and how many states of those will have been given.
        """
        frames, step = features.shape[1], self.subsampling
        count = -(-frames // step) if is_last else max(0, (frames - 1 - self.reach[1]) // step + 1)
        if count <= given:
            return features.new_zeros(len(features), 0, self.output_size), features, given
        lengths = torch.full((len(features),), frames, device=features.device)
        states = self(features, lengths)[0][:, given:count]
        again = min(count, -(-self.reach[0] // step))  # the edge is no edge for the states after these
        return states, features[:, step * (count - again) :], again

    def to_maps(self, features: Tensor) -> Tensor:
        """Reshape ``(batch, frames, planes * bands)`` to ``(batch, planes, frames, bands)``."""
        batch, frames, _ = features.shape
        return features.reshape(batch, frames, self.planes, -1).transpose(1, 2).contiguous()


class ConvSubsampling(FrontEnd):
    """Two 3x3 convolutions over time and frequency, with strides."""

    def __init__(self, bands: int, planes: int, channels: int, subsampling: int) -> None:
        super().__init__(bands, planes, channels, subsampling)
        self.reach = (3, 3)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, channels, 3, stride=(stride, 2), padding=1)
            for inputs, stride in zip((planes, channels), self.strides, strict=True)
        )

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.to_maps(features)
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            maps = torch.relu(convolution(maps))
            lengths = (lengths + stride - 1) // stride
            maps = mask_maps(maps, lengths)
        return maps.transpose(1, 2).flatten(2), lengths


class VGGSubsampling(FrontEnd):
    """Two blocks of two 3x3 convolutions and a max pooling (Hori et al. 2017)."""

    def __init__(self, bands: int, planes: int, channels: int, subsampling: int) -> None:
        super().__init__(bands, planes, channels, subsampling)
        self.reach = (6, 5 + subsampling)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, channels, 3, padding=1) for inputs in (planes, channels, channels, channels)
        )

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.to_maps(features)
        for number, convolution in enumerate(self.convolutions):
            maps = mask_maps(torch.relu(convolution(maps)), lengths)
            if number % 2:
                stride = self.strides[number // 2]
                maps = F.max_pool2d(maps, (stride, 2), ceil_mode=True)
                lengths = (lengths + stride - 1) // stride
        return maps.transpose(1, 2).flatten(2), lengths


def mask_maps(maps: Tensor, lengths: Tensor) -> Tensor:
    """Set ``(batch, channels, frames, bands)`` to zero beyond each length.

    The next convolution looks beyond the end, where there must be nothing. It gets no transposed view:
    oneDNN reads outside that memory where channels and bands are one.
    """
    beyond = ~length_mask(lengths, maps.shape[2])
    return maps.masked_fill(beyond[:, None, :, None], 0)


ENCODERS: dict[str, Callable[[EncoderConfig, int, int], Encoder]] = {
    "recurrent": RecurrentEncoder,
    "tdnn": TDNNEncoder,
    "transformer": TransformerEncoder,
}
