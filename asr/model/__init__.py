"""The network between samples and log-probs, in torch.

In: samples `(batch, samples)`. Out: frames (`features`), encoded frames (`encoders`, made of `cells`),
log-probs `(batch, frames, vocabulary)` (`ctc`).
"""
