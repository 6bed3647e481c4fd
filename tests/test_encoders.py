"""The contract of every encoder, and what is particular to some."""

from __future__ import annotations

import itertools

import pytest
import torch

from asr.encoders import ENCODERS, EncoderConfig, LSTMLayer, fresh_lstm, turned_round

INPUT = 7
VARIANTS = {
    kind: [
        EncoderConfig(kind=kind, layers=layers, size=6, bidirectional=both, residual=residual, norm=norm,
                      front_end=front_end, channels=4, dropout=0.3)
        for layers, both, (residual, norm), front_end in itertools.product(
            (1, 3), (True, False), ((False, "none"), (True, "layer")), ("none", "conv2", "conv4")
        )
    ]
    for kind in ENCODERS
}  # fmt: skip
ALL = [config for configs in VARIANTS.values() for config in configs]
IDS = [f"{c.kind}-{c.layers}-{c.bidirectional}-{c.norm}-{c.front_end}" for c in ALL]


def built(config: EncoderConfig):
    torch.manual_seed(0)
    return ENCODERS[config.kind](config, INPUT)


@pytest.mark.parametrize("config", ALL, ids=IDS)
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


@pytest.mark.parametrize("config", ALL, ids=IDS)
def test_shapes_and_lengths(config):
    encoder = built(config)
    for frames in range(1, 14):
        encoded, lengths = encoder(torch.randn(2, frames, INPUT), torch.tensor([frames, max(1, frames // 2)]))
        assert encoded.shape == (2, -(-frames // encoder.subsampling), encoder.output_size)
        assert lengths.tolist() == [-(-n // encoder.subsampling) for n in (frames, max(1, frames // 2))]
        assert lengths.dtype == torch.long


@pytest.mark.parametrize("config", ALL, ids=IDS)
def test_every_parameter_gets_a_gradient(config):
    encoder = built(config)
    encoder(torch.randn(2, 12, INPUT), torch.tensor([12, 8]))[0].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("config", ALL, ids=IDS)
def test_training_and_evaluation_return_the_same_kind(config):
    encoder = built(config)
    features, lengths = torch.randn(2, 12, INPUT), torch.tensor([12, 8])
    training, evaluation = encoder.train()(features, lengths), encoder.eval()(features, lengths)
    assert [t.shape for t in training] == [t.shape for t in evaluation]


def layer_and_fused() -> tuple[LSTMLayer, torch.nn.LSTM]:
    """A layer and torch's own bidirectional LSTM with the same weights."""
    layer = LSTMLayer(5, 4, bidirectional=True)
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


def test_forget_gates_begin_open():
    lstm = fresh_lstm(5, 4)
    bias = (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()
    assert bias.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8


def test_turning_round_is_its_own_inverse():
    states, lengths = torch.arange(10.0).reshape(2, 5, 1), torch.tensor([5, 3])
    turned = turned_round(states, lengths)
    assert turned[..., 0].tolist() == [[4, 3, 2, 1, 0], [7, 6, 5, 8, 9]]
    torch.testing.assert_close(turned_round(turned, lengths), states)


def test_residual_connections_change_the_output():
    plain, residual = (built(EncoderConfig(layers=3, size=6, residual=r)) for r in (False, True))
    residual.load_state_dict(plain.state_dict())
    features, lengths = torch.randn(1, 9, INPUT), torch.tensor([9])
    assert not torch.allclose(plain(features, lengths)[0], residual(features, lengths)[0])
