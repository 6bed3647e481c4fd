"""Pronunciations for words that no dictionary has.

In: a lexicon. Out: letters aligned with phones (`graphones`) and an n-gram model over them that pronounces
new words (`model`, after Bisani & Ney 2008). Public face: `model.learn_g2p`, `model.Pronouncer`,
`model.add_pronunciations`.
"""
