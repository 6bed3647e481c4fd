"""Recordings in tar files: read front to back, and what is read is what was packed."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from asr.audio.reading import AudioError, read_audio
from asr.cli import cli
from asr.core.places import write_place
from asr.data import corpora
from asr.data.manifest import Utterance, read_manifest
from asr.data.tars import (
    TarError,
    TarReader,
    group_windows,
    pack_utterances,
    read_members,
    split_member,
    to_source,
)
from tests.synthetic import RATE


@pytest.fixture(scope="module")
def packed(tones, tmp_path_factory) -> Path:
    """The 24 utterances of ``tones``, five a tar file."""
    folder = tmp_path_factory.mktemp("packed")
    command = ["pack", str(tones / "train.jsonl"), "-o", str(folder), "--tar-size", "5"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "24 utterances" in result.output
    assert "in 5 tar files" in result.output
    return folder


def test_names(tmp_path):
    assert split_member("a/b.tar/c/d.flac") == ("a/b.tar", "c/d.flac")
    assert split_member("s3://bucket/b.tar/d.flac") == ("s3://bucket/b.tar", "d.flac")
    assert split_member("a/b.flac") is None
    assert split_member("a/b.tar") is None
    (tmp_path / "b.tar").mkdir()
    assert split_member(str(tmp_path / "b.tar" / "c.flac")) is None, "a folder of that name"


def test_what_is_packed_is_what_comes_out(tones, packed):
    before = {utterance.id: utterance for utterance in read_manifest(tones / "train.jsonl")}
    after = read_manifest(packed / "train.jsonl")
    assert sorted(utterance.id for utterance in after) == sorted(before)
    assert [utterance.id for utterance in after] != list(before), "they are shuffled"
    reader = TarReader(RATE, 5)
    for utterance in after:
        own = before[utterance.id]
        assert (utterance.text, utterance.speaker, utterance.duration) == (
            own.text,
            own.speaker,
            own.duration,
        )
        expected = read_audio(own.audio, RATE)
        np.testing.assert_array_equal(reader(utterance), expected)
        np.testing.assert_array_equal(read_audio(to_source(utterance.audio), RATE), expected)
    assert reader.reads == 5


def test_packing_twice_makes_the_same_bytes(tones, packed, tmp_path):
    utterances = read_manifest(tones / "train.jsonl")
    assert len(list(pack_utterances(utterances, str(tmp_path), "train", 5))) == 5
    for tar in packed.glob("*.tar"):
        assert (tmp_path / tar.name).read_bytes() == tar.read_bytes()


def test_a_stretch_becomes_a_recording(tmp_path):
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, 4 * RATE).astype(np.float32)
    soundfile.write(tmp_path / "long.wav", samples, RATE, subtype="PCM_16")
    utterance = Utterance("a", str(tmp_path / "long.wav"), 1.0, 1.5, "text", extra={"key": 3})
    ((packed,),) = pack_utterances([utterance], str(tmp_path), "x", 10)
    assert (packed.start, packed.duration, packed.audio) == (0.0, 1.5, "x-000000.tar/00000000.flac")
    found = read_audio(to_source(str(tmp_path / packed.audio)), RATE)
    np.testing.assert_array_equal(found, read_audio(utterance.audio, RATE, 1.0, 1.5))
    members = read_members(str(tmp_path / "x-000000.tar"))
    keys = json.loads(bytes(members["00000000.json"]))
    assert keys == {"id": "a", "text": "text", "duration": 1.5, "key": 3}


def test_other_verbs_read_them(packed, tmp_path):
    assert CliRunner().invoke(cli, ["validate", str(packed / "train.jsonl"), "--decode"]).exit_code == 0
    command = [
        "transcribe",
        str(packed / "train.jsonl"),
        "--shard",
        "1/1",
        "-o",
        str(tmp_path),
        "--model",
        "digits",
    ]
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert len((tmp_path / "results-00000.jsonl").read_text().splitlines()) == 24


def test_a_reader_keeps_the_tar_files_used_last(packed):
    utterances = read_manifest(packed / "train.jsonl")
    reader = TarReader(RATE, 2)
    for index in (0, 1, 5, 0, 10, 0, 6):
        reader(utterances[index])
    assert reader.reads == 4


def test_threads_wait_for_one_that_reads(packed):
    utterances = read_manifest(packed / "train.jsonl")
    reader = TarReader(RATE, 5)
    with ThreadPoolExecutor(8) as pool:
        lengths = list(pool.map(lambda utterance: len(reader(utterance)), utterances))
    assert lengths == [round((utterance.duration or 0) * RATE) for utterance in utterances]
    assert reader.reads == 5


def test_windows_hold_whole_tar_files(packed):
    utterances = read_manifest(packed / "train.jsonl")
    assert [len(window) for window in group_windows(utterances, 2)] == [10, 10, 4]
    assert sorted(index for window in group_windows(utterances, 2) for index in window) == list(range(24))
    assert group_windows([Utterance("a", "a.wav")], 2) == []
    with pytest.raises(TarError, match="others are not"):
        group_windows([*utterances, Utterance("a", "a.wav")], 2)


@pytest.mark.parametrize("length", [0, 100, 700, 3000])
def test_a_tar_file_that_is_cut_off_is_an_error(packed, tmp_path, length):
    tar = next(packed.glob("*.tar"))
    (tmp_path / "x.tar").write_bytes(tar.read_bytes()[:length])
    with pytest.raises((TarError, AudioError), match=r"x\.tar"):
        TarReader(RATE, 1)(Utterance("a", str(tmp_path / "x.tar/00000000.wav")))


def test_a_member_that_is_not_there_is_named(packed):
    tar = next(packed.glob("*.tar"))
    for read in (lambda name: to_source(name), lambda name: TarReader(RATE, 1)(Utterance("a", name))):
        with pytest.raises(AudioError, match=r"has no member 'none\.flac'"):
            read(f"{tar}/none.flac")


def test_they_may_lie_behind_a_url(tones):
    pytest.importorskip("fsspec", reason="needs fsspec, part of [cluster]")
    utterances = read_manifest(tones / "dev.jsonl")
    list(pack_utterances(utterances, "memory://tars", "dev", 100))
    found = TarReader(RATE, 1)(Utterance("a", "memory://tars/dev-000000.tar/00000002.wav"))
    np.testing.assert_array_equal(found, read_audio(utterances[2].audio, RATE))


def test_a_manifest_is_not_overwritten(tones, tmp_path):
    result = CliRunner().invoke(cli, ["pack", str(tones / "dev.jsonl"), "-o", str(tones)])
    assert result.exit_code == 2
    assert CliRunner().invoke(cli, ["pack", str(tones / "dev.jsonl"), "-o", "memory://x"]).exit_code == 2


# --- those of others ------------------------------------------------------------------------------


def make_tar(path: Path, members: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    write_place(path, buffer.getvalue())


def test_a_webdataset_becomes_manifests(tones, tmp_path):
    one, two = (Path(utterance.audio).read_bytes() for utterance in read_manifest(tones / "dev.jsonl")[:2])
    metadata = json.dumps({"text": "ab", "speaker": "s1", "id": "u1"}).encode()
    make_tar(
        tmp_path / "train-000000.tar",
        {"a/1.wav": one, "a/1.json": metadata, "a/2.wav": two, "a/2.txt": b"cd\n"},
    )
    make_tar(tmp_path / "test-0.tar", {"./3.json": b"{}", "./3.wav": one, "4.txt": b"no sound"})
    splits = corpora.prepare("webdataset", tmp_path, tmp_path / "out")
    assert {split: [u.id for u in found] for split, found in splits.items()} == {
        "train": ["u1", "a/2"],
        "test": ["3"],
    }
    first, second = splits["train"]
    assert (first.text, first.speaker, second.text) == ("ab", "s1", "cd")
    assert len(TarReader(RATE, 1)(second)) == round((second.duration or 0) * RATE)


def test_a_shar_of_lhotse_becomes_a_manifest(tones, tmp_path):
    content = Path(read_manifest(tones / "dev.jsonl")[0].audio).read_bytes()
    make_tar(tmp_path / "recording.000000.tar", {"cut-1.0.wav": content, "cut-1.0.json": b'{"id": "rec"}'})
    cut = {"id": "cut-1.0", "supervisions": [{"text": "go on", "speaker": "s"}], "duration": 1.0}
    (tmp_path / "cuts.000000.jsonl.gz").write_bytes(gzip.compress(json.dumps(cut).encode() + b"\n"))
    ((utterance,),) = corpora.prepare("webdataset", tmp_path, tmp_path / "out").values()
    assert (utterance.id, utterance.text, utterance.speaker) == ("cut-1.0", "go on", "s")
    assert len(TarReader(RATE, 1)(utterance)) > 0
