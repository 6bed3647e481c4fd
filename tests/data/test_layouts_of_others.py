"""Tables, Hugging Face's folders, spontaneous speech, .lab and TextGrid; bad clips are named and left out."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from asr.data.corpora.recordings import CorpusError
from asr.data.corpora.textgrid import read_textgrid
from asr.errors import UserError
from asr.transcript.formats import format_textgrid
from asr.transcript.values import AlignedText, AlignedWord, Word
from tests.data.test_corpora import essentials, prepare_corpus, write, write_sound

# Tables


TABLES = {
    "a.csv": 'audio,text,speaker_id\r\nx.wav,"go, on",ann\r\ny.wav,three,\r\n',
    "b.csv": "wav_filename\twav_length_ms\ttranscript\tspeaker\nx.wav\t9\tgo, on\tann\ny.wav\t9\tthree\t\n",
    "c.csv": "File;Sentence;Speaker\nx.wav;go, on;ann\ny.wav;three;\n",
    "d.tsv": "path\tsentence\tclient_id\nx.mp3\tgo, on\tann\ny\tthree\t\n",
    "e.csv": "x.wav|go, on|ann\ny.wav|three|ben\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_a_corpus(tmp_path, name):
    write(tmp_path / name, "\ufeff" + TABLES[name])
    write_sound(tmp_path / "x.wav", 0.5)
    write_sound(tmp_path / "wavs/y.wav", 0.7)
    for corpus in (tmp_path, tmp_path / name):
        [(split, utterances)] = prepare_corpus("csv", corpus).items()
        speaker = "" if name == "e.csv" else "ann"
        assert split == name[0]
        assert essentials(utterances) == [("x", "go, on", speaker), ("y", "three", "")]
        assert [u.duration for u in utterances] == [0.5, 0.7]


def test_a_table_may_have_segments_splits_and_columns_of_its_own(tmp_path):
    rows = "id,audio,offset,duration,text,split,age\n"
    rows += ",x.wav,0,0.2,one,train,9\n,x.wav,0.2,0.3,two,train,\nz,x.wav,,,all,dev,\n"
    write(tmp_path / "t.csv", rows)
    write_sound(tmp_path / "x.wav", 0.5)
    splits = prepare_corpus("csv", tmp_path / "t.csv")
    assert {name: [(u.id, u.start, u.duration) for u in splits[name]] for name in splits} == {
        "train": [("x-1", 0.0, 0.2), ("x-2", 0.2, 0.3)],
        "dev": [("z", 0.0, 0.5)],
    }
    assert splits["train"][0].extra == {"split": "train", "age": "9"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("name,words\na,b\n", "is no table of recordings: expected"),
        ("audio,text\nx.wav\n", "t.csv:2: has 1 columns instead of 2"),
        ("audio,text,offset\nx.wav,a,soon\n", "t.csv:2: 'offset' is 'soon', not a number of seconds"),
        ("audio,text\n,a\n", "t.csv:2: names no recording"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path, content, says):
    write(tmp_path / "t.csv", content)
    with pytest.raises(UserError, match=says):
        prepare_corpus("csv", tmp_path)


# Hugging Face


def test_a_folder_of_audio_has_its_splits(tmp_path):
    write(
        tmp_path / "train/metadata.csv", "file_name,transcription,lang\na.wav,go on,en\ndeep/a.wav,three,en\n"
    )
    write(tmp_path / "test/metadata.jsonl", json.dumps({"file_name": "c.wav", "text": "no", "speaker_id": 7}))
    for name in ("train/a", "train/deep/a", "test/c"):
        write_sound(tmp_path / f"{name}.wav")
    splits = prepare_corpus("huggingface", tmp_path)
    assert {name: essentials(utterances) for name, utterances in splits.items()} == {
        "test": [("test/c", "no", "7")],
        "train": [("train/a", "go on", ""), ("train/deep/a", "three", "")],
    }
    assert splits["train"][0].extra == {"lang": "en"}


def test_parquet_is_named(tmp_path):
    write(tmp_path / "data/train-0.parquet", "PAR1")
    with pytest.raises(CorpusError, match=r"train-0\.parquet holds recordings itself"):
        prepare_corpus("huggingface", tmp_path)


# Common Voice


def test_spontaneous_speech_is_prepared_by_its_column_of_splits(tmp_path):
    header = "client_id\taudio_id\taudio_file\tduration_ms\tprompt\ttranscription\tsplit\n"
    rows = [
        "c1\t1\ta.mp3\t500\tWhat?\tthis is\ttrain",
        "c2\t2\tb.mp3\t500\tWho?\t\t",
        "c2\t3\tc.mp3\t500\t\tme\tdev",
    ]
    write(tmp_path / "ss-corpus-en.tsv", header + "\n".join(rows) + "\n")
    for name in "abc":
        write_sound(tmp_path / f"audios/{name}.mp3")
    splits = prepare_corpus("commonvoice", tmp_path)
    assert {name: essentials(utterances) for name, utterances in splits.items()} == {
        "train": [("a", "this is", "c1")],
        "dev": [("c", "me", "c2")],
    }
    assert splits["train"][0].extra == {"prompt": "What?"}


def test_missing_and_empty_clips_are_named_and_left_out(tmp_path, caplog):
    header = "client_id\tpath\tsentence\n"
    write(tmp_path / "train.tsv", header + "".join(f"x\t{name}.mp3\tgo on\n" for name in "abc"))
    write(tmp_path / "other.tsv", header + "x\td.mp3\tno\n")
    write_sound(tmp_path / "clips/a.mp3")
    write(tmp_path / "clips/b.mp3", "")
    with caplog.at_level(logging.WARNING):
        splits = prepare_corpus("commonvoice", tmp_path)
    assert {name: [u.id for u in utterances] for name, utterances in splits.items()} == {"train": ["a"]}
    assert [message.startswith("left out: ") for message in caplog.messages] == [True] * 3
    for name, what in (("b", "is empty"), ("c", "1 of 3 recordings are missing"), ("d", "no such recording")):
        assert any(f"{name}.mp3" in message and what in message for message in caplog.messages)


# Texts beside recordings


def test_lab_is_a_text_and_txt_comes_first(tmp_path):
    for name in ("a", "b"):
        write_sound(tmp_path / f"{name}.wav")
    write(tmp_path / "a.lab", "go on\n")
    write(tmp_path / "b.lab", "wrong\n")
    write(tmp_path / "b.txt", "right\n")
    assert essentials(prepare_corpus("folder", tmp_path)["all"]) == [("a", "go on", ""), ("b", "right", "")]


def test_labels_with_times_are_sentences_or_nobody_knows_what(tmp_path, caplog):
    for name in ("a", "b"):
        write_sound(tmp_path / f"{name}.wav")
    write(tmp_path / "a.lab", "0 2500000 go on\n2500000 5000000 three\n")
    write(tmp_path / "b.lab", "0 2500000 ah\n2500000 5000000 n\n")
    with caplog.at_level(logging.WARNING):
        assert essentials(prepare_corpus("folder", tmp_path)["all"]) == [("a", "go on three", "")]
    assert "b.lab: has times and labels, which may be phones" in caplog.text


def make_textgrid(tiers: dict[str, list[tuple[float, float, str]]], is_short: bool = False) -> str:
    """A TextGrid as Praat writes it; one tier of points is among the tiers."""
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", "xmax = 0.5"]
    lines += ["tiers? <exists>", f"size = {len(tiers) + 1}", "item []:", "    item [1]:"]
    lines += ['class = "TextTier"', 'name = "clicks"', "xmin = 0", "xmax = 0.5", "points: size = 1"]
    lines += ["points [1]:", "number = 0.1", 'mark = "!"']
    for number, (name, intervals) in enumerate(tiers.items(), start=2):
        lines += [
            f"    item [{number}]:",
            'class = "IntervalTier"',
            f'name = "{name}"',
            "xmin = 0",
            "xmax = 0.5",
        ]
        lines.append(f"intervals: size = {len(intervals)}")
        for place, (start, end, text) in enumerate(intervals, start=1):
            quoted = text.replace('"', '""')
            lines += [f"intervals [{place}]:", f"xmin = {start}", f"xmax = {end} ", f'text = "{quoted}"']
    if is_short:
        bare = [line.rpartition("= ")[2].strip() for line in lines if "= " in line or "<exists>" in line]
        lines = ["<exists>" if line.startswith("tiers?") else line for line in bare]
    return "\n".join(lines) + "\n"


GRID = {
    "anna - words": [(0, 0.2, "go"), (0.2, 0.4, 'on "now"'), (0.4, 0.5, "sil")],
    "anna - phones": [(0, 0.2, "g"), (0.2, 0.5, "o")],
}


@pytest.mark.parametrize("is_short", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_the_words_of_a_textgrid_are_a_text(tmp_path, is_short, encoding):
    write_sound(tmp_path / "a.wav")
    (tmp_path / "a.TextGrid").write_bytes(make_textgrid(GRID, is_short).encode(encoding))
    assert [tier.name for tier in read_textgrid(tmp_path / "a.TextGrid")] == list(GRID)
    assert essentials(prepare_corpus("folder", tmp_path)["all"]) == [("a", 'go on "now"', "")]


def test_intervals_of_other_tiers_are_utterances(tmp_path):
    write_sound(tmp_path / "a.wav")
    tiers = {"anna": [(0, 0.2, "go on"), (0.2, 0.4, "")], "ben": [(0.1, 0.35, "no")]}
    write(tmp_path / "a.TextGrid", make_textgrid(tiers))
    found = prepare_corpus("folder", tmp_path)["all"]
    assert [(u.id, u.start, u.duration, u.text, u.speaker) for u in found] == [
        ("a-0001", 0.0, 0.2, "go on", "anna"),
        ("a-0002", 0.1, 0.25, "no", "ben"),
    ]


def test_what_align_writes_is_read(tmp_path):
    write_sound(tmp_path / "a.wav")
    words = tuple(
        AlignedWord(Word(text, 0.1 * n, 0.1 * n + 0.1, 1.0), ()) for n, text in enumerate(("go", "on"))
    )
    write(tmp_path / "a.TextGrid", format_textgrid(AlignedText("a.wav", 0.5, words, "pieces", "digits")))
    assert essentials(prepare_corpus("folder", tmp_path)["all"]) == [("a", "go on", "")]


@pytest.mark.parametrize(
    "content", ["", "hello", make_textgrid(GRID)[:300], make_textgrid({"phones": [(0, 1, "a")]})]
)
def test_a_textgrid_without_words_is_named(tmp_path, caplog, content):
    write_sound(tmp_path / "a.wav")
    write(tmp_path / "a.TextGrid", content)
    with caplog.at_level(logging.WARNING), pytest.raises(CorpusError, match="none of its texts can be used"):
        prepare_corpus("folder", tmp_path)
    assert f"left out: {tmp_path}/a.TextGrid: " in caplog.text


def test_a_text_of_another_kind_is_named(tmp_path):
    write_sound(tmp_path / "a.wav")
    write(tmp_path / "a.eaf", "<xml>")
    with pytest.raises(CorpusError, match=r"expected NAME\.wav and NAME\.txt.*found a\.eaf"):
        prepare_corpus("folder", Path(tmp_path))
