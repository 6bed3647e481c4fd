"""Words pronounced by a ``Speller``, alone or together with the n-gram model of ``asr.g2p``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr.g2p.model import G2P, G2PError
from asr.model.speller import Speller
from asr.search.spelling_beam import SpellingConfig, spell
from asr.text.lexicon import Pronunciation, Pronunciations

BEAM_SIZE = 8
PHONES_PER_LETTER = 3  # at most: "x" is said with two


@dataclass(frozen=True)
class NetworkPronouncer:
    """A network that pronounces words, as ``asr.g2p.model.G2P`` does by n-grams."""

    speller: Speller

    def pronounce(self, word: str, count: int = 1) -> Pronunciations:
        """Return the most probable pronunciations, best first; there may be fewer than ``count``."""
        return tuple(phones for phones, _ in self.rank_pronunciations(word)[:count])

    def rank_pronunciations(self, word: str, beam_size: int = BEAM_SIZE) -> list[tuple[Pronunciation, float]]:
        """Rank pronunciations, best first, with their natural log probabilities.

        Raises ``G2PError`` for a letter that the dictionary's words do not have.
        """
        config = SpellingConfig(beam_size=beam_size, longest=PHONES_PER_LETTER * len(word) + 2)
        names = ("", *self.speller.config.phones)
        found = [
            (tuple(names[token] for token in result.tokens), result.score)
            for result in spell(self.speller.start_spelling(word), config)
            if result.tokens
        ]
        if not found:
            raise G2PError(f"{word!r} cannot be pronounced: no letter of it is heard")
        return found


@dataclass(frozen=True)
class JoinedPronouncers:
    """An n-gram model of graphones and a network, which correct each other.

    Each proposes pronunciations, and both say how probable every proposal is; ``weight`` is the network's
    share of the sum of log probabilities.
    """

    g2p: G2P
    network: NetworkPronouncer
    weight: float = 0.5

    def pronounce(self, word: str, count: int = 1) -> Pronunciations:
        """Return the most probable pronunciations, best first; there may be fewer than ``count``.

        What the n-gram model does not propose counts there as much as the least that it does.
        """
        speller = self.network.speller
        by_ngrams = dict(self.g2p.rank_pronunciations(word))
        proposed = dict.fromkeys([*by_ngrams, *dict(self.network.rank_pronunciations(word))])
        candidates = [phones for phones in proposed if speller.phones.keys() >= set(phones)]
        own = speller.score_pronunciations(word, candidates)
        least = min(by_ngrams.values())
        other = np.array([by_ngrams.get(phones, least) for phones in candidates])
        order = np.argsort(-(self.weight * own + (1 - self.weight) * other), kind="stable")
        return tuple(candidates[place] for place in order[:count])
