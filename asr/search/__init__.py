"""From log-probs to hypotheses. Arrays in, ``Hypothesis`` out; knows no model and no torch.

From low to high: ``greedy`` (the best token of every frame), ``priors`` (taken off the log-probs),
``lexicon`` (the words of a language model as a trie of bytes), ``hotwords`` (phrases that get a bonus),
``beam`` (prefix beam search, compiled), ``decoder`` (all of them joined behind one call),
``tokenpassing`` (words by their pronunciations, compiled), ``words`` (the same behind one call, and which
search goes with a vocabulary).
"""

from asr.search.greedy import greedy
from asr.search.options import SearchConfig

__all__ = ["SearchConfig", "greedy"]
