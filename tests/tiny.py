"""Small experiments and language models, for tests that need one and care little which."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr.lm.estimation import FALLBACK, EstimationConfig, estimate
from asr.lm.model import NgramModel
from tests.synthetic import RATE

if TYPE_CHECKING:
    from asr.training.experiment import Experiment


def tiny_experiment(
    data: Path,
    features: Mapping[str, Any] = {},
    encoder: Mapping[str, Any] = {},
    augment: Mapping[str, Any] = {},
    **training: Any,
) -> Experiment:
    """Two epochs of a network that learns tones in seconds, from the manifests in the folder ``data``.

    The other arguments are options of the tables of that name, beyond or instead of the tiny ones.
    """
    from asr.model.encoders import EncoderConfig
    from asr.model.features import FeatureConfig
    from asr.training.augment import AugmentConfig
    from asr.training.experiment import DataConfig, Experiment, TrainingConfig

    small = {"layers": 1, "size": 16, "front_end": "conv2", "channels": 4}
    return Experiment(
        features=FeatureConfig(**{"sample_rate": RATE, "n_mels": 20, **features}),
        encoder=EncoderConfig(**small | dict(encoder)),
        data=DataConfig(folder=str(data)),
        augment=AugmentConfig(**augment),
        training=TrainingConfig(**{"epochs": 2, **training}),
    )


def estimate_bigrams(*sentences: str) -> NgramModel:
    """A bigram model of a few sentences."""
    blocks = ["".join(f"{sentence}\n" for sentence in sentences).encode()]
    return estimate(blocks, EstimationConfig(order=2, discount_fallback=FALLBACK))
