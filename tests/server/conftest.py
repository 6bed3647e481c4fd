"""A server in a thread, with the shipped model ``digits``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer
    from tests.server.running import TestServer


@pytest.fixture(scope="session")
def serve(digits: Recognizer) -> Callable[..., AbstractContextManager[TestServer]]:
    """A function that runs a server with other settings: ``with serve(queue=0) as server``."""
    for library in ("starlette", "uvicorn", "prometheus_client", "python_multipart", "websockets"):
        pytest.importorskip(library, reason="needs the extra serve")
    from asr.server.settings import ServerSettings
    from tests.server.running import run_in_thread

    return lambda **settings: run_in_thread(digits, ServerSettings(decoders=1, **settings))


@pytest.fixture(scope="session")
def server(serve: Callable[..., AbstractContextManager[TestServer]]) -> Iterator[TestServer]:
    """A server that most tests share."""
    with serve(language="en") as running:
        yield running
