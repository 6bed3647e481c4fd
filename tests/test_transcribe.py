"""``asr transcribe``: what it takes, where it writes, what it says when something is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from asr.audio import resampled
from asr.cli import cli
from asr.cli.transcribe import Found, distinct_names

SAMPLES = Path(__file__).parent.parent / "samples"
FOUR, SEVEN = SAMPLES / "digit-4-george.flac", SAMPLES / "digit-7-jackson.flac"
STRING = SAMPLES / "digits-lucas.flac"


def transcribe(*arguments: object, stdin: bytes = b"", status: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["transcribe", "--model", "digits", *map(str, arguments)], input=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == status, done.output
    return done


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder, with recordings of the same name in two places."""
    monkeypatch.chdir(tmp_path)
    for place, sample in (("a", FOUR), ("b/c", SEVEN)):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(sample, tmp_path / place / "1.flac")
    return tmp_path


def written(folder: Path) -> dict[str, str]:
    """All files below ``folder`` and what is in them."""
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def pcm(path: Path) -> bytes:
    return soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes()


# --- what is transcribed --------------------------------------------------------------------------


def test_a_folder_means_all_recordings_below_it(folder):
    (folder / "a" / "notes.txt").write_text("no recording")
    (folder / "a" / "._1.flac").write_text("what macOS leaves behind")
    done = transcribe(".")
    assert done.stdout == "a/1.flac\tfour\nb/c/1.flac\tseven\n"


@pytest.mark.parametrize("pattern", ["*/1.fl?c", "a/[0-9].flac", "**/a/*"])
def test_a_pattern_means_the_files_that_fit(folder, pattern):
    assert transcribe(pattern).stdout == "four\n"


def test_a_name_that_looks_like_a_pattern_is_a_name(folder):
    shutil.copy(SEVEN, folder / "[1].flac")
    assert transcribe("[1].flac").stdout == "seven\n"


@pytest.mark.parametrize("sample", [FOUR, STRING])
def test_stdin_may_hold_any_format(sample):
    assert transcribe("-", stdin=sample.read_bytes()).stdout == transcribe(sample).stdout


def test_stdin_may_hold_bare_samples():
    assert transcribe("-", "--rate", 8000, stdin=pcm(STRING)).stdout == transcribe(STRING).stdout
    upsampled = np.repeat(np.frombuffer(pcm(FOUR), "<i2"), 2).tobytes()
    assert transcribe("-", "--rate", 16000, stdin=upsampled).stdout == "four\n"


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("missing.wav", "no such file"), ("*.mp3", "pattern fits no file"),
        ("empty", "folder holds no recordings"), ("https://example.org/a.wav?x=[1]", "is a URL"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_named_and_the_others_are_done(folder, argument, says):
    (folder / "empty").mkdir()
    done = transcribe(argument, "a", status=1)
    assert done.stdout == "a/1.flac\tfour\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"asr: {argument}: ")
    assert says in line


@pytest.mark.parametrize("stdin", [b"", b"not audio"])
def test_stdin_without_audio_is_one_clear_line(stdin):
    done = transcribe("-", stdin=stdin, status=1)
    assert done.stdout == ""
    assert done.stderr.startswith("asr: audio stream: is ")
    assert done.stderr.count("\n") == 1


# --- where it is written --------------------------------------------------------------------------


def test_the_same_name_in_two_folders_gives_two_outputs(folder):
    done = transcribe("a/1.flac", "b/c/1.flac", "-o", "out")
    assert done.stdout == ""
    assert written(folder / "out") == {"a/1.txt": "four\n", "b/c/1.txt": "seven\n"}


def test_outputs_below_a_folder_keep_its_shape(folder):
    transcribe("b", "-o", "out", "-f", "all")
    endings = ["ctm", "json", "jsonl", "srt", "tsv", "txt", "vtt"]
    assert sorted(written(folder / "out")) == [f"c/1.{ending}" for ending in endings]


def test_different_names_need_no_folders(folder):
    transcribe(FOUR, "b/c/1.flac", "-o", "out")
    assert written(folder / "out") == {"digit-4-george.txt": "four\n", "1.txt": "seven\n"}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a.wav", "x/b.wav"], ["a", "b"]),
        (["x/a.wav", "y/a.wav"], ["x/a", "y/a"]),
        (["x/a.wav", "y/A.wav"], ["x/a", "y/A"]),
        (["x/a.wav", "x/a.flac", "y/a.wav"], ["x/a.wav", "x/a.flac", "y/a.wav"]),
        (["a.wav", "../a.wav"], ["{here}/a", "a"]),
        (["x/y/../a.wav", "x/y/a.wav"], ["a", "y/a"]),
    ],
)
def test_names_differ_even_where_case_does_not_count(folder, paths, names):
    chosen = list(distinct_names([Found(path, Path(Path(path).stem)) for path in paths]).values())
    assert [name.as_posix() for name in chosen] == [name.format(here=folder.name) for name in names]
    assert all(not name.is_absolute() and ".." not in name.parts for name in chosen)


def test_what_is_there_is_not_done_again(folder):
    (folder / "out").mkdir()
    (folder / "out" / "a").mkdir()
    (folder / "out" / "a" / "1.txt").write_text("by hand")
    done = transcribe(".", "-o", "out", "--skip-existing")
    assert written(folder / "out") == {"a/1.txt": "by hand", "b/c/1.txt": "seven\n"}
    assert done.stderr.startswith("1 recording, ")
    assert transcribe(".", "-o", "out", "--skip-existing").stderr.startswith("0 recordings, ")
    transcribe(".", "-o", "out")
    assert written(folder / "out")["a/1.txt"] == "four\n"


def test_a_format_that_is_missing_is_made_where_others_are_there(folder):
    transcribe("a", "-o", "out", "-f", "srt")
    transcribe("a", "-o", "out", "-f", "all", "--skip-existing")
    assert len(written(folder / "out")) == 7


def test_a_failure_leaves_no_output_and_is_counted(folder):
    (folder / "a" / "2.wav").write_text("not audio")
    done = transcribe(".", "-o", "out", status=1)
    assert sorted(written(folder / "out")) == ["a/1.txt", "b/c/1.txt"]
    named, closing = done.stderr.splitlines()
    assert named.startswith("asr: a/2.wav: ")
    assert closing.endswith(" 1 failed")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "--skip-existing"], "-o DIR"), (["a", "-f", "all"], "-o DIR"),
        ([".", "-f", "srt"], "-o DIR"), (["a", "--rate", "8000"], "stdin"), ([], "AUDIO"),
        (["a", "-f", "doc"], "doc"), (["a", "--max-line-width", "0"], "max-line-width"),
        (["a", "-o", "a/1.flac"], "is a file"),
    ],
)  # fmt: skip
def test_wrong_usage_is_said_before_anything_is_done(folder, arguments, says):
    done = transcribe(*arguments, status=2)
    assert says in done.stderr
    assert done.stdout == ""


# --- what is written ------------------------------------------------------------------------------


def test_options_of_subtitles_reach_them():
    assert (
        transcribe(STRING, "-f", "srt", "--max-line-width", 5, "--max-line-count", 1).stdout.count("-->") == 4
    )
    assert transcribe(STRING, "-f", "vtt", "--word-timestamps").stdout.count("-->") == 4
    assert "one eight seven\ntwo" not in transcribe(STRING, "-f", "srt").stdout


def test_several_recordings_make_one_table_of_words():
    rows = [line.split() for line in transcribe(FOUR, STRING, "-f", "ctm").stdout.splitlines()]
    assert [row[4] for row in rows] == ["four", "one", "eight", "seven", "two"]
    assert [row[0] for row in rows] == [FOUR.stem] + [STRING.stem] * 4


def test_json_lines_hold_the_words_of_every_recording():
    lines = [json.loads(line) for line in transcribe(FOUR, STRING, "-f", "jsonl").stdout.splitlines()]
    assert [line["text"] for line in lines] == ["four", "one eight seven two"]
    for line in lines:
        words = [word for segment in line["segments"] for word in segment["words"]]
        assert " ".join(word["text"] for word in words) == line["text"]
        assert all(0 <= word["start"] < word["end"] <= line["duration"] for word in words)


# --- recordings that are unlike others ------------------------------------------------------------


def said(samples: np.ndarray, rate: int, path: Path) -> str:
    soundfile.write(path, samples, rate)
    return transcribe(path, "--threads", 1).stdout


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192_000])
@pytest.mark.parametrize("channels", [1, 8])
def test_any_rate_and_any_number_of_channels(tmp_path, rate, channels):
    samples = resampled(soundfile.read(SEVEN, dtype="float32")[0], 8000, rate)
    assert said(np.repeat(samples[:, None], channels, axis=1), rate, tmp_path / "a.wav") == "seven\n"


def test_a_clipped_recording_is_still_transcribed(tmp_path):
    samples, rate = soundfile.read(SEVEN, dtype="float32")
    assert said(np.clip(10 * samples / np.abs(samples).max(), -1, 1), rate, tmp_path / "a.wav") == "seven\n"


@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_silence_long_or_short_has_no_text(tmp_path, seconds):
    assert said(np.zeros(int(8000 * seconds)), 8000, tmp_path / "a.wav") == "\n"


def test_a_recording_without_samples_is_named(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    assert "none.wav: holds no samples" in transcribe(tmp_path / "none.wav", status=1).stderr


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3"])
def test_a_recording_that_is_corrupt_in_the_middle_leaves_no_output(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(80_000), 8000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    done = transcribe(path, "-o", tmp_path / "out", status=1)
    assert str(path) in done.stderr
    assert not (tmp_path / "out").exists()
