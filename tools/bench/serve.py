#!/usr/bin/env python3
"""Measure the server under load, beside `asr transcribe` on the same files; and throw hostile requests at it.

    python tools/bench/serve.py MANIFEST [--limit N] [--clients 1,4,16] [--seconds 30] [--model M] [--json]
    python tools/bench/serve.py --hostile 10000 [--model digits]

Files of MANIFEST are joined to recordings of 2 to 60 seconds. For each number of clients, requests arrive at
random moments (an open loop: they do not wait for answers), spread over so many connections, at `--load`
times the rate at which `asr transcribe` gets through the same files; a round lasts until all are answered.
Throughput is seconds of audio by the clock from the first request to the last answer. Latency counts from
the moment at which a request should have been sent.

`--hostile` sends damaged, huge, slow, half-closed and wrong requests and media, and asks after each
hundred whether the server still answers within a second; memory is measured before and after each fifth, and
the log is read for lines that are no JSON or not escaped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile

from asr.audio.reading import read_audio
from asr.core.provenance import find_processor, find_source_commit
from asr.data.manifest import Utterance, read_manifest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.bench.live import read_counter, run_server

RATE = 16000
SECONDS = (2.0, 60.0)  # lengths of recordings
HEAD = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n'
CHECK_EVERY = 100  # hostile requests
PATIENCE_SECONDS = 3.0
AT_ONCE = 16
PARTS = 5  # of an attack, after each of which memory is measured


def write_recordings(utterances: Sequence[Utterance], folder: Path) -> list[Path]:
    """Join utterances to recordings of lengths drawn evenly on a logarithmic scale; write them as FLAC."""
    draw = random.Random(0)
    paths: list[Path] = []
    parts: list[np.ndarray] = []
    wanted = draw.uniform(*map(float, np.log(SECONDS)))
    for utterance in utterances:
        parts.append(read_audio(utterance.audio, RATE, utterance.start, utterance.duration))
        if sum(map(len, parts)) >= np.exp(wanted) * RATE:
            samples = np.concatenate(parts)[: round(SECONDS[1] * RATE)]
            paths.append(folder / f"{len(paths):03d}.flac")
            soundfile.write(paths[-1], np.clip(samples, -1, 1), RATE)
            parts, wanted = [], draw.uniform(*map(float, np.log(SECONDS)))
    return paths


def time_transcribe(model: str, paths: Sequence[Path]) -> float:
    """Seconds that `asr transcribe` takes for all files, without those that it takes to start.

    Those are what it takes for a file that is there once more when all are transcribed.
    """
    command = [sys.executable, "-m", "asr", "transcribe", "--model", model]
    times = []
    for files in (paths[:1], [paths[0], *paths]):
        begun = time.monotonic()
        subprocess.run([*command, *map(str, files)], check=True, capture_output=True)
        times.append(time.monotonic() - begun)
    return times[1] - times[0]


async def send_load(
    address: str, paths: Sequence[Path], clients: int, rate: float
) -> tuple[float, list[float]]:
    """Send every file at ``rate`` files a second; return the seconds of the round and of each answer."""
    draw = random.Random(clients)
    limits = httpx.Limits(max_connections=clients)
    latencies: list[float] = []
    async with httpx.AsyncClient(limits=limits, timeout=600) as client:

        async def ask(path: Path, moment: float) -> None:
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
            files = {"file": (path.name, path.read_bytes())}
            answer = await client.post(f"{address}/v1/audio/transcriptions", files=files)
            answer.raise_for_status()
            latencies.append(time.monotonic() - moment)

        begun = time.monotonic()
        moments, moment = [], begun
        for _ in paths:
            moments.append(moment)
            moment += draw.expovariate(rate)
        await asyncio.gather(*(ask(*pair) for pair in zip(paths, moments, strict=True)))
        return time.monotonic() - begun, sorted(latencies)


def measure_load(options: argparse.Namespace) -> dict[str, Any]:
    """Measure throughput and latencies for each number of clients."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        paths = write_recordings(read_manifest(options.manifest)[: options.limit], Path(name))
        audio = sum(soundfile.info(path).duration for path in paths)
        alone = time_transcribe(options.model, paths)
        with run_server(options) as (address, _):
            asyncio.run(send_load(address, paths[:2], 1, 10.0))  # compiled code is loaded
            for clients in options.clients:
                seconds, latencies = asyncio.run(
                    send_load(address, paths, clients, options.load * len(paths) / alone)
                )
                rows.append(
                    {
                        "clients": clients,
                        "throughput": round(audio / seconds, 1),
                        "of_transcribe": round(alone / seconds, 2),
                        "p50": round(latencies[len(latencies) // 2], 2),
                        "p99": round(latencies[int(0.99 * (len(latencies) - 1))], 2),
                    }
                )
    return {"files": len(paths), "audio": round(audio), "transcribe": round(audio / alone, 1), "rows": rows}


# --- hostile requests -----------------------------------------------------------------------------


def make_media(draw: random.Random) -> bytes:
    """Make a file that is damaged, or refers to others."""
    sample = bytearray((Path(__file__).parents[2] / "samples" / "digits-lucas.flac").read_bytes())
    kind = draw.randrange(6)
    if kind == 0:
        for _ in range(draw.randrange(1, 200)):
            sample[draw.randrange(len(sample))] = draw.randrange(256)
        return bytes(sample)
    if kind == 1:
        return bytes(sample[: draw.randrange(len(sample))])
    if kind == 2:
        return draw.randbytes(draw.randrange(5000))
    if kind == 3:
        return b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\nhttp://127.0.0.1:1/x.ts\n"
    if kind == 4:
        return b"ffconcat version 1.0\nfile '/etc/passwd'\n"
    return b"RIFF\xff\xff\xff\xffWAVEfmt " + draw.randbytes(draw.randrange(200))


def make_request(draw: random.Random) -> tuple[bytes, float, bool]:
    """Make the bytes of a request, the seconds between its halves, and whether it is left half open."""
    names = [b"../../etc/passwd", b"\x1b[31m", b"x" * 5000, "\u202egnp.exe".encode(), b'a\\"b', b"\n"]
    body = PART % draw.choice(names) + make_media(draw) + b"\r\n--x--\r\n"
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    usual = HEAD + FORM + length + body
    kinds: list[Callable[[], tuple[bytes, float, bool]]] = [
        *[lambda: (usual, 0.0, False)] * 4,
        lambda: (usual[: draw.randrange(len(usual))], 0.0, True),
        lambda: (usual, draw.uniform(0.0, 0.3), False),
        lambda: (HEAD + FORM + b"Content-Length: 99999999999999\r\n\r\n", 0.0, False),
        lambda: (HEAD + FORM + b"Content-Length: -1\r\n\r\n", 0.0, False),
        lambda: (HEAD + b"Content-Type: text/html\r\nContent-Length: 3\r\n\r\nabc", 0.0, False),
        lambda: (HEAD + FORM + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n", 0.0, True),
        lambda: (draw.randbytes(draw.randrange(500)), 0.0, False),
        lambda: (b"GET /" + b"a" * draw.randrange(100_000) + b" HTTP/1.1\r\n\r\n", 0.0, False),
        lambda: (b"GET /page/../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 0.0, False),
        lambda: (b"GET /%0a%1b[2J{%22} HTTP/1.1\r\nHost: x\r\nX-Request-Id: \x01\r\n\r\n", 0.0, False),
        lambda: (
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            + draw.randbytes(draw.randrange(300)),
            0.0,
            False,
        ),
    ]
    return draw.choice(kinds)()


async def send_bytes(port: int, content: bytes, pause: float, is_left: bool) -> None:
    """Send the bytes of a request, wait for the beginning of an answer, and go."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        half = len(content) // 2 if pause else len(content)
        writer.write(content[:half])
        await writer.drain()
        if pause:
            await asyncio.sleep(pause)
            writer.write(content[half:])
            await writer.drain()
        if not is_left:
            await asyncio.wait_for(reader.read(1000), PATIENCE_SECONDS)
        writer.transport.abort() if is_left else writer.close()
    except (OSError, TimeoutError):
        pass


async def attack(address: str, count: int, seed: int = 1) -> tuple[float, int]:
    """Send hostile requests; return the longest answer of `/healthz` and how many of them failed."""
    port, draw = int(address.rpartition(":")[2]), random.Random(seed)
    slowest, failures = 0.0, 0
    gate = asyncio.Semaphore(AT_ONCE)

    async def bound(work: Awaitable[None]) -> None:
        async with gate:
            await work

    async with httpx.AsyncClient(timeout=10) as client:
        for _ in range(0, count, CHECK_EVERY):
            requests = [make_request(draw) for _ in range(min(CHECK_EVERY, count))]
            await asyncio.gather(*(bound(send_bytes(port, *request)) for request in requests))
            begun = time.monotonic()
            try:
                failures += (await client.get(f"{address}/healthz")).status_code != 200
            except httpx.HTTPError:
                failures += 1
            slowest = max(slowest, time.monotonic() - begun)
    return slowest, failures


def measure_attack(options: argparse.Namespace) -> dict[str, Any]:
    """Attack a server; report whether it still answers, its memory after each fifth, and its log."""
    logs: list[str] = []
    slowest, failures, sizes = 0.0, 0, []
    with run_server(options, report_log=logs.append) as (address, _):
        asyncio.run(attack(address, CHECK_EVERY, 0))  # libraries are loaded
        sizes.append(read_counter(address, "process_resident_memory_bytes"))
        for part in range(1, PARTS + 1):
            slow, failed = asyncio.run(attack(address, options.hostile // PARTS, part))
            slowest, failures = max(slowest, slow), failures + failed
            time.sleep(2 * PATIENCE_SECONDS)
            sizes.append(read_counter(address, "process_resident_memory_bytes"))
        killed = read_counter(address, "asr_decoders_killed_total")
    return {
        "requests": options.hostile,
        "unanswered_checks": failures,
        "slowest_check": round(slowest, 3),
        "megabytes": [round(size / 1e6, 1) for size in sizes],
        "killed_decoders": killed,
        "log_lines": logs[0].count("\n"),
        "unescaped_log_lines": count_unescaped(logs[0]),
    }


def count_unescaped(log: str) -> int:
    """Count the lines of a log that are no JSON object, or hold what a terminal would obey."""
    lines = [line for line in log.split("\n")[:-1] if not line.startswith("asr serves at ")]
    return sum(not (line.isascii() and line.isprintable() and is_object(line)) for line in lines)


def is_object(line: str) -> bool:
    """Whether a line is a JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--limit", type=int, help="utterances, the first so many")
    parser.add_argument("--clients", default="1,4,16,64", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--load", default=1.5, type=float, help="requests, of what transcribe gets through")
    parser.add_argument("--model", default="english")
    parser.add_argument("--hostile", type=int, default=0, metavar="N", help="send so many hostile requests")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.hostile and options.manifest is None:
        parser.error("give a manifest, or --hostile")
    measured = measure_attack(options) if options.hostile else measure_load(options)
    measured |= {
        "model": options.model,
        "processor": find_processor(),
        "load_average": round(os.getloadavg()[0], 1),
        "commit": find_source_commit(),
    }
    print(json.dumps(measured) if options.json else json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
