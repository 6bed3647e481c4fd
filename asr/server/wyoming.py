"""Wyoming, Home Assistant's protocol for voice, over TCP.

An event is a line of JSON with its type, perhaps more JSON of `data_length` bytes, and a payload of
`payload_length` bytes. A client sends `transcribe`, `audio-start`, `audio-chunk`s and `audio-stop`, and gets
`transcript`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asr import __version__
from asr.longform.live import Event, Final
from asr.server.engine import BusyError, Engine, HotWordError, split_prompt
from asr.server.logs import write_log
from asr.server.streams import LiveSession, StreamError, open_session, take_stream_place

LONGEST_LINE = 16 * 1024  # bytes
LONGEST_DATA = 64 * 1024
LONGEST_PAYLOAD = 1 << 20
NEVER = 1e9  # seconds: no partial results
WIDTHS = {1: "u1", 2: "<i2", 4: "<i4"}
MOST_CHANNELS = 8


class ProtocolError(StreamError):
    """What came is no event of this protocol."""


@dataclass(frozen=True)
class WyomingEvent:
    """An event: its type, its data and its payload."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""


async def read_event(reader: asyncio.StreamReader) -> WyomingEvent | None:
    """Read an event; ``None`` at the end. Raises ``ProtocolError`` for what is none."""
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise ProtocolError("an event's line is too long") from error
    table = parse_object(line)
    kind, data = table.get("type"), table.get("data") or {}
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise ProtocolError("an event has a type and data")
    try:
        more = await reader.readexactly(check_length(table.get("data_length"), LONGEST_DATA))
        payload = await reader.readexactly(check_length(table.get("payload_length"), LONGEST_PAYLOAD))
    except asyncio.IncompleteReadError:
        return None
    return WyomingEvent(kind, {**data, **(parse_object(more) if more else {})}, payload)


def parse_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object; raises ``ProtocolError`` for anything else."""
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("an event is JSON") from error
    if not isinstance(table, dict):
        raise ProtocolError("an event is a JSON object")
    return table


def check_length(length: object, longest: int) -> int:
    """Check a number of bytes that follow; raises ``ProtocolError`` for what is too much or none."""
    if length is None:
        return 0
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= longest:
        raise ProtocolError(f"the length of a part of an event is a number from 0 to {longest}")
    return length


async def write_event(writer: asyncio.StreamWriter, kind: str, data: dict[str, Any] | None = None) -> None:
    """Write an event without a payload."""
    content = json.dumps(data, ensure_ascii=False).encode() if data else b""
    line: dict[str, object] = {"type": kind, "version": __version__}
    if content:
        line["data_length"] = len(content)
    writer.write(json.dumps(line).encode() + b"\n" + content)
    await writer.drain()


class WyomingClient:
    """A connection: what its client asked for, and the recording that it sends."""

    def __init__(self, engine: Engine, writer: asyncio.StreamWriter) -> None:
        self._engine = engine
        self._writer = writer
        self._hotwords: tuple[str, ...] = ()
        self._session: LiveSession | None = None
        self._place = ExitStack()  # a place for a live stream, while there is a recording
        self._width, self._channels = 2, 1
        self._texts: list[str] = []

    async def answer(self, event: WyomingEvent) -> None:
        """Do what an event asks for; others than those known here are ignored, as the protocol wants it."""
        if event.kind == "describe":
            await write_event(self._writer, "info", describe_service(self._engine))
        elif event.kind == "ping":
            await write_event(self._writer, "pong", event.data)
        elif event.kind == "transcribe":
            self._hotwords = read_hotwords(event.data)
        elif event.kind == "audio-start":
            await self._start(event.data)
        elif event.kind == "audio-chunk":
            if self._session is None:
                await self._start(event.data)
            assert self._session is not None
            await self._say(await self._session.feed(to_16_bits(event.payload, self._width, self._channels)))
        elif event.kind == "audio-stop":
            await self._stop()

    def leave(self) -> None:
        """Give the place for a stream back."""
        self._session = None
        self._place.close()

    async def _start(self, data: dict[str, Any]) -> None:
        self.leave()
        self._width, self._channels = data.get("width", 2), data.get("channels", 1)
        if self._width not in WIDTHS or self._channels not in range(1, MOST_CHANNELS + 1):
            raise StreamError("samples have 1, 2 or 4 bytes, and a stream has 1 to 8 channels")
        self._place.enter_context(take_stream_place(self._engine, "wyoming"))
        self._session = await open_session(
            self._engine, data.get("rate", 16000), self._hotwords, partial_seconds=NEVER
        )
        self._texts = []
        await write_event(self._writer, "transcript-start")

    async def _say(self, events: list[Event]) -> None:
        for text in (event.segment.readable for event in events if isinstance(event, Final)):
            await write_event(self._writer, "transcript-chunk", {"text": f" {text}" if self._texts else text})
            self._texts.append(text)

    async def _stop(self) -> None:
        if self._session is not None:
            await self._say(await self._session.finish())
        self.leave()
        await write_event(self._writer, "transcript", {"text": " ".join(self._texts)})
        await write_event(self._writer, "transcript-stop")
        self._texts = []


async def serve_connection(
    engine: Engine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve a client until it leaves, sends what is no event, or nothing for too long."""
    client = WyomingClient(engine, writer)
    try:
        while True:
            event = await asyncio.wait_for(read_event(reader), engine.settings.stream_idle_seconds)
            if event is None:
                break
            await client.answer(event)
    except (StreamError, HotWordError, BusyError) as error:
        code = "busy" if isinstance(error, BusyError) else "bad-request"
        with suppress(ConnectionError):
            await write_event(writer, "error", {"text": str(error), "code": code})
    except (ConnectionError, TimeoutError):
        pass
    except Exception as error:
        write_log("failed", logging.ERROR, protocol="wyoming", error=f"{type(error).__name__}: {error}")
    finally:
        client.leave()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def read_hotwords(data: dict[str, Any]) -> tuple[str, ...]:
    """Read the names and terms that a client expects."""
    phrases = [*(data.get("transcript_names") or []), *(data.get("transcript_terms") or [])]
    if not all(isinstance(phrase, str) for phrase in phrases):
        raise StreamError("transcript_names and transcript_terms are lists of texts")
    return split_prompt(",".join(phrases))


def to_16_bits(payload: bytes, width: int, channels: int) -> bytes:
    """Convert samples of 1, 2 or 4 bytes, with one channel or more, to 16 bits with one channel."""
    if width == 2 and channels == 1:
        return payload
    size = width * channels
    samples = np.frombuffer(payload[: len(payload) // size * size], WIDTHS[width]).astype(np.float64)
    samples = (samples - 128) * 256 if width == 1 else samples / (1 << (8 * width - 16))
    mixed = samples.reshape(-1, channels).mean(axis=1)
    return np.clip(mixed, -32768, 32767).astype("<i2").tobytes()


def describe_service(engine: Engine) -> dict[str, Any]:
    """Describe what this server does, for `info`."""
    about = {
        "name": "asr",
        "attribution": {"name": "asr", "url": ""},
        "installed": True,
        "description": "Speech recognition with deep bidirectional LSTMs",
        "version": __version__,
    }
    languages = [engine.settings.language] if engine.settings.language else []
    model = {**about, "name": engine.name, "description": engine.name, "languages": languages}
    return {"asr": [{**about, "models": [model], "supports_transcript_streaming": True}]}
