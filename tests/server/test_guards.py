"""Limits, tokens, origins, logs: what a server does about requests that it should not serve."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time

import pytest

from asr.server.logs import JsonFormatter
from tests.server.test_transcriptions import DIGITS, SAID, post

httpx = pytest.importorskip("httpx", reason="needs httpx, part of [dev]")

KEY = "a-long-enough-key"


def test_health_and_metrics(server):
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok", "model": "digits"}
    post(server)
    lines = httpx.get(f"{server.url}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    route = 'route="/v1/audio/transcriptions",status="200"'
    assert float(values[f"asr_requests_total{{{route}}}"]) >= 1
    assert float(values['asr_audio_seconds_total{kind="recording"}']) >= 3.5
    assert float(values["asr_jobs"]) == 0


def test_a_request_keeps_its_number(server):
    assert (
        httpx.get(f"{server.url}/healthz", headers={"X-Request-Id": "a-1"}).headers["x-request-id"] == "a-1"
    )
    made_up = httpx.get(f"{server.url}/healthz", headers={"X-Request-Id": "a b"}).headers["x-request-id"]
    assert len(made_up) == 16


def test_only_who_has_the_key_is_served(serve):
    with serve(api_key=KEY) as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            answer = httpx.get(f"{server.url}/v1/models", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 401
        right = {"Authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{server.url}/v1/models", headers=right).status_code == 200


def test_pages_of_other_sites_are_refused_unless_allowed(server, serve):
    foreign = {"Origin": "https://example.org"}
    assert httpx.get(f"{server.url}/v1/models", headers=foreign).status_code == 403
    assert httpx.get(f"{server.url}/v1/models", headers={"Origin": server.url}).status_code == 200
    with serve(allowed_origins=("https://example.org",)) as open_server:
        answer = httpx.get(f"{open_server.url}/v1/models", headers=foreign)
        assert answer.headers["access-control-allow-origin"] == "https://example.org"


def test_uploads_and_recordings_have_a_size(serve):
    with serve(upload_mib=1, longest_seconds=3.0) as server:
        assert post(server, content=b"x" * (1 << 20)).json()["error"]["code"] == "file_too_large"

        def endless():
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            for _ in range(1000):
                yield b"x" * 10_000

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        try:
            url = f"{server.url}/v1/audio/transcriptions"
            assert httpx.post(url, content=endless(), headers=headers).status_code == 413
        except httpx.TransportError:  # the server hung up before all was sent
            pass
        answer = post(server)
        assert answer.json()["error"]["message"] == (
            "the file lasts longer than 3 seconds, the most that this server takes"
        )


def test_a_full_queue_says_when_to_come_back(serve):
    with serve(jobs=1, queue=0) as server, server.engine.take_place():
        answer = post(server)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_slow_requests_are_ended(serve):
    with serve(header_seconds=0.3, idle_seconds=0.3) as server:
        for head in (b"", b"GET /healthz HT", b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.settimeout(10)
                connection.sendall(head)
                assert connection.recv(100) == b""
        slow = (
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(10)
            connection.sendall(slow)
            assert b" 408 " in connection.recv(1000)


def test_a_client_that_leaves_frees_its_place(serve, monkeypatch):
    with serve(jobs=1, queue=0) as server:
        begun, release = threading.Event(), threading.Event()
        own = server.engine.find_recognizer

        def wait(*arguments: object) -> object:
            begun.set()
            release.wait(30)
            return own(*arguments)

        monkeypatch.setattr(server.engine, "find_recognizer", wait)
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        body = part + DIGITS.read_bytes() + b"\r\n--x--\r\n"
        head = (
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + body)
            assert begun.wait(30)
            assert post(server).status_code == 503
        release.set()
        end = time.monotonic() + 30
        while (answer := post(server, response_format="text")).status_code == 503:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert answer.text.strip() == SAID


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\x7f\x85\u2028", '"}'])
def test_nothing_in_a_log_breaks_its_line(text):
    record = logging.LogRecord("asr.server", logging.INFO, "", 0, text, None, None)
    record.fields = {"path": text}
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["path"] == text
