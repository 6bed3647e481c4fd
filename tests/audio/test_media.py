"""Containers that soundfile does not know: through PyAV, and through a program that plays ffmpeg."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from asr.audio import media
from asr.audio.integrity import BEGINNINGS, measure_mp3_frame
from asr.audio.reading import AudioError, measure_duration, read_audio, read_stated_duration
from asr.audio.resampling import resample
from asr.cli import cli

SEVEN = Path(__file__).parents[2] / "samples" / "digit-7-jackson.flac"
# Container, codec, rate: what phones, browsers, cameras and Windows write.
KINDS = [
    ("ipod", "aac", 16000), ("mp4", "aac", 44100), ("mov", "pcm_s16le", 16000), ("adts", "aac", 16000),
    ("matroska", "aac", 16000), ("webm", "libopus", 48000), ("asf", "wmav2", 44100),
]  # fmt: skip
IDS = [f"{container}-{codec}" for container, codec, _ in KINDS]
every_kind = pytest.mark.parametrize(("container", "codec", "rate"), KINDS, ids=IDS)


def tone(rate: int, seconds: float = 2.0, channels: int = 1) -> np.ndarray:
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)
    return np.repeat(samples[None], channels, axis=0).astype(np.float32)


def encode(samples: np.ndarray, container: str, codec: str, rate: int, picture: bool = False) -> bytes:
    """``(channels, samples)`` in a container, on wish with a track of pictures before the sound."""
    av = pytest.importorskip("av", reason="PyAV, part of [media], is not installed")
    buffer = io.BytesIO()
    layout = "mono" if len(samples) == 1 else "stereo"
    with av.open(buffer, "w", format=container) as file:
        screen = file.add_stream("mpeg4", rate=25) if picture else None
        track = file.add_stream(codec, rate=rate, layout=layout, bit_rate=64000) if samples.size else None
        if screen is not None:
            screen.width, screen.height, screen.pix_fmt = 32, 32, "yuv420p"
            for number in range(25):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                image.pts, image.time_base = number, Fraction(1, 25)
                file.mux(screen.encode(image))
            file.mux(screen.encode(None))
        if track is not None:
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            resampler = av.AudioResampler(format=track.codec_context.format, layout=layout, rate=rate)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(track.encode(part))
            file.mux(track.encode(None))
    return buffer.getvalue()


# --- PyAV -----------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_gives_the_tone_back(tmp_path, container, codec, rate, channels):
    content = encode(tone(rate, channels=channels), container, codec, rate)
    path = tmp_path / "recording.wav"  # the name does not matter
    path.write_bytes(content)
    samples = read_audio(path, rate)
    assert samples.dtype == np.float32
    assert 2.0 - 0.01 <= len(samples) / rate < 2.0 + 0.15  # encoders fill up, and some say by how much
    middle = samples[rate // 2 : rate // 2 + rate]
    spectrum = np.abs(np.fft.rfft(middle)) / len(middle) * 2
    assert spectrum.argmax() == 440
    assert spectrum[440] == pytest.approx(0.5, abs=0.03)
    assert measure_duration(content) == len(samples) / rate
    np.testing.assert_array_equal(read_audio(io.BytesIO(content), rate), samples)
    np.testing.assert_array_equal(read_audio(content, rate, 0.5, 0.25), samples[rate // 2 :][: rate // 4])


@every_kind
def test_what_a_container_states_is_read_without_decoding(monkeypatch, container, codec, rate):
    content = encode(tone(rate), container, codec, rate)
    monkeypatch.setattr(media.Decoder, "decode_frames", lambda decoder: pytest.fail("decodes"))
    stated = read_stated_duration(content)
    assert stated is None if container == "adts" else stated == pytest.approx(2.0, abs=0.15)


@every_kind
def test_channels_are_averaged(container, codec, rate):
    left = tone(rate, channels=2) * np.array([[1], [0]], np.float32)
    samples = read_audio(encode(left, container, codec, rate), rate)
    assert np.abs(samples[rate // 2 : -rate // 2]).max() == pytest.approx(0.25, abs=0.05)


def test_the_sound_of_a_film_is_read_and_a_silent_film_has_none():
    film = encode(tone(16000), "mp4", "aac", 16000, picture=True)
    assert len(read_audio(film)) == pytest.approx(32000, abs=2400)
    with pytest.raises(AudioError, match="holds no sound"):
        read_audio(encode(np.zeros((1, 0), np.float32), "mp4", "aac", 16000, picture=True))


@every_kind
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7])
def test_a_truncated_file_is_named(container, codec, rate, share):
    content = encode(tone(rate, seconds=3.0), container, codec, rate)
    with pytest.raises(AudioError, match=r"audio bytes: (is (damaged(,| or) )?truncated|holds no)"):
        read_audio(content[: int(share * len(content))])


def test_aac_and_mp3_are_told_apart():
    for second in range(256):
        beginning = bytes([0xFF, second]) + bytes(14)
        layer, synchronised = second >> 1 & 3, second >= 0xF0  # MPEG 2.5, which MP3 may be, has one bit less
        assert bool(re.match(BEGINNINGS["AAC"], beginning)) == (synchronised and layer == 0)
        assert not (synchronised and layer == 0 and measure_mp3_frame(beginning))
    aac = encode(tone(16000), "adts", "aac", 16000)
    tag = b"ID3\4\0\0\0\0\x20\0" + bytes(4096)  # as radio streams have it
    np.testing.assert_array_equal(read_audio(tag + aac), read_audio(aac))


@pytest.mark.parametrize("content", [b"#EXTM3U\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile x.wav\n"])
def test_what_names_other_files_is_not_read(tmp_path, content):
    (tmp_path / "x.m4a").write_bytes(content)
    with pytest.raises(AudioError, match=r"x\.m4a: is not audio in a format that can be read"):
        read_audio(tmp_path / "x.m4a")


def test_a_memo_of_a_phone_is_transcribed(tmp_path, capfd):
    samples, rate = soundfile.read(SEVEN, dtype="float32")
    wide = resample(samples, rate, 16000)
    (tmp_path / "memo.m4a").write_bytes(encode(wide[None], "ipod", "aac", 16000))
    assert CliRunner().invoke(cli, ["transcribe", "--model", "digits", str(tmp_path)]).stdout == "seven\n"
    assert capfd.readouterr().err == ""  # FFmpeg keeps its remarks to itself


# --- ffmpeg ---------------------------------------------------------------------------------------

PLAYED = f"""#!{sys.executable}
import json, pathlib, struct, sys, time
here = pathlib.Path(__file__).parent
source = sys.argv[sys.argv.index("-i") + 1].removeprefix("file:")
told = {{"arguments": sys.argv[1:], "content": pathlib.Path(source).read_bytes().hex()}}
(here / "told.json").write_text(json.dumps(told))
exec((here / "plays.py").read_text())
"""
STEREO = """
sys.stdout.buffer.write(b".snd" + struct.pack(">5I", 32, 0xFFFFFFFF, 6, 16000, 2) + bytes(8))
sys.stdout.buffer.write(struct.pack(">2f", 0.5, 0.25) * 40000)
"""
MEMO = b"\0\0\0\x1cftypM4A " + bytes(100)


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch) -> Path:
    """A folder with a program that plays ffmpeg, the only one on the path, where PyAV is not installed."""
    if sys.platform == "win32":
        pytest.skip("a script is no program on Windows")
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(PLAYED)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setitem(sys.modules, "av", None)
    return program.parent


def plays(folder: Path, program: str) -> None:
    (folder / "plays.py").write_text(program)


def test_an_installed_ffmpeg_is_used(ffmpeg, tmp_path):
    plays(ffmpeg, STEREO)
    path = tmp_path / "-y $(touch x); memo.m4a"
    path.write_bytes(MEMO)
    samples = read_audio(path)
    np.testing.assert_array_equal(samples, np.full(40000, 0.375, np.float32))
    assert len(read_audio(MEMO, 16000, 0.5, 0.5)) == 8000
    told = json.loads((ffmpeg / "told.json").read_text())
    assert bytes.fromhex(told["content"]) == MEMO
    arguments = told["arguments"]
    assert "touch" not in " ".join(arguments)
    assert "-protocol_whitelist file -max_pixels 1048576 -f mov -i file:/" in " ".join(arguments)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("sys.exit('moov atom not found\\nmore')", "damaged or truncated; ffmpeg says: moov atom not found$"),
        ("sys.exit(3)", "ffmpeg says: exit status 3"), ("", "holds no sound"),
        (STEREO + "sys.exit('partial file')", "ffmpeg says: partial file"),
        (STEREO + "print('[aac @ 0x56f0] channel lost', file=sys.stderr)", r"ffmpeg says: \[aac\] channel"),
        ("sys.stdout.write('x' * 100)", "wrote no AU file"),
        (STEREO.replace("16000, 2", "16000, 0"), "wrote no AU file"),
        (STEREO.replace("16000, 2", "7, 2"), "its sampling rate is 7 Hz"),
    ],
)  # fmt: skip
def test_the_message_has_what_ffmpeg_complains_about(ffmpeg, program, says):
    plays(ffmpeg, program)
    with pytest.raises(AudioError, match=f"audio bytes: .*{says}") as failure:
        read_audio(MEMO)
    assert "\n" not in str(failure.value)


def test_a_stated_duration_starts_no_program(ffmpeg):
    plays(ffmpeg, STEREO)
    assert read_stated_duration(MEMO) is None
    assert not (ffmpeg / "told.json").exists()


def test_a_program_that_nobody_reads_to_its_end_is_killed(ffmpeg):
    plays(ffmpeg, STEREO + "sys.stdout.flush(); time.sleep(1000)")
    assert len(read_audio(MEMO, 16000, 0.0, 0.25)) == 4000


@pytest.mark.parametrize("ending", ["m4a", "aac", "mkv", "wma"])
def test_without_pyav_and_ffmpeg_the_message_says_what_to_install(tmp_path, monkeypatch, ending):
    beginnings = {"m4a": MEMO, "aac": b"\xff\xf1" + bytes(50), "mkv": b"\x1a\x45\xdf\xa3" + bytes(50)}
    asf = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(50)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "av", None)
    assert shutil.which("ffmpeg") is None
    path = tmp_path / f"x.{ending}"
    path.write_bytes(beginnings.get(ending, asf))
    with pytest.raises(AudioError, match=r"PyAV \(pip install av\) or ffmpeg"):
        read_audio(path)


# --- the container's clock ------------------------------------------------------------------------


def encode_stretches(container: str, codec: str, rate: int, begins: list[float], **options: str) -> bytes:
    """Half a second of a tone from each of the seconds on, and nothing in between."""
    av = pytest.importorskip("av", reason="PyAV, part of [media], is not installed")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as file:
        track = file.add_stream(codec, rate=rate, layout="mono", bit_rate=64000)
        size = track.codec_context.frame_size or 960
        for begin in begins:
            for number in range(round(0.5 * rate / size)):
                frame = av.AudioFrame.from_ndarray(
                    tone(rate)[:, number * size : (number + 1) * size], format="fltp", layout="mono"
                )
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(begin * rate) + number * size
                resampler = av.AudioResampler(format=track.codec_context.format, layout="mono", rate=rate)
                for part in resampler.resample(frame):
                    file.mux(track.encode(part))
        file.mux(track.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("begins", [[0.0, 2.0], [3.0], [1.0, 4.0]], ids=str)
@pytest.mark.parametrize(
    ("container", "codec", "rate"), [("matroska", "pcm_f32le", 16000), ("webm", "libopus", 48000)]
)
def test_sound_lies_where_the_clock_puts_it(container, codec, rate, begins):
    samples = read_audio(encode_stretches(container, codec, rate, begins), rate)
    loud = np.abs(samples) > 0.1
    edges = (
        np.flatnonzero(np.diff(np.convolve(loud, np.ones(rate // 20), "same") > 0, prepend=False))[::2] / rate
    )
    np.testing.assert_allclose(edges, begins, atol=0.05)
    assert len(samples) / rate == pytest.approx(begins[-1] + 0.5, abs=0.05)


@pytest.mark.parametrize(
    ("container", "options"),
    [
        ("adts", {}),
        ("mp4", {}),
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("mpegts", {}),
        ("flv", {}),
    ],
    ids=str,
)
def test_the_priming_of_aac_is_no_sound(container, options):
    """An AAC decoder gives 1,024 samples before the first: 64 ms at 16 kHz."""
    content = encode_stretches(container, "aac", 22050, [0.0], **options)
    first = np.flatnonzero(np.abs(read_audio(content, 22050)) > 0.1)[0] / 22050
    assert first < 0.012


def test_a_clock_that_jumps_by_days_adds_no_days():
    samples = read_audio(encode_stretches("matroska", "pcm_f32le", 16000, [0.0, 100_000.0]))
    assert len(samples) == pytest.approx(16000, abs=1000)


@pytest.mark.parametrize("codec", ["g722", "adpcm_g726", "mp2"])
def test_codecs_in_wav_that_libsndfile_does_not_know(codec):
    content = encode(
        tone(16000 if codec != "adpcm_g726" else 8000), "wav", codec, 16000 if codec != "adpcm_g726" else 8000
    )
    samples = read_audio(content)
    assert len(samples) == pytest.approx(32000, abs=2400)
    assert np.abs(samples).max() > 0.3


def test_bare_g722_goes_by_its_name(tmp_path):
    """It has no header: ITU-T G.722 is 16 kHz, two samples a byte."""
    content = encode(tone(16000), "g722", "g722", 16000)
    path = tmp_path / "call.G722"
    path.write_bytes(content)
    samples = read_audio(path)
    assert len(samples) == pytest.approx(32000, abs=400)
    assert np.abs(np.fft.rfft(samples[8000:24000])).argmax() == 440
    with pytest.raises(AudioError, match="is not audio"):
        read_audio(content)


PEAK = """
import sys
from pathlib import Path
import av, soundfile, soxr
from asr.audio.reading import read_audio
status = Path("/proc/self/status")
read_audio(sys.argv[1])
before = int(status.read_text().partition("VmHWM:")[2].split()[0])
samples = read_audio(sys.argv[2])
print(len(samples), int(status.read_text().partition("VmHWM:")[2].split()[0]) - before)
"""


def draw_picture(size: int) -> bytes:
    """A black PNG, ``size`` x ``size``: a thousandth of what it takes in memory."""
    rows = zlib.compress(bytes(1 + 3 * size) * size, 9)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def put_cover(container: str, content: bytes, picture: bytes) -> bytes:
    """A picture in an ID3 tag in front (id3.org, ID3v2.3), or in the boxes of iTunes in an MP4."""
    if container != "ipod":
        frame = b"\0image/png\0\3\0" + picture
        frame = b"APIC" + struct.pack(">I", len(frame)) + b"\0\0" + frame
        return b"ID3\3\0\0" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame + content

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + kind + body

    cover = box(b"ilst", box(b"covr", box(b"data", struct.pack(">II", 14, 0) + picture)))
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    more = box(b"udta", box(b"meta", bytes(4) + handler + cover))
    place = content.index(b"moov") - 4
    (length,) = struct.unpack(">I", content[place : place + 4])
    end = place + length
    return (
        content[:place]
        + struct.pack(">I", length + len(more))
        + content[place + 4 : end]
        + more
        + content[end:]
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nothing here measures a peak of memory")
@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("adts", "aac"), ("ipod", "aac")])
def test_a_large_picture_takes_no_memory(tmp_path, container, codec):
    """Decoded it would take 440 MB."""
    content = encode(tone(16000), container, codec, 16000)
    paths = [tmp_path / "plain", tmp_path / "cover"]
    paths[0].write_bytes(content)
    paths[1].write_bytes(put_cover(container, content, draw_picture(12_000)))
    command = [sys.executable, "-c", PEAK, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    count, kilobytes = map(int, done.stdout.split())
    assert count == len(read_audio(content))
    assert kilobytes < 20_000


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("caf", "pcm_s16le"), ("w64", "pcm_s16le"), ("avi", "pcm_s16le"), ("flv", "aac"),
        ("mpegts", "aac"), ("ac3", "ac3"),
    ],
)  # fmt: skip
def test_what_cameras_and_phones_write(container, codec):
    samples = read_audio(encode(tone(44100), container, codec, 44100), 44100)
    assert len(samples) / 44100 == pytest.approx(2.0, abs=0.1)
    spectrum = np.abs(np.fft.rfft(samples[22050:66150]))
    assert spectrum.argmax() == 440
