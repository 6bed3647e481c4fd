"""Manifests: what is written is read again, and every bad line is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.cli.validate import draw_histogram, validate
from asr.data.manifest import ManifestError, Utterance, check_manifests, read_manifest, write_manifest
from asr.errors import UserError

LINE_SEPARATOR = "\u2028"


def write_sound(path: Path, seconds: float = 1.0, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(seconds * rate)), rate)


def write_lines(path: Path, *lines: str | dict) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


# Reading and writing

names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda name: name not in (".", "..")
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
KNOWN_KEYS = {"id", "audio_filepath", "offset", "duration", "text", "speaker"}
seconds = st.floats(0, 1e6)
utterances = st.builds(
    Utterance,
    id=st.text(min_size=1),
    audio=names,
    start=seconds,
    duration=st.none() | seconds,
    text=st.text(),
    speaker=st.text(),
    extra=st.dictionaries(st.text().filter(lambda key: key not in KNOWN_KEYS), values),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(utterances))
def test_a_manifest_is_read_as_it_was_written(tmp_path_factory, written):
    folder = tmp_path_factory.getbasetemp().resolve()
    written = [
        Utterance(u.id, f"{folder}/{u.audio}", u.start, u.duration, u.text, u.speaker, u.extra)
        for u in written
    ]
    write_manifest(folder / "all.jsonl", written)
    assert read_manifest(folder / "all.jsonl") == written


def test_the_keys_on_disk_are_the_common_ones(tmp_path):
    utterance = Utterance("a", str(tmp_path / "x/a.wav"), 1.5, 2.0, "go on", "84", {"lang": "en"})
    write_manifest(tmp_path / "all.jsonl", [utterance])
    assert json.loads((tmp_path / "all.jsonl").read_text()) == {
        "id": "a",
        "audio_filepath": "x/a.wav",
        "offset": 1.5,
        "duration": 2.0,
        "text": "go on",
        "speaker": "84",
        "lang": "en",
    }


@pytest.mark.parametrize(
    ("audio", "on_disk"),
    [
        ("below/a.wav", "below/a.wav"),
        ("../beside/a.wav", "{above}/beside/a.wav"),
        ("/far/a.wav", "/far/a.wav"),
    ],
)
def test_recordings_below_the_manifest_are_relative_to_it_and_others_absolute(tmp_path, audio, on_disk):
    folder = tmp_path.resolve() / "manifests"
    write_manifest(folder / "all.jsonl", [Utterance("a", str(folder / audio))])
    line = json.loads((folder / "all.jsonl").read_text())
    assert line["audio_filepath"] == on_disk.format(above=tmp_path.resolve())


def test_a_folder_can_be_moved_with_its_manifest(tmp_path):
    write_sound(tmp_path / "old/audio/a.wav")
    write_manifest(tmp_path / "old/all.jsonl", [Utterance("a", str(tmp_path / "old/audio/a.wav"))])
    (tmp_path / "old").rename(tmp_path / "new")
    [utterance] = read_manifest(tmp_path / "new/all.jsonl")
    assert Path(utterance.audio).is_file()


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path):
    manifest = tmp_path / "all.jsonl"
    manifest.write_bytes(b'\xef\xbb\xbf{"audio_filepath": "a.wav", "text": "a"}\r\n\r\n\n')
    assert [utterance.text for utterance in read_manifest(manifest)] == ["a"]


def test_only_line_feeds_end_a_line(tmp_path):
    text = f"one{LINE_SEPARATOR}two\x85three\x0bfour"
    write_manifest(tmp_path / "all.jsonl", [Utterance("a", "a.wav", text=text)])
    assert [utterance.text for utterance in read_manifest(tmp_path / "all.jsonl")] == [text]


def test_an_utterance_without_id_is_named_after_its_line(tmp_path):
    manifest = write_lines(tmp_path / "dev.jsonl", "", {"audio_filepath": "a.wav", "text": ""})
    assert [utterance.id for utterance in read_manifest(manifest)] == ["dev-000002"]


def test_a_failure_in_the_middle_leaves_the_old_manifest(tmp_path):
    def interrupt():
        yield Utterance("new", "new.wav")
        raise KeyboardInterrupt

    write_manifest(tmp_path / "all.jsonl", [Utterance("old", "old.wav")])
    with pytest.raises(KeyboardInterrupt):
        write_manifest(tmp_path / "all.jsonl", interrupt())
    with pytest.raises(UnicodeEncodeError):
        write_manifest(tmp_path / "all.jsonl", [Utterance("half a character: \ud800", "new.wav")])
    assert [utterance.id for utterance in read_manifest(tmp_path / "all.jsonl")] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]


BAD_LINES = [
    ("{", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ('{"duration": ' + "9" * 5000 + "}", "is not JSON"),
    ("[]", "is not a JSON object"),
    ({"text": "a"}, "'audio_filepath' is missing"),
    ({"audio_filepath": "", "text": "a"}, "'audio_filepath' is missing, empty"),
    ({"audio_filepath": "a\0.wav", "text": "a"}, "not a path"),
    ({"audio_filepath": 3, "text": "a"}, "'audio_filepath' is 3, not a string"),
    ({"audio_filepath": "a.wav"}, "'text' is missing"),
    ({"audio_filepath": "a.wav", "text": ["a"]}, "'text' is ['a'], not a string"),
    (
        {"audio_filepath": "a.wav", "text": "", "duration": "1.0"},
        "'duration' is '1.0', not a number of seconds",
    ),
    ({"audio_filepath": "a.wav", "text": "", "duration": True}, "'duration' is True, not a number"),
    ({"audio_filepath": "a.wav", "text": "", "duration": -1}, "cannot be negative"),
    ('{"audio_filepath": "a.wav", "text": "", "duration": NaN}', "'duration' is nan, not a number"),
    ('{"audio_filepath": "a.wav", "text": "", "offset": Infinity}', "'offset' is inf, not a number"),
    ('{"audio_filepath": "a.wav", "text": "", "offset": 1' + "0" * 400 + "}", "not a number of seconds"),
]


@pytest.mark.parametrize(("line", "fault"), BAD_LINES)
def test_a_bad_line_is_named(tmp_path, line, fault):
    manifest = write_lines(tmp_path / "all.jsonl", {"audio_filepath": "a.wav", "text": "a"}, "", line)
    with pytest.raises(ManifestError) as error:
        read_manifest(manifest)
    assert str(error.value).startswith(f"{manifest}:3: ")
    assert fault in str(error.value)


@pytest.mark.parametrize(("content", "fault"), [(None, "cannot be read"), (b"\xff\xfe{", "is not UTF-8")])
def test_a_file_that_is_no_manifest_is_named(tmp_path, content, fault):
    if content is not None:
        (tmp_path / "all.jsonl").write_bytes(content)
    with pytest.raises(ManifestError, match=f"all.jsonl: {fault}"):
        read_manifest(tmp_path / "all.jsonl")


# Checking


def one_second(audio: str) -> float:
    """A recording of ten seconds is called ten, a missing one missing; all others last one second."""
    if Path(audio).name == "missing.wav":
        raise UserError(f"{audio}: there is no such file")
    return 10.0 if Path(audio).name == "ten.wav" else 1.0


def keys(**changes: object) -> dict:
    return {"id": "a", "audio_filepath": "a.wav", "duration": 1.0, "text": "go on", **changes}


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ([keys()], []),
        ([keys(duration=1.09)], []),
        ([keys(duration=None)], []),
        ([keys(duration=1.2)], [":1: 'duration' is 1.20 s, but the recording lasts 1.00 s"]),
        ([keys(duration=0.8)], [":1: 'duration' is 0.80 s, but the recording lasts 1.00 s"]),
        ([keys(duration=0)], [":1: there is nothing between 0.00 s and 0.00 s"]),
        ([keys(offset=0.5, duration=0.2)], []),
        ([keys(offset=0.5, duration=0.7)], [":1: ends at 1.20 s, but the recording lasts 1.00 s"]),
        ([keys(offset=2, duration=None)], [":1: there is nothing between 2.00 s and 1.00 s"]),
        ([keys(audio_filepath="ten.wav"), keys(id="b", audio_filepath="ten.wav", offset=1)], []),
        ([keys(text=" \t")], [":1: the text is empty"]),
        ([keys(audio_filepath="missing.wav")], ["missing.wav: there is no such file"]),
        ([keys(), keys(), keys()], [":2: the id 'a' is already used at ", ":3: the id 'a' is already used"]),
        ([keys(text="go ön, now")], [":1: not in the vocabulary: ',' (U+002C), 'ö' (U+00F6)"]),
        (
            ["{", keys(), "", "[]", keys(id="b", text="")],
            [":1: is not JSON", ":4: is not a", ":5: the text is"],
        ),
        ([keys(duration=5, text="")], [":1: the text is empty", ":1: 'duration' is 5.00 s"]),
        ([], ["all.jsonl: lists no utterances"]),
    ],
)
def test_every_fault_is_named_and_none_stops_the_check(tmp_path, lines, faults):
    manifest = write_lines(tmp_path / "all.jsonl", *lines)
    found = check_manifests([manifest], one_second, vocabulary=set("gonw "), normalise=str.strip).faults
    assert len(found) == len(faults)
    for line, fault in zip(found, faults, strict=True):
        assert line.startswith(str(manifest))
        assert fault in line


def test_ids_are_unique_across_manifests(tmp_path):
    dev, test = (write_lines(tmp_path / name, keys()) for name in ("dev.jsonl", "test.jsonl"))
    assert check_manifests([dev, test], one_second).faults == [
        f"{test}:1: the id 'a' is already used at {dev}:1"
    ]


def test_a_missing_duration_is_filled_in(tmp_path):
    manifest = write_lines(tmp_path / "all.jsonl", keys(audio_filepath="ten.wav", offset=4, duration=None))
    [utterance] = check_manifests([manifest], one_second).utterances
    assert utterance.duration == 6.0


# The verb


def test_validate_describes_a_good_manifest(tmp_path):
    write_sound(tmp_path / "a.wav", 1.0)
    write_sound(tmp_path / "b.wav", 2.5)
    manifest = write_lines(
        tmp_path / "all.jsonl",
        keys(id="a", speaker="s1", text="no"),
        keys(id="b", audio_filepath="b.wav", duration=2.5, speaker="s2", text="go on"),
    )
    for arguments in ([manifest], [manifest, "--decode"]):
        result = CliRunner().invoke(validate, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        lines = result.stdout.splitlines()
        assert [" ".join(line.split()) for line in lines] == [
            "utterances 2",
            "hours 0.00",
            "speakers 2",
            "vocabulary 4 characters",
            "'o' 3 'n' 2 'g' 1 ' ' 1",
            "durations",
            f"1 to 2 s 1 {'#' * 50}",
            f"2 to 3 s 1 {'#' * 50}",
            "shortest 1.00 s a",
            "longest 2.50 s b",
        ]


def test_validate_counts_faults_and_fails(tmp_path):
    write_sound(tmp_path / "a.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF, and no more")
    manifest = write_lines(
        tmp_path / "all.jsonl",
        keys(),
        "not JSON",
        keys(id="b", audio_filepath="missing.wav"),
        keys(id="c", audio_filepath="broken.wav"),
    )
    result = CliRunner().invoke(validate, [str(manifest)])
    assert result.exit_code == 1
    *faults, last = result.stderr.splitlines()
    assert [fault.split(": ")[0] for fault in faults] == [f"{manifest}:{number}" for number in (2, 3, 4)]
    assert "missing.wav" in faults[1]
    assert "broken.wav" in faults[2]
    assert last == "faults: 3"
    assert result.stdout.startswith("utterances  3\n")


@pytest.mark.parametrize(
    ("text", "options", "faults"),
    [
        ("go on", [], 0),
        ("Go on", [], 1),
        ("Go on!", ["--normaliser", "letters-v1"], 0),
        ("GO AWAY", ["--normaliser", "letters-v1"], 1),
        ("!?", ["--normaliser", "letters-v1"], 1),
    ],
)
def test_validate_compares_normalised_texts_with_the_tokens_of_a_model(tmp_path, text, options, faults):
    write_sound(tmp_path / "a.wav")
    manifest = write_lines(tmp_path / "all.jsonl", keys(text=text))
    tokens = write_lines(tmp_path / "tokens.txt", "<blank>", "<space>", *"gon")
    result = CliRunner().invoke(validate, [str(manifest), "--tokens", str(tokens), *options])
    assert len(result.stderr.splitlines()) == (faults and faults + 1)
    assert result.exit_code == (1 if faults else 0)


def test_a_list_of_tokens_begins_with_the_blank(tmp_path):
    manifest = write_lines(tmp_path / "all.jsonl", keys())
    tokens = write_lines(tmp_path / "tokens.txt", *"abc")
    result = CliRunner().invoke(validate, [str(manifest), "--tokens", str(tokens)])
    assert isinstance(result.exception, UserError)
    assert "must be <blank>" in str(result.exception)


def test_the_longest_row_has_the_longest_bar_and_a_single_one_is_seen():
    assert [line.split() for line in draw_histogram([1.5] * 100 + [3.5])] == [
        ["1", "to", "2", "s", "100", "#" * 50],
        ["2", "to", "3", "s", "0"],
        ["3", "to", "4", "s", "1", "#"],
    ]
    assert draw_histogram([1000.0])[0].split()[:3] == ["over", "60", "s"]
