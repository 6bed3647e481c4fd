"""The errors of a model on a set of examples, and how they are counted without torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from asr.longform.pipeline import open_threads, run_ahead
from asr.recognition.onnx_network import OnnxNetwork
from asr.recognition.recognizer import Recognizer
from asr.scoring.counts import Comparison, compare_texts, index_by_id
from asr.search.confidence import ConfidenceBin, bin_by_confidence
from asr.text.tokenizer import NORMALISERS
from asr.training.examples import Example, Reader, plan_by_duration
from asr.transcript.values import Hypothesis


@dataclass(frozen=True)
class Evaluation:
    """The results of a model on a set of examples."""

    hypotheses: dict[str, Hypothesis]
    comparison: Comparison
    loss: float | None  # nats per utterance, over those that CTC can align
    audio_seconds: float
    compute_seconds: float  # from samples in memory to hypotheses, decoding of files excluded
    criterion: float | None = None  # like ``loss``, of CTC-CRF; ``None``: training does not minimise it

    @property
    def rtf(self) -> float:
        """The real-time factor: computing time per time of audio."""
        return self.compute_seconds / max(self.audio_seconds, 1e-9)

    @property
    def metrics(self) -> dict[str, float | None]:
        """Validation losses, and WER and CER as shares, for logs."""
        rates = self.comparison.rates
        metrics = {"valid_loss": self.loss, "valid_wer": rates["wer"], "valid_cer": rates["cer"]}
        return metrics if self.criterion is None else metrics | {"valid_criterion": self.criterion}

    @property
    def reliability(self) -> list[ConfidenceBin]:
        """Words grouped by confidence, and the share of right ones in each group."""
        return bin_by_confidence(*judge_words(self.comparison, self.hypotheses))

    @property
    def summary(self) -> str:
        """The metrics that could be measured, for people."""
        rates = self.comparison.rates
        parts = [f"{name.upper()} {100 * rate:.2f} %" for name, rate in rates.items() if rate is not None]
        losses = {"loss": self.loss, "CTC-CRF": self.criterion}
        measured = [f"{name} {value:.4f}" for name, value in losses.items() if value is not None]
        return ", ".join([*measured, *parts])


def judge_words(
    comparison: Comparison, hypotheses: Mapping[str, Hypothesis]
) -> tuple[list[float], list[bool]]:
    """The confidence of every word of the hypotheses, and whether the alignment says it is right."""
    confidences: list[float] = []
    right: list[bool] = []
    for name, hypothesis in hypotheses.items():
        confidences += [word.confidence for word in hypothesis.words]
        right += [step.kind == "equal" for step in comparison.align(name) if step.hypothesis]
    return confidences, right


def judge(
    recognizer: Recognizer,
    examples: Sequence[Example],
    read: Reader,
    batch_seconds: float = 60.0,
    progress: Callable[[int], object] = lambda utterances: None,
) -> Evaluation:
    """Transcribe every example and score it against its normalised text, or against its phones.

    Batches go to the recogniser's threads. ``progress`` is called with the number of utterances done since
    the last call. No loss is measured.
    """
    hypotheses: dict[str, Hypothesis] = {}
    seconds = audio_seconds = 0.0
    for group, samples, log_probs, taken in compute_groups(recognizer, examples, read, batch_seconds):
        started = time.monotonic()
        found = recognizer.search(log_probs)
        seconds += taken + time.monotonic() - started
        audio_seconds += samples / recognizer.sample_rate
        hypotheses |= {example.utterance.id: one for example, one in zip(group, found, strict=True)}
        progress(len(group))
    return Evaluation(
        hypotheses, compare_hypotheses(recognizer, examples, hypotheses), None, audio_seconds, seconds
    )


def compute_groups(
    recognizer: Recognizer, examples: Sequence[Example], read: Reader, batch_seconds: float
) -> Iterator[tuple[list[Example], int, list[np.ndarray], float]]:
    """Compute log-probs in batches, a batch on each thread of the recogniser.

    Yields examples, the number of their samples, the log-probs of each, and the seconds that these took.
    The samples of the next ones are read meanwhile.
    """
    plan = plan_by_duration([example.duration for example in examples], batch_seconds)
    groups = [plan[first : first + recognizer.threads] for first in range(0, len(plan), recognizer.threads)]

    def compute(batch: list[np.ndarray]) -> list[np.ndarray]:
        return next(recognizer.log_probs([batch]))

    with open_threads(1) as reading, open_threads(recognizer.threads) as computing:
        read_groups = run_ahead(
            groups,
            lambda group: [
                reading.submit(lambda batch: [read(examples[i].utterance) for i in batch], batch)
                for batch in group
            ],
        )
        for jobs in read_groups:
            batches = list(jobs.results())
            started = time.monotonic()
            log_probs = [rows for batch in computing.map(compute, batches) for rows in batch]
            taken = time.monotonic() - started
            samples = sum(len(array) for batch in batches for array in batch)
            yield [examples[i] for batch in jobs.item for i in batch], samples, log_probs, taken


def compare_hypotheses(
    recognizer: Recognizer, examples: Sequence[Example], hypotheses: Mapping[str, Hypothesis]
) -> Comparison:
    """Compare hypotheses with the texts of examples, in the unit of the recogniser."""
    normalise = NORMALISERS[recognizer.text.normaliser]
    return compare_texts(
        index_by_id((e.utterance.id, recognizer.to_reference(normalise(e.utterance.text))) for e in examples),
        {name: hypothesis.text for name, hypothesis in hypotheses.items()},
    )


def choose_judge(recognizer: Recognizer) -> Callable[..., Evaluation]:
    """Choose what evaluates the recogniser: with torch's network, speakers are normalised, too."""
    if isinstance(recognizer.network, OnnxNetwork):
        return judge
    from asr.training.evaluation import evaluate as evaluate_tensors

    return evaluate_tensors
