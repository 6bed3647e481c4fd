"""TOML to dataclasses and back."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr.core.config import (
    Bounds,
    ConfigError,
    check_bounds,
    from_table,
    option,
    override,
    read_toml,
    section,
    to_table,
    to_toml,
)
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


@dataclass(frozen=True)
class Bounded:
    share: float = option(0.5, "Of the whole.", minimum=0, below=1)
    speeds: tuple[float, ...] = option((1.0,), "How fast, each.", above=0, maximum=2)
    layers: int = option(1, "How many.", minimum=1)

    def __post_init__(self):
        check_bounds(self, "bounded")


@dataclass(frozen=True)
class Around:
    bounded: Bounded = section(Bounded)
    count: int = option(1, "How many.", above=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": 1.0}, "'bounded.share' cannot be 1.0: it must be at least 0 and below 1"),
        ({"share": -0.1}, "'bounded.share' cannot be -0.1: it must be at least 0 and below 1"),
        ({"layers": 0}, "'bounded.layers' cannot be 0: it must be at least 1"),
        (
            {"speeds": (1.0, 2.5)},
            "'bounded.speeds' cannot be (1.0, 2.5): each number must be above 0 and at most 2",
        ),
    ],
)
def test_a_number_out_of_bounds_is_named_from_toml_and_from_python(values, message):
    with pytest.raises(ConfigError) as error:
        from_table(Around, {"bounded": values})
    assert str(error.value) == message
    with pytest.raises(ConfigError) as error:
        Bounded(**values)
    assert str(error.value) == message


def test_a_table_is_checked_without_a_post_init_too():
    with pytest.raises(ConfigError, match=r"'count' cannot be 0: it must be above 0"):
        from_table(Around, {"count": 0})


@given(st.floats(allow_nan=False), st.floats(allow_nan=False, allow_infinity=False))
def test_minimum_and_maximum_are_allowed_themselves_above_and_below_are_not(number, limit):
    assert Bounds(minimum=limit).allow(number) == (not Bounds(below=limit).allow(number))
    assert Bounds(maximum=limit).allow(number) == (not Bounds(above=limit).allow(number))


def test_bounds_are_explained():
    text = to_toml(Around(), explained=True)
    assert "# Of the whole.\n# at least 0 and below 1\nshare = 0.5\n" in text
    assert "# How fast, each.\n# each above 0 and at most 2\nspeeds = [1.0]\n" in text


def test_the_defaults_of_an_experiment_are_within_its_bounds():
    assert from_table(Experiment, to_table(Experiment())) == Experiment()


@pytest.mark.parametrize("assignment", ["inner.rate", "=3", "count.deep=3"])
def test_override_refuses_what_is_no_assignment(assignment):
    with pytest.raises(ConfigError):
        override({"count": 3}, [assignment])


def test_every_key_of_an_experiment_is_explained():
    def find_unexplained(config):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            if dataclasses.is_dataclass(value):
                yield from find_unexplained(value)
            elif not field.metadata.get("explanation"):
                yield field.name

    assert not list(find_unexplained(Experiment()))


def test_a_retired_key_is_ignored_where_it_changed_nothing():
    table = {"features": {"dither": 0.0}, "training": {"clip_value": 0.0, "plateau_factor": 0.5}}
    assert from_table(Experiment, table) == Experiment()


def test_a_retired_key_that_changed_something_is_refused():
    with pytest.raises(ConfigError, match=r"'features\.dither' is no longer supported; remove it"):
        from_table(Experiment, {"features": {"dither": 0.1}})
