"""Alternatives and optional words in NIST's formats: what ``sclite -D`` makes of them, or an error."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from asr.data.manifest import ManifestError
from asr.scoring.counts import ErrorCounts, ScoringError
from asr.scoring.files import read_texts
from asr.scoring.report import Report, gather_contents
from asr.scoring.systems import System, compare_all_pairs, compare_system, prepare_references
from asr.text.normalise import NORMALISERS


def compare_files(
    folder: Path, files: dict[str, str], normaliser: str = "none-v1", systems: int = 1
) -> list[System]:
    """Write the files, the references first, and compare the others with them."""
    for name, content in files.items():
        (folder / name).write_text(content)
    reference, *others = files
    prepared = prepare_references(read_texts(folder / reference), NORMALISERS[normaliser])
    return [compare_system(prepared, read_texts(folder / name), name) for name in others]


def compare_lines(folder: Path, reference: str, hypothesis: str, normaliser: str = "none-v1") -> ErrorCounts:
    files = {"ref.trn": f"{reference} (s_1)\n", "hyp.trn": f"{hypothesis} (s_1)\n"}
    return compare_files(folder, files, normaliser)[0].comparison.words


# sclite, NIST's program, as the outside judge


def run_sclite(folder: Path, reference: str, hypothesis: str) -> dict[str, list[int]]:
    """What ``sclite -D`` counts for each utterance: correct, substitutions, deletions, insertions."""
    if shutil.which("sctk") is None:
        pytest.skip("sctk is not installed (Debian: apt-get install sctk)")
    sides = ["-r", reference, Path(reference).suffix[1:], "-h", hypothesis, Path(hypothesis).suffix[1:]]
    command = ["sctk", "sclite", *sides, "-D", "-i", "rm", "-o", "pralign", "stdout"]
    printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^id: \((.*)\)$(?:\n.*)*?\nScores: \(#C #S #D #I\) (.*)$", printed, re.MULTILINE)
    return {name: list(map(int, counts.split())) for name, counts in found}


def draw_passage(generator: random.Random, depth: int = 0) -> str:
    """Draw a text with words, optional words, no words and alternatives within alternatives."""
    parts = []
    for _ in range(generator.randint(1, 3 if depth else 6)):
        word, kind = generator.choice("abcdefgh"), generator.random()
        if kind < 0.15:
            parts.append(f"({word})")
        elif kind < 0.2:
            parts.append("@")
        elif kind < 0.45 and depth < 2:
            branches = [draw_passage(generator, depth + 1) for _ in range(generator.randint(1, 3))]
            spaced = generator.random() < 0.5
            parts.append("{ " + " / ".join(branches) + " }" if spaced else "{" + "/".join(branches) + "}")
        else:
            parts.append(word)
    return " ".join(parts)


def draw_reading(generator: random.Random, passage: str) -> str:
    """Draw words that have something in common with a passage."""
    letters = re.findall(r"\w", passage)
    kept = [letter for letter in letters if generator.random() < 0.6]
    return " ".join(generator.choice("abcdefgh") if generator.random() < 0.15 else word for word in kept)


def test_errors_and_words_are_those_of_sclite(tmp_path):
    """The cost of a path is the same; where several have it, ours may have other words in 2 of 100."""
    generator = random.Random(3)
    references = {f"s_{number:04d}": draw_passage(generator) for number in range(800)}
    hypotheses = {
        name: draw_passage(generator) if generator.random() < 0.2 else draw_reading(generator, text)
        for name, text in references.items()
    }
    files = {
        f"{side}.trn": "".join(f"{text} ({name})\n" for name, text in texts.items())
        for side, texts in (("ref", references), ("hyp", hypotheses))
    }
    system = compare_files(tmp_path, files)[0].comparison
    theirs = run_sclite(tmp_path, "ref.trn", "hyp.trn")
    assert set(theirs) == set(references)
    same = 0
    for name, (correct, substitutions, deletions, insertions) in theirs.items():
        score = system.count_utterance(name)
        mine = (score.reference_length, score.errors)
        same += mine == (correct + substitutions + deletions, substitutions + deletions + insertions)
    assert same >= 0.98 * len(theirs)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "words"),
    [
        ("{ i am / im } going", "im going", 0, 2),
        ("{i am/im} going", "i am going", 0, 3),
        ("{i/we}{am/are} here", "we are here", 0, 3),
        ("{ a / { b / c } d } e", "c d e", 0, 3),
        ("{ a / @ } b", "b", 0, 1),
        ("{a b / @} x", "@ x", 0, 1),
        ("a @ b", "a b", 0, 2),
        ("(uh) yes", "yes", 0, 2),
        ("(uh) yes", "uh yes", 0, 2),
        ("(uh) yes", "um yes", 1, 2),
        ("yes", "(uh) yes", 0, 2),
        ("{ (a) (b) / d } e", "e", 1, 2),
        ("{ / a } c", "c", 1, 2),
        ("he;N goes", "he goes", 0, 2),
        ("and/or", "and/or", 0, 1),
        ("{ im / i am } going", "x y going", 2, 2),
        ("{ @ / a b } x", "b x", 1, 3),
    ],
)
def test_what_nist_allows_counts_as_sclite_has_it(tmp_path, reference, hypothesis, errors, words):
    score = compare_lines(tmp_path, reference, hypothesis)
    assert (score.errors, score.reference_length) == (errors, words)
    ((correct, substitutions, deletions, insertions),) = run_sclite(tmp_path, "ref.trn", "hyp.trn").values()
    assert (substitutions + deletions + insertions, correct + substitutions + deletions) == (errors, words)


STM = """rec A s 0 5 <O,f0> i {can not / cannot} go;V
REC A s 5 6 <O> ignore_time_segment_in_scoring
rec A s 6 7 IGNORE_TIME_SEGMENT_IN_SCORING because of noise
rec B s 0 5 <O> hello <unk> (uh) there
"""
CTM = """Rec a 0.1 0.2 i
Rec a * * <ALT_BEGIN>
Rec a 0.5 0.2 cannot
Rec a * * <Alt>
Rec a 0.5 0.2 can
Rec a 0.9 0.1 not
Rec a * * <ALT_END>
Rec a 1.2 0.2 go;N 0.9
Rec a 5.2 0.2 ignored
Rec a 6.2 0.2 ignored
Rec b 1.2 0.2 hello
Rec b 1.5 0.2 there;y
"""


def test_alternatives_in_ctm_and_ignored_segments_count_as_sclite_has_them(tmp_path):
    comparison = compare_files(tmp_path, {"ref.stm": STM, "hyp.ctm": CTM})[0].comparison
    ours = [
        [score.hits, score.substitutions, score.deletions, score.insertions]
        for score in map(comparison.count_utterance, comparison.references)
    ]
    assert ours == [[4, 0, 0, 0], [3, 0, 1, 0]] or ours == [[3, 0, 0, 0], [3, 0, 1, 0]]
    assert sorted(ours) == sorted(run_sclite(tmp_path, "ref.stm", "hyp.ctm").values())


# Beyond sclite


@pytest.mark.parametrize(
    ("normaliser", "reference", "hypothesis"),
    [
        ("english-v1", "{ It's / that is } {twenty one / twenty two} (uh) Sir,", "that's 22 sir"),
        ("basic-v1", "(Uh) { I'm / I am } GOING.", "i am going"),
        ("letters-v1", "{ Café / bar } (%hesitation) now", "cafe now"),
    ],
)
def test_the_chosen_reading_is_normalised_as_a_whole(tmp_path, normaliser, reference, hypothesis):
    assert compare_lines(tmp_path, reference, hypothesis, normaliser).errors == 0


def test_each_system_gets_its_own_reading(tmp_path):
    """In the counts, in the comparison of systems, and on the page."""
    files = {
        "ref.trn": "{ i am / im } going home (u1)\nyes {it is/@} (u2)\n",
        "one.trn": "i am going home (u1)\nyes (u2)\n",
        "two.trn": "im going (u1)\nyes it was (U2)\n",
    }
    systems = compare_files(tmp_path, files)
    assert [system.comparison.references["u1"] for system in systems] == ["i am going home", "im going home"]
    assert [system.comparison.words.errors for system in systems] == [0, 2]
    assert [system.comparison.words.reference_length for system in systems] == [5, 6]
    (difference,) = compare_all_pairs(systems, [])
    assert difference.words.segments == 2
    texts = read_texts(tmp_path / "ref.trn")
    rows = gather_contents(Report(texts, "none-v1", str, systems, [{}, {}], []), tmp_path)["rows"]
    assert [row["errors"] for row in rows] == [[0, 1], [0, 1]]
    assert [[column[0] for column in row["text"] if column[0]] for row in rows] == [
        ["i", "am", "going", "home"],
        ["yes"],
    ]
    assert systems[0].raw.missing == ()


def test_a_reference_without_hypothesis_loses_its_cheapest_reading(tmp_path):
    files = {"ref.trn": "{ i am / im } (uh) going (u1)\nyes (u2)\n", "hyp.trn": "yes (u2)\n"}
    (system,) = compare_files(tmp_path, files)
    assert (system.comparison.words.deletions, system.comparison.words.reference_length) == (2, 4)


def test_marks_of_nist_are_ordinary_characters_elsewhere(tmp_path):
    files = {"ref.txt": "{ i am / im } (uh) @ going\n", "hyp.txt": "{ i am / im } (uh) @ going\n"}
    (system,) = compare_files(tmp_path, files)
    assert system.comparison.words == ErrorCounts(0, 0, 0, 9, 1, 0)


@pytest.mark.parametrize(
    ("name", "line", "says"),
    [
        ("x.trn", "{ a / b c (u1)", "x.trn:1: a brace is not closed"),
        ("x.trn", "a } b (u1)", "x.trn:1: a brace is closed that was not opened"),
        ("x.trn", "x{a / b} (u1)", "x.trn:1: a brace stands inside a word, behind 'x'"),
        ("x.stm", "r A s 0 1 <o> a { } b", "x.stm:1: braces hold no words"),
        ("x.trn", "{ a / " * 30 + "b" + " }" * 30 + " (u1)", "x.trn:1: braces are more than 20 deep"),
        ("x.ctm", "r A * * <ALT>", "x.ctm:1: <ALT> is out of order"),
        ("x.ctm", "r A * * <ALT_BEGIN>\nr A 1 1 a", "x.ctm:1: <ALT_BEGIN> has no <ALT_END>"),
        ("x.ctm", "r A 1 1 {a/b}", "x.ctm:1: '{a/b}' looks like alternatives"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, line, says):
    (tmp_path / name).write_text(line + "\n")
    with pytest.raises(ManifestError, match=re.escape(says)):
        read_texts(tmp_path / name)


def test_a_text_that_would_take_too_much_memory_is_refused(tmp_path):
    with pytest.raises(ScoringError, match="too long to be aligned"):
        compare_lines(tmp_path, "a " * 2000 + "{ a / b }", "a " * 2000)
