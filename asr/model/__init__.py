"""The network between samples and log-probs, in torch, which is imported from here on.

In: samples ``(batch, samples)``. Out: frames (``features``), encoded frames (``encoders``, made of
``cells``), log-probs ``(batch, frames, vocabulary)`` (``ctc``).

Public face: ``acoustic`` (``AcousticModel``, all of it in one value), ``folder`` (its options and weights
read and written), ``precision`` (devices, fewer bits), ``engine`` (torch as a recogniser's ``Network``).
"""
