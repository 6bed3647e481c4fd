"""The server as a process: sockets, time limits for heads of requests, a clean end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from logging.config import dictConfig
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from asr.errors import UserError
from asr.recognition.recognizer import Recognizer
from asr.server.app import make_app
from asr.server.engine import Engine
from asr.server.logs import make_log_config, write_log
from asr.server.metrics import Metrics
from asr.server.settings import ServerSettings
from asr.server.wyoming import LONGEST_LINE, serve_connection

CONNECTIONS = 256  # open at the same time; beyond it a request gets status 503
KEEP_ALIVE_SECONDS = 15
SHUTDOWN_SECONDS = 10
LONGEST_HEAD = 32 * 1024  # bytes
LONGEST_MESSAGE = 1 << 20  # bytes of a WebSocket message
WAITING_CONNECTIONS = 512


class ServerError(UserError):
    """The server cannot start; the text says why."""


def run_server(
    recognizer: Recognizer, settings: ServerSettings, report: Callable[[str], object] = lambda line: None
) -> None:
    """Serve until SIGINT or SIGTERM; ``report`` is told the addresses.

    Raises ``ServerError`` when a port is not free.
    """
    listeners = [open_listener(settings.host, settings.port)]
    if settings.wyoming_port >= 0:
        listeners.append(open_listener(settings.host, settings.wyoming_port))
    dictConfig(make_log_config())
    engine = Engine(recognizer, settings, Metrics())
    addresses = [name_address(*pair) for pair in zip(listeners, ("http", "tcp"), strict=False)]
    report(" and ".join(addresses))
    write_log("start", addresses=" ".join(addresses), model=recognizer.name)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(make_server(engine), engine, *listeners))
    write_log("end")


async def serve(
    server: uvicorn.Server, engine: Engine, http: socket.socket, wyoming: socket.socket | None = None
) -> None:
    """Serve HTTP and, where there is a socket for it, Wyoming, until the server of HTTP ends."""
    if wyoming is None:
        await server.serve([http])
        return
    connections = 0

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        if connections >= CONNECTIONS:
            writer.close()
            return
        connections += 1
        try:
            await serve_connection(engine, reader, writer)
        finally:
            connections -= 1

    tcp = await asyncio.start_server(serve_one, sock=wyoming, limit=LONGEST_LINE)
    try:
        await server.serve([http])
    finally:
        tcp.close()


def name_address(listener: socket.socket, scheme: str) -> str:
    """Return the address of a socket that listens as a URL."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def make_server(engine: Engine) -> uvicorn.Server:
    """Make the server of an engine; ``serve`` runs it with sockets, ``should_exit`` ends it."""
    config = uvicorn.Config(
        make_app(engine),
        http=make_http_protocol(engine.settings.header_seconds),
        ws="websockets-sansio",
        ws_max_size=LONGEST_MESSAGE,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
    )
    return uvicorn.Server(config)


def open_listener(host: str, port: int) -> socket.socket:
    """Listen at an address; raises ``ServerError`` where that is not possible."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(WAITING_CONNECTIONS)
    except OSError as error:
        reason = error.strerror or error
        raise ServerError(
            f"{host}, port {port}: cannot listen there ({reason}); try another --port"
        ) from error
    return listener


def make_http_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Make uvicorn's HTTP protocol with an end to requests whose head does not come within ``seconds``."""

    class PatientProtocol(H11Protocol):
        """Closes a connection on which no request is whole in time."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head_timer = self.loop.call_later(seconds, self._close_if_idle)

        def _close_if_idle(self) -> None:
            if self.transport.is_closing() or self.transport.get_protocol() is not self:  # a WebSocket now
                return
            is_answering = self.cycle is not None and not self.cycle.response_complete
            is_head_begun = bool(self.conn.trailing_data[0])
            if not is_answering and (self.cycle is None or is_head_begun):
                self.transport.close()
                return
            self._head_timer = self.loop.call_later(seconds, self._close_if_idle)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_timer.cancel()
            super().connection_lost(exc)

    return PatientProtocol
