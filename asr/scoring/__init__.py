"""Errors counted, in one place.

In: references and hypotheses by utterance id, in any of the field's formats (`files`). Out:
substitutions, deletions, insertions, WER, CER and SER (`counts`), whether a difference is significant
(`significance`), systems side by side (`systems`), a page with everything in it (`report`).
"""
