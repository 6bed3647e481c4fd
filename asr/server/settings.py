"""What a server accepts and refuses."""

from __future__ import annotations

from dataclasses import dataclass

from asr.core.config import option

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class ServerSettings:
    """Limits and addresses of a server; ``asr serve`` has an option for each that users change."""

    host: str = option("127.0.0.1", "Address to listen at; 0.0.0.0 is every address of the machine.")
    port: int = option(8000, "Port of HTTP and WebSocket; 0 takes a free one.", minimum=0, maximum=65535)
    wyoming_port: int = option(-1, "Port of Wyoming; 0 takes a free one, -1 none.", minimum=-1, maximum=65535)
    language: str = option("", "Language that the model hears, as in `en`; requests for others are refused.")
    api_key: str = option("", "Bearer token that every request must have; none when empty.")
    allowed_origins: tuple[str, ...] = option((), "Other sites whose pages may use the server (CORS).")
    upload_mib: int = option(200, "Size of an upload, MiB.", minimum=1)
    longest_seconds: float = option(7200.0, "Length of a recording.", above=0.0)
    jobs: int = option(8, "Recordings transcribed at the same time.", minimum=1)
    queue: int = option(64, "Recordings that wait; beyond it a request gets status 503.", minimum=0)
    streams: int = option(10, "Live streams at the same time; beyond it a new one is refused.", minimum=0)
    decoders: int = option(2, "Processes that read uploads.", minimum=1)
    decoder_mib: int = option(1024, "Memory of a process that reads uploads, MiB.", minimum=128)
    decode_seconds: float = option(120.0, "Time to read an upload before its process is killed.", above=0.0)
    header_seconds: float = option(10.0, "Time for the head of a request.", above=0.0)
    idle_seconds: float = option(30.0, "Time in which an upload must go on.", above=0.0)
    upload_seconds: float = option(600.0, "Time for a whole upload.", above=0.0)
    stream_idle_seconds: float = option(60.0, "Time in which a live stream must send something.", above=0.0)
    hotwords: int = option(200, "Hot words and phrases in a request.", minimum=0)

    @property
    def upload_bytes(self) -> int:
        """Size of an upload in bytes."""
        return self.upload_mib * MEBIBYTE
