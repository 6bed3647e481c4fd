"""``tools/damage.py``: a first look at what it does by the thousand, and that it sees what is wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import asr
from tools import damage

ROOT = Path(__file__).parents[2]


def test_damaged_files_are_transcribed_or_named(tmp_path, capfd):
    model = asr.load("digits", device="cpu")
    paths = damage.write_damaged(tmp_path, 90, seed=1)
    assert len({path.suffix for path in paths}) > 10
    named = 0
    for path in paths:
        try:
            model.transcribe(path)
        except asr.UserError as error:
            assert str(error).startswith(f"{path}: ") and str(error).isprintable()
            named += 1
    assert 0 < named < len(paths)
    assert "Traceback" not in capfd.readouterr().err


def test_every_damage_changes_something_and_is_the_same_again(tmp_path):
    first, again = (damage.write_damaged(tmp_path, 30, seed=2) for _ in range(2))
    assert first == again
    whole = {content for _, content in damage.make_originals()}
    assert sum(path.read_bytes() in whole for path in first) <= 2  # a number replaced by itself


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (damage.Outcome("x", "transcribed", "seven", 9.0, 900.0), ""),
        (damage.Outcome("x", "named", "x: is damaged", 0.1, 100.0), ""),
        (damage.Outcome("x", "transcribed", "seven", 11.0, 900.0), "took 11.0 seconds"),
        (damage.Outcome("x", "named", "x: is damaged", 1.0, 1100.0), "took 1100 MB"),
        (damage.Outcome("x", "traceback", "KeyError()"), "traceback: KeyError()"),
        (damage.Outcome("x", "died", "status -11"), "died: status -11"),
    ],
)
def test_what_is_a_fault(outcome, fault):
    assert outcome.fault == fault


def test_the_watched_process_is_told_files_and_answers(tmp_path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not measure the memory of a process anew")
    good = ROOT / "samples" / "digit-7-jackson.flac"
    (tmp_path / "bad.wav").write_text("not audio")
    paths = [good, tmp_path / "bad.wav", good]
    outcomes = list(damage.watch(paths, "digits", tmp_path / "errors"))
    assert [(o.kind, o.fault) for o in outcomes] == [("transcribed", ""), ("named", ""), ("transcribed", "")]
    assert all(100 < outcome.megabytes < damage.MEGABYTES for outcome in outcomes)


def test_what_the_command_line_leaves_out_is_found(tmp_path, monkeypatch):
    if os.name == "nt":
        pytest.skip("a script is no program on Windows")
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho 'Traceback (most recent call last):' >&2; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    faults = damage.transcribe_together([tmp_path / "a.wav"], "digits", tmp_path / "out")
    assert [fault.partition(":")[0] for fault in faults] == [
        *("Traceback (most recent call last)", "exit status 3", "a.wav")
    ]
