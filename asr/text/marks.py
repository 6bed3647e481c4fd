"""Written prose as words with their marks: what punctuation is learned from, and how it is written back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARKS = ("", ",", ".", "?")  # behind a word
CASES = ("lower", "title", "upper")
NONE, COMMA, STOP, QUESTION = range(len(MARKS))
LOWER, TITLE, UPPER = range(len(CASES))

_SPELLED_OUT = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint", "messrs": "messieurs"}
_NO_STOP = re.compile(r"(?:[A-Za-z]|Mr|Mrs|Ms|Messrs|Dr|Prof|Rev|St|Capt|Col|Gen|Lt|Maj|Gov|Sen|vs|etc)\Z")
_TOKEN = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?|[^A-Za-z]+")
_PLAIN = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "“": '"', "”": '"', "_": " ", "*": " "})
_UNREADABLE = re.compile(r"[0-9@#$%&+=<>\\/|~^{}\[\]]")


@dataclass(frozen=True)
class MarkedWord:
    """A word as a recogniser writes it, what stands behind it, and how it is written.

    ``mark`` is a place in ``MARKS``, ``case`` one in ``CASES``.
    """

    text: str
    mark: int
    case: int


def read_marked_words(paragraph: str) -> list[MarkedWord]:
    """Read a paragraph of prose as marked words; none where it has figures or signs that nobody would read.

    Semicolons, colons, dashes and brackets count as commas, exclamation marks as full stops. What ends no
    sentence, because small letters go on, is a comma.
    """
    plain = unicodedata.normalize("NFKD", paragraph.translate(_PLAIN))
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    if _UNREADABLE.search(plain):
        return []
    tokens = [match[0] for match in _TOKEN.finditer(plain)]
    words: list[MarkedWord] = []
    for number, token in enumerate(tokens):
        if not token[0].isalpha():
            continue
        gap = tokens[number + 1] if number + 1 < len(tokens) else ""
        after = tokens[number + 2] if number + 2 < len(tokens) else ""
        bare = token.rstrip("'") or token
        text = _SPELLED_OUT.get(bare.lower(), bare.lower()) if gap.startswith(".") else bare.lower()
        words.append(MarkedWord(text, read_mark(bare, gap, after), read_case(bare)))
    return words


def read_mark(word: str, gap: str, after: str) -> int:
    """Read the mark in the ``gap`` between a word and the one ``after`` it."""
    if gap.startswith(".") and _NO_STOP.match(word):
        gap = gap[1:]
    ends_sentence = not after or after[0].isupper()
    if ends_sentence and "?" in gap:
        return QUESTION
    if ends_sentence and any(mark in gap for mark in ".!…"):
        return STOP
    if any(mark in gap for mark in ",;:()—–.!?…") or "--" in gap or " - " in gap:
        return COMMA
    return NONE


def read_case(word: str) -> int:
    """Read how a word is written: all of it in capitals, its first letter, or none."""
    letters = [c for c in word if c.isalpha()]
    if len(letters) > 1 and all(c.isupper() for c in letters):
        return UPPER
    return TITLE if word[0].isupper() else LOWER


def write_word(text: str, mark: int, case: int, begins_sentence: bool) -> str:
    """Write a word with its mark and capitals."""
    if case == UPPER:
        text = text.upper()
    elif case == TITLE or begins_sentence:
        text = text[:1].upper() + text[1:]
    return text + MARKS[mark]


def write_words(
    texts: Sequence[str], marks: Iterable[int], cases: Iterable[int], begins_sentence: bool = True
) -> list[str]:
    """Write all words of a text: sentences begin with a capital, the first word where it begins one."""
    written = []
    for text, mark, case in zip(texts, marks, cases, strict=True):
        written.append(write_word(text, mark, case, begins_sentence))
        begins_sentence = mark in (STOP, QUESTION)
    return written
