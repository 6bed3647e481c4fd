"""The recogniser: features, network, tokenizer and search joined.

In: a model folder or the name of a shipped model, then recordings. Out: transcripts, alignments, log-
probs.
"""
