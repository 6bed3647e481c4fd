"""A text as people write it, word by word as it is spoken: figures in English words, remarks left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from asr.text.english import SCALES, SMALL, SMALL_ORDINALS, TENS

REMARK = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|<[^<>]*>|\{[^{}]*\}")
FIGURE = re.compile(
    r"(?P<money>[$£€])?(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,15})(?P<decimals>\.[0-9]{1,9})?"
    r"(?P<half>½|¼|¾)?(?P<ending>%|st|nd|rd|th|s|¢)?(?![0-9])"
)
SIGNS = {"&": " and ", "%": " percent ", "+": " plus ", "=": " equals ", "@": " at ", "°": " degrees "}
CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
PENCE = {"penny": "pence", "cent": "cents"}
FRACTIONS = {"½": "a half", "¼": "a quarter", "¾": "three quarters"}
NAMES = {value: word for word, value in (SMALL | TENS).items()}
ORDINALS = {word: list(SMALL_ORDINALS)[value] for word, value in SMALL.items()}
LARGE = sorted(((value, word) for word, value in SCALES.items()), reverse=True)


class WrittenWord(NamedTuple):
    """A word as the text has it, and what is said for it, in the model's form."""

    text: str
    spoken: tuple[str, ...]

    @property
    def is_lost(self) -> bool:
        """Whether the word has letters or figures, and nothing of it can be said."""
        return not self.spoken and any(character.isalnum() for character in self.text)


def split_written(text: str, normalise: Callable[[str], str]) -> tuple[list[WrittenWord], list[str]]:
    """Split a text into its written words; also return the remarks in brackets, which nobody says.

    Args:
        normalise: what makes of a text the form that the model was trained on.
    """
    remarks = [match[0] for match in REMARK.finditer(text) if any(c.isalnum() for c in match[0])]
    words = REMARK.sub(" ", text).split()
    return [WrittenWord(word, tuple(read_aloud(word, normalise).split())) for word in words], remarks


def read_aloud(word: str, normalise: Callable[[str], str]) -> str:
    """Return what is said for a written word, normalised; figures and signs only where they would be lost."""
    plain = normalise(word)
    if not any(c.isdigit() or c in SIGNS or c in CURRENCIES or c in FRACTIONS for c in word):
        return plain
    if any(character.isdigit() for character in plain):  # the model writes figures itself
        return plain
    return normalise(write_out(word))


def write_out(text: str) -> str:
    """Write figures and signs in words: ``$20.05`` is ``twenty dollars and five cents``."""
    # A hyphen between figures is said as "to"; a colon parts hours and minutes.
    text = re.sub(r"(?<=[0-9])[-–](?=[0-9])", " to ", text)
    text = re.sub(r"(?<=[0-9]):00(?![0-9])", " o'clock ", text)
    text = re.sub(r"(?<=[0-9]):0(?=[1-9])", " oh ", text)
    text = FIGURE.sub(_write_figure, re.sub(r"(?<=[0-9])[:/](?=[0-9])", " ", text))
    text = re.sub(r"[½¼¾]", lambda match: f" {FRACTIONS[match[0]]} ", text)
    return "".join(SIGNS.get(character, character) for character in text)


def _write_figure(match: re.Match[str]) -> str:
    digits, decimals = match["whole"], match["decimals"] or ""
    ending = match["ending"] or ""
    number = int(digits.replace(",", ""))
    if match["money"] and not match["half"]:
        return f" {_write_money(number, decimals, *CURRENCIES[match['money']])} "
    if decimals:
        words = f"{spell_number(number)} point {' '.join(NAMES[int(digit)] for digit in decimals[1:])}"
    elif "," not in digits and (digits.startswith("0") and len(digits) > 1):
        words = " ".join(NAMES[int(digit)] for digit in digits)
    elif len(digits) == 4 and 1100 <= number < 2100 and ending in ("", "s") and not match["half"]:
        words = spell_year(number)
    else:
        words = spell_number(number)
    if match["half"]:
        words += f" and {FRACTIONS[match['half']]}"
    if ending in ("st", "nd", "rd", "th"):
        words = make_ordinal(words)
    elif ending == "s":
        words = f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"
    return f" {words} " + {"%": "percent ", "¢": "cents "}.get(ending, "")


def _write_money(number: int, decimals: str, unit: str, part: str) -> str:
    words = f"{spell_number(number)} {unit}{'' if number == 1 else 's'}"
    if len(decimals) != 3:
        return (
            words
            if not decimals
            else f"{spell_number(number)} point {spell_number(int(decimals[1:]))} {unit}s"
        )
    cents = int(decimals[1:])
    return words + (f" and {spell_number(cents)} {part if cents == 1 else PENCE[part]}" if cents else "")


def spell_number(number: int) -> str:
    """Spell a whole number below a quadrillion: 1,205 is ``one thousand two hundred and five``."""
    for scale, word in LARGE:
        if number >= scale:
            rest = number % scale
            return f"{spell_number(number // scale)} {word}" + (
                f" {'and ' if rest < 100 else ''}{spell_number(rest)}" if rest else ""
            )
    if number >= 100:
        rest = number % 100
        return f"{NAMES[number // 100]} hundred" + (f" and {spell_number(rest)}" if rest else "")
    if number in NAMES:
        return NAMES[number]
    return f"{NAMES[number - number % 10]} {NAMES[number % 10]}"


def spell_year(number: int) -> str:
    """Spell a year of four figures: 1871 is ``eighteen seventy one``, 1905 ``nineteen oh five``."""
    first, last = divmod(number, 100)
    if 2000 <= number < 2010 or (first % 10 == 0 and not last):
        return spell_number(number)
    if not last:
        return f"{spell_number(first)} hundred"
    return f"{spell_number(first)} {'oh ' if last < 10 else ''}{spell_number(last)}"


def make_ordinal(words: str) -> str:
    """Make a number an ordinal: ``twenty one`` is ``twenty first``."""
    *before, last = words.split()
    ordinal = ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return " ".join([*before, ordinal])
