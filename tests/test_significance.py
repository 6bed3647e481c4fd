"""Intervals hold what they promise, and tests cry wolf as rarely as they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from asr.scoring import aligned
from asr.significance import (
    Difference,
    Interval,
    SegmentTest,
    SentenceTest,
    drawn_sums,
    profile,
    ratio_interval,
    segment_differences,
    segment_test,
    segments,
    sentence_test,
    summed,
)

UTTERANCES, SPEAKERS, RATE = 300, 40, 0.1


def simulated(generator: np.random.Generator, by_speaker: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Errors, words and speaker of each utterance; the true error rate is ``RATE``.

    With ``by_speaker`` some speakers are much harder than others, as in reality.
    """
    speakers = generator.integers(SPEAKERS, size=UTTERANCES)
    words = generator.integers(5, 26, size=UTTERANCES)
    rates = (
        generator.beta(2, 18, size=SPEAKERS)[speakers] if by_speaker else generator.beta(3, 27, UTTERANCES)
    )
    return generator.binomial(words, rates), words, [f"s{speaker}" for speaker in speakers]


def test_intervals_hold_the_true_rate_as_often_as_they_say():
    generator = np.random.default_rng(1)
    held = {"utterances alike": 0, "speakers differ": 0, "speakers ignored": 0}
    rounds = 400
    for seed in range(rounds):
        errors, words, _ = simulated(generator, by_speaker=False)
        alike = ratio_interval(errors, words, seed=seed)
        errors, words, speakers = simulated(generator, by_speaker=True)
        sums = summed(np.stack([errors, words], axis=1), speakers)
        differ = ratio_interval(sums[:, 0], sums[:, 1], seed=seed)
        ignored = ratio_interval(errors, words, seed=seed)
        for name, interval in zip(held, (alike, differ, ignored), strict=True):
            assert interval is not None and interval.low <= interval.high
            held[name] += interval.low <= RATE <= interval.high
    assert 0.92 <= held["utterances alike"] / rounds <= 0.97
    assert 0.92 <= held["speakers differ"] / rounds <= 0.97
    assert held["speakers ignored"] / rounds < 0.85  # why the interval by speaker is the one to believe


def test_equally_good_systems_are_seldom_told_apart():
    generator = np.random.default_rng(2)
    rounds = 1000
    alarms = {"segments": 0, "sentences": 0, "interval": 0}
    for seed in range(rounds):
        words = generator.integers(5, 26, size=UTTERANCES)
        hard = generator.beta(3, 27, UTTERANCES)  # the same utterances are hard for both
        first, second = generator.binomial(words, hard), generator.binomial(words, hard)
        alarms["segments"] += segment_test((first - second)[(first + second) > 0]).p < 0.05
        alarms["sentences"] += sentence_test(first > 0, second > 0).p < 0.05
        if seed < 400:
            interval = ratio_interval(first - second, words, seed=seed)
            alarms["interval"] += interval is not None and interval.excludes_zero
    assert 0.035 <= alarms["segments"] / rounds <= 0.065
    assert 0.015 <= alarms["sentences"] / rounds <= 0.055  # exact tests are cautious
    assert 0.025 <= alarms["interval"] / 400 <= 0.08


def test_a_real_difference_is_found():
    generator = np.random.default_rng(3)
    words = generator.integers(5, 26, size=UTTERANCES)
    first, second = generator.binomial(words, 0.10), generator.binomial(words, 0.15)
    assert segment_test(first - second).p < 1e-4
    assert sentence_test(first > 0, second > 0).p < 1e-2


@pytest.mark.parametrize(("one", "other"), [(0, 0), (1, 0), (7, 2), (30, 41)])
def test_mcnemar_is_the_sign_test(one, other):
    first = np.array([False] * one + [True] * other + [True] * 5 + [False] * 5)
    second = np.array([True] * one + [False] * other + [True] * 5 + [False] * 5)
    found = sentence_test(first, second)
    assert (found.only_first_right, found.only_second_right) == (one, other)
    assert found.p == pytest.approx(binomtest(one, one + other).pvalue if one + other else 1.0)


def test_segments_end_where_both_have_two_words_right():
    reference = ["a", "b", "c", "d", "e", "f", "g", "h"]
    first = aligned(reference, ["a", "X", "c", "d", "e", "f", "g", "h"])
    second = aligned(reference, ["a", "b", "Y", "d", "e", "f", "h"])
    assert profile(first)[1::2] == [0, 1, 0, 0, 0, 0, 0, 0]
    # b and c are wrong in one segment, g in another: between them d e f are right in both
    assert segments(profile(first), profile(second)) == [(1, 1), (0, 1)]
    assert segment_differences([(first, second)]).tolist() == [0, -1]
    inserted = aligned(reference, ["a", "b", "c", "Z", "d", "e", "f", "g", "h"])
    assert segments(profile(inserted), profile(inserted)) == [(1, 1)]


def test_a_segment_test_without_differences_says_nothing():
    assert segment_test(np.zeros(10)).p == 1.0
    assert segment_test(np.array([1])).p == 1.0
    assert segment_test(np.ones(10)).p == pytest.approx(2 / 2**10)


def test_drawing_kinds_is_drawing_rows():
    """Beyond ``GATHERED`` rows another way of drawing is taken: the same distribution."""
    generator = np.random.default_rng(4)
    rows = np.stack([generator.binomial(10, 0.1, 6000), np.full(6000, 10)], axis=1)
    many = drawn_sums(rows, 2000, 1)[:, 0]
    deviation = rows[:, 0].std() * np.sqrt(6000)
    assert many.mean() == pytest.approx(rows[:, 0].sum(), abs=4 * deviation / np.sqrt(2000))
    assert many.std() == pytest.approx(deviation, rel=0.06)


def test_no_interval_where_there_is_nothing_to_draw():
    assert ratio_interval(np.array([1]), np.array([10])) is None
    assert ratio_interval(np.zeros(5), np.zeros(5)) is None


def difference(p: float, interval: Interval | None, **more) -> Difference:
    words, sentences = SegmentTest(100, 3.0, p), SentenceTest(1, 2, 1.0)
    values = {"by_utterance": interval, "by_speaker": None, "words": words, "sentences": sentences}
    return Difference("old", "new", 0.02, **(values | more))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (difference(0.001, Interval(0.01, 0.03, 300, 0.95)), "means something: new beats old by 2.00 points"),
        (difference(0.4, Interval(-0.01, 0.03, 300, 0.95)), "means nothing so far"),
        (difference(0.4, Interval(0.01, 0.03, 300, 0.95)), "Undecided"),
        (difference(0.001, Interval(0.01, 0.03, 300, 0.95)), "speakers are not known"),
        (difference(0.001, None, by_speaker=Interval(0.01, 0.03, 5, 0.95)), "only 5 speakers"),
        (difference(0.03, Interval(-0.01, 0.03, 9, 0.95), comparisons=3), "One of 3 comparisons"),
    ],
)
def test_the_verdict_is_in_words(found, said):
    assert said in found.in_words
