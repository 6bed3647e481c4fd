"""Samples at another rate, by soxr in high quality.

soxr is imported where it is used: training from cached samples must run on machines without it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """``(samples,)`` at ``rate`` hertz as float32 ``(samples',)`` at ``new_rate`` hertz."""
    import soxr

    return soxr.resample(samples, rate, new_rate, quality="HQ")


def make_resampler(rate: int, new_rate: int) -> Callable[..., np.ndarray]:
    """A function like ``resample`` for samples that come in blocks, the last one with ``last=True``."""
    if rate == new_rate:
        return lambda samples, last: samples
    import soxr

    return soxr.ResampleStream(rate, new_rate, 1, dtype="float32", quality="HQ").resample_chunk
