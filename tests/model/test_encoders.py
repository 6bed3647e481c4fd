"""The contract of every encoder, and what is particular to some."""

from __future__ import annotations

import itertools
import typing
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from asr.core.config import ConfigError
from asr.model.acoustic import ModelConfig, new_acoustic_model
from asr.model.cells import CELLS, FUSED, scan, unfuse
from asr.model.encoders import ENCODERS, Dropout, EncoderConfig, RecurrentLayer, encode_positions, join_pairs
from asr.model.features import FeatureConfig

INPUT = 8
FRONT_ENDS = typing.get_args(typing.get_type_hints(EncoderConfig)["front_end"])
DROPOUT = {"dropout": 0.3, "input_dropout": 0.2}


def config(**options) -> EncoderConfig:
    return EncoderConfig(size=16, channels=4, **options)


# Every cell, every kind and every option comes up; not all of them with all others.
ALL = {
    f"{kind}-{layers}-{both}-{norm}-{front_end}": config(
        kind=kind, layers=layers, bidirectional=both, residual=norm == "layer", norm=norm,
        front_end=front_end, **DROPOUT,
    )
    for kind, layers, both, norm, front_end in itertools.product(
        ENCODERS, (1, 3), (True, False), ("none", "layer"), FRONT_ENDS
    )
    if (kind, norm) != ("transformer", "none")
} | {
    f"{cell}-chunk-{chunk}-{lookahead}": config(
        cell=cell, layers=3, chunk=chunk, lookahead=lookahead, front_end=front_end, residual=True, **DROPOUT
    )
    for cell, (chunk, lookahead, front_end) in itertools.product(
        CELLS, ((4, 2, "conv2"), (3, 5, "none"), (2, 0, "vgg4"))
    )
} | {
    f"{cell}-{both}-{front_end}-{pyramid}": config(
        cell=cell, layers=3, bidirectional=both, front_end=front_end, pyramid=pyramid,
        recurrent_dropout=0.2, zoneout=zoneout, **DROPOUT,
    )
    for cell, both, (front_end, pyramid, zoneout) in itertools.product(
        CELLS, (True, False), (("none", 0, 0.0), ("conv2", 2, 0.0), ("vgg4", 1, 0.1))
    )
}  # fmt: skip
every_encoder = pytest.mark.parametrize("config", ALL.values(), ids=ALL)


def built(config: EncoderConfig, planes: int = 1):
    torch.manual_seed(0)
    return ENCODERS[config.kind](config, INPUT, planes)


def test_every_kind_and_every_cell_is_among_the_choices():
    hints = typing.get_type_hints(EncoderConfig)
    assert typing.get_args(hints["kind"]) == tuple(ENCODERS)
    assert typing.get_args(hints["cell"]) == tuple(CELLS)


@every_encoder
def test_alone_is_as_in_a_batch_whatever_the_padding(config):
    encoder = built(config).eval()
    lengths = torch.tensor([23, 9, 1, 16])
    features = torch.randn(4, 23, INPUT)
    for row, length in zip(features, lengths, strict=True):
        row[length:] = 1e4
    encoded, encoded_lengths = encoder(features, lengths)
    for i, length in enumerate(lengths.tolist()):
        alone, alone_lengths = encoder(features[i : i + 1, :length], lengths[i : i + 1])
        own = int(encoded_lengths[i])
        assert alone_lengths.tolist() == [own]
        torch.testing.assert_close(encoded[i, :own], alone[0], atol=1e-5, rtol=1e-4)
        assert (encoded[i, own:] == 0).all()


@every_encoder
def test_shapes_and_lengths(config):
    encoder = built(config)
    for frames in (1, 2, 3, 5, 8, 13):
        encoded, lengths = encoder(torch.randn(2, frames, INPUT), torch.tensor([frames, max(1, frames // 2)]))
        assert encoded.shape == (2, -(-frames // encoder.subsampling), encoder.output_size)
        assert lengths.tolist() == [-(-n // encoder.subsampling) for n in (frames, max(1, frames // 2))]
        assert lengths.dtype == torch.long


@every_encoder
def test_every_parameter_gets_a_gradient(config):
    encoder = built(config)
    features = torch.randn(2, 24, INPUT)
    encoded, _ = encoder(features, torch.tensor([24, 16]))
    (encoded * torch.randn_like(encoded)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@every_encoder
def test_training_and_evaluation_return_the_same_kind(config):
    encoder = built(config)
    features, lengths = torch.randn(2, 12, INPUT), torch.tensor([12, 8])
    training, evaluation = encoder.train()(features, lengths), encoder.eval()(features, lengths)
    assert [t.shape for t in training] == [t.shape for t in evaluation]
    assert not torch.equal(training[0], evaluation[0])  # dropout
    torch.testing.assert_close(encoder(features, lengths)[0], evaluation[0], atol=0, rtol=0)


@pytest.mark.parametrize("kind", ENCODERS)
def test_read_from_the_start_the_present_knows_nothing_of_the_future(kind):
    one_way, both = (built(config(kind=kind, layers=2, bidirectional=b)).eval() for b in (False, True))
    features, lengths = torch.randn(1, 20, INPUT), torch.tensor([20])
    changed = features.clone()
    changed[:, 12:] += 1.0
    before, after = one_way(features, lengths)[0], one_way(changed, lengths)[0]
    torch.testing.assert_close(before[:, :12], after[:, :12], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, 12:], after[:, 12:])
    assert not torch.allclose(both(features, lengths)[0][:, :12], both(changed, lengths)[0][:, :12])


# --- bit by bit -----------------------------------------------------------------------------------

STREAMING = {name: options for name, options in ALL.items() if built(options).can_stream}


def test_whatever_reads_from_the_start_or_in_chunks_can_stream():
    for options in ALL.values():
        expected = options.kind != "transformer" and (not options.bidirectional or options.chunk > 0)
        assert built(options).can_stream == expected
    with pytest.raises(ValueError, match="as a whole"):
        built(config()).initial_state()


@pytest.mark.parametrize("config", STREAMING.values(), ids=STREAMING)
def test_alone_is_as_streamed(config):
    encoder = built(config).eval()
    randomised(encoder)
    features = torch.randn(2, 37, INPUT)
    whole, lengths = encoder(features, torch.tensor([37, 37]))
    for sizes in ((37,), (1,) * 37, (5, 0, 11, 2, 19)):
        state, heard = encoder.initial_state(rows=2), []
        for part in features.split(sizes, dim=1):
            encoded, state = encoder.advance(part, state)
            heard.append(encoded)
        encoded, _ = encoder.advance(features[:, :0], state, is_last=True)
        streamed = torch.cat([*heard, encoded], 1)
        assert streamed.shape[1] == int(lengths[0])
        torch.testing.assert_close(streamed, whole, atol=1e-5, rtol=1e-5)


def test_a_chunk_is_heard_when_its_lookahead_is_there_and_knows_no_more():
    encoder = built(config(layers=2, chunk=4, lookahead=2)).eval()
    features = torch.randn(1, 20, INPUT)
    state, counts = encoder.initial_state(), []
    for frame in features.split(1, dim=1):
        encoded, state = encoder.advance(frame, state)
        counts.append(encoded.shape[1])
    assert [number for number, count in enumerate(counts) if count] == [5, 9, 13, 17]
    lengths = torch.tensor([20])
    changed = features.clone()
    changed[:, 10:] += 1
    before, after = encoder(features, lengths)[0], encoder(changed, lengths)[0]
    torch.testing.assert_close(before[:, :8], after[:, :8], atol=0, rtol=0)
    assert not torch.allclose(before[:, 8], after[:, 8])  # of the chunk 8 to 11, with 12 and 13


def test_a_chunk_as_long_as_the_utterance_is_the_bidirectional_network():
    whole, chunked = built(config(layers=2)).eval(), built(config(layers=2, chunk=30)).eval()
    chunked.load_state_dict(whole.state_dict())
    features, lengths = torch.randn(3, 23, INPUT), torch.tensor([23, 9, 1])
    torch.testing.assert_close(
        chunked(features, lengths)[0], whole(features, lengths)[0], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"lookahead": 2}, "needs an 'encoder.chunk'"),
        ({"chunk": 4, "bidirectional": False}, "bidirectional = true"),
        ({"chunk": 4, "zoneout": 0.1}, "does not go with 'encoder.zoneout'"),
        ({"chunk": 4, "pyramid": 1}, "does not go with 'encoder.pyramid'"),
        ({"chunk": 4, "kind": "tdnn"}, "for recurrent layers"),
    ],
)
def test_chunks_go_with_what_they_can(options, complaint):
    with pytest.raises(ConfigError, match=complaint):
        config(layers=2, **options)


@pytest.mark.parametrize("kind", ENCODERS)
def test_an_utterance_without_frames_spoils_nobody(kind):
    encoder = built(config(kind=kind, layers=2))
    features = torch.randn(2, 9, INPUT)
    encoded, lengths = encoder(features, torch.tensor([9, 0]))
    assert lengths.tolist() == [9, 0]
    assert (encoded[1] == 0).all()
    encoded.square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


# --- recurrent ------------------------------------------------------------------------------------


def layer_and_fused() -> tuple[RecurrentLayer, torch.nn.LSTM]:
    """A layer and torch's own bidirectional LSTM with the same weights."""
    layer = RecurrentLayer(EncoderConfig(size=4), 5, bands=1)
    fused = torch.nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for direction, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            for name, parameter in direction.named_parameters():
                fused.get_parameter(name + suffix).copy_(parameter)
    return layer, fused


def test_the_layer_is_torchs_bidirectional_lstm_on_equal_lengths():
    layer, fused = layer_and_fused()
    states = torch.randn(3, 11, 5)
    torch.testing.assert_close(layer(states, torch.full((3,), 11)), fused(states)[0], atol=1e-6, rtol=1e-5)


def test_the_layer_is_torchs_packed_lstm_on_unequal_lengths():
    layer, fused = layer_and_fused()
    states, lengths = torch.randn(3, 11, 5), torch.tensor([11, 4, 7])
    packed = torch.nn.utils.rnn.pack_padded_sequence(states, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(fused(packed)[0], batch_first=True)
    ours = layer(states, lengths)
    for row, other, length in zip(ours, expected, lengths.tolist(), strict=True):
        torch.testing.assert_close(row[:length], other[:length], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_what_torch_has_runs_fused_and_the_rest_is_written_out(cell):
    layer = built(config(cell=cell, layers=1)).layers[0]
    for direction in (layer.ahead, layer.back):
        assert isinstance(direction, torch.nn.RNNBase) == (cell in FUSED)


@pytest.mark.parametrize("cell", FUSED)
@pytest.mark.parametrize("option", ["recurrent_dropout", "zoneout"])
def test_fused_layers_are_written_out_for_dropout_that_the_kernels_lack(cell, option):
    layer = built(config(cell=cell, layers=1, **{option: 0.4})).layers[0]
    states, lengths = torch.randn(2, 9, INPUT), torch.tensor([9, 5])
    share = {"dropout" if option == "recurrent_dropout" else option: 0.4}
    torch.manual_seed(1)
    trained = layer.train()(states, lengths)[0, :, :16]
    torch.manual_seed(1)
    torch.testing.assert_close(trained, scan(unfuse(layer.ahead), states, lengths, **share)[0])
    evaluated = layer.eval()(states, lengths)[0, :, :16]
    expected = scan(unfuse(layer.ahead), states, lengths, **share)[0]
    torch.testing.assert_close(evaluated, expected, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(trained, evaluated)


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_no_larger_where_frames_are_zero(cell):
    """Masked frames at both ends: a state of exactly zero would multiply gradients in every normalisation."""
    torch.manual_seed(0)
    encoder = built(config(cell=cell, layers=3, bidirectional=False))
    states, lengths = torch.randn(4, 90, INPUT), torch.full((4,), 90)
    weights = torch.randn(4, 90, encoder.output_size)

    def gradient() -> float:
        loss = (encoder(states, lengths)[0] * weights).sum()
        parts = torch.autograd.grad(loss, list(encoder.parameters()))
        return float(torch.cat([part.flatten() for part in parts]).norm())

    as_heard = gradient()
    states[:, :20] = states[:, 70:] = 0
    assert 0.2 < gradient() / as_heard < 5  # 0.6 to 1.3 measured; 1e5 and NaN while biases began at zero


def test_names_of_weights_are_those_of_models_on_disk():
    names = set(built(EncoderConfig(layers=1, size=4, front_end="conv4")).state_dict())
    gates = {f"{w}_{s}_l0" for w in ("weight", "bias") for s in ("ih", "hh")}
    assert names == {
        *(f"layers.0.{direction}.{gate}" for direction in ("ahead", "back") for gate in gates),
        *(f"front_end.convolutions.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")),
        "norms.0.weight",
        "norms.0.bias",
    }


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("kind", ["recurrent", "tdnn"])
def test_layers_are_put_together_as_the_config_says(kind, norm, residual):
    """The first layer's input has another size than its output and is not added."""
    encoder = built(config(kind=kind, layers=3, norm=norm, residual=residual)).eval()
    randomised(encoder)
    states, lengths = torch.randn(1, 9, INPUT), torch.tensor([9])
    encoded, _ = encoder(states, lengths)
    for layer, norm_of_layer in zip(encoder.layers, encoder.norms, strict=True):
        output = layer(states, lengths)
        if norm == "layer":
            mean, variance = output.mean(2, keepdim=True), output.var(2, keepdim=True, unbiased=False)
            output = (output - mean) / (variance + 1e-5).sqrt() * norm_of_layer.weight + norm_of_layer.bias
        if kind == "tdnn":
            output = output.clamp(min=0)
        states = output + states if residual and layer is not encoder.layers[0] else output
    torch.testing.assert_close(encoded, states, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_seen_inside_is_what_is_computed(cell):
    layer = built(config(cell=cell, layers=1, zoneout=0.25)).eval().layers[0]
    states, lengths = torch.randn(2, 9, INPUT), torch.tensor([9, 9])
    inside = [layer.trace(states, lengths, backward)["hidden"] for backward in (False, True)]
    torch.testing.assert_close(torch.cat(inside, 2), layer(states, lengths), atol=1e-6, rtol=1e-5)


def test_a_pair_is_two_frames_in_their_order():
    states = torch.arange(1.0, 11.0).reshape(1, 5, 2)
    joined, lengths = join_pairs(states, torch.tensor([3]))
    assert joined.tolist() == [[[1, 2, 3, 4], [5, 6, 0, 0], [0, 0, 0, 0]]]
    assert lengths.tolist() == [2]


def test_it_is_the_topmost_layers_that_join_frames():
    encoder = built(config(layers=3, pyramid=2))
    frames: list[int] = []
    for layer in encoder.layers:
        layer.register_forward_pre_hook(lambda layer, given: frames.append(given[0].shape[1]))
    encoder(torch.randn(1, 16, INPUT), torch.tensor([16]))
    assert frames == [16, 8, 4]


def test_input_dropout_takes_the_same_inputs_from_every_frame():
    encoder = built(config(layers=1, input_dropout=0.5))
    heard = encoder.drop_inputs(torch.ones(3, 7, 40))
    assert set(heard.unique().tolist()) == {0.0, 2.0}
    assert (heard == heard[:, :1]).all()
    assert not torch.equal(heard[0], heard[1])


@pytest.mark.parametrize("kind", ENCODERS)
def test_input_dropout_is_of_every_layer(kind):
    norm = "layer" if kind == "transformer" else "none"
    options = EncoderConfig(kind=kind, layers=3, size=64, norm=norm, input_dropout=0.5)
    encoder = ENCODERS[kind](options, 64, 1).train()
    heard: list[torch.Tensor] = []
    for layer in encoder.layers:
        layer.register_forward_pre_hook(lambda layer, given: heard.append(given[0]))
    encoder(torch.randn(2, 40, 64), torch.tensor([40, 40]))
    for states in heard:
        silent = (states == 0).all(1)  # (batch, units)
        assert 0.25 < silent.float().mean() < 0.75
        assert not torch.equal(silent[0], silent[1])
    assert len(heard) == 3


@pytest.mark.parametrize("kind", ["recurrent", "tdnn"])
def test_dropout_is_of_a_layers_outputs_frame_by_frame(kind):
    encoder = built(config(kind=kind, layers=1, norm="none", dropout=0.5))
    features, lengths = torch.randn(2, 60, INPUT), torch.tensor([60, 60])
    trained, whole = encoder.train()(features, lengths)[0], encoder.eval()(features, lengths)[0]
    kept = trained != 0
    torch.testing.assert_close(trained[kept], 2 * whole[kept], atol=1e-6, rtol=1e-5)
    assert 0.4 < kept[whole != 0].float().mean() < 0.6
    assert not torch.equal(kept[:, 0], kept[:, 1])


def randomised(encoder: torch.nn.Module) -> None:
    """Norms begin as ones and zeros, which hide a weight that is not used."""
    for parameter in encoder.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)


# --- front ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("name", [name for name in FRONT_ENDS if name != "none"])
def test_a_front_end_is_its_convolutions_channels_first(name, planes):
    front_end = built(config(front_end=name), planes).front_end
    features = torch.randn(1, 13, INPUT)
    bands = INPUT // planes
    maps = torch.stack([features[..., plane * bands : (plane + 1) * bands] for plane in range(planes)], 1)
    for number, convolution in enumerate(front_end.convolutions):
        weights = (convolution.weight, convolution.bias)
        halved = 2 if name.endswith("4") else 1  # the second time frames are halved
        if name.startswith("conv"):
            maps = F.conv2d(maps, *weights, stride=((2, halved)[number], 2), padding=1).clamp(min=0)
        else:
            maps = F.conv2d(maps, *weights, padding=1).clamp(min=0)
            if number % 2:
                stride = ((2, halved)[number // 2], 2)
                maps = F.max_pool2d(maps, stride, ceil_mode=True)
    expected = torch.stack([maps[0, :, t].flatten() for t in range(maps.shape[2])])
    frames, lengths = front_end(features, torch.tensor([13]))
    torch.testing.assert_close(frames[0], expected, atol=1e-5, rtol=1e-5)
    assert lengths.tolist() == [len(expected)]
    assert front_end.output_size == expected.shape[1]


# --- as contrast ----------------------------------------------------------------------------------


def test_a_tdnn_sees_as_far_as_its_layers_reach():
    encoder = built(config(kind="tdnn", layers=3)).eval()
    features, lengths = torch.randn(1, 41, INPUT), torch.tensor([41])
    changed = features.clone()
    changed[:, 20] += 1.0
    moved = (encoder(features, lengths)[0] - encoder(changed, lengths)[0]).abs().sum(2)[0] > 0
    assert torch.nonzero(moved)[[0, -1], 0].tolist() == [20 - 7, 20 + 7]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_a_transformer_is_what_its_papers_say(bidirectional):
    """Vaswani et al. (2017), equation 1 and section 3.5, normalised first as Xiong et al. (2020), table 1."""
    size, heads = 16, 4
    encoder = built(config(kind="transformer", layers=2, heads=heads, bidirectional=bidirectional)).eval()
    randomised(encoder)
    features = torch.randn(1, 7, INPUT)
    states = encoder.entrance(features)[0] * size**0.5
    for t, unit in itertools.product(range(7), range(size)):
        angle = torch.tensor(t / 10000 ** (unit // 2 * 2 / size))
        states[t, unit] += angle.cos() if unit % 2 else angle.sin()
    for layer in encoder.layers:
        attention = layer.self_attn
        heard = F.linear(layer.norm1(states), attention.in_proj_weight, attention.in_proj_bias)
        contexts = []
        for head in range(heads):
            units = slice(head * size // heads, (head + 1) * size // heads)
            query, key, value = (part[:, units] for part in heard.chunk(3, 1))
            scores = query @ key.T / (size // heads) ** 0.5
            if not bidirectional:
                scores = scores.masked_fill(torch.ones(7, 7).triu(1) > 0, -torch.inf)
            contexts.append(scores.softmax(1) @ value)
        states = states + attention.out_proj(torch.cat(contexts, 1))
        states = states + layer.linear2(layer.linear1(layer.norm2(states)).clamp(min=0))
    encoded = encoder(features, torch.tensor([7]))[0][0]
    torch.testing.assert_close(encoded, encoder.norm(states), atol=1e-5, rtol=1e-4)


def test_positions_tell_one_frame_from_every_other():
    waves = encode_positions(300, 16)
    assert waves.shape == (300, 16)
    distances = torch.cdist(waves, waves) + 10 * torch.eye(300)
    assert distances.min() > 0.1


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": 0}, "encoder.layers"),
        ({"pyramid": 3}, "encoder.pyramid"),
        ({"zoneout": 1.0}, "encoder.zoneout"),
        ({"recurrent_dropout": -0.1}, "encoder.recurrent_dropout"),
        ({"input_dropout": 1.5}, "encoder.input_dropout"),
        ({"kind": "transformer", "heads": 7}, "encoder.heads"),
        ({"kind": "tdnn", "pyramid": 1}, "encoder.pyramid"),
        ({"kind": "transformer", "zoneout": 0.1}, "encoder.zoneout"),
        ({"kind": "tdnn", "cell": "gru"}, "encoder.cell"),
        ({"kind": "transformer", "norm": "none"}, "encoder.norm"),
    ],
)
def test_what_cannot_be_is_named(options, named):
    with pytest.raises(ConfigError, match=named):
        EncoderConfig(**options)


def test_a_convlstm_of_a_size_that_has_no_bands_is_refused():
    with pytest.raises(ConfigError, match=r"encoder\.size"):
        built(replace(config(cell="convlstm"), size=12))


@pytest.mark.parametrize("name", [name for name in FRONT_ENDS if name != "none"])
@pytest.mark.parametrize("frames", [9, 30])
def test_one_channel_with_one_band_hears_its_own_frames_alone(name, frames):
    """A shape of which oneDNN, given a transposed view, reads memory that is not there."""
    front_end = ENCODERS["recurrent"](
        EncoderConfig(layers=1, size=4, front_end=name, channels=1), 1, 1
    ).front_end
    features, lengths = torch.randn(2, frames, 1), torch.tensor([frames, frames])
    heard, _ = front_end(features, lengths)
    exact, _ = front_end.double()(features.double(), lengths)
    torch.testing.assert_close(heard.double(), exact, atol=1e-5, rtol=0)


def test_deltas_and_stacked_frames_are_channels_not_higher_frequencies():
    """A convolutional LSTM's first layer sees each band with its deltas beside it, in every stacked frame."""
    features = FeatureConfig(n_mels=8, deltas=1, stack=3)
    assert (features.size, features.planes) == (48, 6)
    options = EncoderConfig(cell="convlstm", layers=1, size=16, bidirectional=False, norm="none")
    encoder = new_acoustic_model(ModelConfig(features=features, encoder=options), 2).ctc.encoder
    assert encoder.layers[0].ahead.weight_ih.shape == (8, 6, 3)
    states = torch.zeros(1, 1, 48)
    quiet = encoder(states, torch.tensor([1]))[0]
    for plane in range(6):
        louder = states.clone()
        louder[..., 8 * plane + 2] = 1.0  # the third band of one plane
        changed = (encoder(louder, torch.tensor([1]))[0] - quiet)[0, 0].reshape(2, 8).abs().sum(0) > 0
        assert changed.tolist() == [False, True, True, True, False, False, False, False]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_dropout_in_bfloat16_drops_a_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    states = torch.ones(50, 40, 101, dtype=torch.bfloat16, requires_grad=True)
    dropped = Dropout(share)(states)
    assert dropped.dtype == torch.bfloat16
    assert sorted(dropped.unique().tolist()) == pytest.approx([0, 1 / (1 - share)], rel=1 / 256)
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert (dropped == 0).float().mean(0).std() < 1.2 * (share * (1 - share) / 50) ** 0.5  # evenly spread
    dropped.sum().backward()
    assert torch.equal(states.grad, dropped.detach())
    torch.manual_seed(0)
    assert torch.equal(Dropout(share)(states), dropped)
    assert torch.equal(Dropout(share).eval()(states), states)


def test_dropout_in_float32_is_torchs():
    states = torch.ones(4, 5, 6)
    torch.manual_seed(0)
    found = Dropout(0.3)(states)
    torch.manual_seed(0)
    assert torch.equal(found, torch.nn.functional.dropout(states, 0.3))
