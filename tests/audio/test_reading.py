"""Reading audio: formats, rates, stretches, and everything that can be wrong with a file."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.audio import reading as audio
from asr.audio.reading import AudioError, measure_duration, read_audio, read_stated_duration, stream_audio
from asr.audio.resampling import resample
from asr.audio.sources import WindowFile, guard_library, open_source

# Container, encoding, how far a sample may be off.
FORMATS = [
    ("WAV", "PCM_U8", 2e-2), ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-6), ("WAV", "PCM_32", 1e-6),
    ("WAV", "FLOAT", 1e-7), ("WAV", "DOUBLE", 1e-7), ("WAV", "ULAW", 2e-2), ("WAVEX", "PCM_16", 1e-4),
    ("WAVEX", "FLOAT", 1e-7), ("FLAC", "PCM_16", 1e-4), ("FLAC", "PCM_24", 1e-6),
    ("OGG", "VORBIS", 5e-2), ("OGG", "OPUS", 5e-2), ("MP3", "MPEG_LAYER_III", 7e-2),
    ("AIFF", "PCM_16", 1e-4), ("AU", "ULAW", 2e-2), ("NIST", "PCM_16", 1e-4),
]  # fmt: skip
IDS = [f"{kind}-{subtype}" for kind, subtype, _ in FORMATS]
CODECS = [(kind, subtype) for kind, subtype, _ in FORMATS]
every_codec = pytest.mark.parametrize(("kind", "subtype"), CODECS, ids=IDS)


def tone(hertz: float = 440.0, rate: int = 16000, seconds: float = 1.0, channels: int = 1) -> np.ndarray:
    samples = 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)
    return np.repeat(samples[:, None], channels, axis=1).astype(np.float32)


def noise(seconds: float, rate: int = 16000) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(int(rate * seconds))


def encode(samples: np.ndarray, kind: str, subtype: str, rate: int = 16000, **options: object) -> bytes:
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, subtype, format=kind, **options) as sound:
        sound.write(samples)
    return buffer.getvalue()


ID3 = b"ID3\4\0\0\0\0\x20\0" + bytes(4096)  # a tag, as a picture before an MP3 would be


def wav(samples: np.ndarray, rate: int = 16000, subtype: str = "PCM_16") -> bytes:
    return encode(samples, "WAV", subtype, rate)


def mp3(samples: np.ndarray, mode: str = "CONSTANT") -> bytes:
    """At a middling bit rate: at the highest, frames borrow no bits from those before them."""
    return encode(samples, "MP3", "MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.7)


def three_seconds(kind: str, subtype: str) -> bytes:
    """A recording in which the decoder needs what came before, as far as the format knows of that."""
    if subtype == "OPUS":
        return encode(tone(seconds=3.0), kind, subtype, compression_level=1.0)
    return mp3(noise(3)) if kind == "MP3" else encode(noise(3), kind, subtype)


def without_xing_header(content: bytes) -> bytes:
    assert b"Xing" in content[:64] or b"Info" in content[:64]
    return content[content.index(content[:2], 4) :]


FLAC = encode(tone(), "FLAC", "PCM_16")


def patch(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


# --- what comes out of a whole file ---------------------------------------------------------------


@pytest.mark.parametrize(("kind", "subtype", "tolerance"), FORMATS, ids=IDS)
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_every_format_gives_the_samples_back(tmp_path, kind, subtype, tolerance, rate):
    content = encode(tone(rate=rate, channels=2), kind, subtype, rate)
    path = tmp_path / "recording.raw"  # the name does not matter
    path.write_bytes(content)
    for source in (path, str(path), content):
        samples = read_audio(source, rate)
        assert samples.dtype == np.float32
        assert samples.shape == (rate,)
        edge = rate // 20  # lossy formats blur the edges
        np.testing.assert_allclose(samples[edge:-edge], tone(rate=rate)[edge:-edge, 0], atol=tolerance)
        assert measure_duration(source) == 1.0


@pytest.mark.parametrize("ending", ["wav", "mp3", "vox", "gsm", "au", "txt", "RAW", ""])
@every_codec
def test_the_name_does_not_matter(tmp_path, kind, subtype, ending):
    content = encode(tone(seconds=0.1), kind, subtype)
    path = tmp_path / f"recording.{ending}"
    path.write_bytes(content)
    np.testing.assert_array_equal(read_audio(path), read_audio(content))


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_resampling_keeps_pitch_loudness_and_length(rate):
    samples = read_audio(wav(tone(1000, rate), rate), 16000)
    assert len(samples) == pytest.approx(16000, abs=1)
    spectrum = np.abs(np.fft.rfft(samples[1000:15000] * np.hanning(14000)))
    assert np.argmax(spectrum) * 16000 / 14000 == pytest.approx(1000, abs=1.2)
    assert np.abs(samples[2000:14000]).max() == pytest.approx(0.5, abs=0.01)


def test_resampling_down_leaves_out_what_would_fold_back():
    samples = read_audio(wav(tone(7000, 16000)), 8000)
    assert np.abs(samples[500:-500]).max() < 0.01


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_are_averaged(channels):
    levels = np.arange(1, channels + 1, dtype=np.float32) / channels
    samples = read_audio(wav(tone(channels=channels) * levels, subtype="FLOAT"))
    np.testing.assert_allclose(samples, tone()[:, 0] * levels.mean(), atol=1e-6)


@every_codec
def test_reading_in_blocks_changes_nothing(monkeypatch, kind, subtype):
    # soundfile seeks after every read; in an MP3 that gave wrong samples after each block.
    content = three_seconds(kind, subtype)
    whole = read_audio(content)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 1000)
    np.testing.assert_array_equal(read_audio(content), whole)


def test_single_samples_that_are_no_sound_become_zero():
    samples = tone()
    samples[[100, 200, 300, 400], 0] = np.nan, np.inf, -np.inf, 1e30
    out = read_audio(wav(samples, subtype="FLOAT"))
    expected = tone()[:, 0]
    expected[[100, 200, 300, 400]] = 0
    np.testing.assert_array_equal(out, expected)
    assert np.isfinite(read_audio(wav(samples, subtype="FLOAT"), 8000)).all()


def test_a_program_without_soundfile_can_import_the_module():
    program = "import sys; sys.modules['soundfile'] = sys.modules['soxr'] = None; import asr.audio.reading"
    subprocess.run([sys.executable, "-c", program], check=True)


# --- stretches ------------------------------------------------------------------------------------


@every_codec
def test_a_stretch_is_a_slice(kind, subtype):
    content = three_seconds(kind, subtype)
    whole = read_audio(content)
    for start, seconds in [(0.0, 0.5), (0.25, 1.0), (1.0, 2.0), (1.00003, 0.1), (2.9, 0.1)]:
        first, last = round(start * 16000), round((start + seconds) * 16000)
        np.testing.assert_array_equal(read_audio(content, 16000, start, seconds), whole[first:last])
    np.testing.assert_array_equal(read_audio(content, 16000, 2.0), whole[32000:])


def test_a_stretch_is_cut_before_resampling():
    content = wav(noise(2, 8000), 8000)
    stretch = read_audio(content, 8000, 0.5, 1.0)
    np.testing.assert_array_equal(read_audio(content, 16000, 0.5, 1.0), resample(stretch, 8000, 16000))


@pytest.mark.parametrize(("start", "seconds"), [(0.5, 0.5999), (0.96, 0.13), (0.0, 1.0999)])
@every_codec
def test_a_stretch_may_end_a_little_late(kind, subtype, start, seconds):
    samples = read_audio(encode(tone(), kind, subtype), 16000, start, seconds)
    assert len(samples) == round(16000 * (1 - start))


@pytest.mark.parametrize(
    ("start", "seconds", "says"),
    [
        (0.5, 0.61, "ends 0.11 seconds before"), (0.0, 1.1, "ends 0.10 seconds before"),
        (0.0, 1e8, "ends"), (1.0, None, "no samples after 1 seconds"), (1.0, 0.01, "no samples after 1 "),
        (7.5, 1.0, "no samples after 7.5"), (-0.1, None, "from second -0.1"), (1e308, None, "from second"),
        (float("nan"), None, "from second nan"), (0.0, 0.0, "no stretch of 0 "),
        (0.0, -1.0, "no stretch of -1"), (0.0, float("inf"), "no stretch of inf"), (0.0, 1e-9, "no samples"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("kind", "subtype"), [CODECS[1], CODECS[9], CODECS[12], CODECS[13]])
def test_a_stretch_beyond_the_recording_is_an_error(kind, subtype, start, seconds, says):
    with pytest.raises(AudioError, match=says):
        read_audio(encode(tone(), kind, subtype), 16000, start, seconds)


# --- in blocks ------------------------------------------------------------------------------------


@every_codec
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_blocks_together_are_the_recording(monkeypatch, kind, subtype, rate):
    content = encode(np.stack([noise(2), tone(seconds=2)[:, 0]], axis=1), kind, subtype)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 7000)
    blocks = list(stream_audio(content, rate))
    assert len(blocks) > 8
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(content, rate))


def test_a_fault_at_the_end_shows_only_there(monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 7000)
    content = encode(noise(3), "FLAC", "PCM_16")
    blocks = stream_audio(content[: len(content) // 2])
    assert len(next(blocks)) == 7000
    with pytest.raises(AudioError, match=r"audio bytes: is .*truncated"):
        list(blocks)


def test_samples_that_are_not_finite_are_silent_in_blocks_too(monkeypatch):
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 1000)
    samples = tone()[:, 0]
    samples[:3000], samples[9000] = np.nan, np.inf
    content = wav(samples, subtype="FLOAT")
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(content))), read_audio(content))
    with pytest.raises(AudioError, match="none of its samples is a finite number"):
        list(stream_audio(wav(np.full(5000, np.nan), subtype="FLOAT")))
    with pytest.raises(AudioError, match="holds no samples"):
        list(stream_audio(wav(tone()[:0])))


# --- truncated files ------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
@every_codec
def test_a_truncated_file_is_an_error_that_says_so(tmp_path, kind, subtype, share):
    content = encode(noise(3), kind, subtype)
    assert len(read_audio(content)) == 48000
    cut = content[: int(share * len(content))]
    path = tmp_path / "cut.audio"
    path.write_bytes(cut)
    for source, name in ((path, r"cut\.audio"), (cut, "audio bytes")):
        with pytest.raises(AudioError, match=f"{name}: .*truncated"):
            read_audio(source)


@pytest.mark.parametrize(("kind", "subtype"), [codec for codec in CODECS if codec[0] != "MP3"])
def test_the_last_byte_counts(kind, subtype):
    with pytest.raises(AudioError, match="truncated"):
        read_audio(encode(noise(1), kind, subtype)[:-1])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_without_its_last_pages_is_truncated(subtype):
    content = encode(noise(5), "OGG", subtype)
    pages = [place for place in range(len(content)) if content.startswith(b"OggS", place)]
    assert len(pages) > 4
    for place in [pages[-1] + place for place in range(1, 30)]:
        for function in (read_audio, measure_duration):
            with pytest.raises(AudioError, match="truncated"):
                function(content[:place])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_without_a_mark_at_its_end_is_read(subtype):
    """Recorders of telephones leave it out; so does who cuts between two pages, which nobody can know."""
    content = encode(noise(5), "OGG", subtype)
    last = content.rindex(b"OggS")
    unmarked = patch(content, last + 5, bytes([content[last + 5] & ~4]))
    notes: list[str] = []
    samples = np.concatenate(list(stream_audio(unmarked, remark=notes.append)))
    np.testing.assert_array_equal(samples, read_audio(content))
    assert "no mark at its end" in notes[0]
    assert 16000 < len(read_audio(content[:last])) < len(samples)


def test_pages_that_are_missing_are_told():
    content = encode(noise(5), "OGG", "OPUS")
    pages = [place for place in range(len(content)) if content.startswith(b"OggS", place)]
    for damaged in (content[: pages[3]] + content[pages[4] :], patch(content, pages[3], b"Oggz")):
        with pytest.raises(AudioError, match="pages are missing in 1 place"):
            read_audio(damaged)


def test_a_truncated_file_still_gives_the_stretches_it_holds():
    content = encode(noise(3), "FLAC", "PCM_16")
    half = content[: len(content) // 2]
    np.testing.assert_array_equal(read_audio(half, 16000, 0.5, 0.25), read_audio(content)[8000:12000])
    with pytest.raises(AudioError, match="truncated"):
        read_audio(half, 16000, 1.0, 1.0)


@pytest.mark.parametrize("place", [-1, -(2**40), 2**63 - 1, 2**63, 2**70])
def test_an_impossible_place_is_the_end(tmp_path, place):
    # Libraries go there in damaged files, and print the exception they get with its traceback.
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    with path.open("rb") as stream:
        for source in (path, b"0123456789", stream):
            with open_source(source) as raw:
                file = WindowFile(raw, 0, 10)
                file.seek(3)
                for whence in (io.SEEK_SET, io.SEEK_CUR):
                    assert file.seek(place, whence) >= 0
                assert file.seek(place) >= 10
                assert file.read(5) == b""
                assert file.seek(-4, io.SEEK_END) == 6
                assert file.read(2) == b"67"


# --- headers that do not tell the length, or tell it wrong ----------------------------------------


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("riff_length", [0, 8, 36, 0x7FFFF024, 0xFFFFFFFF])
def test_wav_from_a_pipe_is_read_to_its_end(tmp_path, length, riff_length):
    content = wav(tone())
    content = patch(content, content.index(b"data") + 4, struct.pack("<I", length))
    content = patch(content, 4, struct.pack("<I", riff_length))
    path = tmp_path / "pipe.wav"
    path.write_bytes(content)
    for source in (content, path):
        np.testing.assert_array_equal(read_audio(source), read_audio(wav(tone())))
        np.testing.assert_array_equal(read_audio(source, 16000, 0.5), read_audio(wav(tone()))[8000:])
        assert measure_duration(source) == 1.0


@pytest.mark.parametrize("length", [32002, 40000, 0x7FFE0000, 0x90000000, 0xF0000000])
def test_wav_of_another_length_that_is_not_there_is_truncated(length):
    content = wav(tone())
    content = patch(content, content.index(b"data") + 4, struct.pack("<I", length))
    for function in (read_audio, measure_duration):
        with pytest.raises(AudioError, match="truncated"):
            function(content)


def test_chunks_beside_the_samples_are_no_sound():
    content = wav(tone())
    place, extra = content.index(b"data"), b"LIST" + struct.pack("<I", 7) + b"INFOabc\0"
    surrounded = content[:place] + extra + content[place:] + extra
    surrounded = patch(surrounded, 4, struct.pack("<I", len(surrounded) - 8))
    np.testing.assert_array_equal(read_audio(surrounded), read_audio(content))
    empty = content[:place] + b"data\0\0\0\0" + extra
    with pytest.raises(AudioError, match="holds no samples"):
        read_audio(patch(empty, 4, struct.pack("<I", len(empty) - 8)))


def test_au_from_a_pipe_is_read_to_its_end():
    content = encode(tone(), "AU", "PCM_16")
    np.testing.assert_array_equal(read_audio(patch(content, 8, b"\xff" * 4)), read_audio(content))


def test_flac_that_does_not_tell_its_length_is_read_to_its_end():
    content = encode(noise(3), "FLAC", "PCM_16")
    unstated = patch(content, 21, bytes([content[21] & 0xF0]) + bytes(4))  # 36 bits of STREAMINFO
    np.testing.assert_array_equal(read_audio(unstated), read_audio(content))
    np.testing.assert_array_equal(read_audio(unstated, 16000, 2.0, 0.5), read_audio(content)[32000:40000])
    assert measure_duration(unstated) == 3.0
    with pytest.raises(AudioError, match="truncated"):
        read_audio(unstated[: len(unstated) // 2])


@every_codec
def test_a_stated_duration_is_the_whole_one_and_takes_no_decoding(monkeypatch, kind, subtype):
    content = encode(noise(3), kind, subtype)
    monkeypatch.setattr(audio, "decode_blocks", lambda *arguments: pytest.fail("decodes"))
    assert read_stated_duration(content) == 3.0


def test_what_a_header_does_not_state_stays_unknown(monkeypatch):
    flac = encode(noise(3), "FLAC", "PCM_16")
    unstated = patch(flac, 21, bytes([flac[21] & 0xF0]) + bytes(4))
    monkeypatch.setattr(audio, "decode_blocks", lambda *arguments: pytest.fail("decodes"))
    assert read_stated_duration(unstated) is None
    assert read_stated_duration(without_xing_header(mp3(noise(3)))) is None


@pytest.mark.parametrize("before", [b"", ID3], ids=["bare", "tag before"])
@pytest.mark.parametrize("after", [b"", b"TAG" + bytes(125)], ids=["bare", "tag after"])
def test_an_mp3_may_have_tags_and_need_not_tell_its_length(before, after):
    content = mp3(tone(seconds=2.0))
    samples = read_audio(before + content + after)
    np.testing.assert_allclose(samples, read_audio(content), atol=1e-6)
    assert measure_duration(before + content + after) == 2.0
    # Without the header nobody knows of the encoder's padding, and it is sound.
    frames = before + without_xing_header(content) + after
    assert 32000 <= len(read_audio(frames)) <= 32000 + 3 * 576
    assert measure_duration(frames) == len(read_audio(frames)) / 16000


@pytest.mark.parametrize("length", [1, 5, 576, 3000])
def test_the_silence_that_fills_up_an_mp3_is_skipped(monkeypatch, length):
    content = mp3(noise(1)[:length])
    assert len(read_audio(content)) == length
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", length)
    assert len(read_audio(content)) == length


def test_an_mp3_with_a_tag_before_it_is_told_from_a_truncated_one():
    content = ID3 + mp3(noise(1))
    assert len(read_audio(content)) == 16000
    with pytest.raises(AudioError, match=r"truncated: 0\.\d+ of 1\.00 seconds"):
        read_audio(content[: -len(content) // 3])


def test_an_mp3_longer_than_its_header_states_is_not_cut_short():
    loud_then_quiet = np.concatenate([noise(1), np.zeros(48000), noise(1)])
    longer = {
        "variable bit rate, length guessed": without_xing_header(mp3(loud_then_quiet, "VARIABLE")),
        "two in one": mp3(noise(1)) * 2,
    }
    pytest.importorskip("av", reason="PyAV, part of [media], is not installed")
    for seconds, content in zip((5, 2), longer.values(), strict=True):
        assert len(read_audio(content)) == pytest.approx(seconds * 16000, abs=4 * 576)
        assert measure_duration(content) == len(read_audio(content)) / 16000
        assert read_stated_duration(content) is None
    assert len(read_audio(mp3(loud_then_quiet, "VARIABLE"))) == 80000


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_with_two_streams_is_not_cut_short(subtype):
    first, second = (encode(noise(seconds), "OGG", subtype) for seconds in (1, 2))
    joined = np.concatenate([read_audio(first), read_audio(second), read_audio(first)])
    np.testing.assert_array_equal(read_audio(first + second + first), joined)
    assert measure_duration(first + second + first) == 4.0


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16")])
def test_joined_files_are_not_cut_short(kind, subtype):
    first, second = (encode(noise(seconds), kind, subtype) for seconds in (1, 2))
    np.testing.assert_array_equal(
        read_audio(first + second), np.concatenate([read_audio(first), read_audio(second)])
    )
    other = encode(noise(1, 8000), kind, subtype, 8000)
    with pytest.raises(AudioError, match="joined from recordings of several rates"):
        read_audio(first + other)


@pytest.mark.parametrize("before", [b"", ID3, ID3 + ID3], ids=["bare", "tag", "two tags"])
@pytest.mark.parametrize("after", [b"", b"TAG" + bytes(125)], ids=["bare", "tag"])
def test_tags_around_flac_are_no_sound(before, after):
    np.testing.assert_array_equal(read_audio(before + FLAC + after), read_audio(FLAC))


@pytest.mark.parametrize(
    "junk", [b"", bytes(4096), b"some words \xff\xfb and no frame " * 50], ids=["none", "zeros", "words"]
)
def test_junk_before_an_mp3_is_passed_over(junk):
    content = mp3(tone(seconds=2.0))
    assert len(read_audio(ID3 + junk + content)) == 32000


@pytest.mark.parametrize("more", [8, 36, 44])
def test_a_size_that_counts_the_header_is_no_promise(more):
    content = wav(tone())
    place = content.index(b"data") + 4
    np.testing.assert_array_equal(
        read_audio(patch(content, place, struct.pack("<I", 32000 + more))), read_audio(content)
    )


# --- what is missing, told instead of raised ------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.9])
@every_codec
def test_of_a_truncated_file_comes_out_what_is_there(kind, subtype, share):
    content = encode(noise(3), kind, subtype)
    faults: list[str] = []
    samples = np.concatenate(list(stream_audio(content[: int(share * len(content))], report=faults.append)))
    assert 0.25 * share * 48000 < len(samples) < 48000
    assert len(faults) >= 1
    assert "truncated" in faults[0]
    whole = read_audio(content)[: len(samples)]
    if kind not in ("OGG", "MP3"):  # FFmpeg's decoders are others
        np.testing.assert_array_equal(samples, whole)


@pytest.mark.parametrize("channels", [1, 2])
def test_two_channels_that_cancel_each_other_are_heard(channels):
    samples = tone(channels=channels) * np.float32([1, -1][:channels])
    notes: list[str] = []
    mixed = np.concatenate(list(stream_audio(wav(samples), remark=notes.append)))
    np.testing.assert_allclose(mixed, tone()[:, 0], atol=1e-4)
    assert notes == ["has two channels that cancel each other; the second is turned around"][: channels - 1]
    np.testing.assert_array_equal(read_audio(wav(samples)), mixed)


def test_a_channel_can_be_read_alone():
    samples = np.stack([noise(1), tone()[:, 0]], axis=1)
    for channel in (0, 1):
        alone = np.concatenate(list(stream_audio(wav(samples), channel=channel)))
        np.testing.assert_allclose(alone, samples[:, channel], atol=1e-4)
    with pytest.raises(AudioError, match="has no channel 3: it has 2"):
        list(stream_audio(wav(samples), channel=2))


# --- a pipe, a disk that fails, Ctrl-C ------------------------------------------------------------


def test_an_open_pipe_is_read():
    content = wav(tone())
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.stdout.buffer.write({content!r})"], stdout=subprocess.PIPE
    ) as process:
        np.testing.assert_array_equal(read_audio(process.stdout), read_audio(content))


class Failing(io.BytesIO):
    """A file on a disk that fails from byte ``place`` on, or during which Ctrl-C is pressed."""

    def __init__(self, content: bytes, place: int, interrupts: bool) -> None:
        super().__init__(content)
        self.place, self.interrupts = place, interrupts

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() + max(size or 0, 0) > self.place:
            if not self.interrupts:
                raise OSError(5, "Input/output error")
            if self.place:
                signal.raise_signal(signal.SIGINT)
        return super().read(size)


FAILING = [
    ("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("CAF", "PCM_16"),
]  # fmt: skip


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.parametrize(("kind", "subtype"), FAILING)
def test_a_disk_that_fails_is_told_as_that(kind, subtype, share):
    content = encode(noise(20), kind, subtype)
    source = Failing(content, int(share * len(content)), interrupts=False)
    with pytest.raises(AudioError, match="audio stream: cannot be read: Input/output error"):
        list(stream_audio(source, report=lambda fault: None))


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.parametrize(("kind", "subtype"), FAILING)
def test_ctrl_c_while_a_library_reads_is_not_lost(kind, subtype, share):
    content = encode(noise(20), kind, subtype)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs begin without it
    try:
        with pytest.raises(KeyboardInterrupt):
            list(stream_audio(Failing(content, int(share * len(content)), interrupts=True)))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_inside_a_callback_is_raised_behind_it():
    file = WindowFile(Failing(bytes(100), 0, interrupts=False), 0, 100)
    with pytest.raises(OSError, match="Input/output error"), guard_library(file):
        assert file.read(10) == b""


@pytest.mark.parametrize("rate", [0, 1, 999, 1_000_001, 0x7FFFFFFF])
def test_a_rate_that_no_recording_has_is_not_resampled(rate):
    with pytest.raises(AudioError, match="audio bytes: is damaged"):
        read_audio(patch(wav(tone()), 24, struct.pack("<I", rate)))


def test_a_header_that_lies_takes_no_memory_and_no_time():
    content = encode(noise(1), "FLAC", "PCM_16")
    with pytest.raises(AudioError, match=r"truncated: 1\.00 of 4294967\.30 seconds"):
        read_audio(patch(content, 21, bytes([content[21] | 0x0F]) + b"\xff" * 4))
    with pytest.raises(AudioError, match="truncated"):
        read_audio(wav(tone())[:36] + bytes(10_000_000))  # a million empty chunks


# --- everything else that can be wrong ------------------------------------------------------------

FAULTY = {
    "empty.wav": (b"", "is empty"),
    "text.wav": (b"not audio", "is not audio"),
    "text.mp3": (b"not audio at all " * 100, "is not audio"),
    "text.raw": (b"not audio at all " * 100, "is not audio"),
    "text.vox": (b"not audio at all " * 100, "is not audio"),
    "text.au": ("not audio\n".encode("utf-16") * 100, "is not audio"),  # FF FE looks like an MP3
    "zeros.flac": (bytes(5000), "is not audio"),
    "picture.wav": (b"RIFF\x20\0\0\0WEBPVP8 " + bytes(50), "is not audio"),
    "header.wav": (wav(tone())[:20], "truncated"),
    "marks.flac": (b"fLaC" + bytes(100), "damaged"),
    "marks.ogg": (b"OggS" + bytes(100), "truncated"),
    "marks.mp3": (b"ID3\4" + bytes(100), "is not audio"),
    "none.wav": (wav(tone()[:0]), "no samples"),
    "none.ogg": (encode(tone()[:0], "OGG", "VORBIS"), "no samples"),
    "none.flac": (FLAC[:86], "truncated: 0.00 of 1.00 seconds"),
    "nan.wav": (wav(tone() * np.nan, subtype="FLOAT"), "finite"),
    "inf.wav": (wav(tone(channels=2) + np.float32([np.inf, -np.inf]), subtype="FLOAT"), "finite"),
    "packed.sph": (
        b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n".ljust(2048),
        "packed by shorten",
    ),
    "two\nlines.wav": (b"", "is empty"),
}


def check_message(error: AudioError, source: object, says: str) -> None:
    name = str(source) if str(source).isprintable() else repr(str(source))
    assert str(error).startswith(f"{name}: ")
    assert says in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", FAULTY)
def test_the_message_names_the_recording_and_the_fault(tmp_path, name):
    content, says = FAULTY[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError) as raised:
        read_audio(path)
    check_message(raised.value, path, says)
    with pytest.raises(AudioError) as raised:
        read_audio(content)
    check_message(raised.value, "audio bytes", says)


@pytest.mark.parametrize("function", [read_audio, measure_duration, read_stated_duration])
@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("missing.wav", "no such file"), ("missing/missing.wav", "no such file"), (".", "directory"),
        ("", "directory"), (os.devnull, "device"), ("x" * 5000, "cannot be read"),
        ("a\0b.wav", "no file name"),
        ("\ud800.wav", "no file name"), ("http://example.org/a.wav", "URL"), ("s3://a/b.flac", "URL"),
        (Path("https://example.org/a.wav"), "URL"),
    ],
)  # fmt: skip
def test_a_source_that_is_no_file(function, source, says):
    with pytest.raises(AudioError) as raised:
        function(source)
    check_message(raised.value, source, says)


def test_an_open_file_is_named_as_it_names_itself(tmp_path):
    path = tmp_path / "a\nb.wav"
    path.write_bytes(b"no sound")
    with path.open("rb") as file, pytest.raises(AudioError) as raised:
        read_audio(file)
    check_message(raised.value, path, "format")
    nameless = io.BytesIO(b"no sound")
    with pytest.raises(AudioError, match=r"^audio stream: "):
        read_audio(nameless)
    nameless.name = "upload.wav"
    with pytest.raises(AudioError, match=r"^upload\.wav: "):
        read_audio(nameless)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match=r"pipe\.wav: is a directory or a device"):
        read_audio(tmp_path / "pipe.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.wav"
    path.write_bytes(wav(tone()))
    path.chmod(0)
    with pytest.raises(AudioError, match=r"secret\.wav: cannot be read: Permission"):
        read_audio(path)


# --- any bytes at all -----------------------------------------------------------------------------

SMALL = {f"{kind}-{subtype}": encode(noise(0.2), kind, subtype) for kind, subtype in CODECS}
ENDINGS = ["", ".wav", ".raw", ".mp3", ".flac", ".ogg", ".vox", ".gsm", ".au", ".sd2", ".txt"]
HEADS = [b"", b"RIFF\0\0\0\0WAVEfmt ", b"OggS\0\2", b"fLaC\0\0\0\x22", b"ID3\4", b"\xff\xfb\x90"]
fuzzed = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def check_only_audio_errors(source: Path | bytes) -> None:
    for function in (read_audio, measure_duration):
        try:
            result = function(source)
        except AudioError as error:
            check_message(error, source if isinstance(source, Path) else "audio bytes", "")
        else:
            assert np.isfinite(result).all()
            assert np.size(result) > 0
    try:
        stated = read_stated_duration(source)
    except AudioError as error:
        check_message(error, source if isinstance(source, Path) else "audio bytes", "")
    else:
        assert stated is None or 0 <= stated < np.inf


@fuzzed
@given(
    kind=st.sampled_from(sorted(SMALL)),
    flips=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 7)), min_size=1, max_size=12),
    in_header=st.booleans(),
)
def test_flipped_bits_raise_nothing_but_audio_errors(kind, flips, in_header):
    content = bytearray(SMALL[kind])
    for place, bit in flips:
        content[place % (100 if in_header else len(content))] ^= 1 << bit
    check_only_audio_errors(bytes(content))


@fuzzed
@given(head=st.sampled_from(HEADS), body=st.binary(max_size=300), ending=st.sampled_from(ENDINGS))
def test_random_bytes_raise_nothing_but_audio_errors(tmp_path, head, body, ending):
    path = tmp_path / f"random{ending}"
    path.write_bytes(head + body)
    check_only_audio_errors(path)
    check_only_audio_errors(head + body)


# --- HTK ------------------------------------------------------------------------------------------


def write_htk(samples: np.ndarray, rate: int = 16000) -> bytes:
    """Big-endian samples behind count, period in units of 100 ns, bytes of a sample, and kind 0."""
    values = np.round(32767 * samples).astype(">i2")
    return struct.pack(">iihh", len(values), 10_000_000 // rate, 2, 0) + values.tobytes()


def test_recordings_of_htk_are_read_and_what_is_missing_is_told():
    samples = 0.5 * np.sin(np.arange(16000) / 9).astype(np.float32)
    content = write_htk(samples)
    np.testing.assert_allclose(read_audio(content), samples, atol=1e-4)
    assert measure_duration(content) == 1.0
    with pytest.raises(AudioError, match="is truncated: 50% of it is there"):
        read_audio(content[:16013])
    faults: list[str] = []
    blocks = list(stream_audio(content[:16013], 16000, report=faults.append))
    np.testing.assert_allclose(np.concatenate(blocks), samples[:8000], atol=1e-4)
    assert faults == ["is truncated: 50% of it is there"]


def test_features_of_htk_are_no_sound():
    content = struct.pack(">iihh", 100, 100_000, 156, 6 | 0o400) + bytes(100 * 156)
    with pytest.raises(AudioError, match=r"is an HTK file of features \(MFCC\), not of sound"):
        read_audio(content)
    for other in (content[:-1], bytes(100), content[:11], struct.pack(">iihh", -5, 625, 2, 0) + bytes(50)):
        with pytest.raises(AudioError, match="is not audio"):
            read_audio(other)
