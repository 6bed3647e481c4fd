"""Compiled functions are kept where they can be, and work where they cannot."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

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


def test_without_a_place_to_keep_it_a_function_still_works(monkeypatch):
    from numba.core import caching

    from asr.core.compiled import compile_function

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    function = compile_function(lambda x: 2 * x)
    assert function(21) == 42
    with pytest.raises(RuntimeError, match="cache"):
        from numba import njit

        njit(cache=True)(lambda x: x)
