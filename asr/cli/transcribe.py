"""``asr transcribe``: recordings in, text out."""

from __future__ import annotations

import atexit
import gc
import glob
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from asr.audio.reading import make_wav_header, read_stated_duration
from asr.audio.sources import AudioError, Source, is_recording
from asr.cli.searching import open_with_options, search_options
from asr.cli.threads import cores_option
from asr.core.cores import choose_threads
from asr.core.files import write_text
from asr.errors import UserError
from asr.longform.transcripts import LongformConfig, transcribe_recordings
from asr.pretrained import DEFAULT_MODEL
from asr.recognition.network import COMPUTE_TYPES
from asr.transcript.formats import FORMATS, JOINABLE, Layout
from asr.transcript.values import Transcript

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer

STDIN = "-"
INTERRUPTED = 130  # exit status of what Ctrl-C ended, as shells have it
PATIENCE_SECONDS = 2.0  # before a bar appears


class OutputError(UserError):
    """A file that cannot be written: a full disk, a folder that is not to be written to."""


@dataclass(frozen=True)
class Found:
    """A recording to transcribe, and what its output is called where no other has that name."""

    path: str
    name: Path


@click.command()
@click.argument("audio", nargs=-1, required=True, type=click.Path())
@click.option("--model", default=DEFAULT_MODEL, help="A model folder, or the name of a shipped model.")
@click.option(
    "-o", "--out", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="Write a file per recording there, instead of to stdout.",
)  # fmt: skip
@click.option(
    "-f", "--output-format", default="txt", type=click.Choice([*FORMATS, "all"]), help="How to write."
)
@click.option("--skip-existing", is_flag=True, help="Pass over recordings whose output is in DIR already.")
@click.option("--word-timestamps", is_flag=True, help="In srt, vtt and tsv: each word on its own.")
@click.option("--max-line-width", default=42, type=click.IntRange(1), help="Characters in a subtitle's line.")
@click.option("--max-line-count", default=2, type=click.IntRange(1), help="Lines in a subtitle.")
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
@click.option(
    "--compute-type", default="float32", type=click.Choice(COMPUTE_TYPES), help="Precision of the network."
)
@click.option(
    "--vad/--no-vad",
    default=LongformConfig.vad,
    help="Leave out silence, noise and tones; cut long recordings at pauses and by voices.",
)
@click.option(
    "--batch-size",
    default=LongformConfig.batch_size,
    type=click.IntRange(1),
    help="Segments that are heard together.",
)
@cores_option
@click.option(
    "--rate", type=click.IntRange(1000, 1_000_000),
    help="Hertz, when stdin holds bare samples: 16-bit, little-endian, one channel.",
)  # fmt: skip
@search_options
def transcribe(
    audio: tuple[str, ...],
    model: str,
    out: Path | None,
    output_format: str,
    skip_existing: bool,
    word_timestamps: bool,
    max_line_width: int,
    max_line_count: int,
    device: str,
    compute_type: str,
    vad: bool,
    batch_size: int,
    threads: int,
    rate: int | None,
    **search: Any,
) -> None:
    """Turn AUDIO into text: files, folders (and all below them), patterns as 'talks/*.mp3', - for stdin.

    As txt, one recording gives its text alone, a line per segment; several give a line each: the
    file's name, a tab and the text. json and jsonl hold the times and the confidence of every word.
    A recording that cannot be read is named on stderr, the others are done, and the exit status is 1.
    """
    formats = list(FORMATS) if output_format == "all" else [output_format]
    layout = Layout(max_line_width, max_line_count, word_timestamps)
    if rate is not None and STDIN not in audio:
        raise click.UsageError("--rate is for bare samples from stdin: give - as AUDIO.")
    if out is None and (skip_existing or output_format == "all"):
        raise click.UsageError(f"{'--skip-existing' if skip_existing else '-f all'} needs -o DIR.")
    recordings, failures = found(audio)
    if out is None and output_format not in JOINABLE and len(recordings) > 1:
        raise click.UsageError(f"Several recordings as {output_format} need -o DIR.")
    for failure in failures:
        click.echo(f"asr: {failure}", err=True)

    several = len(audio) > 1 or len(recordings) > 1
    outputs = {} if out is None else output_files(recordings, out, formats)
    if skip_existing:
        recordings = [r for r in recordings if not all(map(Path.exists, outputs[r.path].values()))]
    tally = Tally(failed=len(failures))
    try:
        if recordings:
            recognizer = ready(model, device, compute_type, threads, search)
            tally.started = time.monotonic()
            for recording, outcome in heard(recognizer, recordings, LongformConfig(vad, batch_size), rate):
                if isinstance(outcome, UserError):
                    click.echo(f"asr: {outcome}", err=True)
                elif out is None:
                    click.echo(on_stdout(outcome, output_format, layout, several), nl=False)
                else:
                    write(outcome, outputs[recording.path], layout)
                if isinstance(outcome, Transcript) and not outcome.text:
                    click.echo(nothing_heard(outcome, vad), err=True)
                tally.add(outcome)
    except KeyboardInterrupt:
        undone = len(recordings) - tally.recordings
        click.echo(f"asr: stopped; what is written is whole, recordings left undone: {undone}", err=True)
        tally.interrupted = True
    if out is not None or sys.stderr.isatty():
        click.echo(tally.closing_line, err=True)
    if tally.interrupted or tally.failed:
        sys.exit(INTERRUPTED if tally.interrupted else 1)


# --- what to transcribe ---------------------------------------------------------------------------


def found(arguments: Sequence[str]) -> tuple[list[Found], list[str]]:
    """The recordings that the arguments mean, in their order, and what is wrong with the others."""
    recordings, failures = [], []
    for argument in arguments:
        below = list(recordings_of(argument))
        recordings += below
        if not below:
            kind = "folder holds no recordings" if Path(argument).is_dir() else "pattern fits no file"
            failures.append(f"{argument}: this {kind}")
    return recordings, failures


def recordings_of(argument: str) -> Iterator[Found]:
    """What one argument means: stdin, all recordings below a folder, the files that fit a pattern, a file."""
    if argument == STDIN:
        yield Found(STDIN, Path("stdin"))
    elif Path(argument).is_dir():
        for path in sorted(Path(argument).rglob("*")):
            if is_recording(path) and path.is_file() and not path.name.startswith("."):
                yield Found(str(path), path.relative_to(argument).with_suffix(""))
    elif glob.has_magic(argument) and "://" not in argument and not os.path.lexists(argument):
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207
            if Path(match).is_file():
                yield Found(match, Path(Path(match).stem))
    else:
        yield Found(argument, Path(Path(argument).stem))


def output_files(
    recordings: Sequence[Found], out: Path, formats: Sequence[str]
) -> dict[str, dict[str, Path]]:
    """For each recording's path the file of each format, no two the same."""
    names = distinct_names(list({recording.path: recording for recording in recordings}.values()))
    return {path: {kind: out / f"{name}.{kind}" for kind in formats} for path, name in names.items()}


def distinct_names(recordings: Sequence[Found]) -> dict[str, Path]:
    """A name for each recording's path: the short one if they all differ, else the path below the
    folder that holds them all, with the ending where it takes that."""
    # abspath: links keep their own names, and .. must not lead out of the output folder.
    paths = [Path(os.path.abspath(recording.path)) for recording in recordings]  # noqa: PTH100
    levels = zip(*(path.parent.parts for path in paths), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    below = [Path(*path.parts[max(common, 1) :]) for path in paths]  # never with a drive
    for names in ([recording.name for recording in recordings], [path.with_suffix("") for path in below]):
        if len({str(name).casefold() for name in names}) == len(recordings):
            break
    else:
        names = below
    return {recording.path: name for recording, name in zip(recordings, names, strict=True)}


# --- hearing it -----------------------------------------------------------------------------------


def ready(model: str, device: str, compute_type: str, threads: int, search: dict[str, Any]) -> Recognizer:
    """The recogniser with its search, on so many ``threads``; 0 means all cores there are."""
    # At its end Python would look for garbage among all there is, which with torch takes half a second. Only
    # here: training must let go of what its processes share before they end.
    atexit.register(gc.freeze)
    recognizer = open_with_options(model, device, compute_type, choose_threads(threads), search)
    if recognizer.unit == "phones":
        click.echo("greedy search hears phones, not words: --beam-size 2 or more finds words", err=True)
    return recognizer


def heard(
    recognizer: Recognizer, recordings: Sequence[Found], config: LongformConfig, rate: int | None
) -> Iterator[tuple[Found, Transcript | AudioError]]:
    """Each recording with what was said in it, or why it cannot be read; a terminal shows how far it is."""
    with stdin_copied(rate, STDIN in [recording.path for recording in recordings]) as stdin:
        sources = [stdin if recording.path == STDIN else recording.path for recording in recordings]
        with progress_bar(sources) as bar:
            outcomes = transcribe_recordings(recognizer, sources, config, bar.update)
            done = 0.0
            for recording, outcome in zip(recordings, outcomes, strict=True):
                bar.clear()
                yield recording, outcome
                done += outcome.duration if isinstance(outcome, Transcript) else 0.0
                bar.n = max(bar.n, done)  # what was passed over is done, too


@contextmanager
def stdin_copied(rate: int | None, wanted: bool) -> Iterator[IO[bytes]]:
    """A file with what stdin holds, where it can be read forth and back; empty where it is not ``wanted``."""
    with tempfile.TemporaryFile() as file:
        if wanted:
            if rate is not None:
                file.write(make_wav_header(rate))
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield file


def progress_bar(sources: Sequence[Source]) -> Any:
    """A bar over the seconds in ``sources`` that appears on a terminal, after a while.

    Where a header does not tell how long its recording is, the bar counts seconds without a goal: to
    decode everything first would cost more than the bar is worth.
    """
    from tqdm import tqdm

    is_hidden = not sys.stderr.isatty()
    total = 0.0 if is_hidden else sum_durations(sources)
    with_goal = "{percentage:3.0f} % |{bar:40}| {remaining} left"
    return tqdm(
        total=total,
        bar_format="{n:.0f} s of audio in {elapsed}" if total is None else with_goal,
        delay=PATIENCE_SECONDS,
        disable=is_hidden,
        leave=False,
    )


def sum_durations(sources: Sequence[Source]) -> float | None:
    """Seconds in all ``sources`` by their headers; ``None`` where one does not tell.

    A recording that cannot be read has none; its message comes when its turn does.
    """
    total = 0.0
    for source in sources:
        try:
            seconds = read_stated_duration(source)
        except AudioError:
            continue
        if seconds is None:
            return None
        total += seconds
    return total


# --- what comes of it -----------------------------------------------------------------------------


def on_stdout(transcript: Transcript, output_format: str, layout: Layout, named: bool) -> str:
    """A transcript among ``named`` others, or alone."""
    if output_format == "txt" and named:
        return f"{transcript.audio}\t{transcript.text}\n"
    return FORMATS[output_format](transcript, layout)


def nothing_heard(transcript: Transcript, vad: bool) -> str:
    """What to say of a transcript without a word."""
    return f"{transcript.audio}: no words were heard{'; if somebody speaks, try --no-vad' if vad else ''}"


def write(transcript: Transcript, files: dict[str, Path], layout: Layout) -> None:
    """Write every file, each of them whole or not at all; raises ``OutputError`` where that fails."""
    for kind, path in files.items():
        try:
            write_text(path, FORMATS[kind](transcript, layout))
        except OSError as error:  # a full disk is no reason to go on with the next recording
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


@dataclass
class Tally:
    """What was done."""

    failed: int = 0
    recordings: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    interrupted: bool = False

    def add(self, outcome: Transcript | AudioError) -> None:
        """One recording more."""
        self.recordings += 1
        if isinstance(outcome, AudioError):
            self.failed += 1
        else:
            self.seconds += outcome.duration

    @property
    def closing_line(self) -> str:
        """How much was done, how fast, and what failed."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        files = f"{self.recordings} recording{'' if self.recordings == 1 else 's'}"
        speed = f"{self.seconds / 3600:.2f} hours at {self.seconds / elapsed:.0f} times real time"
        return f"{files}, {speed}, {self.failed} failed"
