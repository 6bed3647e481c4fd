"""How well words are pronounced that the dictionary does not have: a part of its own words is held out.

    python tools/g2p.py ../shared/text/cmudict.dict

Every twentieth word, drawn by a seed, is hidden with all its pronunciations; the model learns from the
rest. A word is wrong when its best pronunciation is none of the dictionary's; phone errors are counted
against the nearest of them. For comparison: the joint-sequence model of Bisani & Ney 2008, whose
implementation is Sequitur, gets 24.5 % of words and 5.9 % of phones wrong on an older CMUdict, in a
division of its own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import click

from asr.g2p.model import BY_RULE, G2PError, Pronouncer
from asr.scoring.counts import count_pair
from asr.text.lexicon import Lexicon, Pronunciations, read_dictionary


@click.command()
@click.argument("dictionary", type=click.Path(path_type=Path))
@click.option("--share", default=0.05, type=click.FloatRange(0, 1, min_open=True), help="Held out.")
@click.option("--seed", default=0, help="Of the draw.")
@click.option("--variants", default=4, type=click.IntRange(1), help="For the last column.")
def main(dictionary: Path, share: float, seed: int, variants: int) -> None:
    """Print word and phone error rates on held-out words of DICTIONARY."""
    known, unseen = divided(read_dictionary(dictionary), share, seed)
    pronouncer = Pronouncer(known, variants)
    started = time.monotonic()
    g2p = pronouncer.g2p
    g2p.pronounce(next(iter(known.words)))  # compiles
    counts = " + ".join(f"{count:,}" for count in g2p.model.counts)
    print(
        f"learned {len(known):,} words in {time.monotonic() - started:.1f} s: {counts} n-grams of graphones"
    )
    by_rule = {word for word in unseen.words if way_of(pronouncer, word) == BY_RULE}
    rest = [word for word in unseen.words if word not in by_rule]

    def by_model(word: str) -> Pronunciations:
        return g2p.pronounce(word, variants)

    def by_both(word: str) -> Pronunciations:
        return pronouncer.pronounce(word)[0]

    print(f"{'':34} {'words':>7} {'wrong':>8} {'phones':>8} {'best ' + str(variants):>8} {'ms/word':>8}")
    report("all, by the model", unseen, list(unseen.words), by_model)
    report("all, by rules and model", unseen, list(unseen.words), by_both)
    report("with an English ending, by model", unseen, sorted(by_rule), by_model)
    report("with an English ending, by rules", unseen, sorted(by_rule), by_both)
    report("the others, by the model", unseen, rest, by_model)


def divided(dictionary: Lexicon, share: float, seed: int) -> tuple[Lexicon, Lexicon]:
    """What the model may learn from, and the words of letters and apostrophes that it has never seen."""
    words = sorted(word for word in dictionary.words if word.replace("'", "").isalpha())
    held_out = set(random.Random(seed).sample(words, round(share * len(words))))
    known = {word: said for word, said in dictionary.words.items() if word not in held_out}
    return Lexicon(known), Lexicon({word: dictionary[word] for word in sorted(held_out)})


def way_of(pronouncer: Pronouncer, word: str) -> str:
    """Which way a word is pronounced; empty where it cannot be."""
    try:
        return pronouncer.pronounce(word)[1]
    except G2PError:
        return ""


def report(
    name: str, dictionary: Lexicon, words: list[str], pronounce: Callable[[str], Pronunciations]
) -> None:
    """Print one row."""
    if not words:
        return
    started = time.monotonic()
    found = {word: attempt(pronounce, word) for word in words}
    milliseconds = 1000 * (time.monotonic() - started) / len(words)
    wrong = sum(found[word][0] not in dictionary[word] for word in words)
    missed = sum(not set(found[word]) & set(dictionary[word]) for word in words)
    errors = phones = 0
    for word in words:
        scores = [count_pair(said, found[word][0]) for said in dictionary[word]]
        nearest = min(scores, key=lambda score: score.errors)
        errors, phones = errors + nearest.errors, phones + nearest.reference_length
    print(
        f"{name:34} {len(words):7,} {100 * wrong / len(words):6.2f} % {100 * errors / phones:6.2f} % "
        f"{100 * missed / len(words):6.2f} % {milliseconds:8.2f}"
    )


def attempt(pronounce: Callable[[str], Pronunciations], word: str) -> Pronunciations:
    """The pronunciations of a word; an empty one where there is none."""
    try:
        return pronounce(word)
    except G2PError:
        return ((),)


if __name__ == "__main__":
    main()
