"""The data of the English recipe: who is trained on, who is held out, what is left out and why."""

from __future__ import annotations

import hashlib
import json
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
    calls = [(f"call-{number}", "what do i owe you") for number in range(40)]
    listed(
        folder / "minds14-checked", [*calls, ("call-kept", "what do i owe you"), ("call-1", "keep this one")]
    )
    caller = next(speaker for speaker, _ in calls if sha1(speaker)[0] in "01")
    again = (caller, "somebody who calls, too")
    listed(folder / "cv-delta-13", [("one", "one of many sentences")] * 300 + [again])  # ten minutes and one
    heard: list[tuple[str, dict[str, float]]] = [
        ("a story that is told", {"score": -0.1, "no_speech": 0.1, "disagreement": 0.3}),
        ("no no no no no no no no", {"score": -0.1}),
        ("mumbled", {"score": -2.0}),
        ("thank you very much", {"score": -0.1, "no_speech": 0.8}),
        ("it was something else", {"score": -0.1, "disagreement": 0.9}),
        ("said once said once and for all", {"score": -0.1}),
        ("round in a ring round in a ring round in", {"score": -0.1}),
    ]
    listed(folder / "untranscribed/queen", [("", "")] * (len(heard) + 1))  # the last has no label
    labels = [{"id": f"queen-{n}", "text": text} | judged for n, (text, judged) in enumerate(heard)]
    (folder / "labels").mkdir()
    (folder / "labels/queen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    (folder / "held-out-speakers.sha1").write_text(sha1("call-kept") + "\n")
    (folder / "held-out.sha1").write_text(sha1("keep this one") + "\n")
    out = folder / "out"
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, "--out", out, "--held-out", folder / "held-out.sha1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "left out: " in done.stderr  # the corpora that are not there
    return out


def listed(folder: Path, spoken: list[tuple[str, str]]) -> None:
    """A corpus with a manifest of its own: two seconds of each speaker and text."""
    lines = []
    for number, (speaker, text) in enumerate(spoken):
        name = f"{folder.name}-{number}"
        write_sound(folder / f"{name}.flac", 2.0)
        line = {"id": name, "audio_filepath": f"{name}.flac", "duration": 2.0, "text": text}
        lines.append(json.dumps(line | ({"speaker": speaker} if speaker else {})))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")


def sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


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
    left_out = read_manifest(prepared / "left-out.jsonl")
    reasons = {u.id.split("/")[1]: u.extra["reason"] for u in left_out if u.id.startswith("LibriSpeech")}
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
    written = [u for u in read_manifest(prepared / "train.jsonl") if "teacher_score" not in u.extra]
    assert set(sentences) == {u.text for u in written}


def test_one_speaker_in_eight_is_kept_for_validation(prepared):
    train, dev = (
        {u.speaker for u in read_manifest(prepared / name) if u.id.startswith("minds14")}
        for name in ("train.jsonl", "telephone-dev.jsonl")
    )
    assert train | dev == {f"call-{number}" for number in range(40)}
    assert dev == {f"call-{number}" for number in range(40) if sha1(f"call-{number}")[0] in "01"}
    assert not train & dev


def test_who_is_validated_on_is_trained_on_in_no_other_source(prepared):
    assert not [u for u in read_manifest(prepared / "train.jsonl") if "somebody" in u.text]
    reasons = [u.extra["reason"] for u in read_manifest(prepared / "left-out.jsonl") if "somebody" in u.text]
    assert reasons == ["its speaker is kept for validation"]


def test_speakers_and_sentences_of_a_final_measure_are_nowhere(prepared):
    for manifest in prepared.glob("*.jsonl"):
        everything = read_manifest(manifest)
        assert not [u for u in everything if u.speaker == "call-kept" or u.text == "keep this one"]


def test_a_speaker_brings_no_more_than_a_share(prepared):
    seconds = sum(u.duration for u in read_manifest(prepared / "train.jsonl") if u.speaker == "one")
    assert seconds == 360


def test_what_a_teacher_heard_is_learned_where_it_was_sure(prepared):
    trained = [u for u in read_manifest(prepared / "train.jsonl") if u.id.startswith("queen")]
    assert [u.text for u in trained] == [
        "a story that is told",
        "said once said once and for all",
        "round in a ring",
    ]
    reasons = [
        u.extra["reason"] for u in read_manifest(prepared / "left-out.jsonl") if u.id.startswith("queen")
    ]
    assert reasons == [
        "the teacher says the same again and again",
        "the teacher was not sure (-2.00)",
        "the teacher hears no speech",
        "another model hears something else",
    ]


def test_every_source_has_a_row(prepared):
    rows = json.loads((prepared / "sources.json").read_text())
    assert [row["source"] for row in rows] == [
        *("LibriSpeech", "CommonVoice-v1", "cv-delta-13", "minds14-checked", "queen")
    ]
    assert (prepared / "sources.md").read_text().count("\n") == len(rows) + 2
