"""Counters for Prometheus, one set for each server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LATENCY = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 5.0)
BATCH = (1, 2, 3, 4, 6, 8)


class Metrics:
    """What is counted while a server runs."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "asr_requests", "Requests by route and status.", ["route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "asr_request_seconds", "Seconds from a request to its answer.", ["route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.audio_seconds = Counter(
            "asr_audio_seconds", "Seconds of audio transcribed.", ["kind"], registry=self.registry
        )
        self.jobs = Gauge("asr_jobs", "Recordings that wait or are transcribed.", registry=self.registry)
        self.refused = Counter(
            "asr_refused", "Requests refused because the server is full.", ["kind"], registry=self.registry
        )
        self.streams = Gauge("asr_streams", "Live streams.", ["protocol"], registry=self.registry)
        self.final_seconds = Histogram(
            "asr_final_seconds", "Seconds that a live stream takes to hear a finished segment.",
            buckets=LATENCY, registry=self.registry,
        )  # fmt: skip
        self.killed = Counter(
            "asr_decoders_killed", "Processes killed because of an upload.", registry=self.registry
        )
        self.batch_size = Histogram(
            "asr_batch_chunks", "Chunks that the network gets at once.", buckets=BATCH, registry=self.registry
        )

    def write(self) -> bytes:
        """Write all of it in Prometheus' text format."""
        return generate_latest(self.registry)
