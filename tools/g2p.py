"""Measure how well words are pronounced that the dictionary lacks: some of its own words are held out.

    python tools/g2p.py ../shared/text/cmudict.dict

One word in twenty, drawn with a seed, is held out with all its pronunciations; the model learns from the
rest. With --attention DIR, so does a network, which is kept there; --json FILE keeps what is measured. A
word is wrong when its best pronunciation is none of the dictionary's; phone errors are counted against the
nearest of these. For comparison: the joint-sequence model of Bisani & Ney 2008, whose implementation is
Sequitur, gets 24.5 % of words and 5.9 % of phones wrong on an older CMUdict with another split.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click

from asr.core.files import write_text
from asr.core.provenance import describe_machine, make_provenance
from asr.g2p.model import BY_RULE, G2PError, Pronouncer
from asr.scoring.counts import count_pair
from asr.text.lexicon import Lexicon, Pronunciations, read_dictionary


@click.command()
@click.argument("dictionary", type=click.Path(path_type=Path))
@click.option("--share", default=0.05, type=click.FloatRange(0, 1, min_open=True), help="Held out.")
@click.option("--seed", default=0, help="Of the draw.")
@click.option("--variants", default=4, type=click.IntRange(1), help="For the last column.")
@click.option(
    "--attention",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Also measure a network, trained in DIR.",
)
@click.option(
    "--epochs", type=click.FloatRange(0, min_open=True), help="Of that training.  [default: as usual]"
)
@click.option("--count", type=click.IntRange(1), help="Measure so many of the words held out, drawn.")
@click.option("--json", "result", type=click.Path(path_type=Path), help="Write the rows there.")
def main(
    dictionary: Path,
    share: float,
    seed: int,
    variants: int,
    attention: Path | None,
    epochs: float | None,
    count: int | None,
    result: Path | None,
) -> None:
    """Print word and phone error rates on held-out words of DICTIONARY."""
    known, unseen = split_dictionary(read_dictionary(dictionary), share, seed)
    if count is not None and count < len(unseen):
        drawn = sorted(random.Random(seed).sample(sorted(unseen.words), count))
        unseen = Lexicon({word: unseen[word] for word in drawn})
    pronouncer = Pronouncer(known, variants)
    started = time.monotonic()
    g2p = pronouncer.g2p
    g2p.pronounce(next(iter(known.words)))  # compiles
    counts = " + ".join(f"{count:,}" for count in g2p.model.counts)
    print(
        f"learned {len(known):,} words in {time.monotonic() - started:.1f} s: {counts} n-grams of graphones"
    )
    by_rule = {word for word in unseen.words if find_way(pronouncer, word) == BY_RULE}
    rest = [word for word in unseen.words if word not in by_rule]

    def by_model(word: str) -> Pronunciations:
        return g2p.pronounce(word, variants)

    def by_both(word: str) -> Pronunciations:
        return pronouncer.pronounce(word)[0]

    print(f"{'':34} {'words':>7} {'wrong':>8} {'phones':>8} {'best ' + str(variants):>8} {'ms/word':>8}")
    rows = [
        measure_row("all, by the model", unseen, list(unseen.words), by_model),
        measure_row("all, by rules and model", unseen, list(unseen.words), by_both),
        measure_row("with an English ending, by model", unseen, sorted(by_rule), by_model),
        measure_row("with an English ending, by rules", unseen, sorted(by_rule), by_both),
        measure_row("the others, by the model", unseen, rest, by_model),
    ]
    if attention is not None:
        rows += measure_network(known, unseen, attention, pronouncer, by_rule, epochs)
    if result is not None:
        table = {
            "seed": seed,
            "share": share,
            "epochs": epochs,
            "rows": rows,
            **make_provenance(describe_machine(1)),
        }
        write_text(result, json.dumps(table, indent=2) + "\n")


def measure_network(
    known: Lexicon,
    unseen: Lexicon,
    folder: Path,
    pronouncer: Pronouncer,
    by_rule: Collection[str],
    epochs: float | None,
) -> list[dict[str, Any]]:
    """Measure a network with attention: alone, with the n-gram model, and with the rules, too."""
    from asr.training.pronouncing import JoinedPronouncers, NetworkPronouncer
    from asr.training.spelling import make_experiment, train_speller

    experiment = make_experiment(known)
    if epochs is not None:
        experiment = replace(experiment, training=replace(experiment.training, epochs=epochs))
    network = NetworkPronouncer(train_speller(known, folder, experiment))
    joined = JoinedPronouncers(pronouncer.g2p, network)

    def by_network(word: str) -> Pronunciations:
        return network.pronounce(word, pronouncer.variants)

    @cache
    def by_joined(word: str) -> Pronunciations:
        return joined.pronounce(word, pronouncer.variants)

    def by_all(word: str) -> Pronunciations:
        return pronouncer.pronounce(word)[0] if word in by_rule else by_joined(word)

    words = list(unseen.words)
    return [
        measure_row("all, by attention", unseen, words, by_network),
        measure_row("all, by both models", unseen, words, by_joined),
        measure_row("all, by rules and both models", unseen, words, by_all),
    ]


def split_dictionary(dictionary: Lexicon, share: float, seed: int) -> tuple[Lexicon, Lexicon]:
    """Split the words: those that the model learns from, and held-out words of letters and apostrophes."""
    words = sorted(word for word in dictionary.words if word.replace("'", "").isalpha())
    held_out = set(random.Random(seed).sample(words, round(share * len(words))))
    known = {word: said for word, said in dictionary.words.items() if word not in held_out}
    return Lexicon(known), Lexicon({word: dictionary[word] for word in sorted(held_out)})


def find_way(pronouncer: Pronouncer, word: str) -> str:
    """Find how a word is pronounced; empty where it cannot be."""
    try:
        return pronouncer.pronounce(word)[1]
    except G2PError:
        return ""


def measure_row(
    name: str, dictionary: Lexicon, words: list[str], pronounce: Callable[[str], Pronunciations]
) -> dict[str, Any]:
    """Measure how some words are pronounced, and print a row about it."""
    started = time.monotonic()
    found = {word: try_to_pronounce(pronounce, word) for word in words}
    milliseconds = 1000 * (time.monotonic() - started) / max(1, len(words))
    wrong = sum(found[word][0] not in dictionary[word] for word in words)
    missed = sum(not set(found[word]) & set(dictionary[word]) for word in words)
    errors = phones = 0
    for word in words:
        scores = [count_pair(said, found[word][0]) for said in dictionary[word]]
        nearest = min(scores, key=lambda score: score.errors)
        errors, phones = errors + nearest.errors, phones + nearest.reference_length
    if words:
        print(
            f"{name:34} {len(words):7,} {100 * wrong / len(words):6.2f} % {100 * errors / phones:6.2f} % "
            f"{100 * missed / len(words):6.2f} % {milliseconds:8.2f}",
            flush=True,
        )
    return {
        "name": name,
        "words": len(words),
        "wrong": wrong,
        "phones": phones,
        "phone_errors": errors,
        "missed": missed,
        "milliseconds": round(milliseconds, 3),
    }


def try_to_pronounce(pronounce: Callable[[str], Pronunciations], word: str) -> Pronunciations:
    """Pronounce a word; the pronunciation is empty where it cannot be pronounced."""
    try:
        return pronounce(word)
    except G2PError:
        return ((),)


if __name__ == "__main__":
    main()
