"""Comparisons as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from asr.scoring.counts import Comparison
from asr.scoring.significance import Difference, Interval
from asr.scoring.systems import System, find_changes


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """The rates, as shares and in per cent, and the counts behind them."""
    rates = comparison.rates
    return {
        **rates,
        **{f"{name}_percent": None if rate is None else round(100 * rate, 4) for name, rate in rates.items()},
        "word_counts": asdict(comparison.words),
        "character_counts": asdict(comparison.characters),
        "missing": list(comparison.missing),
    }


def system_to_json(
    system: System, breakdowns: Mapping[str, Mapping[str, str]], texts: bool
) -> dict[str, Any]:
    """All figures of one system: the normalised scores, the raw ones, the groups and, if asked, texts."""
    return {
        "hypothesis": system.name,
        **comparison_to_json(system.comparison),
        "raw": comparison_to_json(system.raw),
        "by": {
            key: {group: asdict(score) for group, score in system.comparison.count_by_group(of).items()}
            for key, of in breakdowns.items()
        },
        **({"normalised": find_changes(system)} if texts else {}),
    }


def intervals_to_json(ends: Mapping[str, Interval | None]) -> dict[str, Any]:
    """Intervals by name; ``None`` for those that cannot be computed."""
    return {name: None if interval is None else asdict(interval) for name, interval in ends.items()}


def difference_to_json(difference: Difference) -> dict[str, Any]:
    """The difference of two systems, with the verdict."""
    verdict = {"means_something": difference.is_significant, "in_words": difference.verdict}
    result = {**asdict(difference), **verdict}
    if math.isinf(difference.words.z):  # JSON has no infinity
        result["words"]["z"] = None
    return result
