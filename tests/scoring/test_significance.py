"""Intervals that cover, tests that seldom raise a false alarm: by simulation, and segments as in sc_stats."""

from __future__ import annotations

import math
import random
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from asr.data.manifest import Utterance
from asr.scoring.counts import align_items, compare_texts
from asr.scoring.files import Texts
from asr.scoring.significance import (
    bootstrap_interval,
    draw_sums,
    find_segment_differences,
    locate_errors,
    run_segment_test,
    run_sentence_test,
    split_at_matches,
    sum_by_label,
    widen_tail,
)
from asr.scoring.systems import (
    compare_all_pairs,
    compare_system,
    compare_two,
    compute_intervals,
    list_speakers,
    prepare_references,
)

UTTERANCES, SPEAKERS, DRAWS = 300, 40, 1000
TRUE_RATE = 0.1


def draw_test_set(generator: np.random.Generator, speakers_differ: bool):
    """Speakers, words and errors of 300 utterances by 40 speakers; every word is wrong one time in ten."""
    speakers = generator.integers(SPEAKERS, size=UTTERANCES)
    words = generator.integers(5, 26, size=UTTERANCES)
    by_speaker = generator.beta(2, 18, size=SPEAKERS)[speakers]
    chance = by_speaker if speakers_differ else generator.beta(3, 27, size=UTTERANCES)
    return speakers, words, generator.binomial(words, chance)


def measure_coverage(speakers_differ: bool, sets: int = 300) -> tuple[float, float]:
    """How often the interval by utterance and the one by speaker hold the true rate."""
    generator = np.random.default_rng(7)
    covered = np.zeros(2)
    for seed in range(sets):
        speakers, words, errors = draw_test_set(generator, speakers_differ)
        sums = sum_by_label(np.stack([errors, words], axis=1), [str(speaker) for speaker in speakers])
        for place, rows in enumerate((np.stack([errors, words], axis=1), sums)):
            interval = bootstrap_interval(rows[:, 0], rows[:, 1], draws=DRAWS, seed=seed)
            covered[place] += interval.low <= TRUE_RATE <= interval.high
    by_utterance, by_speaker = covered / sets
    return float(by_utterance), float(by_speaker)


def test_intervals_cover_where_speakers_are_alike():
    by_utterance, by_speaker = measure_coverage(speakers_differ=False)
    assert 0.92 <= by_utterance <= 0.97
    assert 0.92 <= by_speaker <= 0.97


def test_where_speakers_differ_only_the_interval_by_speaker_covers():
    by_utterance, by_speaker = measure_coverage(speakers_differ=True)
    assert 0.92 <= by_speaker <= 0.97
    assert by_utterance < 0.80  # why the interval by speaker is the one to believe


def simulate_flags(generator: np.random.Generator, second_is_worse: float, systems_differ_by_speaker: float):
    """Speakers, and which words two systems have wrong, in 300 utterances by 40 speakers.

    Words are as hard for one system as for the other, but for what the arguments add: a share of errors
    of the second, and a difference that goes either way with the speaker.
    """
    speakers = generator.integers(SPEAKERS, size=UTTERANCES)
    hard = np.log(generator.beta(2, 18, size=SPEAKERS) + 0.02)[speakers]
    leaning = generator.normal(0, systems_differ_by_speaker, size=SPEAKERS)[speakers]
    flags = []
    for number, words in enumerate(generator.integers(5, 26, size=UTTERANCES)):
        word = np.exp(hard[number] + generator.normal(0, 0.5, size=words))
        first = generator.random(words) < np.minimum(word * math.exp(leaning[number] / 2), 0.9)
        worse = word * math.exp(-leaning[number] / 2) * (1 + second_is_worse)
        second = generator.random(words) < np.minimum(worse, 0.9)
        flags.append((first, second))
    return [str(speaker) for speaker in speakers], flags


def finds_significant(
    seed: int, second_is_worse: float = 0.0, systems_differ_by_speaker: float = 0.0
) -> list[bool]:
    """Whether the interval by utterance, by speaker, the segment test and McNemar's see a difference."""
    generator = np.random.default_rng(seed)
    speakers, flags = simulate_flags(generator, second_is_worse, systems_differ_by_speaker)
    rows = np.array([[int(a.sum()) - int(b.sum()), len(a)] for a, b in flags])
    sums = sum_by_label(rows, speakers)
    pairs = [
        ([place for flag in flags_ for place in (0, int(flag))] + [0] for flags_ in pair) for pair in flags
    ]
    found = np.array([a - b for first, second in pairs for a, b in split_at_matches(first, second)])
    sentences = run_sentence_test(
        *(np.array([flag.any() for flag in side]) for side in zip(*flags, strict=True))
    )
    return [
        bootstrap_interval(rows[:, 0], rows[:, 1], draws=DRAWS, seed=seed).excludes_zero,
        bootstrap_interval(sums[:, 0], sums[:, 1], draws=DRAWS, seed=seed).excludes_zero,
        run_segment_test(found).p < 0.05,
        sentences.p < 0.05,
    ]


def test_equally_good_systems_differ_significantly_one_time_in_twenty():
    by_utterance, by_speaker, words, sentences = np.mean(
        [finds_significant(seed) for seed in range(240)], axis=0
    )
    assert 0.02 <= by_utterance <= 0.085
    assert 0.02 <= by_speaker <= 0.085
    assert 0.02 <= words <= 0.085
    assert 0.005 <= sentences <= 0.07  # exact: on the safe side


def test_where_systems_suit_different_speakers_only_the_interval_by_speaker_is_to_be_believed():
    runs = [finds_significant(seed, systems_differ_by_speaker=0.8) for seed in range(120)]
    by_utterance, by_speaker, words, _ = np.mean(runs, axis=0)
    assert by_speaker <= 0.10
    assert by_utterance > 0.15
    assert words > 0.15


def test_a_worse_system_is_found_out():
    found = np.mean([finds_significant(seed, second_is_worse=0.5) for seed in range(20)], axis=0)
    assert found[:3].min() >= 0.9


# The bootstrap


def test_an_interval_is_that_of_the_normal_distribution_where_there_are_many():
    generator = np.random.default_rng(0)
    for count in (4000, 40_000):  # rows picked one by one, and kinds of rows
        words = generator.integers(5, 26, size=count)
        errors = generator.binomial(words, 0.1)
        interval = bootstrap_interval(errors, words, draws=2000)
        rate = errors.sum() / words.sum()
        deviation = np.std(errors - rate * words) * math.sqrt(count) / words.sum()
        assert interval.low == pytest.approx(rate - 1.96 * deviation, abs=0.15 * deviation)
        assert interval.high == pytest.approx(rate + 1.96 * deviation, abs=0.15 * deviation)


def test_both_ways_to_draw_draw_alike():
    rows = np.array([[0, 10]] * 3000 + [[1, 12]] * 1500 + [[2, 9]] * 500 + [[5, 20]])
    one_by_one, by_kind = draw_sums(rows[:5000], 2000, seed=1), draw_sums(rows, 2000, seed=1)
    for drawn, of in ((one_by_one, rows[:5000]), (by_kind, rows)):
        deviation = of.std(axis=0) * math.sqrt(len(of))
        assert (abs(drawn.mean(axis=0) - of.sum(axis=0)) <= 4 * deviation / math.sqrt(2000)).all()
        assert drawn.std(axis=0) == pytest.approx(deviation, rel=0.06)


def test_few_units_make_a_wide_interval_and_one_none():
    assert widen_tail(0.025, 10_000) == pytest.approx(0.025, abs=1e-4)
    assert widen_tail(0.025, 5) < 0.002
    assert bootstrap_interval(np.array([1]), np.array([10])) is None
    assert bootstrap_interval(np.array([1, 2]), np.array([0, 0])) is None
    interval = bootstrap_interval(np.array([0, 10]), np.array([10, 10]))
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_the_same_seed_draws_the_same():
    errors, words = np.array([1, 2, 3, 0]), np.array([9, 8, 7, 6])
    assert bootstrap_interval(errors, words) == bootstrap_interval(errors, words)
    assert not (draw_sums(words[:, None], 10, seed=0) == draw_sums(words[:, None], 10, seed=1)).all()


# Segments


@pytest.mark.parametrize(
    ("reference", "first", "second", "expected"),
    [
        ("a b c d", "a b c d", "a b c d", []),
        ("a b c d", "x b c d", "a b c d", [(1, 0)]),
        ("a b c d", "x b c y", "a b c d", [(1, 0), (1, 0)]),  # two right words part them
        ("a b c", "x b y", "a b c", [(2, 0)]),  # one does not
        ("a b c d", "x b c y", "a z c d", [(2, 1)]),  # nor what only one has right
        ("a b c d", "x b oh c d", "a b c d", [(2, 0)]),  # nor what has something between
        ("a b", "a b", "", [(0, 2)]),
        ("", "oh", "", [(1, 0)]),
    ],
)
def test_segments(reference, first, second, expected):
    one, other = (align_items(reference.split(), side.split()) for side in (first, second))
    assert split_at_matches(locate_errors(one), locate_errors(other)) == expected


words = st.lists(st.sampled_from("abc"), max_size=12)


@given(words, words, words)
def test_segments_hold_all_errors_once(reference, first, second):
    one, other = align_items(reference, first), align_items(reference, second)
    found = split_at_matches(locate_errors(one), locate_errors(other))
    for system, alignment in enumerate((one, other)):
        assert sum(pair[system] for pair in found) == sum(step.kind != "equal" for step in alignment)
    assert all(any(pair) for pair in found)
    assert [(b, a) for a, b in found] == split_at_matches(locate_errors(other), locate_errors(one))


def test_the_segment_test():
    test = run_segment_test(np.array([1, 1, 1, 0, -1, 1, 1, 1]))
    mean, deviation = 5 / 8, math.sqrt(3.875 / 7)  # 7 - 8 (5/8)²
    assert (test.segments, test.z) == (8, pytest.approx(mean / (deviation / math.sqrt(8))))
    assert test.p == pytest.approx(0.0493, abs=0.001)
    assert run_segment_test(np.array([])).p == run_segment_test(np.array([0, 0, 0])).p == 1.0
    assert run_segment_test(np.array([1, 1, 1, 1, 1])).p == pytest.approx(2 / 32)


@pytest.mark.parametrize(("one", "other"), [(0, 0), (1, 0), (7, 2), (30, 41)])
def test_mcnemar_is_exact(one, other):
    first = np.array([False] * one + [True] * other + [True] * 5 + [False] * 5)
    second = np.array([True] * one + [False] * other + [True] * 5 + [False] * 5)
    found = run_sentence_test(first, second)
    assert (found.only_first_right, found.only_second_right) == (one, other)
    assert found.p == pytest.approx(binomtest(one, one + other).pvalue if one + other else 1.0)


def draw_texts(count: int, seed: int, rate: float) -> dict[str, str]:
    """Texts with errors against ``count`` utterances of twelve words."""
    generator = random.Random(seed)
    texts = {}
    for number in range(count):
        said = [generator.choice("xyz") if generator.random() < rate else f"w{place}" for place in range(12)]
        texts[f"s{number % 12:02}-{number:04}"] = " ".join(said)
    return texts


def make_system(texts: dict[str, str], name: str, speakers: bool = True):
    """A system and its references."""
    utterances = [
        Utterance(
            id, "", text=" ".join(f"w{place}" for place in range(12)), speaker=id[:3] if speakers else ""
        )
        for id in texts
    ]
    references = Texts("ref", "trn", utterances)
    hypotheses = Texts(name, "trn", [Utterance(id, "", text=text) for id, text in texts.items()])
    return references, compare_system(prepare_references(references, str), hypotheses, name)


def test_segments_are_those_of_sc_stats(tmp_path):
    if shutil.which("sctk") is None:
        pytest.skip("sctk is not installed (Debian: apt-get install sctk)")
    texts = {
        "ref": draw_texts(400, 0, 0.0),
        "first": draw_texts(400, 1, 0.12),
        "second": draw_texts(400, 2, 0.15),
    }
    for name, lines in texts.items():
        (tmp_path / name).write_text("".join(f"{text} ({id})\n" for id, text in lines.items()))
    sgml = ""
    for name in ("first", "second"):
        command = [
            "sctk",
            "sclite",
            "-r",
            "ref",
            "trn",
            "-h",
            name,
            "trn",
            name,
            "-i",
            "spu_id",
            "-s",
            "-o",
            "sgml",
        ]
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        sgml += (tmp_path / f"{name}.sgml").read_text()
    command = ["sctk", "sc_stats", "-p", "-t", "mapsswe", "-v", "-n", "out"]
    printed = subprocess.run(command, cwd=tmp_path, input=sgml, capture_output=True, text=True).stdout
    printed += "".join(path.read_text() for path in tmp_path.glob("out*"))
    theirs = int(re.search(r"Number of Segments (\d+)", printed)[1])
    totals = list(map(int, re.search(r"Totals +\d+ +(\d+) +(\d+)", printed).groups()))
    pairs = [
        [align_items(texts["ref"][id].split(), texts[name][id].split()) for name in ("first", "second")]
        for id in texts["ref"]
    ]
    ours = find_segment_differences(pairs)
    assert len(ours) == pytest.approx(theirs, rel=0.005)  # sclite splits some pairs otherwise
    assert ours.sum() == totals[0] - totals[1]


# In words


def test_a_significant_difference_is_called_so():
    references, first = make_system(draw_texts(240, 1, 0.20), "first")
    _, second = make_system(draw_texts(240, 2, 0.10), "second")
    found = compare_two(first, second, list_speakers(references.utterances))
    assert found.is_significant is True
    assert found.verdict.startswith("The difference is significant: second beats first by ")
    assert found.difference > 0
    assert found.by_speaker.units == 12
    turned = compare_two(second, first, list_speakers(references.utterances))
    assert turned.verdict == found.verdict
    assert turned.words.p == pytest.approx(found.words.p)


def test_a_difference_by_chance_is_not_significant():
    references, first = make_system(draw_texts(240, 1, 0.20), "first")
    _, second = make_system(draw_texts(240, 3, 0.20), "second")
    found = compare_two(first, second, list_speakers(references.utterances))
    assert found.is_significant is False
    assert "is not significant" in found.verdict
    same = compare_two(first, first, list_speakers(references.utterances))
    assert (same.words.p, same.sentences.p, same.is_significant) == (1.0, 1.0, False)
    assert same.verdict.startswith("first and first have the same word error rate.")


def test_what_a_single_speaker_causes_is_undecided():
    texts = draw_texts(240, 1, 0.10)
    broken = {id: "x " * 12 if id.startswith("s00") else text for id, text in texts.items()}
    references, first = make_system(texts, "first")
    found = compare_two(first, make_system(broken, "second")[1], list_speakers(references.utterances))
    assert found.by_utterance.excludes_zero
    assert not found.by_speaker.excludes_zero
    assert found.is_significant is None
    assert found.verdict.startswith("Undecided: first is ahead of second by ")
    assert "the segment test finds that significant, the interval does not" in found.verdict


def test_cautions():
    references, first = make_system(draw_texts(60, 1, 0.2), "first", speakers=False)
    _, second = make_system(draw_texts(60, 2, 0.2), "second", speakers=False)
    assert list_speakers(references.utterances) == []
    assert compute_intervals(first.comparison, [])["by_speaker"] is None
    assert "The speakers are not known" in compare_two(first, second, []).verdict
    few = compare_two(first, second, ["a", "b", "c"] * 20).verdict
    assert "There are only 3 speakers" in few
    three = compare_all_pairs([first, second, first], [])
    assert [(found.first, found.second) for found in three] == [
        ("first", "second"), ("first", "first"), ("second", "first")
    ]  # fmt: skip
    assert three[0].threshold == pytest.approx(0.05 / 3)
    assert three[0].by_utterance.level == pytest.approx(1 - 0.05 / 3)
    assert "One of 3 comparisons, each tested at p < 0.017." in three[0].verdict


def test_an_interval_is_around_all_kinds_of_errors():
    references = {str(i): "a b c d" for i in range(40)}
    hypotheses = {name: ("a x c d", "a c d", "a b c d e e")[int(name) % 3] for name in references}
    comparison = compare_texts(references, hypotheses)
    found = compute_intervals(comparison, [str(i % 4) for i in range(40)])
    for interval, units in ((found["by_utterance"], 40), (found["by_speaker"], 4)):
        assert interval.units == units
        assert interval.low < comparison.words.error_rate < interval.high
    least = comparison.words.substitutions + comparison.words.deletions
    assert found["by_utterance"].low > least / comparison.words.reference_length
