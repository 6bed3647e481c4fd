"""``english-v2``: ``english-v1`` with figures that are read as they are said.

``7½`` is ``7.5``; ``10-12`` is ``10 to 12``; ``June 3, 1871`` is ``june 3 1871``, as ``june third eighteen
seventy one`` is; ``20mm`` is ``20 mm``, as ``twenty millimetres`` is, and no filler; ``5pm`` is ``5 p m``.
"""

from __future__ import annotations

import re

from asr.text.english import (
    BRACKETED,
    CONTRACTIONS,
    DIGITS,
    FIGURES,
    FILLERS,
    HAS_DIGIT,
    INITIALS,
    NUMBER_WORDS,
    UNSPOKEN,
    WHOLE_WORDS,
    join_figures,
    read_numbers,
    simplify,
    write_money,
)

_MONTHS = "january february march april may june july august september october november december"
_SHORT_MONTHS = "jan feb mar apr jun jul aug sep sept oct nov dec"
MONTHS = frozenset(f"{_MONTHS} {_SHORT_MONTHS}".split())
UNITS = {
    **dict.fromkeys(("millimeter", "millimeters"), "mm"),
    **dict.fromkeys(("centimeter", "centimeters"), "cm"),
    **dict.fromkeys(("kilometer", "kilometers"), "km"),
    **dict.fromkeys(("kilogram", "kilograms", "kilo", "kilos"), "kg"),
}
DAY = re.compile(r"([1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?")
BEFORE_FRACTION = re.compile(r"(?<=[0-9])\s?([¼-¾⅐-⅞])")
HALVES = {"½": ".5", "¼": ".25", "¾": ".75"}
RANGE = re.compile(r"(?<![\w.,/:$£€-])([0-9]{1,4})(?: ?[-‐-–] ?)([0-9]{1,4})(?![\w/:-]|[.,][0-9])")
TYPED_HALF = re.compile(r"(?<![\w./])([0-9]+) 1/2(?![\w/])")
AFTER_FIGURE = re.compile(r"(?<=[0-9])(?=(?:mm|cm|km|kg|am|pm|a\.m|p\.m)(?![\w]))")
QUARTERS = {"and a quarter": "point two five", "and three quarters": "point seven five"}
PARTED = "\ue000"  # stands between figures that must not become one; never in the result


def normalise_english_figures(text: str) -> str:
    """``english-v2``: ``at 5pm on June 3, 1871`` is ``at 5 p m on june 3 1871``."""
    text = BEFORE_FRACTION.sub(lambda match: HALVES.get(match[1], f" {match[1]}"), text)
    text = BRACKETED.sub(" ", simplify(text.replace(PARTED, " ")))
    text = RANGE.sub(_write_range, TYPED_HALF.sub(r"\1.5", text))
    text = INITIALS.sub(lambda match: match[0].replace(".", ""), AFTER_FIGURE.sub(" ", text))
    if "'" in text:
        for pattern, replacement in CONTRACTIONS:
            text = pattern.sub(replacement, text)
    text = FILLERS.sub(lambda match: match[0] if _is_length(match) else " ", text)
    for pattern, replacement in FIGURES:
        text = pattern.sub(replacement, text)
    words = UNSPOKEN.sub(" ", text).split()
    words = " ".join(WHOLE_WORDS.get(word, word) for word in words).split()
    return " ".join(_write_figures(_read_quarters(words)))


def _write_range(match: re.Match[str]) -> str:
    """Write ``10-12`` as it is said, but not ``555-1234`` or ``3-2``."""
    first, last = match[1], match[2]
    is_range = int(first) < int(last) and (len(first), len(last)) != (3, 4) and not last.startswith("0")
    return f"{first} to {last}" if is_range else match[0]


def _is_length(match: re.Match[str]) -> bool:
    """Whether ``mm`` follows a number."""
    before = match.string[: match.start()].replace("-", " ").split()
    return match[0] == "mm" and bool(before) and (before[-1] in NUMBER_WORDS or before[-1][-1].isdigit())


def _read_quarters(words: list[str]) -> list[str]:
    """``words`` with quarters behind a number as decimals."""
    for phrase, decimals in QUARTERS.items():
        length = len(phrase.split())
        at = 1
        while at + length <= len(words):
            is_number = words[at - 1] in NUMBER_WORDS or DIGITS.fullmatch(words[at - 1])
            if is_number and words[at : at + length] == phrase.split():
                words = [*words[:at], *decimals.split(), *words[at + length :]]
            at += 1
    return words


def _write_figures(words: list[str]) -> list[str]:
    """As ``english-v1`` writes figures, but a day of a month is not joined to its year."""
    if NUMBER_WORDS.isdisjoint(words) and not any(map(HAS_DIGIT.search, words)):
        return words
    figures = write_money(join_figures(_part_dates(read_numbers(words))))
    written: list[str] = []
    for word in figures:
        follows_figure = bool(written) and bool(HAS_DIGIT.search(written[-1]))
        if word == PARTED:
            continue
        if word in ("am", "pm") and follows_figure:
            written += word
        elif word in UNITS and (follows_figure or written[-1:] == ["one"]):
            written.append(UNITS[word])
        else:
            written.append("one" if word == "1" else word)
    return written


def _part_dates(words: list[str]) -> list[str]:
    """Write the day beside a month as a plain figure: ``june 3rd 18 71``, ``the 3rd of june``, ``3 june``."""
    parted: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        day = DAY.fullmatch(word)
        if day and parted and parted[-1] in MONTHS and (word != day[1] or _begins_year(words, at + 1)):
            parted += [day[1], PARTED]
        elif day and word != day[1] and words[at + 1 : at + 2] == ["of"] and words[at + 2 : at + 3]:
            if words[at + 2] in MONTHS:
                parted.append(day[1])
                at += 1  # without the "of"
            else:
                parted.append(word)
        elif day and words[at + 1 : at + 2] and words[at + 1] in MONTHS:
            parted.append(day[1])
        else:
            parted.append(word)
        at += 1
    return parted


def _begins_year(words: list[str], at: int) -> bool:
    """Whether figures of four digits together begin there."""
    digits = ""
    while at < len(words) and DIGITS.fullmatch(words[at]) and len(digits) < 4:
        digits += words[at]
        at += 1
    return len(digits) == 4
