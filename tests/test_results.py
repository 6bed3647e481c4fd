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
    keys = ["command", "commit", "hardware", "hours", "rtf", "normaliser", "date"]
    for key in keys if "pocketsphinx" in path.stem else [*keys, "seed", "parameters"]:
        assert result[key] is not None, key
    counts = result["word_counts"]
    errors = counts["substitutions"] + counts["deletions"] + counts["insertions"]
    assert result["wer"] == pytest.approx(errors / counts["reference_length"])
    assert not result["missing"]


def test_the_curve_is_that_of_the_epochs_and_skips_half_lines(tmp_path):
    lines = [
        '{"step": 1, "epoch": 1, "loss": 9.0}',
        '{"step": 2, "epoch": 1, "train_loss": 9.0, "valid_loss": 8.0, "valid_wer": 1.0, "valid_cer": 0.5}',
        '{"step": 4, "epoch": 2, "train_loss": 5.0, "valid_wer": null}',
        '{"step": 4, "epo',
        '{"step": 4, "epoch": 2, "train_loss": 4.0, "valid_wer": 0.25}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    command = [sys.executable, str(ROOT / "tools" / "curve.py"), str(tmp_path), "-o", str(tmp_path / "out")]
    subprocess.run(command, check=True)
    kept = [json.loads(line) for line in (tmp_path / "out.curve.jsonl").read_text().splitlines()]
    assert [record["train_loss"] for record in kept] == [9.0, 4.0]
    assert (tmp_path / "out.curve.png").read_bytes().startswith(b"\x89PNG")
