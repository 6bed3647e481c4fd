"""Uploads are decoded by processes that may be killed, so that a hostile file cannot take the server down.

Each process runs `decode_worker`: it has bounded memory, writes one file of samples and is replaced when it
dies, takes too long or has served a number of uploads.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asr.audio.sources import AudioError
from asr.server.settings import MEBIBYTE, ServerSettings

USES = 500  # uploads that a process serves: what libraries leak ends with it
STARTING_SECONDS = 60.0  # to import what it needs, on a busy machine
LONGEST_ANSWER = 1 << 16  # bytes


class DecodingError(AudioError):
    """An upload that cannot be read; the text does not name the file."""


class DecodeWorker:
    """A process that decodes one upload after the other."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.uses = 0
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asr.server.decode_worker", str(settings.decoder_mib * MEBIBYTE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # ffmpeg, where it is used, dies with it; Ctrl-C is the server's
            env=environment,
            bufsize=0,
        )
        self.is_ready = False

    def decode(self, upload: Path, samples: Path, flags: Path, rate: int, longest: float) -> float:
        """Write an upload as mono samples at ``rate``, and perhaps where speech is; return its seconds.

        Raises ``DecodingError`` for a file that cannot be read, is longer than ``longest`` seconds or kills
        its process; ``is_alive`` is false after that.
        """
        if not self.is_ready:
            self._read_answer(STARTING_SECONDS)
            self.is_ready = True
        self.uses += 1
        files = {"upload": str(upload), "samples": str(samples), "flags": str(flags)}
        task = files | {"rate": rate, "longest": longest}
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
        except OSError as error:
            self.kill()
            raise DecodingError("is damaged: reading it failed") from error
        answer = self._read_answer(self.settings.decode_seconds)
        if "error" in answer:
            raise DecodingError(str(answer["error"]).removeprefix(f"{upload}: "))
        return float(str(answer["seconds"]))

    @property
    def is_alive(self) -> bool:
        """Whether the process can decode more."""
        return self.process.poll() is None and self.uses < USES

    def kill(self) -> None:
        """End the process and those it has started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _read_answer(self, seconds: float) -> dict[str, object]:
        """Read a line from the process, which is killed when it takes longer than ``seconds``."""
        assert self.process.stdout is not None
        end, content = time.monotonic() + seconds, b""
        while not content.endswith(b"\n"):
            is_readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not is_readable:
                self.kill()
                raise DecodingError(f"takes longer than {seconds:g} s to read")
            part = os.read(self.process.stdout.fileno(), LONGEST_ANSWER)
            content += part
            if not part or len(content) > LONGEST_ANSWER:
                self.kill()
                raise DecodingError("is damaged, or takes more memory to read than an upload may")
        return json.loads(content)


class DecoderPool:
    """As many processes as decode at the same time; ``report_death`` is called when one had to die."""

    def __init__(self, settings: ServerSettings, report_death: Callable[[], object]) -> None:
        self._settings = settings
        self._report_death = report_death
        self._idle: queue.SimpleQueue[DecodeWorker] = queue.SimpleQueue()
        for _ in range(settings.decoders):
            self._idle.put(DecodeWorker(settings))

    @contextmanager
    def lend(self) -> Iterator[DecodeWorker]:
        """Hand out a process, waiting for one if need be."""
        worker = self._idle.get()
        try:
            yield worker
        except BaseException as error:
            if not isinstance(error, AudioError):
                worker.kill()  # nobody knows what it is doing
            raise
        finally:
            if not worker.is_alive:
                if worker.process.returncode is not None:
                    self._report_death()
                worker.kill()
                worker = DecodeWorker(self._settings)
            self._idle.put(worker)

    def close(self) -> None:
        """End all processes."""
        for _ in range(self._settings.decoders):
            self._idle.get().kill()
