"""Beam search, language models and hot words through the command line, with the digits model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asr.cli import cli
from asr.core.config import read_toml
from asr.data.manifest import Utterance, write_manifest
from asr.errors import UserError
from asr.lm.recurrent_file import save_recurrent_model
from asr.pretrained import SHIPPED
from asr.recognition.model_files import write_checksums
from asr.text.pieces import learn_pieces
from asr.text.punctuation import open_tagger, save_tagger
from tests.lm.test_recurrent import make_random_model
from tests.text.test_punctuation import make_random_tagger

SAMPLES = Path(__file__).parents[2] / "samples"
STRING = SAMPLES / "digits-lucas.flac"
SAID = {"digit-4-george": "four", "digit-7-jackson": "seven", "digits-lucas": "one eight seven two"}


def run(*arguments: object, status: int = 0) -> Result:
    done = CliRunner().invoke(cli, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit | UserError), done.exception
    if not isinstance(done.exception, UserError):
        assert done.exit_code == status, done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A copy of the digits model, a language model of digits, a manifest of the samples."""
    folder = tmp_path_factory.mktemp("searching")
    shutil.copytree(SHIPPED / "digits", folder / "model")
    (folder / "text.txt").write_text(
        "one eight seven two\nfour\nseven\nthree nine one\nsix two zero five\n" * 3
    )
    done = run(
        "lm", "train", folder / "text.txt", "-o", folder / "digits.arpa", "--order", 2, "--discount-fallback"
    )
    assert done.exit_code == 0
    utterances = [Utterance(name, str(SAMPLES / f"{name}.flac"), text=text) for name, text in SAID.items()]
    write_manifest(folder / "dev.jsonl", utterances)
    return folder


def test_beam_search_with_a_language_model_gives_times_and_confidences(folder):
    command = [
        "transcribe",
        STRING,
        "--model",
        folder / "model",
        "--lm",
        folder / "digits.arpa",
        "-f",
        "json",
    ]
    transcript = json.loads(run(*command, "--beam-size", 16, "--word-bonus", 0.5).stdout)
    assert transcript["text"] == SAID["digits-lucas"]
    words = transcript["segments"][0]["words"]
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert all(0 < word["confidence"] <= 1 for word in words)


def test_hot_words_turn_on_beam_search_and_say_so(folder):
    plain = run("transcribe", STRING, "--model", folder / "model")
    assert plain.stderr == ""
    hot = run("transcribe", STRING, "--model", folder / "model", "--hotwords", "Eight, seven two")
    assert "--beam-size 64" in hot.stderr
    assert hot.stdout == plain.stdout


def test_a_hot_word_that_normalises_to_nothing_is_an_error(folder):
    done = run("transcribe", STRING, "--model", folder / "model", "--hotwords", "eight,, ?! ", status=1)
    assert str(done.exception) == (
        "hot words: nothing is left of '?!' in the form letters-v1; write it as it is spoken"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--word-bonus", 1], "--word-bonus does nothing in a greedy search: give --lm or --beam-size, too"),
        (["--lm-weight", 1], "--lm-weight does nothing in a greedy search: give --lm or --beam-size, too"),
        (
            ["--lm-weight", 1, "--beam-size", 4],
            "--lm-weight does nothing without a language model: give --lm, too",
        ),
        (["--hotword-weight", 1], "--hotword-weight does nothing without hot words: give --hotwords, too"),
        (
            ["--lm", "digits.arpa", "--beam-size", 1],
            "a language model needs a beam search: --beam-size 64 instead of greedy search",
        ),
        (["--lm", "digits.arpa", "--lm-weight", 0.1, "--word-bonus", 0.1], ""),
        (["--beam-size", 4, "--hotwords", "Eight", "--hotword-weight", 1], ""),
    ],
)
def test_options_without_effect_are_reported(folder, monkeypatch, options, says):
    monkeypatch.chdir(folder)
    done = run("transcribe", STRING, "--model", "model", *options)
    assert done.stderr == (f"{says}\n" if says else "")


def test_a_result_says_how_it_was_searched(folder):
    command = ["evaluate", folder / "dev.jsonl", "--model", folder / "model", "--json"]
    assert json.loads(run(*command).stdout)["search"] == "greedy"
    beam = json.loads(run(*command, "--lm", folder / "digits.arpa", "--lm-weight", 0.4).stdout)
    assert beam["wer"] == 0
    assert beam["search"]["lm_weight"] == 0.4
    assert beam["search"]["beam_size"] == 64
    assert len(beam["search"]["language_model"]) == 2


def test_tuned_settings_become_part_of_the_model_and_can_be_overridden(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    command = ["tune", folder / "dev.jsonl", "--model", model, "--lm", folder / "digits.arpa"]
    dry = run(*command, "--dry-run")
    assert not (model / "search.toml").exists()
    done = run(*command)
    assert done.stdout == dry.stdout
    assert done.stdout.count("WER") == 4 * 2 + 5 * 5 + 3 * 3 + 6 + 1
    assert read_toml(model / "search.toml")["beam_size"] == 8  # no worse than wider ones
    run(*command, "--beam-size", 5)
    assert read_toml(model / "search.toml")["beam_size"] == 5
    evaluate = ["evaluate", folder / "dev.jsonl", "--model", model, "--json"]
    assert json.loads(run(*evaluate).stdout)["search"]["language_model"] is not None
    without = json.loads(run(*evaluate, "--lm", "none", "--beam-size", 1).stdout)
    assert without["search"] == "greedy"
    (model / "search.toml").write_text("beam_sise = 3\n")
    failed = run(*evaluate, status=1)
    assert "search.toml" in str(failed.exception) and "beam_size" in str(failed.exception)


def test_a_model_whose_parts_are_replaced_still_opens(folder, tmp_path):
    """Its checksums go with its files, whichever command writes them."""
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    pieces = learn_pieces({word: 3 for said in SAID.values() for word in said.split()}, 24)
    save_recurrent_model(make_random_model(pieces, seed=1), model / "language-model.safetensors")
    save_tagger(make_random_tagger(), model / "punctuation.safetensors")
    write_checksums(model)
    save_recurrent_model(make_random_model(pieces, seed=2), tmp_path / "other.safetensors")
    run(
        "tune", folder / "dev.jsonl", "--model", model, "--lm", folder / "digits.arpa",
        "--rescore", tmp_path / "other.safetensors", "--rescore-only",
    )  # fmt: skip
    spoken = [
        Utterance("a", str(STRING), text="one, eight seven, two", extra={"raw": "One, eight seven, two."})
    ]
    write_manifest(tmp_path / "spoken.jsonl", spoken)
    done = run("punctuation", "pauses", tmp_path / "spoken.jsonl", "--model", model)
    assert done.output.count(" s and more: ") == 6
    assert len(open_tagger(model / "punctuation.safetensors").config.pauses) == 6
    before = (folder / "model" / "SHA256SUMS").read_text()
    assert set(before.splitlines()) < set((model / "SHA256SUMS").read_text().splitlines())
    asked = run("punctuation", "pauses", tmp_path / "spoken.jsonl", "--model", "digits", status=1)
    assert "is part of the program; give -o FILE" in str(asked.exception)
    run("transcribe", STRING, "--model", model, "--rescore", "none")


def test_a_shipped_model_cannot_be_tuned_in_place(folder):
    result = CliRunner().invoke(cli, ["tune", str(folder / "dev.jsonl"), "--model", "digits"])
    assert isinstance(result.exception, UserError)
    assert "digits: is part of the program; copy" in str(result.exception)


def test_search_without_a_language_model_has_its_own_settings(folder, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    run("lm", "convert", folder / "digits.arpa", "-o", model / "language-model.bin")
    (model / "search.toml").write_text("beam_size = 6\n")
    evaluate = ["evaluate", folder / "dev.jsonl", "--model", model, "--json"]
    assert json.loads(run(*evaluate, "--lm", "none").stdout)["search"]["beam_size"] == 6
    run("tune", folder / "dev.jsonl", "--model", model, "--lm", "none", "--beam-size", 7)
    assert read_toml(model / "search.toml") == {"beam_size": 6}
    tuned = read_toml(model / "search-without-lm.toml")
    assert tuned["beam_size"] == 7
    search = json.loads(run(*evaluate, "--lm", "none").stdout)["search"]
    assert (search["language_model"], search["beam_size"]) == (None, 7)
    assert search["word_bonus"] == tuned["word_bonus"]
    assert json.loads(run(*evaluate).stdout)["search"]["beam_size"] == 6


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--lm", "nothing.arpa"], "nothing.arpa"),
        (["--lm", str(STRING)], "ARPA"),
        (["--lm", "capitals.arpa"], "no word of the language model"),
    ],
)
def test_an_unusable_language_model_is_an_error_of_one_line(folder, monkeypatch, arguments, named):
    monkeypatch.chdir(folder)
    Path("capitals.txt").write_text(Path("text.txt").read_text().upper())
    run("lm", "train", "capitals.txt", "-o", "capitals.arpa", "--discount-fallback")
    done = run("transcribe", STRING, "--model", folder / "model", *arguments, status=1)
    assert isinstance(done.exception, UserError)
    assert named in str(done.exception)
    assert "\n" not in str(done.exception)
