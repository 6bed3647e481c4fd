"""Files of the user's cache folder that keep a lexicon sorted, changed with and without right checksums."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from asr.search.config import SearchConfig
from asr.search.lexicon_beam import LexiconBeamSearch
from asr.text.lexicon import LazyWords, Lexicon, LexiconError, make_lexicon, read_lexicon, write_lexicon
from asr.text.pronunciations import SortedLexicon, open_sorted, write_sorted
from asr.text.tokenizer import BLANK, Tokenizer
from tools.fuzz.changes import WORDS, damage
from tools.fuzz.language_models import put_number
from tools.fuzz.runner import RunCase

PAIRS = [
    *(("two", ("T", "UW")), ("to", ("T", "UW")), ("a", ("AH",)), ("a", ("EY",)), ("äh", ("AH",))),
    *(("tooth", ("T", "UW", "TH")), ("ate", ("EY", "T")), ("eight", ("EY", "T"))),
]


def fuzz_kept_lexicons(folder: Path) -> RunCase:
    """Lexicons that are mapped, searched with and written as a text; a file that is not used is refused."""
    lexicon = make_lexicon(PAIRS)
    write_sorted(lexicon.by_sound, folder / "original.bin")
    content = (folder / "original.bin").read_bytes()
    tokenizer = Tokenizer((BLANK, *lexicon.phones), lexicon=lexicon)

    def run_case(draw: random.Random, place: Path) -> str:
        path = place / "kept.bin"
        if draw.randrange(4) == 0:
            path.write_bytes(damage(content, content, draw))
        else:
            write_sorted(change_numbers(lexicon.by_sound, draw), path)
        kept = open_sorted(path)
        if kept is None or kept.phones != lexicon.phones:
            raise LexiconError("is made again")
        found = Lexicon(LazyWords(kept))
        search = LexiconBeamSearch(SearchConfig(beam_size=4), replace(tokenizer, lexicon=found))
        rows = np.random.default_rng(draw.randrange(1 << 30)).dirichlet(np.ones(len(tokenizer)), 8)
        search.find_hypotheses(np.log(rows).astype(np.float32), 0.04)
        write_lexicon(found, place / "again.txt")
        read_lexicon(place / "again.txt")
        return "searched"

    return run_case


def change_numbers(lexicon: SortedLexicon, draw: random.Random) -> SortedLexicon:
    """Change some numbers, or the names of the phones."""
    arrays = [array.copy() for array in lexicon.arrays]
    phones = list(lexicon.phones)
    for _ in range(draw.choice((1, 1, 2, 5))):
        if draw.randrange(10) == 0:
            phones[draw.randrange(len(phones))] = draw.choice(WORDS)
        else:
            put_number(draw.choice(arrays), draw)
    return SortedLexicon(tuple(phones), *arrays)
