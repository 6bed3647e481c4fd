"""Live streams: places for a bounded number of them, and threads in which they are heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from asr.core.config import ConfigError
from asr.longform.live import Event, Final, LiveStream
from asr.server.engine import BusyError, Engine

RATES = (4000, 192_000)  # hertz that a stream may have
USUAL_WAIT = 10  # seconds until it is worth to try again


class StreamError(Exception):
    """A stream that cannot be served as asked; the text says why."""


class LiveSession:
    """One live stream of the server: bytes in, events out."""

    def __init__(self, engine: Engine, stream: LiveStream) -> None:
        self._engine = engine
        self._stream = stream
        self._odd = b""

    async def feed(self, content: bytes) -> list[Event]:
        """Take 16-bit samples, little-endian, one channel; return what is new by that."""
        content = self._odd + content
        whole = len(content) // 2 * 2
        self._odd = content[whole:]
        samples = np.frombuffer(content[:whole], "<i2")
        return await self._run(lambda: self._stream.feed(samples))

    async def finish(self) -> list[Event]:
        """End the stream; return what is left."""
        return await self._run(self._stream.finish)

    @property
    def seconds(self) -> float:
        """Seconds of the stream that have been judged."""
        return self._stream.seconds

    async def _run(self, work: Callable[[], list[Event]]) -> list[Event]:
        before, begun = self._stream.seconds, time.monotonic()
        events = await asyncio.get_running_loop().run_in_executor(self._engine.live_threads, work)
        metrics = self._engine.metrics
        metrics.audio_seconds.labels("stream").inc(max(0.0, self._stream.seconds - before))
        if any(isinstance(event, Final) for event in events):
            metrics.final_seconds.observe(time.monotonic() - begun)
        return events


@contextmanager
def take_stream_place(engine: Engine, protocol: str) -> Iterator[None]:
    """Take one of the places for live streams for the block; raises ``BusyError`` when there is none.

    Called in the server's event loop alone, so that counting needs no lock.
    """
    if engine.open_streams >= engine.settings.streams:
        engine.metrics.refused.labels("stream").inc()
        raise BusyError(USUAL_WAIT)
    engine.open_streams += 1
    engine.metrics.streams.labels(protocol).inc()
    try:
        yield
    finally:
        engine.open_streams -= 1
        engine.metrics.streams.labels(protocol).dec()


async def open_session(
    engine: Engine, rate: object, hotwords: tuple[str, ...] = (), **live: float
) -> LiveSession:
    """Start to hear a stream at ``rate`` hertz.

    Raises ``StreamError`` for a rate or a setting that no stream has, ``HotWordError`` for hot words that
    cannot be used.
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not RATES[0] <= rate <= RATES[1]:
        raise StreamError(f"the sample rate is a number from {RATES[0]} to {RATES[1]}")
    loop = asyncio.get_running_loop()
    recognizer = await loop.run_in_executor(engine.live_threads, engine.find_live_recognizer, hotwords)
    try:
        return LiveSession(engine, recognizer.stream(round(rate), **live))
    except ConfigError as error:
        raise StreamError(str(error)) from error
