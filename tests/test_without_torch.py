"""What needs no torch runs where there is none; what needs it says so in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.synthetic import write_tones

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
MISSING = ("torch", "torchaudio", "librosa", "matplotlib", "tensorboard", "onnx")  # the extra train

PROGRAM = f"""
import sys
for name in {MISSING}:
    sys.modules[name] = None
from asr.cli import main
main()
"""


def light_asr(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``asr`` as where the extra is not installed."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def run_well(folder: Path, *arguments: object) -> str:
    done = light_asr(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_recordings_are_transcribed_and_aligned(tmp_path):
    path = SAMPLES / "digits-lucas.flac"
    assert run_well(tmp_path, "transcribe", path, "--model", "digits") == "one eight seven two\n"
    aligned = run_well(tmp_path, "align", path, "one eight seven two", "--model", "digits")
    assert len(aligned.splitlines()) == 4
    assert run_well(tmp_path, "transcribe", SAMPLES / "english-1272.flac").strip()  # beam and language model


def test_texts_are_scored_and_become_language_models_and_lexicons(tmp_path):
    (tmp_path / "text.txt").write_text("go on\ngo home\nthey go on and on\n" * 20)
    run_well(tmp_path, "lm", "train", "text.txt", "-o", "lm.bin", "--order", "2", "--discount-fallback")
    assert "perplexity" in run_well(tmp_path, "lm", "perplexity", "lm.bin", "text.txt")
    (tmp_path / "words.jsonl").write_text(
        json.dumps({"id": "a", "audio_filepath": "a.wav", "text": "go on"}) + "\n"
    )
    assert "WER" in run_well(tmp_path, "score", "words.jsonl", "words.jsonl")
    (tmp_path / "dictionary.txt").write_text("GO  G OW1\nON  AA1 N\nHOME  HH OW1 M\n")
    run_well(
        tmp_path, "lexicon", "--words", "words.jsonl", "--dictionary", "dictionary.txt", "-o", "lexicon.txt"
    )
    assert (tmp_path / "lexicon.txt").read_text().count("\n") == 2


def test_corpora_are_prepared_and_manifests_validated(tmp_path):
    write_tones(tmp_path / "data", {"train": 3}, seed=1)
    assert "utterances  3" in run_well(tmp_path, "validate", "data/train.jsonl")
    assert "librispeech" in run_well(tmp_path, "prepare", "--help")
    # A corpus of one recording, in the layout of LJSpeech.
    (tmp_path / "corpus" / "wavs").mkdir(parents=True)
    (tmp_path / "corpus" / "wavs" / "LJ001-0001.wav").write_bytes(
        next((tmp_path / "data").rglob("*.wav")).read_bytes()
    )
    (tmp_path / "corpus" / "metadata.csv").write_text("LJ001-0001|Go on.|Go on.\n")
    run_well(tmp_path, "prepare", "ljspeech", "corpus", "-o", "manifests")
    assert [path for path in (tmp_path / "manifests").glob("*.jsonl") if path.read_text()]


def test_models_are_evaluated_and_tuned_and_say_with_which_precision(tmp_path):
    row = {"audio_filepath": str(SAMPLES / "digits-lucas.flac"), "text": "one eight seven two"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    plain = run_well(tmp_path, "evaluate", "x.jsonl", "--model", "digits", "--compute-type", "float32")
    assert plain.splitlines()[-1].endswith("computed in float32")
    result = json.loads(run_well(tmp_path, "evaluate", "x.jsonl", "--model", "digits", "--json"))
    assert result["wer"] == 0
    assert result["compute_type"] in ("int8", "float32")
    assert result["onnxruntime"] and "torch" not in result
    asked = light_asr(tmp_path, "evaluate", "x.jsonl", "--model", "digits", "--compute-type", "bfloat16")
    assert asked.stderr.strip().endswith("needs torch: pip install 'asr[train]'")
    tuned = run_well(
        tmp_path, "tune", "x.jsonl", "--model", "digits", "--dry-run", "--beam-size", "4", "--lm", "none"
    )
    assert f"(log-probs in {result['compute_type']})" in tuned.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", ROOT / "recipes/fsdd/blstm.toml", "-o", "run"],
        ["doctor", ROOT / "recipes/fsdd/blstm.toml"],
        ["tune", "x.jsonl", "--model", "digits", "--dry-run", "--compute-type", "bfloat16"],
        ["features", "x.wav", "-o", "x.npy"],
        ["inspect", "x.wav", "-o", "x.png"],
        ["export", "--model", "digits", "-o", "x.onnx"],
        ["transcribe", SAMPLES / "digits-lucas.flac", "--device", "cuda"],
        ["transcribe", SAMPLES / "digits-lucas.flac", "--compute-type", "bfloat16"],
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:1])),
)
def test_a_verb_without_its_extra_says_what_to_install(tmp_path, arguments):
    done = light_asr(tmp_path, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "torch" in line
    assert line.endswith("pip install 'asr[train]'")
    assert not list(tmp_path.iterdir())
    assert light_asr(tmp_path, arguments[0], "--help").returncode == 0
