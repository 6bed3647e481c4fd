"""Which weights become the model: validation, the best so far, the average of the best few."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from asr.core.files import replace_file, write_text
from asr.model.folder import save_weights, write_tensors
from asr.recognition.model_files import CHECKSUMS_FILE, compute_checksum, write_checksums
from asr.text.tokenizer import save_tokenizer
from asr.training.evaluation import evaluate
from asr.training.judgement import Evaluation
from asr.training.monitoring import Journal
from asr.training.optimisation import average_weights
from asr.training.prediction import Forecast, Prediction, measure_forecast
from asr.training.run import Run, save_checkpoint

BEST = "best"
CHECKSUM = ".sha256"  # beside each file there


def validate(run: Run) -> Evaluation | Forecast:
    """Evaluate the present weights on the validation set."""
    if isinstance(run.objective, Prediction):
        return measure_forecast(run)
    seconds = run.experiment.training.batch_seconds
    return evaluate(
        run.recognizer,
        run.data.valid,
        run.data.read,
        seconds,
        run.valid_statistics,
        ranks=run.ranks,
        denominator=run.objective.denominator,
    )


def select_weights(run: Run, metrics: dict[str, Any]) -> bool:
    """Save the present weights as the run's model unless earlier ones did better in validation.

    Returns whether they were saved.
    """
    progress = run.progress
    present, measured = rank_metrics(metrics, run.experiment.training.choose_by)
    if run.experiment.training.average_best > 1:
        remember_best(run, present)
    if progress.best and measured and present >= progress.best:
        progress.stale_epochs += 1
        return False
    progress.best, progress.stale_epochs = present, 0
    if run.ranks.is_first:
        save_model(run)
    return True


def save_model(run: Run) -> None:
    """Write the present weights and the tokens into the run folder, which makes it a model folder."""
    # The checksums go first: a run that is killed here leaves a folder that opens.
    (run.folder / CHECKSUMS_FILE).unlink(missing_ok=True)
    save_tokenizer(run.tokenizer, run.folder)
    save_weights(run.model, run.folder)
    write_checksums(run.folder)


def rank_metrics(metrics: dict[str, Any], choose_by: str = "wer") -> tuple[list[float], bool]:
    """The WER, CER and loss that weights are compared by, and whether any of them was measured.

    A metric that could not be measured decides nothing; without any, the newest weights win. While at least
    as many words are wrong as there are, neither WER nor CER tells models apart, and the loss decides. By
    ``"cer"``, the WER decides nothing at all.

    The criterion of a run that minimises another than CTC's comes first. With CTC-CRF greedy search has no
    language model, and without one the errors of such a network say little about a search that has one.
    """
    wer = metrics.get("valid_wer") if choose_by == "wer" else None
    values = [wer, metrics.get("valid_cer"), metrics.get("valid_loss")]
    if values[0] is not None and values[0] >= 1:
        values[:2] = [1.0, 1.0]
    if "valid_criterion" in metrics:
        values.insert(0, metrics["valid_criterion"])
    ranking = [math.inf if value is None else float(value) for value in values]
    return ranking, any(value is not None for value in values)


def remember_best(run: Run, ranking: list[float]) -> None:
    """Keep the present weights while they are among the best few.

    A run that resumes from before this moment decides the same again, so it does not miss a file that was
    removed.
    """
    progress = run.progress
    ranked = sorted([*progress.best_steps, [*ranking, float(progress.step)]])
    progress.best_steps = ranked[: run.experiment.training.average_best]
    if not run.ranks.is_first:
        return
    kept = {best_file(run, entry) for entry in progress.best_steps}
    present = best_file(run, [float(progress.step)])
    if present in kept:
        with replace_file(present) as temporary:
            write_tensors(run.model.modules.state_dict(), temporary)
        write_text(present.with_suffix(CHECKSUM), compute_checksum(present))
    for file in present.parent.glob("*.safetensors"):
        if file not in kept:
            file.unlink()
            file.with_suffix(CHECKSUM).unlink(missing_ok=True)


def best_file(run: Run, entry: list[float]) -> Path:
    """The file with the weights of an entry of ``best_steps``."""
    return run.folder / BEST / f"step-{int(entry[-1]):08d}.safetensors"


def average_best(run: Run, journal: Journal) -> str:
    """Average the best few weights and keep the average as the model if it is at least as good.

    Returns a line of news about the result.
    """
    progress = run.progress
    run.ranks.wait()  # until the first process has written the last of them
    several = [weights for entry in progress.best_steps if (weights := read_best(best_file(run, entry)))]
    lost = len(progress.best_steps) - len(several)
    if not several:
        progress.averaged = True
        return f"no average: every file in {run.folder / BEST} is missing or damaged"
    own = {name: value.clone() for name, value in run.model.modules.state_dict().items()}
    run.model.modules.load_state_dict(average_weights(several))
    evaluation = validate(run)
    ranking, _ = rank_metrics(evaluation.metrics, run.experiment.training.choose_by)
    better = ranking <= progress.best
    if better:
        progress.best = ranking
        if run.ranks.is_first:
            save_model(run)
    run.model.modules.load_state_dict(own)
    progress.averaged = True
    journal.log({"step": progress.step, "averaged": len(several), **evaluation.metrics})
    save_checkpoint(run)
    verdict = "kept" if better else "not better, so not kept"
    left_out = f", {lost} damaged or missing and left out" if lost else ""
    return f"average of the best {len(several)}{left_out}: validation {evaluation.summary} ({verdict})"


def read_best(file: Path) -> dict[str, Tensor] | None:
    """The weights that ``remember_best`` wrote; ``None`` where they are gone or not what was written."""
    try:
        sums = file.with_suffix(CHECKSUM)  # runs of older versions have none
        is_whole = not sums.exists() or sums.read_text(encoding="utf-8") == compute_checksum(file)
        return load_file(file) if is_whole else None
    except (OSError, ValueError, SafetensorError):
        return None
