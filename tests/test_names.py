"""A function is named for what it does: a participle would not say who does what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "asr"
ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())

# Participles that no ending gives away. Those that are also the verb itself (read, cut, put, set, run, split,
# spread, become, come) are allowed.
IRREGULAR = """
    begun bent bound bought broken brought built caught chosen done drawn driven eaten fallen fed felt flown
    forgotten found given gone grown heard held hidden hung kept known laid led left lent lost made meant met
    mixed outgrown overlapped paid proven said seen sent shaken shown shrunk slept sold sought spent spoken
    spun stood stolen struck stuck sung sunk sworn swept taken taught thought thrown told torn understood
    undone woken won worn woven written
"""
# Verbs and nouns that end as participles do.
NO_PARTICIPLES = (
    "bed embed exceed feed need padding proceed seed shed speed bring ping ring sing string training"
)

# Names that read well all the same, each with its reason.
ALLOWED: dict[str, str] = {}


def is_participle(word: str) -> bool:
    """Whether ``word`` is a past or present participle, and nothing that a function could be called."""
    if word in NO_PARTICIPLES.split():
        return False
    return (
        word in IRREGULAR.split()
        or (len(word) > 3 and word.endswith("ed"))
        or (len(word) > 4 and word.endswith("ing"))
    )


def is_bare(name: str) -> bool:
    """Whether a function's name is a participle, as ``heard``, or begins with one, as ``drawn_room``."""
    return not name.startswith("__") and is_participle(name.strip("_").split("_")[0])


def functions(room: str) -> Iterator[tuple[str, str]]:
    """Place and name of every function in a room; properties are values and may be nouns of any kind."""
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
                if not decorators & {"property", "cached_property"}:
                    yield f"{path.relative_to(PACKAGE.parent)}:{node.lineno}", node.name


@pytest.mark.parametrize("room", ROOMS)
def test_no_function_is_a_bare_participle(room):
    bare = {name: place for place, name in functions(room) if is_bare(name) and name not in ALLOWED}
    assert bare == {}


@pytest.mark.parametrize(
    "name", ["heard", "_told", "joined", "decoding", "drawn_room", "chosen_reader", "found"]
)
def test_a_bare_participle_is_recognised(name):
    assert is_bare(name)


@pytest.mark.parametrize(
    "name",
    [
        "read",
        "feed",
        "embed",
        "to_phones",
        "is_cached",
        "has_begun",
        "read_manifest",
        "log_probs",
        "string",
        "__missing__",
    ],
)
def test_a_verb_is_no_participle(name):
    assert not is_bare(name)


def test_what_is_allowed_is_there():
    names = {name for room in ROOMS for _, name in functions(room)}
    assert set(ALLOWED) <= names
