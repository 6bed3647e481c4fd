#!/usr/bin/env python3
"""Make the tables of results, and the pictures, from the files that `asr evaluate --json` wrote.

    asr evaluate data/fsdd/test.jsonl --model digits --json > recipes/fsdd/results/blstm.test.json
    python tools/results.py            # writes the tables into the Markdown files that ask for them
    python tools/results.py --check    # exit status 1 when a table or picture is not what the files say

A result's file is named `{system}.{set}.json`. A Markdown file asks for a table with a line
`<!-- results: fsdd -->`, or `<!-- results: fsdd blstm tdnn -->` for these systems only; what stands from
there to `<!-- end of results -->` is replaced. `<!-- summary: ... -->`, to `<!-- end of summary -->`, asks
for the same rows in four columns: system, set, WER and speed. Systems `{name}-without-{speaker}`, trained
without the speaker they are tested on, are also pooled into one row.

`<!-- comparison: family test-connected -->`, to `<!-- end of comparison -->`, asks for the systems
of a recipe side by side on one set: errors and speeds, in a table and in a picture. Systems
`{name}-seed{n}` are other seeds of `{name}`: one row and one point, with the spread over seeds.
Speeds are taken from the machine that most of them ran on.

`<!-- figures: english/results/words/punctuation.*.json -->`, to `<!-- end of figures -->`, asks for what
other commands have measured: `asr punctuation score --json` (a row for each file), `tools/g2p.py` (a row for
each way of pronouncing) or `tools/forecast.py`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from asr.core.files import replace_file

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(
    r"(<!-- (?P<kind>results|summary): (?P<recipe>\S+)(?P<systems>(?: [^\s>]+)*) -->\n)"
    r".*?(?P<end><!-- end of (?P=kind) -->)",
    re.S,
)
COMPARISON = re.compile(
    r"(<!-- comparison: (?P<recipe>\S+) (?P<tested>\S+) -->\n).*?(<!-- end of comparison -->)", re.S
)
FIGURES = re.compile(r"(<!-- figures: (?P<files>\S+) -->\n).*?(<!-- end of figures -->)", re.S)
# Where a name can stand beside its point: to the right and down in points, and how it is aligned.
NAME_OFFSETS = (
    *[(7, 0, "left"), (-7, 0, "right"), (0, 10, "center"), (0, -10, "center")],
    *[
        (6, 8, "left"),
        (-6, 8, "right"),
        (6, -8, "left"),
        (-6, -8, "right"),
        (0, 20, "center"),
        (0, -20, "center"),
    ],
)
SEED = re.compile(r"-seed\d+$")
HEADER = (
    "| system | test set | WER | 95 % interval | substitutions, deletions, insertions | words | CER | SER "
    "| hours | times real time | hardware | commit |\n|" + " --- |" * 12 + "\n"
)
SUMMARY_HEADER = "| system | test set | WER | times real time |\n|" + " --- |" * 4 + "\n"


def read_results(recipe: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Read all results of a recipe by system and set, and add the pooled ones."""
    found = {}
    for path in sorted((ROOT / "recipes" / recipe / "results").glob("*.json")):
        system, _, tested = path.stem.partition(".")
        found[system, tested] = json.loads(path.read_text(encoding="utf-8"))
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for (system, tested), result in found.items():
        name, without, _ = system.partition("-without-")
        if without:
            groups.setdefault((f"{name}, unseen speakers", tested), []).append(result)
    return found | {key: pool_results(group) for key, group in groups.items()}


def pool_results(group: list[dict[str, Any]]) -> dict[str, Any]:
    """Pool several results into one: counts are summed, rates follow from the sums."""
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


def format_table(recipe: str, systems: Collection[str] = (), summary: bool = False) -> str:
    """Format the results of a recipe, or of some of its systems, as a Markdown table, set by set."""
    make_row = summary_row if summary else format_row
    rows = [
        make_row(name, tested, result)
        for (name, tested), result in sorted(read_results(recipe).items(), key=lambda item: item[0][::-1])
        if not systems or name.split(",")[0] in systems
    ]
    return (SUMMARY_HEADER if summary else HEADER) + "".join(rows)


def summary_row(system: str, tested: str, result: dict[str, Any]) -> str:
    """One line of the narrow table."""
    wer = 100 * error_rate(result["word_counts"])
    return f"| {system} | {tested} | **{wer:.1f} %** | {1 / result['rtf']:.0f} |\n"


def format_row(system: str, tested: str, result: dict[str, Any]) -> str:
    """One line of the table."""
    words, characters = result["word_counts"], result["character_counts"]
    cells = [
        system,
        tested,
        f"**{100 * error_rate(words):.2f} %**",
        format_interval(result),
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


def format_interval(result: dict[str, Any]) -> str:
    """Format the interval of the WER over speakers or, where these are not known, over utterances."""
    ends = result.get("intervals", {})
    found = ends.get("by_speaker") or ends.get("by_utterance")
    return f"{100 * found['low']:.1f} to {100 * found['high']:.1f}" if found else ""


def error_rate(counts: dict[str, int]) -> float:
    """Errors per reference item."""
    return (counts["substitutions"] + counts["deletions"] + counts["insertions"]) / counts["reference_length"]


# --- systems side by side -------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of a system."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        if self.seeds == 1:
            return format_figure(self.mean)
        return f"{format_figure(self.mean)} ({format_figure(self.low)} to {format_figure(self.high)})"


def format_figure(value: float) -> str:
    """Format with two decimals below ten, none from a hundred on."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def make_spread(values: list[float]) -> Spread:
    """The mean, lowest and highest value over one or more seeds."""
    return Spread(mean(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Compared:
    """A system on one set, all of its seeds together; errors in percent, speeds in times real time.

    Speeds are of the seeds that ran on ``hardware`` alone: those of two machines have no mean.
    """

    system: str
    parameters: int
    errors: Spread
    training: Spread | None
    recognition: Spread | None
    hardware: str
    commit: str

    @property
    def row(self) -> str:
        """One line of the table."""
        cells = [
            self.system,
            f"{self.parameters:,}",
            str(self.errors.seeds),
            f"**{self.errors}**",
            "" if self.training is None else str(self.training),
            "" if self.recognition is None else str(self.recognition),
            self.hardware,
            self.commit,
        ]
        return "| " + " | ".join(cells) + " |\n"


def compare_systems(recipe: str, tested: str) -> list[Compared]:
    """Compare the systems of a recipe on one set, those with the fewest errors first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for (system, name), result in read_results(recipe).items():
        if name == tested:
            groups.setdefault(SEED.sub("", system), []).append(result)
    machines = Counter(result["hardware"] for group in groups.values() for result in group)
    systems = [pool_seeds(system, group, machines.most_common(1)[0][0]) for system, group in groups.items()]
    return sorted(systems, key=lambda system: (system.errors.mean, system.system))


def pool_seeds(system: str, group: list[dict[str, Any]], hardware: str) -> Compared:
    """Pool the results of one system's seeds, with its speeds on ``hardware``."""
    timed = [result for result in group if result["hardware"] == hardware]
    known = [speed for result in timed if (speed := result.get("training_speed")) is not None]
    return Compared(
        system=system,
        parameters=group[0]["parameters"],
        errors=make_spread([100 * error_rate(result["word_counts"]) for result in group]),
        training=make_spread(known) if known else None,
        recognition=make_spread([1 / result["rtf"] for result in timed]) if timed else None,
        hardware=hardware if timed else "another",
        commit=single_value({f"`{result['commit'][:9]}`" for result in group}),
    )


def single_value(values: set[str]) -> str:
    """The value, if there is only one; otherwise ``various``."""
    return values.pop() if len(values) == 1 else "various"


def counted_unit(recipe: str, tested: str) -> str:
    """What is counted: models of phones that do not search a lexicon find phones, not words."""
    greedy_phones = [
        result.get("unit") == "phones" and result["search"] == "greedy"
        for (_, name), result in read_results(recipe).items()
        if name == tested
    ]
    return "phone errors" if greedy_phones and all(greedy_phones) else "WER"


def format_comparison(recipe: str, tested: str, folder: Path) -> str:
    """Format the table and the picture of a recipe's systems on one set, for a file in ``folder``."""
    header = (
        f"| system | weights | seeds | {counted_unit(recipe, tested)}, % | training, times real time "
        "| recognition, times real time | hardware | commit |\n|" + " --- |" * 8 + "\n"
    )
    systems = compare_systems(recipe, tested)
    text = header + "".join(system.row for system in systems)
    if systems:
        path = os.path.relpath(picture_path(recipe, tested), folder)
        text += f"\n![{counted_unit(recipe, tested)} over speed]({path})\n"
    return text


def picture_path(recipe: str, tested: str) -> Path:
    """The path of a comparison's picture."""
    return ROOT / "recipes" / recipe / "results" / f"{tested}.png"


def read_drawing(path: Path) -> str:
    """Read from a picture what it was drawn from; nothing where there is no picture."""
    from PIL import Image  # matplotlib brings it along

    if not path.exists():
        return ""
    with Image.open(path) as image:
        return str(image.info.get("Description", ""))


def describe_drawing(systems: list[Compared]) -> str:
    """Describe what a picture is drawn from, as it is written into the file.

    The file itself cannot be compared: other versions of matplotlib make other pixels.
    """
    keys = ("system", "errors", "training", "recognition")
    return json.dumps([{key: asdict(system)[key] for key in keys} for system in systems])


def draw_picture(systems: list[Compared], counted: str, path: Path) -> None:
    """Draw errors over the speeds of training, where known, and recognition, both on log scales."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {
        f"{what}, times real time": [(s, speed) for s in systems if (speed := getattr(s, what)) is not None]
        for what in ("training", "recognition")
    }
    panels = {label: points for label, points in panels.items() if points}
    page, row = plt.subplots(
        1, len(panels), figsize=(6 * len(panels), 5), squeeze=False, layout="constrained"
    )
    colours = {system.system: plt.get_cmap("tab20")(number % 20) for number, system in enumerate(systems)}
    for axes, (label, points) in zip(row[0], panels.items(), strict=True):
        for system, speed in points:
            errors = system.errors
            axes.errorbar(
                speed.mean, errors.mean, fmt="o", ms=5, capsize=3, elinewidth=1, color=colours[system.system],
                xerr=[[speed.mean - speed.low], [speed.high - speed.mean]],
                yerr=[[errors.mean - errors.low], [errors.high - errors.mean]],
            )  # fmt: skip
        axes.set(xscale="log", xlabel=label, ylabel=f"{counted}, %")
        axes.set_yscale("log", nonpositive="clip")
        axes.margins(0.12)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")
        axes.tick_params(which="both", labelsize=8, pad=4)
        axes.grid(which="both", alpha=0.2)
    page.canvas.draw()  # only now are the positions of the points known
    for axes, points in zip(row[0], panels.values(), strict=True):
        write_names(axes, {s.system: (speed.mean, s.errors.mean) for s, speed in points})
    with replace_file(path) as temporary:
        page.savefig(temporary, dpi=110, metadata={"Description": describe_drawing(systems)})
    plt.close(page)


def write_names(axes: Any, places: dict[str, tuple[float, float]]) -> None:
    """Write each name beside its point, where it hides the least of other names and points."""
    from matplotlib.transforms import Bbox

    points = [axes.transData.transform(place) for place in places.values()]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points]
    for name, place in places.items():
        tried: list[tuple[float, int, Any, Any]] = []
        for x, y, aligned in NAME_OFFSETS:
            text = axes.annotate(
                name, place, (x, y), textcoords="offset points", ha=aligned, va="center", fontsize=8
            )
            box = text.get_window_extent()
            hidden = box.width * box.height - shared_area(box, axes.get_window_extent())
            tried.append((hidden + sum(shared_area(box, other) for other in taken), len(tried), box, text))
        best = min(tried, key=lambda attempt: attempt[:2])
        for _, _, _, text in tried:
            if text is not best[3]:
                text.remove()
        taken.append(best[2])


def shared_area(one: Any, other: Any) -> float:
    """The area that two boxes share."""
    both = one.intersection(one, other)
    return 0.0 if both is None else float(both.width * both.height)


# --- other figures --------------------------------------------------------------------------------


def format_figures(pattern: str) -> str:
    """Format files of one kind under ``recipes/``: marks found, words pronounced or errors of forecasts."""
    paths = sorted((ROOT / "recipes").glob(pattern))
    tables = {path.name.split(".")[1]: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    if any("marks" in table for table in tables.values()):
        return format_marks(tables)
    if any("rows" in table for table in tables.values()):
        return format_pronouncing(list(tables.values()))
    return "\n".join(format_forecast(table) for table in tables.values())


def format_marks(tables: dict[str, dict[str, Any]]) -> str:
    """Format F1 of marks and capitals, a row for each text."""
    names = list(next(iter(tables.values()))["marks"])
    text = "| text | words | " + " | ".join(f"{name}, F1" for name in names) + " | commit |\n"
    text += "|" + " --- |" * (len(names) + 3) + "\n"
    for name, table in tables.items():
        found = [f"{100 * table['marks'][mark]['f1']:.1f} %" for mark in names]
        text += f"| {name} | {table['words']:,} | " + " | ".join(found) + f" | `{table['commit'][:9]}` |\n"
    return text


def format_pronouncing(tables: list[dict[str, Any]]) -> str:
    """Format how many words are pronounced wrong, a row for each way, the draws that have it together."""
    text = "| way | draws | words | words wrong | phones wrong |\n|" + " --- |" * 5 + "\n"
    for name in dict.fromkeys(row["name"] for table in tables for row in table["rows"]):
        rows = [row for table in tables for row in table["rows"] if row["name"] == name]
        total = {key: sum(row[key] for row in rows) for key in ("words", "wrong", "phones", "phone_errors")}
        text += (
            f"| {name} | {len(rows)} | {total['words']:,} | {100 * total['wrong'] / total['words']:.1f} % "
            f"| {100 * total['phone_errors'] / total['phones']:.1f} % |\n"
        )
    return text


def format_forecast(table: dict[str, Any]) -> str:
    """Format errors of forecasts, a row for each distance."""
    ways = list(table["errors"])
    text = "| frames ahead | seconds | " + " | ".join(ways) + " |\n|" + " --- |" * (len(ways) + 2) + "\n"
    for ahead in table["errors"][ways[0]]:
        errors = [f"{table['errors'][way][ahead]:.3f}" for way in ways]
        text += f"| {ahead} | {int(ahead) * table['frame_seconds']:.2f} | " + " | ".join(errors) + " |\n"
    return text


# --- Markdown -------------------------------------------------------------------------------------


def fill_tables(text: str, folder: Path) -> str:
    """Fill every table that the text of a Markdown file in ``folder`` asks for."""
    text = PLACE.sub(
        lambda place: (
            place[1]
            + format_table(place["recipe"], place["systems"].split(), place["kind"] == "summary")
            + place["end"]
        ),
        text,
    )
    text = FIGURES.sub(lambda place: place[1] + format_figures(place["files"]) + place[3], text)
    return COMPARISON.sub(
        lambda place: place[1] + format_comparison(place["recipe"], place["tested"], folder) + place[4], text
    )


def main() -> None:
    """Write or check the tables and pictures of every Markdown file at the top and beside the recipes."""
    check = "--check" in sys.argv
    stale = []
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("recipes/**/*.md"), *ROOT.glob("docs/**/*.md")]):
        text = path.read_text(encoding="utf-8")
        new = fill_tables(text, path.parent)
        if new != text:
            stale.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
        for place in COMPARISON.finditer(text):
            systems = compare_systems(place["recipe"], place["tested"])
            wanted = picture_path(place["recipe"], place["tested"])
            if systems and read_drawing(wanted) != describe_drawing(systems):
                stale.append(wanted)
                if not check:
                    draw_picture(systems, counted_unit(place["recipe"], place["tested"]), wanted)
    if check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"tables and pictures that are not what the results say: {names}; run tools/results.py")


if __name__ == "__main__":
    main()
