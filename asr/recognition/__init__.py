"""Recognisers: network, tokenizer and search joined. No torch is imported here before a network needs it.

In: a model folder or the name of a shipped model, then recordings. Out: transcripts, alternatives,
alignments, log-probs.

Public face: ``recognizer`` (``Recognizer``, ``open_recognizer``), ``network`` (the protocol ``Network``,
``open_network``, ``COMPUTE_TYPES``), ``folder`` (the files of a model folder that need no network).
"""
