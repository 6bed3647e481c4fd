"""Recordings to samples, and where in them somebody speaks.

In: a path, bytes or an open file of any format. Out: mono float32 samples at the rate asked for
(`reading`; `media` for what needs PyAV or ffmpeg), which frames are speech (`vad`), where the voice or
the microphone changes (`turns`).

Public face: `reading.read_audio`, `reading.AudioError`, `vad`, `turns`.
"""
