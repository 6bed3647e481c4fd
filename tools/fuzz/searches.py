"""Search options of any size, in files and in Python, with log-probs of any kind."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np

from asr.core.config import Bounds, from_table, read_toml, to_toml
from asr.lm.arpa import read_arpa
from asr.search.beam_search import make_beam_search
from asr.search.config import SearchConfig
from tools.fuzz.changes import change_text
from tools.fuzz.language_models import ARPA, LETTERS, PHONES
from tools.fuzz.runner import RunCase

PHRASES = ((), ("a b",), ("a " * 60, "b"), ("ab",))
PROBABILITIES = (1.0, 0.5, 1e-3, 1e-20, 0.0)


def fuzz_searches(folder: Path) -> RunCase:
    """A ``search.toml`` and a search with what it says."""
    (folder / "model.arpa").write_text(ARPA)
    model = read_arpa(folder / "model.arpa")

    def run_case(draw: random.Random, place: Path) -> str:
        path = place / "search.toml"
        if draw.randrange(2):
            path.write_bytes(change_text(to_toml(SearchConfig()), "beam_size = 3\n", draw))
        else:
            path.write_text(draw_options(draw))
        config = from_table(SearchConfig, read_toml(path))
        tokenizer = draw.choice((LETTERS, PHONES))
        search = make_beam_search(config, tokenizer, draw.choice((None, model)), draw.choice(PHRASES))
        rows = [
            [draw.choice(PROBABILITIES) for _ in range(len(tokenizer))] for _ in range(draw.randrange(20))
        ]
        with np.errstate(divide="ignore"):
            log_probs = np.log(np.array(rows, np.float32).reshape(-1, len(tokenizer)))
        for hypothesis in search.find_hypotheses(log_probs, 0.04, draw.choice((1, 3))):
            if np.isnan(hypothesis.score) or not all(0 <= word.confidence <= 1 for word in hypothesis.words):
                raise ValueError(f"a score or a confidence that is none: {hypothesis}")
        return "searched"

    return run_case


def draw_options(draw: random.Random) -> str:
    """A ``search.toml``: most numbers at the bounds of their options or between them, a few of any size."""
    lines = []
    for field in dataclasses.fields(SearchConfig):
        if draw.randrange(2) or field.name == "prior_weight":
            continue
        if isinstance(field.default, bool):
            value = draw.choice(("true", "false"))
        elif isinstance(field.default, int):
            value = str(
                draw.choice((1, 2, 5, 300)) if draw.randrange(20) else draw.choice((10_000, 1 << 40, 0))
            )
        elif isinstance(field.default, float):
            value = repr(draw_float(field, draw))
        else:
            value = repr([draw_float(field, draw) for _ in range(draw.choice((3, 4, 1)))])
            lines.append(f"prior_weight = {draw.choice((0.0, 0.5, 100.0))}")
        lines.append(f"{field.name} = {value}")
    return "".join(line + "\n" for line in lines)


def draw_float(field: dataclasses.Field[object], draw: random.Random) -> float:
    """A finite number for an option: one that it allows, or one time in thirty any other."""
    sizes = (0.0, 5e-324, 1e-30, 0.5, 1.0, 12.0, 99.9, 100.0, 1000.0, 1e10, 1e308)
    every = [sign * size for size in sizes for sign in (1, -1)]
    bounds = field.metadata.get("bounds", Bounds())
    allowed = [number for number in every if bounds.allow(number)]
    return draw.choice(allowed if draw.randrange(30) else every)
