"""Named, versioned normalisers: what counts as the same text.

A name ends in its version. What it does to a text never changes; a better one gets a new version.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from asr.core.files import read_text
from asr.errors import UserError
from asr.text.english import normalise_english
from asr.text.english_figures import normalise_english_figures

Normaliser = Callable[[str], str]


class NormaliserError(UserError):
    """A table of substitutions that cannot be read; names the file and the line."""


def leave_unchanged(text: str) -> str:
    """``none-v1``: the text as it is."""
    return text


def normalise_letters(text: str) -> str:
    """``letters-v1``: lower case, a to z, apostrophe and single spaces; everything else goes.

    Typographic apostrophes become plain ones and accented letters their base letter; every other
    character separates words, so that ``well-known`` becomes ``well known``.
    """
    text = text.translate(_APOSTROPHES).lower()
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join("".join(c if c in _LETTERS else " " for c in bare).split())


_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz'")
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})


def normalise_basic(text: str) -> str:
    """``basic-v1``: any language without case, punctuation and symbols; Chinese and Japanese by character.

    Unicode's NFKC form, case folded (``Straße`` is ``strasse``). Punctuation, symbols, emoji and
    control characters separate words, invisible characters (byte order marks, joiners, marks of
    direction, variation selectors) are dropped, and an apostrophe stays between letters. Han, Hiragana and
    Katakana characters are words of their own, because their texts have no spaces.
    Letters keep their accents and vowel signs.
    """
    if text.isascii():
        text = text.lower().translate(_BASIC)
    else:
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = unicodedata.normalize("NFC", text.translate(_BASIC))
    return " ".join(_LONE_APOSTROPHE.sub(" ", text).split())


_LONE_APOSTROPHE = re.compile(r"(?<![^\s'])'|'(?![^\s'])")
_EAST_ASIAN = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_WRITTEN_WITHOUT_SPACES = re.compile(f"[{_EAST_ASIAN}]")
_VARIATION_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")


class _Basic(dict[int, str]):
    """What ``basic-v1`` makes of each character, worked out when it first occurs."""

    def __missing__(self, code: int) -> str:
        self[code] = replaced = _basic_character(chr(code))
        return replaced


def _basic_character(character: str) -> str:
    category = unicodedata.category(character)
    if character in "'’‘ʼ`":
        return "'"
    if category in ("Cf", "Me") or _VARIATION_SELECTORS.match(character):
        return ""
    if category[0] in "PSZ" or category == "Cc":
        return " "
    return f" {character} " if _WRITTEN_WITHOUT_SPACES.match(character) else character


_BASIC = _Basic()


def normalise_basic_scripts(text: str) -> str:
    """``basic-v2``: ``basic-v1`` for more scripts, and for errors in characters.

    The dotted capital I (``İstanbul``) is an i without a mark, the Arabic tatweel is dropped, and Thai, Lao,
    Khmer and Burmese, which are written without spaces between words, are parted like Chinese: a word is a
    letter with its marks. Spaces between such characters are no characters: ``list_characters``.
    """
    if text.isascii():
        return normalise_basic(text)
    text = unicodedata.normalize("NFKC", text).replace("İ", "i").replace("\u0640", "")
    return normalise_basic(_MARKED_LETTER.sub(r" \g<0> ", normalise_basic(text)))


_SCRIPTS = "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"  # Thai to Burmese
_CODES = (*range(0xE01, 0xF00), *range(0x1000, 0x10A0), *range(0x1780, 0x1800), *range(0xA9E0, 0xAA80))
_MARKS = "".join(chr(code) for code in _CODES if unicodedata.category(chr(code))[0] == "M")
_MARKED_LETTER = re.compile(f"[{_SCRIPTS}][{_MARKS}]*")
_UNSPACED = _EAST_ASIAN + _SCRIPTS
_SPACE_BESIDE_LETTER = re.compile(f"(?<=[{_UNSPACED}]) | (?=[{_UNSPACED}])")


def list_characters(text: str) -> str:
    """Leave out the spaces of a normalised text that stand beside letters of scripts without spaces."""
    return _SPACE_BESIDE_LETTER.sub("", " ".join(text.split()))


NORMALISERS: dict[str, Normaliser] = {
    "none-v1": leave_unchanged,
    "letters-v1": normalise_letters,
    "basic-v1": normalise_basic,
    "english-v1": normalise_english,
    "basic-v2": normalise_basic_scripts,
    "english-v2": normalise_english_figures,
}
SPELLERS: dict[str, Callable[[str], str]] = {"basic-v2": list_characters}  # others count every space


def add_substitutions(table: Mapping[str, str], normalise: Normaliser) -> Normaliser:
    """A normaliser that applies ``normalise`` and then replaces phrases as ``table`` says.

    Both columns are normalised too, so that they can be written in any case. Only whole words are
    replaced, the longest phrase first, each place once.
    """
    phrases = {normalise(said): normalise(meant) for said, meant in table.items()}
    longest_first = sorted(filter(None, phrases), key=len, reverse=True)
    if not longest_first:
        return normalise
    pattern = re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, longest_first))})(?!\S)")

    def substitute(text: str) -> str:
        return " ".join(pattern.sub(lambda match: phrases[match[0]], normalise(text)).split())

    return substitute


def read_substitutions(path: Path) -> dict[str, str]:
    """A user's own table: on each line a phrase, a tab and its replacement, which may be empty.

    Empty lines and lines that begin with ``#`` are skipped. Raises ``NormaliserError``.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_text(path, NormaliserError).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        said, tab, meant = line.partition("\t")
        if not tab or not said.strip() or "\t" in meant:
            raise NormaliserError(f"{path}:{number}: is not a phrase, a tab and its replacement")
        if table.setdefault(said.strip(), meant.strip()) != meant.strip():
            raise NormaliserError(f"{path}:{number}: {said.strip()!r} has another replacement further up")
    return table
