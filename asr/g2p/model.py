"""Pronunciations for words that no dictionary has: an n-gram model over graphones, learned from a dictionary.

Bisani & Ney 2008, "Joint-sequence models for grapheme-to-phoneme conversion" (Speech Communication 50,
434-451); estimated once, from the best alignments, as in Novak et al. 2012, "WFST-based
grapheme-to-phoneme conversion". A graphone is a word of the n-gram model. Learning takes seconds, so no
model is kept in a file: the dictionary is needed anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from asr.core.compiled import compile_function
from asr.errors import UserError
from asr.g2p.graphones import MOST_PHONES, Graphone, align_letters
from asr.lm.estimation import FALLBACK, EstimationConfig, estimate
from asr.lm.look_up import score_word
from asr.lm.model import NgramModel
from asr.lm.packed import Trie
from asr.lm.vocabulary import FNV_BASIS, FNV_PRIME
from asr.text.lexicon import Lexicon, Pronunciation, Pronunciations, derive_pronunciations

ORDER = 6  # of the n-grams, the highest that asr.lm has; 7 to 9 would get 0.3 % more held-out words right
BEAM_SIZE = 30  # hypotheses for each letter; 100 get 0.1 % more held-out words right, in four times the time
VARIANTS = 2  # pronunciations of a word that a model's own lexicon lacks
BEAM_THRESHOLD = 12.0  # natural logarithm by which they may be worse than the best

SEPARATOR = "\x1f"  # between a letter and its phones, as the n-gram model writes them; never in a phone


class G2PError(UserError):
    """A word that cannot be pronounced, or a dictionary from which no model can be learned."""


@dataclass(frozen=True)
class G2P:
    """A model that pronounces words, made by ``learn_g2p``.

    graphones: ``(n, MOST_PHONES)`` int32, the phones of each word of the n-gram model; -1 for none.
    choices: for every letter, its first graphone and the one after its last.
    """

    model: NgramModel
    phones: tuple[str, ...]
    graphones: np.ndarray
    choices: dict[str, tuple[int, int]]

    def pronounce(self, word: str, count: int = 1) -> Pronunciations:
        """Return the most probable pronunciations, best first; there may be fewer than ``count``.

        A pronunciation's probability is the sum over all alignments in the beam. Raises
        ``G2PError`` for a letter that the dictionary's words do not have.
        """
        return tuple(phones for phones, _ in self.rank_pronunciations(word)[:count])

    def rank_pronunciations(
        self, word: str, beam_size: int = BEAM_SIZE, threshold: float = BEAM_THRESHOLD
    ) -> list[tuple[Pronunciation, float]]:
        """Rank all pronunciations left in the beam, best first, with their natural log probabilities."""
        strange = next((letter for letter in word if letter not in self.choices), None)
        if strange is not None:
            raise G2PError(
                f"{word!r} cannot be pronounced: the dictionary has no word with {strange!r} in it"
            )
        choices = np.array([self.choices[letter] for letter in word], np.int32).reshape(-1, 2)
        model = self.model
        totals, paths = search_pronunciations(
            model.trie, model.begin, model.end, choices, self.graphones, beam_size, threshold
        )
        said = (self.graphones[path].ravel() for path in paths)
        spelled = (tuple(self.phones[phone] for phone in numbers if phone >= 0) for numbers in said)
        # A word in which all letters are silent is none.
        found = [(phones, float(total)) for phones, total in zip(spelled, totals, strict=True) if phones]
        if not found:
            raise G2PError(f"{word!r} cannot be pronounced: no letter of it is heard")
        return found


def learn_g2p(dictionary: Lexicon, order: int = ORDER) -> G2P:
    """Learn a model from all words of a dictionary that are letters and apostrophes.

    Raises ``G2PError`` when there is no such word.
    """
    pairs = [
        (word, phones)
        for word, variants in dictionary.words.items()
        if word.replace("'", "").isalpha()
        for phones in variants
    ]
    lines = (
        " ".join(map(name_graphone, graphones)) + "\n" for graphones in align_letters(pairs) if graphones
    )
    text = "".join(lines).encode()
    if not text:
        raise G2PError("the dictionary has no word from which pronouncing can be learned")
    return build_g2p(estimate([text], EstimationConfig(order=order, discount_fallback=FALLBACK)))


def name_graphone(graphone: Graphone) -> str:
    """Write a graphone as a word of the n-gram model."""
    letter, phones = graphone
    return SEPARATOR.join((letter, *phones))


def build_g2p(model: NgramModel) -> G2P:
    """Read the words of an n-gram model as graphones."""
    names = [name.split(SEPARATOR) for name in model.vocabulary.words]
    phones = sorted({phone for _, *said in names for phone in said})
    numbers = {phone: number for number, phone in enumerate(phones)}
    graphones = np.full((len(names), MOST_PHONES), -1, np.int32)
    choices: dict[str, tuple[int, int]] = {}
    for number, (letter, *said) in enumerate(names):  # sorted, so those of a letter are together
        if len(letter) == 1:  # and not <s>, </s> or <unk>
            choices[letter] = (choices.get(letter, (number,))[0], number + 1)
            graphones[number, : len(said)] = [numbers[phone] for phone in said]
    return G2P(model, tuple(phones), graphones, choices)


@compile_function
def search_pronunciations(
    trie: Trie,
    begin: int,
    end: int,
    choices: np.ndarray,
    graphones: np.ndarray,
    beam_size: int,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Search the pronunciations of a word, best first: log probabilities, and a graphone for each letter.

    A beam search from letter to letter. Hypotheses with the same phones and the same state of the model are
    merged, at the end all with the same phones; their probabilities are added.

    Args:
        choices: ``(letters, 2)``, the range of graphones that each letter may be.
    """
    letters = len(choices)
    parents, chosen = np.zeros((letters, beam_size), np.int64), np.zeros((letters, beam_size), np.int64)
    scores, states = np.zeros(1), np.full(1, begin, np.int64)
    heard = np.full(1, FNV_BASIS, np.int64)  # hashes of the phones so far
    for at in range(letters):
        first, width = choices[at, 0], choices[at, 1] - choices[at, 0]
        longer = np.zeros(len(scores) * width)
        longer_states, longer_heard = np.zeros(len(longer), np.int64), np.zeros(len(longer), np.int64)
        for i in range(len(longer)):
            before, graphone = i // width, first + i % width
            log_prob, longer_states[i] = score_word(trie, states[before], graphone)
            longer[i] = scores[before] + log_prob
            longer_heard[i] = heard[before]
            for phone in graphones[graphone]:
                if phone >= 0:
                    longer_heard[i] = (longer_heard[i] ^ phone) * FNV_PRIME  # wraps around at 64 bits
        kept = keep_best(longer, longer_states, longer_heard, beam_size, threshold)
        parents[at, : len(kept)], chosen[at, : len(kept)] = kept // width, first + kept % width
        scores, states, heard = longer[kept], longer_states[kept], longer_heard[kept]
    for i in range(len(scores)):
        log_prob, states[i] = score_word(trie, states[i], end)
        scores[i] += log_prob
    kept = keep_best(scores, states, heard, beam_size, threshold)
    kept = kept[np.argsort(-scores[kept])]
    paths = np.zeros((len(kept), letters), np.int64)
    for i in range(len(kept)):
        place = kept[i]
        for at in range(letters - 1, -1, -1):
            paths[i, at] = chosen[at, place]
            place = parents[at, place]
    return scores[kept], paths


@compile_function
def keep_best(
    scores: np.ndarray, states: np.ndarray, heard: np.ndarray, most: int, threshold: float
) -> np.ndarray:
    """Find the places of the best hypotheses; equal ones are merged and their probabilities added."""
    near = np.flatnonzero(scores >= scores.max() - threshold)
    kept = np.zeros(most, np.int64)
    count = 0
    for i in near[np.argsort(-scores[near])]:
        twin = -1
        for j in kept[:count]:
            if states[j] == states[i] and heard[j] == heard[i]:
                twin = j
        if twin >= 0:
            scores[twin] = np.logaddexp(scores[twin], scores[i])
        elif count < most:
            kept[count] = i
            count += 1
        else:
            break
    return kept[:count]


# --- lexicons -------------------------------------------------------------------------------------

BY_DICTIONARY, BY_RULE, BY_MODEL = "from the dictionary", "by the rules of endings", "by the model"


class PronouncingModel(Protocol):
    """A model of spelling and sound; ``G2P`` is one."""

    def pronounce(self, word: str, count: int = 1) -> Pronunciations:
        """Return the most probable pronunciations, best first; there may be fewer than ``count``.

        Raises ``G2PError`` for a word that cannot be pronounced.
        """


@dataclass(frozen=True)
class Pronouncer:
    """Pronounces any word: by the dictionary, else by the rules of English endings, else by the model.

    ``variants`` is how many pronunciations the model may give a word; from the others come all. ``model`` is
    taken in the place of the n-gram model.
    """

    dictionary: Lexicon
    variants: int = 1
    model: PronouncingModel | None = None

    @cached_property
    def g2p(self) -> G2P:
        """The n-gram model, learned when the first word needs it."""
        return learn_g2p(self.dictionary)

    @cached_property
    def phones(self) -> frozenset[str]:
        """The phones of the dictionary; no pronunciation has others."""
        return frozenset(self.dictionary.phones)

    def pronounce(self, word: str) -> tuple[Pronunciations, str]:
        """Return the pronunciations of a word, the usual one first, and how they were found.

        Raises ``G2PError`` for a word that cannot be pronounced.
        """
        if word in self.dictionary:
            return self.dictionary[word], BY_DICTIONARY
        variants = derive_pronunciations(word, self.dictionary, lambda stem: self.pronounce(stem)[0])
        # The rules use the usual phones of English, which another dictionary need not have.
        if variants := tuple(said for said in variants if self.phones.issuperset(said)):
            return variants, BY_RULE
        return (self.model or self.g2p).pronounce(word, self.variants), BY_MODEL


def add_pronounceable(lexicon: Lexicon, words: Iterable[str]) -> tuple[Lexicon, set[str]]:
    """Add what ``add_pronunciations`` can; also return the words that cannot be pronounced."""
    pronouncer, found, failed = Pronouncer(lexicon, VARIANTS), {}, set()
    for word in words:
        try:
            found[word] = pronouncer.pronounce(word)[0]
        except G2PError:
            failed.add(word)
    return Lexicon({**lexicon.words, **found}), failed


def add_pronunciations(lexicon: Lexicon, words: Iterable[str]) -> Lexicon:
    """Add the ``words`` that a lexicon lacks, pronounced as its own words are.

    Learning that takes seconds with a lexicon of many words. Raises ``G2PError`` for a word that cannot be
    pronounced.
    """
    missing = [word for word in words if word not in lexicon]
    if not missing:
        return lexicon
    pronouncer = Pronouncer(lexicon, VARIANTS)
    return Lexicon({**lexicon.words, **{word: pronouncer.pronounce(word)[0] for word in missing}})
