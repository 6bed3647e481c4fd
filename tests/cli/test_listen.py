"""`asr listen`: samples from a pipe or a microphone to text, line by line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asr.audio.reading import read_audio
from asr.cli import cli, listen

SAMPLES = Path(__file__).parent.parent.parent / "samples"
SAID = "one eight seven two"
RATE = 8000


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    quiet = np.random.default_rng(0).normal(0, 1e-4, RATE)
    parts = [read_audio(SAMPLES / name, RATE) for name in ("digits-lucas.flac", "digit-4-george.flac")]
    samples = np.concatenate([quiet, parts[0], quiet, quiet, parts[1], quiet])
    return (samples * 32767).astype(np.int16)


def run(*arguments: str, samples: np.ndarray | bytes = b"") -> str:
    content = samples if isinstance(samples, bytes) else samples.tobytes()
    done = CliRunner().invoke(cli, ["listen", "--model", "digits", *arguments], input=content)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_pipe_becomes_lines(samples):
    lines = run("-", samples=samples).splitlines()
    assert " ".join(lines) == f"{SAID} four"
    assert lines[-1] == "four"
    wide = np.repeat(samples, 2)
    assert " ".join(run("-", "--rate", str(2 * RATE), samples=wide).split()) == f"{SAID} four"


def test_events_for_programs(samples):
    events = [json.loads(line) for line in run("-", "-f", "jsonl", samples=samples).splitlines()]
    assert {event["type"] for event in events} == {"partial", "final", "endpoint"}
    finals = [event for event in events if event["type"] == "final"]
    words = [word for event in finals for word in event["words"]]
    assert [word["text"] for word in words] == [*SAID.split(), "four"]
    assert words[0]["start"] > 1.0
    assert words[-1]["start"] > 1.0 + 3.5 + 2.0


@pytest.mark.parametrize("kind", ["srt", "vtt"])
def test_subtitles_are_written_on(samples, kind, tmp_path):
    parser = pytest.importorskip("srt" if kind == "srt" else "webvtt", reason="needs [dev]")
    path = tmp_path / f"talk.{kind}"
    assert run("-", "-f", kind, "-o", str(path), samples=samples) == ""
    if kind == "srt":
        cues = list(parser.parse(path.read_text(encoding="utf-8")))
        assert [cue.index for cue in cues] == list(range(1, len(cues) + 1))
        texts = [cue.content for cue in cues]
    else:
        texts = [cue.text for cue in parser.read(path)]
    assert " ".join(" ".join(texts).split()) == f"{SAID} four"


def test_a_wav_file_is_no_pipe_of_samples():
    done = CliRunner().invoke(cli, ["listen", "-", "--model", "digits"], input=b"RIFF")
    assert "asr transcribe - reads it" in str(done.exception)


def test_the_microphone(samples, monkeypatch):
    """A library of the microphone that hands out the recording, then waits for Ctrl-C."""

    class Stream:
        def __init__(self, rate, size, device, channels, kind, callback) -> None:
            assert (rate, device, channels, kind) == (2 * RATE, 3, 1, "int16")
            wide = np.repeat(samples, 2)
            for begin in range(0, len(wide), size):
                callback(wide[begin : begin + size].tobytes(), size, None, None)

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    class PortAudioError(Exception):
        pass

    def refuse(*arguments: object, **more: object) -> None:
        raise PortAudioError

    fake = types.SimpleNamespace(
        PortAudioError=PortAudioError,
        RawInputStream=Stream,
        check_input_settings=refuse,  # it has not the model's rate
        query_devices=lambda *arguments: {"default_samplerate": 2.0 * RATE},
    )
    own = listen.take_waiting

    def take_until_interrupted(waiting):
        yield next(own(waiting))
        raise KeyboardInterrupt

    monkeypatch.setattr(listen, "import_sounddevice", lambda: fake)
    monkeypatch.setattr(listen, "take_waiting", take_until_interrupted)
    assert run("microphone", "--input", "3").split() == [*SAID.split(), "four"]


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_with_what_was_said(samples):
    command = [sys.executable, "-m", "asr", "listen", "-", "--model", "digits", "-f", "jsonl"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        process.stdin.write(samples[: 3 * RATE].tobytes())  # in the middle of a segment
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["type"] == "partial"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == b""
    assert json.loads(output.splitlines()[-2])["type"] == "final"
