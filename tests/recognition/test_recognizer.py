"""``import asr``: the public API, as another program uses it."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import asr
from asr.audio.reading import read_audio
from asr.longform.transcripts import POOL, LongformConfig
from asr.recognition.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "samples").glob("digit*.flac"))
ENGLISH = sorted((ROOT / "samples").glob("english-*.flac"))
SAID = ["four", "seven", "one eight seven two"]


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return asr.load("digits", device="cpu")


def list_imports(program: str) -> set[str]:
    """The modules that a program imports."""
    command = [sys.executable, "-X", "importtime", "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


NAMES = ["AlignedText", "Hypothesis", "Recognizer", "Segment", "Transcript", "UserError", "Word"]


def test_the_package_exports_exactly_these_names():
    assert asr.__all__ == [*NAMES, "__version__", "load"]
    for name in NAMES:
        assert getattr(asr, name).__name__ == name
    assert asr.Recognizer is Recognizer
    with pytest.raises(AttributeError, match="module 'asr' has no attribute 'recognise'"):
        asr.recognise  # noqa: B018


def test_no_exported_name_imports_torch():
    loaded = list_imports("from asr import *")
    assert "asr.longform.transcripts" in loaded
    assert loaded.isdisjoint({"torch", "torchaudio", "numba", "librosa"})


def test_a_short_recording_takes_no_compiler():
    loaded = list_imports(f"import asr; print(asr.load().transcribe({str(ENGLISH[0])!r}).text)")
    assert "asr.search.lexicon_beam_arrays" in loaded
    assert loaded.isdisjoint({"torch", "numba", "llvmlite", "scipy"})


def test_importing_the_package_is_cheap():
    loaded = list_imports("import asr; asr.load, asr.UserError, asr.__version__")
    assert {name for name in loaded if name.startswith("asr")} == {"asr", "asr.errors", "asr.pretrained"}
    assert loaded.isdisjoint({"torch", "numpy", "soundfile", "numba", "click"})


def test_the_program_in_the_readme_runs(monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(program, {})
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert " ".join(text for _, _, text, _ in rows) == asr.load().transcribe(ENGLISH[0]).text
    assert all(float(start) < float(end) for start, end, _, _ in rows)
    assert all(0 < float(confidence) <= 1 for *_, confidence in rows)


def test_paths_bytes_and_open_files_are_transcribed(model):
    path = SAMPLES[2]
    with path.open("rb") as file:
        assert {model.transcribe(source).text for source in (path, str(path), path.read_bytes(), file)} == {
            SAID[2]
        }
    hypotheses = model.transcribe_samples([read_audio(path, model.sample_rate) for path in SAMPLES])
    assert [hypothesis.text for hypothesis in hypotheses] == SAID


def test_alternatives_are_the_best_texts_best_first(model):
    assert [found.text for found in model.alternatives(SAMPLES[2], 5)] == [SAID[2]]  # greedy
    searching = asr.load("digits", device="cpu", beam_size=50)
    found = searching.alternatives(SAMPLES[2], 5)
    assert len({hypothesis.text for hypothesis in found}) == 5
    assert found[0].text == SAID[2]
    scores = [hypothesis.score for hypothesis in found]
    assert scores == sorted(scores, reverse=True)


def test_many_recordings_give_the_same_as_one_by_one_in_order(model):
    sources = [*SAMPLES, *reversed(SAMPLES)] * 3
    together = list(model.transcribe_all(sources))
    for source, transcript in zip(sources, together, strict=True):
        alone = model.transcribe(source)
        assert (transcript.audio, transcript.text) == (str(source), alone.text)
        assert transcript.duration == alone.duration
        found = [word for segment in transcript.segments for word in segment.words]
        expected = [word for segment in alone.segments for word in segment.words]
        assert [(word.start, word.end) for word in found] == [(word.start, word.end) for word in expected]
        np.testing.assert_allclose([w.confidence for w in found], [w.confidence for w in expected], atol=1e-5)


def test_batches_give_the_same_as_one_by_one(model):
    samples = [read_audio(path, model.sample_rate) for path in SAMPLES]
    batches = [*([one] for one in samples), samples]
    expected = [next(model.log_probs([batch])) for batch in batches]
    for arrays, wanted in zip(model.log_probs(batches), expected, strict=True):
        for array, rows in zip(arrays, wanted, strict=True):
            np.testing.assert_allclose(array, rows, atol=1e-4)


def test_recordings_are_read_only_when_needed(model):
    read = []

    def sources():
        for path in SAMPLES * 100:
            read.append(path)
            yield path

    transcripts = model.transcribe_all(sources())
    assert not read
    assert next(transcripts).text == SAID[0]
    assert len(read) <= 4 * POOL * LongformConfig.batch_size < 300


def test_an_unreadable_recording_is_named(model, tmp_path):
    (tmp_path / "x.wav").write_text("not audio")
    with pytest.raises(asr.UserError, match=r"x\.wav: "):
        list(model.transcribe_all([SAMPLES[0], tmp_path / "x.wav"]))
    with pytest.raises(asr.UserError, match=r"x\.wav: "):
        model.transcribe(tmp_path / "x.wav")


def test_arguments_of_the_wrong_type_are_refused(model):
    with pytest.raises(TypeError, match=r"ndarray is no recording: .* transcribe_samples"):
        next(model.transcribe_all([np.zeros(16000, np.float32)]))
    with pytest.raises(asr.UserError, match="rate in hertz"):
        model.transcribe(np.zeros(16000, np.float32))
    with pytest.raises(TypeError, match="takes a list of recordings"):
        list(model.transcribe_all(str(SAMPLES[0])))


def test_threads_can_share_a_model():
    models = [
        asr.load("digits", device="cpu"),
        asr.load("digits", device="cpu", beam_size=4, hotwords=["Eight"]),
    ]
    for model in models:
        expected = {path: model.transcribe(path) for path in SAMPLES}
        with ThreadPoolExecutor(8) as pool:
            work = SAMPLES * 16
            assert list(pool.map(model.transcribe, work)) == [expected[path] for path in work]


def test_the_search_is_the_one_of_the_command_line():
    assert asr.load("digits", device="cpu").decoder is None
    model = asr.load("digits", device="cpu", beam_size=3, hotwords=["Three, Zero"], hotword_weight=2)
    assert model.decoder is not None
    assert (model.decoder.config.beam_size, model.decoder.config.hotword_weight) == (3, 2.0)
    assert model.transcribe(SAMPLES[2]).text == SAID[2]
    assert model.decoder.description["phrases"] == ["three zero"]
    several = asr.load("digits", device="cpu", beam_size=3, hotwords="Three, Zero").decoder
    assert several is not None
    assert several.description["phrases"] == ["three", "zero"]
    assert asr.load("digits", device="cpu", lm="none").decoder is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model": "nothing"}, "nothing"), ({"beam_sise": 3}, "'beam_size'"), ({"beam_size": 0}, "beam_size"),
        ({"lm": "no.arpa"}, r"no\.arpa"), ({"device": "tpu"}, "tpu"), ({"beam_size": "4"}, "whole number"),
        ({"hotwords": ["eight", "Jackson"]}, "'jackson' cannot be written with this model's pieces"),
    ],
)  # fmt: skip
def test_mistakes_raise_a_user_error_of_one_line(arguments, named):
    with pytest.raises(asr.UserError, match=named) as failure:
        asr.load(**({"model": "digits", "device": "cpu"} | arguments))
    assert "\n" not in str(failure.value)
