"""Compiled functions are kept where they can be, and work where they cannot."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from asr.core.compiled import COMPILING

MODULE = """
from asr.core.compiled import compile_function

@compile_function
def double(x):
    return 2 * x

if __name__ == "__main__":
    import counted
    print(counted.double(21), sum(counted.double.stats.cache_hits.values()))
"""


def run(folder, **environment) -> list[str]:
    program = [sys.executable, "counted.py"]
    done = subprocess.run(
        program, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_second_process_compiles_nothing(tmp_path):
    (tmp_path / "counted.py").write_text(MODULE)
    assert run(tmp_path) == ["42", "0"]
    assert run(tmp_path) == ["42", "1"]


PAIR = """
from typing import NamedTuple

class Pair(NamedTuple):
    x: int
    y: int
"""
ADDING = """
from asr.core.compiled import compile_function
from {home} import Pair

@compile_function
def add(pair):
    return pair.x + pair.y

if __name__ == "__main__":
    import counted
    print(counted.add(Pair(40, 2)), sum(counted.add.stats.cache_hits.values()))
"""


def test_what_an_earlier_version_left_is_made_anew(tmp_path):
    (tmp_path / "old.py").write_text(PAIR)
    (tmp_path / "counted.py").write_text(ADDING.format(home="old"))
    assert run(tmp_path) == ["42", "0"]
    assert run(tmp_path) == ["42", "1"]
    (tmp_path / "old.py").write_text("")
    (tmp_path / "moved.py").write_text(PAIR)
    (tmp_path / "counted.py").write_text(ADDING.format(home="moved"))
    assert run(tmp_path) == ["42", "0"]
    assert run(tmp_path) == ["42", "1"]


def run_at_terminal(folder, **environment) -> str:
    """What a program writes to stderr when that is a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb") as terminal:
        command = [sys.executable, "counted.py"]
        subprocess.run(command, cwd=folder, env=os.environ | environment, stderr=terminal, check=True)
        os.write(theirs, b"end")  # or reading what was not written would never return
    written = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        while not written.endswith(b"end"):
            written += terminal.read(1000)
    return written.decode().replace("\r\n", "\n")


def test_a_terminal_is_told_once_that_something_is_compiled(tmp_path):
    (tmp_path / "counted.py").write_text(
        MODULE.replace("counted.double(21)", "counted.double(counted.double(2.0))")
    )
    caches = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run_at_terminal(tmp_path, **caches) == f"{COMPILING}end"
    assert run_at_terminal(tmp_path, **caches) == "end"


def test_without_a_place_to_keep_it_a_function_still_works(monkeypatch):
    from numba.core import caching

    from asr.core.compiled import compile_function

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    function = compile_function(lambda x: 2 * x)
    assert function(21) == 42
    with pytest.raises(RuntimeError, match="cache"):
        from numba import njit

        njit(cache=True)(lambda x: x)


OUTSIDE = """
import numpy as np
from asr.core.compiled import compile_function, compile_inline, compile_no_alloc, compile_vectorised

def pick(values, place):
    return values[place]

for compile in (compile_function, compile_no_alloc, compile_vectorised, compile_inline):
    try:
        compile(pick)(np.ones(3, np.float32), 1 << 10)
        print("unseen")
    except IndexError:
        print("seen")
"""


def test_every_kind_of_compiled_code_checks_its_indices_where_that_is_asked(tmp_path):
    """What ``tools/check.sh --bounds`` relies on."""
    (tmp_path / "counted.py").write_text(OUTSIDE)
    checks = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert run(tmp_path, **checks) == 4 * ["seen"]
