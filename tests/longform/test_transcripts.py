"""Recordings of any length: what is cut is all heard, and what is put together is as if it were never cut."""

from __future__ import annotations

import io
import threading
import time
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asr.audio.reading import AudioError, read_audio
from asr.audio.vad import find_speech, hop_samples, num_frames
from asr.longform import cutting
from asr.longform import transcripts as longform
from asr.longform.cutting import (
    LONGEST_CHUNK,
    LONGEST_CHUNK_SECONDS,
    OVERLAP_SECONDS,
    PADDING,
    PAUSE,
    SHORTEST_PAUSE,
    Chunk,
    cut_into_chunks,
    find_next_cut,
    split_by_voice,
)
from asr.longform.stitching import CONTEXT_SECONDS, SpeechSegment, find_seam
from asr.longform.transcripts import (
    BATCH_SECONDS,
    POOL,
    LongformConfig,
    RecordingEnd,
    compute_whole_log_probs,
    fill_rounds,
    fill_silence,
    make_segments,
    plan_batches,
    take_portion,
    transcribe_recordings,
)
from asr.text.tokenizer import BLANK_TOKEN
from asr.transcript.values import Hypothesis, Transcript, Word
from tests.synthetic import NO_SPEECH, applaud

RATE = 1000
FRAME = 40  # samples from one row of log-probs to the next
TOKENS = 20
HOP = hop_samples(RATE)
SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("digit*.flac"))
SAID = ["four", "seven", "one eight seven two"]


class Fake:
    """A model that hears sample values as tokens, but near the ends of what it is given only nonsense.

    It places all tokens of a chunk a row or two late, how many differs from chunk to chunk.
    """

    name, sample_rate, frame_samples, settings = "fake", RATE, FRAME, {"search": "greedy"}
    threads = 1  # or the order of batches, and what is drawn for them, would be an accident

    def __init__(self, deaf_seconds: float = 0.0) -> None:
        self.deaf = round(deaf_seconds * RATE / FRAME)
        self.batches: list[list[int]] = []
        self.generator = np.random.default_rng(1)

    def log_probs(self, batches):
        for samples in batches:
            self.batches.append([len(array) for array in samples])
            yield [self.array_log_probs(array) for array in samples]

    def array_log_probs(self, samples):
        rows = -(-len(samples) // FRAME)
        tokens = np.zeros(rows, int)
        places = np.flatnonzero(samples)
        late = np.minimum(places // FRAME + self.generator.integers(0, 3), rows - 1)
        tokens[late] = np.rint(100 * samples[places])
        ends = np.r_[: min(self.deaf, rows), max(0, rows - self.deaf) : rows]
        tokens[ends] = self.generator.integers(0, TOKENS, len(ends))
        return np.log(0.9 * np.eye(TOKENS)[tokens] + 0.1 / TOKENS)

    def search(self, log_probs, threads=None):
        return [self.collapsed(make_rows) for make_rows in log_probs]

    def collapsed(self, log_probs):
        best = log_probs.argmax(axis=1)
        begins = [i for i, token in enumerate(best) if i == 0 or best[i - 1] != token]
        rows = [i for i in begins if best[i] != BLANK_TOKEN]
        seconds = FRAME / RATE
        words = tuple(Word(str(best[i]), i * seconds, (i + 1) * seconds, 1.0) for i in rows)
        return Hypothesis(tuple(best[rows]), " ".join(word.text for word in words), 0.0, words)


def encode_wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def transcribe(model: Fake, samples: np.ndarray, **options) -> Transcript:
    (transcript,) = transcribe_recordings(model, [encode_wav(samples)], LongformConfig(**options))
    assert isinstance(transcript, Transcript), transcript
    return transcript


def list_words(transcript: Transcript) -> list[Word]:
    return [word for segment in transcript.segments for word in segment.words]


# --- what is put together -------------------------------------------------------------------------


@given(
    seconds=st.floats(10, 500),
    gaps=st.lists(st.integers(5, 20), min_size=5, max_size=40),
    tokens=st.lists(st.integers(1, TOKENS - 1), min_size=7, max_size=40),
    batch_size=st.integers(1, 5),
)
@example(seconds=30.0, gaps=[5] * 5, tokens=[1] * 7, batch_size=8)
@example(seconds=30.001, gaps=[5] * 5, tokens=[1] * 7, batch_size=8)
@example(seconds=450.0, gaps=[5] * 5, tokens=[*range(1, 20)], batch_size=8)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_at_the_seams_no_token_is_lost_or_doubled(seconds, gaps, tokens, batch_size):
    samples = np.zeros(int(seconds * RATE))
    first, last = round(CONTEXT_SECONDS * RATE), len(samples) - round(CONTEXT_SECONDS * RATE) - 3 * FRAME
    places = first + FRAME * np.cumsum(np.resize(gaps, 3000))
    places = places[places < last]
    spoken_tokens = np.resize(tokens, len(places))
    samples[places] = spoken_tokens / 100
    transcript = transcribe(Fake(CONTEXT_SECONDS - 0.1), samples, vad=False, batch_size=batch_size)
    assert transcript.duration == pytest.approx(len(samples) / RATE)
    inner = [w for w in list_words(transcript) if first / RATE <= w.start < last / RATE + 0.1]
    assert [word.text for word in inner] == [str(token) for token in spoken_tokens]
    late = np.array([word.start for word in inner]) - places / RATE
    assert -FRAME / RATE <= late.min(initial=0) <= late.max(initial=0) <= 2 * FRAME / RATE + 1e-6
    ends = [time for segment in transcript.segments for time in (segment.start, segment.end)]
    assert ends == sorted(ends)
    assert ends[-1] <= transcript.duration
    assert max(segment.end - segment.start for segment in transcript.segments) < 250


@pytest.mark.parametrize("seconds", [0.001, 0.06, 12.0, 29.99, 30.0, 31.0, 640.0])
def test_the_log_probs_of_a_whole_recording_have_a_row_for_every_frame(seconds):
    samples = np.zeros(int(seconds * RATE))
    places = np.arange(100 * FRAME, len(samples) - 100 * FRAME, 25 * FRAME)
    samples[places] = np.resize(np.arange(1, TOKENS), len(places)) / 100
    log_probs, count = compute_whole_log_probs(Fake(CONTEXT_SECONDS - 0.1), encode_wav(samples), vad=False)
    assert count == len(samples)
    assert len(log_probs) == -(-count // FRAME)
    heard_tokens = log_probs.argmax(axis=1)
    inner = np.flatnonzero(heard_tokens[80:-80]) + 80
    np.testing.assert_array_equal(heard_tokens[inner], np.rint(100 * samples[places]))
    assert ((inner - places // FRAME >= 0) & (inner - places // FRAME <= 2)).all()


def test_a_short_recording_is_heard_as_if_it_were_never_cut():
    samples = np.zeros(int(LONGEST_CHUNK_SECONDS * RATE))
    samples[::100] = 0.07
    expected = Fake().array_log_probs(samples)
    for vad in (True, False):  # speech is not found in it, so that all is heard
        found, _ = compute_whole_log_probs(Fake(), encode_wav(samples), vad=vad)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(AudioError, match=r"no\.wav: cannot be read: no such file"):
        compute_whole_log_probs(Fake(), "no.wav")


def make_rows(text: str) -> np.ndarray:
    """Log-probs of letters, ``-`` for the blank."""
    return np.log(0.9 * np.eye(27)[["-abcdefghijklmnopqrstuvwxyz".index(c) for c in text]] + 0.1 / 27)


@pytest.mark.parametrize(
    ("before", "after", "margin", "place"),
    [
        ("aa-bb------c-d", "aa-bb------c-d", 0, 8),  # the middle of the longest pause
        ("a---b", "a---b", 0, 2),
        ("a----b-", "-a----b", 0, 3),  # a token earlier than in the other: behind it in both
        ("----aaaa-aaaa", "----aaaa-aaaa", 2, 3),  # no seam where one of them guesses
        ("xxxx-a---b-c", "yyyy-a---b-c", 4, 7),
        ("", "", 5, 0),
        ("-", "a", 5, 0),
    ],
)
def test_the_seam_is_in_the_longest_pause_of_both(before, after, margin, place):
    assert find_seam(make_rows(before), make_rows(after), margin) == place


def test_without_a_pause_the_seam_is_where_the_blank_is_surest():
    log_probs = make_rows("abcdefgh")
    log_probs[5, BLANK_TOKEN] = np.log(0.3)
    assert find_seam(log_probs, log_probs, 1) == 5
    assert 2 <= find_seam(log_probs[:, ::-1], make_rows("abcdefgh"), 2) < 6


# --- what is cut ----------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.one_of(st.integers(1, 60), st.integers(1, 3000)), min_size=1, max_size=30),
    block=st.integers(1, 400),
    begins_with_speech=st.booleans(),
)
@example(lengths=[4000], block=50, begins_with_speech=True)
@example(lengths=[1490, 29, 1490], block=50, begins_with_speech=True)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_all_speech_is_in_pieces_that_are_not_too_long(lengths, block, begins_with_speech):
    flags = np.repeat((np.arange(len(lengths)) + begins_with_speech) % 2 == 1, lengths)
    samples = np.arange(len(flags) * HOP - 7, dtype=np.float32)
    size = block * HOP
    blocks = [
        (samples[i : i + size], flags[i // HOP : i // HOP + num_frames(len(samples[i : i + size]), RATE)])
        for i in range(0, len(samples), size)
    ]
    cut = list(cut_into_chunks(blocks, RATE, FRAME))
    covered = np.zeros(len(samples), int)
    for chunk in cut:
        np.testing.assert_array_equal(chunk.samples, samples[chunk.begin : chunk.end])
        assert 0 < len(chunk.samples) <= LONGEST_CHUNK_SECONDS * RATE
        covered[chunk.begin : chunk.end] += 1
    for first, last in find_speech(flags):
        assert covered[first * HOP : last * HOP].all()
    for before, after in pairwise(cut):
        if after.overlaps:
            assert OVERLAP_SECONDS * RATE <= before.end - after.begin < OVERLAP_SECONDS * RATE + FRAME
            assert (after.begin - before.begin) % FRAME == 0
        else:
            assert after.begin >= before.end
    silent = np.repeat(~flags, HOP)[: len(samples)]
    assert (covered.astype(bool) & silent).sum() <= (2 * PADDING + PAUSE) * HOP * (len(lengths) + len(cut))
    assert covered.any() == (bool(find_speech(flags)) or flags.all())


def make_flags(*lengths: int) -> np.ndarray:
    """Speech, pause, speech and so on."""
    return np.repeat(np.arange(len(lengths)) % 2 == 0, lengths)


def test_a_pause_ends_a_piece():
    cut = find_next_cut(make_flags(400, PAUSE, 400), overlaps=False, final=False)
    assert (cut.begin, cut.end, cut.speech_goes_on) == (0, 400 + PADDING, False)
    assert find_next_cut(make_flags(400, PAUSE - 1, 400), overlaps=False, final=False) is None
    cut = find_next_cut(make_flags(400, 100, 400), overlaps=False, final=False)
    assert (cut.begin, cut.end, cut.speech_goes_on) == (0, 400 + PADDING, False)
    speech = make_flags(400)
    for silence in range(1, PAUSE):
        assert (
            find_next_cut(np.concatenate([speech, ~make_flags(silence)]), overlaps=False, final=False) is None
        )
    cut = find_next_cut(np.concatenate([speech, ~make_flags(PAUSE)]), overlaps=False, final=False)
    assert cut.end == 400 + PADDING


def test_of_short_pauses_the_longest_is_cut_in_the_middle():
    longer = SHORTEST_PAUSE + 2
    assert longer < PAUSE
    cut = find_next_cut(make_flags(600, longer, 300, SHORTEST_PAUSE, 900), overlaps=False, final=False)
    assert (cut.end, cut.speech_goes_on) == (600 + longer // 2, False)


def test_without_a_pause_pieces_overlap():
    cut = find_next_cut(make_flags(600, SHORTEST_PAUSE - 1, 1200), overlaps=False, final=False)
    assert (cut.begin, cut.end, cut.speech_goes_on) == (0, LONGEST_CHUNK, True)


def test_silence_before_speech_is_passed_over():
    silence = ~make_flags(500)
    cut = find_next_cut(silence, overlaps=False, final=False)
    assert (cut.begin, cut.end) == (500 - PADDING, 500 - PADDING)
    cut = find_next_cut(np.concatenate([silence, make_flags(100)]), overlaps=False, final=True)
    assert (cut.begin, cut.end) == (500 - PADDING, 600)


def test_no_more_than_a_minute_waits(monkeypatch):
    waits = []
    cut = cutting.find_next_cut

    def watched(flags, overlaps, final):
        waits.append(len(flags))
        return cut(flags, overlaps, final)

    monkeypatch.setattr(cutting, "find_next_cut", watched)
    seconds = ((np.zeros(RATE, np.float32), np.ones(RATE // HOP, bool)) for _ in range(1000))
    assert sum(1 for _ in cut_into_chunks(seconds, RATE, FRAME)) > 30
    assert max(waits) < 2 * LONGEST_CHUNK


# --- several voices -------------------------------------------------------------------------------


def change_voices(monkeypatch, *places: int) -> None:
    """Let every chunk be one in which somebody else begins to speak at ``places``, as far as it reaches."""
    monkeypatch.setattr(cutting, "find_turns", lambda samples, rate: [p for p in places if p < len(samples)])


NO_FLAGS = np.zeros(0, bool)  # of a chunk in which nothing is compared by its loudness


def make_chunk(length: int, **options) -> Chunk:
    return Chunk(7 * FRAME, np.arange(length, dtype=np.float32), **options)


def test_a_piece_is_divided_where_voices_change(monkeypatch):
    change_voices(monkeypatch, 10 * FRAME + 3, 25 * FRAME)
    divided = list(split_by_voice(make_chunk(30 * FRAME + 1), NO_FLAGS, RATE, FRAME))
    assert [chunk.begin for chunk in divided] == [7 * FRAME, 17 * FRAME, 32 * FRAME]
    assert [chunk.adjoins for chunk in divided] == [False, True, True]
    assert not any(chunk.overlaps for chunk in divided)
    np.testing.assert_array_equal(np.concatenate([p.samples for p in divided]), np.arange(30 * FRAME + 1))


def test_a_piece_is_not_divided_where_it_overlaps_another(monkeypatch):
    overlap = round(OVERLAP_SECONDS * RATE)
    change_voices(monkeypatch, overlap - FRAME, overlap + FRAME)
    divided = list(split_by_voice(make_chunk(2 * overlap, overlaps=True), NO_FLAGS, RATE, FRAME))
    assert [chunk.begin for chunk in divided] == [7 * FRAME, 7 * FRAME + overlap + FRAME]
    assert [(chunk.overlaps, chunk.adjoins) for chunk in divided] == [(True, False), (False, True)]


@pytest.mark.parametrize("seconds", [31.0, 90.0, 450.0])
def test_words_are_sought_across_changes_of_voice(monkeypatch, seconds):
    places = [round(time * RATE) for time in (8.03, 16.01, 24.0)]
    change_voices(monkeypatch, *places)
    monkeypatch.setattr(longform, "detect_speech", longform.assume_speech)  # all is speech, without a pause
    samples = np.zeros(int(seconds * RATE))
    at = np.arange(2 * FRAME, len(samples) - 5 * FRAME, 9 * FRAME)
    samples[at] = np.resize(np.arange(1, TOKENS), len(at)) / 100
    model = Fake()
    transcript = transcribe(model, samples)
    assert transcript.text.split() == [str(round(100 * token)) for token in samples[at]]
    late = np.array([word.start for word in list_words(transcript)]) - at / RATE
    assert -FRAME / RATE <= late.min() <= late.max() <= 2 * FRAME / RATE + 1e-6
    assert len(transcript.segments) == (1 if seconds < 200 else 3)
    assert max(map(max, model.batches)) < 10 * RATE


@pytest.mark.parametrize("fainter_db", [6, 20, 40])
def test_a_faint_voice_after_a_loud_one_is_heard_alone(fainter_db):
    flags = make_flags(100, 20, 100, 20, 100)
    loudness = np.repeat([1.0, 1e-6, 10 ** (-fainter_db / 20), 1e-6, 1.0], [100, 20, 100, 20, 100])
    noise = np.random.default_rng(1).standard_normal(len(flags) * hop_samples(8000))
    samples = (0.1 * noise * np.repeat(loudness, hop_samples(8000))).astype(np.float32)
    places = [110 * hop_samples(8000), 230 * hop_samples(8000)] if fainter_db >= 20 else []
    assert cutting.find_loudness_changes(samples, flags, 8000) == places


def test_where_there_is_nothing_there_is_faint_noise():
    generator = np.random.default_rng(1)
    speech = 0.1 * generator.standard_normal(8000).astype(np.float32)
    samples = np.concatenate([np.zeros(1600, np.float32), speech, 1e-3 * speech[:1600]])
    filled = cutting.fill_nothing(samples, 8000)
    np.testing.assert_array_equal(filled[1600:], samples[1600:])  # a microphone's own noise stays
    assert 20 * np.log10(filled[:1600].std() / speech.std()) == pytest.approx(-cutting.NOISE_DB, abs=1.5)
    assert cutting.fill_nothing(speech, 8000) is speech


# --- many recordings ------------------------------------------------------------------------------


def test_pieces_of_all_recordings_are_batched_by_length(tmp_path):
    (tmp_path / "x.wav").write_text("not audio")
    lengths = [3, 8, 1, 20, 9, 15, 2, 2, 31]
    sources = [encode_wav(np.full(seconds * RATE, 0.01)) for seconds in lengths]
    sources.insert(4, tmp_path / "x.wav")
    model, progress = Fake(), []
    found = list(
        transcribe_recordings(model, sources, LongformConfig(vad=False, batch_size=3), progress.append)
    )
    assert isinstance(found.pop(4), AudioError)
    assert [transcript.duration for transcript in found] == lengths
    assert all(transcript.text == "1" for transcript in found)
    assert all(len(batch) <= 3 for batch in model.batches)
    first_pool = list(chain(*model.batches))[: 3 * POOL]
    assert first_pool == sorted(first_pool, reverse=True)
    assert sum(progress) == pytest.approx(sum(sum(batch) for batch in model.batches) / RATE)


def test_batches_are_neither_too_many_nor_too_long():
    long = BATCH_SECONDS / 3
    assert list(plan_batches([1.0, long, 2.0, long, long, long, 1.5], 3)) == [[1, 3, 4], [5, 2, 6], [0]]
    assert list(plan_batches([BATCH_SECONDS / 2, BATCH_SECONDS / 2, BATCH_SECONDS], 3)) == [[2], [0, 1]]
    assert list(plan_batches([2 * BATCH_SECONDS], 3)) == [[0]]
    assert list(plan_batches([], 3)) == []


def test_a_recording_that_fails_at_its_end_takes_nothing_along():
    broken = encode_wav(np.full(90 * RATE, 0.03))
    flac = io.BytesIO()
    soundfile.write(flac, np.full(90 * 8000, 0.02), 8000, format="FLAC")
    sources = [
        encode_wav(np.full(RATE, 0.01)),
        flac.getvalue()[:-2000],
        encode_wav(np.full(RATE, 0.04)),
        broken,
    ]
    found = list(transcribe_recordings(Fake(), sources, LongformConfig(vad=False)))
    assert [getattr(outcome, "text", "failed") for outcome in found] == ["1", "failed", "4", "3"]
    assert found[3].segments[0].end == 90


def test_what_is_there_of_a_recording_is_heard_unless_it_must_be_whole():
    content = encode_wav(np.full(20 * RATE, 0.02))[: -5 * 4 * RATE]
    (lenient,) = transcribe_recordings(Fake(), [content], LongformConfig(vad=False))
    assert (lenient.text, lenient.duration) == ("2", 15.0)
    assert lenient.faults == ("is truncated: 15.00 of 20.00 seconds are there",)
    (strict,) = transcribe_recordings(Fake(), [content], LongformConfig(vad=False, strict=True))
    assert isinstance(strict, AudioError)


def test_the_settings_are_told():
    transcript = transcribe(Fake(), np.zeros(RATE), vad=False, batch_size=2)
    assert transcript.settings == {"search": "greedy", "vad": False, "batch_size": 2}
    assert transcript.segments == ()


# --- real speech ----------------------------------------------------------------------------------


def concatenate(pause: float, count: int) -> tuple[np.ndarray, list[str], list[float]]:
    """Samples one behind the other, what is said in them, and when each begins."""
    recordings = [read_audio(path, 8000) for path in SAMPLES]
    order = np.random.default_rng(2).integers(0, len(SAMPLES), count)
    parts, begins = [], []
    for number in order:
        begins.append(sum(map(len, parts)) / 8000)
        parts += [recordings[number], 1e-4 * np.random.default_rng(3).standard_normal(int(8000 * pause))]
    return np.concatenate(parts).astype(np.float32), [SAID[number] for number in order], begins


@pytest.mark.parametrize("vad", [True, False])
@pytest.mark.parametrize("pause", [0.15, 0.45, 3.0])
def test_many_recordings_end_to_end_are_as_one_by_one(digits, pause, vad):
    samples, said, begins = concatenate(pause, 40)
    transcript = digits.transcribe(encode_wav(samples, 8000), vad=vad)
    assert transcript.text.split() == " ".join(said).split()
    starts = [word.start for word in list_words(transcript)]
    assert starts == sorted(starts)
    firsts = np.cumsum([0] + [len(text.split()) for text in said[:-1]])
    np.testing.assert_allclose(np.array(starts)[firsts], begins, atol=0.6)
    assert transcript.segments[-1].end <= transcript.duration
    assert not vad or pause < 1 or len(transcript.segments) >= len(said)


def test_a_short_recording_is_cut_at_its_pauses(digits):
    samples, said, begins = concatenate(1.5, 8)
    assert len(samples) < LONGEST_CHUNK_SECONDS * 8000
    transcript = digits.transcribe(encode_wav(samples, 8000))
    assert [segment.text for segment in transcript.segments] == said
    np.testing.assert_allclose([s.words[0].start for s in transcript.segments], begins, atol=0.6)


@pytest.mark.parametrize("before", ["silence", "keypad tones", "an organ"])
def test_what_comes_before_speech_changes_nothing(digits, before):
    """The network takes what is typical from speech alone; times stay those of the recording."""
    speech = read_audio(SAMPLES[2], 8000)
    lead = np.zeros(12 * 8000) if before == "silence" else NO_SPEECH[before](8000)
    samples = np.concatenate([lead, np.zeros(4000), speech]).astype(np.float32)
    transcript = digits.transcribe(encode_wav(samples, 8000))
    assert transcript.text == SAID[2]
    alone = digits.transcribe(encode_wav(speech, 8000))
    starts, expected = ([word.start for word in list_words(each)] for each in (transcript, alone))
    np.testing.assert_allclose(np.array(starts) - 12.5, expected, atol=0.1)


@pytest.mark.parametrize("fainter_db", [20, 40])
def test_a_faint_voice_is_heard_behind_a_loud_one(digits, fainter_db):
    loud, faint = read_audio(SAMPLES[2], 8000), read_audio(SAMPLES[1], 8000)
    samples = np.concatenate([loud, np.zeros(4000, np.float32), 10 ** (-fainter_db / 20) * faint])
    assert digits.transcribe(encode_wav(samples, 8000)).text == f"{SAID[2]} {SAID[1]}"


@pytest.mark.parametrize(
    "name",
    ["a piano", "an organ", "keypad tones", "drums", "a line that is busy", "a siren that yelps", "an alarm"],
)
def test_what_is_no_speech_gives_no_words(digits, name):
    assert digits.transcribe(encode_wav(NO_SPEECH[name](8000).astype(np.float32), 8000)).text == ""


def test_applause_gives_no_words(digits):
    assert digits.transcribe(encode_wav(applaud(8000).astype(np.float32), 8000)).text == ""


# --- silence and doubt ------------------------------------------------------------------------------


def test_log_probs_of_silence_are_those_of_the_blank():
    segments = [SpeechSegment(79, 160, make_rows("ab")), SpeechSegment(161, 400, make_rows("cdefgh"))]
    filled = fill_silence(segments, 10, 40)
    assert filled.shape == (10, 27)
    assert "".join("-abcdefghijklmnopqrstuvwxyz"[token] for token in filled.argmax(axis=1)) == "--abcdefgh"
    np.testing.assert_allclose(np.exp(filled).sum(axis=1), 1, atol=1e-5)
    long = fill_silence([SpeechSegment(0, 90, make_rows("abc"))], 2, 40)
    assert list(long.argmax(axis=1)) == [1, 2]


@pytest.mark.parametrize(
    ("seconds", "tokens", "belief"), [(20, 5, 0.25), (20, 20, 1), (1.9, 1, 1), (8, 4, 0.5)]
)
def test_few_tokens_in_a_long_segment_are_doubtful(seconds, tokens, belief):
    words = (Word("a", 0.1, 0.2, 0.8),)
    (segment,) = make_segments(
        SpeechSegment(500, 500 + int(seconds * RATE), make_rows("a")),
        Hypothesis(tuple(range(tokens)), "a", 0.0, words),
        RATE,
    )
    assert segment.words[0].confidence == pytest.approx(0.8 * belief)
    assert segment.words[0].start == pytest.approx(0.6)


# --- the pipeline -----------------------------------------------------------------------------------


class Slow(Fake):
    """A model whose batches and searches take their time, on several threads."""

    threads = 3

    def __init__(self) -> None:
        super().__init__()
        self.running, self.most = 0, 0
        self.lock = threading.Lock()

    @contextmanager
    def busy(self):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.02)
        yield
        with self.lock:
            self.running -= 1

    def log_probs(self, batches):
        for batch in batches:
            with self.busy():
                yield [self.array_log_probs(array) for array in batch]

    def search(self, log_probs, threads=None):
        with self.busy():
            return super().search(log_probs)


def test_steps_overlap_and_results_keep_their_order():
    numbers = [1 + number % 9 for number in range(60)]
    sources = [encode_wav(np.full((1 + number % 4) * RATE, number / 100)) for number in numbers]
    model = Slow()
    found = list(transcribe_recordings(model, sources, LongformConfig(vad=False, batch_size=2)))
    assert [transcript.text for transcript in found] == [str(number) for number in numbers]
    assert model.most == 3


def test_what_a_job_raises_is_raised_and_threads_end():
    class Broken(Slow):
        def search(self, log_probs, threads=None):
            raise MemoryError("no more")

    before = threading.active_count()
    sources = [encode_wav(np.full(RATE, 0.01))] * 40
    with pytest.raises(MemoryError, match="no more"):
        list(transcribe_recordings(Broken(), sources, LongformConfig(vad=False, batch_size=2)))
    transcripts = transcribe_recordings(Slow(), sources, LongformConfig(vad=False, batch_size=2))
    next(transcripts)
    transcripts.close()
    assert threading.active_count() == before


def test_rounds_are_neither_too_many_nor_too_long():
    chunks = [Chunk(0, np.zeros(seconds * RATE, np.float32)) for seconds in (90, 60, 20, 200, 1, 1, 1)]
    end = RecordingEnd("a", 7)
    rounds = list(fill_rounds([*chunks, end], 2, RATE))
    assert rounds.pop() == [chunks[-1], end]
    assert rounds == [chunks[:2], chunks[2:3], chunks[3:4], chunks[4:6]]


def test_a_long_recording_is_read_in_portions():
    items = iter([*(Chunk(0, np.zeros(15 * RATE, np.float32)) for _ in range(4)), RecordingEnd("a", 7)])
    assert [(len(portion), last) for portion, last in (take_portion(items, RATE) for _ in range(2))] == [
        (3, False), (2, True),
    ]  # fmt: skip
