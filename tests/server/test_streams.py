"""Live streams as other programs send them: vosk's clients, Wyoming's client, and the page."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from asr.audio.reading import read_audio

websockets = pytest.importorskip("websockets.sync.client", reason="needs the extra serve")
Closed = pytest.importorskip("websockets.exceptions").ConnectionClosed

SAMPLES = Path(__file__).parent.parent.parent / "samples"
SAID = "one eight seven two"
RATE = 8000
BLOCK = 1600  # samples in a message


@pytest.fixture(scope="module")
def recording() -> bytes:
    """Digits, a pause, a digit: 8 kHz, 16 bits."""
    quiet = np.random.default_rng(0).normal(0, 1e-4, RATE)
    parts = [read_audio(SAMPLES / name, RATE) for name in ("digits-lucas.flac", "digit-4-george.flac")]
    samples = np.concatenate([quiet, parts[0], quiet, parts[1], quiet])
    return (samples * 32767).astype("<i2").tobytes()


def cut(recording: bytes) -> list[bytes]:
    return [recording[begin : begin + 2 * BLOCK] for begin in range(0, len(recording), 2 * BLOCK)]


def list_segments(digits, recording: bytes) -> list:
    stream = digits.stream(RATE)
    events = []
    for block in cut(recording):
        events += stream.feed(np.frombuffer(block, "<i2"))
    return [event.segment for event in (*events, *stream.finish()) if hasattr(event, "segment")]


class TestVosk:
    """Messages as vosk's public clients send them: the next one only after the answer to the last."""

    def converse(self, server, recording: bytes, **config: object) -> list[dict]:
        url = server.url.replace("http", "ws")
        with websockets.connect(url) as connection:
            connection.send(f'{{ "config" : {{ "sample_rate" : {RATE}.0 }} }}')
            if config:
                connection.send(json.dumps({"config": config}))
            answers = []
            for block in cut(recording):
                connection.send(block)
                answers.append(json.loads(connection.recv()))
            connection.send('{"eof" : 1}')
            answers.append(json.loads(connection.recv()))
            with pytest.raises(Exception, match="1000"):
                connection.recv()
        return answers

    def test_each_message_has_an_answer_and_the_words_have_times(self, server, digits, recording):
        answers = self.converse(server, recording)
        assert len(answers) == len(cut(recording)) + 1
        assert all(("partial" in answer) != ("text" in answer) for answer in answers)
        assert any(answer.get("partial") for answer in answers)
        segments = list_segments(digits, recording)
        results = [answer for answer in answers if answer.get("text")]
        assert " ".join(answer["text"] for answer in results) == f"{SAID} four"
        words = [word for answer in results for word in answer["result"]]
        assert [(word["word"], word["start"], word["end"]) for word in words] == [
            (w.text, round(w.start, 3), round(w.end, 3)) for segment in segments for w in segment.words
        ]
        assert all(0 < word["conf"] <= 1 for word in words)

    def test_settings(self, server, recording):
        answers = self.converse(server, recording, words=0, phrase_list=["four", "[unk]"])
        assert " ".join(answer["text"] for answer in answers if answer.get("text")) == f"{SAID} four"
        assert not any("result" in answer for answer in answers)
        answers = self.converse(server, recording, max_alternatives=3)
        best = [answer["alternatives"][0] for answer in answers if "alternatives" in answer]
        assert " ".join(one["text"] for one in best if one["text"]) == f"{SAID} four"

    def test_the_client_of_the_vosk_package(self, server, recording):
        vosk = pytest.importorskip("vosk.transcriber.transcriber", reason="needs vosk, part of [dev]")

        class Output:
            """What the client reads the samples of, in place of ffmpeg."""

            def __init__(self) -> None:
                self.rest = recording_16k

            async def read(self, size: int) -> bytes:
                content, self.rest = self.rest[:size], self.rest[size:]
                return content

        recording_16k = np.repeat(np.frombuffer(recording, "<i2"), 2).tobytes()
        client = vosk.Transcriber.__new__(vosk.Transcriber)  # its constructor would open a model
        client.args = type("Args", (), {"server": server.url.replace("http", "ws"), "output_type": "txt"})()
        process = type("Process", (), {"stdout": Output()})()
        result, count = asyncio.run(client.recognize_stream_server(process))
        assert count == len(recording_16k)
        assert client.format_result(result).split() == f"{SAID} four".split()


class TestWyoming:
    def test_the_client_of_the_wyoming_package(self, server, recording):
        pytest.importorskip("wyoming", reason="needs the wyoming package, part of [dev]")
        from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
        from wyoming.audio import AudioChunk, AudioStart, AudioStop
        from wyoming.client import AsyncTcpClient
        from wyoming.info import Describe, Info

        async def converse() -> tuple[Info, list]:
            recordings: list = []
            async with AsyncTcpClient("127.0.0.1", server.wyoming_port) as client:
                await client.write_event(Describe().event())
                info = Info.from_event(await client.read_event())
                events: list = []
                for _ in range(2):  # a client may send more than one recording
                    await client.write_event(Transcribe(language="en", transcript_names=["four"]).event())
                    await client.write_event(AudioStart(rate=RATE, width=2, channels=1).event())
                    for block in cut(recording):
                        chunk = AudioChunk(rate=RATE, width=2, channels=1, audio=block)
                        await client.write_event(chunk.event())
                    await client.write_event(AudioStop().event())
                    while not events or not TranscriptStop.is_type(events[-1].type):
                        events.append(await client.read_event())
                    recordings.append(events)
                    events = []
                return info, recordings

        info, recordings = asyncio.run(converse())
        assert info.asr[0].models[0].name == "digits"
        assert info.asr[0].models[0].languages == ["en"]
        assert info.asr[0].supports_transcript_streaming
        for events in recordings:
            assert TranscriptStart.is_type(events[0].type)
            chunks = [TranscriptChunk.from_event(e).text for e in events if TranscriptChunk.is_type(e.type)]
            (whole,) = [Transcript.from_event(e).text for e in events if Transcript.is_type(e.type)]
            assert "".join(chunks) == whole == f"{SAID} four"

    @pytest.mark.parametrize(
        "content",
        [
            b"nothing\n",
            b"[1]\n",
            b'{"type": 1}\n',
            b'{"type": "audio-chunk", "payload_length": 99999999999}\n',
            b'{"type": "audio-chunk", "payload_length": -1}\n',
            b'{"type": "audio-start", "data": {"rate": 1e999}}\n',
            b'{"type": "audio-start", "data": {"width": 3}}\n',
            b'{"type": "transcribe", "data": {"transcript_names": [1]}}\n',
            b"[" * 10_000 + b"\n",
            b"x" * 100_000,
        ],
    )
    def test_what_is_no_event_is_answered_and_ends_the_connection(self, server, content):
        with socket.create_connection(("127.0.0.1", server.wyoming_port), timeout=10) as connection:
            connection.sendall(content)
            answer = b""
            try:
                while part := connection.recv(4096):
                    answer += part
            except ConnectionResetError:  # more was sent than the server read
                pass
            assert answer.startswith(b'{"type": "error"')

    def test_samples_of_other_widths_and_channels(self):
        from asr.server.wyoming import to_16_bits

        samples = np.array([0, 1000, -1000, 32767], np.int16)
        assert to_16_bits(samples.tobytes(), 2, 1) == samples.tobytes()
        assert to_16_bits((samples.astype("<i4") << 16).tobytes(), 4, 1) == samples.astype("<i2").tobytes()
        assert to_16_bits(np.repeat(samples, 2).tobytes() + b"x", 2, 2) == samples.tobytes()
        assert struct.unpack("<2h", to_16_bits(bytes([128, 255]), 1, 1)) == (0, 127 * 256)


class TestPageStream:
    def converse(self, server, recording: bytes, start: dict, **options: object) -> list[dict]:
        url = f"{server.url.replace('http', 'ws')}/v1/stream"
        with websockets.connect(url, **options) as connection:
            connection.send(json.dumps({"type": "start", **start}))
            answers = [json.loads(connection.recv())]
            if answers[0]["type"] == "ready":
                for block in cut(recording):
                    connection.send(block)
                connection.send('{"type": "stop"}')
                while answers[-1]["type"] not in ("done", "error"):
                    answers.append(json.loads(connection.recv()))
        return answers

    def test_events(self, server, digits, recording):
        answers = self.converse(server, recording, {"rate": RATE, "hotwords": "four"})
        assert answers[0] == {"type": "ready", "model": "digits"}
        assert answers[-1] == {"type": "done", "seconds": pytest.approx(len(recording) / 2 / RATE, abs=0.01)}
        finals = [answer for answer in answers if answer["type"] == "final"]
        segments = list_segments(digits, recording)
        assert [(a["start"], a["end"]) for a in finals] == [
            (round(s.start, 3), round(s.end, 3)) for s in segments
        ]
        assert " ".join(answer["text"] for answer in finals) == f"{SAID} four"
        assert [word["word"] for answer in finals for word in answer["words"]] == f"{SAID} four".split()
        assert len([answer for answer in answers if answer["type"] == "endpoint"]) == len(finals)

    @pytest.mark.parametrize(
        "start", [{"rate": 1}, {"rate": "x"}, {"rate": None}, {"rate": 1e9}, {"type": "x"}]
    )
    def test_a_wrong_start_is_refused(self, server, recording, start):
        (answer,) = self.converse(server, recording, start)
        assert answer["type"] == "error"

    def test_beyond_the_limit_new_streams_are_refused_and_old_ones_go_on(self, serve, recording):
        with serve(streams=1) as server:
            url = f"{server.url.replace('http', 'ws')}/v1/stream"
            with websockets.connect(url) as connection:
                connection.send(json.dumps({"type": "start", "rate": RATE}))
                assert json.loads(connection.recv())["type"] == "ready"
                with websockets.connect(server.url.replace("http", "ws")) as other:
                    assert "busy" in json.loads(other.recv())["error"]
                for block in cut(recording):
                    connection.send(block)
                connection.send('{"type": "stop"}')
                answers = []
                while not answers or answers[-1]["type"] != "done":
                    answers.append(json.loads(connection.recv()))
                texts = [answer["text"] for answer in answers if answer["type"] == "final"]
                assert " ".join(texts) == f"{SAID} four"
            assert self.converse(server, recording, {"rate": RATE})[-1]["type"] == "done"

    def test_the_key_comes_as_the_name_of_a_protocol(self, serve, recording):
        with serve(api_key="a-long-key") as server:
            with pytest.raises(Exception, match="403"):
                self.converse(server, recording, {"rate": RATE})
            names = ["asr-stream", "asr-key.a-long-key"]
            answers = self.converse(server, recording, {"rate": RATE}, subprotocols=names)
            assert answers[-1]["type"] == "done"

    def test_a_stream_outlives_the_limits_of_requests(self, serve, recording):
        with serve(header_seconds=0.2, idle_seconds=0.2) as server:
            url = f"{server.url.replace('http', 'ws')}/v1/stream"
            with websockets.connect(url) as connection:
                connection.send(json.dumps({"type": "start", "rate": RATE}))
                assert json.loads(connection.recv())["type"] == "ready"
                time.sleep(0.7)
                connection.send('{"type": "stop"}')
                assert json.loads(connection.recv())["type"] == "done"

    def test_a_client_that_leaves_gives_its_place_back(self, serve, recording):
        with serve(streams=1) as server:
            url = f"{server.url.replace('http', 'ws')}/v1/stream"
            for _ in range(3):
                for _ in range(100):  # its place is free soon after it has left
                    try:
                        with websockets.connect(url) as connection:
                            connection.send(json.dumps({"type": "start", "rate": RATE}))
                            if json.loads(connection.recv())["type"] != "error":
                                connection.send(recording[:3200])
                                break
                    except Closed:
                        pass
                    time.sleep(0.05)
                else:
                    raise AssertionError("no place became free")
            assert server.engine.open_streams <= 1
