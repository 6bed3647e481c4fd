"""``asr transcribe``: what it takes, where it writes, what it says when something is wrong."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from asr.audio.reading import measure_duration
from asr.audio.resampling import resample
from asr.cli import cli
from asr.cli._progress import new_audio_bar
from asr.cli.transcribe import Recording, make_distinct_names, name_in_ctm
from asr.core.cores import choose_threads, count_cores
from asr.transcript.values import Segment, Word
from tests.synthetic import NO_SPEECH, speak

SAMPLES = Path(__file__).parents[2] / "samples"
FOUR, SEVEN = SAMPLES / "digit-4-george.flac", SAMPLES / "digit-7-jackson.flac"
STRING = SAMPLES / "digits-lucas.flac"


def transcribe(*arguments: object, stdin: bytes = b"", status: int | None = 0) -> Result:
    done = CliRunner().invoke(cli, ["transcribe", "--model", "digits", *map(str, arguments)], input=stdin)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert status is None or done.exit_code == status, done.output
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
        ("missing.wav", "no such file"), ("*.mp3", "pattern matches no file"),
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
    chosen = list(make_distinct_names([Recording(path, Path(Path(path).stem)) for path in paths]).values())
    assert [name.as_posix() for name in chosen] == [name.format(here=folder.name) for name in names]
    assert all(not name.is_absolute() and ".." not in name.parts for name in chosen)


@pytest.mark.parametrize(
    ("recordings", "names"),
    [
        ({"x/a.wav": "a", "y/a.wav": "a"}, ["x/a", "y/a"]),
        ({"x/a.wav": "x/a", "y/b.wav": "y/b"}, ["a", "b"]),
        ({"x/a b.wav": "a b", "y/a_b.wav": "a_b"}, ["x/a b", "y/a_b"]),
        ({"x/a.wav": "a"}, ["a"]),
    ],
)
def test_the_first_column_of_ctm_tells_recordings_apart(folder, recordings, names):
    given = [Recording(path, Path(name)) for path, name in recordings.items()]
    assert list(name_in_ctm([*given, given[0]]).values()) == names


def test_ctm_of_two_recordings_of_one_name_has_two_names(folder):
    done = transcribe("a/1.flac", "b/c/1.flac", "-f", "ctm")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["a/1", "b/c/1"]


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


def test_json_says_how_a_recording_was_transcribed():
    plain = json.loads(transcribe(FOUR, "-f", "json", "--device", "cpu").stdout)["settings"]
    assert plain == {
        "device": "cpu", "compute_type": "float32", "search": "greedy", "vad": True, "batch_size": 8,
    }  # fmt: skip
    options = ["--no-vad", "--batch-size", 2, "--beam-size", 4, "--hotwords", "Four"]
    settings = json.loads(transcribe(FOUR, "-f", "json", *options).stdout)["settings"]
    assert (settings["vad"], settings["batch_size"]) == (False, 2)
    assert settings["search"]["beam_size"] == 4
    assert settings["search"]["phrases"] == ["four"]


# --- recordings that are unlike others ------------------------------------------------------------


def said(samples: np.ndarray, rate: int, path: Path) -> str:
    soundfile.write(path, samples, rate)
    return transcribe(path, "--threads", 1).stdout


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192_000])
@pytest.mark.parametrize("channels", [1, 8])
def test_any_rate_and_any_number_of_channels(tmp_path, rate, channels):
    samples = resample(soundfile.read(SEVEN, dtype="float32")[0], 8000, rate)
    assert said(np.repeat(samples[:, None], channels, axis=1), rate, tmp_path / "a.wav") == "seven\n"


def test_a_clipped_recording_is_still_transcribed(tmp_path):
    samples, rate = soundfile.read(SEVEN, dtype="float32")
    assert said(np.clip(10 * samples / np.abs(samples).max(), -1, 1), rate, tmp_path / "a.wav") == "seven\n"


@pytest.mark.parametrize("seconds", [0.01, 1.0])
def test_silence_long_or_short_has_no_text(tmp_path, seconds):
    assert said(np.zeros(int(8000 * seconds)), 8000, tmp_path / "a.wav") == "\n"


def test_silence_is_said(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), 8000)
    done = transcribe(tmp_path / "a.wav", FOUR)
    assert done.stdout == f"{tmp_path / 'a.wav'}\t\n{FOUR}\tfour\n"
    assert done.stderr == f"{tmp_path / 'a.wav'}: no words found; if somebody speaks, try --no-vad\n"
    assert transcribe(tmp_path / "a.wav", "--no-vad").stderr == f"{tmp_path / 'a.wav'}: no words found\n"


def test_a_recording_without_samples_is_named(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    assert "none.wav: holds no samples" in transcribe(tmp_path / "none.wav", status=1).stderr


@pytest.mark.parametrize("seconds", [0.01, 0.05])
def test_a_moment_of_speech_or_noise_is_transcribed(tmp_path, seconds):
    samples, rate = soundfile.read(SEVEN, dtype="float32")
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(samples))
    for content in (samples[len(samples) // 2 :], noise):
        assert said(content[: int(rate * seconds)], rate, tmp_path / "a.wav") == "\n"


@pytest.mark.parametrize("name", NO_SPEECH)
def test_silence_noise_and_tones_have_no_words(tmp_path, name):
    samples = NO_SPEECH[name](8000)
    assert said(samples, 8000, tmp_path / "a.wav") == "\n"
    assert said(np.tile(samples, 4), 8000, tmp_path / "a.wav") == "\n"


def test_without_speech_detection_everything_is_heard(tmp_path):
    soundfile.write(tmp_path / "a.wav", speak("abc", np.random.default_rng(0)), 8000)
    assert transcribe(tmp_path / "a.wav").stdout == "\n"
    assert transcribe(tmp_path / "a.wav", "--no-vad").stdout != "\n"


def test_a_file_of_no_bytes_is_named(tmp_path):
    (tmp_path / "zero.wav").touch()
    done = transcribe(tmp_path / "zero.wav", FOUR, status=1)
    assert done.stdout == f"{FOUR}\tfour\n"
    assert done.stderr == f"asr: {tmp_path / 'zero.wav'}: is empty\n"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that nobody can read")
def test_a_file_that_cannot_be_read_is_named():
    done = transcribe("/proc/self/mem", FOUR, status=1)
    assert done.stdout == f"{FOUR}\tfour\n"
    assert done.stderr == "asr: /proc/self/mem: cannot be read: Input/output error\n"


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3", "wav"])
@pytest.mark.parametrize("damage", ["cut off", "zeros", "noise"])
def test_a_recording_that_is_corrupt_in_the_middle_is_named_or_transcribed(tmp_path, kind, damage):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(80_000), 8000)
    content = path.read_bytes()
    middle, size = len(content) // 2, len(content) // 10
    spoiled = np.random.default_rng(1).bytes(size) if damage == "noise" else bytes(size)
    path.write_bytes(content[:middle] + (b"" if damage == "cut off" else spoiled + content[middle + size :]))
    done = transcribe(path, "-o", tmp_path / "out", status=None)
    named = [line for line in done.stderr.splitlines() if line.startswith(f"asr: {path}: ")]
    assert bool(named) == done.exit_code <= 1
    no_words = [f"{path}: no words found; if somebody speaks, try --no-vad"]
    is_partly_there = all(line.endswith("; what is there is transcribed") for line in named)
    assert done.stderr.splitlines()[:-1] == named + (no_words if is_partly_there else [])
    assert (tmp_path / "out" / "a.txt").exists() == is_partly_there
    assert named or damage != "cut off"


# --- channels, and what is missing ----------------------------------------------------------------


def write_call(path: Path) -> None:
    """A call: one says "four" on the left, then another "one eight seven two" on the right."""
    left, right = (soundfile.read(sample, dtype="float32")[0] for sample in (FOUR, STRING))
    samples = np.zeros((len(left) + 16000 + len(right), 2), np.float32)
    samples[: len(left), 0] = left
    samples[len(left) + 16000 :, 1] = right
    soundfile.write(path, samples, 8000)


@pytest.mark.parametrize(
    ("channels", "text"),
    [
        ("mix", "four\none eight seven two\n"), ("left", "four\n"), ("right", "one eight seven two\n"),
        ("each", "left: four\nright: one eight seven two\n"),
    ],
)  # fmt: skip
def test_channels_are_mixed_or_heard_alone(tmp_path, channels, text):
    write_call(tmp_path / "call.wav")
    assert transcribe(tmp_path / "call.wav", "--channels", channels).stdout == text


def test_each_channel_is_a_speaker_in_every_format(tmp_path):
    write_call(tmp_path / "call.wav")
    transcribe(tmp_path / "call.wav", "--channels", "each", "-f", "all", "-o", tmp_path)
    found = {
        kind: (tmp_path / f"call.{kind}").read_text("utf-8") for kind in ("srt", "vtt", "tsv", "ctm", "json")
    }
    assert "left: four" in found["srt"]
    assert "right: one" in found["srt"]
    assert "<v left>four" in found["vtt"]
    assert "\tleft: four\n" in found["tsv"]
    assert [line.split()[1] for line in found["ctm"].splitlines()] == ["A", "B", "B", "B", "B"]
    table = json.loads(found["json"])
    assert [segment["speaker"] for segment in table["segments"]] == ["left", "right"]
    assert table["settings"]["channels"] == "each"
    assert '"speaker"' not in transcribe(tmp_path / "call.wav", "-f", "json").stdout


def test_one_channel_has_no_speakers_and_no_right(tmp_path):
    assert transcribe(FOUR, "--channels", "each").stdout == "four\n"
    assert "has no channel 2: it has 1" in transcribe(FOUR, "--channels", "right", status=1).stderr


def test_a_truncated_recording_is_transcribed_as_far_as_it_goes(tmp_path):
    write_call(tmp_path / "whole.wav")
    content = (tmp_path / "whole.wav").read_bytes()
    path = tmp_path / "cut.wav"
    path.write_bytes(content[: len(content) // 3])
    done = transcribe(path, status=1)
    assert done.stdout == "four\n"
    assert done.stderr.startswith(f"asr: {path}: is truncated: ")
    assert done.stderr.endswith(" seconds are there; what is there is transcribed\n")
    assert json.loads(transcribe(path, "-f", "json", status=1).stdout)["faults"][0].startswith("is truncated")
    strict = transcribe(path, "--strict", status=1)
    assert strict.stdout == ""
    assert "is truncated" in strict.stderr


def test_channels_that_cancel_each_other_are_told(tmp_path):
    samples = soundfile.read(SEVEN, dtype="float32")[0]
    soundfile.write(tmp_path / "a.wav", np.stack([samples, -samples], axis=1), 8000)
    done = transcribe(tmp_path / "a.wav")
    assert done.stdout == "seven\n"
    assert "cancel each other" in done.stderr


@pytest.mark.parametrize("output_format", ["txt", "jsonl"])
@pytest.mark.parametrize("to_file", [False, True])
def test_ctrl_c_keeps_what_is_done_of_a_recording(tmp_path, monkeypatch, output_format, to_file):
    def interrupt(recognizer, sources, config, progress, hear):
        hear(Segment(0.0, 1.0, "one two", (Word("one", 0.1, 0.4, 0.9), Word("two", 0.5, 0.8, 0.9))))
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("asr.cli.transcribe.transcribe_recordings", interrupt)
    target = ["-o", tmp_path] if to_file else []
    done = transcribe(FOUR, "-f", output_format, *target, status=130)
    partial = tmp_path / f"{FOUR.stem}.partial.{output_format}"
    text = partial.read_text("utf-8") if to_file else done.stdout
    if output_format == "jsonl":
        assert json.loads(text)["faults"] == ["interrupted: its first 1.00 seconds are transcribed"]
        assert json.loads(text)["text"] == "one two"
    else:
        assert text == "one two\n"
    assert "1 recording not transcribed" in done.stderr
    assert not (tmp_path / f"{FOUR.stem}.{output_format}").exists()


# --- long work ------------------------------------------------------------------------------------


def run_apart(*arguments: object, **options) -> subprocess.Popen:
    """The program in a process of its own, which Ctrl-C reaches wherever the tests were started."""
    return subprocess.Popen(
        [sys.executable, "-m", "asr", "transcribe", "--model", "digits", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def test_what_ctrl_c_interrupts_leaves_whole_files(tmp_path):
    samples, rate = soundfile.read(STRING)
    soundfile.write(tmp_path / "0.wav", np.tile(samples, 20), rate)
    for number in range(1, 150):
        (tmp_path / f"{number}.wav").symlink_to(tmp_path / "0.wav")
    out = tmp_path / "out"
    process = run_apart(
        tmp_path, "-o", out, "-f", "json", "--batch-size", 1,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while process.poll() is None and not list(out.glob("[0-9]*.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    done = {name: text for name, text in written(out).items() if ".partial." not in name}
    assert 0 < len(done) < 150
    expected = " ".join(["one eight seven two"] * 20)
    assert {json.loads(text)["text"] for text in done.values()} == {expected}
    assert all(name.removesuffix(".json").isdigit() for name in done)  # no file under a temporary name
    *_, stopped, closing = stderr.splitlines()  # before them, perhaps, where a part of one is
    assert stopped == (
        f"asr: interrupted: {150 - len(done)} recordings not transcribed; files already written are complete"
    )
    assert closing.startswith(f"{len(done)} recording")


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits to the size of files")
def test_a_full_disk_is_named_and_leaves_whole_files(tmp_path):
    import resource

    process = run_apart(
        FOUR, STRING, SEVEN, "-o", tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6, 6)),
    )  # fmt: skip
    _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr == f"asr: {tmp_path / STRING.stem}.txt: cannot be written: File too large\n"
    assert written(tmp_path) == {f"{FOUR.stem}.txt": "four\n"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_it_is(monkeypatch, tmp_path):
    monkeypatch.setattr("asr.cli._progress.PATIENCE_SECONDS", 0.0)
    (tmp_path / "x.wav").write_text("not audio")
    sources = [str(FOUR), str(STRING), str(tmp_path / "x.wav")]
    for terminal, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", terminal)
        with new_audio_bar(sources) as bar:
            bar.update(measure_duration(FOUR))
            bar.refresh()
        assert (" 13 % |" in terminal.getvalue()) == shown
        assert ("left" in terminal.getvalue()) == shown
        assert bool(terminal.getvalue()) == shown


def test_a_bar_decodes_nothing_and_counts_seconds_where_a_header_tells_no_length(monkeypatch, tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.random.default_rng(0).standard_normal(48000), 16000, format="MP3")
    content = buffer.getvalue()
    (tmp_path / "x.mp3").write_bytes(content[content.index(content[:2], 4) :])  # without the Xing header
    monkeypatch.setattr("asr.audio.reading.decode_blocks", lambda *arguments: pytest.fail("decodes"))
    monkeypatch.setattr("asr.cli._progress.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with new_audio_bar([str(FOUR), str(tmp_path / "x.mp3")]) as bar:
        bar.update(12.0)
        bar.refresh()
    assert "12 s of audio in 00:00" in sys.stderr.getvalue()
    assert "%" not in sys.stderr.getvalue()


@pytest.mark.parametrize(
    ("arguments", "frozen"), [(["transcribe", str(FOUR), "--model", "digits"], True), (["models"], False)]
)
def test_only_a_transcription_ends_without_a_search_for_garbage(arguments, frozen):
    code = f"""
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count() > len(gc.get_objects())))
sys.argv = ["asr", *{arguments!r}]
from asr.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(frozen)


def test_a_start_without_a_terminal_pays_for_no_progress_bar():
    code = f"""
import atexit, sys
atexit.register(lambda: print("tqdm" in sys.modules))
sys.argv = ["asr", "transcribe", {str(FOUR)!r}, "--model", "english"]
from asr.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_no_more_threads_than_cores():
    cores = count_cores()
    assert [choose_threads(asked) for asked in (0, 1, cores, cores + 1, 10_000)] == [
        cores,
        1,
        cores,
        cores,
        cores,
    ]
