"""Check that long recordings are transcribed as well as short ones: utterances one by one and end to end.

    python tools/hour.py data/english/dev.jsonl --model english

makes one recording of the manifest's utterances in their order, repeated until it has so many hours,
transcribes it, then transcribes the utterances one by one, and prints both word error rates. The exit
status is 1 when that of the long recording is higher by more than half a point. With a ``--seed`` the order
is random: speakers change every few seconds, often without a pause to end a segment, which is what
``asr.audio.turns`` is for.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import click
import soundfile

from asr.cli._options import open_with_options, search_options
from asr.data.manifest import Utterance, read_manifest
from asr.recognition.recognizer import Recognizer
from asr.scoring.counts import ErrorCounts, compare_texts
from asr.text.tokenizer import NORMALISERS
from asr.training.evaluation import evaluate
from asr.training.examples import evaluation_examples, measure_duration, new_sample_reader

MOST_POINTS = 0.5


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="A model folder, or the name of a shipped model.")
@click.option("--hours", default=1.0, type=click.FloatRange(0, min_open=True), help="Of audio.")
@click.option("--seed", type=int, help="Shuffles the utterances.  [default: the order of the manifest]")
@click.option("--vad/--no-vad", default=True, help="Whether the long recording is cut at pauses.")
@search_options
def main(manifest: Path, model: str, hours: float, seed: int | None, vad: bool, **search: Any) -> None:
    """Compare the word error rates of MANIFEST's utterances end to end and one by one."""
    recognizer = open_with_options(model, "cpu", "float32", None, search)
    utterances = list(choose_utterances(read_manifest(manifest), hours * 3600, seed))
    whole = transcribe_end_to_end(recognizer, utterances, vad)
    single = transcribe_one_by_one(recognizer, utterances)
    points = 100 * (whole.error_rate - single.error_rate)
    print(f"{points:+.2f} points; at most {MOST_POINTS} are allowed")
    if points > MOST_POINTS:
        sys.exit(1)


def choose_utterances(
    utterances: Sequence[Utterance], seconds: float, seed: int | None
) -> Iterator[Utterance]:
    """Yield utterances until they last so many seconds, starting over after the last one."""
    order = utterances if seed is None else random.Random(seed).sample(utterances, len(utterances))
    for utterance in cycle(order):
        if seconds <= 0:
            return
        yield utterance
        seconds -= measure_duration(utterance)


def transcribe_end_to_end(recognizer: Recognizer, utterances: Sequence[Utterance], vad: bool) -> ErrorCounts:
    """Transcribe one recording of all utterances; count errors, print time and memory."""
    read, rate = new_sample_reader(recognizer.sample_rate, keep=False), recognizer.sample_rate
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hour.wav"
        with soundfile.SoundFile(path, "w", rate, 1, "FLOAT") as sound:
            for utterance in utterances:
                sound.write(read(utterance))
        started = time.monotonic()
        transcript = recognizer.transcribe(path, vad)
        elapsed = time.monotonic() - started
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    normalise = NORMALISERS[recognizer.text.normaliser]
    reference = " ".join(recognizer.to_reference(normalise(utterance.text)) for utterance in utterances)
    score = compare_texts({"all": reference}, {"all": transcript.text}).words
    print_errors("end to end", score)
    heard = sum(segment.end - segment.start for segment in transcript.segments) / transcript.duration
    longest = max((segment.end - segment.start for segment in transcript.segments), default=0.0)
    print(
        f"  {transcript.duration / 3600:.2f} hours at {transcript.duration / elapsed:.0f} times real time, "
        f"{megabytes:.0f} MB at most; {len(transcript.segments)} segments with {heard:.0%} of it, "
        f"the longest {longest:.0f} s"
    )
    return score


def transcribe_one_by_one(recognizer: Recognizer, utterances: Sequence[Utterance]) -> ErrorCounts:
    """Transcribe each utterance on its own and count errors."""
    named = {f"{utterance.id}-{number}": utterance for number, utterance in enumerate(utterances)}
    examples = evaluation_examples(
        [replace(utterance, id=name) for name, utterance in named.items()],
        recognizer.tokenizer,
        recognizer.text,
    )
    evaluation = evaluate(recognizer, examples, new_sample_reader(recognizer.sample_rate, keep=False))
    print_errors("one by one", evaluation.comparison.words)
    return evaluation.comparison.words


def print_errors(name: str, score: ErrorCounts) -> None:
    """Print an error rate and what it is made of."""
    counts = (
        f"{score.substitutions} substitutions, {score.deletions} deletions, {score.insertions} insertions"
    )
    print(f"{name}: WER {100 * score.error_rate:.2f} %; {counts}, {score.reference_length} words", flush=True)


if __name__ == "__main__":
    main()
