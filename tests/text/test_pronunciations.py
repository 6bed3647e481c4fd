"""A lexicon sorted by pronunciation: what is in it, and the file that keeps it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from asr.text import lexicon as lexicons
from asr.text.lexicon import make_lexicon, open_lexicon, read_lexicon, write_lexicon
from asr.text.pronunciations import (
    MOST_FILES,
    find_cache_folder,
    grow_trie,
    keep_sorted,
    name_sorted_file,
    open_sorted,
    write_sorted,
)

PAIRS = [
    ("two", ("T", "UW")),
    ("a", ("AH",)),
    ("a", ("EY",)),
    ("to", ("T", "UW")),
    ("äh", ("AH",)),
    ("tooth", ("T", "UW", "TH")),
]
LEXICON = make_lexicon(PAIRS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder of this test's own, and lexicons of every size worth to be kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.setattr(lexicons, "LARGE", 0)
    return tmp_path


def list_entries(lexicon):
    """Words and phones in the order of pronunciations."""
    return [
        (
            lexicon.spell(lexicon.words[e]),
            tuple(lexicon.phones[c] for c in lexicon.codes[lexicon.bounds[e] : lexicon.bounds[e + 1]]),
        )
        for e in range(len(lexicon))
    ]


def test_entries_are_in_the_order_of_sounds_then_of_the_file():
    by_sound = LEXICON.by_sound
    # Variants of a word stand together in a lexicon, so those of "a" follow each other.
    assert list_entries(by_sound) == [
        ("a", ("AH",)),
        ("äh", ("AH",)),
        ("a", ("EY",)),
        ("two", ("T", "UW")),
        ("to", ("T", "UW")),
        ("tooth", ("T", "UW", "TH")),
    ]
    assert by_sound.firsts.tolist() == [0, 2, 3, 5, 6]
    assert by_sound.list_words() == list(LEXICON.words)
    # AH, EY, T below the root; UW below T; TH below UW.
    assert [by_sound.phones[label] for label in by_sound.labels[1:]] == ["AH", "EY", "T", "UW", "TH"]
    assert by_sound.first_child.tolist() == [1, 4, 4, 4, 5, 6, 6]
    assert by_sound.ends.tolist() == [-1, 0, 1, -1, 2, 3]


def test_a_trie_spells_every_word_once():
    words = sorted({bytes(row) for row in np.random.default_rng(1).integers(1, 4, (60, 4)).astype(np.uint8)})
    words = sorted({*words, *(word[:2] for word in words), b""})
    bounds = np.cumsum([0, *map(len, words)])
    first_child, letters, depths, ends = grow_trie(np.frombuffer(b"".join(words), np.uint8), bounds)
    spelled = {0: b""}
    for node in range(len(letters)):
        children = range(first_child[node], first_child[node + 1])
        assert sorted({int(letters[child]) for child in children}) == [int(letters[c]) for c in children]
        spelled |= {child: spelled[node] + bytes([letters[child]]) for child in children}
    assert sorted(spelled) == list(range(len(letters)))
    assert {spelled[n]: words[end] for n, end in enumerate(ends.tolist()) if end >= 0} == dict(
        zip(words, words, strict=True)
    )
    assert [len(spelled[node]) for node in range(len(letters))] == depths.tolist()


def test_a_kept_lexicon_is_the_one_that_was_read(folder):
    path = folder / "lexicon.txt"
    write_lexicon(LEXICON, path)
    first = open_lexicon(path)
    kept = name_sorted_file(path)
    assert kept.parent.parent == find_cache_folder() and kept.exists()
    again = open_lexicon(path)
    assert again.words.arrays is not first.words.arrays
    assert again == first == LEXICON
    assert list(again.words) == list(LEXICON.words)
    for one, other in zip(again.by_sound.arrays, first.by_sound.arrays, strict=True):
        assert one.dtype == other.dtype and one.tolist() == other.tolist()
        assert not one.flags.writeable and not other.flags.writeable
    path.write_text(path.read_text() + "eight EY T\n")
    assert "eight" in open_lexicon(path)


def test_a_folder_that_cannot_be_written_to_only_costs_time(folder, monkeypatch):
    (folder / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    monkeypatch.setenv("LOCALAPPDATA", str(folder / "file"))
    write_lexicon(LEXICON, folder / "lexicon.txt")
    assert open_lexicon(folder / "lexicon.txt") == read_lexicon(folder / "lexicon.txt") == LEXICON


def test_only_the_newest_are_kept(folder):
    for age in range(MOST_FILES + 2):
        keep_sorted(LEXICON.by_sound, folder / f"{age}.bin")
        os.utime(folder / f"{age}.bin", (1000 + age, 1000 + age))
    keep_sorted(LEXICON.by_sound, folder / "new.bin")
    assert {path.stem for path in folder.glob("*.bin")} == {"new", "5", "4", "3"}


def test_a_file_that_is_damaged_or_cut_off_is_none(folder):
    path = folder / "some.bin"
    write_sorted(LEXICON.by_sound, path)
    content = path.read_bytes()
    assert open_sorted(path) is not None
    for length in (0, 10, 100, len(content) - 1):
        path.write_bytes(content[:length])
        assert open_sorted(path) is None
    path.write_bytes(content + b"\0")
    assert open_sorted(path) is None
    for place in (0, 20, len(content) - 1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert open_sorted(path) is None
    assert open_sorted(folder / "missing.bin") is None


@pytest.mark.parametrize(
    ("field", "place", "value"),
    [
        *(("spellings", 1, 99), ("words", 0, 5), ("words", 0, -1), ("places", 0, 2), ("codes", 0, 9)),
        *(("bounds", 2, 0), ("firsts", 1, 0), ("first_child", 1, 1), ("first_child", 1, 7), ("ends", 1, 4)),
        *(("ends", 1, -2), ("labels", 1, 9), ("first_child", 0, 0), ("first_child", 4, 4)),
        ("spellings", 3, 7),  # in the middle of a letter
    ],
)
def test_a_number_that_leads_nowhere_is_refused(folder, field, place, value):
    """With a checksum that fits: what reaches compiled code is known to be inside."""
    lexicon = make_lexicon(PAIRS).by_sound
    array = getattr(lexicon, field)
    array.setflags(write=True)
    array[place] = value
    write_sorted(lexicon, folder / "some.bin")
    assert open_sorted(folder / "some.bin") is None
