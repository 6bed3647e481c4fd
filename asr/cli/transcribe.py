"""``asr transcribe``: turn recordings into text."""

from __future__ import annotations

import atexit
import gc
import glob
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import click

from asr.audio.reading import make_wav_header
from asr.audio.sources import AudioError, is_recording
from asr.cli._bulk import BulkRequest, bulk_options, transcribe_manifest
from asr.cli._options import Opening, recognizer_options
from asr.cli._progress import new_audio_bar
from asr.core.files import quote_path, write_text
from asr.errors import UserError
from asr.longform.transcripts import LongformConfig, transcribe_recordings
from asr.transcript.formats import FORMATS, JOINABLE, Layout
from asr.transcript.values import Segment, Transcript

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer

STDIN = "-"
INTERRUPTED = 130  # the exit status after Ctrl-C, as in shells


class OutputError(UserError):
    """A file that cannot be written: the disk is full, or the folder read-only."""


@dataclass(frozen=True)
class Recording:
    """A recording to transcribe, and the name of its output where no other recording has that name."""

    path: str
    name: Path


@click.command()
@click.argument("audio", nargs=-1, required=True, type=click.Path())
@recognizer_options
@click.option(
    "-o", "--out", metavar="DIR|FILE", type=click.Path(),
    help="Write a file per recording there, instead of to stdout; of one recording, write this file, whose "
    "ending tells the format.",
)  # fmt: skip
@click.option(
    "-f", "--output-format", type=click.Choice([*FORMATS, "parquet", "all"]),
    help="Output format; parquet is for manifests.  [default: txt; jsonl of manifests]",
)  # fmt: skip
@click.option(
    "--n-best", type=click.IntRange(1), metavar="N",
    help="Print the N best texts of each recording, best first, each behind its score (natural logarithm); "
    "for sentences.",
)  # fmt: skip
@click.option("--skip-existing", is_flag=True, help="Skip recordings whose output is in DIR already.")
@click.option("--word-timestamps", is_flag=True, help="In srt, vtt and tsv: one entry per word.")
@click.option("--max-line-width", default=42, type=click.IntRange(1), help="Characters in a subtitle's line.")
@click.option("--max-line-count", default=2, type=click.IntRange(1), help="Lines in a subtitle.")
@click.option(
    "--vad/--no-vad",
    default=LongformConfig.vad,
    help="Leave out silence, noise and tones; cut long recordings at pauses and by voices.",
)
@click.option(
    "--channels",
    default=LongformConfig.channels,
    type=click.Choice(["mix", "left", "right", "each"]),
    help="The mean of all channels, one of them, or each by itself with its name as the speaker.",
)
@click.option("--strict", is_flag=True, help="Refuse a recording of which something is missing.")
@click.option(
    "--batch-size",
    default=LongformConfig.batch_size,
    type=click.IntRange(1),
    help="Segments that the network gets at once.",
)
@click.option(
    "--rate", type=click.IntRange(1000, 1_000_000),
    help="Hertz of bare samples on stdin: 16-bit, little-endian, one channel.",
)  # fmt: skip
@bulk_options
def transcribe(
    opening: Opening,
    audio: tuple[str, ...],
    out: str | None,
    output_format: str | None,
    n_best: int | None,
    skip_existing: bool,
    word_timestamps: bool,
    max_line_width: int,
    max_line_count: int,
    vad: bool,
    channels: Literal["mix", "left", "right", "each"],
    strict: bool,
    batch_size: int,
    rate: int | None,
    part: str | None,
    on: str | None,
    shard_size: int,
    workers: int,
    worker_cpus: float,
    worker_gpus: float,
) -> None:
    """Turn AUDIO into text: files, folders (and all below them), patterns like 'talks/*.mp3', - for stdin.

    In txt format, one recording gives its text alone, a line per segment; several give a line each: the
    file's name, a tab and the text. json and jsonl hold the times and the confidence of every word. A
    recording that cannot be read is named on stderr, the others are transcribed, and the exit status is 1;
    so it is where something of a recording is missing and the rest is transcribed. Ctrl-C keeps what is done.

    With --shard or --on, AUDIO is a manifest, and -o a folder of tables with its keys and pred_text.
    """
    if part is not None or on is not None:
        unfit = {
            "--n-best": n_best, "--skip-existing": skip_existing, "--word-timestamps": word_timestamps,
            "--rate": rate, "--shard with --on": part is not None and on is not None,
        }  # fmt: skip
        if wrong := [name for name, value in unfit.items() if value]:
            raise click.UsageError(f"A manifest is transcribed without {wrong[0]}.")
        if len(audio) != 1 or out is None:
            raise click.UsageError("--shard and --on take one manifest and -o DIR.")
        longform = LongformConfig(vad, batch_size, channels, strict)
        request = BulkRequest(
            audio[0], out, part, on, shard_size, workers, worker_cpus, worker_gpus, output_format,
            opening, longform,
        )  # fmt: skip
        sys.exit(transcribe_manifest(request))
    if output_format == "parquet":
        raise click.UsageError("-f parquet is for manifests: --shard or --on.")
    if n_best is not None and (out is not None or output_format is not None or skip_existing):
        raise click.UsageError("--n-best prints texts: it goes without -o, -f and --skip-existing.")
    target, folder = split_target(None if out is None else Path(out), output_format)
    output_format = output_format or (target.suffix[1:].lower() if target is not None else "txt")
    formats = list(FORMATS) if output_format == "all" else [output_format]
    layout = Layout(max_line_width, max_line_count, word_timestamps)
    if rate is not None and STDIN not in audio:
        raise click.UsageError("--rate is for bare samples from stdin: give - as AUDIO.")
    if out is None and (skip_existing or output_format == "all"):
        raise click.UsageError(f"{'--skip-existing' if skip_existing else '-f all'} needs -o DIR.")
    recordings, failures = find_recordings(audio)
    if out is None and output_format not in JOINABLE and len(recordings) > 1:
        raise click.UsageError(f"Several recordings as {output_format} need -o DIR.")
    for failure in failures:
        click.echo(f"asr: {failure}", err=True)

    several = len(audio) > 1 or len(recordings) > 1
    if several and target is not None:
        raise click.UsageError(f"{target} is one file: several recordings need -o DIR.")
    outputs = {} if folder is None else name_outputs(recordings, folder, formats)
    if target is not None:
        outputs = {recording.path: {output_format: target} for recording in recordings}
    titles = name_in_ctm(recordings)
    if skip_existing:
        recordings = [r for r in recordings if not all(map(Path.exists, outputs[r.path].values()))]
    tally = TranscriptionTally(failed=len(failures))
    heard: list[Segment] = []  # of the recording that is being transcribed
    is_live = False
    try:
        if recordings:
            recognizer = open_for_transcription(opening)
            if n_best is not None:
                tally.failed += print_alternatives(recognizer, recordings, n_best, rate, several)
                recordings = []
            tally.started = time.monotonic()
            config = LongformConfig(vad, batch_size, channels, strict)
            is_live = out is None and output_format == "txt" and not several and channels != "each"

            def hear(segment: Segment) -> None:
                heard.append(segment)
                if is_live:
                    print_result(f"{segment.readable}\n")

            for recording, outcome in transcribe_all(recognizer, recordings, config, rate, hear):
                layout = replace(layout, name=titles[recording.path])
                if isinstance(outcome, UserError):
                    click.echo(f"asr: {outcome}", err=True)
                elif is_live and heard:
                    pass  # each line is printed already
                elif out is None:
                    print_result(format_for_stdout(outcome, output_format, layout, several))
                else:
                    write_outputs(outcome, outputs[recording.path], layout)
                if isinstance(outcome, Transcript):
                    print_remarks(outcome, vad)
                tally.add(outcome)
                heard.clear()
    except KeyboardInterrupt:
        if heard and tally.recordings < len(recordings) and not is_live:
            recording = recordings[tally.recordings]
            layout = replace(layout, name=titles[recording.path])
            partial = make_partial(recording.path, heard, recognizer)
            if out is None:
                print_result(format_for_stdout(partial, output_format, layout, several))
            else:
                files = {kind: mark_partial(path) for kind, path in outputs[recording.path].items()}
                write_outputs(partial, files, layout)
                click.echo(
                    f"asr: {quote_path(recording.path)}: what was done is in "
                    f"{', '.join(quote_path(path) for path in files.values())}",
                    err=True,
                )
        left = len(recordings) - tally.recordings
        recordings_left = f"{left} recording{'' if left == 1 else 's'} not transcribed"
        click.echo(f"asr: interrupted: {recordings_left}; files already written are complete", err=True)
        tally.interrupted = True
    if out is not None or sys.stderr.isatty():
        click.echo(tally.summary, err=True)
    if tally.interrupted or tally.failed:
        sys.exit(INTERRUPTED if tally.interrupted else 1)


def split_target(out: Path | None, output_format: str | None) -> tuple[Path | None, Path | None]:
    """The file that ``-o`` names, if it names one, and the folder to write into.

    A name that is no folder yet and ends as a format does is a file.
    """
    if out is None or out.is_dir() or output_format == "all" or out.suffix[1:].lower() not in FORMATS:
        if out is not None and out.exists() and not out.is_dir():
            endings = ", ".join(f".{name}" for name in FORMATS)
            raise click.UsageError(
                f"{quote_path(out)} is a file: give a folder, or a name that ends in {endings}."
            )
        return None, out
    return out, out.parent


# --- what to transcribe ---------------------------------------------------------------------------


def find_recordings(arguments: Sequence[str]) -> tuple[list[Recording], list[str]]:
    """Find the recordings of all arguments, in their order, and what is wrong with the other arguments."""
    recordings, failures = [], []
    for argument in arguments:
        below = list(expand_argument(argument))
        recordings += below
        if not below:
            kind = "folder holds no recordings" if Path(argument).is_dir() else "pattern matches no file"
            failures.append(f"{quote_path(argument)}: this {kind}")
    return recordings, failures


def expand_argument(argument: str) -> Iterator[Recording]:
    """Expand an argument: stdin, all recordings below a folder, the files that match a pattern, a file."""
    if argument == STDIN:
        yield Recording(STDIN, Path("stdin"))
    elif Path(argument).is_dir():
        for path in sorted(Path(argument).rglob("*")):
            if is_recording(path) and path.is_file() and not path.name.startswith("."):
                yield Recording(str(path), path.relative_to(argument).with_suffix(""))
    elif glob.has_magic(argument) and "://" not in argument and not os.path.lexists(argument):
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207
            if Path(match).is_file():
                yield Recording(match, Path(Path(match).stem))
    else:
        yield Recording(argument, Path(Path(argument).stem))


def name_outputs(
    recordings: Sequence[Recording], out: Path, formats: Sequence[str]
) -> dict[str, dict[str, Path]]:
    """Name the output file of each format for each recording's path, no two the same."""
    names = make_distinct_names(recordings)
    return {path: {kind: out / f"{name}.{kind}" for kind in formats} for path, name in names.items()}


def name_in_ctm(recordings: Sequence[Recording]) -> dict[str, str]:
    """Name each recording's path as ctm does: the file alone where that tells them apart."""
    files = [Recording(recording.path, Path(recording.name.name)) for recording in recordings]
    return {path: name.as_posix() for path, name in make_distinct_names(files).items()}


def make_distinct_names(recordings: Sequence[Recording]) -> dict[str, Path]:
    """Make a name for each recording's path: the short one if all differ, else the path below their folder.

    The ending is kept where names would be equal without it. A path that comes twice has one name.
    """
    recordings = list({recording.path: recording for recording in recordings}.values())
    # abspath: links keep their own names, and .. must not lead out of the output folder.
    paths = [Path(os.path.abspath(recording.path)) for recording in recordings]  # noqa: PTH100
    levels = zip(*(path.parent.parts for path in paths), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    below = [Path(*path.parts[max(common, 1) :]) for path in paths]  # never with a drive
    for names in ([recording.name for recording in recordings], [path.with_suffix("") for path in below]):
        if len({"_".join(str(name).casefold().split()) for name in names}) == len(recordings):
            break
    else:
        names = below
    return {recording.path: name for recording, name in zip(recordings, names, strict=True)}


# --- transcribing ---------------------------------------------------------------------------------


def open_for_transcription(opening: Opening) -> Recognizer:
    """Open a recogniser for the whole run of the program."""
    # At its end Python would search all objects for garbage, which with torch takes half a second. Only
    # here: training must release what its processes share before they end.
    atexit.register(gc.freeze)
    recognizer = opening.open()
    gc.freeze()  # nor does it search those of the model now and then, which stay
    if recognizer.unit == "phones":
        click.echo("greedy search finds phones, not words: --beam-size 2 or more finds words", err=True)
    return recognizer


def transcribe_all(
    recognizer: Recognizer,
    recordings: Sequence[Recording],
    config: LongformConfig,
    rate: int | None,
    hear: Callable[[Segment], object],
) -> Iterator[tuple[Recording, Transcript | AudioError]]:
    """Yield each recording with its transcript, or why it cannot be read; a terminal shows the progress.

    ``hear`` is told each segment as soon as it is known.
    """
    with copy_stdin(rate, STDIN in [recording.path for recording in recordings]) as stdin:
        sources = [stdin if recording.path == STDIN else recording.path for recording in recordings]
        with new_audio_bar(sources) as bar:
            outcomes = transcribe_recordings(recognizer, sources, config, bar.update, hear)
            done = 0.0
            for recording, outcome in zip(recordings, outcomes, strict=True):
                bar.clear()
                yield recording, outcome
                done += outcome.duration if isinstance(outcome, Transcript) else 0.0
                bar.n = max(bar.n, done)  # audio that was left out is done, too


@contextmanager
def copy_stdin(rate: int | None, wanted: bool) -> Iterator[IO[bytes]]:
    """A seekable file with the contents of stdin; empty unless ``wanted``."""
    with tempfile.TemporaryFile() as file:
        if wanted:
            if rate is not None:
                file.write(make_wav_header(rate))
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield file


# --- output ---------------------------------------------------------------------------------------


def format_for_stdout(transcript: Transcript, output_format: str, layout: Layout, named: bool) -> str:
    """Format a transcript for stdout, with its name where it is one of several."""
    if output_format == "txt" and named:
        return f"{quote_path(transcript.audio)}\t{transcript.readable}\n"
    return FORMATS[output_format](transcript, layout)


def print_alternatives(
    recognizer: Recognizer, recordings: Sequence[Recording], count: int, rate: int | None, named: bool
) -> int:
    """Print the best texts of each recording with their scores; return how many cannot be read."""
    failed = 0
    with copy_stdin(rate, STDIN in [recording.path for recording in recordings]) as stdin:
        for recording in recordings:
            try:
                found = recognizer.alternatives(stdin if recording.path == STDIN else recording.path, count)
            except AudioError as error:
                click.echo(f"asr: {error}", err=True)
                failed += 1
                continue
            name = f"{quote_path(recording.path)}\t" if named else ""
            print_result("".join(f"{name}{result.score:.3f}\t{result.text}\n" for result in found))
    return failed


def print_result(text: str) -> None:
    """Print to stdout at once, so that nothing is done for nobody; raises ``OSError`` where that fails."""
    click.echo(text, nl=False)
    sys.stdout.flush()


def print_remarks(transcript: Transcript, vad: bool) -> None:
    """Print on stderr what is missing of a recording, what is worth knowing, and that nobody speaks in it."""
    for fault in transcript.faults:
        click.echo(f"asr: {quote_path(transcript.audio)}: {fault}; what is there is transcribed", err=True)
    for note in transcript.notes:
        click.echo(f"{quote_path(transcript.audio)}: {note}", err=True)
    if not transcript.text:
        click.echo(describe_silence(transcript, vad), err=True)


def make_partial(path: str, segments: Sequence[Segment], recognizer: Recognizer) -> Transcript:
    """The transcript of a recording that was interrupted."""
    end = max(segment.end for segment in segments)
    fault = f"interrupted: its first {end:.2f} seconds are transcribed"
    return Transcript(path, end, tuple(segments), recognizer.name, recognizer.settings, (fault,))


def mark_partial(path: Path) -> Path:
    """The name of the file for a part of a transcript: ``talk.partial.txt`` for ``talk.txt``."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def describe_silence(transcript: Transcript, vad: bool) -> str:
    """Describe a transcript without words."""
    return (
        f"{quote_path(transcript.audio)}: no words found{'; if somebody speaks, try --no-vad' if vad else ''}"
    )


def write_outputs(transcript: Transcript, files: dict[str, Path], layout: Layout) -> None:
    """Write every file, each whole or not at all; raises ``OutputError``."""
    for kind, path in files.items():
        try:
            write_text(path, FORMATS[kind](transcript, layout))
        except OSError as error:  # no other recording could be written to a full disk either
            raise OutputError(f"{quote_path(path)}: cannot be written: {error.strerror}") from error


@dataclass
class TranscriptionTally:
    """How many recordings were transcribed, and how fast."""

    failed: int = 0
    recordings: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    interrupted: bool = False

    def add(self, outcome: Transcript | AudioError) -> None:
        """Count one more recording."""
        self.recordings += 1
        if isinstance(outcome, AudioError):
            self.failed += 1
        else:
            self.seconds += outcome.duration
            self.failed += bool(outcome.faults)

    @property
    def summary(self) -> str:
        """The closing line: how much was transcribed, how fast, and how many failed."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        files = f"{self.recordings} recording{'' if self.recordings == 1 else 's'}"
        speed = f"{self.seconds / 3600:.2f} hours at {self.seconds / elapsed:.0f} times real time"
        return f"{files}, {speed}, {self.failed} failed"
