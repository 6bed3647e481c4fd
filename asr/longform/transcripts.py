"""Transcripts of recordings of any length and number.

Each recording is read once, from front to back, and never as a whole in memory: `cutting` makes chunks of it,
the network gets chunks of several recordings in batches of similar length, `stitching` puts their log-probs
together, and each segment of speech is searched as a whole; `pipeline` does all of it at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from asr.audio.reading import AudioError, Source, count_channels, refuse, stream_audio
from asr.audio.sources import find_name, name_source
from asr.audio.vad import assume_speech, detect_speech, repeat_decisions
from asr.core.config import option
from asr.longform.cutting import Chunk, cut_into_chunks
from asr.longform.pipeline import open_threads, read_side_by_side, run_ahead
from asr.longform.punctuating import punctuate_segments
from asr.longform.stitching import SpeechSegment, Stitcher
from asr.text.tokenizer import BLANK_TOKEN
from asr.transcript.values import Hypothesis, Segment, Transcript, clip_words

BATCH_SECONDS = 40.0  # of audio in a batch, however many chunks it could have: they take memory
POOL = 4  # full batches in a round: chunks are read before they are sorted by length
TOGETHER = 8  # segments that are searched by the same job: a recurrent model scores their texts at once
ROUND_SECONDS = POOL * BATCH_SECONDS  # of audio in a round
DOUBTFUL_SECONDS = 2.0  # from a segment this long speech gives tokens; of a shorter one that is not certain
TOKENS_PER_SECOND = 1.0  # and no fewer than so many: what gives fewer is hardly speech
UNSAID = -10.0  # log-prob of every token but the blank where there is no speech

Progress = Callable[[float], object]  # is told the seconds of audio that are done since the last call


@dataclass(frozen=True)
class LongformConfig:
    """How recordings are cut and batched."""

    vad: bool = option(True, "Leave out what is no speech.")
    batch_size: int = option(8, "Segments that the model hears at the same time, at most.")
    channels: Literal["mix", "left", "right", "each"] = option(
        "mix", "The mean of all channels, one of them, or each by itself as a speaker."
    )
    strict: bool = option(False, "Refuse a recording of which something is missing.")

    @property
    def settings(self) -> dict[str, object]:
        """What a transcript says of them: the last two only where they are not the usual ones."""
        usual = {"channels": "mix", "strict": False}
        return {key: value for key, value in asdict(self).items() if (key, value) not in usual.items()}


@dataclass(frozen=True)
class Take:
    """A channel of a recording, ``None`` for the mean of all; ``speaker`` is its name where each is heard."""

    source: Source
    channel: int | None = None
    speaker: str = ""
    is_last: bool = True
    is_strict: bool = True
    flags: np.ndarray | None = field(default=None, compare=False)  # of speech detection, where known


class ChunkRecogniser(Protocol):
    """What a recogniser must do here: samples to log-probs, and log-probs to hypotheses."""

    @property
    def name(self) -> str: ...

    @property
    def sample_rate(self) -> int:
        """Hertz."""

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""

    @property
    def threads(self) -> int:
        """Threads that may call it at the same time."""

    @property
    def settings(self) -> dict[str, object]:
        """How it searches, and whatever else its results depend on."""

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order."""

    def search(self, log_probs: Sequence[np.ndarray], threads: int | None = None) -> list[Hypothesis]:
        """The best hypothesis for each array of log-probs, on so many threads."""


@dataclass(frozen=True)
class RecordingEnd:
    """No more chunks of a recording come: it was read to its end, or it cannot be read."""

    name: str
    samples: int = 0
    error: AudioError | None = None
    take: Take = Take("")
    faults: tuple[str, ...] = ()  # what is missing of it
    notes: tuple[str, ...] = ()


def transcribe_recordings(
    recogniser: ChunkRecogniser,
    sources: Iterable[Source],
    config: LongformConfig = LongformConfig(),
    progress: Progress = lambda seconds: None,
    hear: Callable[[Segment], object] = lambda segment: None,
) -> Iterator[Transcript | AudioError]:
    """Yield the transcript of each recording, or why it cannot be read, in the order of ``sources``.

    Of a recording of which something is missing, what is there is transcribed, and ``Transcript.faults`` says
    what is missing, unless ``config.strict``. Chunks of several recordings share batches, so that a few
    recordings more have been read than have come out. ``progress`` is told how many seconds of audio went
    through the network since the last call, ``hear`` each segment as soon as it is known.
    """
    rate = recogniser.sample_rate
    segments: list[Segment] = []
    ends: list[RecordingEnd] = []
    begin = 0  # of the segments of a channel
    for part in find_segments(recogniser, list_takes(sources, config), config, progress):
        if isinstance(part, Segment):
            segments.append(part)
            hear(part)
            continue
        ends.append(part)
        segments[begin:] = [replace(segment, speaker=part.take.speaker) for segment in segments[begin:]]
        begin = len(segments)
        if not part.take.is_last:
            continue
        yield next((end.error for end in ends if end.error), None) or Transcript(
            part.name,
            max(end.samples for end in ends) / rate,
            tuple(sorted(segments, key=lambda segment: segment.start)),
            recogniser.name,
            recogniser.settings | config.settings,
            tuple(dict.fromkeys(fault for end in ends for fault in end.faults)),
            tuple(dict.fromkeys(note for end in ends for note in end.notes)),
        )
        segments, ends, begin = [], [], 0


def list_takes(sources: Iterable[Source], config: LongformConfig) -> Iterator[Take]:
    """List what is to be heard of each recording."""
    channel = {"left": 0, "right": 1}.get(config.channels)
    for source in sources:
        count = 1
        if config.channels == "each":
            with suppress(AudioError):  # comes again when it is read
                count = count_channels(source)
        if count == 1:
            yield Take(source, channel, is_strict=config.strict)
            continue
        names = ["left", "right"] if count == 2 else [f"channel {number}" for number in range(1, count + 1)]
        for number, name in enumerate(names):
            yield Take(source, number, name, number == count - 1, config.strict)


def transcribe_in_segments(
    recogniser: ChunkRecogniser,
    source: Source,
    config: LongformConfig = LongformConfig(),
    progress: Progress = lambda seconds: None,
    flags: np.ndarray | None = None,
) -> Iterator[Segment]:
    """Yield the segments of one recording as they are found, in order.

    ``progress`` is told how many seconds of audio went through the network since the last call. ``flags`` is
    what ``detect_speech`` decides about the recording, ``(frames,)``, where that is known.
    Raises ``AudioError`` when the recording cannot be read or something of it is missing.
    """
    config = replace(config, strict=True)
    takes = (replace(take, flags=flags) for take in list_takes([source], config))
    for part in find_segments(recogniser, takes, config, progress):
        if isinstance(part, Segment):
            yield part
        elif part.error:
            raise part.error


def find_segments(
    recogniser: ChunkRecogniser, takes: Iterable[Take], config: LongformConfig, progress: Progress
) -> Iterator[Segment | RecordingEnd]:
    """Yield the segments of each take in which something is said, then its end, in order.

    Those of a recogniser with a ``tagger`` are punctuated.
    """
    rounds = search_segments(recogniser, takes, config, progress)
    return punctuate_segments(rounds, getattr(recogniser, "tagger", None))


def search_segments(
    recogniser: ChunkRecogniser, takes: Iterable[Take], config: LongformConfig, progress: Progress
) -> Iterator[list[Segment | RecordingEnd]]:
    """As ``find_segments``, without punctuation, in lists of what is found together."""
    with open_threads(recogniser.threads) as pool:

        def begin(parts: Sequence[SpeechSegment | RecordingEnd]) -> list[Future[list[Hypothesis]]]:
            speech = [part.log_probs for part in parts if isinstance(part, SpeechSegment)]
            size = min(TOGETHER, -(-len(speech) // (2 * recogniser.threads)))
            return [
                pool.submit(recogniser.search, speech[first : first + size], 1)
                for first in range(0, len(speech), max(1, size))
            ]

        for jobs in run_ahead(compute_segments(recogniser, takes, config, progress, pool), begin):
            results = (hypothesis for some in jobs.results() for hypothesis in some)
            found: list[Segment | RecordingEnd] = []
            for part in jobs.item:
                if isinstance(part, SpeechSegment):
                    found += make_segments(part, next(results), recogniser.sample_rate)
                else:
                    found.append(part)
            yield found


def compute_whole_log_probs(
    recogniser: ChunkRecogniser,
    source: Source,
    progress: Progress = lambda seconds: None,
    vad: bool = True,
) -> tuple[np.ndarray, int]:
    """Compute log-probs ``(frames, vocabulary)`` of a whole recording, silence included; count its samples.

    Where ``vad`` finds no speech the blank is nearly certain; where it finds none at all, the network hears
    everything. ``progress`` is told how many seconds of audio went through the network since the last call.
    Raises ``AudioError`` when the recording cannot be read or holds no samples.
    """
    segments: list[SpeechSegment] = []
    with open_threads(recogniser.threads) as pool:
        for parts in compute_segments(recogniser, [Take(source)], LongformConfig(vad=vad), progress, pool):
            for part in parts:
                if isinstance(part, SpeechSegment):
                    segments.append(part)
                elif part.error:
                    raise part.error
                else:
                    samples = part.samples
    if not segments and vad:
        return compute_whole_log_probs(recogniser, source, progress, vad=False)
    if not segments:  # no sample is left at the model's rate
        raise AudioError(f"{name_source(source)}: holds no samples")
    if not vad:
        return np.concatenate([segment.log_probs for segment in segments]), samples
    return fill_silence(segments, -(-samples // recogniser.frame_samples), recogniser.frame_samples), samples


def fill_silence(segments: Sequence[SpeechSegment], rows: int, frame: int) -> np.ndarray:
    """Put the log-probs of segments in their places among ``rows`` of silence, ``frame`` samples each."""
    vocabulary = segments[0].log_probs.shape[1]
    silence = np.full(vocabulary, UNSAID, np.float32)
    silence[BLANK_TOKEN] = np.log1p(-np.exp(UNSAID) * (vocabulary - 1))
    filled = np.tile(silence, (rows, 1))
    end = 0
    for segment in segments:
        begin = max(end, round(segment.begin / frame))
        log_probs = segment.log_probs[: rows - begin]
        end = begin + len(log_probs)
        filled[begin:end] = log_probs
    return filled


def compute_segments(
    recogniser: ChunkRecogniser,
    takes: Iterable[Take],
    config: LongformConfig,
    progress: Progress,
    pool: ThreadPoolExecutor,
) -> Iterator[list[SpeechSegment | RecordingEnd]]:
    """Yield the speech of each recording with its log-probs, then its end, in order; a list for each round.

    The threads of ``pool`` read and compute a round of chunks ahead.
    """
    stitcher = Stitcher(recogniser.frame_samples, recogniser.sample_rate)
    rate = recogniser.sample_rate
    chunks = read_chunks(recogniser, takes, config.vad, pool)

    def begin(items: Sequence[Chunk | RecordingEnd]) -> list[Future[dict[int, np.ndarray]]]:
        samples = [item.samples for item in items if isinstance(item, Chunk)]
        plan = plan_batches([len(array) / rate for array in samples], config.batch_size)
        return [pool.submit(compute_batch, recogniser, samples, indices) for indices in plan]

    for jobs in run_ahead(fill_rounds(chunks, POOL * config.batch_size, rate), begin):
        samples = [item.samples for item in jobs.item if isinstance(item, Chunk)]
        log_probs: dict[int, np.ndarray] = {}
        for batch in jobs.results():
            log_probs |= batch
            progress(sum(len(samples[index]) for index in batch) / rate)
        done: list[SpeechSegment | RecordingEnd] = []
        count = 0
        for item in jobs.item:
            if isinstance(item, Chunk):
                done += stitcher.add(item, log_probs[count])
                count += 1
            else:
                done += [*stitcher.finish(), item]
        yield done


def make_segments(speech: SpeechSegment, hypothesis: Hypothesis, rate: int) -> list[Segment]:
    """Turn a hypothesis into a segment with times of the recording; none where nothing was said.

    The fewer tokens a long segment has, the less it is speech: the confidence of its words falls with them.
    """
    if not hypothesis.text:
        return []
    begin, end = speech.begin / rate, speech.end / rate
    density = len(hypothesis.tokens) / (end - begin) / TOKENS_PER_SECOND
    belief = min(1.0, density) if end - begin >= DOUBTFUL_SECONDS else 1.0
    moved = tuple(
        replace(word, start=begin + word.start, end=begin + word.end, confidence=belief * word.confidence)
        for word in clip_words(hypothesis.words, end - begin)
    )
    return [Segment(begin, end, hypothesis.text, moved)]


def name_recording(source: Source) -> str:
    """Return what a transcript calls its recording: its name, or ``-`` for bytes and files without one."""
    return find_name(source) or "-"


# --- chunks and batches -----------------------------------------------------------------------------


def read_chunks(
    recogniser: ChunkRecogniser, takes: Iterable[Take], vad: bool, pool: ThreadPoolExecutor
) -> Iterator[Chunk | RecordingEnd]:
    """Yield the chunks of each recording, then its end; the threads of ``pool`` read some of them ahead."""
    rate, frame = recogniser.sample_rate, recogniser.frame_samples
    return read_side_by_side(
        takes,
        lambda take: read_recording(take, rate, frame, vad),
        lambda items: take_portion(items, rate),
        pool,
        2 * recogniser.threads,
    )


def read_recording(take: Take, rate: int, frame: int, vad: bool) -> Iterator[Chunk | RecordingEnd]:
    """Read a recording and yield its chunks, then its end."""
    name = name_recording(take.source)
    faults: list[str] = []
    notes: list[str] = []
    report = refuse if take.is_strict else faults.append
    blocks = stream_audio(take.source, rate, take.channel, report, notes.append)
    if take.flags is not None:
        speech = repeat_decisions(blocks, take.flags, rate)
    else:
        speech = detect_speech(blocks, rate) if vad else assume_speech(blocks, rate)
    try:
        samples = yield from cut_into_chunks(speech, rate, frame, by_voice=vad)
    except AudioError as error:
        yield RecordingEnd(name, error=error, take=take)
    else:
        yield RecordingEnd(name, samples, None, take, tuple(faults), tuple(notes))


def take_portion(items: Iterator[Chunk | RecordingEnd], rate: int) -> tuple[list[Chunk | RecordingEnd], bool]:
    """Take chunks of ``BATCH_SECONDS`` in all, or to the recording's end; also return whether that came."""
    portion: list[Chunk | RecordingEnd] = []
    samples = 0
    for item in items:
        portion.append(item)
        if isinstance(item, RecordingEnd):
            return portion, True
        samples += len(item.samples)
        if samples >= BATCH_SECONDS * rate:
            break
    return portion, False


def fill_rounds(
    items: Iterable[Chunk | RecordingEnd], size: int, rate: int
) -> Iterator[list[Chunk | RecordingEnd]]:
    """Gather ``items`` in lists of at most ``size`` chunks and ``ROUND_SECONDS``, or with a longer chunk."""
    gathered: list[Chunk | RecordingEnd] = []
    count = samples = 0
    for item in items:
        if isinstance(item, Chunk):
            if count and (count == size or samples + len(item.samples) > ROUND_SECONDS * rate):
                yield gathered
                gathered, count, samples = [], 0, 0
            count += 1
            samples += len(item.samples)
        gathered.append(item)
    if gathered:
        yield gathered


def compute_batch(
    recogniser: ChunkRecogniser, samples: Sequence[np.ndarray], indices: Sequence[int]
) -> dict[int, np.ndarray]:
    """Compute the log-probs of the arrays with these ``indices`` as one batch."""
    (rows,) = recogniser.log_probs([[samples[index] for index in indices]])
    return dict(zip(indices, rows, strict=True))


def plan_batches(seconds: Sequence[float], size: int) -> Iterator[list[int]]:
    """Plan batches of chunk indices, longest first: at most ``size`` and ``BATCH_SECONDS``, with padding."""
    batch: list[int] = []
    for index in sorted(range(len(seconds)), key=lambda index: -seconds[index]):
        if batch and (len(batch) == size or seconds[batch[0]] * (len(batch) + 1) > BATCH_SECONDS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
