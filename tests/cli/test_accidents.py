"""What a shell, a disk and odd names do to the command line: the text arrives, or one line says why not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from asr.cli import cli
from asr.core.files import write_text
from asr.transcript.formats import FORMATS, JOINABLE, format_json, format_jsonl
from asr.transcript.values import Segment, Transcript, Word

SAMPLE = Path(__file__).parents[2] / "samples" / "digit-7-jackson.flac"
COMMAND = f"{sys.executable} -m asr transcribe --model digits --threads 1"

posix = pytest.mark.skipif(os.name == "nt", reason="shells of Unix")


def run_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, env=here)


@posix
def test_closed_streams_lose_nothing_without_a_word(tmp_path):
    shutil.copy(SAMPLE, tmp_path / "a.flac")
    done = run_in_shell(f"{COMMAND} a.flac 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (0, b"seven\n")
    done = run_in_shell(f"{COMMAND} a.flac >&-", tmp_path)
    assert done.returncode == 1
    assert done.stderr == b"asr: output: Bad file descriptor\n"
    done = run_in_shell(f"{COMMAND} a.flac -o out >&- 2>&- <&-", tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "out" / "a.txt").read_text() == "seven\n"


@posix
def test_a_full_disk_behind_stdout_is_one_line(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    shutil.copy(SAMPLE, tmp_path / "a.flac")
    done = run_in_shell(f"{COMMAND} a.flac > /dev/full", tmp_path)
    assert (done.returncode, done.stderr) == (1, b"asr: output: No space left on device\n")


@posix
def test_names_that_are_no_text_are_transcribed_and_written(tmp_path):
    name = b"\xff\x1b[2J\n.flac"
    for each in (name, b"x" * 250 + b".flac"[:5]):
        shutil.copy(SAMPLE, os.path.join(os.fsencode(tmp_path), each))  # noqa: PTH118
    done = run_in_shell(f"{COMMAND} . -f json -o out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"\x1b[2J" not in done.stderr
    written = sorted((tmp_path / "out").iterdir())
    assert len(written) == 2
    names = {json.loads(path.read_text(encoding="utf-8"))["audio"] for path in written}
    assert all(Path(each).exists() or (tmp_path / each).exists() for each in names)
    done = run_in_shell(f"{COMMAND} .", tmp_path)
    assert done.stdout.count(b"\n") == 2
    assert b"\x1b" not in done.stdout


@posix
def test_ctrl_c_before_anything_is_done_is_130_and_one_line():
    ready = (
        "import asr.cli as c, os, signal; c.Verbs.get_command = lambda *a: os.kill(os.getpid(), 2); c.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", ready, "models"], capture_output=True, text=True,
        cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.returncode == 130
    assert done.stderr.strip().splitlines() == ["asr: interrupted"]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(cli, ["transcribe", "--model", "digits", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_one_recording_may_be_written_into_a_file(tmp_path):
    run(SAMPLE, "-o", tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["text"] == "seven"
    run(SAMPLE, "-o", tmp_path / "new" / "a.srt")
    assert "-->" in (tmp_path / "new" / "a.srt").read_text()
    run(SAMPLE, "-o", tmp_path / "a.txt", "-f", "tsv")
    assert (tmp_path / "a.txt").read_text().startswith("start\tend\ttext\n")
    run(SAMPLE, "-o", tmp_path / "folder")
    assert (tmp_path / "folder" / f"{SAMPLE.stem}.txt").exists()
    for arguments, said in (
        ([SAMPLE, SAMPLE.with_name("digit-4-george.flac"), "-o", tmp_path / "b.txt"], "need -o DIR"),
        ([SAMPLE, "-o", __file__], "is a file"),
    ):
        result = CliRunner().invoke(cli, ["transcribe", "--model", "digits", *map(str, arguments)])
        assert result.exit_code == 2
        assert said in result.output


def test_the_best_texts_are_printed_with_their_scores():
    lines = run(SAMPLE, "--n-best", 3, "--beam-size", 8).splitlines()
    scores = [float(line.partition("\t")[0]) for line in lines]
    assert lines[0].endswith("\tseven")
    assert len(lines) == 3
    assert scores == sorted(scores, reverse=True)
    result = CliRunner().invoke(cli, ["transcribe", "--n-best", "2", "-f", "srt", str(SAMPLE)])
    assert result.exit_code == 2


def test_models_are_listed_with_sizes_and_folders():
    lines = CliRunner().invoke(cli, ["models"]).output.splitlines()
    folders = [Path(line.partition(" MB in ")[2]) for line in lines if " MB in " in line]
    assert {folder.name for folder in folders} >= {"digits", "english"}
    assert all((folder / "config.toml").exists() for folder in folders)


# --- texts that mean something to other programs --------------------------------------------------


def make_transcript(*texts: str) -> Transcript:
    segments = tuple(
        Segment(2.0 * i, 2.0 * i + 1, text, (Word(text, 2.0 * i, 2.0 * i + 1, 0.5),))
        for i, text in enumerate(texts)
    )
    return Transcript("a.wav", 2.0 * len(texts), segments, "model", {})


def test_no_text_breaks_a_format():
    said = ("a --> b", "tab\there", "line\nhere", "=1+1", "@x", "-5 <b>&", "\x1b")
    transcript = make_transcript(*said)
    srt = FORMATS["srt"](transcript)
    assert srt.count("-->") == len(said)
    assert len(srt.strip().split("\n\n")) == len(said)
    rows = FORMATS["tsv"](transcript).splitlines()
    assert len(rows) == 1 + len(said)
    assert all(row.count("\t") == 2 for row in rows)
    assert not any(row.split("\t")[2].startswith(("=", "+", "-", "@")) for row in rows[1:])
    assert FORMATS["vtt"](transcript).count("-->") == len(said)


@pytest.mark.parametrize("form", [format_json, format_jsonl])
def test_json_holds_a_name_that_is_not_utf8(tmp_path, form):
    name = os.fsdecode(b"\xff.wav")
    transcript = Transcript(name, 1.0, (), "model", {})
    write_text(tmp_path / "a.json", form(transcript))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["audio"] == name
    assert set(JOINABLE) <= set(FORMATS)
