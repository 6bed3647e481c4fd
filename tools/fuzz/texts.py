"""Texts that people write: manifests, files to be scored, lexicons and dictionaries."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from asr.data.manifest import check_manifests, read_manifest, write_manifest
from asr.scoring.files import read_texts
from asr.scoring.systems import compare_system, prepare_references
from asr.search.config import SearchConfig
from asr.search.lexicon_beam import LexiconBeamSearch
from asr.text.lexicon import read_dictionary, read_lexicon, write_lexicon
from asr.text.normalise import NORMALISERS
from asr.text.tokenizer import BLANK, Tokenizer
from tools.fuzz.changes import change_text
from tools.fuzz.runner import RunCase

MANIFEST = """\
{"id": "a", "audio_filepath": "a.wav", "duration": 1.5, "text": "one two", "speaker": "s"}
{"id": "b", "audio_filepath": "b.wav", "offset": 0.5, "duration": 2, "text": "three"}
{"audio_filepath": "c.wav", "text": "", "lang": "en", "more": [1, {"x": null}]}
"""
SCORED = {
    "a.jsonl": '{"id": "a", "text": "one two"}\n{"id": "b", "text": "three"}\n',
    "a.trn": "one two (s-a)\nthree four (s-b)\n",
    "a.stm": ";; a comment\nr 1 s 0.00 1.50 <o,f0> one two\nr 1 s 1.50 3.00 <o> three\n",
    "a.ctm": "r 1 0.10 0.30 one 0.9\nr 1 0.50 0.20 two 0.8\nr 1 1.60 0.50 three\n",
    "a.csv": 'id,text\na,"one, two"\nb,three\n',
    "a.tsv": "id\ttext\na\tone two\nb\tthree\n",
    "a.txt": "one two\nthree\n",
    "text": "a one two\nb three\n",
}
HYPOTHESES = {name: text.replace("three", "tree").replace("two", "to") for name, text in SCORED.items()}
DICTIONARY = """\
;;; a comment
a AH0
a(2) EY1
tomato T AH0 M EY1 T OW2
tomato(2) T AH0 M AA1 T OW2 # a comment
it's IH1 T S
"""
LEXICON = "a AH\na EY\nab AH B\nb B\nba B AH\n"


def fuzz_manifests(folder: Path) -> RunCase:
    """Manifests that are read, checked and written again."""

    def run_case(draw: random.Random, place: Path) -> str:
        path = place / "train.jsonl"
        path.write_bytes(change_text(MANIFEST, MANIFEST, draw))
        check_manifests([path], lambda audio: 3.0, NORMALISERS["basic-v1"], {"o", "n", "e"})
        write_manifest(place / "again.jsonl", read_manifest(path))
        return "read"

    return run_case


def fuzz_score_files(folder: Path) -> RunCase:
    """References and hypotheses in the formats of the field, one of them changed."""

    def run_case(draw: random.Random, place: Path) -> str:
        name = draw.choice(sorted(SCORED))
        reference, hypothesis = place / "ref" / name, place / "hyp" / name
        sides = [SCORED[name].encode(), HYPOTHESES[name].encode()]
        sides[draw.randrange(2)] = change_text(SCORED[name], draw.choice(sorted(SCORED.values())), draw)
        for path, content in zip((reference, hypothesis), sides, strict=True):
            path.parent.mkdir()
            path.write_bytes(content)
        normalise = NORMALISERS[draw.choice(sorted(NORMALISERS))]
        references = prepare_references(read_texts(reference), normalise)
        compare_system(references, read_texts(hypothesis), "hyp").comparison.count_confusions()
        return "scored"

    return run_case


def fuzz_lexicons(folder: Path) -> RunCase:
    """Lexicons and pronouncing dictionaries that are read, written and searched with."""

    def run_case(draw: random.Random, place: Path) -> str:
        path = place / "lexicon.txt"
        if draw.randrange(2):
            path.write_bytes(change_text(DICTIONARY, LEXICON, draw))
            lexicon = read_dictionary(path)
        else:
            path.write_bytes(change_text(LEXICON, DICTIONARY, draw))
            lexicon = read_lexicon(path)
        write_lexicon(lexicon, place / "again.txt")
        tokenizer = Tokenizer((BLANK, *lexicon.phones), lexicon=lexicon)
        search = LexiconBeamSearch(SearchConfig(beam_size=4), tokenizer)
        rows = np.random.default_rng(draw.randrange(1 << 30)).dirichlet(np.ones(len(tokenizer)), 8)
        search.find_hypotheses(np.log(rows).astype(np.float32), 0.04)
        return "searched"

    return run_case
