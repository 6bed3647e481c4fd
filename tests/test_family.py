"""The networks of recipes/family are comparable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from asr.cells import CELLS
from asr.config import from_table, read_toml
from asr.encoders import ENCODERS, EncoderConfig
from asr.experiment import Experiment

RECIPES = sorted((Path(__file__).parent.parent / "recipes" / "family").glob("*.toml"))


def experiment(path: Path) -> Experiment:
    return from_table(Experiment, read_toml(path))


def test_every_cell_but_the_unbounded_one_and_every_kind_has_a_recipe():
    configs = [experiment(path).encoder for path in RECIPES]
    assert {config.cell for config in configs} == set(CELLS) - {"rnn-relu"}
    assert {config.kind for config in configs} == set(ENCODERS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_million_weights_and_nothing_else_differs(path):
    own = experiment(path)
    encoder = ENCODERS[own.encoder.kind](own.encoder, own.features.size)
    projection = (encoder.output_size + 1) * own.text.vocabulary_size
    total = sum(parameter.numel() for parameter in encoder.parameters()) + projection
    assert total == pytest.approx(1_000_000, rel=0.01)
    assert encoder.subsampling == 4
    assert replace(own, encoder=EncoderConfig()) == replace(experiment(RECIPES[0]), encoder=EncoderConfig())
