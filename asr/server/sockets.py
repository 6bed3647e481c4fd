"""Live streams over WebSocket: as vosk's clients send them, and as the page does.

Both send binary messages with 16-bit samples, little-endian, one channel.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from asr.longform.live import Endpoint, Event, Final, Partial
from asr.server.engine import BusyError, Engine, HotWordError, split_prompt
from asr.server.guards import PROTOCOL_PREFIX
from asr.server.streams import LiveSession, StreamError, open_session, take_stream_place
from asr.server.transcriptions import describe_words
from asr.transcript.values import Segment, Word

NORMAL, POLICY_VIOLATION, TRY_AGAIN = 1000, 1008, 1013  # RFC 6455, section 7.4.1; IANA's registry
LONGEST_TEXT = 64 * 1024  # characters of a message that is no samples
MOST_WAITING = 16  # messages of samples that are heard together when a stream is late
BREATH_SECONDS = 0.02  # until it is looked whether they have been taken
USUAL_RATE = 16000

Failure = StreamError | HotWordError | BusyError


async def serve_vosk(websocket: WebSocket) -> None:
    """Serve a client of vosk-server: an answer for each message with samples, the last one after `eof`."""
    engine: Engine = websocket.app.state.engine
    await websocket.accept()
    try:
        with take_stream_place(engine, "vosk"):
            await converse_as_vosk(websocket, engine)
    except (StreamError, HotWordError, BusyError) as error:
        await refuse(websocket, error)
    except (WebSocketDisconnect, TimeoutError):
        await close(websocket, NORMAL)


async def converse_as_vosk(websocket: WebSocket, engine: Engine) -> None:
    """Answer messages until the client has sent `eof`."""
    config: dict[str, Any] = {}
    session: LiveSession | None = None
    shown = ""
    while True:
        message = await receive(websocket, engine.settings.stream_idle_seconds)
        if isinstance(message, bytes):
            session = session or await open_vosk_session(engine, config)
            events = await session.feed(message)
            partials = [event.text for event in events if isinstance(event, Partial)]
            segments = [event.segment for event in events if isinstance(event, Final)]
            shown = partials[-1] if partials else "" if segments else shown
            answer = format_vosk_result(segments, config) if segments else {"partial": shown}
            await websocket.send_text(json.dumps(answer, ensure_ascii=False))
            continue
        table = parse_table(message)
        if isinstance(table.get("config"), dict):
            config = {**config, **table["config"]}
            session = None  # a stream begins anew with other settings
        elif "reset" in table:
            session, shown = None, ""
        elif "eof" in table:
            events = await session.finish() if session else []
            segments = [event.segment for event in events if isinstance(event, Final)]
            await websocket.send_text(json.dumps(format_vosk_result(segments, config), ensure_ascii=False))
            await close(websocket, NORMAL)
            return


async def open_vosk_session(engine: Engine, config: dict[str, Any]) -> LiveSession:
    """Start a stream with the settings of a vosk client; its phrases are hot words."""
    phrases = config.get("phrase_list", [])
    if isinstance(phrases, str):
        with suppress(json.JSONDecodeError):
            phrases = json.loads(phrases)
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise StreamError("phrase_list is a list of texts")
    hotwords = split_prompt(",".join(phrase for phrase in phrases if phrase != "[unk]"))
    return await open_session(engine, config.get("sample_rate", USUAL_RATE), hotwords)


def format_vosk_result(segments: Sequence[Segment], config: dict[str, Any]) -> dict[str, object]:
    """Format segments as one result of vosk: words with times, and a text."""
    words = [word for segment in segments for word in segment.words]
    text = " ".join(segment.text for segment in segments)
    result: dict[str, object] = {}
    if words and config.get("words", 1):
        result["result"] = [describe_vosk_word(word) for word in words]
    result["text"] = text
    if config.get("max_alternatives"):
        sure = sum(word.confidence for word in words) / max(1, len(words))
        return {"alternatives": [{"confidence": round(sure, 4), **result}]}
    return result


def describe_vosk_word(word: Word) -> dict[str, object]:
    """Describe a word as vosk does."""
    return {
        "conf": round(word.confidence, 4),
        "end": round(word.end, 3),
        "start": round(word.start, 3),
        "word": word.text,
    }


# --- the page -------------------------------------------------------------------------------------


async def serve_stream(websocket: WebSocket) -> None:
    """Serve `/v1/stream`: `start`, samples, `stop` in; `ready`, events, `done` or `error` out."""
    engine: Engine = websocket.app.state.engine
    names = [name.strip() for name in websocket.headers.get("sec-websocket-protocol", "").split(",")]
    chosen = next((name for name in names if name and not name.startswith(PROTOCOL_PREFIX)), None)
    await websocket.accept(subprotocol=chosen)
    try:
        with take_stream_place(engine, "stream"):
            await converse(websocket, engine)
    except (StreamError, HotWordError, BusyError) as error:
        await refuse(websocket, error)
    except (WebSocketDisconnect, TimeoutError):
        await close(websocket, NORMAL)


async def converse(websocket: WebSocket, engine: Engine) -> None:
    """Hear a stream until the client stops it."""
    table = parse_table(await receive(websocket, engine.settings.stream_idle_seconds))
    if table.get("type") != "start":
        raise StreamError('the first message is {"type": "start", "rate": 16000}')
    hotwords = split_prompt(str(table.get("hotwords", "")))
    session = await open_session(engine, table.get("rate", USUAL_RATE), hotwords)
    await websocket.send_json({"type": "ready", "model": engine.name})
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
    reader = asyncio.create_task(read_samples(websocket, waiting, engine.settings.stream_idle_seconds))
    try:
        is_over = False
        while not is_over:
            content = await waiting.get()
            parts = [content]
            while not waiting.empty():  # late: what has come in the meantime is heard together
                parts.append(waiting.get_nowait())
            is_over = None in parts
            events = await session.feed(b"".join(part for part in parts if part))
            if is_over:
                await reader  # raises why it ended, if not by `stop`
                events += await session.finish()
            for event in events:
                await websocket.send_json(describe_event(event))
        await websocket.send_json({"type": "done", "seconds": round(session.seconds, 3)})
        await close(websocket, NORMAL)
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError, WebSocketDisconnect, TimeoutError, StreamError):
            await reader


async def read_samples(websocket: WebSocket, waiting: asyncio.Queue[bytes | None], seconds: float) -> None:
    """Put samples in a queue until the client sends `stop`, or fails to send anything; then ``None``."""
    try:
        while True:
            message = await receive(websocket, seconds)
            if isinstance(message, bytes):
                while waiting.qsize() >= MOST_WAITING:
                    await asyncio.sleep(BREATH_SECONDS)
                waiting.put_nowait(message)
            elif parse_table(message).get("type") == "stop":
                return
    finally:
        waiting.put_nowait(None)


def describe_event(event: Event) -> dict[str, object]:
    """Describe an event of a live stream."""
    if isinstance(event, Partial):
        start = round(event.start, 3)
        return {"type": "partial", "start": start, "text": event.text, "stable": event.stable}
    if isinstance(event, Endpoint):
        return {"type": "endpoint", "time": round(event.time, 3)}
    segment = event.segment
    return {
        "type": "final",
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.readable,
        "words": describe_words(segment.words),
    }


# --- messages -------------------------------------------------------------------------------------


async def receive(websocket: WebSocket, seconds: float) -> str | bytes:
    """Wait for a message; raises ``TimeoutError`` or ``WebSocketDisconnect``."""
    message = await asyncio.wait_for(websocket.receive(), seconds)
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", NORMAL))
    text = message.get("text")
    return text if text is not None else message.get("bytes") or b""


def parse_table(message: str | bytes) -> dict[str, Any]:
    """Parse a JSON object; raises ``StreamError`` for anything else."""
    try:
        if isinstance(message, bytes) or len(message) > LONGEST_TEXT:
            raise StreamError("a message in JSON was expected")
        table = json.loads(message)
    except (ValueError, RecursionError) as error:
        raise StreamError("a message that is no JSON") from error
    if not isinstance(table, dict):
        raise StreamError("a message is a JSON object")
    return table


async def refuse(websocket: WebSocket, error: Failure) -> None:
    """Say what is wrong, and close."""
    if websocket.application_state == WebSocketState.CONNECTED:
        with suppress(RuntimeError, WebSocketDisconnect):
            await websocket.send_json({"type": "error", "error": str(error)})
    await close(websocket, TRY_AGAIN if isinstance(error, BusyError) else POLICY_VIOLATION, str(error))


async def close(websocket: WebSocket, code: int, reason: str = "") -> None:
    """Close a connection, if it is still open."""
    if websocket.application_state == WebSocketState.CONNECTED:
        with suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(code, reason.encode()[:120].decode(errors="ignore"))
