"""From nothing to a word error rate, through the command line alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.synthetic import RATE, write_tones

RECIPE = """
format_version = 1
[features]
sample_rate = 8000
n_mels = 40
normalisation = "global"
[encoder]
layers = 1
size = 48
front_end = "conv2"
channels = 8
norm = "layer"
[training]
epochs = 14
batch_seconds = 12.0
learning_rate = 1e-2
warmup_steps = 20
"""


def asr(*arguments: object, check: bool = True, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "asr", *map(str, arguments)], capture_output=True, text=True, **options
    )
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with manifests of tones, a recipe and the run that learned them."""
    folder = tmp_path_factory.mktemp("end-to-end")
    write_tones(folder / "data", {"train": 160, "dev": 16, "test": 24}, seed=3)
    (folder / "recipe.toml").write_text(RECIPE)
    asr("train", "recipe.toml", "--out", "run", "--data", "data", "--threads", "1", cwd=folder)
    return folder


@pytest.mark.slow
def test_tones_are_learned_without_an_error(trained):
    done = asr(
        "evaluate", "data/test.jsonl", "--model", "run", "--hyp-out", "hyp.jsonl", "--json", cwd=trained
    )
    result = json.loads(done.stdout)
    assert result["wer"] == 0.0
    assert result["word_counts"]["utterances"] == 24
    assert result["training_speed"] > 0
    intervals = result["intervals"]
    assert (intervals["by_utterance"]["units"], intervals["by_speaker"]["units"]) == (24, 3)
    assert intervals["by_speaker"]["low"] == intervals["by_speaker"]["high"] == 0.0
    lines = [json.loads(line) for line in (trained / "hyp.jsonl").read_text().splitlines()]
    assert len(lines) == 24
    assert all(line["text"] and line["id"].startswith("test-") for line in lines)
    words = [word["confidence"] for line in lines for word in line["words"]]
    assert sum(row["words"] for row in result["reliability"]) == len(words)
    assert sum(row["words"] * row["confidence"] for row in result["reliability"]) == pytest.approx(sum(words))
    assert {row["right"] for row in result["reliability"]} == {1.0}
    scored = asr("score", "data/test.jsonl", "hyp.jsonl", cwd=trained)
    assert "0.00 %" in scored.stdout


@pytest.mark.slow
def test_rates_are_told_where_hypotheses_cannot_be_written(trained):
    (trained / "in-the-way").write_text("")
    command = ["evaluate", "data/test.jsonl", "--model", "run", "--threads", "1", "--hyp-out", "in-the-way/x"]
    done = asr(*command, cwd=trained, check=False)
    assert done.returncode == 1
    assert "WER   0.00 %" in done.stdout
    assert done.stderr.startswith("asr: in-the-way")


@pytest.mark.slow
def test_transcripts_are_the_same_alone_and_in_an_evaluation(trained):
    done = asr("evaluate", "data/test.jsonl", "--model", "run", "--hyp-out", "same.jsonl", cwd=trained)
    assert re.search(r"confidence +right +words\n( +[01]\.\d\d +1\.00 +\d+\n)+mean distance", done.stdout)
    by_id = {h["id"]: h for h in map(json.loads, (trained / "same.jsonl").read_text().splitlines())}
    files = sorted((trained / "data" / "test").glob("*.wav"))[:4]
    done = asr("transcribe", "--no-vad", "--model", trained / "run", "-f", "jsonl", *files)
    for file, line in zip(files, done.stdout.splitlines(), strict=True):
        transcript = json.loads(line)
        expected = by_id[f"test-{file.stem}"]
        assert transcript["text"] == expected["text"]
        words = transcript["segments"][0]["words"]
        assert [word["text"] for word in words] == expected["text"].split()
        assert all(0 <= word["start"] < word["end"] <= transcript["duration"] + 0.1 for word in words)
        assert all(0 <= word["confidence"] <= 1 for word in words)


@pytest.mark.slow
def test_one_bad_file_among_many_is_named_and_the_others_are_done(trained, tmp_path):
    good = trained / "data" / "test" / "000.wav"
    bad = tmp_path / "x.wav"
    bad.write_text("not audio")
    done = asr(
        "transcribe", "--no-vad", "--model", trained / "run", bad, good, tmp_path / "missing.wav", check=False
    )
    assert done.returncode == 1
    assert done.stdout.startswith(f"{good}\t")
    assert done.stdout.count("\n") == 1
    assert [str(bad) in line for line in done.stderr.splitlines()] == [True, False]
    assert "missing.wav" in done.stderr.splitlines()[1]


@pytest.mark.slow
def test_a_single_file_gives_its_text_alone(trained):
    done = asr("transcribe", "--no-vad", "--model", trained / "run", trained / "data" / "test" / "000.wav")
    (line, *_) = (trained / "data" / "test.jsonl").read_text().splitlines()
    assert done.stdout == json.loads(line)["text"] + "\n"


@pytest.mark.slow
def test_json_has_the_text_and_its_times(trained):
    path = trained / "data" / "test" / "001.wav"
    transcript = json.loads(
        asr("transcribe", "--no-vad", "--model", trained / "run", "-f", "json", path).stdout
    )
    assert transcript["audio"] == str(path)
    assert transcript["duration"] == pytest.approx(soundfile.info(path).duration, abs=1e-3)
    assert transcript["text"] == " ".join(segment["text"] for segment in transcript["segments"])


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(trained):
    before = (trained / "run" / "model.safetensors").read_bytes()
    again = asr("train", "recipe.toml", "--out", "run", "--data", "data", "--threads", "1", cwd=trained)
    assert "resuming at step" in again.stderr
    assert (trained / "run" / "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_the_printed_config_is_a_recipe(trained, tmp_path):
    printed = asr("train", trained / "recipe.toml", "--print-config", "--set", "training.epochs=3").stdout
    assert "# Passes over the training data" in printed
    (tmp_path / "again.toml").write_text(printed)
    assert asr("train", tmp_path / "again.toml", "--print-config").stdout == printed
    assert "epochs = 3" in printed


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["train", "recipe.toml", "--print-config", "--set", "training.epoch=3"], 1, "'epochs'"),
        (
            ["train", "recipe.toml", "--dry-run", "--set", "epochs=3"],
            1,
            "--set: unknown key 'epochs'; it is called 'training.epochs'",
        ),
        (
            ["train", "recipe.toml", "--dry-run", "--set", "data.epochs=3"],
            1,
            "--set: unknown key 'data.epochs'; it is called 'training.epochs'",
        ),
        (
            ["train", "recipe.toml", "--dry-run", "--set", "data.format_version=1"],
            1,
            "--set: unknown key 'data.format_version'; it is called 'format_version'",
        ),
        (
            ["train", "wrong.toml", "--dry-run", "--set", "training.epochs=3"],
            1,
            "asr: wrong.toml: unknown key 'encodre'",
        ),
        (
            ["train", "wrong.toml", "--dry-run", "--set", "encodre=1", "--set", "seed"],
            1,
            "asr: --set: 'seed' is not of the form",
        ),
        (["train", "no.toml", "--dry-run"], 1, "asr: no.toml: is not TOML"),
        (["train", "recipe.toml"], 2, "--out"),
        (["train", "nothing.toml", "--out", "x"], 2, "nothing.toml"),
        (["transcribe", "--model", "nothing", "a.wav"], 1, "nothing"),
        (["transcribe", "--model", "data", "a.wav"], 1, "config.toml"),
        (["transcribe", "--device", "tpu", "--model", "run", "a.wav"], 1, "tpu"),
        (["evaluate", "nothing.jsonl", "--model", "run"], 1, "nothing.jsonl"),
        (["evaluate", "empty.jsonl", "--model", "run"], 1, "empty.jsonl: lists no utterances"),
        (["train", "recipe.toml", "--dry-run", "--set", "format_version=9"], 1, "'format_version'"),
        (["features", "data/test/000.wav"], 2, "-o"),
        (["features", "data/test/000.wav", "-o", "x.png"], 2, "x.png does not end in .npy"),
        (["features", "data/test/000.wav", "-o", "x.npy", "--set", "knid=mfcc"], 1, "'kind'"),
    ],
)
@pytest.mark.slow
def test_mistakes_end_in_one_clear_line(trained, arguments, status, named):
    (trained / "empty.jsonl").touch()
    (trained / "wrong.toml").write_text("encodre = 1\n")
    (trained / "no.toml").write_text("[")
    done = asr(*arguments, cwd=trained, check=False)
    assert done.returncode == status
    assert named in done.stderr
    assert done.stdout == ""
    if status == 1:
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.slow
def test_a_full_disk_is_one_clear_line(trained):
    path = trained / "data" / "test" / "000.wav"
    command = [sys.executable, "-m", "asr", "transcribe", "--model", str(trained / "run"), str(path)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "asr: output: No space left on device\n"


@pytest.mark.skipif(sys.platform == "win32", reason="other signals")
def test_a_crash_in_compiled_code_says_where_it_was():
    code = "import ctypes; from asr import cli; cli.cli = lambda **names: ctypes.string_at(0); cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGSEGV
    assert "in string_at" in done.stderr


@pytest.mark.slow
def test_features_are_written_and_drawn(trained):
    asr("features", "data/test/000.wav", "-o", "frames.npy", "--plot", "frames.png", cwd=trained)
    frames = np.load(trained / "frames.npy")
    assert frames.ndim == 2
    assert frames.shape[1] == 80
    assert (trained / "frames.png").read_bytes().startswith(b"\x89PNG")
    asr("features", "data/test/000.wav", "-o", "model.npy", "--model", "run", cwd=trained)
    assert np.load(trained / "model.npy").shape[1] == 40


@pytest.mark.slow
def test_nothing_in_a_model_folder_is_unpickled(trained, tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'sprung'}",))

    model = tmp_path / "model"
    shutil.copytree(trained / "run", model)
    (model / "model.safetensors").write_bytes(pickle.dumps(Trap()))
    done = asr("transcribe", "--no-vad", "--model", model, trained / "data" / "test" / "000.wav", check=False)
    assert done.returncode == 1
    assert "model.safetensors" in done.stderr
    assert not (tmp_path / "sprung").exists()


@pytest.mark.slow
def test_training_frames_are_those_of_transcription(trained):
    from asr.data.manifest import read_manifest
    from asr.model.engine import unwrap_model
    from asr.model.features import unpad
    from asr.recognition.recognizer import open_recognizer
    from asr.training.batching import load_batch
    from asr.training.examples import new_sample_reader, training_examples

    recognizer = open_recognizer(trained / "run", "cpu", engine="torch")
    utterances = read_manifest(trained / "data" / "test.jsonl")[:3]
    examples = training_examples(utterances, recognizer.tokenizer, recognizer.text)
    batch = load_batch(examples, new_sample_reader(RATE, keep=False))
    log_probs, frames = unwrap_model(recognizer).log_probs(batch.samples, batch.sample_lengths)
    from_batch = recognizer.search(unpad(log_probs, frames))
    for utterance, hypothesis in zip(utterances, from_batch, strict=True):
        assert recognizer.transcribe(utterance.audio, vad=False).text == hypothesis.text


def letters_of_tones(folder: Path, number: int) -> tuple[str, np.ndarray]:
    """The text of a recording of the test set and, second by second, where it is not silent."""
    line = json.loads((folder / "data" / "test.jsonl").read_text().splitlines()[number])
    samples, _ = soundfile.read(folder / "data" / line["audio_filepath"])
    return line["text"], np.convolve(np.abs(samples), np.ones(80) / 80, "same") > 0.02


@pytest.mark.slow
def test_letters_are_aligned_with_their_tones(trained):
    for number in range(3):
        text, loud = letters_of_tones(trained, number)
        path = trained / "data" / "test" / f"{number:03d}.wav"
        aligned = json.loads(asr("align", path, text, "--model", trained / "run", "-f", "json").stdout)
        assert aligned["unit"] == "characters"
        assert ["".join(unit["text"] for unit in word["units"]) for word in aligned["words"]] == text.split()
        borders = np.flatnonzero(np.diff(loud.astype(int))) / RATE  # where tones begin and end, in turn
        units = [unit for word in aligned["words"] for unit in word["units"]]
        assert len(borders) == 2 * len(units)
        for unit, begin, end in zip(units, borders[::2], borders[1::2], strict=True):
            assert begin - 0.06 < (unit["start"] + unit["end"]) / 2 < end + 0.06
            assert unit["confidence"] > 0.5


@pytest.fixture(scope="module")
def trained_on_phones(trained) -> Path:
    """The same folder with a run whose tokens are phones, one for each letter."""
    manifests = [json.loads(line) for path in (trained / "data").glob("*.jsonl") for line in path.open()]
    words = sorted({word for line in manifests for word in line["text"].split()})
    lines = [f"{word} {' '.join(letter.upper() for letter in word)}\n" for word in words]
    (trained / "data" / "lexicon.txt").write_text("".join(lines))
    phones = ["--set", "text.tokens=phones", "--set", "text.lexicon=lexicon.txt"]
    recipe = ["recipe.toml", "--out", "phones", "--data", "data", "--threads", "1"]
    asr("train", *recipe, *phones, cwd=trained)
    return trained


@pytest.mark.slow
def test_phones_are_learned_and_counted(trained_on_phones):
    done = asr("evaluate", "data/test.jsonl", "--model", "phones", "--json", cwd=trained_on_phones)
    result = json.loads(done.stdout)
    assert (result["unit"], result["wer"]) == ("phones", 0.0)
    manifest = [json.loads(line) for line in (trained_on_phones / "data" / "test.jsonl").open()]
    assert result["word_counts"]["reference_length"] == sum(
        len(line["text"].replace(" ", "")) for line in manifest
    )
    said = asr("transcribe", "--no-vad", "--model", "phones", "data/test/000.wav", cwd=trained_on_phones)
    assert said.stdout == " ".join(manifest[0]["text"].replace(" ", "").upper()) + "\n"
    assert "phones, not words" in said.stderr


@pytest.mark.slow
def test_words_are_found_by_their_pronunciations(trained_on_phones):
    texts = [json.loads(line)["text"] for line in (trained_on_phones / "data" / "test.jsonl").open()]
    (trained_on_phones / "texts.txt").write_text("".join(text + "\n" for text in texts))
    asr("lm", "train", "texts.txt", "-o", "lm.bin", "--discount-fallback", cwd=trained_on_phones)
    model = ["--model", "phones", "--lm", "lm.bin"]
    result = json.loads(asr("evaluate", "data/test.jsonl", "--json", *model, cwd=trained_on_phones).stdout)
    assert result["unit"] == "words"
    assert result["wer"] <= 0.05  # no token stands between words: the language model has to know
    said = asr("transcribe", "--no-vad", *model, "data/test/000.wav", cwd=trained_on_phones).stdout
    assert said == texts[0] + "\n"
    model += ["--hotwords", texts[0]]
    hot = asr("transcribe", "--no-vad", *model, "data/test/000.wav", cwd=trained_on_phones)
    assert hot.stdout == said
