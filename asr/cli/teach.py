"""``asr teach``: write what a model hears in recordings, for another model to learn from."""

from __future__ import annotations

from pathlib import Path

import click

from asr.cli._options import compute_type_option, device_option, set_torch_threads, threads_option
from asr.cli._progress import new_utterance_bar


@click.command()
@click.argument("manifests", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True, help="A model folder, or the name of a shipped model: the teacher.")
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
    model: str,
    out: Path,
    device: str,
    threads: int | None,
    compute_type: str,
    batch_seconds: float,
) -> None:
    """Write the log-probs of a model for every utterance of MANIFESTS.

    A recipe that names the folder in training.teacher learns from them beside its transcripts, and from
    them alone where an utterance has no text. Utterances that the folder has already are left as they are,
    so that the same command goes on after an interruption.
    """
    from asr.core.cores import choose_threads
    from asr.data.manifest import read_manifest
    from asr.recognition.recognizer import open_recognizer
    from asr.training.examples import Example, measure_duration, new_sample_reader
    from asr.training.teaching import write_teacher

    utterances = [utterance for manifest in manifests for utterance in read_manifest(manifest)]
    cores = choose_threads(threads)
    recognizer = open_recognizer(
        model, device, lm="none", beam_size=1, ctc_weight=0.0, threads=cores, compute_type=compute_type
    )
    set_torch_threads(cores)
    examples = [Example(utterance, measure_duration(utterance), None) for utterance in utterances]
    read = new_sample_reader(recognizer.sample_rate, keep=False)
    with new_utterance_bar(len(examples)) as bar:
        written = write_teacher(recognizer, examples, read, out, batch_seconds, bar.update)
    there = "" if written == len(examples) else "; the others were there"
    click.echo(f"{out}: {written} of {len(examples)} utterances written{there}", err=True)
