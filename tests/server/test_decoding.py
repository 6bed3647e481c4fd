"""Uploads are decoded by processes that may die."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from asr.audio.reading import read_audio, stream_audio
from asr.audio.vad import detect_speech
from asr.server.decode_worker import decode_upload
from asr.server.decoding import DecoderPool, DecodingError
from asr.server.settings import ServerSettings
from tests.server.test_transcriptions import DIGITS


@pytest.fixture
def pool():
    deaths: list[int] = []
    pool = DecoderPool(ServerSettings(decoders=1, decode_seconds=2.0), lambda: deaths.append(1))
    pool.deaths = deaths
    yield pool
    pool.close()


def decode(pool: DecoderPool, upload: object, folder: object, longest: float = 60.0) -> float:
    with pool.lend() as worker:
        return worker.decode(upload, folder / "samples.wav", folder / "flags", 8000, longest)


def test_the_samples_are_those_that_transcribe_reads(pool, tmp_path):
    assert decode(pool, DIGITS, tmp_path) == pytest.approx(3.57, abs=0.01)
    assert np.array_equal(read_audio(tmp_path / "samples.wav", 8000), read_audio(DIGITS, 8000))


def test_speech_is_found_where_transcribe_finds_it(pool, tmp_path, monkeypatch):
    decode(pool, DIGITS, tmp_path)
    flags = np.fromfile(tmp_path / "flags", np.uint8) > 0
    blocks = list(detect_speech(stream_audio(DIGITS, 8000), 8000))
    assert np.array_equal(flags, np.concatenate([decided for _, decided in blocks]))
    assert 0 < flags.sum() < len(flags)
    monkeypatch.setattr("asr.server.decode_worker.JUDGED_SECONDS", 3.0)
    other = tmp_path / "others"
    assert decode_upload(DIGITS, tmp_path / "again.wav", other, 8000, 60.0) == pytest.approx(3.57, abs=0.01)
    assert not other.exists()


def test_what_cannot_be_read_is_named_without_its_path(pool, tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(b"nothing")
    with pytest.raises(DecodingError, match=r"^is not audio"):
        decode(pool, upload, tmp_path)
    with pytest.raises(DecodingError, match=r"^lasts longer than 2 seconds"):
        decode(pool, DIGITS, tmp_path, longest=2.0)
    assert not pool.deaths


def test_a_process_that_dies_is_replaced(pool, tmp_path):
    with pool.lend() as worker:
        decode_first = worker.decode(DIGITS, tmp_path / "samples.wav", tmp_path / "flags", 8000, 60.0)
        os.kill(worker.process.pid, signal.SIGKILL)
        with pytest.raises(DecodingError, match="damaged"):
            worker.decode(DIGITS, tmp_path / "samples.wav", tmp_path / "flags", 8000, 60.0)
    assert pool.deaths == [1]
    assert decode(pool, DIGITS, tmp_path) == decode_first


def test_a_file_that_takes_too_long_is_given_up(pool, tmp_path):
    with pool.lend() as worker:
        worker.decode(DIGITS, tmp_path / "samples.wav", tmp_path / "flags", 8000, 60.0)
        os.kill(worker.process.pid, signal.SIGSTOP)  # as if it never came to an end
        with pytest.raises(DecodingError, match="takes longer than 2 s to read"):
            worker.decode(DIGITS, tmp_path / "samples.wav", tmp_path / "flags", 8000, 60.0)
    assert pool.deaths == [1]
    assert decode(pool, DIGITS, tmp_path) > 3
