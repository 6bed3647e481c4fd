"""Recordings of any length.

In: paths or bytes of recordings, and a recogniser of chunks. Out: a transcript for each recording, in order.

`cutting` decides where a long recording is cut: speech detection to chunks. `stitching` puts the log-probs
of overlapping chunks together to segments of speech. `transcripts` runs both, with chunks in batches, on the
threads of `pipeline`. `live` hears samples while they come.
Public face: `transcripts.transcribe_recordings`, `transcripts.compute_whole_log_probs`, `LongformConfig`.
"""
