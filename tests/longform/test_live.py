"""A live stream says while it hears what `transcribe` says afterwards."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from asr.audio.reading import read_audio
from asr.core.config import ConfigError
from asr.longform.live import (
    DRAFT_SECONDS,
    Endpoint,
    Final,
    LiveConfig,
    LiveStream,
    Partial,
    find_quiet_row,
)
from asr.longform.stitching import SpeechSegment
from asr.longform.transcripts import make_segments
from asr.recognition.recognizer import Recognizer, open_recognizer

SAMPLES = Path(__file__).parent.parent.parent / "samples"
RATE = 8000
SAID = "one eight seven two"


def silence(seconds: float, rate: int = RATE) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 1e-4, round(seconds * rate))
    return noise.astype(np.float32)


@pytest.fixture(scope="module")
def recording() -> np.ndarray:
    """Digits, a pause, one digit, a pause, digits: 8 kHz."""
    lucas = read_audio(SAMPLES / "digits-lucas.flac", RATE)
    four = read_audio(SAMPLES / "digit-4-george.flac", RATE)
    parts = [silence(1.0), lucas, silence(1.2), four, silence(1.5), lucas, silence(0.3)]
    return np.concatenate(parts)


@pytest.fixture(scope="module")
def searching() -> Recognizer:
    """The digits with a beam search."""
    return open_recognizer("digits", "cpu", beam_size=8)


def run(
    recognizer: Recognizer, samples: np.ndarray, block: int = 800, rate: int | None = None, **live: float
) -> list[Partial | Final | Endpoint]:
    stream = recognizer.stream(rate, **live)
    events = []
    for begin in range(0, len(samples), block):
        events += stream.feed(samples[begin : begin + block])
    return events + stream.finish()


def list_finals(events: list[Partial | Final | Endpoint]) -> list:
    return [event.segment for event in events if isinstance(event, Final)]


@pytest.mark.parametrize("kind", ["digits", "searching"])
def test_finals_are_what_transcribe_gives_for_the_same_cuts(kind, recording, request):
    recognizer = request.getfixturevalue(kind)
    segments = list_finals(run(recognizer, recording))
    assert " ".join(segment.text for segment in segments) == f"{SAID} four {SAID}"
    for segment in segments:
        begin, end = round(segment.start * RATE), round(segment.end * RATE)
        (alone,) = recognizer.transcribe_samples([recording[begin:end]])
        nothing = np.zeros((0, 0), np.float32)
        (expected,) = make_segments(SpeechSegment(begin, end, nothing), alone, RATE)
        assert (segment.text, segment.start, segment.end) == (expected.text, expected.start, expected.end)
        for own, word in zip(segment.words, expected.words, strict=True):
            assert (own.text, own.start, own.end) == (word.text, word.start, word.end)
            assert own.confidence == pytest.approx(word.confidence, abs=1e-3)


def test_words_are_on_the_clock_of_the_stream(digits, recording):
    words = [word for segment in list_finals(run(digits, recording)) for word in segment.words]
    four = words[4]
    begin = 1.0 + 3.572 + 1.2
    assert begin < four.start < four.end < begin + 0.6
    assert all(first.end <= second.start for first, second in pairwise(words))


@pytest.mark.parametrize("block", [37, 8000, 10**6])
def test_the_size_of_blocks_changes_no_result(digits, recording, block):
    assert list_finals(run(digits, recording, block)) == list_finals(run(digits, recording))


def test_a_segment_is_shown_before_it_is_over_and_ends_at_a_pause(digits, recording):
    events = run(digits, recording)
    kinds = [type(event) for event in events]
    assert kinds[0] is Partial
    assert [kind for kind in kinds if kind is not Partial] == [Final, Endpoint] * kinds.count(Final)
    assert kinds.count(Final) >= 3
    place = 0
    for segment in list_finals(events):
        partials = []
        while not isinstance(events[place], Final):
            partials.append(events[place])
            place += 1
        assert all(partial.start == segment.start for partial in partials)
        assert segment.end == events[place + 1].time
        place += 2
    texts = [event.text for event in events if isinstance(event, Partial)]
    assert {word for text in texts for word in text.split()} >= set(SAID.split())
    partials = [event for event in events if isinstance(event, Partial)]
    assert all(first != second for first, second in pairwise(partials))  # nothing is said twice


@pytest.mark.parametrize("kind", ["digits", "searching"])
def test_words_that_are_shown_as_stable_never_change(kind, request):
    recognizer = request.getfixturevalue(kind)
    lucas = read_audio(SAMPLES / "digits-lucas.flac", RATE)
    # Pauses of up to 0.7 s between the digits do not end a segment here.
    events = run(recognizer, np.tile(lucas, 8), window_seconds=6.0, pause_seconds=1.5, longest_seconds=15.0)
    segments = list_finals(events)
    assert len(segments) >= 2
    assert " ".join(segment.text for segment in segments) == " ".join([SAID] * 8)
    finals = iter(segments)
    final, most = next(finals), 0
    for event in events:
        if isinstance(event, Final):
            final = next(finals, final)
        elif isinstance(event, Partial):
            most = max(most, event.stable)
            stable = event.text.split()[: event.stable]
            assert final.text.split()[: event.stable] == stable
    assert most >= 3
    assert max(segment.end - segment.start for segment in segments) < 21


@pytest.mark.parametrize("kind", ["digits", "searching"])
def test_partial_results_hear_little_and_lose_no_words(kind, request):
    """However long a segment grows, they hear what its draft has not read, and the final result hears all."""
    recognizer = request.getfixturevalue(kind)
    lengths: list[float] = []

    def compute(batches):
        lengths.extend(len(array) / RATE for batch in batches for array in batch)
        return recognizer.log_probs(batches)

    class Ear:
        sample_rate, frame_samples = recognizer.sample_rate, recognizer.frame_samples
        start_search = staticmethod(recognizer.start_search)
        log_probs = staticmethod(compute)

    stream = LiveStream(Ear(), config=LiveConfig(pause_seconds=1.5, window_seconds=30.0))
    samples = np.tile(read_audio(SAMPLES / "digits-lucas.flac", RATE), 3)
    events = [event for begin in range(0, len(samples), 800) for event in stream.feed(samples[begin:][:800])]
    last = [event for event in events if isinstance(event, Partial)][-1]
    assert max(lengths) < 2 * DRAFT_SECONDS + 1.5 < 6 < len(samples) / RATE
    events = stream.finish()
    assert [segment.text for segment in list_finals(events)] == [" ".join([SAID] * 3)]
    assert lengths[-1] > len(samples) / RATE - 1
    assert last.text.split()[:10] == (SAID.split() * 3)[:10]


@pytest.mark.parametrize("kind", ["digits", "searching"])
def test_a_fork_of_a_search_reads_on_by_itself(kind, recording, request):
    recognizer = request.getfixturevalue(kind)
    rows = next(iter(recognizer.log_probs([[recording]])))[0]
    whole, search = recognizer.start_search(), recognizer.start_search()
    whole.read(rows)
    search.read(rows[:60])
    fork = search.fork()
    fork.read(rows[60:150])
    before = search.guess(rows[:0])
    fork.read(rows[150:])
    assert fork.guess(rows[:0]) == whole.guess(rows[:0])
    assert search.guess(rows[:0]) == before != fork.guess(rows[:0])
    search.read(rows[60:])
    assert search.finish().text == whole.finish().text


@pytest.mark.parametrize("kind", ["digits", "searching"])
def test_a_search_concludes_without_an_end(kind, recording, request):
    recognizer = request.getfixturevalue(kind)
    rows = next(iter(recognizer.log_probs([[recording]])))[0]
    whole, search = recognizer.start_search(), recognizer.start_search()
    whole.read(rows)
    search.read(rows[:60])
    early = search.conclude(rows[60:150])
    late = search.conclude(rows[60:])
    assert early.text and early.text != late.text
    search.read(rows[60:])
    assert search.conclude(rows[:0]) == search.finish() == late == whole.finish()


@pytest.mark.parametrize("kind", ["digits", "searching"])
def test_a_final_result_is_known_when_its_pause_is_over(kind, recording, request):
    """It is shown as a partial one before, and nothing is heard when it becomes final."""
    recognizer = request.getfixturevalue(kind)
    calls: list[int] = []

    def compute(batches):
        calls.append(len(batches))
        return recognizer.log_probs(batches)

    class Ear:
        sample_rate, frame_samples = recognizer.sample_rate, recognizer.frame_samples
        start_search = staticmethod(recognizer.start_search)
        log_probs = staticmethod(compute)

    stream = LiveStream(Ear())
    shown, finals = "", 0
    for begin in range(0, len(recording), 800):
        before = len(calls)
        events = stream.feed(recording[begin : begin + 800])
        for event in events:
            if isinstance(event, Final):
                finals += 1
                assert event.segment.text == shown
                assert len(calls) == before
            elif isinstance(event, Partial):
                shown = event.text
    assert finals >= 2


def test_what_begins_with_a_noise_is_no_segment(digits):
    """Noise that goes on is known to be none a little later: no segment is made of its beginning."""
    noise = np.random.default_rng(0).normal(0, 0.003, 6 * RATE).astype(np.float32)
    assert run(digits, np.concatenate([silence(1.6), noise])) == []


def test_other_rates_and_integers(digits, recording):
    wide = np.repeat(recording, 2)
    integers = (recording * 32767).astype(np.int16)
    longer = integers.astype(np.int32) << 16
    for events in (run(digits, wide, rate=2 * RATE), run(digits, integers), run(digits, longer)):
        assert " ".join(s.text for s in list_finals(events)) == f"{SAID} four {SAID}"


def test_nothing_is_said_where_nobody_speaks(digits):
    assert run(digits, silence(4.0)) == []
    assert run(digits, np.zeros(0, np.float32)) == []
    assert run(digits, np.full(8000, np.nan)) == []


def test_what_is_kept_does_not_grow(digits, recording):
    stream = digits.stream(window_seconds=6.0)
    for _ in range(3):
        stream.feed(recording)
    assert len(stream._samples) <= 8 * RATE
    stream.feed(silence(60.0))
    assert len(stream._samples) <= 6 * RATE
    assert stream.seconds == pytest.approx(3 * len(recording) / RATE + 60, abs=0.2)


def test_a_setting_out_of_bounds_is_named(digits):
    with pytest.raises(ConfigError, match=r"live\.pause_seconds"):
        LiveStream(digits, config=LiveConfig(pause_seconds=0.0))
    with pytest.raises(ConfigError, match="unknown key"):
        digits.stream(pause=1.0)
    with pytest.raises(ValueError, match="one channel"):
        digits.stream().feed(np.zeros((2, 2)))


def test_log_probs_are_divided_between_tokens():
    rows = np.full((40, 3), -5.0)
    rows[:, 1] = 0.0  # one long token ...
    rows[22:26, 0] = 1.0  # ... but for some blanks
    assert find_quiet_row(rows, margin=10) == 24
    rows[22:26, 0] = -5.0
    rows[18, 0] = -4.0
    assert find_quiet_row(rows, margin=10) == 18
    assert find_quiet_row(rows[:1], margin=10) == 1
