"""The contract of every encoder, and what is particular to some."""

from __future__ import annotations

import itertools
import typing
from dataclasses import replace

import pytest
import torch

from asr.cells import CELLS, FUSED, scan, written_out
from asr.config import ConfigError
from asr.encoders import ENCODERS, EncoderConfig, RecurrentLayer, paired, sinusoids

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


def built(config: EncoderConfig):
    torch.manual_seed(0)
    return ENCODERS[config.kind](config, INPUT)


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
    torch.testing.assert_close(trained, scan(written_out(layer.ahead), states, lengths, **share)[0])
    evaluated = layer.eval()(states, lengths)[0, :, :16]
    expected = scan(written_out(layer.ahead), states, lengths, **share)[0]
    torch.testing.assert_close(evaluated, expected, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(trained, evaluated)


def test_names_of_weights_are_those_of_models_on_disk():
    names = set(built(EncoderConfig(layers=1, size=4, front_end="conv4")).state_dict())
    gates = {f"{w}_{s}_l0" for w in ("weight", "bias") for s in ("ih", "hh")}
    assert names == {
        *(f"layers.0.{direction}.{gate}" for direction in ("ahead", "back") for gate in gates),
        *(f"front_end.convolutions.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")),
        "norms.0.weight",
        "norms.0.bias",
    }


def test_residual_connections_change_the_output():
    plain, residual = (built(config(layers=3, residual=r)) for r in (False, True))
    residual.load_state_dict(plain.state_dict())
    features, lengths = torch.randn(1, 9, INPUT), torch.tensor([9])
    assert not torch.allclose(plain(features, lengths)[0], residual(features, lengths)[0])


def test_a_pair_is_two_frames_in_their_order():
    states = torch.arange(1.0, 11.0).reshape(1, 5, 2)
    joined, lengths = paired(states, torch.tensor([3]))
    assert joined.tolist() == [[[1, 2, 3, 4], [5, 6, 0, 0], [0, 0, 0, 0]]]
    assert lengths.tolist() == [2]


def test_input_dropout_takes_the_same_inputs_from_every_frame():
    encoder = built(config(layers=1, input_dropout=0.5))
    heard = encoder.heard(torch.ones(3, 7, 40))
    assert set(heard.unique().tolist()) == {0.0, 2.0}
    assert (heard == heard[:, :1]).all()
    assert not torch.equal(heard[0], heard[1])


# --- as contrast ----------------------------------------------------------------------------------


def test_a_tdnn_sees_as_far_as_its_layers_reach():
    encoder = built(config(kind="tdnn", layers=3)).eval()
    features, lengths = torch.randn(1, 41, INPUT), torch.tensor([41])
    changed = features.clone()
    changed[:, 20] += 1.0
    moved = (encoder(features, lengths)[0] - encoder(changed, lengths)[0]).abs().sum(2)[0] > 0
    assert torch.nonzero(moved)[[0, -1], 0].tolist() == [20 - 7, 20 + 7]


def test_positions_tell_one_frame_from_every_other():
    waves = sinusoids(300, 16)
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
    ],
)
def test_what_cannot_be_is_named(options, named):
    with pytest.raises(ConfigError, match=named):
        EncoderConfig(**options)


def test_a_convlstm_of_a_size_that_has_no_bands_is_refused():
    with pytest.raises(ConfigError, match=r"encoder\.size"):
        built(replace(config(cell="convlstm"), size=12))
