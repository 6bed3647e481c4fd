"""``asr teach``: write what a model or an encoder hears in recordings, for another model to learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asr.cli._options import (
    compute_type_option,
    device_option,
    require_libraries,
    set_torch_threads,
    threads_option,
)
from asr.cli._progress import new_utterance_bar

if TYPE_CHECKING:
    from asr.training.examples import Example


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", help="A model folder, or the name of a shipped model: the teacher.")
@click.option("--encoder", help="A Whisper model in CTranslate2's format: write its hidden states instead.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder to write, or to complete."
)
@device_option
@threads_option
@compute_type_option
@click.option(
    "--batch-seconds", default=60.0, type=click.FloatRange(0, min_open=True), help="Audio in a batch."
)
def teach(
    manifests: tuple[Path, ...],
    model: str | None,
    encoder: str | None,
    out: Path,
    device: str,
    threads: int | None,
    compute_type: str,
    batch_seconds: float,
) -> None:
    """Write the log-probs of a model, or the states of an encoder, for every utterance of MANIFESTS.

    A recipe that names the folder in training.teacher, or in training.states, learns from them beside its
    transcripts, and from them alone where an utterance has no text. Utterances that the folder has already
    are left as they are, so that the same command goes on after an interruption.
    """
    from asr.core.cores import choose_threads
    from asr.data.manifest import read_manifest
    from asr.training.examples import Example, measure_duration, new_sample_reader

    if (model is None) == (encoder is None):
        raise click.UsageError("one of --model and --encoder is needed, and not both")
    utterances = [utterance for manifest in manifests for utterance in read_manifest(manifest)]
    examples = [Example(utterance, measure_duration(utterance), None) for utterance in utterances]
    cores = choose_threads(threads)
    with new_utterance_bar(len(examples)) as bar:
        if model is not None:
            from asr.recognition.recognizer import open_recognizer
            from asr.training.teaching import write_teacher

            recognizer = open_recognizer(
                model,
                device,
                lm="none",
                beam_size=1,
                ctc_weight=0.0,
                threads=cores,
                compute_type=compute_type,
            )
            set_torch_threads(cores)
            read = new_sample_reader(recognizer.sample_rate, keep=False)
            written = write_teacher(recognizer, examples, read, out, batch_seconds, bar.update)
        else:
            assert encoder is not None
            written = teach_states(encoder, examples, out, cores, bar.update)
    there = "" if written == len(examples) else "; the others were there"
    click.echo(f"{out}: {written} of {len(examples)} utterances written{there}", err=True)


@require_libraries("torch", "torchaudio")
def teach_states(
    encoder: str, examples: Sequence[Example], out: Path, cores: int, progress: Callable[[int], object]
) -> int:
    """Write the states of a Whisper encoder; returns of how many utterances."""
    from asr.model.states import SAMPLE_RATE, STATE_SAMPLES, open_encoder
    from asr.training.examples import new_sample_reader
    from asr.training.teaching import write_states

    set_torch_threads(cores)
    read = new_sample_reader(SAMPLE_RATE, keep=False)
    return write_states(open_encoder(encoder), STATE_SAMPLES / SAMPLE_RATE, examples, read, out, progress)
