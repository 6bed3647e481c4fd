"""Tables of results are what the result files say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("recipes/*/results/*.json"))


def test_the_tables_are_made_from_the_files():
    check = [sys.executable, str(ROOT / "tools" / "results.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_result_says_how_to_get_it_again(path):
    result = json.loads(path.read_text())
    for key in ("command", "commit", "seed", "hardware", "hours", "rtf", "parameters", "normaliser", "date"):
        assert result[key] is not None, key
    counts = result["word_counts"]
    errors = counts["substitutions"] + counts["deletions"] + counts["insertions"]
    assert result["wer"] == pytest.approx(errors / counts["reference_length"])
    assert not result["missing"]
