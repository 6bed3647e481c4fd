"""Texts to token ids, and back.

In: a text as people write it. Out: its normal form (`normalise`, `english`), its tokens (`tokenizer`:
characters, pieces of words or phones; token 0 is the blank) and its pronunciations (`lexicon`).
"""
