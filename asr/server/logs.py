"""Structured logs: a JSON object a line, with everything that came from outside escaped."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import IO

LOGGER = logging.getLogger("asr.server")
LONGEST_VALUE = 200  # characters of a value that came from outside


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of ASCII: no line break and no control character gets through."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage()[:2000],
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # The delete character is ASCII to json, and control to a terminal.
        return json.dumps(line, ensure_ascii=True, default=str).replace("\x7f", "\\u007f")


def write_log(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log an event with fields; long texts are cut."""
    short = {
        key: value[:LONGEST_VALUE] if isinstance(value, str) else value
        for key, value in fields.items()
        if value is not None
    }
    LOGGER.log(level, event, extra={"fields": short})


def make_log_config(stream: IO[str] | None = None) -> dict[str, object]:
    """Make the configuration of `logging.config` for this server and the library beneath it."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {
            "json": {"class": "logging.StreamHandler", "formatter": "json", "stream": stream or sys.stderr}
        },
        "loggers": {
            "asr.server": {"handlers": ["json"], "level": "INFO", "propagate": False},
            "uvicorn": {"handlers": ["json"], "level": "WARNING", "propagate": False},
            "uvicorn.error": {"level": "WARNING"},
            "websockets": {"handlers": ["json"], "level": "CRITICAL", "propagate": False},
            "asyncio": {"handlers": ["json"], "level": "ERROR", "propagate": False},
        },
    }
