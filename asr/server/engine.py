"""The recogniser that all requests share: a queue before it, jobs that can be given up, hot words."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from asr.audio.sources import AudioError
from asr.core.cores import count_cores
from asr.errors import UserError
from asr.longform.transcripts import LongformConfig, transcribe_in_segments
from asr.recognition.recognizer import Recognizer
from asr.server.batching import LIVE, USUAL, Dispatcher, NetworkWork, QueuedNetwork, QueuedRecognizer
from asr.server.decoding import DecoderPool, DecodingError
from asr.server.metrics import Metrics
from asr.server.settings import ServerSettings
from asr.transcript.values import Segment, Transcript

KEPT_SEARCHES = 8  # with the hot words of recent requests
LONGEST_PHRASE = 100  # characters
LONGEST_PROMPT = 20_000


class BusyError(Exception):
    """The queue is full; ``seconds`` says when it may be shorter."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the server is busy; try again in {seconds} s")
        self.seconds = seconds


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


class HotWordError(UserError):
    """Hot words that cannot be used; the text says which and why."""


@dataclass(frozen=True)
class Upload:
    """A file that was received: where it lies, and what the client calls it."""

    path: Path
    name: str


@dataclass
class Job:
    """A recording on its way through the engine."""

    upload: Upload
    hotwords: tuple[str, ...] = ()
    duration: float = 0.0  # seconds, known once it is decoded
    done: float = 0.0  # seconds
    is_abandoned: bool = False

    def check(self) -> None:
        """Raise ``AbandonedError`` if nobody waits."""
        if self.is_abandoned:
            raise AbandonedError


class Engine:
    """A recogniser behind a queue, shared by every kind of request.

    ``folder`` is the only place where anything is written; it is removed at the end.
    """

    def __init__(self, recognizer: Recognizer, settings: ServerSettings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.name = recognizer.name
        self.created = int(time.time())
        self.folder = Path(tempfile.mkdtemp(prefix="asr-serve-"))
        network = recognizer.network
        is_cpu = network.settings.get("device") == "cpu"
        # On processors a batch is the work of the thread that asks for it; one process has a graphics card.
        self._dispatcher = Dispatcher(max(1, network.threads) if is_cpu else 1)
        self._searching = self._dispatcher if is_cpu else Dispatcher(count_cores())
        usual, live = (NetworkWork(network, rank, metrics.batch_size.observe) for rank in (USUAL, LIVE))
        self._live_network = QueuedNetwork(self._dispatcher, live)
        shared = replace(recognizer, network=QueuedNetwork(self._dispatcher, usual))
        self._recognizer = QueuedRecognizer(shared, self._searching)
        self._searches: OrderedDict[tuple[str, ...], QueuedRecognizer] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._waiting = 0
        self.open_streams = 0
        self._job_seconds = 1.0  # of recent ones, on average
        self._decoders = DecoderPool(settings, metrics.killed.inc)
        self.threads = ThreadPoolExecutor(settings.jobs, thread_name_prefix="job")
        self.live_threads = ThreadPoolExecutor(max(1, settings.streams), thread_name_prefix="stream")

    @contextmanager
    def take_place(self) -> Iterator[None]:
        """Take a place in the queue for the block; raises ``BusyError`` when there is none."""
        with self._lock:
            if self._waiting >= self.settings.jobs + self.settings.queue:
                self.metrics.refused.labels("recording").inc()
                rounds = self._waiting / self.settings.jobs
                raise BusyError(min(60, max(1, round(rounds * self._job_seconds))))
            self._waiting += 1
        self.metrics.jobs.inc()
        begun = time.monotonic()
        try:
            yield
        finally:
            self.metrics.jobs.dec()
            with self._lock:
                self._waiting -= 1
                self._job_seconds += 0.1 * (time.monotonic() - begun - self._job_seconds)

    @contextmanager
    def make_folder(self) -> Iterator[Path]:
        """Make a folder for a request, removed after the block."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def transcribe(self, job: Job, report: Callable[[Segment], object] = lambda segment: None) -> Transcript:
        """Transcribe an upload in the thread of the caller; ``report`` gets each segment as it is found.

        Raises ``DecodingError``, ``HotWordError``, or ``AbandonedError`` once ``job.is_abandoned`` is set.
        """
        job.check()
        recognizer = self.find_recognizer(job.hotwords)
        config = LongformConfig()
        with self.make_folder() as folder:
            samples, decisions = folder / "samples.wav", folder / "flags"
            with self._decoders.lend() as worker:
                job.check()
                rate, longest = recognizer.sample_rate, self.settings.longest_seconds
                job.duration = worker.decode(job.upload.path, samples, decisions, rate, longest)
            flags = np.fromfile(decisions, np.uint8) > 0 if decisions.exists() else None

            def progress(seconds: float) -> None:
                job.check()
                job.done = min(job.duration, job.done + seconds)

            segments = []
            try:
                for segment in transcribe_in_segments(recognizer, samples, config, progress, flags):
                    report(segment)
                    segments.append(segment)
            except AudioError as error:  # decoded, and holds nothing
                raise DecodingError(str(error).removeprefix(f"{samples}: ")) from error
        self.metrics.audio_seconds.labels("recording").inc(job.duration)
        settings = recognizer.settings | config.settings
        return Transcript(job.upload.name, job.duration, tuple(segments), self.name, settings)

    def find_live_recognizer(self, hotwords: tuple[str, ...] = ()) -> Recognizer:
        """Find what hears a live stream; raises ``HotWordError`` for what it cannot write."""
        return replace(self.find_recognizer(hotwords).recognizer, network=self._live_network)

    def find_recognizer(self, hotwords: tuple[str, ...]) -> QueuedRecognizer:
        """Find the recogniser that expects ``hotwords``; raises ``HotWordError`` for what it cannot write."""
        if not hotwords:
            return self._recognizer
        if len(hotwords) > self.settings.hotwords:
            raise HotWordError(f"{len(hotwords)} hot words; {self.settings.hotwords} at most")
        with self._lock:
            if found := self._searches.get(hotwords):
                self._searches.move_to_end(hotwords)
                return found
        with self._making:  # one at a time: making one takes a second of a core
            try:
                made = self._recognizer.recognizer.add_hotwords(hotwords)
            except UserError as error:
                raise HotWordError(str(error)) from error
        with self._lock:
            queued = self._searches[hotwords] = QueuedRecognizer(made, self._searching)
            while len(self._searches) > KEPT_SEARCHES:
                self._searches.popitem(last=False)
        return queued

    def close(self) -> None:
        """End threads and processes and remove the folder."""
        for dispatcher in {self._dispatcher, self._searching}:
            dispatcher.close()
        for threads in (self.threads, self.live_threads):
            threads.shutdown(wait=True, cancel_futures=True)
        self._decoders.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def split_prompt(prompt: str) -> tuple[str, ...]:
    """Split a prompt into hot words and phrases at commas and line ends; raises ``HotWordError``."""
    if len(prompt) > LONGEST_PROMPT:
        raise HotWordError(f"a prompt of {len(prompt)} characters; {LONGEST_PROMPT} at most")
    phrases = [phrase.strip() for line in prompt.splitlines() for phrase in line.split(",")]
    phrases = list(dict.fromkeys(phrase for phrase in phrases if phrase))
    if too_long := [phrase for phrase in phrases if len(phrase) > LONGEST_PHRASE]:
        raise HotWordError(
            f"the phrase {too_long[0][:40]!r}... has more than {LONGEST_PHRASE} characters: "
            "a prompt holds words and phrases to expect, with commas between them"
        )
    return tuple(phrases)
