#!/usr/bin/env python3
"""Whisper's side of tools/bench/side_by_side.py, run by the Python of an environment that has faster-whisper.

    python tools/bench/whisper.py MODEL < LIST

MODEL is a folder of CTranslate2, computed in 8 bits on one thread; each line of stdin names a file, each line
of stdout answers with ``{"text": ...}``. The beam is faster-whisper's own.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    from faster_whisper import WhisperModel  # type: ignore[import-not-found]

    model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8", cpu_threads=1)
    for line in sys.stdin:
        segments, _ = model.transcribe(line.rstrip("\n"), language="en", without_timestamps=True)
        print(json.dumps({"text": " ".join(segment.text.strip() for segment in segments)}), flush=True)


if __name__ == "__main__":
    main()
