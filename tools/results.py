#!/usr/bin/env python3
"""Make the tables of results from the files that `asr evaluate --json` wrote.

    asr evaluate data/fsdd/test.jsonl --model digits --json > recipes/fsdd/results/blstm.test.json
    python tools/results.py            # writes the tables into the Markdown files that ask for them
    python tools/results.py --check    # exit status 1 when a table is not what the files say

A result's file is named `{system}.{set}.json`. A Markdown file asks for a table with a line
`<!-- results: fsdd -->`, or `<!-- results: fsdd blstm -->` for one system only; what stands from
there to `<!-- end of results -->` is replaced. Systems `{name}-without-{speaker}`, trained without the speaker
they are tested on, are also pooled into one row.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(
    r"(<!-- results: (?P<recipe>\S+)(?: (?P<system>\S+))? -->\n).*?(<!-- end of results -->)", re.S
)
HEADER = (
    "| system | test set | WER | substitutions, deletions, insertions | words | CER | SER "
    "| hours | times real time | hardware | commit |\n|" + " --- |" * 11 + "\n"
)


def results(recipe: str) -> dict[tuple[str, str], dict[str, Any]]:
    """All results of a recipe by system and set, pooled rows included."""
    found = {}
    for path in sorted((ROOT / "recipes" / recipe / "results").glob("*.json")):
        system, _, tested = path.stem.partition(".")
        found[system, tested] = json.loads(path.read_text(encoding="utf-8"))
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (system, tested), result in found.items():
        name, without, _ = system.partition("-without-")
        if without:
            groups.setdefault((f"{name}, speakers unheard", tested), []).append(result)
    return found | {key: pooled(group) for key, group in groups.items()}


def pooled(group: list[dict[str, Any]]) -> dict[str, Any]:
    """Several results as one, weighted by what each was measured on."""
    total: dict[str, Any] = {
        key: sum(result[key] for result in group)
        for key in ("substitutions", "deletions", "insertions", "words", "utterances", "hours")
    }
    total["wer"] = (total["substitutions"] + total["deletions"] + total["insertions"]) / total["words"]
    total["cer"] = sum(r["cer"] * r["characters"] for r in group) / sum(r["characters"] for r in group)
    total["ser"] = sum(r["ser"] * r["utterances"] for r in group) / total["utterances"]
    total["rtf"] = sum(r["rtf"] * r["hours"] for r in group) / total["hours"]
    for key in ("hardware", "commit"):
        values = {result[key] for result in group}
        total[key] = values.pop() if len(values) == 1 else None
    return total


def table(recipe: str, system: str | None = None) -> str:
    """The results of a recipe, or of one system, as a Markdown table."""
    rows = [
        row(name, tested, result)
        for (name, tested), result in sorted(results(recipe).items())
        if system is None or name.split(",")[0] == system
    ]
    return HEADER + "".join(rows)


def row(system: str, tested: str, result: dict[str, Any]) -> str:
    """One line of the table."""
    errors = f"{result['substitutions']}, {result['deletions']}, {result['insertions']}"
    cells = [
        system,
        tested,
        f"**{100 * result['wer']:.2f} %**",
        errors,
        f"{result['words']:,}",
        f"{100 * result['cer']:.2f} %",
        f"{100 * result['ser']:.2f} %",
        f"{result['hours']:.2f}",
        f"{1 / result['rtf']:.0f}",
        result["hardware"] or "various",
        f"`{result['commit'][:9]}`" if result["commit"] else "various",
    ]
    return "| " + " | ".join(cells) + " |\n"


def with_tables(text: str) -> str:
    """A Markdown text with every table that it asks for made anew."""
    return PLACE.sub(lambda place: place[1] + table(place["recipe"], place["system"]) + place[4], text)


def main() -> None:
    """Write or check the tables of every Markdown file at the top and beside the recipes."""
    stale = []
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("recipes/**/*.md"), *ROOT.glob("docs/*.md")]):
        text = path.read_text(encoding="utf-8")
        new = with_tables(text)
        if new == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if "--check" not in sys.argv:
            path.write_text(new, encoding="utf-8")
    if "--check" in sys.argv and stale:
        sys.exit(f"tables that are not what the results say: {', '.join(stale)}; run tools/results.py")


if __name__ == "__main__":
    main()
