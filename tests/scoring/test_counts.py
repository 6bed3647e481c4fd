"""Counts against the textbook table and jiwer, pairing by id, and the verb."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import SimpleNamespace

import click
import jiwer
import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from asr.cli import cli
from asr.cli._tables import escape, mark_errors
from asr.errors import UserError
from asr.scoring import counts
from asr.scoring.counts import (
    ErrorCounts,
    Operation,
    ScoringError,
    align_items,
    compare_texts,
    count_pair,
    index_by_id,
    split_words,
    squeeze_spaces,
)
from asr.scoring.jiwer_results import from_jiwer, to_jiwer
from tests.reference import edit_distance

# Few different items, so that sequences have something in common.
items = st.lists(st.sampled_from(["a", "b", "c", "dd", "é", "\0"]), max_size=12)
sentences = items.map(" ".join)
pairs = st.lists(st.tuples(sentences, sentences), max_size=6)


def compare_pairs(pairs: list[tuple[str, str]]):
    """The comparison of pairs of reference and hypothesis, numbered."""
    return compare_texts(
        {str(i): reference for i, (reference, _) in enumerate(pairs)},
        {str(i): hypothesis for i, (_, hypothesis) in enumerate(pairs)},
    )


# Counting


@given(items, items)
def test_errors_are_those_of_the_table(reference, hypothesis):
    score = count_pair(reference, hypothesis)
    hits = len(reference) - score.substitutions - score.deletions
    assert score.errors == edit_distance(reference, hypothesis)
    assert score.substitutions + score.insertions + hits == len(hypothesis)
    assert min(score.substitutions, score.deletions, score.insertions, hits) >= 0
    assert score.reference_length == len(reference)
    assert (score.utterances, score.wrong_utterances) == (1, int(reference != hypothesis))


@given(st.text(), st.text())
@example("\ud800a", "a\udfff")
@example("naïve", "nai\u0308ve")
def test_errors_in_any_characters_are_those_of_the_table(reference, hypothesis):
    left, right = squeeze_spaces(reference), squeeze_spaces(hypothesis)
    assert count_pair(left, right).errors == edit_distance(left, right)


@given(items, items)
def test_an_alignment_rebuilds_both_sides_and_has_the_counts(reference, hypothesis):
    alignment = align_items(reference, hypothesis)
    assert [step.reference for step in alignment if step.kind != "insertion"] == reference
    assert [step.hypothesis for step in alignment if step.kind != "deletion"] == hypothesis
    assert all((step.reference == step.hypothesis) == (step.kind == "equal") for step in alignment)
    kinds = [step.kind for step in alignment]
    score = count_pair(reference, hypothesis)
    assert kinds.count("substitution") == score.substitutions
    assert kinds.count("deletion") == score.deletions
    assert kinds.count("insertion") == score.insertions


def test_an_alignment_is_a_list_of_plain_tuples():
    assert align_items(split_words("one two three"), split_words("one too three four")) == [
        ("equal", "one", "one"),
        ("substitution", "two", "too"),
        ("equal", "three", "three"),
        ("insertion", "", "four"),
    ]


@given(pairs, pairs)
def test_scores_added_are_scores_counted_together(some, others):
    together = compare_pairs(some + others)
    assert together.words == compare_pairs(some).words + compare_pairs(others).words
    assert together.characters == compare_pairs(some).characters + compare_pairs(others).characters
    assert together.words == sum(map(together.count_utterance, together.references), ErrorCounts())


@given(pairs.filter(lambda pairs: pairs and all(reference for reference, _ in pairs)))
def test_totals_are_those_of_jiwer(pairs):
    references, hypotheses = map(list, zip(*pairs, strict=True))
    ours = compare_pairs(pairs)
    theirs = [jiwer.process_words(references, hypotheses), jiwer.process_characters(references, hypotheses)]
    for score, output, rate in zip(
        (ours.words, ours.characters), theirs, (theirs[0].wer, theirs[1].cer), strict=True
    ):
        assert (score.substitutions, score.deletions, score.insertions) == (
            output.substitutions,
            output.deletions,
            output.insertions,
        )
        assert score.error_rate == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "word_errors", "character_errors"),
    [
        ("", "", 0, 0),
        ("a", "a", 0, 0),
        ("a", "", 1, 1),  # where some tools report nothing
        ("", "a b", 2, 3),
        ("a", "b", 1, 1),
        ("a", "a b c", 2, 4),
        ("a b c d", "a x c", 2, 3),
        ("ab c", "abc", 2, 1),
        ("The", "the", 1, 1),  # as given
        ("go, on", "go on", 1, 1),
        ("\u00e9", "e\u0301", 1, 2),  # é twice: one code point, and two
        ("one 👩‍🚀", "one 👩", 1, 2),  # an astronaut is three code points
        ("שלום עולם", "שלום עולמות", 1, 3),
        ("مرحبا بالعالم", "مرحبا", 1, 8),
        ("a\0b", "ab", 1, 1),
        ("one\r\ntwo\r\n", " one\ttwo", 0, 0),
        ("one\u00a0two\u3000three", "one two three", 0, 0),
        ("\ufeffone", "one", 1, 1),  # no white space, whatever it looks like
        ("a" * 1000, "a" * 999, 1, 1),
    ],
)
def test_what_counts_as_an_error(reference, hypothesis, word_errors, character_errors):
    comparison = compare_pairs([(reference, hypothesis)])
    assert comparison.words.errors == word_errors
    assert comparison.characters.errors == character_errors
    assert comparison.words.wrong_utterances == comparison.characters.wrong_utterances == int(word_errors > 0)


@pytest.mark.parametrize("hypothesis", ["", "a b c", "a x c d", "x y z"])
def test_match_error_rate_and_information_lost_are_those_of_jiwer(hypothesis):
    words = compare_pairs([("a b c", hypothesis)]).words
    theirs = jiwer.process_words("a b c", hypothesis)
    assert words.match_error_rate == pytest.approx(theirs.mer, abs=1e-12)
    assert words.word_information_lost == pytest.approx(theirs.wil, abs=1e-12)


def test_nothing_on_either_side_has_no_match_error_rate():
    assert (ErrorCounts(insertions=2).match_error_rate, ErrorCounts(insertions=2).word_information_lost) == (
        1.0,
        1.0,
    )
    for rate in ("match_error_rate", "word_information_lost"):
        with pytest.raises(ScoringError, match="both sides are empty"):
            getattr(ErrorCounts(), rate)


def test_groups_add_up_and_what_has_no_group_is_left_out():
    comparison = compare_texts(
        {"a": "one two", "b": "three", "c": "four"}, {"a": "one", "b": "x", "c": "four"}
    )
    assert comparison.count_by_group({"a": "s2", "c": "s2", "b": "s1"}) == {
        "s1": ErrorCounts(1, 0, 0, 1, 1, 1),
        "s2": ErrorCounts(0, 1, 0, 3, 2, 1),
    }
    assert list(comparison.count_by_group({"b": "s1"})) == ["s1"]


def test_confusions_are_counted():
    found = compare_pairs(
        [("one two", "one too"), ("two", "too"), ("a b", "a"), ("", "oh")]
    ).count_confusions()
    assert found.substitutions == {("two", "too"): 2}
    assert (found.deletions, found.insertions) == ({"b": 1}, {"oh": 1})


def test_a_run_of_white_space_is_one_character():
    assert squeeze_spaces("  ab \t\r\n c ") == "ab c"


def test_rates():
    score = ErrorCounts(1, 2, 3, reference_length=4, utterances=5, wrong_utterances=2)
    assert (score.errors, score.error_rate, score.sentence_error_rate) == (6, 1.5, 0.4)


def test_nothing_has_no_rate():
    with pytest.raises(ScoringError, match="reference is empty"):
        _ = ErrorCounts(insertions=3, utterances=1).error_rate
    with pytest.raises(ScoringError, match="no utterances"):
        _ = ErrorCounts().sentence_error_rate
    assert compare_texts({}, {}).rates == {"wer": None, "cer": None, "ser": None}
    assert compare_pairs([(" ", "a")]).rates == {"wer": None, "cer": None, "ser": 1.0}


def test_a_long_line_takes_no_long_time():
    reference = [f"word{number % 977}" for number in range(20_000)]
    hypothesis = [*reference[:9_000], "oh", *reference[9_003:], "oh"]
    started = monotonic()
    comparison = compare_pairs([(" ".join(reference), " ".join(hypothesis))])
    assert monotonic() - started < 10
    assert comparison.words == ErrorCounts(1, 2, 1, 20_000, 1, 1)
    assert len(comparison.align("0")) == 20_001


# Pairing


def test_a_reference_without_hypothesis_is_deleted_and_listed():
    comparison = compare_texts({"a": "one two", "b": "three", "c": ""}, {"b": "three"})
    assert comparison.words == ErrorCounts(deletions=2, reference_length=3, utterances=3, wrong_utterances=1)
    assert comparison.characters.deletions == len("one two")
    assert comparison.missing == ("a", "c")
    assert {step.kind for step in comparison.align("a")} == {"deletion"}


def test_hypotheses_without_reference_are_named():
    with pytest.raises(ScoringError, match=r"no reference for 'b', 'c'$"):
        compare_texts({"a": "one"}, {"a": "one", "b": "two", "c": ""})
    with pytest.raises(ScoringError, match=r"'4' and 95 more$"):
        compare_texts({}, {str(number): "" for number in range(100)})


def test_ids_that_come_twice_are_named():
    assert index_by_id([("a", "one"), ("b", "one")]) == {"a": "one", "b": "one"}
    with pytest.raises(ScoringError, match=r"more than one text for 'b'$"):
        index_by_id([("b", "one"), ("a", "two"), ("b", "one")])


def test_the_worst_utterances_come_first_and_equals_in_order():
    comparison = compare_pairs([("a", "a"), ("a b c", "a"), ("a", "b"), ("d", "e"), ("", "x y z")])
    assert comparison.worst_first == ["4", "1", "2", "3"]


# Mark-up

STEP = re.compile(
    r"\[-(?P<replaced>\S+)-\]\{\+(?P<by>\S+)\+\}|\[-(?P<deleted>\S+)-\]|\{\+(?P<inserted>\S+)\+\}|(?P<same>\S+)"
)


def parse_marked(sentence: str) -> list[tuple[str, str, str]]:
    """The alignment that a sentence was marked from, its words as they are shown."""
    steps = []
    for word in sentence.split(" ") if sentence else []:
        match = STEP.fullmatch(word)
        assert match
        if match["replaced"]:
            steps.append(("substitution", match["replaced"], match["by"]))
        elif match["deleted"]:
            steps.append(("deletion", match["deleted"], ""))
        elif match["inserted"]:
            steps.append(("insertion", "", match["inserted"]))
        else:
            steps.append(("equal", match["same"], match["same"]))
    return steps


def test_errors_are_marked_inside_the_sentence():
    sentence = mark_errors(
        align_items(split_words("one two three four five"), split_words("one to four five oh"))
    )
    assert click.unstyle(sentence) == "one [-two-]{+to+} [-three-] four five {+oh+}"
    assert sentence != click.unstyle(sentence)
    assert mark_errors([]) == ""


words = st.one_of(st.text(min_size=1), st.text("[]{}-+\\x", min_size=1)).filter(lambda w: w.split() == [w])


@given(st.lists(words, max_size=6), st.lists(words, max_size=6))
@example(["[-a-]{+b+}", "-]{+"], ["{+b+}", "]", "\\"])
def test_the_mark_up_tells_what_happened_whatever_the_words(reference, hypothesis):
    alignment = align_items(reference, hypothesis)
    sentence = click.unstyle(mark_errors(alignment))
    assert parse_marked(sentence) == [Operation(kind, escape(a), escape(b)) for kind, a, b in alignment]
    sentence.encode("utf-8")  # no half characters
    assert "\x1b" not in sentence


@given(words, words)
def test_different_words_are_shown_differently(one, other):
    assert (escape(one) == escape(other)) == (one == other)


# The verb

REFERENCE = [{"id": "u1", "text": "one two three"}, {"id": "u2", "text": "four"}]


def write_lines(path: Path, lines: list[object]) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def run_score(folder: Path, reference: list, *hypotheses: list, options: tuple[str, ...] = ()) -> Result:
    """``asr score ref.jsonl hyp0.jsonl hyp1.jsonl ...`` with those lines in the files."""
    paths = [write_lines(folder / "ref.jsonl", reference)]
    paths += [write_lines(folder / f"hyp{n}.jsonl", lines) for n, lines in enumerate(hypotheses)]
    return CliRunner().invoke(cli, ["score", *map(str, paths), *options])


def test_the_verb_prints_rates_counts_and_marked_sentences(tmp_path):
    result = run_score(
        tmp_path, REFERENCE, [{"id": "u2", "text": "four"}, {"id": "u1", "text": "one to three"}]
    )
    assert result.exit_code == 0
    assert result.stderr == ""
    path, columns, raw, normalised, interval, legend, sentence = result.stdout.splitlines()
    assert path == str(tmp_path / "hyp0.jsonl")
    assert columns.split() == ["WER", "CER", "SER", "MER", "WIL", "words", "sub", "del", "ins"]
    numbers = ["25.00", "%", "5.88", "%", "50.00", "%", "25.00", "%", "43.75", "%", "4", "1", "0", "0"]
    assert raw.split() == ["as", "they", "are", *numbers]
    assert normalised.split() == ["basic-v2", *numbers]
    assert interval.startswith("  95 % interval of the last WER: 0.00 to ")
    assert "[-word-] is a deletion" in legend
    assert sentence == "  u1 (1/3): one [-two-]{+to+} three"


def test_high_rates_are_no_failure(tmp_path):
    result = run_score(tmp_path, [{"id": 1, "text": "a"}], [{"id": "1", "text": ""}])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2].count("100.00 %") == 5


def test_missing_hypotheses_are_listed_on_stderr(tmp_path):
    for options in ((), ("--json",)):
        result = run_score(tmp_path, REFERENCE, [REFERENCE[1]], [], options=options)
        assert result.exit_code == 0
        assert result.stderr.splitlines() == [
            f"{tmp_path}/hyp0.jsonl: no hypothesis for 'u1': their words are deletions",
            f"{tmp_path}/hyp1.jsonl: no hypothesis for 'u1', 'u2': their words are deletions",
        ]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), 10),
        (("--alignments", "3"), 3),
        (("--alignments", "0"), 0),
        (("--alignments", "-1"), 12),
        (("--alignments=99",), 12),
    ],
)
def test_as_many_alignments_are_shown_as_asked_for(tmp_path, options, shown):
    reference = [{"id": f"u{number}", "text": "a " * (number + 1)} for number in range(12)]
    result = run_score(tmp_path, reference, [], options=options)
    lines = result.stdout.splitlines()[5:]
    numbers = [line.split()[0] for line in lines[1:]]
    assert numbers == [f"u{number}" for number in reversed(range(12))][:shown]
    assert bool(lines) == bool(shown)


def test_a_right_hypothesis_needs_no_legend(tmp_path):
    assert len(run_score(tmp_path, REFERENCE, REFERENCE).stdout.splitlines()) == 5


def test_json_is_one_object_with_a_result_for_every_file(tmp_path):
    result = run_score(tmp_path, REFERENCE, REFERENCE, [{"id": "u1", "text": "one"}], options=("--json",))
    printed = json.loads(result.stdout)
    assert printed["reference"] == str(tmp_path / "ref.jsonl")
    right, wrong = printed["results"]
    assert (right["wer"], right["cer"], right["ser"], right["missing"]) == (0.0, 0.0, 0.0, [])
    assert wrong["hypothesis"] == str(tmp_path / "hyp1.jsonl")
    assert wrong["by"] == {}
    assert wrong["raw"] == {
        "wer": 0.75,
        "cer": pytest.approx(14 / 17),
        "ser": 1.0,
        "wer_percent": 75.0,
        "cer_percent": 82.3529,
        "ser_percent": 100.0,
        "word_counts": {
            "substitutions": 0,
            "deletions": 3,
            "insertions": 0,
            "reference_length": 4,
            "utterances": 2,
            "wrong_utterances": 2,
        },
        "character_counts": {
            "substitutions": 0,
            "deletions": 14,
            "insertions": 0,
            "reference_length": 17,
            "utterances": 2,
            "wrong_utterances": 2,
        },
        "missing": ["u2"],
    }
    assert {key: wrong[key] for key in wrong["raw"]} == wrong["raw"]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "ser"),
    [
        ([], [], None),
        ([{"id": "u1", "text": ""}], [{"id": "u1", "text": ""}], 0.0),
        ([{"id": "u1", "text": " \t"}], [{"id": "u1", "text": "one"}], 1.0),
    ],
)
def test_without_reference_words_rates_do_not_apply_and_the_status_is_1(tmp_path, reference, hypothesis, ser):
    result = run_score(tmp_path, reference, hypothesis)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[2].split()[3:5] == ["n/a", "n/a"]
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(f"{tmp_path}/ref.jsonl: has no words")
    result = run_score(tmp_path, reference, hypothesis, options=("--json",))
    assert result.exit_code == 1
    (rates,) = json.loads(result.stdout)["results"]
    assert (rates["wer"], rates["wer_percent"], rates["cer"], rates["ser"]) == (None, None, None, ser)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "says"),
    [
        (REFERENCE, [{"id": "u3", "text": ""}], "hyp1.jsonl: no reference for 'u3'"),
        ([], REFERENCE, "hyp1.jsonl: no reference for 'u1', 'u2'"),
        (REFERENCE, [REFERENCE[0], REFERENCE[0]], "hyp1.jsonl: more than one text for 'u1'"),
        ([*REFERENCE, REFERENCE[1]], REFERENCE, "ref.jsonl: more than one text for 'u2'"),
        (REFERENCE, ["", "{"], "hyp1.jsonl:2: is not JSON"),
        (REFERENCE, ["[" * 100_000], "hyp1.jsonl:1: is not JSON"),
        (REFERENCE, [["u1", "one"]], "hyp1.jsonl:1: is not a JSON object"),
        (REFERENCE, [{"text": "one"}], "hyp1.jsonl:1: 'id' is missing"),
        (REFERENCE, [{"id": "", "text": "one"}], "hyp1.jsonl:1: 'id' is missing"),
        (REFERENCE, [{"id": True, "text": "one"}], "hyp1.jsonl:1: 'id' is missing, empty or not a string"),
        (REFERENCE, [{"id": "u1"}], "hyp1.jsonl:1: 'text' is missing"),
        (REFERENCE, [{"id": "u1", "text": ["one"]}], "hyp1.jsonl:1: 'text' is missing or not a string"),
        ([{"audio_filepath": "a.wav"}], [], "ref.jsonl:1: 'text' is missing"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_printed(tmp_path, reference, hypothesis, says):
    result = run_score(tmp_path, reference, [], hypothesis)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(f"{tmp_path}/{says}")


def test_the_lines_of_a_manifest_have_the_ids_that_evaluation_gives_them(tmp_path):
    reference = [{"audio_filepath": "a.wav", "text": "one", "duration": 1.0, "lang": "en"}]
    assert "  0.00 %" in run_score(tmp_path, reference, [{"id": "ref-000001", "text": "one"}]).stdout


def test_weird_files_are_read_and_shown(tmp_path):
    lines = [json.dumps({"id": "\u05d0\ud800", "text": "שלום \u0000 \x1b[2J 👩‍🚀 \udfff"})]
    write_lines(tmp_path / "ref.jsonl", lines)
    bytes_ = (tmp_path / "ref.jsonl").read_bytes()
    (tmp_path / "hyp.jsonl").write_bytes(
        b"\xef\xbb\xbf\r\n" + bytes_.replace(b"\\u0000", b"o").rstrip() + b"\r\n\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "asr", "score", "ref.jsonl", "hyp.jsonl", "--normaliser", "none-v1"],
        cwd=tmp_path,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines()[-1] == (
        r"  א\ud800 (1/5): שלום [-\x00-]{+o+} \x1b[2J 👩‍🚀 \udfff"
    )


@pytest.mark.parametrize(
    ("hypothesis", "status", "error"),
    [
        ("ref.jsonl", 0, ""),
        ("missing.jsonl", 1, "asr: missing.jsonl: cannot be read: No such file or directory\n"),
    ],
)
def test_the_exit_status_of_the_command(tmp_path, hypothesis, status, error):
    write_lines(tmp_path / "ref.jsonl", REFERENCE)
    command = [sys.executable, "-m", "asr", "score", "ref.jsonl", hypothesis]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, error)
    assert bool(done.stdout) == (status == 0)


def test_each_pair_is_aligned_once(monkeypatch):
    calls = []
    editops = counts.Levenshtein.editops

    def count_call(reference, hypothesis):
        calls.append(reference)
        return editops(reference, hypothesis)

    monkeypatch.setattr(counts, "Levenshtein", SimpleNamespace(editops=count_call))
    comparison = compare_texts({"a": "one two", "b": "go on"}, {"a": "one three", "b": "go on"})
    for _ in range(2):
        assert comparison.words.errors == 1
        assert comparison.count_confusions().substitutions == {("two", "three"): 1}
        assert [step.kind for step in comparison.align("b")] == ["equal", "equal"]
    assert calls == [["one", "two"]]


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcd"), min_size=1, max_size=8),
            st.lists(st.sampled_from("abcd"), max_size=8),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_results_of_jiwer_and_ours_turn_into_each_other(pairs):
    references, hypotheses = ([" ".join(words) for words in side] for side in zip(*pairs, strict=True))
    theirs = jiwer.process_words(references, hypotheses)
    comparison = from_jiwer(theirs, [f"utterance {number}" for number in range(len(pairs))])
    assert comparison.hypotheses["utterance 0"] == hypotheses[0]
    ours = vars(to_jiwer(comparison))
    rates = ("wer", "mer", "wil", "wip")
    assert [ours.pop(name) for name in rates] == pytest.approx([getattr(theirs, name) for name in rates])
    assert ours == {name: getattr(theirs, name) for name in ours}
    exact = replace(to_jiwer(comparison), **{name: getattr(theirs, name) for name in rates})  # 30.625 %
    assert jiwer.visualize_alignment(exact) == jiwer.visualize_alignment(theirs)
    assert from_jiwer(theirs).words == comparison.words


def test_a_result_of_jiwer_needs_as_many_names_as_texts_and_words():
    theirs = jiwer.process_words(["a b"], ["a"])
    for names in ([], ["x", "y"]):
        with pytest.raises(ScoringError, match="1 texts"):
            from_jiwer(theirs, names)
    with pytest.raises(ScoringError, match="more than one"):
        from_jiwer(jiwer.process_words(["a", "b"], ["a", "b"]), ["x", "x"])
    with pytest.raises(ScoringError, match="are empty"):
        to_jiwer(compare_texts({"x": ""}, {"x": "a"}))
    with pytest.raises(ScoringError, match="left out"):
        to_jiwer(compare_texts({"x": "a"}, {"x": "a"}, {"x": "b"}))
