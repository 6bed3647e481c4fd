#!/usr/bin/env python3
"""PocketSphinx's side of tools/bench/peers.py, run by the Python of an environment that has pocketsphinx.

Each line of stdin names a WAV file, 16 kHz, 16 bit, mono; each line of stdout answers with
``{"text": ..., "seconds": ...}``. Every file gets a decoder of its own, because a decoder adapts
to what it has decoded before; the seconds are those of decoding alone.
"""

from __future__ import annotations

import json
import sys
import time
import wave
from typing import Any


def decode(decoder: Any, samples: bytes) -> dict[str, Any]:
    """Decode a recording with a new decoder."""
    started = time.perf_counter()
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return {"text": found.hypstr if found else "", "seconds": time.perf_counter() - started}


def main() -> None:
    from pocketsphinx import Decoder  # type: ignore[import-not-found]

    for line in sys.stdin:
        with wave.open(line.rstrip("\n")) as recording:
            samples = recording.readframes(recording.getnframes())
        print(json.dumps(decode(Decoder(loglevel="FATAL"), samples)), flush=True)


if __name__ == "__main__":
    main()
