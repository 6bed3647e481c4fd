"""What stands before every request: its number, its log line, who may ask, and how much may be sent."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr.server.errors import RequestError
from asr.server.logs import write_log
from asr.server.metrics import Metrics
from asr.server.settings import ServerSettings

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
OPEN_PATHS = ("/", "/healthz", "/favicon.ico")  # of which no answer tells anything about recordings
OPEN_FOLDERS = ("/page/",)
PROTOCOL_PREFIX = "asr-key."  # a browser sends no headers with a WebSocket, but names of protocols
POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def read_headers(scope: Scope) -> Mapping[str, str]:
    """Return the headers of a request by their names in small letters; the last of a name counts."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


class Observer:
    """Gives each request a number, logs and counts it, and answers for what fails inside."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = read_headers(scope).get("x-request-id", "")
        number = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = number
        begun, status = time.monotonic(), 0

        async def observe_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", []), (b"x-request-id", number.encode()), *SECURITY_HEADERS]
                message = {**message, "headers": headers}
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self.app(scope, receive, observe_send)
        except Exception as error:
            if status == 0 and scope["type"] == "http":
                failure = RequestError(500, f"the server failed; its log has more under {number}")
                await failure.to_response()(scope, receive, observe_send)
            status = status or 500
            write_log("failed", logging.ERROR, request_id=number, error=f"{type(error).__name__}: {error}")
        finally:
            self._log(scope, number, status, time.monotonic() - begun)

    def _log(self, scope: Scope, number: str, status: int, seconds: float) -> None:
        route = find_route_name(scope)
        method = scope.get("method", "WEBSOCKET")
        self.metrics.requests.labels(route, str(status or 499)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        write_log(
            "request", request_id=number, method=method, path=scope.get("path", ""),
            client=(scope.get("client") or ("",))[0], status=status or 499, ms=round(1000 * seconds),
        )  # fmt: skip


def find_route_name(scope: Scope) -> str:
    """Return the pattern of a request's route: what clients make up is no name for a counter."""
    route = scope.get("route")
    return str(getattr(route, "path", "") or "other")


class Doorkeeper:
    """Lets in requests with the right token that no foreign page sends."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            headers = read_headers(scope)
            self.check_origin(headers)
            if not is_open(scope):
                self.check_key(headers)
        except RequestError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.message})
            else:
                await error.to_response()(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Raise ``RequestError`` for a request that the page of another site sends."""
        origin = headers.get("origin")
        if origin is None or origin in self.settings.allowed_origins or "*" in self.settings.allowed_origins:
            return
        try:
            host = urlsplit(origin).netloc
        except ValueError:
            host = ""
        if not host or host != headers.get("host"):
            raise RequestError(403, "pages of other sites may not use this server", code="foreign_origin")

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Raise ``RequestError`` for a request without the server's token."""
        if not self.settings.api_key:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            names = [name.strip() for name in headers.get("sec-websocket-protocol", "").split(",")]
            given = next(
                (n.removeprefix(PROTOCOL_PREFIX) for n in names if n.startswith(PROTOCOL_PREFIX)), ""
            )
        if not hmac.compare_digest(given.strip().encode(), self.settings.api_key.encode()):
            raise RequestError(401, "this server needs its API key as a bearer token", code="invalid_api_key")


def is_open(scope: Scope) -> bool:
    """Whether a request needs no token: for the page itself, and whether the server is well."""
    path = scope["path"]
    is_page = path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)
    return scope["type"] == "http" and (is_page or scope["method"] == "OPTIONS")


class BodyLimiter:
    """Refuses bodies that are too large, and those that do not come."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        too_large = RequestError(
            413, f"an upload may have {self.settings.upload_mib} MiB at most", "file", "file_too_large"
        )
        stated = read_headers(scope).get("content-length", "0")
        if not stated.isdecimal() or len(stated) > 15 or int(stated) > self.settings.upload_bytes:
            await too_large.to_response()(scope, receive, send)
            return
        size, is_whole = 0, False
        end = time.monotonic() + self.settings.upload_seconds

        async def receive_within_limits() -> Message:
            nonlocal size, is_whole
            if is_whole:  # the next message is that the client has gone
                return await receive()
            seconds = min(self.settings.idle_seconds, end - time.monotonic())
            try:
                message = await asyncio.wait_for(receive(), max(seconds, 0.0))
            except TimeoutError as error:
                raise RequestError(408, "the upload did not go on in time", "file", "timeout") from error
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
                if size > self.settings.upload_bytes:
                    raise too_large
            return message

        await self.app(scope, receive_within_limits, send)
