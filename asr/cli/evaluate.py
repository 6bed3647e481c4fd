"""``asr evaluate``: transcribe a manifest and print the error rates of a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asr.cli._json import comparison_to_json, intervals_to_json
from asr.cli._options import (
    compute_type_option,
    device_option,
    model_option,
    open_with_options,
    search_options,
    threads_option,
)
from asr.cli._progress import new_utterance_bar
from asr.cli._tables import format_reliability, format_summary
from asr.pretrained import find_model_folder
from asr.scoring.counts import ScoringError
from asr.scoring.systems import compute_intervals, list_speakers

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer
    from asr.training.judgement import Evaluation


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@model_option
@click.option("--hyp-out", type=click.Path(path_type=Path), help="Write the hypotheses as JSONL.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, provenance included.")
@device_option
@threads_option
@compute_type_option
@click.option(
    "--batch-seconds", default=60.0, type=click.FloatRange(0, min_open=True), help="Audio in a batch."
)
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
    """Transcribe every utterance of MANIFEST and compare it with its text.

    References are normalised as in the model's training. Log-probs are those of asr transcribe: ONNX
    Runtime's where the model has model.onnx, unless a GPU or a precision is asked for that takes torch.
    """
    from asr.data.manifest import read_manifest
    from asr.training.examples import evaluation_examples, new_sample_reader
    from asr.training.judgement import choose_judge

    utterances = read_manifest(manifest)
    if not utterances:
        raise ScoringError(f"{manifest}: lists no utterances")
    recognizer = open_with_options(model, device, compute_type, threads, search)
    examples = evaluation_examples(utterances, recognizer.tokenizer, recognizer.text)
    read = new_sample_reader(recognizer.sample_rate, keep=False)
    with new_utterance_bar(len(examples)) as bar:
        judge = choose_judge(recognizer)
        evaluation = judge(recognizer, examples, read, batch_seconds, progress=bar.update)
    unwritten = None
    if hyp_out is not None:
        try:
            write_hypotheses(hyp_out, evaluation)
        except OSError as error:
            unwritten = error  # raised after the rates, which must not be lost with it
    comparison = evaluation.comparison
    if as_json:
        by_id = {utterance.id: utterance for utterance in utterances}
        speakers = list_speakers([by_id[name] for name in comparison.references])
        click.echo(
            json.dumps(evaluation_to_json(recognizer, model, manifest, evaluation, speakers), indent=2)
        )
    else:
        hours, speed = evaluation.audio_seconds / 3600, 1 / evaluation.rtf
        click.echo("\n".join(format_summary(comparison)))
        if recognizer.unit == "phones":
            click.echo("words are phones here; --beam-size or --lm searches for the words of the lexicon")
        click.echo("\n".join(format_reliability(evaluation.reliability)))
        precision = recognizer.network.settings["compute_type"]
        click.echo(f"{hours:.2f} hours of audio at {speed:.0f} times real time, computed in {precision}")
    if unwritten is not None:
        raise unwritten
    if comparison.rates["wer"] is None:
        raise ScoringError(f"{manifest}: its texts have no words: an error rate is not defined")


def write_hypotheses(path: Path, evaluation: Evaluation) -> None:
    """Write a JSONL line per utterance: id, text, score (natural log) and words with their times."""
    from asr.core.files import write_text

    lines = (
        json.dumps(
            {"id": name, "text": h.text, "score": h.score, "words": [asdict(word) for word in h.words]},
            ensure_ascii=False,
        )
        for name, h in sorted(evaluation.hypotheses.items())
    )
    write_text(path, "".join(line + "\n" for line in lines))


def evaluation_to_json(
    recognizer: Recognizer,
    model: str,
    manifest: Path,
    evaluation: Evaluation,
    speakers: Sequence[str],
) -> dict[str, Any]:
    """All of the result: rates as shares, counts, intervals, and where they came from."""
    from asr.core.config import read_toml

    folder = find_model_folder(model)
    config = read_toml(folder / "config.toml")
    return {
        "manifest": str(manifest),
        "model": model,
        "unit": recognizer.unit,
        "search": recognizer.search_settings,
        "compute_type": recognizer.network.settings["compute_type"],
        "normaliser": recognizer.text.normaliser,
        **comparison_to_json(evaluation.comparison),
        "reliability": [asdict(row) for row in evaluation.reliability],
        "intervals": intervals_to_json(compute_intervals(evaluation.comparison, speakers)),
        "hours": round(evaluation.audio_seconds / 3600, 4),
        "rtf": round(evaluation.rtf, 6),
        **describe_training(folder),
        "seed": config.get("training", {}).get("seed"),
        **describe_engine(recognizer),
    }


def describe_training(folder: Path) -> dict[str, Any]:
    """Describe how large the network is and how fast it learned, where torch is there to tell."""
    if find_spec("torch") is None:
        return {"training_speed": None, "parameters": None}
    from asr.model.folder import load_acoustic_model
    from asr.training.monitoring import read_training_speed

    parameters = load_acoustic_model(folder).ctc.parameters()
    return {
        "training_speed": read_training_speed(folder),
        "parameters": sum(parameter.numel() for parameter in parameters),
    }


def describe_engine(recognizer: Recognizer) -> dict[str, Any]:
    """Describe where the result comes from, and what computed it."""
    from asr.core.provenance import describe_machine, make_provenance
    from asr.recognition.onnx_network import OnnxNetwork

    if isinstance(recognizer.network, OnnxNetwork):
        return make_provenance(describe_machine(recognizer.threads), onnxruntime=version("onnxruntime"))
    import torch

    from asr.model.engine import unwrap_model
    from asr.model.precision import describe_device

    return make_provenance(describe_device(unwrap_model(recognizer).device), torch=torch.__version__)
