"""How words are pronounced: lexicons, their files, and the sound of English endings.

A pronunciation is a tuple of phone symbols, as ``("HH", "AH", "L", "OW")``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from asr.core.files import read_text, write_text
from asr.errors import UserError
from asr.text.pronunciations import (
    Columns,
    SortedLexicon,
    keep_sorted,
    name_sorted_file,
    open_sorted,
    sort_columns,
)

Pronunciation = tuple[str, ...]
Pronunciations = tuple[Pronunciation, ...]

MOST_PHONES = 255  # codes and tokens are bytes, and token 0 is the blank
LONGEST_PRONUNCIATION = 255  # phones; searches have tables as wide as the longest one
LARGE = 1 << 18  # bytes of a lexicon that is worth to be kept sorted
SPACE, NEWLINE = 0x20, 0x0A
# White space other than single spaces and the ends of lines that are not empty.
UNUSUAL = ("  ", "\n\n", " \n", "\n ", *"\0\t\r\v\f\x1c\x1d\x1e\x1f")
VARIANT = re.compile(r"(.+)\(\d+\)")  # CMUdict writes a word's second pronunciation as tomato(2)

PROBABILITY = re.compile(
    r"(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+][0-9]+"
)  # a bare 2 is X-SAMPA's ø
_VOWELS = "AA AE AH AO AW AX AXR AY EH ER EY IH IX IY OW OY UH UW UX"
_CONSONANTS = "B CH D DH DX EL EM EN F G HH JH K L M N NG P R S SH T TH V W WH Y Z ZH"
ARPABET = frozenset(f"{_VOWELS} {_CONSONANTS} SIL SPN".split())
ARPABET_SHARE = 0.75  # of a dictionary's phones; it may have a few of its own


class LexiconError(UserError):
    """A lexicon that cannot be read; the text names the file and the line."""


class LazyWords(Mapping[str, Pronunciations]):
    """The words of a lexicon's arrays, put together when the first of them is looked up."""

    def __init__(self, arrays: Columns | SortedLexicon) -> None:
        self.arrays = arrays

    @cached_property
    def columns(self) -> Columns:
        """The arrays in the order of the lexicon's file."""
        return self.arrays if isinstance(self.arrays, Columns) else self.arrays.restore_columns()

    @cached_property
    def _words(self) -> Mapping[str, Pronunciations]:
        columns = self.columns
        said = [columns.phones[code] for code in columns.codes.tolist()]
        bounds = columns.bounds.tolist()
        spelled = (tuple(said[begin:end]) for begin, end in pairwise(bounds))
        return make_lexicon(zip(columns.words, spelled, strict=True)).words

    def __getitem__(self, word: str) -> Pronunciations:
        return self._words[word]

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __len__(self) -> int:
        return len(self._words)


@dataclass(frozen=True)
class Lexicon:
    """Every word with its pronunciations, the usual one first."""

    words: Mapping[str, Pronunciations]

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.words

    def __getitem__(self, word: str) -> Pronunciations:
        return self.words[word]

    @cached_property
    def phones(self) -> tuple[str, ...]:
        """The phones of all words, sorted."""
        if isinstance(self.words, LazyWords):
            return self.words.arrays.phones
        return tuple(sorted({p for variants in self.words.values() for phones in variants for p in phones}))

    @cached_property
    def columns(self) -> Columns:
        """The same as arrays. Raises ``LexiconError`` when there are more than 255 phones."""
        if isinstance(self.words, LazyWords):
            return self.words.columns
        if len(self.phones) > MOST_PHONES:
            raise LexiconError(
                f"{len(self.phones)} phones are more than the {MOST_PHONES} that are supported"
            )
        codes = {phone: code for code, phone in enumerate(self.phones)}
        pairs = [(word, phones) for word, variants in self.words.items() for phones in variants]
        return Columns(
            [word for word, _ in pairs],
            self.phones,
            np.array([codes[phone] for _, phones in pairs for phone in phones], np.uint8),
            np.cumsum([0, *(len(phones) for _, phones in pairs)], dtype=np.int64),
        )

    @cached_property
    def by_sound(self) -> SortedLexicon:
        """The same sorted by pronunciation. Raises ``LexiconError`` as ``columns`` does."""
        if isinstance(self.words, LazyWords) and isinstance(self.words.arrays, SortedLexicon):
            return self.words.arrays
        return sort_columns(self.columns)


def make_lexicon(pairs: Iterable[tuple[str, Pronunciation]]) -> Lexicon:
    """The lexicon of ``(word, pronunciation)`` pairs; a word's variants keep their order."""
    words: dict[str, dict[Pronunciation, None]] = {}
    for word, phones in pairs:
        words.setdefault(word, {})[phones] = None
    return Lexicon({word: tuple(variants) for word, variants in words.items()})


# --- files ----------------------------------------------------------------------------------------


def read_dictionary(path: str | Path) -> Lexicon:
    """Read a pronouncing dictionary: ``word PH PH ...``, variants as ``word(2)`` or on lines of their own.

    Numbers with a decimal point behind the word are probabilities, as the Montreal Forced Aligner and Kaldi's
    ``lexiconp.txt`` have them: the first orders a word's variants. Words become lower case; those
    with one capital or some are kept as they are written, too. Phones of ARPABET, CMUdict's, become
    capitals and lose their stress (``AH0`` is ``AH``); all others stay as they are, with tones and in
    their case (X-SAMPA, IPA). Comments, behind ``#`` and on lines that begin with ``;;;``, are skipped.
    Raises ``LexiconError``, also where there are so many phones that they are none.
    """
    entries: list[tuple[str, float, Pronunciation]] = []
    numbers: list[tuple[int, Pronunciation]] = []
    for number, line in _number_lines(read_text(path, LexiconError)):
        if line.startswith(";;;"):
            continue
        word, *fields = line.partition(" #")[0].split() or [""]
        probability, phones = split_probabilities(fields)
        if not phones:
            raise LexiconError(f"{path}:{number}: is not a word and its phones")
        check_length(phones, path, number)
        variant = VARIANT.fullmatch(word)
        entries.append((variant[1] if variant else word, probability, phones))
        numbers.append((number, phones))
    entries.sort(key=lambda entry: -entry[1])  # stable: without probabilities the order stays
    if is_arpabet({phone for _, _, phones in entries for phone in phones}):
        for number, phones in numbers:
            if any(phone.isdigit() for phone in phones):
                raise LexiconError(f"{path}:{number}: has a phone that is a number")
        entries = [
            (word, probability, tuple(_strip_stress(phone) for phone in phones))
            for word, probability, phones in entries
        ]
    pairs = [(word.lower(), phones) for word, _, phones in entries]
    pairs += [(word, phones) for word, _, phones in entries if word not in (word.lower(), word.upper())]
    lexicon = _make_filled_lexicon(pairs, path)
    if len(lexicon.phones) > MOST_PHONES:
        raise LexiconError(
            f"{path}: is this a pronouncing dictionary, a word and its phones a line? It has "
            f"{len(lexicon.phones):,} phones, from {lexicon.phones[0]} to {lexicon.phones[-1]}; "
            f"at most {MOST_PHONES} are supported"
        )
    return lexicon


def split_probabilities(fields: Sequence[str]) -> tuple[float, Pronunciation]:
    """Split the probability of a pronunciation, by default 1, and those of silence from its phones."""
    count = next((n for n, field in enumerate(fields) if not PROBABILITY.fullmatch(field)), len(fields))
    return (float(fields[0]) if count else 1.0), tuple(fields[count:])


def is_arpabet(phones: Set[str]) -> bool:
    """Whether phones are ARPABET's, in any case and with stress; sets that tell cases apart are not."""
    bare = {_strip_stress(phone) for phone in phones}
    is_caseless = len({phone.casefold() for phone in phones}) == len(phones)
    return is_caseless and len(bare & ARPABET) >= ARPABET_SHARE * len(bare)


def _strip_stress(phone: str) -> str:
    bare = phone.upper().rstrip("012")
    return bare if bare in ARPABET else phone


def read_lexicon(path: str | Path) -> Lexicon:
    """Read what ``write_lexicon`` wrote; words and phones stay as they are. Raises ``LexiconError``.

    Kaldi's ``lexiconp.txt`` is read, too; its probabilities order the variants.
    """
    text = read_text(path, LexiconError)
    columns = _parse_columns(text)
    if columns is not None:
        return Lexicon(LazyWords(columns))
    entries: list[tuple[str, float, Pronunciation]] = []
    for number, line in _number_lines(text):
        word, *fields = line.split()
        probability, phones = split_probabilities(fields)
        if not phones:
            raise LexiconError(f"{path}:{number}: {word[:50]!r} has no phones")
        check_length(phones, path, number)
        entries.append((word, probability, phones))
    if any(probability != 1 for _, probability, _ in entries):
        entries.sort(key=lambda entry: (entry[0], -entry[1]))
    return _make_filled_lexicon([(word, phones) for word, _, phones in entries], path)


def open_lexicon(path: str | Path) -> Lexicon:
    """``read_lexicon`` for a lexicon that is searched: a large one is kept sorted for the next program."""
    kept = name_sorted_file(path)
    known = None if kept is None else open_sorted(kept)
    if known is not None:
        return Lexicon(LazyWords(known))
    lexicon = read_lexicon(path)
    if kept is None or Path(path).stat().st_size < LARGE:
        return lexicon
    keep_sorted(lexicon.by_sound, kept)
    return Lexicon(LazyWords(lexicon.by_sound))


def check_length(phones: Sequence[str], path: str | Path, number: int) -> None:
    """Raise ``LexiconError`` for a pronunciation that is longer than any word's."""
    if len(phones) > LONGEST_PRONUNCIATION:
        raise LexiconError(
            f"{path}:{number}: has {len(phones)} phones; no word has over {LONGEST_PRONUNCIATION}"
        )


def write_lexicon(lexicon: Lexicon, path: str | Path) -> None:
    """Write ``word PH PH ...``, a pronunciation a line, in the form of Kaldi's ``lexicon.txt``.

    Raises ``LexiconError`` for a pronunciation that would be read as a probability.
    """
    write_text(path, "".join(line + "\n" for line in format_lexicon(lexicon)))


def format_lexicon(lexicon: Lexicon) -> Iterator[str]:
    """The lines of a lexicon's file; raises ``LexiconError`` as ``write_lexicon`` does."""
    for word, variants in lexicon.words.items():
        for phones in variants:
            if PROBABILITY.fullmatch(phones[0]):
                raise LexiconError(
                    f"{word[:50]!r}: its first phone, {phones[0][:50]}, reads as a probability; rename it"
                )
            yield f"{word} {' '.join(phones)}"


def _number_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers counted from 1."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _parse_columns(text: str) -> Columns | None:
    """The columns of a text as ``write_lexicon`` writes it, with phones of one or two letters.

    ``None`` for any other text, which has to be read line by line.
    """
    if not text.isascii() or not text.endswith("\n") or text[0] in " \n" or any(u in text for u in UNUSUAL):
        return None
    letters = np.frombuffer(text.encode(), np.uint8)
    ends = np.flatnonzero((letters == SPACE) | (letters == NEWLINE))
    begins = np.append(0, ends[:-1] + 1)
    last = letters[ends] == NEWLINE
    first = np.append(True, last[:-1])
    lengths = (ends - begins)[~first]
    if (first & last).any() or lengths.max() > 2:  # a word without phones; longer phones
        return None
    places = begins[~first]
    keys = letters[places] + np.where(lengths == 2, letters[places + 1], 0) * np.int32(256)
    every = np.flatnonzero(np.bincount(keys)).tolist()
    phones = {chr(key & 255) + (chr(key >> 8) if key >> 8 else ""): key for key in every}
    if len(phones) > MOST_PHONES or any(map(PROBABILITY.fullmatch, phones)):
        return None
    codes = np.zeros(1 << 15, np.uint8)  # of ASCII letters
    for code, phone in enumerate(sorted(phones)):
        codes[phones[phone]] = code
    words = [text[begin:end] for begin, end in zip(begins[first].tolist(), ends[first].tolist(), strict=True)]
    counts = np.diff(np.append(np.flatnonzero(first), len(first))) - 1
    if counts.max() > LONGEST_PRONUNCIATION:
        return None
    return Columns(words, tuple(sorted(phones)), codes[keys], np.append(0, np.cumsum(counts)))


def _make_filled_lexicon(entries: list[tuple[str, Pronunciation]], path: str | Path) -> Lexicon:
    if not entries:
        raise LexiconError(f"{path}: has no words")
    return make_lexicon(entries)


# --- English endings ------------------------------------------------------------------------------

SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
VOICELESS = frozenset(("P", "T", "K", "F", "TH", "S", "SH", "CH"))
VOWELS = frozenset(["AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW"])


def add_s(phones: Pronunciation) -> Pronunciation:
    """A plural or a possessive: cats, dogs, horses."""
    if phones[-1] in SIBILANTS:
        return (*phones, "IH", "Z")
    return (*phones, "S" if phones[-1] in VOICELESS else "Z")


def add_d(phones: Pronunciation) -> Pronunciation:
    """A past: walked, turned, wanted."""
    if phones[-1] in ("T", "D"):
        return (*phones, "IH", "D")
    return (*phones, "T" if phones[-1] in VOICELESS else "D")


def add_ve(phones: Pronunciation) -> Pronunciation:
    """A have: they've, might've."""
    return (*phones, "V") if phones[-1] in VOWELS else (*phones, "AH", "V")


def drop_g(phones: Pronunciation) -> Pronunciation:
    """The end of goin', said of going."""
    return (*phones[:-1], "N") if phones[-1] == "NG" else phones


# An ending, what replaces it in the stem's spelling, what it does to the stem's phones.
CLITICS: tuple[tuple[str, str, Callable[[Pronunciation], Pronunciation]], ...] = (
    ("'s", "", add_s),
    ("'d", "", add_d),
    ("'ve", "", add_ve),
    ("'ll", "", lambda phones: (*phones, "AH", "L")),
    ("'re", "", lambda phones: (*phones, "ER")),
    ("n't", "", lambda phones: (*phones, "AH", "N", "T")),
)
PLURALS: tuple[tuple[str, str, Callable[[Pronunciation], Pronunciation]], ...] = (
    ("ies", "y", add_s),
    ("es", "", add_s),
    ("s", "", add_s),
)
SHORTEST_STEM = 2  # of a plural: "as" is not the plural of "a"


def derive_pronunciations(
    word: str, dictionary: Lexicon, pronounce: Callable[[str], Pronunciations]
) -> Pronunciations:
    """Pronounce a word outside the dictionary by its English ending; empty where no rule fits.

    A clitic (``kaliko's``, ``ladyship'll``) is added to what ``pronounce`` returns for its stem, whatever
    the stem is; a plural without apostrophe only to a word in the dictionary. Apostrophes at either end
    are silent, but ``goin'`` is ``going`` with an N.
    """
    if word.endswith("in'") and word[:-1] + "g" in dictionary:
        return _change_all(dictionary[word[:-1] + "g"], drop_g)
    bare = word.strip("'")
    if bare != word:
        return pronounce(bare) if bare else ()
    for ending, instead, change in CLITICS:
        stem = word.removesuffix(ending) + instead
        if word.endswith(ending) and stem:
            return _change_all(pronounce(stem), change)
    for ending, instead, change in PLURALS:
        stem = word.removesuffix(ending) + instead
        if word.endswith(ending) and len(stem) >= SHORTEST_STEM and stem in dictionary:
            variants = tuple(
                phones for phones in dictionary[stem] if ending != "es" or phones[-1] in SIBILANTS
            )
            if variants:
                return _change_all(variants, change)
    return ()


def _change_all(variants: Pronunciations, change: Callable[[Pronunciation], Pronunciation]) -> Pronunciations:
    return tuple(dict.fromkeys(change(phones) for phones in variants))
