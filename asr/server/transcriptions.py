"""`POST /v1/audio/transcriptions` and `GET /v1/models`, as OpenAI's clients use them."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from asr.server.decoding import DecodingError
from asr.server.engine import AbandonedError, BusyError, Engine, HotWordError, Job, Upload, split_prompt
from asr.server.errors import RequestError
from asr.transcript.formats import FORMATS, Layout
from asr.transcript.values import Segment, Transcript, Word

FORMAT_NAMES = ("json", "text", "srt", "verbose_json", "vtt")
ALIASES = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")  # what programs ask for untold
INCLUDES = ("logprobs", "progress", "segments")
GRANULARITIES = ("segment", "word")
LANGUAGE_NAMES = {"en": "english"}
MOST_FIELDS = 50
LONGEST_FIELD = 64 * 1024  # bytes
PROGRESS_SECONDS = 0.5
EVENT_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True)
class TranscriptionRequest:
    """What a form asks for."""

    file: IO[bytes]
    name: str
    response_format: str
    granularities: frozenset[str]
    includes: frozenset[str]
    is_stream: bool
    hotwords: tuple[str, ...]


async def list_models(request: Request) -> Response:
    """Answer `GET /v1/models`: the one model that is open."""
    return JSONResponse({"object": "list", "data": [describe_model(request.app.state.engine)]})


async def show_model(request: Request) -> Response:
    """Answer `GET /v1/models/{model}`."""
    engine: Engine = request.app.state.engine
    check_model(request.path_params["model"], engine.name)
    return JSONResponse(describe_model(engine))


def describe_model(engine: Engine) -> dict[str, object]:
    """Describe the model as OpenAI's clients expect it."""
    return {"id": engine.name, "object": "model", "created": engine.created, "owned_by": "asr"}


async def create_transcription(request: Request) -> Response:
    """Answer `POST /v1/audio/transcriptions`."""
    engine: Engine = request.app.state.engine
    with ExitStack() as stack:
        try:
            form = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD)
        except ClientDisconnect:
            return Response(status_code=499)
        except HTTPException as error:  # what starlette makes of a form that is none
            raise RequestError(400, f"the form cannot be read: {error.detail}") from error
        stack.callback(close_files, form)
        asked = read_form(form, engine)
        try:
            stack.enter_context(engine.take_place())
        except BusyError as error:
            raise RequestError(503, str(error), code="busy", retry_after=error.seconds) from error
        path = stack.enter_context(engine.make_folder()) / "upload"
        await asyncio.to_thread(copy_file, asked.file, path)
        job = Job(Upload(path, asked.name), asked.hotwords)
        if asked.is_stream:
            # The response goes on after this function: what the job holds is let go of at its end.
            events = stream_events(engine, job, asked, stack.pop_all())
            return StreamingResponse(events, media_type="text/event-stream", headers=EVENT_STREAM)
        transcript = await run_job(request, engine, job)
    if transcript is None:
        return Response(status_code=499)
    return format_transcript(transcript, asked, engine)


def close_files(form: FormData) -> None:
    """Close the temporary files of a form."""
    for _, value in form.multi_items():
        if isinstance(value, UploadFile):
            value.file.close()


def copy_file(file: IO[bytes], path: Path) -> None:
    """Write an uploaded file to ``path``."""
    file.seek(0)
    with path.open("wb") as target:
        shutil.copyfileobj(file, target, 1 << 20)


# --- what is asked for ----------------------------------------------------------------------------


def read_form(form: FormData, engine: Engine) -> TranscriptionRequest:
    """Read a form; raises ``RequestError`` that names the field that is wrong."""
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise RequestError(400, "there is no file: send one in the form's field 'file'", "file")
    check_model(read_field(form, "model", engine.name), engine.name)
    language = read_field(form, "language", "").lower()
    own = engine.settings.language
    if own and language and language not in (own, LANGUAGE_NAMES.get(own)):
        raise RequestError(400, f"this model hears {own!r}, not {language!r}", "language")
    response_format = read_field(form, "response_format", "json")
    if response_format not in FORMAT_NAMES:
        raise RequestError(400, f"response_format is one of {', '.join(FORMAT_NAMES)}", "response_format")
    granularities = read_choices(form, "timestamp_granularities", GRANULARITIES)
    if granularities and response_format != "verbose_json":
        raise RequestError(
            400, "timestamp_granularities go with response_format=verbose_json", "timestamp_granularities"
        )
    is_stream = read_field(form, "stream", "false").lower()
    if is_stream not in ("true", "false", "1", "0"):
        raise RequestError(400, "stream is true or false", "stream")
    try:
        hotwords = split_prompt(read_field(form, "prompt", ""))
    except HotWordError as error:
        raise RequestError(400, str(error), "prompt") from error
    return TranscriptionRequest(
        file.file,
        file.filename or "audio",
        response_format,
        granularities,
        read_choices(form, "include", INCLUDES),
        is_stream in ("true", "1"),
        hotwords,
    )


def read_field(form: FormData, name: str, default: str) -> str:
    """Read a text field; raises ``RequestError`` where it is a file."""
    value = form.get(name, default)
    if not isinstance(value, str):
        raise RequestError(400, f"{name} is a text, not a file", name)
    return value or default


def read_choices(form: FormData, name: str, choices: tuple[str, ...]) -> frozenset[str]:
    """Read a list, written ``name[]`` or ``name``; raises ``RequestError`` for what is no choice."""
    values = [*form.getlist(f"{name}[]"), *form.getlist(name)]
    if wrong := [value for value in values if value not in choices]:
        raise RequestError(400, f"{name} takes {', '.join(choices)}, not {str(wrong[0])[:40]!r}", name)
    return frozenset(str(value) for value in values)


def check_model(asked: str, own: str) -> None:
    """Raise ``RequestError`` for a model that is neither open here nor one of ``ALIASES``."""
    if asked not in (own, *ALIASES):
        raise RequestError(
            404, f"there is no model {asked[:60]!r} here; this server has {own!r}", "model", "model_not_found"
        )


# --- jobs -----------------------------------------------------------------------------------------


async def run_job(request: Request, engine: Engine, job: Job) -> Transcript | None:
    """Transcribe in another thread; ``None`` when the client goes before it is done."""
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(engine.threads, engine.transcribe, job)
    watch = asyncio.create_task(wait_for_departure(request))
    try:
        both: set[asyncio.Future[Any]] = {work, watch}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        job.is_abandoned = not work.done()
        return await work
    except AbandonedError:
        return None
    except (DecodingError, HotWordError) as error:
        raise describe_failure(error) from error
    finally:
        job.is_abandoned = True
        watch.cancel()


async def wait_for_departure(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def describe_failure(error: Exception) -> RequestError:
    """Say what is wrong with a request whose job failed."""
    if isinstance(error, HotWordError):
        return RequestError(400, str(error), "prompt", "invalid_hot_words")
    return RequestError(400, f"the file {error}", "file", "invalid_file")


async def stream_events(
    engine: Engine, job: Job, asked: TranscriptionRequest, held: ExitStack
) -> AsyncIterator[str]:
    """Yield server-sent events while a recording is transcribed; ``held`` is let go of at the end."""
    loop = asyncio.get_running_loop()
    segments: asyncio.Queue[Segment | None] = asyncio.Queue()

    def report(segment: Segment | None) -> None:
        loop.call_soon_threadsafe(segments.put_nowait, segment)

    def work() -> Transcript:
        try:
            return engine.transcribe(job, report)
        finally:
            report(None)

    future = loop.run_in_executor(engine.threads, work)
    count = 0
    try:
        while True:
            try:
                segment = await asyncio.wait_for(segments.get(), PROGRESS_SECONDS)
            except TimeoutError:
                if "progress" in asked.includes:
                    yield format_event("transcript.progress", seconds=job.done, duration=job.duration)
                continue
            if segment is None:
                break
            delta = f" {segment.readable}" if count else segment.readable
            yield format_event("transcript.text.delta", delta=delta)
            if "segments" in asked.includes:
                table = describe_words(segment.words)
                yield format_event(
                    "transcript.text.segment", id=str(count), start=round(segment.start, 3),
                    end=round(segment.end, 3), text=segment.readable, words=table,
                )  # fmt: skip
            if "progress" in asked.includes:
                yield format_event("transcript.progress", seconds=job.done, duration=job.duration)
            count += 1
        transcript = await future
        more = {"duration": transcript.duration} if asked.includes else {}
        yield format_event("transcript.text.done", text=transcript.readable, **more)
        yield "data: [DONE]\n\n"
    except (DecodingError, HotWordError) as error:
        yield f"data: {json.dumps(describe_failure(error).to_table())}\n\n"
    finally:
        job.is_abandoned = True
        if not future.done():  # the thread still uses the folder
            future.add_done_callback(lambda done: let_go(done, held))
        else:
            held.close()


def let_go(done: asyncio.Future[Transcript], held: ExitStack) -> None:
    """Let go of what an abandoned job held, once its thread is done."""
    if not done.cancelled():
        done.exception()  # AbandonedError: nobody is told
    held.close()


def format_event(kind: str, **fields: object) -> str:
    """Format a server-sent event."""
    return f"data: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"


# --- answers --------------------------------------------------------------------------------------


def format_transcript(transcript: Transcript, asked: TranscriptionRequest, engine: Engine) -> Response:
    """Answer with a transcript in the format asked for."""
    formats: dict[str, Callable[[], Response]] = {
        "json": lambda: JSONResponse(make_json(transcript)),
        "verbose_json": lambda: JSONResponse(make_verbose_json(transcript, asked, engine)),
        "text": lambda: PlainTextResponse(transcript.readable + "\n"),
        "srt": lambda: PlainTextResponse(FORMATS["srt"](transcript, Layout())),
        "vtt": lambda: PlainTextResponse(FORMATS["vtt"](transcript, Layout()), media_type="text/vtt"),
    }
    return formats[asked.response_format]()


def make_json(transcript: Transcript) -> dict[str, object]:
    """Make the table of `response_format=json`."""
    usage = {"type": "duration", "seconds": math.ceil(transcript.duration)}
    return {"text": transcript.readable, "usage": usage}


def make_verbose_json(transcript: Transcript, asked: TranscriptionRequest, engine: Engine) -> dict[str, Any]:
    """Make the table of `response_format=verbose_json`: segments unless only words are asked for."""
    own = engine.settings.language
    table = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES.get(own, own),
        "duration": round(transcript.duration, 3),
        **make_json(transcript),
    }
    if "segment" in asked.granularities or not asked.granularities:
        table["segments"] = [describe_segment(*item) for item in enumerate(transcript.segments)]
    if "word" in asked.granularities:
        table["words"] = describe_words([word for s in transcript.segments for word in s.words])
    return table


def describe_segment(number: int, segment: Segment) -> dict[str, object]:
    """Describe a segment with the keys that OpenAI's clients read.

    ``avg_logprob`` is the mean logarithm of its words' confidences. ``temperature``, ``no_speech_prob`` and
    ``seek`` mean nothing to this kind of recogniser and are 0.
    """
    logs = [math.log(max(word.confidence, 1e-6)) for word in segment.words]
    content = segment.readable.encode()
    return {
        "id": number,
        "seek": 0,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.readable,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(logs) / max(len(logs), 1), 4),
        "compression_ratio": round(len(content) / max(len(zlib.compress(content)), 1), 4),
        "no_speech_prob": 0.0,
    }


def describe_words(words: list[Word] | tuple[Word, ...]) -> list[dict[str, object]]:
    """Describe words with times and, beyond what OpenAI's API has, confidences."""
    return [
        {
            "word": word.text,
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in words
    ]
