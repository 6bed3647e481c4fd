"""Every format read and paired, what does not fit named, and totals held to sclite."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asr.cli import cli
from asr.data.manifest import ManifestError
from asr.errors import UserError
from asr.scoring.counts import ScoringError, compare_texts
from asr.scoring.files import (
    group_utterances,
    name_duration_bucket,
    read_hypotheses,
    read_texts,
    take_speakers_from_ids,
)
from asr.scoring.pairing import pair_texts

REFERENCE = {"u1": "one two three", "u2": "", "u3": "four"}
IN_FORMATS = {
    "x.jsonl": "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in REFERENCE.items()),
    "text": "u1 one two three\nu2\nu3 four\n",
    "x.trn": "one two three (u1)\n(u2)\n;; a comment\nfour (u3)\n",
    "x.csv": 'id,text\nu1,"one two three"\nu2,\nu3,four\n',
    "x.tsv": "text\tid\none two three\tu1\n\tu2\nfour\tu3\n",
    "plain.tsv": "u1\tone two three\nu2\t\nu3\tfour\n",
}


def write_file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def run_score(folder: Path, reference: str, hypothesis: str, *options: str) -> Result:
    return CliRunner().invoke(cli, ["score", str(folder / reference), str(folder / hypothesis), *options])


# Reading


@pytest.mark.parametrize("name", IN_FORMATS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", [True, False])
def test_a_text_is_the_same_in_every_format(tmp_path, name, end, mark, last):
    content = mark + IN_FORMATS[name].replace("\n", end)
    path = write_file(tmp_path, name, content if last else content.removesuffix(end))
    assert read_texts(path).by_id == REFERENCE


def test_plain_lines_are_numbered_and_end_nowhere_else(tmp_path):
    path = write_file(tmp_path, "x.txt", "one\u2028two\x0cthree\n\nfour\r\n")
    assert read_texts(path).by_id == {"1": "one\u2028two\x0cthree", "2": "", "3": "four"}


def test_a_format_that_the_name_does_not_tell_can_be_said(tmp_path):
    path = write_file(tmp_path, "hyp", IN_FORMATS["x.trn"])
    assert read_texts(path, "trn").by_id == REFERENCE
    with pytest.raises(ScoringError, match=r"hyp: the name does not tell the format.*jsonl, csv"):
        read_texts(path)


def test_the_key_of_the_text_can_be_chosen(tmp_path):
    lines = json.dumps({"audio_filepath": "a.wav", "text": "one", "pred_text": "won", "lang": "en"})
    path = write_file(tmp_path, "nemo.json", lines)
    assert read_texts(path).by_id == {"nemo-000001": "one"}
    assert read_texts(path, text_key="pred_text").by_id == {"nemo-000001": "won"}
    assert group_utterances(read_texts(path, text_key="pred_text"), "lang") == {"nemo-000001": "en"}
    assert read_texts(write_file(tmp_path, "x.csv", "id,said\na,b\n"), text_key="said").by_id == {"a": "b"}
    with pytest.raises(ScoringError, match="trn has no keys"):
        read_texts(write_file(tmp_path, "x.trn", "a (b)"), text_key="pred_text")


def test_what_was_recognised_is_the_text_of_a_hypothesis(tmp_path):
    rows = [{"id": "a", "text": "one", "pred_text": "won"}, {"id": "b", "text": "two", "pred_text": ""}]
    path = write_file(tmp_path, "results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read_hypotheses(path).by_id == {"a": "won", "b": ""}
    assert read_hypotheses(path, text_key="text").by_id == {"a": "one", "b": "two"}
    assert read_texts(path).by_id == {"a": "one", "b": "two"}
    del rows[1]["pred_text"]
    path = write_file(tmp_path, "mixed.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read_hypotheses(path).by_id == {"a": "one", "b": "two"}


def test_common_voice_columns_are_known(tmp_path):
    path = write_file(tmp_path, "test.tsv", 'client_id\tpath\tsentence\nabc\t1.mp3\tSay "no".\n')
    assert read_texts(path).by_id == {"1.mp3": 'Say "no".'}
    assert group_utterances(read_texts(path), "client_id") == {"1.mp3": "abc"}


def test_a_kaldi_directory_tells_speakers_recordings_and_times(tmp_path):
    path = write_file(tmp_path, "text", IN_FORMATS["text"])
    write_file(tmp_path, "utt2spk", "u1 anna\nu2 anna\nu3 ben\n")
    write_file(tmp_path, "segments", "u1 rec 0.5 2.0\nu3 rec 2.0 15.0\n")
    texts = read_texts(path)
    assert group_utterances(texts, "speaker") == {"u1": "anna", "u2": "anna", "u3": "ben"}
    assert group_utterances(texts, "recording") == {"u1": "rec", "u3": "rec"}
    assert group_utterances(texts, "duration") == {"u1": " 1 to 2 s", "u3": "10 to 20 s"}
    assert (texts.utterances[0].start, texts.utterances[0].duration) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("duration", "name"), [(0, " 0 to 1 s"), (1, " 1 to 2 s"), (9.99, " 5 to 10 s"), (31, "30 s and more")]
)
def test_durations_fall_into_buckets_that_sort(duration, name):
    assert name_duration_bucket(duration) == name
    names = [name_duration_bucket(seconds) for seconds in range(40)]
    assert names == sorted(names)


def test_speakers_can_be_taken_from_the_ids(tmp_path):
    texts = read_texts(write_file(tmp_path, "x.trn", "a (84-1-2)\nb (85-1-2)\n"))
    assert group_utterances(take_speakers_from_ids(texts, re.compile("^([^-]+)")), "speaker") == {
        "84-1-2": "84",
        "85-1-2": "85",
    }
    with pytest.raises(ScoringError, match=r"'\^\(x\)' is not found in '84-1-2', '85-1-2'"):
        take_speakers_from_ids(texts, re.compile("^(x)"))
    assert run_score(tmp_path, "x.trn", "x.trn", "--speaker-from", "(").exit_code == 2


def test_a_key_that_no_reference_has_is_named_with_those_there_are(tmp_path):
    texts = read_texts(write_file(tmp_path, "x.csv", "id,text,accent\na,b,c\n"))
    with pytest.raises(ScoringError, match=r"no reference has 'age'; there is 'accent'"):
        group_utterances(texts, "age")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.trn", "one two\n", "x.trn:1: does not end in an id"),
        ("x.stm", "rec A s 1.0 x one\n", "x.stm:1: is not: recording channel speaker start end"),
        ("x.stm", "rec A s 2.0 1.0 one\n", "x.stm:1: is not"),
        ("x.ctm", ";; head\nrec A 1.0 one\n", "x.ctm:2: is not: recording channel start duration word"),
        (
            "x.csv",
            "name,words\n",
            "x.csv:1: has no column of ids or recordings, such as 'id' (or give --ref-id) and no column of "
            "texts, such as 'text' (or give --ref-text); there is 'name', 'words'",
        ),
        ("x.csv", "id,text\na,b,c\n", "x.csv:2: has 3 columns instead of 2"),
        ("x.tsv", "a\tb\tc\n", "x.tsv:1: has no column of ids"),
        ("x.csv", "id,said\na,b\n", "x.csv:1: has no column of texts, such as 'text'"),
        ("x.csv", "said,text\na,b\n", "x.csv:1: has no column of ids or recordings"),
        ("x.srt", "one two\n", "x.srt: is not subtitles"),
        ("x.json", '[{"id": "a", "text": "b"}, 3]', "x.json:1: is not a JSON object"),
        ("x.json", '{\n"id": "a",\n"text" "b"}', "x.json:3: is not JSON"),
        ("x.txt", b"\xff\xfeo\0n\0e\0", "x.txt: is not UTF-8"),
        ("x.jsonl", None, "x.jsonl: cannot be read"),
    ],
)
def test_what_is_not_in_its_format_is_named(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        write_file(tmp_path, name, content)
    with pytest.raises(ManifestError, match=re.escape(says)):
        read_texts(path)


# What texts may hold: every one of these through files, pairing, counts and print


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("", "one", 1),
        ("one", "", 1),
        ("", "", 0),
        ("a", "", 1),
        ("a", "b", 1),
        ("word " * 100_000, "word " * 99_998 + "oh", 2),
        ("שלום עולם \u200f", "שלום עולמות", 2),
        ("مرحبا بالعالم", "بالعالم", 1),
        ("one 👩‍🚀", "one 👩", 1),
        ("cafe\u0301 न्", "caf\u00e9 न", 2),
        ("a\0b \0", "a\0b", 1),
        ("one\ttwo", "one two", 0),
        ("\ufeffone", "one", 1),
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "x.txt", "x.trn", "text"])
def test_any_text_goes_through(tmp_path, name, reference, hypothesis, errors):
    line = {
        "x.jsonl": lambda text: json.dumps({"id": "u", "text": text}) + "\n",
        "x.txt": lambda text: f"go on\n{text}\r\n",
        "x.trn": lambda text: f";; a mark at the beginning would be the file's\n{text} (u)\n",
        "text": lambda text: f"u {text}\n",
    }[name]
    for side, text in (("ref", reference), ("hyp", hypothesis)):
        (tmp_path / side).mkdir()
        write_file(tmp_path / side, name, line(text))
    result = run_score(tmp_path, f"ref/{name}", f"hyp/{name}", "--normaliser", "none-v1", "--json")
    assert isinstance(result.exception, SystemExit | UserError | None)
    counts = json.loads(result.stdout)["results"][0]["word_counts"]
    assert counts["substitutions"] + counts["deletions"] + counts["insertions"] == errors
    assert result.exit_code == int(counts["reference_length"] == 0)
    shown = run_score(tmp_path, f"ref/{name}", f"hyp/{name}", "--show-normalised", "--confusions", "3")
    assert isinstance(shown.exception, SystemExit | UserError | None)
    assert "\0" not in shown.stdout


# Pairing


def test_plain_lines_are_paired_by_position_and_must_be_as_many(tmp_path):
    write_file(tmp_path, "ref.txt", "a\n\none two\n")
    write_file(tmp_path, "hyp.txt", "\nx\none two\n")  # where some tools drop lines and report nothing
    result = run_score(tmp_path, "ref.txt", "hyp.txt", "--json")
    (found,) = json.loads(result.stdout)["results"]
    assert (found["wer"], found["word_counts"]["deletions"], found["word_counts"]["insertions"]) == (
        2 / 3,
        1,
        1,
    )
    write_file(tmp_path, "short.txt", "a\none two\n")
    result = run_score(tmp_path, "ref.txt", "short.txt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "short.txt: 2 texts for 3 references" in str(result.exception)


def test_plain_lines_fit_any_references_in_their_order(tmp_path):
    references = read_texts(write_file(tmp_path, "x.trn", IN_FORMATS["x.trn"]))
    lines = read_texts(write_file(tmp_path, "hyp.txt", "one\n\nfour\n"))
    assert pair_texts(references, lines).by_id == {"u1": "one", "u2": "", "u3": "four"}


def test_ids_are_not_taken_for_words(tmp_path):
    write_file(tmp_path, "ref.txt", "u1 one\nu2 two\n")
    for lines in ("u2 two\nu1 won\n", "u1 won\nu2 two\n"):
        write_file(tmp_path, "hyp.txt", lines)
        result = run_score(tmp_path, "ref.txt", "hyp.txt")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "lines begin with the ids of" in str(result.exception)
    write_file(tmp_path, "hyp.txt", "u1 won\nu2 two\nu5 more\n")  # one of them is another
    assert "lines begin with the ids of" in str(run_score(tmp_path, "ref.txt", "hyp.txt").exception)
    write_file(tmp_path, "hyp.txt", "u1 won\nu2 two\n")
    for format, wer in (("kaldi", 0.5), ("lines", 0.25)):
        options = ("--ref-format", format, "--hyp-format", format, "--json")
        result = run_score(tmp_path, "ref.txt", "hyp.txt", *options)
        assert json.loads(result.stdout)["results"][0]["wer"] == wer


@pytest.mark.parametrize(
    ("reference", "hypothesis", "option"), [("text", "hyp.txt", "--hyp"), ("ref.txt", "text", "--ref")]
)
def test_ids_in_one_of_two_files_are_not_taken_for_words(tmp_path, reference, hypothesis, option):
    write_file(tmp_path, reference, "anna-1 one\nben-1 two\n")
    write_file(tmp_path, hypothesis, "ben-1 two\nanna-1 won\n")
    result = run_score(tmp_path, reference, hypothesis)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"pair by them with {option}-format kaldi, or" in str(result.exception)
    result = run_score(tmp_path, reference, hypothesis, f"{option}-format", "kaldi", "--json")
    assert json.loads(result.stdout)["results"][0]["wer"] == 0.5
    assert run_score(tmp_path, reference, hypothesis, f"{option}-format", "lines", "--json").exit_code == 0


STM = """;; a comment
rec A anna 1.0 2.0 <o,f0,female> one two
rec A ben 4.0 5.0 <o,f0,male> three four
rec A ben 7.0 8.0 <o,f0,male> IGNORE_TIME_SEGMENT_IN_SCORING
rec B carl 0.0 9.0 five
"""
CTM = """rec A 0.1 0.2 before 0.9
rec A 1.5 0.2 two
rec A 1.1 0.2 one
rec A 1.9 0.4 late
rec A 2.9 0.2 gap
rec A 4.1 0.2 three
rec A 6.0 0.2 ignored
rec A 7.2 0.2 too
rec A 8.2 0.2 three
rec B 1.0 0.5 five
rec B 9.5 0.5 after
"""


def test_the_words_of_a_ctm_file_fall_into_the_segments_of_an_stm_file(tmp_path):
    references = read_texts(write_file(tmp_path, "ref.stm", STM))
    hypotheses = pair_texts(references, read_texts(write_file(tmp_path, "hyp.ctm", CTM)))
    assert hypotheses.by_id == {
        "rec-A-1.0-2.0": "before one two",
        "rec-A-4.0-5.0": "late gap three",
        "rec-B-0.0-9.0": "five after",
    }
    assert [word["start"] for word in hypotheses.utterances[0].extra["words"]] == [0.1, 1.1, 1.5]
    assert set(group_utterances(references, "speaker").values()) == {"anna", "ben", "carl"}


def test_a_ctm_file_needs_segments_for_its_recordings(tmp_path):
    references = read_texts(write_file(tmp_path, "ref.stm", STM))
    with pytest.raises(ScoringError, match="no segments for recording and channel 'rec C'"):
        pair_texts(references, read_texts(write_file(tmp_path, "hyp.ctm", "rec C 1.0 0.2 one\n")))
    with pytest.raises(ScoringError, match="need hypotheses in CTM"):
        pair_texts(references, read_texts(write_file(tmp_path, "x.trn", "one (u1)\n")))


def test_a_ctm_file_is_paired_by_its_recordings_where_there_are_no_segments(tmp_path):
    references = read_texts(write_file(tmp_path, "x.trn", "one two (u1)\n"))
    words = read_texts(write_file(tmp_path, "hyp.ctm", "u1 1 0.1 0.2 one\nu1 1 0.4 0.2 too\n"))
    assert pair_texts(references, words).by_id == {"u1": "one too"}


# sclite, NIST's program, as the outside judge


def sclite(*arguments: str) -> dict[str, list[int]]:
    """What ``sclite`` counts for each utterance: correct, substitutions, deletions, insertions."""
    if shutil.which("sctk") is None:
        pytest.skip("sctk is not installed (Debian: apt-get install sctk)")
    command = ["sctk", "sclite", *arguments, "-s", "-o", "pralign", "stdout"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^id: \((.*)\)$(?:\n.*)*?\nScores: \(#C #S #D #I\) (.*)$", printed, re.MULTILINE)
    return {name: list(map(int, counts.split())) for name, counts in found}


def test_totals_are_those_of_sclite(tmp_path):
    generator = random.Random(1)
    words = [f"w{number}" for number in range(60)]
    references, hypotheses = {}, {}
    for number in range(1500):
        reference = generator.choices(words, k=generator.randint(1, 20))
        hypothesis: list[str] = []
        for word in reference:
            chance = generator.random()
            if chance < 0.10:
                hypothesis.append(generator.choice(words))
            elif chance >= 0.15:
                hypothesis.append(word)
            if chance > 0.95:
                hypothesis.append(generator.choice(words))
        references[f"spk-{number:04}"], hypotheses[f"spk-{number:04}"] = (
            " ".join(reference),
            " ".join(hypothesis),
        )
    for name, texts in (("ref.trn", references), ("hyp.trn", hypotheses)):
        write_file(tmp_path, name, "".join(f"{text} ({id})\n" for id, text in texts.items()))
    theirs = sclite("-r", f"{tmp_path}/ref.trn", "trn", "-h", f"{tmp_path}/hyp.trn", "trn", "-i", "spu_id")
    ours = compare_texts(references, read_texts(tmp_path / "hyp.trn").by_id)
    assert set(theirs) == set(references)
    otherwise, more = 0, 0
    for id, (_, substitutions, deletions, insertions) in theirs.items():
        score = ours.count_utterance(id)
        if score.errors < substitutions + deletions + insertions:
            more += 1  # cheaper to sclite all the same: 4 for a substitution, 3 for the others
            cost = 4 * score.substitutions + 3 * (score.deletions + score.insertions)
            assert 4 * substitutions + 3 * (deletions + insertions) < cost
        else:
            assert score.errors == substitutions + deletions + insertions, id
            assert score.substitutions >= substitutions
            otherwise += score.substitutions > substitutions
    assert 0 < otherwise < 0.05 * len(references)
    assert more <= 2


def test_words_are_shared_out_among_segments_as_sclite_does(tmp_path):
    write_file(tmp_path, "ref.stm", STM)
    in_order = sorted(CTM.splitlines(), key=lambda line: (line.split()[1], float(line.split()[2])))
    write_file(tmp_path, "hyp.ctm", "\n".join(in_order))
    theirs = sclite("-r", f"{tmp_path}/ref.stm", "stm", "-h", f"{tmp_path}/hyp.ctm", "ctm")
    references = read_texts(tmp_path / "ref.stm")
    hypotheses = pair_texts(references, read_texts(tmp_path / "hyp.ctm"))
    ours = compare_texts(references.by_id, hypotheses.by_id)
    assert sorted(counts[1:] for counts in theirs.values()) == sorted(
        [score.substitutions, score.deletions, score.insertions]
        for score in map(ours.count_utterance, ours.references)
    )
