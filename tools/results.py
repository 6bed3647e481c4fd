#!/usr/bin/env python3
"""Make the tables of results from the files that `asr evaluate --json` wrote.

    asr evaluate data/fsdd/test.jsonl --model digits --json > recipes/fsdd/results/blstm.test.json
    python tools/results.py            # writes the tables into the Markdown files that ask for them
    python tools/results.py --check    # exit status 1 when a table is not what the files say

A result's file is named `{system}.{set}.json`. A Markdown file asks for a table with a line
`<!-- results: fsdd -->`, or `<!-- results: fsdd blstm -->` for one system only; what stands from
there to `<!-- end of results -->` is replaced. Systems `{name}-without-{speaker}`, trained without
the speaker they are tested on, are also pooled into one row.
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
    "| system | test set | WER | 95 % interval | substitutions, deletions, insertions | words | CER | SER "
    "| hours | times real time | hardware | commit |\n|" + " --- |" * 12 + "\n"
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
    """Several results as one: counts added up, rates made of them anew."""
    total: dict[str, Any] = {
        counts: {key: sum(result[counts][key] for result in group) for key in group[0][counts]}
        for counts in ("word_counts", "character_counts")
    }
    hours = sum(result["hours"] for result in group)
    total |= {"hours": hours, "rtf": sum(result["rtf"] * result["hours"] for result in group) / hours}
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
    words, characters = result["word_counts"], result["character_counts"]
    cells = [
        system,
        tested,
        f"**{100 * error_rate(words):.2f} %**",
        interval(result),
        f"{words['substitutions']}, {words['deletions']}, {words['insertions']}",
        f"{words['reference_length']:,}",
        f"{100 * error_rate(characters):.2f} %",
        f"{100 * words['wrong_utterances'] / words['utterances']:.2f} %",
        f"{result['hours']:.2f}",
        f"{1 / result['rtf']:.0f}",
        result["hardware"] or "various",
        f"`{result['commit'][:9]}`" if result["commit"] else "various",
    ]
    return "| " + " | ".join(cells) + " |\n"


def interval(result: dict[str, Any]) -> str:
    """Where the WER would be with other speakers or, where these are not known, with other utterances."""
    ends = result.get("intervals", {})
    found = ends.get("by_speaker") or ends.get("by_utterance")
    return f"{100 * found['low']:.1f} to {100 * found['high']:.1f}" if found else ""


def error_rate(counts: dict[str, int]) -> float:
    """Errors per reference item."""
    return (counts["substitutions"] + counts["deletions"] + counts["insertions"]) / counts["reference_length"]


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
