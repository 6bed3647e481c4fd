"""Imports run one way, and what needs no torch imports none: read from the source, and tried."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "asr"

# From low to high: a room may import from those that stand before it, and from nothing else of the package.
ORDER = [
    "errors",
    "core",
    "transcript",
    "audio",
    "data",
    "text",
    "lm",
    "g2p",
    "scoring",
    "search",
    "longform",
    "pretrained",
    "recognition",
    "bulk",
    "model",
    "training",
    "server",
    "cli",
]
WITHOUT_TORCH = ORDER[: ORDER.index("model")]


def module_of(path: Path) -> str:
    """The name in ``ORDER`` that a source file belongs to."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "cli" if name == "__main__" else name


def list_imports(source: str) -> set[str]:
    """The full names that a source imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the order from this test"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def imports() -> dict[str, set[str]]:
    """What each module of the package imports, by full names; the package's own file is ``__init__``."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        found.setdefault(module_of(path), set()).update(list_imports(path.read_text(encoding="utf-8")))
    return found


def neighbours(module: str) -> set[str]:
    """The other modules of the package that ``module`` imports."""
    parts = [name.split(".") for name in imports()[module]]
    return {part[1] for part in parts if part[0] == "asr" and len(part) > 1} - {module, "__version__"}


def below(module: str) -> set[str]:
    """All modules that come along when ``module`` is imported."""
    return set().union(*({other} | below(other) for other in neighbours(module)))


MODULES = sorted(set(imports()) - {"__init__"})


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_stands_before_it(module):
    assert module in ORDER, f"asr/{module} is new: give it a place in ORDER and in the map of CONTRIBUTING.md"
    assert neighbours(module) <= set(ORDER[: ORDER.index(module)])


@pytest.mark.parametrize("module", sorted(set(MODULES) & set(WITHOUT_TORCH)))
def test_what_comes_before_the_model_needs_no_torch(module):
    assert {name.split(".")[0] for name in imports()[module]}.isdisjoint({"torch", "torchaudio"})


def test_model_and_search_do_not_know_each_other():
    assert "search" not in neighbours("model")
    assert "model" not in below("search")


def test_who_serves_needs_no_torch():
    assert neighbours("server").isdisjoint({"model", "training"})
    assert {name.split(".")[0] for name in imports()["server"]}.isdisjoint({"torch", "torchaudio"})


def test_the_package_itself_imports_hardly_anything_before_it_is_used():
    later = {"recognition", "transcript"}  # when a name that they hold is used
    assert neighbours("__init__") == {"errors", "pretrained"} | later
    assert below("errors") | below("pretrained") == {"errors"}


def test_imports_are_found_wherever_they_hide():
    source = """
import torch.nn as nn
from asr.audio import reading as audio
def load():
    if TYPE_CHECKING:
        from asr.search import greedy
"""
    assert list_imports(source) == {"torch.nn", "asr.audio.reading", "asr.search.greedy"}
    with pytest.raises(AssertionError, match="relative"):
        list_imports("from .text import letters")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["score", "--help"], ["lm", "--help"], ["score", "texts.jsonl", "texts.jsonl"]]
)
def test_help_and_score_start_without_heavy_libraries(tmp_path, arguments):
    (tmp_path / "texts.jsonl").write_text('{"id": "a", "text": "go on"}\n')
    command = [sys.executable, "-X", "importtime", "-m", "asr", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"asr.cli", "click"} <= loaded
    assert loaded.isdisjoint({"torch", "torchaudio", "librosa", "matplotlib", "numba"})


def test_numpy_comes_after_its_number_of_threads():
    program = """
import os, sys, asr.cli
assert "numpy" not in sys.modules
sys.argv = ["asr", "--help"]
try:
    asr.cli.main()
finally:
    print(os.environ["OPENBLAS_NUM_THREADS"])
"""
    for own, used in {"": "1", "3": "3"}.items():
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
        environment |= {"OPENBLAS_NUM_THREADS": own} if own else {}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment
        )
        assert done.stdout.splitlines()[-1] == used, done.stderr
