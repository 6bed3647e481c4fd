"""How sound files become others: bytes and texts changed at random."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

# What stands where a number should: too large, too small, none at all.
NUMBERS = (
    *("0", "-1", "1", "3", "255", "256", "65536", "2147483648", "18446744073709551616", "0.5", "-0.0"),
    *("1e308", "-1e308", "1e-308", "1e999", "nan", "inf", "-inf", "9" * 30, "9" * 5000, "0x" + "f" * 4000),
    *("true", '""', '"a"', "[]", "{}", "[" * 2000, "1 2", "1_000", "\u0663"),
)
# What stands where a word should.
WORDS = (
    *("", " ", "\t", "\n", "\r", "\0", "\x1b[2J", "\u2028", "\ufeff", "\U0001f600", "e\u0301", "\u0130"),
    *("a" * 10_000, "-->", "=1+1", "(", ")", "{a / b}", "<unk>", "<s>", "</s>", "<blank>", "#", ";;"),
    *("%s", "../../x", "\\", '"', "'", "\\data\\", "\\end\\", "word(2)", "a b", ",", "\u05d0", "\u200d"),
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
WORD = re.compile(r"[^\s\"=,:]+")


# --- bytes ----------------------------------------------------------------------------------------


def flip_bits(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Flip from one bit to one in a hundred."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 3, 10, max(1, len(content) // 12)))):
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def falsify_header(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Replace numbers in the header by others, by the largest, by zero."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        size = draw.choice((1, 2, 4, 8))
        place = draw.randrange(min(4, len(content) - 1), min(len(content), draw.choice((64, 256, 1024))))
        lies = (bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), draw.randbytes(size))
        damaged[place : place + size] = draw.choice(lies)
    return bytes(damaged)


def cut_off(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Keep the beginning of a file, down to nothing."""
    return content[: draw.choice((draw.randrange(len(content)), draw.randrange(200), 0))]


def cut_out(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Leave out, zero, repeat or replace a stretch."""
    begin, end = sorted((draw.randrange(len(content)), draw.randrange(len(content))))
    between = draw.choice((b"", bytes(end - begin), 2 * content[begin:end], draw.randbytes(end - begin)))
    return content[:begin] + between + content[end:]


def join_files(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Join two files, or the header of one and the content of another."""
    place = draw.choice((len(content), 12, 44, draw.randrange(len(content))))
    return content[:place] + other[draw.choice((0, place)) :]


def make_up(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Make up random bytes, alone or after the beginning of a file."""
    return content[: draw.choice((0, 4, 12, 16, 64))] + draw.randbytes(draw.choice((1, 100, 10_000, 100_000)))


DAMAGES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    flip_bits, falsify_header, cut_off, cut_out, join_files, make_up,
)  # fmt: skip


def damage(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Damage a file in one of the ways above."""
    return draw.choice(DAMAGES)(content or b"\0", other, draw)


# --- texts ----------------------------------------------------------------------------------------


def replace_number(text: str, draw: random.Random) -> str:
    """Replace a number by one that nobody expects."""
    return replace_match(NUMBER, text, draw.choice(NUMBERS), draw)


def replace_word(text: str, draw: random.Random) -> str:
    """Replace a word by one that nobody expects."""
    return replace_match(WORD, text, draw.choice(WORDS), draw)


def replace_match(pattern: re.Pattern[str], text: str, new: str, draw: random.Random) -> str:
    """Replace one place where ``pattern`` matches by ``new``."""
    places = [match.span() for match in pattern.finditer(text)]
    if not places:
        return text + new
    begin, end = draw.choice(places)
    return text[:begin] + new + text[end:]


def change_lines(text: str, draw: random.Random) -> str:
    """Drop, repeat or swap lines."""
    lines = text.split("\n")
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    kind = draw.randrange(3)
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(first, lines[second])
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return "\n".join(lines)


def change_letters(text: str, draw: random.Random) -> str:
    """Leave out a stretch, or put a strange one in."""
    begin, end = sorted((draw.randint(0, len(text)), draw.randint(0, len(text))))
    return text[:begin] + draw.choice((*WORDS, "")) + text[draw.choice((begin, end, begin + 1)) :]


CHANGES: tuple[Callable[[str, random.Random], str], ...] = (
    replace_number, replace_number, replace_word, change_lines, change_letters,
)  # fmt: skip


def change_text(text: str, other: str, draw: random.Random) -> bytes:
    """Change a text in up to four places, as UTF-8; one in six is damaged as bytes instead."""
    if draw.randrange(6) == 0:
        return damage(text.encode(), other.encode(), draw)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        text = draw.choice(CHANGES)(text, draw)
    return text.encode("utf-8", "surrogatepass")
