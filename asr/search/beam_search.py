"""The beam search that goes with a vocabulary: prefixes of tokens that spell, or words made of phones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from asr.lm.model import NgramModel
from asr.lm.recurrent import RecurrentModel
from asr.search.config import Phrases, SearchConfig
from asr.search.lexicon_beam import LexiconBeamSearch
from asr.text.tokenizer import Tokenizer
from asr.transcript.values import Hypothesis

if TYPE_CHECKING:
    from asr.search.prefix_beam import PrefixBeamSearch


class BeamSearch(Protocol):
    """What a recogniser needs of a search; the searches of models with a decoder are in ``asr.model``."""

    @property
    def config(self) -> SearchConfig:
        """As it searches."""

    @property
    def model(self) -> NgramModel | None:
        """The language model."""

    @property
    def recurrent(self) -> RecurrentModel | None:
        """The recurrent language model that ranks the best hypotheses anew."""

    @property
    def phrases(self) -> Phrases:
        """Hot words and phrases."""

    @property
    def description(self) -> Mapping[str, Any]:
        """What results depend on besides ``config``: ``language_model``, ``phrases``."""

    def find_hypotheses(
        self, log_probs: np.ndarray, frame_seconds: float, n_best: int = 1
    ) -> list[Hypothesis]:
        """Find the best hypotheses of one recording, best first."""

    def search_batch(
        self, log_probs: Sequence[np.ndarray], frame_seconds: float, threads: int | None = None
    ) -> list[Hypothesis]:
        """Find the best hypothesis of every recording on ``threads`` threads (default: all cores)."""

    def start_stream(self, frame_seconds: float) -> Any:
        """Start to search a recording of which the log-probs come block by block."""


def make_beam_search(
    config: SearchConfig,
    tokenizer: Tokenizer,
    model: NgramModel | None = None,
    phrases: Phrases = (),
    recurrent: RecurrentModel | None = None,
) -> PrefixBeamSearch | LexiconBeamSearch:
    """Make the search for the tokenizer's vocabulary: by its lexicon where the tokens are phones.

    Args:
        model: a word n-gram model, whose opinion is added with ``config.lm_weight``.
        phrases: hot words and phrases, which get a bonus: ``config.hotword_weight`` or the weight of each.
        recurrent: a recurrent language model, which ranks the best hypotheses anew.

    Raises ``SearchError`` for a language model or a hot word that the vocabulary cannot write.
    """
    if tokenizer.lexicon is None:
        from asr.search.prefix_beam import PrefixBeamSearch  # imports numba

        return PrefixBeamSearch(config, tokenizer, model, phrases, recurrent)
    return LexiconBeamSearch(config, tokenizer, model, phrases, recurrent)
