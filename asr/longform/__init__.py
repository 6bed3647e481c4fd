"""Recordings of any length.

In: samples of one or many recordings, and an acoustic model. Out: a transcript for each: speech is cut
into chunks at pauses and where the voice changes, chunks are recognised in batches and their log-probs
are stitched together.
"""
