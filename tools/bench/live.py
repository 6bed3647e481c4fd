#!/usr/bin/env python3
"""Measure live streams: how late words come, what they cost, and whether they are right.

    python tools/bench/live.py MANIFEST [--limit N] [--streams 1] [--pause 1.5] [--model M] [--json]
    python tools/bench/live.py MANIFEST --hours 1 [--limit N]

A server (`asr serve`) runs as a process of its own. The recordings of MANIFEST, joined with pauses of noise,
are sent to it at real time over so many WebSockets at once, each beginning a little later than the one
before. Where somebody speaks is what speech detection finds in each recording by itself. The first partial
result of a recording counts from where speech begins, as does the first that begins with the word that is
there in the end; its last final one counts from where speech ends. Medians and
95th percentiles over all recordings of all streams. Cores are processor time of the server by the clock. The
words of the finals are counted against the texts, beside those of `transcribe` for the joined recording.

`--hours` feeds a stream in this process as fast as it goes, and reports memory after a tenth and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asr.audio.reading import read_audio
from asr.audio.vad import HOP_SECONDS, detect_speech, find_speech
from asr.core.provenance import find_processor, find_source_commit
from asr.data.manifest import Utterance, read_manifest
from asr.pretrained import DEFAULT_MODEL
from asr.recognition.recognizer import open_recognizer
from asr.scoring.counts import count_pair
from asr.text.tokenizer import NORMALISERS

RATE = 16000
BLOCK_SECONDS = 0.1
NOISE = 1e-4  # of full scale, in the pauses
SLACK_SECONDS = 0.6  # a segment may end so much after its recording


@dataclass(frozen=True)
class Stretch:
    """Where somebody speaks in the joined recording, in seconds."""

    begin: float
    end: float


@dataclass
class Listener:
    """What a stream has sent: events with the time of their arrival on the clock of its samples."""

    events: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    @property
    def finals(self) -> list[tuple[float, dict[str, Any]]]:
        """The final results."""
        return [(moment, event) for moment, event in self.events if event["type"] == "final"]


def join_recordings(utterances: Sequence[Utterance], pause: float) -> tuple[np.ndarray, list[Stretch]]:
    """Join recordings with pauses; also return where somebody speaks in each."""
    random = np.random.default_rng(0)
    parts, stretches, end = [], [], 0
    for utterance in utterances:
        quiet = random.normal(0, NOISE, round(pause * RATE)).astype(np.float32)
        samples = read_audio(utterance.audio, RATE, utterance.start, utterance.duration)
        flags = np.concatenate([flags for _, flags in detect_speech([samples], RATE)])
        speech = find_speech(flags)
        begin = (end + len(quiet)) / RATE
        if speech:
            stretches.append(Stretch(begin + speech[0][0] * HOP_SECONDS, begin + speech[-1][1] * HOP_SECONDS))
        parts += [quiet, samples]
        end += len(quiet) + len(samples)
    parts.append(random.normal(0, NOISE, round(max(pause, 1.0) * RATE)).astype(np.float32))
    return np.concatenate(parts), stretches


@contextlib.contextmanager
def run_server(
    options: argparse.Namespace, *more: str, report_log: Callable[[str], object] = lambda log: None
) -> Iterator[tuple[str, int]]:
    """Run `asr serve` for the block; hand out its address and its process.

    ``report_log`` is told at the end what it has written to stderr.
    """
    command = [sys.executable, "-m", "asr", "serve", "--model", options.model, "--port", "0", *more]
    with tempfile.TemporaryFile("w+", newline="") as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            address = None
            while address is None:
                time.sleep(0.1)
                log.seek(0)
                address = re.search(r"http://[\d.:]+", log.read())
                if process.poll() is not None:
                    log.seek(0)
                    sys.exit(log.read())
            yield address[0], process.pid
        finally:
            process.terminate()
            process.wait()
            log.seek(0)
            report_log(log.read())


def read_counter(address: str, name: str) -> float:
    """Read one of the server's counters."""
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))


async def send_stream(address: str, samples: np.ndarray, delay: float) -> Listener:
    """Send samples at real time; collect what comes back."""
    from websockets.asyncio.client import connect

    await asyncio.sleep(delay)
    listener = Listener()
    content = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    size = round(BLOCK_SECONDS * RATE)
    async with connect(f"{address.replace('http', 'ws')}/v1/stream", max_queue=None) as connection:
        await connection.send(json.dumps({"type": "start", "rate": RATE}))
        if json.loads(await connection.recv())["type"] != "ready":
            sys.exit("the server refused a stream")
        begun = time.monotonic()

        async def send() -> None:
            for place in range(0, len(content), size):
                await asyncio.sleep(max(0.0, begun + (place + size) / RATE - time.monotonic()))
                await connection.send(content[place : place + size].tobytes())
            await connection.send('{"type": "stop"}')

        sender = asyncio.create_task(send())
        async for message in connection:
            listener.events.append((time.monotonic() - begun, json.loads(message)))
        await sender
    return listener


def measure_delays(listener: Listener, stretches: Sequence[Stretch]) -> tuple[list[float], list[float]]:
    """Return the delay of the first result of each stretch after it begins, of the last after it ends."""
    first, last = [], []
    for place, stretch in enumerate(stretches):
        following = stretches[place + 1].begin if place + 1 < len(stretches) else np.inf
        earliest = stretches[place - 1].end if place else 0.0
        shown = [
            moment
            for moment, event in listener.events
            if event["type"] in ("partial", "final") and earliest <= event["start"] < stretch.end
        ]
        over = [
            moment
            for moment, event in listener.finals
            if stretch.begin < event["end"] <= min(stretch.end + SLACK_SECONDS, following)
        ]
        if shown:
            first.append(min(shown) - stretch.begin)
        if over:
            last.append(max(over) - stretch.end)
    return first, last


def measure_first_words(listener: Listener, stretches: Sequence[Stretch]) -> list[float]:
    """Return the delay, after each stretch begins, of the first result with the word that it ends up with."""
    firsts = {event["start"]: list_words(event)[:1] for _, event in listener.finals}
    delays = []
    for place, stretch in enumerate(stretches):
        earliest = stretches[place - 1].end if place else 0.0
        shown = [
            moment
            for moment, event in listener.events
            if event["type"] == "partial"
            and earliest <= event["start"] < stretch.end
            and event["text"].split()[:1] == firsts.get(event["start"])
        ]
        if shown:
            delays.append(min(shown) - stretch.begin)
    return delays


def list_words(event: dict[str, Any]) -> list[str]:
    """List the words of a final result as they were found: its text has capitals and punctuation."""
    return [word["word"] for word in event["words"]]


def count_broken_promises(listener: Listener) -> tuple[int, int]:
    """Count words shown as stable, and those of them that the final result has not."""
    finals = {event["start"]: list_words(event) for _, event in listener.finals}
    shown = broken = 0
    for _, event in listener.events:
        if event["type"] == "partial" and event["stable"]:
            stable = event["text"].split()[: event["stable"]]
            final = finals.get(event["start"], [])[: event["stable"]]
            shown += len(stable)
            broken += sum(one != other for one, other in zip(stable, final, strict=False))
            broken += len(stable) - min(len(stable), len(final))
    return shown, broken


def measure_streams(options: argparse.Namespace, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Measure so many streams at once."""
    samples, stretches = join_recordings(utterances, options.pause)
    recognizer = open_recognizer(options.model, "cpu")
    normalise = NORMALISERS[recognizer.text.normaliser]
    reference = " ".join(normalise(utterance.text) for utterance in utterances).split()
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / "joined.wav"
        soundfile.write(joined, np.clip(samples, -1, 1), RATE, subtype="PCM_16")
        whole = recognizer.transcribe(joined).text.split()

    async def run(address: str) -> list[Listener]:
        delays = [0.37 * number for number in range(options.streams)]
        return await asyncio.gather(*(send_stream(address, samples, delay) for delay in delays))

    with run_server(options, "--streams", str(options.streams)) as (address, _):
        asyncio.run(send_stream(address, samples[: 6 * RATE], 0.0))  # compiled code is loaded
        before, begun = read_counter(address, "process_cpu_seconds_total"), time.monotonic()
        listeners = asyncio.run(run(address))
        cores = (read_counter(address, "process_cpu_seconds_total") - before) / (time.monotonic() - begun)
    delays = [measure_delays(listener, stretches) for listener in listeners]
    first = sorted(delay for pair in delays for delay in pair[0])
    last = sorted(delay for pair in delays for delay in pair[1])
    right = sorted(delay for listener in listeners for delay in measure_first_words(listener, stretches))
    words = [[word for _, event in listener.finals for word in list_words(event)] for listener in listeners]
    promises = [count_broken_promises(listener) for listener in listeners]
    return {
        "streams": options.streams,
        "seconds": round(len(samples) / RATE, 1),
        "stretches": len(stretches),
        "first_partial_median": round(statistics.median(first), 3),
        "first_partial_p95": round(first[int(0.95 * (len(first) - 1))], 3),
        "first_right_word_median": round(statistics.median(right), 3),
        "final_median": round(statistics.median(last), 3),
        "final_p95": round(last[int(0.95 * (len(last) - 1))], 3),
        "cores": round(cores, 3),
        "wer_live": round(max(count_pair(reference, text).error_rate for text in words), 4),
        "wer_transcribe": round(count_pair(reference, whole).error_rate, 4),
        "stable_words_shown": sum(shown for shown, _ in promises),
        "stable_words_changed": sum(broken for _, broken in promises),
    }


def measure_memory(options: argparse.Namespace, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Feed one stream for hours of audio, as fast as it goes; memory after a tenth and at the end."""
    samples, _ = join_recordings(utterances, options.pause)
    stream = open_recognizer(options.model, "cpu").stream()
    sizes: list[int] = []
    left, at, begun = round(options.hours * 3600 * RATE), 0, time.process_time()
    total, size = left, round(BLOCK_SECONDS * RATE)
    while left > 0:
        stream.feed(samples[at : at + size])
        at = at + size if at + size < len(samples) else 0
        left -= size
        if len(sizes) == 0 and left <= 0.9 * total:
            sizes.append(read_resident_size())
    sizes.append(read_resident_size())
    return {
        "hours": options.hours,
        "megabytes_after_a_tenth": round(sizes[0] / 1e6, 1),
        "megabytes_at_the_end": round(sizes[1] / 1e6, 1),
        "cores": round((time.process_time() - begun) / (options.hours * 3600), 3),
    }


def read_resident_size() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0] if __doc__ else "", formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--limit", type=int, help="utterances, the first so many")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between two utterances")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--hours", type=float, help="measure memory instead")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    utterances = read_manifest(options.manifest)[: options.limit]
    measured = measure_memory(options, utterances) if options.hours else measure_streams(options, utterances)
    measured |= {
        "model": options.model,
        "processor": find_processor(),
        "load_average": round(os.getloadavg()[0], 1),
        "commit": find_source_commit(),
    }
    if options.json:
        print(json.dumps(measured))
    else:
        print("\n".join(f"{key:24} {value}" for key, value in measured.items()))


if __name__ == "__main__":
    main()
