"""The network between samples and log-probs, in torch, which is imported from here on.

In: samples ``(batch, samples)``. Out: frames (``features``), encoded frames (``encoders``, made of
``cells``), log-probs ``(batch, frames, vocabulary)`` (``ctc``); with a decoder that spells (``attention``),
the next token after each. ``speller`` is such a decoder behind letters: words to phones.

Public face: ``acoustic`` (``AcousticModel``, all of it in one value), ``folder`` (its options and weights
read and written), ``precision`` (devices, fewer bits), ``engine`` (torch as a recogniser's ``Network``).
"""
