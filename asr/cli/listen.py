"""``asr listen``: write down what is being said, from the microphone or a pipe of samples."""

from __future__ import annotations

import json
import queue
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import numpy as np

from asr.cli._options import Opening, recognizer_options
from asr.errors import UserError
from asr.longform.live import Endpoint, Event, Final, LiveConfig, LiveStream, Partial
from asr.transcript.formats import Layout, format_srt, format_vtt
from asr.transcript.values import Segment, Transcript

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer

STDIN = "-"
MICROPHONE = "microphone"
BLOCK_SECONDS = 0.1
NEVER = 1e9  # seconds between partial results that nobody would see
MISSING = "the microphone needs a library that is not installed: pip install 'asr[live]'"
VTT_HEAD = "WEBVTT\n\n"
CLEAR_LINE = "\r\x1b[K"  # of a terminal (ECMA-48: erase in line)


class ListenError(UserError):
    """There is nothing to listen to; the text says why."""


@click.command()
@click.argument("source", default=MICROPHONE, type=click.Choice([MICROPHONE, STDIN]))
@recognizer_options
@click.option(
    "-f", "--output-format", default="txt", type=click.Choice(["txt", "jsonl", "srt", "vtt"]),
    help="What is written while somebody speaks; jsonl has partial results, too.",
)  # fmt: skip
@click.option(
    "-o", "--out", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Write there instead of to stdout, segment by segment.",
)  # fmt: skip
@click.option(
    "--rate", type=click.IntRange(1000, 1_000_000),
    help="Hertz of the samples on stdin: 16-bit, little-endian, one channel.  [default: the model's]",
)  # fmt: skip
@click.option("--input", "input_name", metavar="NAME", help="A microphone by its name or number.")
@click.option("--list-inputs", is_flag=True, help="List the microphones, and end.")
@click.option(
    "--pause",
    default=LiveConfig.pause_seconds,
    type=click.FloatRange(0.2, 10),
    metavar="S",
    help="A pause that ends a segment.",
)
def listen(
    opening: Opening,
    source: str,
    output_format: str,
    out: Path | None,
    rate: int | None,
    input_name: str | None,
    list_inputs: bool,
    pause: float,
) -> None:
    """Write down what is being said until Ctrl-C: from the microphone, or SOURCE -, a pipe of samples.

    On a terminal the line that is being spoken is shown as far as it is understood.
    """
    if list_inputs:
        click.echo(str(import_sounddevice().query_devices()))
        return
    recognizer = opening.open()
    with open_output(out) as file:
        writer = EventWriter(output_format, file, recognizer.name)
        partial_seconds = {} if writer.wants_partials else {"partial_seconds": NEVER}
        if source == STDIN:
            stream = recognizer.stream(rate, pause_seconds=pause, **partial_seconds)
            blocks = read_pipe(sys.stdin.buffer, rate or recognizer.sample_rate)
            hear_blocks(stream, blocks, writer)
            return
        with open_microphone(recognizer, input_name) as (own_rate, blocks):
            stream = recognizer.stream(own_rate, pause_seconds=pause, **partial_seconds)
            hear_blocks(stream, blocks, writer)


def hear_blocks(stream: LiveStream, blocks: Iterator[np.ndarray], writer: EventWriter) -> None:
    """Hear block after block until they end or Ctrl-C; what has been said by then is written."""
    try:
        for block in blocks:
            writer.write(stream.feed(block))
    except KeyboardInterrupt:
        pass
    writer.write(stream.finish())
    writer.end()


@contextmanager
def open_output(path: Path | None) -> Iterator[IO[str]]:
    """Open the file for results, or hand out stdout."""
    if path is None:
        yield sys.stdout
        return
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            yield file
    except OSError as error:
        raise ListenError(f"{path}: cannot be written: {error.strerror}") from error


# --- where samples come from ----------------------------------------------------------------------


def read_pipe(pipe: IO[bytes], rate: int) -> Iterator[np.ndarray]:
    """Yield 16-bit samples from a pipe as they come; raises ``ListenError`` for a WAV file."""
    size = 2 * max(1, round(BLOCK_SECONDS * rate))
    read: Callable[[int], bytes] = getattr(pipe, "read1", pipe.read)
    odd, is_first = b"", True
    while content := read(size):
        if is_first and content.startswith(b"RIFF"):
            raise ListenError(
                "stdin: is a WAV file; asr transcribe - reads it, asr listen - takes bare samples (--rate)"
            )
        content, is_first = odd + content, False
        whole = len(content) // 2 * 2
        odd = content[whole:]
        yield np.frombuffer(content[:whole], "<i2")


def import_sounddevice() -> Any:
    """Import the library of the microphone; raises ``ListenError`` where it or PortAudio is missing."""
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise ListenError(MISSING) from error
    except OSError as error:  # the library beneath it
        raise ListenError("PortAudio is not installed (Debian: apt-get install libportaudio2)") from error
    return sounddevice


@contextmanager
def open_microphone(recognizer: Recognizer, name: str | None) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Open a microphone; hand out its rate and its blocks, which never end.

    It is opened at the model's rate or, if it has none such, at its own. Raises ``ListenError``.
    """
    sounddevice = import_sounddevice()
    waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    chosen = int(name) if name is not None and name.isdecimal() else name

    def take(samples: Any, frames: int, time: object, status: object) -> None:
        waiting.put(np.frombuffer(bytes(samples), np.int16).copy())

    try:
        rate = recognizer.sample_rate
        try:
            sounddevice.check_input_settings(chosen, 1, "int16", samplerate=rate)
        except sounddevice.PortAudioError:
            rate = int(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        microphone = sounddevice.RawInputStream(
            rate, round(BLOCK_SECONDS * rate), chosen, 1, "int16", callback=take
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ListenError(f"microphone: cannot be opened: {reason}; see asr listen --list-inputs") from error
    with microphone:
        yield rate, take_waiting(waiting)


def take_waiting(waiting: queue.SimpleQueue[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield what has come since the last time as one block, so that being late is made up for."""
    while True:
        blocks = [waiting.get()]
        while not waiting.empty():
            blocks.append(waiting.get())
        yield np.concatenate(blocks)


# --- what is written ------------------------------------------------------------------------------


class EventWriter:
    """Writes events in a format as they come, and shows on a terminal what is being said."""

    def __init__(self, output_format: str, file: IO[str], model: str) -> None:
        self._format = output_format
        self._file = file
        self._model = model
        self._cues = 0
        self._shows = sys.stderr.isatty()
        if output_format == "vtt":
            self._write(VTT_HEAD)

    @property
    def wants_partials(self) -> bool:
        """Whether partial results are shown or written."""
        return self._shows or self._format == "jsonl"

    def write(self, events: list[Event]) -> None:
        """Write events."""
        for event in events:
            if self._format == "jsonl":
                self._write(json.dumps(describe_event(event), ensure_ascii=False) + "\n")
            elif isinstance(event, Final):
                self._show("")
                self._write(self._format_segment(event.segment))
            if isinstance(event, Partial):
                self._show(event.text)
            elif isinstance(event, Endpoint):
                self._show("")

    def end(self) -> None:
        """Leave a clean line."""
        self._show("")

    def _format_segment(self, segment: Segment) -> str:
        if self._format == "txt":
            return f"{segment.readable}\n"
        transcript = Transcript(MICROPHONE, segment.end, (segment,), self._model)
        if self._format == "vtt":
            return format_vtt(transcript).removeprefix(VTT_HEAD)
        cues = format_srt(transcript, Layout()).strip().split("\n\n")
        lines = [cue.partition("\n")[2] for cue in cues]
        self._cues += len(cues)
        first = self._cues - len(cues) + 1
        return "".join(f"{number}\n{cue}\n\n" for number, cue in enumerate(lines, first))

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def _show(self, text: str) -> None:
        """Show the end of ``text`` in the last line of the terminal."""
        if self._shows:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(CLEAR_LINE + text[-width:])
            sys.stderr.flush()


def describe_event(event: Event) -> dict[str, object]:
    """Describe an event for programs."""
    if isinstance(event, Partial):
        start = round(event.start, 3)
        return {"type": "partial", "start": start, "text": event.text, "stable": event.stable}
    if isinstance(event, Endpoint):
        return {"type": "endpoint", "time": round(event.time, 3)}
    segment = event.segment
    words = [
        {
            "text": word.text,
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "confidence": round(word.confidence, 4),
        }
        for word in segment.words
    ]
    start, end = round(segment.start, 3), round(segment.end, 3)
    final = {"type": "final", "start": start, "end": end, "text": segment.text, "words": words}
    return final | ({"readable": segment.readable} if segment.written else {})
