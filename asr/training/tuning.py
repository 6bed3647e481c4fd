"""Tuning the search: weights and beams are tried on log-probs that are computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from asr.lm.model import NgramModel
from asr.lm.recurrent import RecurrentModel
from asr.recognition.network import SpellingNetwork
from asr.recognition.onnx_network import OnnxNetwork
from asr.recognition.recognizer import Recognizer
from asr.scoring.counts import Comparison, compare_texts, index_by_id
from asr.search import SearchConfig
from asr.search.beam_search import BeamSearch, make_beam_search
from asr.search.confidence import ConfidenceBin, bin_by_confidence, fit_calibration
from asr.search.config import HIGHEST
from asr.search.priors import measure_log_priors
from asr.search.rescoring import WordScores
from asr.search.spelling_search import SpellingSearch
from asr.search.threads import search_on_threads
from asr.text.tokenizer import NORMALISERS, Tokenizer
from asr.training.examples import Example, Reader
from asr.training.judgement import compute_groups, judge_words
from asr.transcript.values import Hypothesis

PRIOR_WEIGHTS = (0.3, 0.6, 0.9)
LM_WEIGHTS = (0.3, 0.6, 0.9, 1.2, 1.6)
WORD_BONUSES = (-1.0, 0.0, 1.0, 2.0, 3.0)
BONUSES_WITHOUT_LM = (-8.0, -6.0, -4.0, -2.0, 0.0)  # a word must cost something, or short ones are everywhere
WEIGHT_STEP, BONUS_STEP = 0.15, 0.5  # from the best point of the grid to its neighbours
BEAM, OTHER_BEAMS = 64, (8, 16, 32, 128, 256, 512)  # weights are tuned with the first, then others are tried
# Of a model with an attention decoder:
CTC_WEIGHTS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9)
LENGTH_BONUSES = (-1.0, 0.5, 1.0, 2.0)
COVERAGE_WEIGHTS = (0.05, 0.2)
SPELLING_BEAM, OTHER_SPELLING_BEAMS = 8, (1, 2, 4, 16)


@dataclass(frozen=True)
class Trial:
    """The result of one setting of the search."""

    config: SearchConfig
    wer: float  # a share


@dataclass(frozen=True)
class LogProbs:
    """A model's log-probs of a set of utterances, and their references."""

    by_id: Mapping[str, np.ndarray]  # (frames, vocabulary), behind them the states that a decoder looks at
    references: Mapping[str, str]  # normalised
    frame_seconds: float


@dataclass(frozen=True)
class Task:
    """What every trial needs besides the setting of the search."""

    log_probs: LogProbs
    tokenizer: Tokenizer
    language_model: NgramModel | None
    recurrent: RecurrentModel | None = None
    decoder: SpellingNetwork | None = None  # of a model that spells with attention


def compute_log_probs(
    recognizer: Recognizer,
    examples: Sequence[Example],
    read: Reader,
    batch_seconds: float = 60.0,
    progress: Callable[[int], object] = lambda utterances: None,
) -> LogProbs:
    """Run the model over every example once.

    ``progress`` is called with the number of utterances done since the last call.
    """
    by_id: dict[str, np.ndarray] = {}
    for arrays in iterate_log_probs(recognizer, examples, read, batch_seconds):
        by_id |= arrays
        progress(len(arrays))
    normalise = NORMALISERS[recognizer.text.normaliser]
    references = index_by_id(
        (example.utterance.id, normalise(example.utterance.text)) for example in examples
    )
    return LogProbs(by_id, references, recognizer.frame_seconds)


def iterate_log_probs(
    recognizer: Recognizer, examples: Sequence[Example], read: Reader, batch_seconds: float
) -> Iterator[dict[str, np.ndarray]]:
    """Compute the log-probs of every example by its id, batch by batch, with speakers normalised by torch."""
    if isinstance(recognizer.network, OnnxNetwork):
        for group, _, log_probs, _ in compute_groups(recognizer, examples, read, batch_seconds):
            yield {example.utterance.id: rows.copy() for example, rows in zip(group, log_probs, strict=True)}
    else:
        from asr.training.evaluation import compute_arrays  # imports torch

        yield from compute_arrays(recognizer, examples, read, batch_seconds)


# --- the strategy ---------------------------------------------------------------------------------


def tune_search(
    task: Task, config: SearchConfig, beam_size: int | None, report: Callable[[Trial], object]
) -> Trial:
    """Find the setting with the lowest WER, starting from ``config``.

    First weights of the tokens' priors are tried, then a grid of language-model weights and word bonuses,
    then the neighbours of its best point, then beams of several sizes unless ``beam_size`` is given.
    ``report`` is called with every trial. Of equal beams the smallest wins.
    """

    def run_all(trials: Iterable[Trial]) -> Iterator[Trial]:
        for trial in trials:
            report(trial)
            yield trial

    config = replace(config, beam_size=beam_size or BEAM)
    few: Sequence[float] = (config.word_bonus,)
    bonuses: Sequence[float] = WORD_BONUSES
    if task.language_model is None:
        few = bonuses = BONUSES_WITHOUT_LM
    priors = try_prior_weights(task, config, PRIOR_WEIGHTS, LM_WEIGHTS[1:3], few)
    config = min(run_all(priors), key=lambda trial: trial.wer).config
    grid = try_weights(task, config, LM_WEIGHTS, bonuses)
    best = min(run_all(grid), key=lambda trial: trial.wer)
    weights = [best.config.lm_weight + step for step in (-WEIGHT_STEP, 0.0, WEIGHT_STEP)]
    bonuses = [best.config.word_bonus + step for step in (-BONUS_STEP, 0.0, BONUS_STEP)]
    neighbours = try_weights(task, config, weights, bonuses)
    best = min([best, *run_all(neighbours)], key=lambda trial: trial.wer)
    if beam_size is None:
        others = try_beams(task, best.config, OTHER_BEAMS)
        best = min([best, *run_all(others)], key=lambda trial: (trial.wer, trial.config.beam_size))
    return best


def try_prior_weights(
    task: Task,
    config: SearchConfig,
    weights: Sequence[float],
    lm_weights: Sequence[float],
    word_bonuses: Sequence[float],
) -> Iterator[Trial]:
    """Try weights of the tokens' priors, which are measured on the log-probs; 0 is always tried.

    Each with all of ``lm_weights`` and ``word_bonuses``, as ``try_weights``.
    """
    measured = replace(config, log_priors=measure_log_priors(task.log_probs.by_id.values()))
    plain = replace(config, prior_weight=0.0, log_priors=())
    for setting in [plain, *(replace(measured, prior_weight=weight) for weight in weights)]:
        yield from try_weights(task, setting, lm_weights, word_bonuses)


def try_weights(
    task: Task, config: SearchConfig, lm_weights: Sequence[float], word_bonuses: Sequence[float]
) -> Iterator[Trial]:
    """Try every pair of a weight and a bonus; without a language model only the first weight."""
    for lm_weight in lm_weights if task.language_model is not None else lm_weights[:1]:
        for word_bonus in word_bonuses:
            yield try_setting(task, replace(config, lm_weight=lm_weight, word_bonus=word_bonus))


def try_beams(task: Task, config: SearchConfig, sizes: Sequence[int]) -> Iterator[Trial]:
    """Try beams of several ``sizes``."""
    for size in sizes:
        yield try_setting(task, replace(config, beam_size=size))


def try_setting(task: Task, config: SearchConfig) -> Trial:
    """Search with ``config`` and measure the WER."""
    return Trial(config, compare_hypotheses(task, search_all(task, config)).words.error_rate)


def search_all(task: Task, config: SearchConfig) -> dict[str, Hypothesis]:
    """The best hypothesis of every utterance under ``config``."""
    rows = list(task.log_probs.by_id.values())
    search: BeamSearch
    if task.decoder is not None and config.ctc_weight < 1:
        search = SpellingSearch(
            config, task.tokenizer, task.decoder.start_spelling, task.decoder.knows_ctc, task.language_model
        )
    else:
        search = make_beam_search(config, task.tokenizer, task.language_model, recurrent=task.recurrent)
        rows = [row[:, : len(task.tokenizer)] for row in rows]
    hypotheses = search.search_batch(rows, task.log_probs.frame_seconds)
    return dict(zip(task.log_probs.by_id, hypotheses, strict=True))


def compare_hypotheses(task: Task, hypotheses: Mapping[str, Hypothesis]) -> Comparison:
    """Compare hypotheses with the references."""
    return compare_texts(task.log_probs.references, {name: h.text for name, h in hypotheses.items()})


# --- models with an attention decoder -----------------------------------------------------------------


def tune_spelling(
    task: Task, config: SearchConfig, beam_size: int | None, report: Callable[[Trial], object]
) -> Trial:
    """Find the setting with the lowest WER for a model that spells with attention.

    First CTC's share is tried, 1 (CTC alone) included, where the model learned CTC; with a language model
    then its weights and word bonuses. Bonuses for length and coverage follow, and beams of several sizes
    unless ``beam_size`` is given. ``report`` is called with every trial. Of equal ones the first wins, of
    equal beams the smallest.
    """
    assert task.decoder is not None
    best = Trial(config, math.inf)

    def try_all(key: str, values: Iterable[float]) -> None:
        nonlocal best
        start = best.config
        for value in values:
            changes: dict[str, Any] = {key: value}
            trial = try_setting(task, replace(start, **changes))
            report(trial)
            best = min(best, trial, key=lambda one: one.wer)

    best = replace(best, config=replace(config, beam_size=beam_size or SPELLING_BEAM))
    shares = (*CTC_WEIGHTS, 1.0) if task.decoder.knows_ctc else (0.0,)
    try_all("ctc_weight", shares)
    if task.language_model is not None:
        try_all("lm_weight", LM_WEIGHTS)
        try_all("word_bonus", WORD_BONUSES)
    if best.config.ctc_weight == 1:
        return best
    try_all("length_bonus", LENGTH_BONUSES)
    try_all("coverage_weight", COVERAGE_WEIGHTS)
    if beam_size is None:
        others = [try_setting(task, replace(best.config, beam_size=size)) for size in OTHER_SPELLING_BEAMS]
        for trial in others:
            report(trial)
        best = min([best, *others], key=lambda trial: (trial.wer, trial.config.beam_size))
    return best


# --- rescoring ------------------------------------------------------------------------------------

RESCORE_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
RESCORE_LM_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2)
RESCORE_BONUSES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)


def tune_rescoring(task: Task, config: SearchConfig, report: Callable[[Trial], object]) -> Trial:
    """Find the weights of rescoring with the lowest WER; the rest of ``config`` stays.

    The lists of hypotheses are made once; then every weight on a grid ranks them anew. ``report`` is called
    with the best of each weight of the recurrent model.
    """
    lists = list_hypotheses(task, config)
    total = sum(len(text.split()) for text in task.log_probs.references.values())
    best: Trial | None = None
    for weight in RESCORE_WEIGHTS:
        trials = [
            Trial(tried, count_errors(lists, tried) / total)
            for lm_weight in (RESCORE_LM_WEIGHTS if task.language_model is not None else (0.0,))
            for bonus in RESCORE_BONUSES
            for tried in [
                replace(
                    config,
                    rescore_weight=weight,
                    rescore_lm_weight=lm_weight,
                    rescore_word_bonus=config.word_bonus + bonus,
                )
            ]
        ]
        lowest = min(trials, key=lambda trial: trial.wer)
        report(lowest)
        if best is None or lowest.wer < best.wer:
            best = lowest
    assert best is not None
    return best


def list_hypotheses(task: Task, config: SearchConfig) -> list[tuple[WordScores, np.ndarray]]:
    """List the hypotheses of every utterance: their scores, and the wrong words of each."""
    decoder = make_beam_search(config, task.tokenizer, task.language_model, recurrent=task.recurrent)
    by_id = task.log_probs.by_id  # in another order than the references
    found = search_on_threads(decoder.score_best, list(by_id.values()))
    references = [task.log_probs.references[name] for name in by_id]
    return [
        (scores, np.array([Levenshtein.distance(reference.split(), words) for words in texts]))
        for (texts, scores), reference in zip(found, references, strict=True)
    ]


def count_errors(lists: Sequence[tuple[WordScores, np.ndarray]], config: SearchConfig) -> int:
    """Count the wrong words of the hypotheses that ``config`` ranks first."""
    return sum(int(errors[scores.combine(config).argmax()]) for scores, errors in lists)


# --- confidences ----------------------------------------------------------------------------------


def calibrate(task: Task, config: SearchConfig) -> tuple[SearchConfig, list[ConfidenceBin]]:
    """Fit confidences to how often words are right; returns the new config and the table that shows it."""
    plain = replace(config, confidence_slope=1.0, confidence_offset=0.0)
    slope, offset = np.clip(fit_calibration(*judge_search(task, plain)), -HIGHEST, HIGHEST).tolist()
    fitted = replace(config, confidence_slope=round(slope, 4), confidence_offset=round(offset, 4))
    return fitted, bin_by_confidence(*judge_search(task, fitted))


def judge_search(task: Task, config: SearchConfig) -> tuple[list[float], list[bool]]:
    """The confidence of every word found under ``config``, and whether it is right."""
    hypotheses = search_all(task, config)
    return judge_words(compare_hypotheses(task, hypotheses), hypotheses)
