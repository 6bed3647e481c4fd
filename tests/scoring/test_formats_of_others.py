"""What ``asr transcribe`` and others write goes into ``asr score``; recordings pair what ids do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from asr.cli import cli
from asr.scoring.counts import ScoringError
from asr.scoring.files import FORMATS, read_texts
from asr.scoring.pairing import pair_texts
from asr.transcript.formats import FORMATS as WRITERS
from asr.transcript.formats import Layout
from asr.transcript.values import Segment, Transcript, Word

SAID = {"a": ["go on & on", "<unk> it's one"], "b": ["three"]}


def make_transcript(name: str) -> Transcript:
    segments = []
    for number, text in enumerate(SAID[name]):
        spoken = [
            Word(word, 5 * number + place, 5 * number + place + 0.5, 0.9)
            for place, word in enumerate(text.split())
        ]
        segments.append(Segment(spoken[0].start, spoken[-1].end, text, tuple(spoken)))
    return Transcript(f"talks/{name}.flac", 10.0, tuple(segments), "digits", {})


def write_references(folder: Path) -> Path:
    """A manifest without ids, as other programs make it."""
    lines = [{"audio_filepath": f"/data/{name}.wav", "text": " ".join(said)} for name, said in SAID.items()]
    path = folder / "ref.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def list_pairs(folder: Path, hypotheses: Path, format: str | None = None) -> dict[str, str]:
    """The hypotheses by the last letter of their reference's recording."""
    references = read_texts(write_references(folder))
    letters = {u.id: Path(u.audio).stem for u in references.utterances}
    paired = pair_texts(references, read_texts(hypotheses, format))
    return {letters[u.id]: u.text for u in paired.utterances}


WHOLE = {name: " ".join(said) for name, said in SAID.items()}


@pytest.mark.parametrize("format", sorted(WRITERS))
@pytest.mark.parametrize("by_word", [False, True])
def test_a_folder_of_what_transcribe_writes_is_read(tmp_path, format, by_word):
    out = tmp_path / "out"
    out.mkdir()
    for name in SAID:
        (out / f"{name}.{format}").write_text(
            WRITERS[format](make_transcript(name), Layout(cue_per_word=by_word))
        )
    assert list_pairs(tmp_path, out) == WHOLE


@pytest.mark.parametrize("format", ["json", "jsonl", "ctm"])
def test_transcripts_one_behind_the_other_are_read(tmp_path, format):
    hypotheses = tmp_path / f"hyp.{format}"
    hypotheses.write_text("".join(WRITERS[format](make_transcript(name), Layout()) for name in SAID))
    assert list_pairs(tmp_path, hypotheses) == WHOLE


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv", "json"])
def test_a_transcript_of_one_recording_has_the_name_of_its_file(tmp_path, format):
    hypotheses = tmp_path / f"a.{format}"
    hypotheses.write_text(WRITERS[format](make_transcript("a"), Layout()))
    assert list_pairs(tmp_path, hypotheses) == {"a": WHOLE["a"]}


def test_names_and_texts_with_a_tab_between_are_read(tmp_path):
    hypotheses = tmp_path / "hyp.tsv"
    hypotheses.write_text("".join(f"talks/{name}.flac\t{text}\n" for name, text in WHOLE.items()))
    assert list_pairs(tmp_path, hypotheses) == WHOLE


@pytest.mark.parametrize("format", ["json", "vtt", "srt", "jsonl"])
def test_stdin_is_a_file_like_any_other(tmp_path, format):
    reference = tmp_path / "ref.jsonl"
    reference.write_text(json.dumps({"id": "a" if format[0] == "j" else "-", "text": WHOLE["a"]}) + "\n")
    content = WRITERS[format](make_transcript("a"), Layout())
    command = ["score", str(reference), "-", "--normaliser", "none-v1", "--json"]
    result = CliRunner().invoke(cli, command, input=content)
    assert result.exception is None
    assert json.loads(result.stdout)["results"][0]["wer"] == 0
    assert CliRunner().invoke(cli, ["score", "-", "-"]).exit_code == 2
    result = CliRunner().invoke(cli, ["score", str(reference), "-"], input="one two\n")
    assert "stdin: the name does not tell the format" in str(result.exception)


OTHERS = {
    "metadata.csv": "file_name,transcription\na.wav,go on\nb/c.wav,three\n",
    "deepspeech.csv": "wav_filename,wav_filesize,transcript\na.wav,1000,go on\nb/c.wav,10,three\n",
    "athena.csv": "wav_filename\twav_length_ms\ttranscript\tspeaker\na.wav\t9\tgo on\ts\n"
    "b/c.wav\t9\tthree\ts\n",
    "excel.csv": 'File;Text\r\na.wav;"go on"\r\nb/c.wav;three\r\n',
    "metadata.jsonl": '{"file_name": "a.wav", "text": "go on"}\n{"file_name": "b/c.wav", "text": "three"}\n',
    "wenet.list.jsonl": '{"key": "a", "wav": "x/a.wav", "txt": "go on"}\n'
    '{"key": "c", "wav": "c.wav", "txt": "three"}',
    "list.json": '[\n{"audio": {"path": "a.wav"}, "sentence": "go on"},\n'
    '{"audio": "b/c.wav", "text": "three"}]',
    "mapping.json": '{"a": "go on", "b/c": "three"}',
    "objects.json": '{"a": {"text": "go on"}, "c": {"text": "three"}}',
    "around.json": '{"utterances": [{"id": "a", "text": "go on"}, {"id": "c", "text": "three"}]}',
}


@pytest.mark.parametrize("name", OTHERS)
def test_tables_and_lists_of_others_are_read(tmp_path, name):
    (tmp_path / name).write_text(OTHERS[name])
    (tmp_path / "ref.tsv").write_text("a\tgo on\nb/c\tthree\n")
    references, hypotheses = read_texts(tmp_path / "ref.tsv"), read_texts(tmp_path / name)
    assert pair_texts(references, hypotheses).by_id == {"a": "go on", "b/c": "three"}
    assert read_texts(tmp_path / name).by_id == pair_texts(hypotheses, hypotheses).by_id


def test_the_column_of_the_ids_can_be_chosen(tmp_path):
    (tmp_path / "x.csv").write_text("id,nr,said\nz,1,go on\nz,2,three\n")
    (tmp_path / "y.jsonl").write_text('{"id": "z", "nr": 2, "text": "x"}\n')
    assert read_texts(tmp_path / "x.csv", None, "said", "nr").by_id == {"1": "go on", "2": "three"}
    assert read_texts(tmp_path / "y.jsonl", id_key="nr").by_id == {"2": "x"}
    command = ["score", str(tmp_path / "x.csv"), str(tmp_path / "y.jsonl"), "--ref-text", "said", "--json"]
    result = CliRunner().invoke(cli, [*command, "--ref-id", "nr", "--hyp-id", "nr"])
    assert json.loads(result.stdout)["results"][0]["word_counts"]["deletions"] == 2
    with pytest.raises(ScoringError, match="lines has no keys"):
        (tmp_path / "x.txt").write_text("a")
        read_texts(tmp_path / "x.txt", id_key="nr")


def pair_names(references: list[str], hypotheses: list[str], folder: Path) -> list[str]:
    """The ids that hypotheses get."""
    for side, names in (("ref", references), ("hyp", hypotheses)):
        lines = [{"id": name, "text": "x"} for name in names]
        (folder / f"{side}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    paired = pair_texts(read_texts(folder / "ref.jsonl"), read_texts(folder / "hyp.jsonl"))
    return [utterance.id for utterance in paired.utterances]


def test_names_pair_only_where_they_tell_recordings_apart(tmp_path):
    days = ["monday/call.wav", "tuesday/call.wav"]
    assert pair_names(days, ["out/tuesday/call.txt", "out/monday/call.txt"], tmp_path) == days[::-1]
    assert pair_names(days, ["call"], tmp_path) == ["call"]
    assert pair_names(["a.wav"], ["x/a.wav", "y/a.wav"], tmp_path) == ["x/a.wav", "y/a.wav"]
    assert pair_names(["v1.1", "v1.2"], ["v1.3"], tmp_path) == ["v1.3"]
    assert pair_names(["a", "x/a.wav"], ["a"], tmp_path) == ["a"]
    assert pair_names(["a.wav"], ["c:\\talks\\a.mp3"], tmp_path) == ["a.wav"]


def test_a_folder_without_transcripts_is_named(tmp_path):
    (tmp_path / "x.bin").write_text("")
    with pytest.raises(ScoringError, match="holds no files of one recording each, which end in"):
        read_texts(tmp_path)
    with pytest.raises(ScoringError, match="holds no files of one recording each in srt"):
        read_texts(tmp_path, "srt")
    assert {"srt", "vtt", "whole"} <= set(FORMATS)
