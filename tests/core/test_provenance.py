"""Where results come from."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asr.core.provenance import describe_command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("program", "written"),
    [
        ("/usr/bin/asr", "asr"),
        (ROOT / "asr/__main__.py", "asr"),
        (ROOT / "tools/forecast.py", "python tools/forecast.py"),
        ("/elsewhere/tool.py", "asr"),
    ],
)
def test_a_command_is_written_as_it_is_typed(monkeypatch, program, written):
    monkeypatch.setattr(sys, "argv", [str(program), "evaluate", "a b.jsonl"])
    assert describe_command() == f"{written} evaluate 'a b.jsonl'"
