"""Recordings to samples, and where in them somebody speaks.

In: a path, bytes or an open file of any format (`sources`). Out: mono float32 samples at the rate asked for
(`reading`, with `integrity` for what a file is and whether it is all there, `media` for what FFmpeg reads,
and `resampling`), which frames are speech (`vad`, `tones`), where another voice begins (`turns`).

Public face: `read_audio`, `stream_audio`, `measure_duration`, `AudioError`; `detect_speech`; `find_turns`.
"""
