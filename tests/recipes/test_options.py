"""Each recipe of recipes/options differs from the baseline in one option."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asr.core.config import from_table, read_toml, to_table
from asr.training.experiment import Experiment

OPTIONS = Path(__file__).parents[2] / "recipes" / "options"
DIFFERENCES = {
    "accumulate": {"training.batch_seconds", "training.accumulate"},
    "average": {"training.average_decay"},
    "mfcc": {"features.kind", "features.deltas"},
    "speaker": {"features.normalisation"},
    "stack": {"features.stack", "features.skip", "encoder.front_end", "encoder.channels"},
    "truncate": {"training.truncate_seconds"},
}


def read_flat(name: str) -> dict[str, Any]:
    """Every key of a recipe by its dotted name."""
    table = to_table(from_table(Experiment, read_toml(OPTIONS / f"{name}.toml")))
    return {
        f"{section}.{key}": value
        for section, keys in table.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
    }


def test_every_recipe_is_listed_here():
    assert {path.stem for path in OPTIONS.glob("*.toml")} == {"baseline", *DIFFERENCES}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_recipe_differs_from_the_baseline_in_its_option_alone(name):
    baseline, own = read_flat("baseline"), read_flat(name)
    assert {key for key in own if own[key] != baseline[key]} == DIFFERENCES[name]


def test_a_batch_times_accumulate_is_the_batch_of_the_baseline():
    baseline, own = read_flat("baseline"), read_flat("accumulate")
    product = own["training.batch_seconds"] * own["training.accumulate"]
    assert product == baseline["training.batch_seconds"]
