"""Plans, batches, read-ahead, statistics of speakers."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.data.corpora import prepare
from asr.data.manifest import Utterance
from asr.model.features import FeatureConfig, Features
from asr.text.tokenizer import BLANK, TextConfig, TextError, Tokenizer
from asr.training.augment import Augmentation
from asr.training.batching import (
    batch_sizes,
    load_batch,
    measure_speakers,
    padding_share,
    plan_epoch,
    read_ahead,
)
from asr.training.examples import (
    Example,
    evaluation_examples,
    measure_duration,
    plan_by_duration,
    training_examples,
)

CORPORA = Path(__file__).parents[3] / "shared/corpora"
RANKS = st.integers(1, 7)
DURATIONS = st.lists(st.floats(0.1, 30.0), max_size=60)


@given(DURATIONS, st.floats(1.0, 100.0), st.integers(0, 5), st.integers(0, 5), RANKS, st.booleans())
def test_an_epoch_sees_every_example_once_within_the_limit(durations, seconds, seed, epoch, ranks, ascending):
    plan = plan_epoch(durations, seconds, seed, epoch, ranks, ascending)
    assert sorted(index for batch in plan for index in batch) == list(range(len(durations)))
    for batch in plan:
        assert len(batch) <= 1 or len(batch) * max(durations[i] for i in batch) <= seconds
    assert plan == plan_epoch(durations, seconds, seed, epoch, ranks, ascending)


@given(DURATIONS, st.floats(1.0, 100.0), RANKS)
def test_every_rank_and_every_epoch_takes_the_same_number_of_steps(durations, seconds, ranks):
    plans = [plan_epoch(durations, seconds, 1, epoch, ranks) for epoch in (0, 1)]
    assert len(plans[0]) == len(plans[1]) == len(batch_sizes(durations, seconds, ranks))
    assert len(plans[0]) % ranks == 0
    # A rank goes without only where there are not enough examples to go round.
    if not all(len(batch) <= 1 for batch in plans[0]):
        assert all(plans[0])


def test_ranks_work_on_examples_of_one_length_at_a_time():
    durations = list(np.random.default_rng(0).gamma(4, 2, 2000))
    plan = plan_epoch(durations, 60.0, 1, 0, ranks=4)
    longest = [max(durations[i] for i in batch) for batch in plan]
    ratios = [max(longest[i : i + 4]) / min(longest[i : i + 4]) for i in range(0, len(plan), 4)]
    assert np.median(ratios) < 1.1


def test_an_ascending_epoch_goes_from_short_to_long():
    durations = list(np.random.default_rng(0).uniform(1, 10, 300))
    means = [np.mean([durations[i] for i in b]) for b in plan_epoch(durations, 30.0, 1, 0, ascending=True)]
    assert all(left < 1.05 * right for left, right in pairwise(means))
    assert means[-1] > 5 * means[0]


def test_epochs_and_seeds_differ():
    durations = list(np.random.default_rng(0).uniform(1, 10, 200))
    plans = [plan_epoch(durations, 60.0, seed, epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert all(left != right for i, left in enumerate(plans) for right in plans[:i])
    companies = [{frozenset(batch) for batch in plan} for plan in plans[:2]]
    assert len(companies[0] & companies[1]) < 0.2 * len(companies[0])


def test_little_of_a_batch_is_padding():
    durations = list(np.random.default_rng(0).gamma(4, 2, 2000))
    assert padding_share(durations, plan_epoch(durations, 120.0, 1, 0)) < 0.05


@pytest.mark.parametrize(
    ("layout", "corpus", "split"),
    [("librispeech", "LibriSpeech", "train-clean-5"), ("commonvoice", "CommonVoice-v1", "cv-valid-dev")],
)
def test_little_of_a_published_corpus_is_padding(tmp_path, layout, corpus, split):
    folder = CORPORA / corpus
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    durations = [measure_duration(u) for u in prepare(layout, folder, tmp_path)[split]]
    for seconds in (30.0, 60.0, 120.0, 300.0):
        for ranks in (1, 2, 8):
            assert padding_share(durations, plan_epoch(durations, seconds, 1, 0, ranks)) < 0.05


def test_padding_is_counted():
    assert padding_share([1.0, 2.0, 3.0], [(0, 1), (2,)]) == pytest.approx(1 / 7)
    assert padding_share([1.0, 2.0, 3.0], [(0,), (), (1,), (2,)]) == 0.0


@given(DURATIONS, st.floats(1.0, 100.0))
def test_evaluation_drops_nothing(durations, seconds):
    plan = plan_by_duration(durations, seconds)
    order = [index for batch in plan for index in batch]
    assert sorted(order) == list(range(len(durations)))
    assert [durations[i] for i in order] == sorted(durations, reverse=True)


def examples(*lengths: int) -> list[Example]:
    return [
        Example(Utterance(f"u{n}", f"{n}", speaker="even" if n % 2 == 0 else "odd"), n / 100, (1,) * (n % 5))
        for n in lengths
    ]


def read(utterance: Utterance) -> np.ndarray:
    return np.random.default_rng(int(utterance.audio)).standard_normal(int(utterance.audio), dtype=np.float32)


def test_a_batch_is_padded_with_zeros():
    batch = load_batch(examples(30, 43), read)
    assert batch.samples.shape == (2, 43)
    assert batch.sample_lengths.tolist() == [30, 43]
    assert (batch.samples[0, 30:] == 0).all()
    np.testing.assert_array_equal(batch.samples[0, :30], read(examples(30)[0].utterance))
    assert batch.tokens.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert batch.token_lengths.tolist() == [0, 3]


def test_what_is_drawn_for_a_batch_knows_its_lengths():
    def draw(utterances, lengths):
        gains = torch.tensor([float(u.id[1:]) for u in utterances])
        return Augmentation(tuple(lengths), (), none, (), none, none, (), none, gains, (0, 0), 16000)

    none = torch.zeros(0, 0)
    batch = load_batch(examples(400, 300), read, draw)
    assert batch.augmentation is not None
    assert batch.augmentation.speeds == (400, 300)
    assert batch.to(torch.device("cpu")).augmentation.gains.tolist() == [400, 300]
    assert load_batch(examples(400), read).augmentation is None


def test_reading_ahead_keeps_the_order_and_is_ahead():
    started: list[int] = []
    gate = threading.Event()

    def job(number: int) -> int:
        started.append(number)
        gate.wait(5)
        time.sleep(0.001 * (number % 3))
        return number

    results = read_ahead((lambda n=n: job(n) for n in range(20)), workers=3, ahead=4)
    gate.set()
    assert next(results) == 0
    assert len(started) > 1
    assert list(results) == list(range(1, 20))


def test_an_error_while_reading_ahead_reaches_the_reader():
    def fail() -> int:
        raise ValueError("broken")

    results = read_ahead([lambda: 1, fail, lambda: 3], workers=1)
    assert next(results) == 1
    with pytest.raises(ValueError, match="broken"):
        next(results)


def test_a_speakers_statistics_are_those_of_all_their_frames():
    features = Features(FeatureConfig(sample_rate=8000, n_mels=10, normalisation="speaker"))
    group = examples(4000, 6001, 3000, 5003)
    measured = measure_speakers(features, group, read, batch_seconds=100.0)
    assert set(measured) == {"even", "odd"}
    frames = torch.cat(
        [
            features.extract(
                torch.from_numpy(read(e.utterance))[None], torch.tensor([int(e.utterance.audio)])
            )[0][0]
            for e in (group[0], group[2])
        ]
    )
    mean, std = measured["even"]
    torch.testing.assert_close(mean, frames.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(std, frames.std(0, correction=0), atol=1e-4, rtol=1e-4)


def test_unknown_symbols_stop_training_but_not_evaluation():
    tokenizer, config = Tokenizer((BLANK, "a")), TextConfig()
    utterances = [Utterance("u1", "x.wav", duration=1.0, text="a"), Utterance("u2", "x.wav", 0, 1.0, "ab")]
    with pytest.raises(TextError, match="u2"):
        training_examples(utterances, tokenizer, config)
    assert [e.tokens for e in evaluation_examples(utterances, tokenizer, config)] == [(1,), None]
