"""From log-probs to hypotheses.

In: log-probs ``(frames, vocabulary)``, a tokenizer, perhaps a language model and hot words. Out:
``Hypothesis`` values, and the times of a given text's words (``alignment``). Knows no network.

``greedy`` takes the best token of every frame, ``prefix_beam`` searches with tokens that spell,
``lexicon_beam`` with phones; their compiled parts are in ``*_kernel``, and ``lexicon_beam_arrays`` does the
same for short recordings, for which to load a compiler would take longer. ``spelling_beam`` searches token
by token, for decoders with attention. A new search goes beside them and is chosen in ``beam_search``.
Public face: ``SearchConfig``, ``search_greedily``,
``beam_search.make_beam_search``, ``alignment.align_text``.
"""

from asr.search.config import SearchConfig
from asr.search.greedy import search_greedily

__all__ = ["SearchConfig", "search_greedily"]
