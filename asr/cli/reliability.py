"""How far confidences are to be trusted, as a table on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asr.search.confidence import ConfidenceBin


def reliability_table(bins: list[ConfidenceBin]) -> list[str]:
    """Whether the words marked 0.8 are right in 80 %."""
    from asr.search.confidence import measure_calibration_error

    rows = [f"{row.confidence:12.2f} {row.right:9.2f} {row.words:8}" for row in bins]
    error = f"mean distance between confidence and share right: {measure_calibration_error(bins):.3f}"
    return [f"{'confidence':>12} {'right':>9} {'words':>8}", *rows, error]
