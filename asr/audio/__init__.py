"""Recordings to samples, and where in them somebody speaks.

In: a path, bytes or an open file of any format (`sources`). Out: mono float32 samples at the rate asked for
(`reading`, with `media` for what needs PyAV or ffmpeg, `integrity` for what shows that a file is cut off, and
`resampling`), which frames are speech (`vad`, `tones`), where the voice or the microphone changes (`turns`).

Public face: `read_audio`, `stream_audio`, `measure_duration`, `AudioError`; `detect_speech`; `find_turns`.
"""
