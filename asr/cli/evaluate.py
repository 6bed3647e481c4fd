"""``asr evaluate``: a manifest and a model in, a word error rate out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asr.cli._json import comparison_to_json, intervals_to_json
from asr.cli._tables import format_reliability, format_summary
from asr.cli.searching import open_with_options, search_options
from asr.cli.threads import threads_option
from asr.pretrained import DEFAULT_MODEL, find_model_folder
from asr.recognition.network import COMPUTE_TYPES
from asr.scoring.counts import ScoringError
from asr.scoring.systems import compute_intervals, list_speakers

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer
    from asr.training.evaluation import Evaluation


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--model", default=DEFAULT_MODEL, help="A model folder, or the name of a shipped model.")
@click.option("--hyp-out", type=click.Path(path_type=Path), help="Write the hypotheses as JSONL.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all it takes to redo it.")
@click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
@threads_option
@click.option(
    "--compute-type", default="float32", type=click.Choice(COMPUTE_TYPES), help="Precision of the network."
)
@click.option("--batch-seconds", default=60.0, type=click.FloatRange(0, min_open=True), help="Audio at once.")
@search_options
def evaluate(
    manifest: Path,
    model: str,
    hyp_out: Path | None,
    as_json: bool,
    device: str,
    compute_type: str,
    batch_seconds: float,
    threads: int | None,
    **search: Any,
) -> None:
    """Transcribe every utterance of MANIFEST and compare with its text.

    References go through the normaliser that the model was trained with.
    """
    from tqdm import tqdm

    from asr.core.cores import choose_threads
    from asr.data.manifest import read_manifest
    from asr.training.batching import evaluation_examples, new_sample_reader
    from asr.training.evaluation import evaluate as evaluated

    utterances = read_manifest(manifest)
    if not utterances:
        raise ScoringError(f"{manifest}: lists no utterances")
    cores = choose_threads(threads) if threads else None
    recognizer = open_with_options(model, device, compute_type, cores, search)
    examples = evaluation_examples(utterances, recognizer.tokenizer, recognizer.text)
    read = new_sample_reader(recognizer.sample_rate, keep=False)
    with tqdm(total=len(examples), unit="utterance", disable=not sys.stderr.isatty()) as bar:
        evaluation = evaluated(recognizer, examples, read, batch_seconds, progress=bar.update)
    unwritten = None
    if hyp_out is not None:
        try:
            write_hypotheses(hyp_out, evaluation)
        except OSError as error:
            unwritten = error  # told behind the rates, which are there and shall not be lost with it
    comparison = evaluation.comparison
    if as_json:
        by_id = {utterance.id: utterance for utterance in utterances}
        speakers = list_speakers([by_id[name] for name in comparison.references])
        click.echo(json.dumps(result(recognizer, model, manifest, evaluation, speakers), indent=2))
    else:
        hours, speed = evaluation.audio_seconds / 3600, 1 / evaluation.rtf
        click.echo("\n".join(format_summary(comparison)))
        if recognizer.unit == "phones":
            click.echo("words are phones here; with --beam-size or --lm a search finds those of the lexicon")
        click.echo("\n".join(format_reliability(evaluation.reliability)))
        click.echo(f"{hours:.2f} hours of audio at {speed:.0f} times real time")
    if unwritten is not None:
        raise unwritten
    if comparison.rates["wer"] is None:
        raise ScoringError(f"{manifest}: its texts have no words: an error rate is not defined")


def write_hypotheses(path: Path, evaluation: Evaluation) -> None:
    """A JSONL line per utterance: id, text, score (natural log) and words with their times."""
    from asr.core.files import write_text

    lines = (
        json.dumps(
            {"id": name, "text": h.text, "score": h.score, "words": [asdict(word) for word in h.words]},
            ensure_ascii=False,
        )
        for name, h in sorted(evaluation.hypotheses.items())
    )
    write_text(path, "".join(line + "\n" for line in lines))


def result(
    recognizer: Recognizer,
    model: str,
    manifest: Path,
    evaluation: Evaluation,
    speakers: Sequence[str],
) -> dict[str, Any]:
    """The result for files: rates as shares, counts, how far to trust them, and where they came from."""
    from asr.core.config import read_toml
    from asr.model.engine import unwrap_model
    from asr.training.monitoring import read_training_speed
    from asr.training.report import provenance

    folder, acoustic = find_model_folder(model), unwrap_model(recognizer)
    config = read_toml(folder / "config.toml")
    return {
        "manifest": str(manifest),
        "model": model,
        "unit": recognizer.unit,
        "search": recognizer.search_settings,
        "compute_type": acoustic.compute_type,
        "normaliser": recognizer.text.normaliser,
        **comparison_to_json(evaluation.comparison),
        "reliability": [asdict(row) for row in evaluation.reliability],
        "intervals": intervals_to_json(compute_intervals(evaluation.comparison, speakers)),
        "hours": round(evaluation.audio_seconds / 3600, 4),
        "rtf": round(evaluation.rtf, 6),
        "training_speed": read_training_speed(folder),
        "parameters": sum(p.numel() for p in acoustic.ctc.parameters()),
        "seed": config.get("training", {}).get("seed"),
        **provenance(acoustic.device),
    }
