"""``asr tune``: find the best search settings of a model on a development set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from asr.cli._options import compute_type_option, device_option, set_torch_threads, threads_option
from asr.cli._progress import new_utterance_bar
from asr.cli._tables import format_reliability
from asr.errors import UserError

if TYPE_CHECKING:
    from asr.recognition.network import SpellingNetwork
    from asr.search import SearchConfig
    from asr.training.tuning import Trial


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="A model folder; the result is written into it.")
@click.option(
    "--lm",
    metavar="FILE|none",
    help="A language model, which becomes part of the model folder; "
    "none tunes the search for transcribing with --lm none.",
)
@click.option(
    "--rescore",
    metavar="FILE|none",
    help="A recurrent language model for rescoring, which becomes part of the model folder.  "
    "[default: the model's own, where it has one]",
)
@click.option("--rescore-only", is_flag=True, help="Tune the weights of rescoring alone.")
@click.option(
    "--beam-size",
    type=click.IntRange(2),
    help="Prefixes kept from frame to frame.  [default: the best of several]",
)
@device_option
@threads_option
@compute_type_option
@click.option("--dry-run", is_flag=True, help="Write nothing.")
def tune(
    manifest: Path,
    model: str,
    lm: str | None,
    rescore: str | None,
    rescore_only: bool,
    beam_size: int | None,
    device: str,
    threads: int | None,
    compute_type: str,
    dry_run: bool,
) -> None:
    """Find the search settings with which MODEL makes the fewest errors on MANIFEST.

    First weights of the tokens' priors are tried, then the language model's weight and the word bonus on a
    grid and around its best point, then beams of several sizes; every WER is printed. Confidences are fitted
    to how often words are right. Where there is a recurrent language model, the weights with which it ranks
    the best hypotheses anew come last. Of a model with an attention decoder CTC's share is tried first, CTC
    alone included, then bonuses for length and coverage, and small beams. The result goes into search.toml
    in the model folder, and with --lm and --rescore the language models beside it: transcribe and evaluate
    use all of it from then on. With --lm none the result goes into search-without-lm.toml. Log-probs are
    those of asr transcribe: ONNX Runtime's where the model has model.onnx.
    """
    from asr.core.config import to_toml
    from asr.core.cores import choose_threads
    from asr.core.files import write_text
    from asr.data.manifest import read_manifest
    from asr.lm.recurrent_file import open_recurrent_model, save_recurrent_model
    from asr.lm.storage import load_model, save_model
    from asr.pretrained import SHIPPED, find_model_folder
    from asr.recognition.folder import (
        LANGUAGE_MODEL_FILE,
        RECURRENT_MODEL_FILE,
        SEARCH_FILE,
        SEARCH_FILE_WITHOUT_LM,
        find_language_model,
        find_recurrent_model,
        read_search_config,
    )
    from asr.recognition.model_files import renew_checksums
    from asr.recognition.recognizer import open_recognizer
    from asr.training.examples import evaluation_examples, new_sample_reader
    from asr.training.tuning import (
        Task,
        Trial,
        calibrate,
        compute_log_probs,
        tune_rescoring,
        tune_search,
        tune_spelling,
    )

    folder = find_model_folder(model)
    if folder.parent == SHIPPED and not dry_run:
        raise UserError(
            f"{model}: is part of the program; copy {folder}, tune the copy, and give it as --model from "
            "then on (--dry-run only measures)"
        )
    cores = choose_threads(threads)
    recognizer = open_recognizer(
        model, device, lm="none", beam_size=1, ctc_weight=0.0, threads=cores, compute_type=compute_type
    )  # the task searches, with an attention decoder where there is one
    set_torch_threads(cores)
    decoder = cast("SpellingNetwork", recognizer.network) if recognizer.spells else None
    if decoder is not None and (rescore_only or rescore not in (None, "none")):
        raise UserError(f"{model}: an attention decoder goes with no recurrent language model")
    source = None if lm == "none" else lm or find_language_model(folder)
    file = folder / (SEARCH_FILE_WITHOUT_LM if lm == "none" else SEARCH_FILE)
    language_model = None if source is None else load_model(source)
    recurrent_file: str | Path | None = None if rescore == "none" else rescore
    if rescore is None and lm != "none":
        recurrent_file = find_recurrent_model(folder)
    recurrent = None if recurrent_file is None else open_recurrent_model(recurrent_file)
    if rescore_only and recurrent is None:
        raise click.UsageError("--rescore-only needs a recurrent language model: give --rescore FILE.")
    examples = evaluation_examples(read_manifest(manifest), recognizer.tokenizer, recognizer.text)
    if not any(example.utterance.text.split() for example in examples):
        raise UserError(f"{manifest}: its texts have no words: there is nothing to tune on")
    read = new_sample_reader(recognizer.sample_rate, keep=False)
    with new_utterance_bar(len(examples)) as bar:
        log_probs = compute_log_probs(recognizer, examples, read, progress=bar.update)
    task = Task(log_probs, recognizer.tokenizer, language_model, decoder=decoder)
    config = read_search_config(folder, lm)
    if decoder is not None:
        best = tune_spelling(task, config, beam_size, print_spelling_trial)
    else:
        best = Trial(config, 1.0) if rescore_only else tune_search(task, config, beam_size, print_trial)
    if recurrent is not None:
        task = replace(task, recurrent=recurrent)
        best = tune_rescoring(task, best.config, print_rescoring)
    chosen, bins = calibrate(task, best.config)
    click.echo("\n".join(format_reliability(bins)))
    found = describe_spelling(chosen) if decoder is not None else describe_search(chosen)
    if recurrent is not None:
        found += f", {describe_rescoring(chosen)}"
    precision = recognizer.network.settings["compute_type"]
    click.echo(f"best: {found}: WER {100 * best.wer:.2f} % (log-probs in {precision})")
    if dry_run:
        return
    if lm is not None and language_model is not None:
        save_model(language_model, folder / LANGUAGE_MODEL_FILE)
    if rescore is not None and recurrent is not None:
        save_recurrent_model(recurrent, folder / RECURRENT_MODEL_FILE)
        renew_checksums(folder)
    write_text(file, to_toml(chosen, explained=True))
    click.echo(f"written: {file}", err=True)


def describe_search(config: SearchConfig) -> str:
    """Describe what ``tune_search`` chooses."""
    return (
        f"prior weight {config.prior_weight:g}, --lm-weight {config.lm_weight:g} "
        f"--word-bonus {config.word_bonus:g} --beam-size {config.beam_size}"
    )


def describe_spelling(config: SearchConfig) -> str:
    """Describe what ``tune_spelling`` chooses."""
    return (
        f"--ctc-weight {config.ctc_weight:g} --lm-weight {config.lm_weight:g} --word-bonus "
        f"{config.word_bonus:g} --beam-size {config.beam_size}, length bonus {config.length_bonus:g}, "
        f"coverage weight {config.coverage_weight:g}"
    )


def describe_rescoring(config: SearchConfig) -> str:
    """Describe the weights of rescoring."""
    return (
        f"rescoring {config.rescore_weight:g}, n-grams {config.rescore_lm_weight:g}, "
        f"word bonus {config.rescore_word_bonus:g}"
    )


def print_rescoring(trial: Trial) -> None:
    """Print weights of rescoring and their WER in a line."""
    click.echo(f"{describe_rescoring(trial.config)}: WER {100 * trial.wer:6.2f} %")


def print_trial(trial: Trial) -> None:
    """Print a setting and its WER in a line."""
    config, percent = trial.config, 100 * trial.wer
    click.echo(
        f"prior_weight {config.prior_weight:4.2f}  lm_weight {config.lm_weight:5.2f}  "
        f"word_bonus {config.word_bonus:5.2f}  beam_size {config.beam_size:3}  WER {percent:6.2f} %"
    )


def print_spelling_trial(trial: Trial) -> None:
    """Print a setting of a model with an attention decoder and its WER in a line."""
    click.echo(f"{describe_spelling(trial.config)}: WER {100 * trial.wer:6.2f} %")
