"""The data of the English recipe: who is trained on, who is held out, what is left out and why."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.data.manifest import read_manifest

SCRIPT = Path(__file__).parents[2] / "recipes/english/prepare.py"


def write_sound(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(8000 * seconds)), 8000)


def librispeech(folder: Path, lines: dict[str, tuple[str, float]]) -> None:
    """Utterances ``speaker-chapter-number`` of one set with their texts and seconds."""
    for name, (text, seconds) in lines.items():
        speaker, chapter, _ = name.split("-")
        place = folder / speaker / chapter
        write_sound(place / f"{name}.flac", seconds)
        with (place / f"{speaker}-{chapter}.trans.txt").open("a") as file:
            file.write(f"{name} {text}\n")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("english")
    read = {
        "7-1-0000": ("A SENTENCE OF GOOD LENGTH", 2.0),
        "7-1-0001": ("FAR TOO MUCH TEXT FOR SO SHORT A SOUND", 0.5),
        "7-1-0002": ("SILENCE", 9.0),
        "7-1-0003": ("A VERY LONG RECORDING " * 20, 26.0),
        "7-1-0004": ("AN ORDER OF 2 EGGS", 2.0),
    }
    librispeech(folder / "LibriSpeech/train-clean-5", read)
    for speaker in ("1272", "1988"):
        librispeech(folder / "LibriSpeech/dev-clean", {f"{speaker}-1-0000": ("HELD OUT", 1.0)})
    rows = ["filename,text"]
    for number in range(40):  # every sentence is read by two people
        name = f"cv-valid-dev/sample-{number:03d}.mp3"
        write_sound(folder / "CommonVoice-v1" / name, 2.0)
        rows.append(f"{name},sentence {'abcdefghijklmnopqrst'[number // 2]} is read")
    (folder / "CommonVoice-v1/cv-valid-dev.csv").write_text("\n".join(rows) + "\n")
    out = folder / "out"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("left out: ") == 3  # the corpora that are not there
    return out


def test_held_out_speakers_and_sentences_are_not_trained_on(prepared):
    sets = {name: read_manifest(prepared / f"{name}.jsonl") for name in ("train", "cv-dev")}
    assert {u.speaker for u in read_manifest(prepared / "dev-tune.jsonl")} == {"1272"}
    assert {u.speaker for u in read_manifest(prepared / "dev-report.jsonl")} == {"1988"}
    assert not {u.text for u in sets["train"]} & {u.text for u in sets["cv-dev"]}
    assert sets["cv-dev"]
    common = [u for name in sets for u in sets[name] if u.id.startswith("CommonVoice")]
    assert len(common) == 40
    digests = {u.text: hashlib.sha1(u.text.encode()).hexdigest() for u in common}
    assert {u.text for u in sets["cv-dev"]} == {text for text, digest in digests.items() if digest[0] == "0"}


def test_what_cannot_be_is_left_out_with_the_reason(prepared):
    reasons = {u.id.split("/")[1]: u.extra["reason"] for u in read_manifest(prepared / "left-out.jsonl")}
    assert reasons == {
        "7-1-0001": "38 characters in 0.5 s",
        "7-1-0002": "7 characters in 9.0 s",
        "7-1-0003": "lasts 26.0 s",
        "7-1-0004": "the text has figures, whose words are not known",
    }
    trained = {u.id for u in read_manifest(prepared / "train.jsonl")}
    assert "LibriSpeech/7-1-0000" in trained
    assert all(u.text == u.text.lower() for u in read_manifest(prepared / "train.jsonl"))
    sentences = (prepared / "train.txt").read_text().splitlines()
    assert len(set(sentences)) == len(sentences)
    assert set(sentences) == {u.text for u in read_manifest(prepared / "train.jsonl")}
