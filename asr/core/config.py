"""TOML to frozen dataclasses and back: read, write, override, explain.

A config is a frozen dataclass whose fields are numbers, strings, booleans, tuples of these, or
further configs. Every field is made by ``option`` and carries one sentence that says what it is
for and, where it is a number, its bounds. This module knows no dataclass by name; each lives beside
the code that uses it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from asr.core.files import quote_path, read_text
from asr.errors import UserError

MOST_TOML_BYTES = 1 << 20
LARGEST_WHOLE = 1 << 62
LONGEST_QUOTE = 120  # characters of a value in a message
LONGEST_KEY = 100  # of one that may be a known one misspelt

Config = TypeVar("Config")
Value = TypeVar("Value")

# Keys that older programs wrote into every config.toml, with the value at which they changed nothing.
RETIRED = {"features.dither": 0.0, "training.clip_value": 0.0, "training.plateau_factor": 0.5}


class ConfigError(UserError):
    """A key that does not exist or a value that cannot be; the text names the key."""


@dataclass(frozen=True)
class Bounds:
    """Which numbers an option accepts; ``None`` where there is no limit."""

    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None

    def allow(self, number: float) -> bool:
        """Whether ``number`` lies within all four."""
        return (
            (self.minimum is None or number >= self.minimum)
            and (self.above is None or number > self.above)
            and (self.maximum is None or number <= self.maximum)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        """In words, as ``at least 0 and below 1``."""
        limits = {
            "at least": self.minimum,
            "above": self.above,
            "at most": self.maximum,
            "below": self.below,
        }
        return " and ".join(f"{words} {limit:g}" for words, limit in limits.items() if limit is not None)


def option(
    default: Value,
    explanation: str,
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
) -> Value:
    """A dataclass field with a default, the sentence that explains it and the bounds of its numbers.

    ``minimum`` and ``maximum`` are allowed themselves, ``above`` and ``below`` are not. In a tuple they
    hold for every element. ``from_table`` checks them; a config that is built in Python as well calls
    ``check_bounds`` in its ``__post_init__``.
    """
    metadata: dict[str, Any] = {"explanation": explanation}
    bounds = Bounds(minimum, above, maximum, below)
    if bounds != Bounds():
        metadata["bounds"] = bounds
    return dataclasses.field(default=default, metadata=metadata)


def section(kind: type[Config]) -> Config:
    """A dataclass field that is a config of its own, a ``[table]`` in TOML."""
    return dataclasses.field(default_factory=kind)


def check_bounds(config: Any, name: str) -> None:
    """Raise ``ConfigError`` for the first number out of bounds in ``config``; ``name`` is its table."""
    for field in dataclasses.fields(config):
        _check_within(field, getattr(config, field.name), f"{name}.{field.name}")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file; raises ``ConfigError`` naming the file and the line."""
    text = read_text(path, ConfigError, most_bytes=MOST_TOML_BYTES)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # of TOML, or a whole number that is too long to be one
        raise ConfigError(f"{quote_path(path)}: is not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{quote_path(path)}: is nested too deeply") from error


def from_table(
    kind: type[Config], table: Mapping[str, Any], prefix: str = "", whole: type | None = None
) -> Config:
    """Build the dataclass ``kind`` from a table; keys left out keep their defaults.

    ``prefix`` is what stands before its keys where it is a section of ``whole``.

    Raises ``ConfigError`` for an unknown key, naming the nearest known one, for a wrong type, and for a
    number out of bounds. Keys in ``RETIRED`` are ignored at the value at which they changed nothing.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = {}
    for key, value in table.items():
        if prefix + key in RETIRED:
            if value != RETIRED[prefix + key]:
                raise ConfigError(f"{prefix + key!r} is no longer supported; remove it")
            continue
        if key not in hints:
            raise ConfigError(f"unknown key {_quote(prefix + key)}{_suggest(key, hints, whole or kind)}")
        values[key] = _convert(value, hints[key], prefix + key, whole or kind)
        _check_within(fields[key], values[key], prefix + key)
    return kind(**values)


def to_table(config: Any) -> dict[str, Any]:
    """The inverse of ``from_table``: plain values in nested dicts, every key written out."""
    return {
        field.name: to_table(value) if dataclasses.is_dataclass(value) else value
        for field in dataclasses.fields(config)
        for value in [getattr(config, field.name)]
    }


def override(table: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """A copy of ``table`` with ``section.key=value`` assignments applied.

    A value is read as TOML (``3``, ``1e-3``, ``true``, ``["a", "b"]``) and, where it is none, as
    a bare string. ``from_table`` finds out whether key and type are right.
    """
    try:
        result = _copy_tables(table)
    except RecursionError as error:
        raise ConfigError("the recipe is nested too deeply") from error
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"{assignment!r} is not of the form section.key=value")
        *sections, key = (part.strip() for part in path.split("."))
        target = result
        for name in sections:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{path!r}: {name!r} is a value, not a section")
        target[key] = _parse_toml_value(text.strip())
    return result


def to_toml(config: Any, explained: bool = False) -> str:
    """``config`` as TOML, every key written out; ``explained`` puts above each key what it is for."""
    return "\n".join(_toml_lines(config, "", explained)).strip() + "\n"


def _toml_lines(config: Any, prefix: str, explained: bool) -> list[str]:
    lines, tables = [], []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            name = prefix + field.name
            tables += ["", f"[{name}]", *_toml_lines(value, name + ".", explained)]
            continue
        if explained:
            lines += [f"# {line}" for line in _explain(field, config)]
        lines.append(f"{field.name} = {_format_toml(value)}")
    return lines + tables


def _explain(field: dataclasses.Field[Any], config: Any) -> list[str]:
    """Lines: the sentence of an option, its choices and its bounds."""
    lines = [field.metadata["explanation"]] if "explanation" in field.metadata else []
    hint = typing.get_type_hints(type(config))[field.name]
    if typing.get_origin(hint) is Literal:
        lines.append("one of: " + ", ".join(map(str, typing.get_args(hint))))
    if "bounds" in field.metadata:
        each = "each " if typing.get_origin(hint) is tuple else ""
        lines.append(f"{each}{field.metadata['bounds']}")
    return lines


def _format_toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for surrogate pairs and the delete character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_format_toml, value)) + "]"
    return repr(value)


def _parse_toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _convert(value: Any, hint: Any, key: str, whole: type) -> Any:
    """``value`` as the type that ``hint`` asks for, or a ``ConfigError`` naming ``key``."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{key!r} is a section: write [{key}] with keys below it")
        return from_table(hint, value, key + ".", whole)
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{key!r} is {_quote(value)}, not one of {', '.join(map(repr, choices))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key!r} is {_quote(value)}, not a list")
        return tuple(_convert(item, typing.get_args(hint)[0], key, whole) for item in value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if is_whole and abs(value) > LARGEST_WHOLE:
        raise ConfigError(f"{key!r} is too large a number")
    if hint is float and is_whole:
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{key!r} is {_quote(value)}, not {_NAMES.get(hint, hint)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key!r} is {value!r}, not a finite number")
    return value


def _check_within(field: dataclasses.Field[Any], value: Any, key: str) -> None:
    bounds = field.metadata.get("bounds")
    if bounds is None:
        return
    several = isinstance(value, tuple)
    if not all(map(bounds.allow, value if several else [value])):
        what = "each number" if several else "it"
        raise ConfigError(f"{key!r} cannot be {_quote(value)}: {what} must be {bounds}")


_NAMES = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _suggest(key: str, known: Mapping[str, Any], whole: type) -> str:
    """The end of a message: where in ``whole`` there is a ``key``, or the ``known`` one most like it."""
    sections = {
        name: typing.get_type_hints(kind)
        for name, kind in typing.get_type_hints(whole).items()
        if dataclasses.is_dataclass(kind)
    }
    homes = [f"{name}.{key}" for name, keys in sections.items() if key in keys]
    homes += [key] if key in typing.get_type_hints(whole) else []
    if homes:
        return f"; it is called {' or '.join(map(repr, homes))}"
    if len(key) > LONGEST_KEY:  # to compare it would take long
        return ""
    matches = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"; the nearest known one is {matches[0]!r}" if matches else ""


def _quote(value: Any) -> str:
    """A value as messages show it: on one line, and not much of a long one."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        return "a value that is too long"
    return text if len(text) <= LONGEST_QUOTE else text[:LONGEST_QUOTE] + "..."


def _copy_tables(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy_tables(value) if isinstance(value, dict) else value for key, value in table.items()}
