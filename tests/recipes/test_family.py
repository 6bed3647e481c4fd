"""The networks of recipes/family are comparable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asr.core.config import from_table, read_toml
from asr.model.attention import DecoderConfig
from asr.model.cells import CELLS
from asr.model.ctc import CTCModel
from asr.model.encoders import ENCODERS, EncoderConfig
from asr.training.experiment import Experiment

FAMILY = Path(__file__).parents[2] / "recipes" / "family"
MINI = sorted(FAMILY.glob("mini-*.toml"))
DIGITS = sorted(set(FAMILY.glob("*.toml")) - set(MINI))
PHONES = 41  # with the blank and the space


def experiment(path: Path) -> Experiment:
    return from_table(Experiment, read_toml(path))


def test_every_cell_and_every_kind_has_a_recipe():
    configs = [experiment(path).encoder for path in DIGITS]
    assert {config.cell for config in configs} == set(CELLS)
    assert {config.kind for config in configs} == set(ENCODERS)
    for dropout in ("dropout", "input_dropout", "recurrent_dropout", "zoneout"):
        assert any(getattr(config, dropout) for config in configs), dropout


def test_the_three_textbook_networks_read_english_from_one_end_and_from_both():
    names = {path.stem for path in MINI}
    assert names == {f"mini-{cell}{ahead}" for cell in ("rnn", "gru", "lstm") for ahead in ("", "-ahead")}


@pytest.mark.parametrize("path", [*DIGITS, *MINI], ids=lambda path: path.stem)
def test_a_million_weights_and_nothing_else_differs(path):
    own = experiment(path)
    siblings = MINI if path in MINI else DIGITS
    encoder = ENCODERS[own.encoder.kind](own.encoder, own.features.size, own.features.planes)
    tokens = PHONES if own.text.tokens == "phones" else own.text.vocabulary_size
    network = CTCModel(encoder, tokens, own.decoder)
    total = sum(parameter.numel() for parameter in network.parameters())
    assert total == pytest.approx(1_000_000, rel=0.01)
    assert encoder.subsampling == 4
    plain = {"encoder": EncoderConfig(), "decoder": DecoderConfig()}
    assert replace(own, **plain) == replace(experiment(siblings[0]), **plain)


def test_an_attention_decoder_sees_beyond_the_digit_that_it_spells():
    (own,) = [found for path in DIGITS if (found := experiment(path)).decoder.kind == "attention"]
    frame = own.features.hop_ms * 4 / 1000  # the encoders keep a frame in four
    # A digit takes half a second. Where its filters saw 0.2 s to either side of where it had looked last, the
    # decoder went by content alone, and left digits out.
    assert own.decoder.reach * frame >= 0.5


@pytest.mark.parametrize("path", MINI, ids=lambda path: path.stem)
def test_english_is_read_by_the_networks_that_hear_digits(path):
    twin = FAMILY / path.name.removeprefix("mini-")
    assert experiment(path).encoder == experiment(twin).encoder
