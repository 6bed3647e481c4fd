"""``tools.fuzz``: a short run of every target, and that the runner sees what is wrong."""

from __future__ import annotations

import json
import random
import selectors
import subprocess
import sys
from pathlib import Path

import pytest

from asr.errors import UserError
from tools.fuzz import __main__ as command_line
from tools.fuzz import runner
from tools.fuzz.changes import DAMAGES, change_text
from tools.fuzz.recordings import fuzz_audio, fuzz_media
from tools.fuzz.runner import MEGABYTES, Outcome, find_place, watch_cases
from tools.fuzz.targets import TARGETS

CASES = 40


@pytest.mark.parametrize("target", TARGETS)
def test_no_case_of_a_short_run_is_a_fault(target, tmp_path, capfd):
    """In this process, so that it takes seconds; thousands of cases run with the command."""
    run_case = TARGETS[target]()(tmp_path)
    refused = 0
    for number in range(CASES):
        place = tmp_path / f"case-{number}"
        place.mkdir()
        try:
            run_case(random.Random(f"{target} {number}"), place)
        except UserError as error:
            assert str(error).isprintable()
            refused += 1
    assert 0 < refused < CASES
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_changes_something_and_is_the_same_again(damage):
    content, other = bytes(range(200)), bytes(200)
    first, again = ([damage(content, other, random.Random(n)) for n in range(20)] for _ in range(2))
    assert first == again
    assert sum(one != content for one in first) >= 10  # a file may be joined with nothing


def test_a_changed_text_is_the_same_again():
    first, again = ([change_text("a 1\nb 2\n", "c\n", random.Random(n)) for n in range(50)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 25


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome(3, "searched", "", 9.0, 900.0), None),
        (Outcome(3, "refused", "x: is damaged", 0.1, 100.0), None),
        (Outcome(3, "searched", "", 11.0, 900.0), "took 11.0 seconds"),
        (Outcome(3, "refused", "", 1.0, MEGABYTES + 100), "took 1100 MB"),
        (Outcome(3, "traceback", "KeyError()"), "traceback: KeyError()"),
        (Outcome(3, "unclear", "two\nlines"), "unclear: two\nlines"),
        (Outcome(3, "died", "status -11"), "died: status -11"),
        (Outcome(3, "hung", "status -9"), "hung: status -9"),
    ],
)
def test_what_is_a_fault(outcome, reason):
    fault = outcome.find_fault()
    assert (fault and fault.reason) == reason


WORKER = """
import json, os, signal, sys, time
print("ready", flush=True)
for line in sys.stdin:
    number = int(line.split()[1])
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 3:
        print("Traceback (most recent call last):\\nKeyError: 7", file=sys.stderr, flush=True)
    if number == 4:
        time.sleep(60)
    print(json.dumps({"number": number, "kind": "searched"}), flush=True)
"""


def test_a_process_that_dies_or_hangs_is_noticed_and_started_anew(tmp_path, monkeypatch):
    def start_worker(target: str, folder: Path) -> subprocess.Popen[str]:
        with (folder / "errors").open("ab") as stderr:
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
                text=True, bufsize=1,
            )  # fmt: skip
        assert runner.read_answer(worker) == "ready\n"
        return worker

    monkeypatch.setattr(runner, "start_worker", start_worker)
    monkeypatch.setattr(runner, "HANGS_SECONDS", 1.0)
    monkeypatch.setattr(runner.read_answer, "__defaults__", (3.0,))
    outcomes = list(watch_cases("any", 0, range(6), tmp_path))
    assert [outcome.kind for outcome in outcomes] == [
        *("searched", "died", "searched", "traceback", "hung", "searched")
    ]
    assert outcomes[1].reason.startswith("status -11")
    assert outcomes[3].reason == "KeyError: 7"


def test_a_pause_of_the_whole_machine_takes_a_second_of_patience_not_all(monkeypatch):
    """After one the clock says that the time to wait is over, although nobody has had any."""
    asked = []

    class PausedSelector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list:
            asked.append(timeout)
            return [] if len(asked) == 1 else super().select(timeout)

    monkeypatch.setattr(runner.selectors, "DefaultSelector", PausedSelector)
    command = [sys.executable, "-c", "print('late')"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert runner.read_answer(worker, 60.0) == "late\n"
    assert max(asked) == 1.0


def test_the_command_tells_how_to_run_a_faulty_case_again(monkeypatch, capsys):
    outcomes = [Outcome(0, "searched"), Outcome(1, "traceback", "KeyError: 7")]
    monkeypatch.setattr(command_line, "watch_cases", lambda *arguments: iter(outcomes))
    monkeypatch.setattr(sys, "argv", ["fuzz", "lexicons", "--seed", "5", "--count", "2"])
    with pytest.raises(SystemExit, match="1"):
        command_line.main()
    result, fault = capsys.readouterr().out.splitlines()
    assert json.loads(result)["outcomes"] == {"searched": 1, "traceback": 1}
    assert fault == "  lexicons --seed 5 --first 1 --count 1: traceback: KeyError: 7"


def test_a_traceback_names_the_line_of_this_project():
    try:
        fuzz_audio(Path("nowhere"))(None, Path("nowhere"))
    except AttributeError as error:
        assert find_place(error).startswith("recordings.py:")


def test_media_are_fuzzed_without_pyav_too(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError):
        for number in range(20):
            fuzz_media(tmp_path)(random.Random(number), tmp_path)


def test_atheris_leads_the_parsers_through_all_their_formats(tmp_path):
    pytest.importorskip("atheris", reason="atheris, which CI does without, is not installed")
    command = [sys.executable, "-m", "tools.fuzz.guided", str(tmp_path), "-runs=300", "-seed=1"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(tmp_path.iterdir())) > 14  # the samples, and what reached something new
