#!/usr/bin/env python3
"""Draw the course of a training run: loss and error rates over the epochs.

    python tools/curve.py exp/mini_librispeech -o recipes/mini_librispeech/results/blstm

writes ``blstm.curve.jsonl`` (the epochs' lines of ``metrics.jsonl``) and ``blstm.curve.png``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from asr.core.files import replace_file, write_text
from asr.errors import UserError
from asr.training.monitoring import read_records


def read_epochs(run: Path) -> list[dict[str, Any]]:
    """Read the last record of each epoch; an epoch that was repeated after a kill has two."""
    found = {record["epoch"]: record for record in read_records(run) if "train_loss" in record}
    if not found:
        raise UserError(f"{run}: has no complete epoch yet")
    return [found[epoch] for epoch in sorted(found)]


def draw(ends: list[dict[str, Any]], path: Path) -> None:
    """Draw losses in nats per utterance on the left, error rates in per cent on the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for axes, keys, factor in (
        (left, {"train_loss": "training", "valid_loss": "validation"}, 1),
        (right, {"valid_wer": "WER, validation", "valid_cer": "CER, validation"}, 100),
    ):
        for key, label in keys.items():
            points = [(r["epoch"], factor * r[key]) for r in ends if r.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=label)
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    left.set_ylabel("nats per utterance")
    right.set_ylabel("%")
    right.set_ylim(top=100)
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="where to, without an ending")
    options = parser.parse_args()
    try:
        ends = read_epochs(options.run)
    except UserError as error:
        sys.exit(f"curve: {error}")
    lines = "".join(json.dumps(record) + "\n" for record in ends)
    write_text(options.out.with_name(options.out.name + ".curve.jsonl"), lines)
    draw(ends, options.out.with_name(options.out.name + ".curve.png"))


if __name__ == "__main__":
    main()
