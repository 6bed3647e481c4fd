"""Choosing how to search: weights tried on log-probs that are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from asr.lm.model import NgramModel
from asr.model.engine import unwrap_model
from asr.model.features import unpad
from asr.recognition.recognizer import Recognizer
from asr.scoring.counts import Comparison, compare_texts, index_by_id
from asr.search import SearchConfig
from asr.search.beam_search import make_beam_search
from asr.search.confidence import ConfidenceBin, bin_by_confidence, fit_calibration
from asr.search.priors import measure_log_priors
from asr.text.tokenizer import NORMALISERS
from asr.training.batching import Example, Reader, load_batch, measure_speakers, plan_by_duration
from asr.training.evaluation import batch_statistics, judge_words
from asr.transcript.values import Hypothesis


@dataclass(frozen=True)
class Point:
    """What one setting of the search achieves."""

    config: SearchConfig
    wer: float  # a share


@dataclass(frozen=True)
class Heard:
    """A set of utterances as the model hears them, and what was said."""

    log_probs: Mapping[str, np.ndarray]  # (frames, vocabulary) by utterance id
    references: Mapping[str, str]  # normalised
    frame_seconds: float


def heard(
    recognizer: Recognizer,
    examples: Sequence[Example],
    read: Reader,
    batch_seconds: float = 60.0,
    progress: Callable[[int], object] = lambda utterances: None,
) -> Heard:
    """Run the model over every example once."""
    model = unwrap_model(recognizer)
    asked = model.config.features.normalisation == "speaker"
    statistics = measure_speakers(model.features, examples, read, batch_seconds) if asked else {}
    log_probs: dict[str, np.ndarray] = {}
    for indices in plan_by_duration([example.duration for example in examples], batch_seconds):
        batch = load_batch([examples[i] for i in indices], read)
        known = batch_statistics(statistics, batch, model.device)
        arrays = unpad(*model.log_probs(batch.samples, batch.sample_lengths, known))
        for name, array in zip(batch.ids, arrays, strict=True):
            log_probs[name] = array.copy()
        progress(len(batch.ids))
    normalise = NORMALISERS[recognizer.text.normaliser]
    references = index_by_id(
        (example.utterance.id, normalise(example.utterance.text)) for example in examples
    )
    return Heard(log_probs, references, recognizer.frame_seconds)


def decoded(
    recognizer: Recognizer, speech: Heard, config: SearchConfig, model: NgramModel | None
) -> dict[str, Hypothesis]:
    """The best hypothesis of every utterance under ``config``."""
    decoder = make_beam_search(config, recognizer.tokenizer, model)
    found = decoder.search_batch(list(speech.log_probs.values()), speech.frame_seconds)
    return dict(zip(speech.log_probs, found, strict=True))


def compared(speech: Heard, hypotheses: Mapping[str, Hypothesis]) -> Comparison:
    """The errors of hypotheses."""
    return compare_texts(speech.references, {name: h.text for name, h in hypotheses.items()})


def prior_weights(
    recognizer: Recognizer,
    speech: Heard,
    config: SearchConfig,
    model: NgramModel | None,
    weights: Sequence[float],
    lm_weights: Sequence[float],
    word_bonuses: Sequence[float],
) -> Iterator[Point]:
    """The WER for weights of the tokens' priors, which are measured on ``speech``; 0 is always tried.

    Each with all of ``lm_weights`` and ``word_bonuses``, as for ``surface``.
    """
    measured = replace(config, log_priors=measure_log_priors(speech.log_probs.values()))
    plain = replace(config, prior_weight=0.0, log_priors=())
    for point in [plain, *(replace(measured, prior_weight=weight) for weight in weights)]:
        yield from surface(recognizer, speech, point, model, lm_weights, word_bonuses)


def surface(
    recognizer: Recognizer,
    speech: Heard,
    config: SearchConfig,
    model: NgramModel | None,
    lm_weights: Sequence[float],
    word_bonuses: Sequence[float],
) -> Iterator[Point]:
    """The WER for every pair of a weight and a bonus; without a language model the weights do not matter."""
    for lm_weight in lm_weights if model is not None else lm_weights[:1]:
        for word_bonus in word_bonuses:
            point = replace(config, lm_weight=lm_weight, word_bonus=word_bonus)
            words = compared(speech, decoded(recognizer, speech, point, model)).words
            yield Point(point, words.error_rate)


def beams(
    recognizer: Recognizer,
    speech: Heard,
    config: SearchConfig,
    model: NgramModel | None,
    sizes: Sequence[int],
) -> Iterator[Point]:
    """The WER for beams of other ``sizes``."""
    for size in sizes:
        point = replace(config, beam_size=size)
        yield Point(point, compared(speech, decoded(recognizer, speech, point, model)).words.error_rate)


def with_calibration(
    recognizer: Recognizer, speech: Heard, config: SearchConfig, model: NgramModel | None
) -> tuple[SearchConfig, list[ConfidenceBin]]:
    """``config`` with confidences fitted to how often words are right, and the table that shows it."""
    plain = replace(config, confidence_slope=1.0, confidence_offset=0.0)
    slope, offset = fit_calibration(*judged(recognizer, speech, plain, model))
    fitting = replace(config, confidence_slope=round(slope, 4), confidence_offset=round(offset, 4))
    return fitting, bin_by_confidence(*judged(recognizer, speech, fitting, model))


def judged(
    recognizer: Recognizer, speech: Heard, config: SearchConfig, model: NgramModel | None
) -> tuple[list[float], list[bool]]:
    """The confidence of every word found under ``config``, and whether it is right."""
    hypotheses = decoded(recognizer, speech, config, model)
    return judge_words(compared(speech, hypotheses), hypotheses)
