"""The process that decodes uploads: a task a line on stdin, an answer a line on stdout.

It limits itself before it reads anything that came from outside: memory, no dumps, and no file larger than
the samples it has to write. It also judges where somebody speaks in what is not long, because the server
has other things to do at the same time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from asr.audio.reading import AudioError, stream_audio
from asr.audio.vad import SpeechDetector

JUDGED_SECONDS = 120.0  # longer uploads are judged while they are transcribed: their first words come sooner


def main() -> None:
    """Serve tasks until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    import soundfile  # before memory is limited: what it loads is not the upload's fault
    import soxr  # noqa: F401

    limit_process(int(sys.argv[1]))
    print(json.dumps({"version": soundfile.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer_task(json.loads(line))), file=answers, flush=True)


def answer_task(task: dict[str, Any]) -> dict[str, object]:
    """Decode an upload; return its seconds, or what is wrong with it."""
    try:
        upload, samples, flags = (Path(task[key]) for key in ("upload", "samples", "flags"))
        return {"seconds": decode_upload(upload, samples, flags, task["rate"], task["longest"])}
    except AudioError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "takes more memory to read than an upload may"}
    except Exception as error:  # whatever a library does with a damaged file is the file's fault
        return {"error": f"is damaged or of an unknown kind ({type(error).__name__})"}


def decode_upload(upload: Path, samples: Path, flags: Path, rate: int, longest: float) -> float:
    """Write an upload as a WAV file of mono float samples at ``rate``; return its seconds.

    In ``flags`` are the decisions of speech detection, a byte each, unless it is longer than
    ``JUDGED_SECONDS``. Raises ``AudioError`` where it cannot be read or lasts more than ``longest`` seconds.
    """
    import soundfile

    count = 0
    detector = SpeechDetector(rate)
    decided: list[np.ndarray] = []
    with soundfile.SoundFile(samples, "w", rate, 1, "FLOAT", format="WAV") as file:
        for block in stream_audio(upload, rate):
            count += len(block)
            if count > longest * rate:
                raise AudioError(f"lasts longer than {longest:g} seconds, the most that this server takes")
            file.write(block)
            if count <= JUDGED_SECONDS * rate:
                decided += [frames for _, frames in detector.feed(block)]
    if 0 < count <= JUDGED_SECONDS * rate:
        decided += [frames for _, frames in detector.finish()]
        flags.write_bytes(np.concatenate(decided).tobytes())
    return count / rate


def limit_process(memory: int) -> None:
    """Limit the process to ``memory`` bytes beyond what it has, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = 0
    status = Path("/proc/self/statm")
    if status.exists():
        used = int(status.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
