"""The application: which path leads where."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from asr.server.engine import Engine
from asr.server.errors import RequestError
from asr.server.guards import BodyLimiter, Doorkeeper, Observer
from asr.server.sockets import serve_stream, serve_vosk
from asr.server.transcriptions import create_transcription, list_models, show_model

PAGE = Path(__file__).parent / "page"
PAGE_POLICY = (
    "default-src 'self'; connect-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def make_app(engine: Engine) -> Starlette:
    """Make the application of an engine, which is closed when the application ends."""

    @asynccontextmanager
    async def live(app: Starlette) -> AsyncIterator[None]:
        yield
        engine.close()

    settings = engine.settings
    guards = [
        Middleware(Observer, metrics=engine.metrics),
        *(
            [Middleware(CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["GET", "POST"],
                        allow_headers=["Authorization", "X-Request-Id"])]
            if settings.allowed_origins else []
        ),
        Middleware(Doorkeeper, settings=settings),
        Middleware(BodyLimiter, settings=settings),
    ]  # fmt: skip
    app = Starlette(
        routes=list_routes(),
        middleware=guards,
        exception_handlers={RequestError: answer_refusal, HTTPException: answer_http_error},
        lifespan=live,
    )
    app.state.engine = engine
    return app


def list_routes() -> list[BaseRoute]:
    """List all paths."""
    return [
        Route("/", show_page),
        Mount("/page", StaticFiles(directory=PAGE)),
        Route("/healthz", check_health),
        Route("/metrics", show_metrics),
        Route("/v1/models", list_models),
        Route("/v1/models/{model}", show_model),
        Route("/v1/audio/transcriptions", create_transcription, methods=["POST"]),
        WebSocketRoute("/v1/stream", serve_stream),
        WebSocketRoute("/vosk", serve_vosk),
        WebSocketRoute("/", serve_vosk),  # where vosk's clients look for it
    ]


async def show_page(request: Request) -> Response:
    """Answer with the page, which loads nothing from elsewhere and sends nothing elsewhere."""
    return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": PAGE_POLICY})


async def check_health(request: Request) -> Response:
    """Answer that the server is well, and which model it has."""
    return JSONResponse({"status": "ok", "model": request.app.state.engine.name})


async def show_metrics(request: Request) -> Response:
    """Answer with the counters."""
    return Response(request.app.state.engine.metrics.write(), media_type="text/plain; version=0.0.4")


async def answer_refusal(request: Request, error: Exception) -> Response:
    """Answer a request that is refused."""
    assert isinstance(error, RequestError)
    return error.to_response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer in OpenAI's shape for what the library refuses: an unknown path, another method."""
    assert isinstance(error, HTTPException)
    return RequestError(error.status_code, error.detail, code=None).to_response()
