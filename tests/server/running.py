"""A server in a thread of the test."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from asr.recognition.recognizer import Recognizer
from asr.server.engine import Engine
from asr.server.metrics import Metrics
from asr.server.running import make_server, name_address, open_listener, serve
from asr.server.settings import ServerSettings


@dataclass(frozen=True)
class TestServer:
    """A server that runs, and its address."""

    __test__ = False

    engine: Engine
    url: str
    wyoming_port: int

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextlib.contextmanager
def run_in_thread(recognizer: Recognizer, settings: ServerSettings) -> Iterator[TestServer]:
    """Run a server at a free port for the block."""
    engine = Engine(recognizer, replace(settings, port=0), Metrics())
    listener, wyoming = open_listener(settings.host, 0), open_listener(settings.host, 0)
    server = make_server(engine)
    thread = threading.Thread(target=lambda: asyncio.run(serve(server, engine, listener, wyoming)))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield TestServer(engine, name_address(listener, "http"), wyoming.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
        assert not engine.folder.exists()
