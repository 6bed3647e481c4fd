"""``english-v1``: English as it is written, in one spelling for each way of saying it.

The rules are those that Radford et al. published for Whisper (*Robust Speech Recognition via
Large-Scale Weak Supervision*, 2022, appendix C): what stands in brackets and fillers go, contractions
are written out, spelled-out numbers and sums of money become figures, British spellings American ones.
They are written anew here, because a version must never change, and differ from Whisper's own program
where that loses or joins words:

- ``'s`` is ``is`` (or ``has``) after a pronoun only; after a name it stays, since it may be a
  possessive: ``john's car`` stays.
- A sum of money keeps its currency whatever its size: ``one dollar`` is ``$1``, not ``one``.
- Figures that follow each other become one, however they were written, so that ``4:30``,
  ``four thirty``, ``555-1234`` and ``nineteen oh five`` match what was said. A string of digits is then
  one word; to measure digits, use ``basic-v1``.
- ``U.S.A.`` is ``usa``, not three words.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import NamedTuple


def normalise_english(text: str) -> str:
    """``english-v1``: ``Mr. Smith's got $3.5 million`` is ``mister smith's got $3500000``."""
    text = simplify(text)
    text = BRACKETED.sub(" ", text)
    text = INITIALS.sub(lambda match: match[0].replace(".", ""), text)
    if "'" in text:
        for pattern, replacement in CONTRACTIONS:
            text = pattern.sub(replacement, text)
    text = FILLERS.sub(" ", text)
    for pattern, replacement in FIGURES:
        text = pattern.sub(replacement, text)
    words = UNSPOKEN.sub(" ", text).split()
    words = " ".join(WHOLE_WORDS.get(word, word) for word in words).split()
    return " ".join(write_figures(words))


def simplify(text: str) -> str:
    """Lower case in Unicode's NFKC form, without diacritics and with plain apostrophes and hyphens."""
    if text.isascii():
        return text.lower().replace("`", "'")
    text = unicodedata.normalize("NFKC", text).casefold().translate(PLAIN)
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


PLAIN = str.maketrans(
    {
        **dict.fromkeys("’‘ʼ`´′", "'"),
        **dict.fromkeys("‐‑‒–—−", "-"),
        "⁄": "/",  # what NFKC leaves of ½
        "æ": "ae",
        "œ": "oe",
        "ø": "o",
        "ł": "l",
        "đ": "d",
    }
)

BRACKETED = re.compile(r"\[[^\[\]]*\]|\([^()]*\)")  # [laughter], (inaudible)
INITIALS = re.compile(r"(?<![a-z0-9'.])[a-z](?:\.[a-z])+(?![a-z0-9'])\.?")  # u.s.a., p.m.
FILLERS = re.compile(r"(?<![\w'])(?:h+m+|m{2,}|m+h+m+|u+h+m*(?![- ]?huh)|u+m+|er+m+)(?![\w'])")

_PRONOUNS = (
    "it|he|she|that|there|here|what|who|where|when|how|why|no one|(?:every|some|any)(?:one|body|thing)|"
    "nobody|nothing"
)
_PARTICIPLES = "been|got|gone|done|had|become|seen|taken|better"
CONTRACTIONS: list[tuple[re.Pattern[str], str]] = [  # whole words only, in this order
    (re.compile(r" +(?=(?:n't|'(?:s|m|d|re|ve|ll))(?![\w']))"), ""),  # "do n't"
    (re.compile(r"(?<!\w)'cause\b"), "because"),
    (re.compile(r"(?<!\w)'+|'+(?!\w)"), " "),  # quotes
    *(
        (re.compile(rf"(?<![\w'])(?:{short})(?![\w'])"), written)
        for short, written in {
            r"([\w']+)'ve": r"\1 have",
            r"([\w']+)'ll": r"\1 will",
            r"([\w']+)'re": r"\1 are",
            r"won't": "will not",
            r"can't": "can not",
            r"shan't": "shall not",
            r"(?!ain't)(\w+)n't": r"\1 not",
            r"let's": "let us",
            r"y'all": "you all",
            r"ma'am": "madam",
            r"i'm": "i am",
            r"i'm?ma": "i am going to",
            rf"({_PRONOUNS})'s(?= (?:not )?(?:{_PARTICIPLES})\b)": r"\1 has",
            rf"({_PRONOUNS})'s": r"\1 is",
            rf"(\w+)'d(?= (?:not )?(?:{_PARTICIPLES})\b)": r"\1 had",
            r"(\w+)'d": r"\1 would",
        }.items()
    ),
]

# Signs that belong to a figure, and those that only look as if they did.
FIGURES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))"), ""),  # 1,000
    (re.compile(r"(?<![\w.])-(?=[$£€¥₹]?[0-9])"), " minus "),
    (re.compile(r"(?<![\w.])\+(?=[$£€¥₹]?[0-9])"), " plus "),
    (re.compile(r"(?<![0-9.])\.(?=[0-9])"), "0."),
    (re.compile(r"(?<=[0-9])'s\b"), "s"),  # the 1960's
    (re.compile(r"(?<=[0-9])\.(?![0-9])|(?<![0-9])\."), " "),
    (re.compile(r"(?<![0-9])/|/(?![0-9])"), " "),
    (re.compile(r"&"), " and "),
    (re.compile(r"%|\bper cent\b"), " percent "),
    (re.compile(r"(?<=[0-9])¢"), " cents"),
    (re.compile(r"(?<![0-9.$£€¥₹])([0-9]+(?:\.[0-9]+)?) ?([$£€¥₹])(?! ?[0-9])"), r"\2\1"),  # 20 €
    (re.compile(r"([$£€¥₹¢])"), r" \1"),
    (re.compile(r"[$£€¥₹¢](?![0-9])"), " "),
]
UNSPOKEN = re.compile(r"(?<![^\W_])'|'(?![^\W_])|[^\w\s'./$£€¥₹¢]|_")


# Numbers

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
_ORDINALS = (
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
SMALL = {word: value for value, word in enumerate(_SMALL.split())}
SMALL_ORDINALS = {word: value for value, word in enumerate(_ORDINALS.split())}
UNITS = {word: value for word, value in SMALL.items() if 1 <= value <= 9}
UNIT_ORDINALS = {word: value for word, value in SMALL_ORDINALS.items() if 1 <= value <= 9}
TENS = {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
TENS_ORDINALS = {word[:-1] + "ieth": value for word, value in TENS.items()}
DECADES = {word[:-1] + "ies": value for word, value in TENS.items()}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
LARGE = {"hundred": 100, **SCALES}
LARGE_ORDINALS = {word + "th": value for word, value in LARGE.items()}
NUMBER_WORDS = frozenset().union(SMALL, SMALL_ORDINALS, TENS, TENS_ORDINALS, DECADES, LARGE, LARGE_ORDINALS)
ZEROS = ("oh", "o")  # between figures only: elsewhere they are no numbers

HAS_DIGIT = re.compile(r"[0-9]")
DIGITS = re.compile(r"[0-9]+")
FIGURE = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")  # what arithmetic is exact for
DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")
WHOLE_SUM = re.compile(r"[$£€][0-9]+")
CENTS = re.compile(r"[0-9]{1,2} (?:cents?|pence)")
SUM = re.compile(r"([$£€¥₹])[0-9]+(?:\.[0-9]+)?")
DECADE = re.compile(r"[1-9]0s")
CURRENCIES = {
    "dollar": "$",
    "dollars": "$",
    "pound": "£",
    "pounds": "£",
    "euro": "€",
    "euros": "€",
    "rupee": "₹",
    "rupees": "₹",
    "yen": "¥",
    "cent": "¢",
    "cents": "¢",
}
END = ("", "", "", "")  # behind the last word, so that a look ahead always finds something


class Part(NamedTuple):
    """A number read from words: its value, the place behind it, and what follows its last figure."""

    value: Decimal
    end: int
    suffix: str = ""  # "th" for every ordinal, "s" for a decade

    @property
    def figure(self) -> str:
        """The number as it is written in figures."""
        suffix = choose_suffix(int(self.value)) if self.suffix == "th" else self.suffix
        return f"{self.value:f}{suffix}"


def choose_suffix(value: int) -> str:
    """``st``, ``nd``, ``rd`` or ``th``."""
    return "th" if 10 < value % 100 < 20 else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")


def write_figures(words: list[str]) -> list[str]:
    """``words`` with their numbers as figures: ``twenty first`` is ``21st``, ``ten percent`` ``10%``."""
    if NUMBER_WORDS.isdisjoint(words) and not any(map(HAS_DIGIT.search, words)):
        return words
    # A lone one is more often a pronoun than a number.
    return ["one" if word == "1" else word for word in write_money(join_figures(read_numbers(words)))]


def read_numbers(words: list[str]) -> list[str]:
    """``words`` with every number that is spelled out, or scaled as in ``3.5 million``, as one figure."""
    padded = [*words, *END]
    figures = []
    at = 0
    while at < len(words):
        sum_of_money = SUM.fullmatch(padded[at])
        sign = sum_of_money[1] if sum_of_money else ""
        padded[at] = padded[at].removeprefix(sign)
        number = read_number(padded, at)
        if sign and number and number.suffix:
            number = None
        figures.append(sign + (number.figure if number else padded[at]))
        at = number.end if number else at + 1
    return figures


def read_number(words: list[str], at: int) -> Part | None:
    """The longest number that begins at a word and that is not one plain figure already.

    It is a sum of groups below a thousand with falling scales: *two million, three thousand and five*.
    """
    total, ceiling, end = Decimal(0), None, at
    while part := read_below_thousand(words, end + (end > at and words[end] == "and")):
        follower = words[part.end]
        if not part.suffix and follower in SCALES and (ceiling is None or SCALES[follower] < ceiling):
            total, ceiling, end = (
                total + multiply(part.value, SCALES[follower]),
                SCALES[follower],
                part.end + 1,
            )
        elif not part.suffix and follower in LARGE_ORDINALS and 0 < part.value < 1000:
            return Part(total + multiply(part.value, LARGE_ORDINALS[follower]), part.end + 1, "th")
        elif (part.suffix or follower not in SCALES) and (ceiling is None or part.value < ceiling):
            plain_figure = part.end == at + 1 and FIGURE.fullmatch(words[at])
            return None if plain_figure else part._replace(value=total + part.value)
        else:
            break
    return None if ceiling is None else read_fraction(words, Part(total, end))


def read_below_thousand(words: list[str], at: int) -> Part | None:
    """A number without a scale: *two hundred and fifty first*, *3.5*, *two and a half*, *a* thousand."""
    if words[at] in LARGE or (words[at] in ("a", "an") and words[at + 1] in LARGE):
        part: Part | None = Part(Decimal(1), at + (words[at] not in LARGE))
    elif words[at] in LARGE_ORDINALS:
        return Part(Decimal(LARGE_ORDINALS[words[at]]), at + 1, "th")
    else:
        part = read_below_hundred(words, at)
    if part is None:
        return None
    part = read_fraction(words, part)
    if part.suffix or words[part.end] != "hundred":
        return part
    value, end = multiply(part.value, 100), part.end + 1
    rest = read_below_hundred(words, end + (words[end] == "and"))
    if rest and rest.value and words[rest.end] != "hundred":
        return Part(value + rest.value, rest.end, rest.suffix)
    return read_fraction(words, Part(value, end))


def read_below_hundred(words: list[str], at: int) -> Part | None:
    """A figure as written, or a number from zero to ninety-nine: cardinal, ordinal or decade."""
    word, follower = words[at], words[at + 1]
    if FIGURE.fullmatch(word):
        return Part(Decimal(word), at + 1)
    if word in TENS:
        if follower in UNITS:
            return Part(Decimal(TENS[word] + UNITS[follower]), at + 2)
        if follower in UNIT_ORDINALS:
            return Part(Decimal(TENS[word] + UNIT_ORDINALS[follower]), at + 2, "th")
    for numbers, suffix in (
        (SMALL, ""),
        (TENS, ""),
        (SMALL_ORDINALS, "th"),
        (TENS_ORDINALS, "th"),
        (DECADES, "s"),
    ):
        if word in numbers:
            return Part(Decimal(numbers[word]), at + 1, suffix)
    return None


def read_fraction(words: list[str], part: Part) -> Part:
    """``part`` and what follows it as *point one four* or *and a half*."""
    if part.suffix or part.value % 1:
        return part
    if words[part.end : part.end + 3] == ["and", "a", "half"]:
        return Part(part.value + Decimal("0.5"), part.end + 3)
    if words[part.end] != "point":
        return part
    digits, end = "", part.end + 1
    while decimals := read_decimals(words, end):
        digits, end = digits + decimals[0], decimals[1]
    return Part(Decimal(f"{part.value}.{digits}"), end) if digits else part


def read_decimals(words: list[str], at: int) -> tuple[str, int] | None:
    """The next figures behind a decimal point, and the place behind them."""
    if words[at] in ZEROS:
        return "0", at + 1
    if DIGITS.fullmatch(words[at]):
        return words[at], at + 1
    part = read_below_hundred(words, at)
    return (part.figure, part.end) if part and DIGITS.fullmatch(part.figure) else None


def multiply(value: Decimal, scale: int) -> Decimal:
    """The product, without decimals where it is a whole number."""
    product = value * scale
    return product.to_integral_value() if product == product.to_integral_value() else product


def join_figures(words: list[str]) -> list[str]:
    """``words`` with figures that follow each other as one: ``19 84``, ``19 o 5``, ``19 60s``."""
    figures: list[str] = []
    for at, word in enumerate(words):
        before = figures[-1] if figures else ""
        if DIGITS.fullmatch(before):
            after = words[at + 1] if at + 1 < len(words) else ""
            if word in ZEROS and DIGITS.fullmatch(after):
                word = "0"
            if DIGITS.fullmatch(word) or (len(before) == 2 and DECADE.fullmatch(word)):
                figures[-1] += word
                continue
        figures.append(word)
    return figures


def write_money(words: list[str]) -> list[str]:
    """``words`` with sums as ``$20.05`` and shares as ``10%``, however they were said."""
    padded = [*words, *END]
    sums: list[str] = []
    at = 0
    while at < len(words):
        word, unit = padded[at], padded[at + 1]
        if DECIMAL.fullmatch(word):
            if unit == "percent":
                sums.append(word + "%")
                at += 2
                continue
            if unit in CURRENCIES:
                word, at = CURRENCIES[unit] + word, at + 1
        at += 1
        cents = at + (padded[at] == "and")
        if WHOLE_SUM.fullmatch(word) and CENTS.fullmatch(" ".join(padded[cents : cents + 2])):
            word, at = f"{word}.{padded[cents]:0>2}", cents + 2
        sums.append(word)
    return sums


# Spelling


def list_american_spellings() -> dict[str, str]:
    """British spellings of common words with their endings, and the American ones."""
    families = [
        (_OUR, "our", "or", ",s,ed,ing,able,ite,ites,ful,less,hood,hoods,er,ers,y"),
        (_ISE, "is", "iz", "e,es,ed,ing,er,ers,ation,ations"),
        (_LL, "ll", "l", "ed,ing,er,ers,or,ors"),
        (_RE, "re", "er", ",s"),
    ]
    spellings = {
        stem + british + ending: stem + american + ending
        for stems, british, american, endings in families
        for stem in stems.split()
        for ending in endings.split(",")
    }
    others = _OTHERS.split()
    return spellings | dict(zip(others[::2], others[1::2], strict=True))


_OUR = (
    "arm behavi cand clam col demean endeav fav ferv flav harb hon hum lab neighb od parl ranc rig rum sav "
    "savi splend tum val vap vig"
)
_ISE = (
    "agon apolog author capital categor character civil colon critic crystall custom emphas equal fertil "
    "final formal general harmon hypnot ideal immun industrial initial legal local maxim memor minim mobil "
    "modern monopol national neutral normal optim organ penal personal popular priorit public real recogn "
    "revolution scrutin social special stabil standard summar symbol sympath terror util visual"
)
_LL = "cance counse dia equa fue jewe labe leve marve mode quarre signa trave"
_RE = "calib cent fib lit lust meag met sab somb spect theat kilomet centimet millimet"
_OTHERS = """
    analyse analyze  analysed analyzed  analysing analyzing  catalogue catalog  catalogues catalogs
    dialogue dialog  dialogues dialogs  cheque check  cheques checks  defence defense  offence offense
    pretence pretense  licence license  licences licenses  grey gray  greyer grayer  greyish grayish
    mould mold  moulds molds  plough plow  ploughs plows  ploughed plowed  ploughing plowing
    programme program  programmes programs  sceptic skeptic  sceptics skeptics  sceptical skeptical
    scepticism skepticism  storey story  storeys stories  tyre tire  tyres tires  pyjamas pajamas
    jewellery jewelry  woollen woolen  aluminium aluminum  aeroplane airplane  aeroplanes airplanes
    skilful skillful  wilful willful  fulfil fulfill  enrol enroll  enrolment enrollment
    fulfilment fulfillment  instalment installment  moustache mustache  moustaches mustaches
    draught draft  draughts drafts  centred centered  towards toward  afterwards afterward
    judgement judgment
"""


WHOLE_WORDS = {
    "mr": "mister",
    "mrs": "missus",
    "dr": "doctor",
    "st": "saint",
    "prof": "professor",
    "capt": "captain",
    "lt": "lieutenant",
    "sgt": "sergeant",
    "col": "colonel",
    "gen": "general",
    "gov": "governor",
    "sen": "senator",
    "rep": "representative",
    "pres": "president",
    "rev": "reverend",
    "hon": "honorable",
    "jr": "junior",
    "sr": "senior",
    "esq": "esquire",
    "cannot": "can not",
    "em": "them",
    "til": "until",
    "gonna": "going to",
    "wanna": "want to",
    "gotta": "got to",
    "gimme": "give me",
    "lemme": "let me",
    "dunno": "do not know",
    "kinda": "kind of",
    "sorta": "sort of",
    "outta": "out of",
    "ok": "okay",
    "vs": "versus",
    "etc": "et cetera",
    **list_american_spellings(),
}
