"""Decoded samples on disk: the same samples, made once, never those of another manifest."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file

from asr.audio.reading import AudioError, read_audio
from asr.data.cache import (
    ABANDONED,
    CacheError,
    cache_path,
    ensure_sample_cache,
    fingerprint,
    make_cached_reader,
)
from asr.data.manifest import Utterance, read_manifest, write_manifest


@pytest.fixture
def corpus(tmp_path) -> list[Utterance]:
    """Three stretches of two recordings, 16 bits at 8 kHz, the last one of the whole of its recording."""
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", generator.uniform(-1, 1, 8000), 8000, subtype="PCM_16")
    a, b = str(tmp_path / "a.wav"), str(tmp_path / "b.wav")
    return [
        Utterance("1", a, 0.0, 0.25, "x"),
        Utterance("2", a, 0.25, 0.5, "y"),
        Utterance("3", b, 0.0, None, "z"),
    ]


def sample_cache_path(corpus: list[Utterance], folder: Path) -> Path:
    return cache_path(folder, "m", fingerprint(corpus, 8000), 8000)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_samples_of_16_bits_come_back_exactly(corpus, tmp_path):
    write_manifest(tmp_path / "m.jsonl", corpus)
    read = make_cached_reader(tmp_path / "cache", [tmp_path / "m.jsonl"], 8000)
    for utterance in read_manifest(tmp_path / "m.jsonl"):
        expected = read_audio(utterance.audio, 8000, utterance.start, utterance.duration)
        samples = read(utterance)
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, expected)


def test_others_are_rounded_and_clipped(tmp_path):
    loud = np.array([0.5, 1.5, -1.5, 0.3], np.float32)
    soundfile.write(tmp_path / "loud.wav", loud, 8000, subtype="FLOAT")
    cache = ensure_sample_cache(tmp_path, "m", [Utterance("1", str(tmp_path / "loud.wav"))], 8000)
    np.testing.assert_allclose(cache[0], [0.5, 1 - 2**-15, -1, 0.3], atol=2**-16)


def test_samples_are_those_of_the_rate(corpus, tmp_path):
    cache = ensure_sample_cache(tmp_path / "cache", "m", corpus, 16000)
    np.testing.assert_allclose(cache[2], read_audio(corpus[2].audio, 16000).clip(-1, 1 - 2**-15), atol=2**-16)
    assert len(cache[1]) == 8000


def test_a_cache_is_made_once(corpus, tmp_path):
    folder = tmp_path / "cache"
    ensure_sample_cache(folder, "m", corpus, 8000)
    (path,) = files(folder)
    before = path.stat().st_mtime_ns
    for file in ("a.wav", "b.wav"):
        (tmp_path / file).unlink()
    ensure_sample_cache(folder, "m", corpus, 8000)
    assert path.stat().st_mtime_ns == before


def test_a_corpus_that_moved_and_new_texts_keep_their_cache(corpus, tmp_path):
    folder = tmp_path / "cache"
    ensure_sample_cache(folder, "m", corpus, 8000)
    moved = [replace(u, audio=f"/elsewhere/{Path(u.audio).name}", text="other") for u in corpus]
    np.testing.assert_array_equal(
        ensure_sample_cache(folder, "m", moved, 8000)[1], ensure_sample_cache(folder, "m", corpus, 8000)[1]
    )
    assert len(files(folder)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda us: us[:2],
        lambda us: us[::-1],
        lambda us: [replace(us[0], start=0.125), *us[1:]],
        lambda us: [replace(us[0], duration=0.125), *us[1:]],
        lambda us: [replace(us[0], audio=us[2].audio), *us[1:]],
    ],
)
def test_another_manifest_has_another_cache(corpus, tmp_path, change):
    folder = tmp_path / "cache"
    ensure_sample_cache(folder, "m", corpus, 8000)
    changed = change(corpus)
    cache = ensure_sample_cache(folder, "m", changed, 8000)
    assert len(files(folder)) == 2
    for index, utterance in enumerate(changed):
        expected = read_audio(utterance.audio, 8000, utterance.start, utterance.duration)
        np.testing.assert_array_equal(cache[index], expected)


def test_other_programs_can_read_it(corpus, tmp_path):
    cache = ensure_sample_cache(tmp_path / "cache", "m", corpus, 8000)
    (path,) = files(tmp_path / "cache")
    tensors = load_file(path)
    np.testing.assert_array_equal(tensors["ends"], [2000, 6000, 14000])
    np.testing.assert_array_equal(tensors["samples"][2000:6000], (cache[1] * 32768).astype(np.int16))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-2],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[1, 2]".ljust(1016) + data[1024:],
        lambda data: data.replace(b'"ends"', b'"bend"'),
        lambda data: data[:-24] + data[-8:] + data[-16:-8] + data[-24:-16],  # ends that fall
        lambda data: data.replace(data[data.index(b"fingerprint") + 15 :][:8], b"00000000"),
    ],
)
def test_a_damaged_cache_is_named(corpus, tmp_path, spoil):
    ensure_sample_cache(tmp_path / "cache", "m", corpus, 8000)
    (path,) = files(tmp_path / "cache")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CacheError, match=r"m-8000-.*\.safetensors: is damaged"):
        ensure_sample_cache(tmp_path / "cache", "m", corpus, 8000)


def test_a_recording_that_cannot_be_read_leaves_nothing_behind(corpus, tmp_path):
    os.truncate(corpus[2].audio, 1000)
    with pytest.raises(AudioError, match=r"b\.wav"):
        ensure_sample_cache(tmp_path / "cache", "m", corpus, 8000)
    assert files(tmp_path / "cache") == []


def test_what_a_killed_run_left_is_deleted_and_what_another_one_makes_is_not(corpus, tmp_path):
    """A file that a live run is writing was written to just now, a killed run's was not."""
    path = sample_cache_path(corpus, tmp_path)
    left, made = (path.with_name(f".{path.stem}-{mark}.safetensors") for mark in ("left1234", "made1234"))
    for unfinished in (left, made):
        unfinished.write_bytes(b"unfinished")
    os.utime(left, (time.time() - ABANDONED - 60,) * 2)
    ensure_sample_cache(tmp_path, "m", corpus, 8000)
    assert path.exists()
    assert made.exists()
    assert not left.exists()


def test_where_no_audio_can_be_decoded_a_missing_cache_is_one_clear_line(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(CacheError, match=r"m-8000-.*soundfile is missing.*copy the folder"):
        ensure_sample_cache(tmp_path / "cache", "m", corpus, 8000)


def test_an_empty_manifest_has_an_empty_cache(tmp_path):
    assert len(ensure_sample_cache(tmp_path, "m", [], 8000).ends) == 0
    assert len(ensure_sample_cache(tmp_path, "m", [], 8000).ends) == 0
