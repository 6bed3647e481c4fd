"""The beam search that goes with a vocabulary: prefixes of tokens that spell, or words made of phones."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from asr.lm.model import NgramModel
from asr.search.config import Phrases, SearchConfig
from asr.search.lexicon_beam import LexiconBeamSearch
from asr.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from asr.search.prefix_beam import PrefixBeamSearch

BeamSearch: TypeAlias = "PrefixBeamSearch | LexiconBeamSearch"


def make_beam_search(
    config: SearchConfig, tokenizer: Tokenizer, model: NgramModel | None = None, phrases: Phrases = ()
) -> BeamSearch:
    """Make the search for the tokenizer's vocabulary: by its lexicon where the tokens are phones.

    Args:
        model: a word n-gram model, whose opinion is added with ``config.lm_weight``.
        phrases: hot words and phrases, which get a bonus: ``config.hotword_weight`` or the weight of each.

    Raises ``SearchError`` for a language model or a hot word that the vocabulary cannot write.
    """
    if tokenizer.lexicon is None:
        from asr.search.prefix_beam import PrefixBeamSearch  # imports numba

        return PrefixBeamSearch(config, tokenizer, model, phrases)
    return LexiconBeamSearch(config, tokenizer, model, phrases)
