"""``asr validate``: check manifests and describe them."""

from __future__ import annotations

import sys
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from asr.audio.reading import measure_duration, read_audio
from asr.data.manifest import Utterance, check_manifests, read_numbered_lines
from asr.data.tars import to_source
from asr.errors import UserError
from asr.text.tokenizer import BLANK, NORMALISERS, SPACE, WORD_START, canonicalise, find_lexicon_file

# The bounds between rows of the histogram, in seconds; close together where most utterances are.
BOUNDS = (0.5, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 60)
BAR_WIDTH = 50
COUNTS_A_LINE = 8


@click.command()
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--tokens",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The tokens.txt of a model folder: characters outside it are faults.",
)
@click.option(
    "--normaliser",
    type=click.Choice(list(NORMALISERS)),
    default="none-v1",
    help="Applied to every text before it is checked.",
)
@click.option("--decode", is_flag=True, help="Read every recording to its end, not only its header.")
def validate(manifests: tuple[Path, ...], tokens: Path | None, normaliser: str, decode: bool) -> None:
    """Check manifests and describe what is in them.

    Every fault is a line "file:line: what is wrong" on stderr, and makes the exit status 1.
    """

    def normalise(text: str) -> str:
        return canonicalise(NORMALISERS[normaliser](text))  # what the tokenizer would be given

    vocabulary = read_characters(tokens) if tokens else None
    checked = check_manifests(
        manifests,
        decode_duration if decode else state_duration,
        normalise,
        vocabulary,
    )
    for line in describe_utterances(checked.utterances, map(normalise, (u.text for u in checked.utterances))):
        click.echo(line)
    for fault in checked.faults:
        click.echo(fault, err=True)
    if checked.faults:
        click.echo(f"faults: {len(checked.faults)}", err=True)
        sys.exit(1)


def state_duration(audio: str) -> float:
    """The seconds of a recording by its header, where that tells them."""
    return measure_duration(to_source(audio))


def decode_duration(audio: str) -> float:
    """The seconds of a recording, all of it decoded."""
    rate = 16000
    return len(read_audio(to_source(audio), rate)) / rate


def read_characters(tokens: Path) -> set[str]:
    """Read the characters that the symbols of a ``tokens.txt`` can write; raises ``UserError``."""
    if find_lexicon_file(tokens.parent) is not None:
        raise UserError(f"{tokens}: lists phones, not characters; asr lexicon tells which words have none")
    symbols = [line for _, line in read_numbered_lines(tokens)]
    if symbols[:1] != [BLANK]:
        raise UserError(f"{tokens}: is not a list of tokens: its first line must be {BLANK}")
    return set("".join(" " if s == SPACE else s.replace(WORD_START, " ") for s in symbols[1:]))


def describe_utterances(utterances: Sequence[Utterance], texts: Iterable[str]) -> list[str]:
    """Describe utterances in lines: their number, durations, speakers and characters."""
    seconds = [utterance.duration or 0.0 for utterance in utterances]
    characters = Counter("".join(texts))
    counts = [f"  {character!r} {count:<7}" for character, count in characters.most_common()]
    lines = [
        f"utterances  {len(utterances)}",
        f"hours       {sum(seconds) / 3600:.2f}",
        f"speakers    {len({utterance.speaker for utterance in utterances} - {''})}",
        f"vocabulary  {len(characters)} characters",
        *("".join(counts[i : i + COUNTS_A_LINE]).rstrip() for i in range(0, len(counts), COUNTS_A_LINE)),
    ]
    if utterances:
        by_length = sorted(utterances, key=lambda utterance: utterance.duration or 0.0)
        lines += ["durations", *draw_histogram(seconds)]
        lines += [
            f"{name:10}  {utterance.duration or 0.0:.2f} s  {utterance.id}"
            for name, utterance in (("shortest", by_length[0]), ("longest", by_length[-1]))
        ]
    return lines


def draw_histogram(seconds: Sequence[float]) -> list[str]:
    """Draw a line with a bar for every row between the shortest and the longest duration."""
    counts = Counter(bisect(BOUNDS, length) for length in seconds)
    longest_bar = max(counts.values())
    lines = []
    for row in range(min(counts), max(counts) + 1):
        begin = f"{BOUNDS[row - 1] if row else 0:g}"
        span = f"{begin} to {BOUNDS[row]:g} s" if row < len(BOUNDS) else f"over {begin} s"
        bar = "#" * -(-BAR_WIDTH * counts[row] // longest_bar)  # rounded up: what is there is seen
        lines.append(f"  {span:>12}  {counts[row]:7}  {bar}".rstrip())
    return lines
