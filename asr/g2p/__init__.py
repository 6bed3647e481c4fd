"""Pronunciations for words that no dictionary has.

In: a lexicon. Out: letters aligned with phones (`graphones`) and an n-gram model over them that
pronounces new words (`model`). Bisani & Ney 2008.
"""
