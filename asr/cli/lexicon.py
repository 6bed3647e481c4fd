"""``asr lexicon``: write pronunciations, also of words that no dictionary has."""

from __future__ import annotations

import codecs
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asr.cli._options import INSTALL_TORCH
from asr.errors import UserError
from asr.text.normalise import NORMALISERS, normalise_letters

if TYPE_CHECKING:
    from asr.g2p.model import PronouncingModel
    from asr.text.lexicon import Lexicon

SUSPECTS = re.compile(rb"\S*[0-9\x80-\xff]\S*")  # words of a text that may lose something


@click.command()
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option(
    "--words", "files", metavar="FILE", multiple=True, type=click.Path(path_type=Path),
    help="All words of a manifest (.jsonl), a text, or a language model (.arpa or binary); repeatable.",
)  # fmt: skip
@click.option(
    "--dictionary", metavar="FILE", required=True, type=click.Path(path_type=Path),
    help="A pronouncing dictionary in the format of CMUdict.",
)  # fmt: skip
@click.option(
    "-o", "--out", metavar="FILE", type=click.Path(path_type=Path),
    help="Where the lexicon goes: WORD PH PH ..., a pronunciation a line.  [default: stdout]",
)  # fmt: skip
@click.option(
    "--variants", type=click.IntRange(1), default=1, metavar="N",
    help="Pronunciations of a word that the dictionary lacks, at most.",
)  # fmt: skip
@click.option(
    "--g2p", type=click.Choice(["ngram", "attention", "both"]), default="ngram",
    help="The model for words that the dictionary lacks: n-grams of letters with phones, learned within a "
    "minute; a network with attention, kept in --g2p-model, which takes far longer and torch; or both.",
)  # fmt: skip
@click.option(
    "--g2p-model", "g2p_folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path),
    help="The network's folder. Where none is there, it is learned from the dictionary; stopped, the same "
    "command goes on.",
)  # fmt: skip
@click.option(
    "--normaliser", type=click.Choice(list(NORMALISERS)), default="letters-v1",
    help="Applied to words and texts, but not to a language model's vocabulary.",
)  # fmt: skip
def lexicon(
    words: tuple[str, ...],
    files: tuple[Path, ...],
    dictionary: Path,
    out: Path | None,
    variants: int,
    g2p: str,
    g2p_folder: Path | None,
    normaliser: str,
) -> None:
    """Write a lexicon: the pronunciations of every WORD, and of every word in FILE.

    Words that the dictionary has are pronounced as it says. Others follow the rules of English endings
    (kaliko's, ladyship'll), where their stem can be pronounced, or else a model of spelling and sound
    that is learned from the dictionary within a minute or so. How many words went which way is printed.
    """
    if not words and not files:
        raise click.UsageError("No words: name some, or a file with --words.")

    from tqdm import tqdm

    from asr.g2p.model import G2PError, Pronouncer
    from asr.scoring.counts import list_names
    from asr.text.lexicon import Lexicon, format_lexicon, read_dictionary, write_lexicon

    if g2p != "ngram" and g2p_folder is None:
        raise click.UsageError(f"--g2p {g2p} needs --g2p-model, the folder of the network.")
    known = read_dictionary(dictionary)
    model = None if g2p_folder is None or g2p == "ngram" else open_network(known, g2p_folder, g2p == "both")
    pronouncer = Pronouncer(known, variants, model)
    normalise = NORMALISERS[normaliser]
    every = set(" ".join(map(normalise, words)).split())
    unwritten = {word for word in words if is_unwritten(word, normalise(word))}
    for file in files:
        every.update(read_words(file, normaliser))
        unwritten.update(list_unwritten(file, normaliser))
    if unwritten:
        click.echo(
            f"left out, because {normaliser} cannot write {'it' if len(unwritten) == 1 else 'them'} whole: "
            f"{list_names(sorted(unwritten))}",
            err=True,
        )
    if not every:
        raise UserError(f"no words are left in the form {normaliser}")
    found, failed, ways = {}, [], Counter[str]()
    for word in tqdm(sorted(every), unit="word", disable=not sys.stderr.isatty()):
        try:
            found[word], way = pronouncer.pronounce(word)
            ways[way] += 1
        except G2PError:
            failed.append(word)
    if not found:
        raise UserError(f"none of {len(every)} words can be pronounced: {list_names(failed)}")
    if out is None:
        click.echo("\n".join(format_lexicon(Lexicon(found))))
    else:
        write_lexicon(Lexicon(found), out)
    summary = ", ".join(f"{count:,} {way}" for way, count in ways.most_common())
    click.echo(f"{len(found):,} words: {summary}", err=True)
    if failed:
        click.echo(f"left out, because they cannot be pronounced: {list_names(failed)}", err=True)


def open_network(dictionary: Lexicon, folder: Path, is_joined: bool) -> PronouncingModel:
    """Open the network that pronounces, or train it; ``is_joined``, together with the n-gram model."""
    if find_spec("torch") is None:
        raise UserError(f"asr lexicon --g2p attention needs torch: {INSTALL_TORCH}")
    from asr.cli._progress import print_news
    from asr.cli._training import run_on_text
    from asr.g2p.model import learn_g2p
    from asr.training.pronouncing import JoinedPronouncers, NetworkPronouncer
    from asr.training.spelling import train_speller

    with run_on_text():
        network = NetworkPronouncer(train_speller(dictionary, folder, say=print_news))
    return JoinedPronouncers(learn_g2p(dictionary), network) if is_joined else network


def is_unwritten(word: str, normalised: str) -> bool:
    """Whether letters or figures of a word are lost in its normalised form: ``42``, ``R2D2``, ``日本``."""
    return any(c.isalnum() and not normalise_letters(c) for c in word) and not any(
        c.isdigit() or ord(c) > 127 for c in normalised
    )


def list_unwritten(path: Path, normaliser: str) -> Iterable[str]:
    """List the words of a manifest or a text that a normaliser does not write whole."""
    from asr.data.manifest import read_manifest
    from asr.lm.storage import LONGEST_MAGIC, MAGIC
    from asr.lm.text import open_text

    normalise = NORMALISERS[normaliser]
    if path.suffix == ".jsonl":
        words = {word for utterance in read_manifest(path) for word in utterance.text.split()}
    else:
        with open_text(path) as file:
            begin = file.read(LONGEST_MAGIC)
            if begin.startswith(MAGIC) or b"\\data\\" in begin:
                return set()
            lines = chain([begin + file.readline()], file)
            found = {word for line in lines for word in SUSPECTS.findall(line)}
        words = {word.decode("utf-8", "replace") for word in found}
    return {word for word in words if is_unwritten(word, normalise(word))}


def read_words(path: Path, normaliser: str) -> Iterable[str]:
    """Read the words of a manifest, a language model or a text, whichever the file is."""
    from asr.data.manifest import read_manifest
    from asr.lm.storage import LONGEST_MAGIC, MAGIC, load_model, refuse_foreign
    from asr.lm.text import SentenceConfig, open_text, read_sentences
    from asr.lm.vocabulary import BEGIN, END, UNKNOWN

    if path.suffix == ".jsonl":
        normalise = NORMALISERS[normaliser]
        return (word for utterance in read_manifest(path) for word in normalise(utterance.text).split())
    with open_text(path) as file:
        begin = file.read(LONGEST_MAGIC)
    refuse_foreign(begin, path)
    if begin.startswith(MAGIC) or begin.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"\\data\\"):
        return set(load_model(path).vocabulary.words) - {BEGIN, END, UNKNOWN}
    return _list_text_words(read_sentences([path], SentenceConfig(normaliser)))


def _list_text_words(blocks: Iterable[bytes]) -> Iterator[str]:
    for block in blocks:
        yield from set(block.decode().split())
