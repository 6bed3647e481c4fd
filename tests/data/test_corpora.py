"""Every layout on a tiny corpus made here, and on the real copy where there is one."""

import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import asr.cli
from asr.cli.prepare import prepare as verb
from asr.data import corpora
from asr.data.corpora import fsdd
from asr.data.corpora.recordings import CorpusError, fill_in_durations
from asr.data.manifest import Utterance, read_manifest
from asr.errors import UserError


def write_sound(path: Path, seconds: float = 0.5, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    opus = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, np.zeros(round(seconds * rate)), rate, **opus)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def prepare_corpus(layout: str, corpus: Path, out: Path = Path("unused")) -> dict[str, list[Utterance]]:
    return corpora.prepare(layout, corpus, out)


def essentials(utterances: list[Utterance]) -> list[tuple[str, str, str]]:
    return [(utterance.id, utterance.text, utterance.speaker) for utterance in utterances]


# LibriSpeech


@pytest.fixture
def librispeech(tmp_path):
    folder = tmp_path / "LibriSpeech"
    chapter = folder / "dev-clean/84/121123"
    write(chapter / "84-121123.trans.txt", "84-121123-0000 GO ON\n84-121123-0001 DON'T\n")
    write_sound(chapter / "84-121123-0000.flac", 0.5)
    write_sound(chapter / "84-121123-0001.flac", 0.75)
    write(folder / "test-clean/61/70968/61-70968.trans.txt", "61-70968-0000 NO\n")
    write_sound(folder / "test-clean/61/70968/61-70968-0000.flac")
    write(folder / "SPEAKERS.TXT", "not a split")
    return folder


@pytest.mark.parametrize("given", ["..", ".", "dev-clean"])
def test_librispeech_from_above_from_within_and_one_split(librispeech, given, monkeypatch):
    monkeypatch.chdir(librispeech / given)
    splits = prepare_corpus("librispeech", Path())
    assert list(splits) == (["dev-clean"] if given == "dev-clean" else ["dev-clean", "test-clean"])
    assert essentials(splits["dev-clean"]) == [
        ("84-121123-0000", "GO ON", "84"),
        ("84-121123-0001", "DON'T", "84"),
    ]
    assert [utterance.duration for utterance in splits["dev-clean"]] == [0.5, 0.75]


@pytest.mark.parametrize("ending", [".wav", ".ogg", ".mp3", ".WAV", ".aiff"])
def test_a_copy_with_other_endings_is_the_same_corpus(librispeech, ending):
    published = librispeech / "test-clean/61/70968/61-70968-0000.flac"
    published.unlink()
    write_sound(published.with_suffix(ending), 1.0)
    [utterance] = prepare_corpus("librispeech", librispeech)["test-clean"]
    assert Path(utterance.audio).suffix == ending
    assert utterance.duration == pytest.approx(1.0, abs=0.1)


def test_the_published_ending_is_preferred(librispeech):
    published = librispeech / "test-clean/61/70968/61-70968-0000.flac"
    write_sound(published.with_suffix(".wav"), 2.0)
    write(published.with_suffix(".txt"), "not a recording")
    [utterance] = prepare_corpus("librispeech", librispeech)["test-clean"]
    assert utterance.audio == str(published)


def test_the_first_missing_recording_is_named_and_all_are_counted(librispeech):
    for path in librispeech.glob("dev-clean/*/*/*.flac"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"84-121123-0000\.flac: no such recording.* 2 of 2") as error:
        prepare_corpus("librispeech", librispeech)
    assert "\n" not in str(error.value)


def test_a_broken_recording_is_named(librispeech, caplog):
    write(librispeech / "test-clean/61/70968/61-70968-0000.flac", "fLaC, and no more")
    with caplog.at_level(logging.WARNING):
        assert list(prepare_corpus("librispeech", librispeech)) == ["dev-clean"]
    assert [message.partition(":")[0] for message in caplog.messages] == ["left out", "left out"]
    assert "61-70968-0000.flac" in caplog.messages[0]
    assert "the split test-clean" in caplog.messages[1]


# Common Voice


def test_commonvoice_first_release(tmp_path):
    rows = (
        'filename,text,up_votes\r\ncv-valid-dev/sample-1.mp3,"well, yes",1\r\ncv-valid-dev/s-2.mp3,no,0\r\n'
    )
    write(tmp_path / "cv-valid-dev.csv", "\ufeff" + rows)
    write_sound(tmp_path / "cv-valid-dev/sample-1.mp3")
    write_sound(tmp_path / "cv-valid-dev/s-2.opus", rate=16000)
    splits = prepare_corpus("commonvoice", tmp_path)
    assert list(splits) == ["cv-valid-dev"]
    assert essentials(splits["cv-valid-dev"]) == [("sample-1", "well, yes", ""), ("s-2", "no", "")]


def test_commonvoice_later_releases(tmp_path):
    header = "client_id\tpath\tsentence\tage\n"
    write(tmp_path / "train.tsv", header + 'c0ffee\tcv_en_1.mp3\t"Yes," he said\t\n')
    write(tmp_path / "test.tsv", header + "beef\tcv_en_2.mp3\tNo\u2028way.\ttwenties\n")
    write(tmp_path / "other.tsv", header)
    write(tmp_path / "reported.tsv", "sentence\treason\nNo\toffensive\n")
    write(tmp_path / "clip_durations.tsv", "clip\tduration[ms]\ncv_en_1.mp3\t500\n")
    for name in ("cv_en_1", "cv_en_2"):
        write_sound(tmp_path / f"clips/{name}.mp3")
    splits = prepare_corpus("commonvoice", tmp_path)
    assert {split: essentials(utterances) for split, utterances in splits.items()} == {
        "train": [("cv_en_1", '"Yes," he said', "c0ffee")],
        "test": [("cv_en_2", "No\u2028way.", "beef")],
    }


def test_commonvoice_names_a_row_that_was_cut_off(tmp_path):
    write(tmp_path / "dev.tsv", "client_id\tpath\tsentence\nbeef\ta.mp3\tYes\nbeef\tb.mp3\n")
    with pytest.raises(CorpusError, match=r"dev\.tsv:3: has fewer columns"):
        prepare_corpus("commonvoice", tmp_path)


# LJSpeech


def test_ljspeech_takes_the_written_out_text(tmp_path):
    lines = 'LJ001-0001|in 1455,|in fourteen fifty-five,\nLJ001-0002|"as spoken|\nLJ001-0003|only one\n'
    write(tmp_path / "metadata.csv", lines)
    for n in (1, 2, 3):
        write_sound(tmp_path / f"wavs/LJ001-000{n}.wav")
    assert essentials(prepare_corpus("ljspeech", tmp_path)["all"]) == [
        ("LJ001-0001", "in fourteen fifty-five,", "LJ"),
        ("LJ001-0002", '"as spoken', "LJ"),
        ("LJ001-0003", "only one", "LJ"),
    ]


def test_ljspeech_names_missing_recordings_and_a_bad_line(tmp_path, caplog):
    write(tmp_path / "metadata.csv", "LJ1|a|a\nLJ2|b|b\nLJ3|c|c\n")
    with pytest.raises(CorpusError, match=r"LJ1\.wav: no such recording.*missing: 3 of 3"):
        prepare_corpus("ljspeech", tmp_path)
    write_sound(tmp_path / "wavs/LJ1.wav")
    with caplog.at_level(logging.WARNING):
        assert [u.id for u in prepare_corpus("ljspeech", tmp_path)["all"]] == ["LJ1"]
    assert "2 of 3 recordings are missing" in caplog.text
    assert "LJ2.wav" in caplog.text
    write(tmp_path / "metadata.csv", "LJ1|a|a\n\nLJ2,b,b\n")
    with pytest.raises(CorpusError, match=r"metadata\.csv:3: is not"):
        prepare_corpus("ljspeech", tmp_path)


# Kaldi


def write_kaldi(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        write(folder / name.replace("_", "."), content)
    return folder


@pytest.mark.parametrize("start", ["corpus/train/", "corpus/", ""])
def test_kaldi_looks_in_the_data_directory_above_it_and_where_it_is_called(tmp_path, monkeypatch, start):
    folder = write_kaldi(
        tmp_path / "corpus/train",
        wav_scp="u1\tWAVE/a one.WAV\nu2 WAVE/b.WAV\n",
        text="u1\tWE CALL IT BEAR\nu2\n",
        utt2spk="u1 0001\n",
    )
    write_sound(tmp_path / start / "WAVE/a one.opus", rate=16000)
    write_sound(tmp_path / start / "WAVE/b.WAV")
    monkeypatch.chdir(tmp_path)
    for corpus in (folder, folder.parent, Path("corpus")):
        splits = prepare_corpus("kaldi", corpus)
        assert list(splits) == ["train"]
        assert essentials(splits["train"]) == [("u1", "WE CALL IT BEAR", "0001"), ("u2", "", "")]
        assert all(Path(utterance.audio).is_file() for utterance in splits["train"])


def test_kaldi_segments(tmp_path):
    write_sound(tmp_path / "call.wav", 3.0)
    write_kaldi(
        tmp_path,
        wav_scp=f"call {tmp_path}/call.wav\n",
        text="u1 hello\nu2 bye\n",
        segments="u1 call 0.25 1.5\nu2 call 2.5 -1\n",
        utt2spk="u1 A\nu2 B\n",
    )
    assert [
        (u.id, u.start, u.duration, u.speaker) for u in prepare_corpus("kaldi", tmp_path)[tmp_path.name]
    ] == [
        ("u1", 0.25, 1.25, "A"),
        ("u2", 2.5, 0.5, "B"),
    ]


@pytest.mark.parametrize(
    "entry", ["touch {ran} |", "|touch {ran}", "| cat {ran}|", "cat a.wav; touch {ran}|"]
)
def test_kaldi_runs_no_command(tmp_path, entry):
    ran = tmp_path / "ran"
    command = entry.format(ran=ran)
    write_kaldi(tmp_path / "data", wav_scp=f"u0 a.wav\nu1 {command} \n", text="u1 hello\n")
    write_sound(tmp_path / "data/a.wav")
    with pytest.raises(CorpusError) as error:
        prepare_corpus("kaldi", tmp_path / "data")
    assert str(error.value).startswith(f"{tmp_path}/data/wav.scp:2: is a shell command ({command})")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"text": "u1 a\nu9 b\n"}, r"text:2: recording u9 is not in wav\.scp"),
        ({"text": "u1 a\nu1 b\n"}, r"text:2: u1 is listed a second time"),
        ({"text": "u1 a\n", "segments": "u2 u1 0 1\n"}, r"text:1: utterance u1 is not in segments"),
        ({"text": "u1 a\n", "segments": "u1 u1 0\n"}, r"segments:1: is not '\{utterance\}"),
        ({"text": "u1 a\n", "segments": "u1 u1 0 one\n"}, r"segments:1: is not '\{utterance\}"),
        ({"text": "u1 a\n", "segments": "u1 u1 2 1\n"}, r"segments:1: the segment from 2 to 1 seconds"),
        ({"text": "u1 a\n", "segments": "u1 u9 0 1\n"}, r"text:1: recording u9 is not in wav\.scp"),
        ({}, r"text: cannot be read"),
    ],
)
def test_kaldi_names_the_line_that_is_wrong(tmp_path, files, fault):
    write_sound(tmp_path / "a.wav")
    write_kaldi(tmp_path, wav_scp="u1 a.wav\n", **files)
    with pytest.raises(UserError, match=fault):
        prepare_corpus("kaldi", tmp_path)


# A folder of recordings with texts


def test_folder_pairs_recordings_with_texts_and_warns_of_the_others(tmp_path, caplog):
    write_sound(tmp_path / "b.wav")
    write(tmp_path / "b.txt", "\ufeffWell,\r\n yes.\n")
    write_sound(tmp_path / "deep/down/a.v1.flac")
    write(tmp_path / "deep/down/a.v1.txt", "no")
    write_sound(tmp_path / "alone.wav")
    write(tmp_path / "README.txt", "about this corpus")
    with caplog.at_level(logging.WARNING):
        splits = prepare_corpus("folder", tmp_path)
    assert essentials(splits["all"]) == [("b", "Well, yes.", ""), ("deep/down/a.v1", "no", "")]
    assert caplog.messages == [
        f"1 recordings without a text: {tmp_path}/alone.wav",
        f"1 texts without a recording: {tmp_path}/README.txt",
    ]


def test_a_folder_goes_on_without_recordings_that_cannot_be_read(tmp_path, caplog):
    write_sound(tmp_path / "a.wav", seconds=0.7)
    for name in "abc":
        write(tmp_path / f"{name}.txt", "yes")
    for name in ("a.flac", "b.wav", "c.wav"):
        write(tmp_path / name, "")
    with caplog.at_level(logging.WARNING):
        splits = prepare_corpus("folder", tmp_path)
    assert [(u.id, u.audio, u.duration) for u in splits["all"]] == [("a", str(tmp_path / "a.wav"), 0.7)]
    assert caplog.messages == [
        f"left out: {tmp_path}/{name}: is empty" for name in ("a.flac", "b.wav", "c.wav")
    ]
    write(tmp_path / "a.wav", "")
    with pytest.raises(CorpusError, match=r"none of its recordings can be read: .*a\.flac: is empty"):
        prepare_corpus("folder", tmp_path)


def test_a_folder_of_splits_has_them(tmp_path):
    for name in ("train/a", "train/deep/b", "dev/c"):
        write_sound(tmp_path / f"{name}.wav")
        write(tmp_path / f"{name}.txt", "yes")
    splits = prepare_corpus("folder", tmp_path)
    assert {name: [u.id for u in utterances] for name, utterances in splits.items()} == {
        "dev": ["dev/c"],
        "train": ["train/a", "train/deep/b"],
    }
    (tmp_path / "dev").rename(tmp_path / "more")  # of which nobody knows what it is
    assert [u.id for u in prepare_corpus("folder", tmp_path)["all"]] == ["more/c", "train/a", "train/deep/b"]


def test_a_folder_takes_one_recording_of_a_name(tmp_path, caplog):
    write(tmp_path / "a.txt", "yes")
    for name in ("a.flac", "a.wav"):
        write_sound(tmp_path / name)
    with caplog.at_level(logging.WARNING):
        assert [Path(u.audio).name for u in prepare_corpus("folder", tmp_path)["all"]] == ["a.flac"]
    assert caplog.messages == [f"1 recordings beside another of the same name: {tmp_path}/a.wav"]


def test_recordings_of_a_corpus_that_cannot_be_read_are_counted(tmp_path, caplog):
    write_sound(tmp_path / "a.wav")
    utterances = [Utterance(name, str(tmp_path / f"{name}.wav")) for name in "abc"]
    for name in "bc":
        write(tmp_path / f"{name}.wav", "")
    with pytest.raises(CorpusError, match=r"b\.wav: is empty; unreadable: 2 of 2 recordings"):
        fill_in_durations({"all": utterances[1:]})
    with pytest.raises(CorpusError, match=r"b\.wav: is empty$"):
        fill_in_durations({"all": utterances[1:2]})
    with caplog.at_level(logging.WARNING):
        assert [u.id for u in fill_in_durations({"all": utterances})["all"]] == ["a"]
    assert caplog.messages == [f"left out: {tmp_path}/{name}.wav: is empty" for name in "bc"]


# Free spoken digits

SPEAKERS = ("ann", "bob")
DIGITS_OF_SPLIT = {"test": range(5), "dev": range(5, 10), "train": range(10, 1000)}


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Two speakers, ten digits, one recording each in test and dev and two in train: all different noise."""
    random = np.random.RandomState(1)
    for speaker in SPEAKERS:
        for digit in range(10):
            for n in (0, 5, 10, 11):
                path = tmp_path / f"fsdd/recordings/{digit}_{speaker}_{n}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, random.uniform(-1, 1, 800 + 100 * digit), 8000)
    monkeypatch.setattr(fsdd, "STRINGS_PER_SPEAKER", {"train": 35, "dev": 7, "test": 14})
    return tmp_path / "fsdd"


def split_of(recording: str) -> str:
    n = int(recording.rpartition("_")[2])
    return next(split for split, numbers in DIGITS_OF_SPLIT.items() if n in numbers)


def test_fsdd_splits_by_number(digits, tmp_path):
    splits = prepare_corpus("fsdd", digits, tmp_path / "out")
    for split in DIGITS_OF_SPLIT:
        assert {split_of(utterance.id) for utterance in splits[split]} == {split}
    assert sum(len(splits[split]) for split in DIGITS_OF_SPLIT) == 80
    assert ("7_bob_11", "seven", "bob") in essentials(splits["train"])


def test_connected_digits_come_from_one_speaker_and_one_split(digits, tmp_path):
    splits = prepare_corpus("fsdd", digits, tmp_path / "out")
    for split in DIGITS_OF_SPLIT:
        recordings = {utterance.id: utterance for utterance in splits[split]}
        strings = splits[f"{split}-connected"]
        count = fsdd.STRINGS_PER_SPEAKER[split]
        assert Counter(string.speaker for string in strings) == dict.fromkeys(SPEAKERS, count)
        lengths = Counter(len(string.extra["digits"]) for string in strings)
        assert lengths == dict.fromkeys(range(1, 8), 2 * count // 7)
        for string in strings:
            parts = [recordings[name] for name in string.extra["digits"]]
            assert {part.speaker for part in parts} == {string.speaker}
            assert string.text == " ".join(part.text for part in parts)
        uses = Counter(name for string in strings for name in string.extra["digits"])
        assert uses.keys() == recordings.keys()
        assert max(uses.values()) - min(uses.values()) <= 1


def test_connected_digits_sound_as_they_should(digits, tmp_path):
    splits = prepare_corpus("fsdd", digits, tmp_path / "out")
    lengths = {u.id: u.duration for name in DIGITS_OF_SPLIT for u in splits[name]}
    for string in splits["train-connected"]:
        samples, rate = soundfile.read(string.audio)
        info = soundfile.info(string.audio)
        assert (rate, info.subtype, info.format) == (8000, "PCM_16", "FLAC")
        assert string.duration == len(samples) / rate
        names = string.extra["digits"]
        pauses = string.duration - sum(lengths[name] for name in names)
        assert 0.2 <= pauses <= 0.8 + 0.5 * (len(names) - 1) + 0.001
        assert np.abs(samples).max() < 0.99
        before = 20 * np.log10(np.std(samples[:800]))  # the first 0.1 s are always a pause
        assert -71 < before < -49


def test_connected_digits_hold_the_recordings_at_random_levels(digits, tmp_path):
    """Each string of one digit is that recording, louder or softer, somewhere on low noise."""
    splits = prepare_corpus("fsdd", digits, tmp_path / "out")
    recordings = {utterance.id: utterance.audio for utterance in splits["train"]}
    gains = []
    for string in splits["train-connected"]:
        if len(string.extra["digits"]) > 1:
            continue
        samples, _ = soundfile.read(string.audio)
        digit, _ = soundfile.read(recordings[string.extra["digits"][0]])
        match = np.correlate(samples, digit, "valid")
        at = int(match.argmax())
        assert 800 <= at <= 3200
        gain = match[at] / (digit @ digit)
        rest = samples.copy()
        rest[at : at + len(digit)] -= gain * digit
        assert 20 * np.log10(np.std(rest)) < -49
        gains.append(20 * np.log10(gain))
    assert len(gains) == 10
    assert -6.1 < min(gains) < max(gains) < 0.1  # these recordings are as loud as can be: none may grow
    assert len(set(np.round(gains, 2))) > 5


def test_connected_digits_are_the_same_for_ever(digits, tmp_path):
    """Another process, another hash seed, other audio endings: the same bytes; and these strings."""
    splits = prepare_corpus("fsdd", digits, tmp_path / "one")
    for path in digits.glob("recordings/*.wav"):
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(path.with_suffix(".flac"), samples, rate)
        path.unlink()
    code = (
        "import sys; from pathlib import Path; from asr.data.corpora import fsdd\n"
        f"fsdd.STRINGS_PER_SPEAKER = {fsdd.STRINGS_PER_SPEAKER}\n"
        "fsdd.prepare(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, digits, tmp_path / "two"],
        check=True,
        cwd=Path(fsdd.__file__).parents[3],
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / run / "connected").rglob("*.flac")}
        for run in ("one", "two")
    )
    assert len(first) == 112
    assert first == second
    texts = [string.text for string in splits["test-connected"][:3]]
    assert texts == ["seven nine one zero", "four five two three eight", "six six"]


def test_without_a_speaker(digits, tmp_path):
    splits = prepare_corpus("fsdd", digits, tmp_path / "out")
    for speaker in SPEAKERS:
        names = ("train", "train-connected", "dev", "dev-connected")
        for name in names:
            left = [utterance for utterance in splits[name] if utterance.speaker != speaker]
            assert left and splits[f"without-{speaker}/{name}"] == left
        everything = [u for name in DIGITS_OF_SPLIT for u in splits[name] if u.speaker == speaker]
        assert len(everything) == 40
        assert sorted(u.id for u in splits[f"without-{speaker}/test"]) == sorted(u.id for u in everything)
        strings = splits[f"without-{speaker}/test-connected"]
        assert strings == [u for u in splits["test-connected"] if u.speaker == speaker]


def test_fsdd_names_a_recording_that_it_does_not_know(digits, tmp_path):
    write_sound(digits / "recordings/eleven.wav")
    with pytest.raises(CorpusError, match=r"eleven\.wav: is not named"):
        prepare_corpus("fsdd", digits, tmp_path / "out")


# The verb


def test_prepare_writes_a_manifest_for_every_split(digits, tmp_path):
    out = tmp_path / "out"
    result = CliRunner().invoke(verb, ["fsdd", str(digits), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""  # no progress bar where nobody watches
    lines = result.stdout.splitlines()
    assert lines[0] == f"{out}/train.jsonl: 40 utterances, 0.00 hours"
    assert len(lines) == len(list(out.rglob("*.jsonl"))) == 6 + 2 * 6
    for manifest in out.rglob("*.jsonl"):
        assert all(Path(utterance.audio).is_file() for utterance in read_manifest(manifest))
    [string, *_] = read_manifest(out / "without-ann/test-connected.jsonl")
    assert string.extra["digits"][0].split("_")[1] == "ann"


@pytest.mark.parametrize("layout", corpora.LAYOUTS)
@pytest.mark.parametrize("corpus", ["empty", "missing"])
def test_a_folder_that_holds_something_else_is_one_clear_line(tmp_path, monkeypatch, capsys, layout, corpus):
    (tmp_path / "empty").mkdir()
    command = ["asr", "prepare", layout, str(tmp_path / corpus), "-o", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as end:
        asr.cli.main()
    assert end.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"asr: {tmp_path / corpus}: ")
    assert "expected" in line
    assert not (tmp_path / "out").exists()


# The real copies, see their README

COPIES = Path(__file__).parents[3] / "shared/corpora"


@pytest.mark.skipif(not COPIES.is_dir(), reason=f"no copies of the corpora in {COPIES}")
@pytest.mark.parametrize(
    ("layout", "folder", "names", "utterances", "hours", "speakers"),
    [
        ("librispeech", "LibriSpeech", "train-clean-5", 1519, 5.31, 28),
        ("librispeech", "LibriSpeech/dev-clean", "dev-clean", 649, 1.35, 10),
        ("commonvoice", "CommonVoice-v1", "cv-valid-dev", 3684, 4.5, 0),
        ("kaldi", "speechocean762", "train", 2500, 2.88, 125),
        ("folder", "dataset-voice-kathleen", "all", 1620, 1.37, 0),
        ("ljspeech", "LJSpeech-1.1", "all", 385, 0.69, 1),
        ("fsdd", "free-spoken-digit-dataset", "train dev test", 3000, 0.37, 6),
    ],
)
def test_a_real_copy(layout, folder, names, utterances, hours, speakers, tmp_path, monkeypatch):
    monkeypatch.setattr(fsdd, "STRINGS_PER_SPEAKER", {"train": 1, "dev": 1, "test": 1})
    splits = prepare_corpus(layout, COPIES / folder, tmp_path)
    found = [utterance for name in names.split() for utterance in splits[name]]
    assert len({utterance.id for utterance in found}) == len(found) == utterances
    assert sum(utterance.duration for utterance in found) / 3600 == pytest.approx(hours, rel=0.02)
    assert len({utterance.speaker for utterance in found} - {""}) == speakers
    assert all(utterance.text for utterance in found)
