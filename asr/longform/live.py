"""Speech as it comes: blocks of samples in, partial and final results out.

A bidirectional network needs what comes after a sound as well as what came before. So the segment that is
being spoken is heard again several times a second, as far as it goes, and each time the search says what it
would be if it ended now. A pause ends a segment, which is heard once more as a whole: what was said is then
what `transcripts` finds for the same samples. That is done shortly before the pause is long enough, so that
it can be said at once when it is.

Partial results need not be exact, and come several times a second. They go by a draft: rows of log-probs
that have ``DRAFT_SECONDS`` of speech after them are read by a search of its own, and the next partial result
hears only what comes after, with as much context before it.

A segment that grows longer than a window is frozen bit by bit: the rows of log-probs that have
``CONTEXT_SECONDS`` of speech after them are kept, the search reads them for good, and only what comes after
is heard again, with as much context before it. Words on which every hypothesis agrees by then no longer
change. So neither time nor memory grows with the length of what is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from asr.audio.arrays import scale_samples
from asr.audio.resampling import make_resampler
from asr.audio.vad import SpeechDetector, find_runs, find_speech
from asr.core.config import check_bounds, option
from asr.longform.cutting import PADDING
from asr.longform.punctuating import Punctuator
from asr.longform.stitching import CONTEXT_SECONDS, SpeechSegment
from asr.longform.transcripts import make_segments
from asr.text.punctuation import Tagger
from asr.text.tokenizer import BLANK_TOKEN
from asr.transcript.values import Hypothesis, Segment

STEP = 5  # frames of speech detection between two decisions: a tenth of a second
AHEAD = 0  # seconds: what ends must be known at once, and what was speech once remains so
MEMORY_SECONDS = 2.0  # of silence that are kept: speech may be found to have begun there
SHORTEST_HEARING_SECONDS = 0.3  # of speech, before the first partial result
PREPARED_SECONDS = 0.2  # before a pause is long enough, the segment is heard to its end
JUDGED_AGAIN = 2  # seconds of speech detection, when a segment ends: was that speech, by what came since?
INTERVAL_SHARE = 0.07  # of an open segment lies between two partial results, at least
DRAFT_SECONDS = 1.5  # of speech before and behind what partial results go by


@dataclass(frozen=True)
class LiveConfig:
    """When a live stream says something."""

    pause_seconds: float = option(0.6, "A pause this long ends a segment.", minimum=0.2, maximum=10.0)
    partial_seconds: float = option(0.3, "Between two partial results, at least.", minimum=0.05)
    window_seconds: float = option(
        10.0,
        "Of speech that is heard again and again; older words no longer change.",
        minimum=6.0,
        maximum=30.0,
    )
    longest_seconds: float = option(
        30.0, "Length of a segment, more or less, when nobody pauses.", minimum=10.0, maximum=120.0
    )

    def __post_init__(self) -> None:
        check_bounds(self, "live")


@dataclass(frozen=True)
class Partial:
    """What has been said since ``start`` (seconds of the stream) in the segment that is being spoken.

    The first ``stable`` of its words no longer change.
    """

    start: float
    text: str
    stable: int = 0


@dataclass(frozen=True)
class Final:
    """A segment that is over, with words, times on the clock of the stream and confidences."""

    segment: Segment


@dataclass(frozen=True)
class Endpoint:
    """Somebody has stopped speaking: the segment ended at ``time``, in seconds of the stream.

    Where no ``Final`` came before it, what was shown of the segment turned out to be no speech.
    """

    time: float


Event = Partial | Final | Endpoint


class SearchStream(Protocol):
    """A search that reads log-probs block by block."""

    def read(self, log_probs: np.ndarray) -> None:
        """Read the next log-probs ``(frames, vocabulary)``."""

    def guess(self, log_probs: np.ndarray) -> list[str]:
        """Find the words there would be if ``log_probs`` came next and were the last; they are not read."""

    def conclude(self, log_probs: np.ndarray) -> Hypothesis:
        """Return the best hypothesis if ``log_probs`` came next and were the last; they are not read."""

    def fork(self) -> SearchStream:
        """Return a copy that reads on by itself and is only asked to guess."""

    def count_certain_words(self) -> int:
        """Count the words, from the first on, that no log-probs that come can change."""

    def finish(self) -> Hypothesis:
        """Return the best hypothesis; the stream cannot be used after that."""


class LiveRecogniser(Protocol):
    """What a recogniser must do here."""

    @property
    def sample_rate(self) -> int:
        """Hertz."""

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order."""

    def start_search(self) -> SearchStream:
        """Start a search that reads log-probs block by block."""


@dataclass
class Hearing:
    """How far a search has come in a segment.

    ``window``, a sample of the stream, is where the network begins to hear; the first ``context`` rows from
    there have been read by the search already, or belong to the segment before.
    """

    window: int
    search: SearchStream
    context: int = 0

    def read(self, rows: np.ndarray, margin: int, frame: int) -> int:
        """Let the search read the next rows; return the sample of the stream up to which they go.

        From now on ``margin`` rows of ``frame`` samples before there are heard again.
        """
        self.search.read(rows)
        seam = self.window + (self.context + len(rows)) * frame
        self.window = max(self.window, seam - margin * frame)
        self.context = (seam - self.window) // frame
        return seam


@dataclass(frozen=True)
class Conclusion:
    """What was said in a segment that ends at ``end``, in samples of the stream."""

    end: int
    hypothesis: Hypothesis


@dataclass
class OpenSegment:
    """A segment that is being spoken; ``begin`` is a sample of the stream."""

    begin: int
    kept: Hearing  # what the final result goes by
    draft: Hearing | None = None  # what partial results go by, ``None`` where that is ``kept``
    stable: int = 0
    shown: Partial | None = None
    spoken: int = 0  # samples of the stream up to which somebody has spoken in it
    heard: int = 0  # and up to which the last partial result went
    prepared: Conclusion | None = None  # while somebody pauses


class LiveStream:
    """A stream of samples that is transcribed while it comes.

    Results do not depend on the sizes of the blocks, but for when there are partial ones: at most one a
    block. One thread at a time may use it.

    Args:
        recogniser: hears and searches.
        rate: hertz of the samples that come; ``None`` means the recogniser's own.
        config: when it says something.
    """

    def __init__(
        self, recogniser: LiveRecogniser, rate: int | None = None, config: LiveConfig = LiveConfig()
    ) -> None:
        self._recogniser = recogniser
        self._config = config
        self._rate = recogniser.sample_rate
        self._resample: Callable[..., np.ndarray] = make_resampler(rate or self._rate, self._rate)
        self._detector = SpeechDetector(self._rate, AHEAD)
        self._hop = self._detector.hop
        self._pause = round(config.pause_seconds * self._rate / self._hop)
        early = round((config.pause_seconds - PREPARED_SECONDS) * self._rate / self._hop)
        self._early = min(self._pause, max(PADDING, early))
        self._waiting = np.zeros(0, np.float32)  # samples that fill no step yet
        self._samples = np.zeros(0, np.float32)  # from ``first`` on
        self._first = 0  # samples of the stream that are no longer kept, a multiple of the hop
        self._flags = np.zeros(0, bool)  # decisions about frames from ``first`` on
        self._end = 0  # samples of the stream up to the end of the last segment
        self._segment: OpenSegment | None = None
        tagger: Tagger | None = getattr(recogniser, "tagger", None)
        self._punctuator = None if tagger is None else Punctuator(tagger)

    @property
    def seconds(self) -> float:
        """Seconds of the stream that have been judged."""
        return self._now / self._rate

    @property
    def _now(self) -> int:
        """Samples of the stream that have been judged."""
        return self._first + len(self._samples)

    def feed(self, samples: np.ndarray) -> list[Event]:
        """Take the next samples, ``(n,)``; return what is new by that.

        Floating-point numbers have full scale 1, whole ones that of their type.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1:
            raise ValueError(f"samples of shape {samples.shape}; a stream has one channel, (n,)")
        samples = np.nan_to_num(scale_samples(samples).astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        self._waiting = np.concatenate([self._waiting, self._resample(samples, last=False)])
        return [*self._take_steps(), *self._report_partial()]

    def finish(self) -> list[Event]:
        """End the stream; return what is left. It cannot be used after that."""
        self._waiting = np.concatenate([self._waiting, self._resample(np.zeros(0, np.float32), last=True)])
        events = self._take_steps()
        if len(self._waiting):
            events += self._take_step(self._waiting)
            self._waiting = self._waiting[:0]
        if self._segment is not None:
            end = self._find_end(self._segment, self._judge())
            is_spoken = self._is_spoken(self._segment, self._judge(JUDGED_AGAIN))
            events += self._close(self._segment, end) if is_spoken else self._drop(self._segment, end)
        return events

    # --- steps ------------------------------------------------------------------------------------

    def _take_steps(self) -> list[Event]:
        events: list[Event] = []
        size = STEP * self._hop
        while len(self._waiting) >= size:
            events += self._take_step(self._waiting[:size])
            self._waiting = self._waiting[size:]
        return events

    def _take_step(self, samples: np.ndarray) -> list[Event]:
        """Judge the next samples: does a segment begin or end, or become too long to be heard whole?"""
        self._samples = np.concatenate([self._samples, samples])
        for _, flags in self._detector.feed(samples):
            self._flags = np.concatenate([self._flags, flags])
        events: list[Event] = []
        if self._segment is None or self._pauses(self._segment, self._early):
            flags = self._judge()
            if self._segment is None:
                self._segment = self._open(flags)
            if self._segment is None:
                self._forget(max(self._end, self._now - round(MEMORY_SECONDS * self._rate)))
                return []
            last = self._find_end(self._segment, flags)
            end = min(self._now, last + PADDING * self._hop)
            if self._pauses(self._segment, self._pause):
                if not self._is_spoken(self._segment, self._judge(JUDGED_AGAIN)):
                    return self._drop(self._segment, last)
                return self._close(self._segment, end)
            if self._pauses(self._segment, self._early):
                return self._prepare(self._segment, end)
        self._segment.prepared = None
        while self._now - self._segment.kept.window >= round(self._config.window_seconds * self._rate):
            events += self._freeze(self._segment)
        self._forget(self._segment.kept.window)
        return events

    def _pauses(self, segment: OpenSegment, frames: int) -> bool:
        """Whether the last speech in a segment that is known of lies so many frames back."""
        return self._now - segment.spoken >= frames * self._hop

    def _judge(self, again: int = 0) -> np.ndarray:
        """Decide about all frames from ``first`` on; those of the last second may change.

        So many seconds before are judged ``again``.
        """
        judged = self._detector.guess(again)[-self._num_frames() :]
        return np.concatenate([self._flags[: self._num_frames() - len(judged)], judged])

    def _num_frames(self) -> int:
        """Count the frames from ``first`` on."""
        return -(-len(self._samples) // self._hop)

    def _open(self, flags: np.ndarray) -> OpenSegment | None:
        """Open a segment where speech has begun since the end of the last one."""
        offset = max(0, self._end - self._first) // self._hop
        speech = find_speech(flags[offset:])
        if not speech:
            return None
        first = max(0, offset + speech[0][0] - PADDING)
        begin = max(self._end, self._first + first * self._hop)
        return OpenSegment(begin, Hearing(begin, self._recogniser.start_search()), spoken=begin)

    def _find_end(self, segment: OpenSegment, flags: np.ndarray) -> int:
        """Find where speech has ended so far, in samples of the stream; it never goes back."""
        offset = max(0, segment.begin - self._first) // self._hop
        speech = find_speech(flags[offset:])
        found = self._first + (offset + speech[-1][1]) * self._hop if speech else segment.begin
        segment.spoken = max(segment.spoken, min(self._now, found))
        return segment.spoken

    def _is_spoken(self, segment: OpenSegment, flags: np.ndarray) -> bool:
        """Whether there is speech in a segment by what is known now, which where it began was little."""
        offset = max(0, segment.begin - self._first) // self._hop
        return segment.kept.window > segment.begin or bool(find_speech(flags[offset:]))

    def _forget(self, place: int) -> None:
        """Forget samples and decisions of before ``place``, in whole frames, as far as they are certain."""
        frames = min(max(0, place - self._first) // self._hop, len(self._flags))
        self._samples = self._samples[frames * self._hop :].copy()
        self._flags = self._flags[frames:].copy()
        self._first += frames * self._hop

    # --- hearing ----------------------------------------------------------------------------------

    def _hear(self, hearing: Hearing, end: int) -> np.ndarray:
        """Compute the log-probs of a segment up to ``end`` that a search has not read."""
        samples = self._samples[hearing.window - self._first : end - self._first]
        if not len(samples):
            samples = np.zeros(self._recogniser.frame_samples, np.float32)
        return next(iter(self._recogniser.log_probs([[samples]])))[0][hearing.context :]

    def _report_partial(self) -> list[Event]:
        """Say what has been said in the open segment, if it is time to, and if that is new."""
        segment = self._segment
        if segment is None or segment.prepared is not None:
            return []
        now = self._now
        heard = (now - segment.kept.window) / self._rate
        interval = max(self._config.partial_seconds, INTERVAL_SHARE * heard)
        is_due = now - max(segment.heard, segment.begin) >= interval * self._rate
        if not is_due or heard < SHORTEST_HEARING_SECONDS:
            return []
        segment.heard = now
        draft = segment.draft or segment.kept
        rows = self._hear(draft, now)
        words = draft.search.guess(rows)
        frame = self._recogniser.frame_samples
        margin = round(DRAFT_SECONDS * self._rate / frame)
        if len(rows) > margin:
            segment.draft = segment.draft or replace(draft, search=draft.search.fork())
            segment.draft.read(rows[:-margin], margin, frame)
        return self._show(segment, words)

    def _show(self, segment: OpenSegment, words: Sequence[str]) -> list[Event]:
        """Make a partial result of the words of a segment, if there are any and they are new."""
        partial = Partial(segment.begin / self._rate, " ".join(words), min(segment.stable, len(words)))
        if partial == segment.shown or not words:
            return []
        segment.shown = partial
        return [partial]

    def _freeze(self, segment: OpenSegment) -> list[Event]:
        """Let the search read what has enough speech after it; split a segment that gets too long there."""
        frame = self._recogniser.frame_samples
        kept = segment.kept
        rows = self._hear(kept, kept.window + round(self._config.window_seconds * self._rate))
        margin = round(CONTEXT_SECONDS * self._rate / frame)
        seam = kept.read(rows[: find_quiet_row(rows, margin)], margin, frame)
        segment.draft = None
        segment.stable = max(segment.stable, kept.search.count_certain_words())
        events: list[Event] = []
        if seam - segment.begin >= round((self._config.longest_seconds - CONTEXT_SECONDS) * self._rate):
            events += self._make_final(segment, Conclusion(seam, kept.search.finish()))
            self._end = seam
            self._segment = OpenSegment(seam, replace(kept, search=self._recogniser.start_search()))
        return events

    def _drop(self, segment: OpenSegment, end: int) -> list[Event]:
        """Forget a segment in which nobody spoke."""
        self._segment, self._end = None, end
        return [Endpoint(end / self._rate)] if segment.shown else []

    def _close(self, segment: OpenSegment, end: int) -> list[Event]:
        """End a segment, and say what was said."""
        conclusion = self._conclude(segment, end)
        self._segment, self._end = None, end
        return [*self._make_final(segment, conclusion), Endpoint(end / self._rate)]

    def _prepare(self, segment: OpenSegment, end: int) -> list[Event]:
        """Find out what was said in a segment if it ends at ``end``, and show it."""
        if segment.prepared is not None and segment.prepared.end == end:
            return []
        segment.prepared = self._conclude(segment, end)
        return self._show(segment, segment.prepared.hypothesis.text.split())

    def _conclude(self, segment: OpenSegment, end: int) -> Conclusion:
        """Hear a segment to its end, unless that is done."""
        if segment.prepared is not None and segment.prepared.end == end:
            return segment.prepared
        return Conclusion(end, segment.kept.search.conclude(self._hear(segment.kept, end)))

    def _make_final(self, segment: OpenSegment, conclusion: Conclusion) -> list[Event]:
        speech = SpeechSegment(segment.begin, conclusion.end, np.zeros((0, 0), np.float32))
        made = make_segments(speech, conclusion.hypothesis, self._rate)
        return [Final(self._punctuator.punctuate(one) if self._punctuator else one) for one in made]


def find_quiet_row(rows: np.ndarray, margin: int) -> int:
    """Find a row at which log-probs may be divided: no token lies there.

    It is the middle of the longest run of blanks in the later half of what lies before the last ``margin``
    rows, which have too little speech after them.
    """
    last = max(1, len(rows) - margin)
    first = last // 2
    part = rows[first:last]
    silences = find_runs(part.argmax(axis=1) == BLANK_TOKEN)
    if silences:
        begin, end = max(silences, key=lambda run: run[1] - run[0])
        return max(1, first + (begin + end) // 2)
    return max(1, first + int(part[:, BLANK_TOKEN].argmax()))
