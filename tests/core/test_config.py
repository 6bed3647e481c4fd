"""TOML to dataclasses and back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.core.config import ConfigError, from_table, option, override, read_toml, section, to_table, to_toml
from asr.training.experiment import Experiment


@dataclass(frozen=True)
class Inner:
    rate: float = option(0.5, "How fast.")
    kind: Literal["a", "b"] = option("a", "Which one.")


@dataclass(frozen=True)
class Outer:
    count: int = option(3, "How many.")
    name: str = option("x", "What it is called.")
    loud: bool = option(False, "Whether it is loud.")
    speeds: tuple[float, ...] = option((1.0,), "How fast, each.")
    inner: Inner = section(Inner)


@given(
    st.builds(
        Outer,
        count=st.integers(-(2**60), 2**60),
        name=st.text(st.characters(exclude_categories=["Cs"])),
        loud=st.booleans(),
        speeds=st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
        inner=st.builds(Inner, rate=st.floats(allow_nan=False, allow_infinity=False)),
    ),
    st.booleans(),
)
def test_what_is_written_is_read_back(tmp_path_factory, config, explained):
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(to_toml(config, explained), encoding="utf-8")
    assert from_table(Outer, read_toml(path)) == config


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"cuont": 1}, ["'cuont'", "'count'"]),
        ({"inner": {"raet": 1.0}}, ["'inner.raet'", "'rate'"]),
        ({"count": "3"}, ["'count'", "'3'", "whole number"]),
        ({"count": True}, ["'count'", "True"]),
        ({"count": 3.0}, ["'count'", "3.0"]),
        ({"loud": 1}, ["'loud'", "true or false"]),
        ({"speeds": 1.0}, ["'speeds'", "list"]),
        ({"speeds": [1.0, "b"]}, ["'speeds'", "'b'"]),
        ({"inner": 3}, ["'inner'", "[inner]"]),
        ({"inner": {"kind": "c"}}, ["'inner.kind'", "'a', 'b'"]),
        ({"inner": {"rate": float("nan")}}, ["'inner.rate'", "finite"]),
    ],
)
def test_a_mistake_is_named(table, named):
    with pytest.raises(ConfigError) as error:
        from_table(Outer, table)
    for part in named:
        assert part in str(error.value)


def test_whole_numbers_are_numbers():
    assert from_table(Outer, {"inner": {"rate": 2}}).inner.rate == 2.0


def test_override_reads_toml_values_and_bare_strings():
    table = override({"inner": {"rate": 1.0}}, ["inner.rate=1e-3", "name=some words", "speeds=[0.9, 1]"])
    assert table == {"inner": {"rate": 1e-3}, "name": "some words", "speeds": [0.9, 1]}


def test_override_leaves_the_table_it_was_given():
    table = {"inner": {"rate": 1.0}}
    override(table, ["inner.rate=2"])
    assert table == {"inner": {"rate": 1.0}}


@pytest.mark.parametrize("assignment", ["inner.rate", "=3", "count.deep=3"])
def test_override_refuses_what_is_no_assignment(assignment):
    with pytest.raises(ConfigError):
        override({"count": 3}, [assignment])


def test_every_key_of_an_experiment_is_explained():
    def unexplained(config):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                yield from unexplained(value)
            elif not field.metadata.get("explanation"):
                yield field.name

    assert not list(unexplained(Experiment()))
    assert from_table(Experiment, to_table(Experiment())) == Experiment()
