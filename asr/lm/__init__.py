"""Language models: word n-grams, and recurrent networks over pieces of words.

In: text, or a model in ARPA or binary form. Out: log probabilities of words (``model``: arrays;
``look_up`` from compiled code), perplexities (``perplexity``), sampled sentences (``sampling``).

From low to high: ``vocabulary`` (words as numbers), ``packed`` (the trie), ``model``, ``arpa``, ``storage``
(the binary file), ``text`` and ``counting`` (text to n-gram counts), ``estimation``; ``pieces``,
``recurrent`` and ``recurrent_file``. Public face:
``storage.load_model``, ``storage.save_model``, ``estimation.estimate``, ``model.NgramModel``.
"""
