#!/usr/bin/env python3
"""Write Japanese manifests again with texts in katakana, as they are read aloud.

    python recipes/commonvoice/kana.py data/commonvoice-ja/{train,dev,test}.jsonl --out data/kana

Kanji say what is meant, kana what is heard: some eighty signs for a network to learn instead of thousands.
今日は2016年です becomes キョーワニセンジューロクネンデス: particles as they are spoken, long vowels
as ー, figures in words, no punctuation, no spaces. Readings are those of Open JTalk (extra `japanese`), which
now and then takes the wrong one of several. The text as it was written is kept in the key `written`.
Sentences without anything to say are left out and named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from asr.data.manifest import Utterance, read_manifest, write_manifest
from asr.errors import UserError

FIRST, LAST, LONG = "ァ", "ヺ", "ー"  # what katakana begin and end with, and the sign that makes a vowel long


def open_reader() -> Callable[[str], str]:
    """A function that reads a text aloud in katakana, punctuation included."""
    try:
        import pyopenjtalk
    except ImportError as error:
        raise SystemExit("kana.py: needs pyopenjtalk: pip install '.[japanese]'") from error
    return lambda text: str(pyopenjtalk.g2p(text, kana=True))


def keep_kana(reading: str) -> str:
    """Leave out of a reading whatever is no katakana: punctuation, spaces, signs that nobody says."""
    return "".join(sign for sign in reading if FIRST <= sign <= LAST or sign == LONG)


def convert(utterances: list[Utterance], read: Callable[[str], str]) -> list[Utterance]:
    """Give utterances texts in katakana; what has none is not among them."""
    texts = (keep_kana(read(utterance.text)) if utterance.text else "" for utterance in utterances)
    return [
        replace(utterance, text=text, extra={**utterance.extra, "written": utterance.text})
        for utterance, text in zip(utterances, texts, strict=True)
        if text
    ]


def main() -> None:
    """Convert each manifest that is named into one of the same name in another folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    read = open_reader()
    for manifest in options.manifests:
        if options.out.resolve() == manifest.parent.resolve():
            raise SystemExit(f"kana.py: {manifest} would be overwritten; give another folder by --out")
        utterances = read_manifest(manifest)
        converted = convert(utterances, read)
        write_manifest(options.out / manifest.name, converted)
        missing = {utterance.id for utterance in utterances} - {utterance.id for utterance in converted}
        for name in sorted(missing):
            print(f"{manifest}: {name}: has nothing to say and is left out", file=sys.stderr)
        print(f"{options.out / manifest.name}: {len(converted)} utterances")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"kana.py: {error}")
