"""Language models: ARPA files and binary ones of both versions, changed with and without right checksums."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import numpy as np

from asr.lm.arpa import read_arpa, write_arpa
from asr.lm.model import MAX_ORDER, NgramModel
from asr.lm.packed import Trie, unpack_nodes
from asr.lm.storage import ALIGNMENT, FIRST_HEADER, MAGIC, load_model, save_model
from asr.lm.vocabulary import Vocabulary
from asr.search.beam_search import make_beam_search
from asr.search.config import SearchConfig
from asr.text.lexicon import make_lexicon
from asr.text.tokenizer import BLANK, SPACE, Tokenizer
from tools.fuzz.changes import change_text, damage
from tools.fuzz.runner import RunCase

ARPA = """\
\\data\\
ngram 1=7
ngram 2=6
ngram 3=3

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.7\t</s>
-0.6\ta\t-0.25
-0.8\tb\t-0.125
-0.9\tab\t-0.3
-1.2\tba

\\2-grams:
-0.2\t<s> a\t-0.75
-0.3\ta b\t-0.1
-0.4\tb </s>
-0.4\tb a
-0.5\ta a\t-0.2
-0.6\tab ba

\\3-grams:
-0.1\t<s> a b
-0.2\ta b a
-0.3\ta a b

\\end\\
"""
LETTERS = Tokenizer((BLANK, SPACE, "a", "b"))
PHONES = Tokenizer(
    (BLANK, "A", "B"), lexicon=make_lexicon([("a", ("A",)), ("b", ("B",)), ("ab", ("A", "B"))])
)


def fuzz_language_models(folder: Path) -> RunCase:
    """Models that are read, asked, searched with and written again."""
    original = folder / "original.arpa"
    original.write_text(ARPA)
    model = read_arpa(original)
    save_model(model, folder / "original.lm")
    contents = {2: (folder / "original.lm").read_bytes(), 1: pack_first_version(model)}

    def run_case(draw: random.Random, place: Path) -> str:
        path = place / "model.lm"
        kind = draw.randrange(6)
        if kind == 0:
            path.write_bytes(change_text(ARPA, ARPA, draw))
        elif kind == 1:
            path.write_bytes(damage(contents[draw.choice((1, 2))], contents[2], draw))
        elif kind <= 3:
            path.write_bytes(pack_first_version(model, draw))
        else:
            write_hostile(model, path, draw)
        use_model(load_model(path), draw, place)
        return "used"

    return run_case


def use_model(model: NgramModel, draw: random.Random, place: Path) -> None:
    """Do with a model whatever verbs do with one."""
    words = draw.choices([*model.vocabulary.words[:50], "new", "a", "b"], k=12)
    scores, _ = model.score_words(words, model.begin)
    if not np.isfinite(scores).all():
        raise ValueError(f"scores that are not finite: {scores}")
    rows = np.log(np.random.default_rng(draw.randrange(1 << 30)).dirichlet(np.ones(4), 12))
    tokenizer = draw.choice((LETTERS, PHONES))
    config = SearchConfig(beam_size=draw.choice((1, 8)), lm_weight=draw.choice((0.0, 1.0, 100.0)))
    search = make_beam_search(config, tokenizer, model, draw.choice(((), ("b a",))))
    search.find_hypotheses(rows[:, : len(tokenizer)].astype(np.float32), 0.04)
    if draw.randrange(4) == 0:
        unpack_nodes(model.trie)
        write_arpa(model, place / "again.arpa")


def write_hostile(model: NgramModel, path: Path, draw: random.Random) -> None:
    """Write a model with some numbers changed and all checksums right."""
    arrays = [*model.trie, model.vocabulary.letters, model.vocabulary.bounds]
    arrays = [array.copy() for array in arrays]
    counts = list(model.counts)
    for _ in range(draw.choice((1, 1, 2, 5))):
        if draw.randrange(8) == 0:
            counts[draw.randrange(len(counts))] += draw.choice((-1, 1))
        else:
            put_number(arrays[draw.choice((0, 0, 0, 1, 1, 2, 3, 4))], draw)
    bits, layout, values, letters, bounds = arrays
    save_model(NgramModel(Trie(bits, layout, values), Vocabulary(letters, bounds), tuple(counts)), path)


def put_number(array: np.ndarray, draw: random.Random) -> None:
    """Put a number where another one was: near it, far from it, or with one bit changed."""
    flat = array.reshape(-1)
    place = draw.randrange(len(flat))
    if array.dtype.kind == "f":
        flat[place] = draw.choice((0.0, 1.0, -1e30, 3e38, np.nan, np.inf, -np.inf, flat[place] + 5))
        return
    old, width = int(flat[place]), 8 * array.dtype.itemsize
    new = draw.choice((old + 1, old - 1, 0, old ^ (1 << draw.randrange(width)), draw.getrandbits(width), -1))
    flat[place : place + 1] = (
        np.array([new % (1 << width)], np.uint64).astype(f"<u{width // 8}").view(array.dtype)
    )


def pack_first_version(model: NgramModel, draw: random.Random | None = None) -> bytes:
    """The bytes of a file of version 1, with right checksums; with ``draw``, some numbers are changed."""
    nodes = unpack_nodes(model.trie)
    inner = len(nodes.backoffs)
    arrays = [
        nodes.first_child, nodes.words, nodes.log_probs, np.zeros(len(nodes.words), np.int32),
        nodes.backoffs, np.zeros(inner, np.int32), model.vocabulary.bounds, model.vocabulary.letters,
    ]  # fmt: skip
    arrays = [array.copy() for array in arrays]
    for _ in range(draw.choice((1, 1, 2, 5)) if draw is not None else 0):
        assert draw is not None
        put_number(arrays[draw.choice((0, 0, 1, 1, 2, 4, 6, 7))], draw)
    content, checksum = bytes(FIRST_HEADER.size), 0
    for array in arrays:
        content += bytes(-len(content) % ALIGNMENT) + array.tobytes()
        checksum = zlib.crc32(array.tobytes(), checksum)
    counts = (*model.counts, *[0] * (MAX_ORDER - model.order))
    letters = len(model.vocabulary.letters)
    start = FIRST_HEADER.pack(MAGIC, 1, model.order, *counts, letters, checksum, 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(start)) + content[FIRST_HEADER.size :]
