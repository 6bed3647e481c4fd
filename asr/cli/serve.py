"""``asr serve``: a server for programs that speak to a recogniser, and a page."""

from __future__ import annotations

from pathlib import Path

import click

from asr.cli._options import Opening, recognizer_options
from asr.core.files import read_text
from asr.errors import UserError
from asr.pretrained import list_shipped_models

MISSING = "this needs libraries that are not installed: pip install 'asr[serve]'"
ENGLISH = "en"
SHORTEST_KEY = 8
LOOPBACK = ("127.0.0.1", "::1", "localhost")
OPEN = "asr: whoever reaches {host} can use this server: --api-key-file asks for a key{wyoming}"


class ServeError(UserError):
    """The server cannot start; the text says why."""


@click.command()
@recognizer_options
@click.option("--host", default="127.0.0.1", help="Address to listen at; 0.0.0.0 for other machines, too.")
@click.option("--port", default=8000, type=click.IntRange(0, 65535), help="Of HTTP and WebSocket; 0: any.")
@click.option(
    "--wyoming-port", default=-1, type=click.IntRange(-1, 65535),
    help="Of Wyoming, for Home Assistant, usually 10300; -1: none.",
)  # fmt: skip
@click.option(
    "--api-key-file", metavar="FILE", type=click.Path(path_type=Path),
    help="A file with a token that every request must have.  [default: none]",
)  # fmt: skip
@click.option(
    "--allow-origin", "allowed_origins", metavar="URL", multiple=True,
    help="Another site whose pages may use the server (CORS); repeatable.  [default: none]",
)  # fmt: skip
@click.option(
    "--language", metavar="CODE",
    help="What the model hears; requests for others are refused.  [default: en for shipped models]",
)  # fmt: skip
@click.option("--max-upload", default=200, type=click.IntRange(1), metavar="MIB", help="Size of a file.")
@click.option(
    "--max-seconds", default=7200.0, type=click.FloatRange(1), metavar="S", help="Length of a recording."
)
@click.option("--jobs", default=8, type=click.IntRange(1), metavar="N", help="Recordings at the same time.")
@click.option(
    "--queue", default=64, type=click.IntRange(0), metavar="N", help="Recordings that wait; then: status 503."
)
@click.option(
    "--streams", default=10, type=click.IntRange(0), metavar="N", help="Live streams at the same time."
)
def serve(
    opening: Opening,
    host: str,
    port: int,
    wyoming_port: int,
    api_key_file: Path | None,
    allowed_origins: tuple[str, ...],
    language: str | None,
    max_upload: int,
    max_seconds: float,
    jobs: int,
    queue: int,
    streams: int,
) -> None:
    """Serve transcripts until Ctrl-C: over HTTP as OpenAI's clients ask for them, live as vosk's clients do.

    The log on stderr has a JSON object a line.
    """
    try:
        from asr.server.running import run_server
        from asr.server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise ServeError(f"{MISSING} ({error.name} is missing)") from error
    if api_key_file is not None and wyoming_port >= 0 and host not in LOOPBACK:
        raise ServeError(
            f"--wyoming-port: Wyoming knows no keys, so that everybody who reaches {host} could use it; "
            f"leave --api-key-file or --wyoming-port out, or listen at {LOOPBACK[0]}"
        )
    if api_key_file is None and host not in LOOPBACK:
        wyoming = ", but Wyoming knows none: leave --wyoming-port out" if wyoming_port >= 0 else ""
        click.echo(OPEN.format(host=host, wyoming=wyoming), err=True)
    settings = ServerSettings(
        host=host,
        port=port,
        wyoming_port=wyoming_port,
        language=choose_language(opening.model) if language is None else language.lower(),
        api_key="" if api_key_file is None else read_key(api_key_file),
        allowed_origins=allowed_origins,
        upload_mib=max_upload,
        longest_seconds=max_seconds,
        jobs=jobs,
        queue=queue,
        streams=streams,
    )
    run_server(opening.open(), settings, lambda address: click.echo(f"asr serves at {address}", err=True))


def choose_language(model: str) -> str:
    """Choose the language of a model: English for those that ship, unknown for others."""
    return ENGLISH if model in list_shipped_models() else ""


def read_key(path: Path) -> str:
    """Read a token; raises ``ServeError`` where there is none or one that is guessed in no time."""
    key = read_text(path, ServeError).strip()
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise ServeError(
            f"{path}: write one key of at least {SHORTEST_KEY} letters, digits and signs into it"
        )
    return key
