"""The HTTP API, with the client that most programs use, and with requests that no client sends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asr.transcript.formats import FORMATS, Layout

httpx = pytest.importorskip("httpx", reason="needs httpx, part of [dev]")

SAMPLES = Path(__file__).parent.parent.parent / "samples"
DIGITS = SAMPLES / "digits-lucas.flac"
SAID = "one eight seven two"


def post(server, content: bytes | None = None, name: str = "x.flac", **fields: object):
    file = DIGITS.read_bytes() if content is None else content
    return httpx.post(
        f"{server.url}/v1/audio/transcriptions", files={"file": (name, file)}, data=fields, timeout=60
    )


@pytest.fixture
def client(server):
    openai = pytest.importorskip("openai", reason="needs the openai client, part of [dev]")
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none needed", max_retries=0) as client:
        yield client


class TestOpenAIClient:
    def test_models(self, client):
        assert [model.id for model in client.models.list()] == ["digits"]
        assert client.models.retrieve("digits").object == "model"

    @pytest.mark.parametrize("model", ["digits", "whisper-1"])
    def test_text_is_the_default(self, client, model):
        answer = client.audio.transcriptions.create(file=DIGITS, model=model)
        assert (answer.text, answer.usage.seconds) == (SAID, 4)

    def test_text_and_subtitles_are_those_of_transcribe(self, client, digits):
        transcript = digits.transcribe(DIGITS)
        for kind, own in [("text", "txt"), ("srt", "srt"), ("vtt", "vtt")]:
            answer = client.audio.transcriptions.create(file=DIGITS, model="digits", response_format=kind)
            assert answer == FORMATS[own](transcript, Layout())

    def test_words_and_segments_are_those_of_transcribe(self, client, digits):
        transcript = digits.transcribe(DIGITS)
        answer = client.audio.transcriptions.create(
            file=DIGITS,
            model="digits",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
        assert (answer.text, answer.language, answer.duration) == (SAID, "english", pytest.approx(3.572))
        words = [word for segment in transcript.segments for word in segment.words]
        assert [(w.word, w.start, w.end, w.confidence) for w in answer.words] == [
            (w.text, round(w.start, 3), round(w.end, 3), pytest.approx(w.confidence, abs=1e-3)) for w in words
        ]
        assert [segment.text for segment in answer.segments] == [SAID]
        assert -0.1 < answer.segments[0].avg_logprob < 0
        plain = client.audio.transcriptions.create(
            file=DIGITS, model="digits", response_format="verbose_json"
        )
        assert plain.words is None
        assert len(plain.segments) == 1

    def test_a_stream_of_events(self, client):
        events = list(client.audio.transcriptions.create(file=DIGITS, model="digits", stream=True))
        kinds = [event.type for event in events]
        assert kinds == ["transcript.text.delta"] * (len(kinds) - 1) + ["transcript.text.done"]
        assert "".join(event.delta for event in events[:-1]) == events[-1].text == SAID

    def test_errors_are_those_that_the_client_knows(self, client):
        import openai

        with pytest.raises(openai.NotFoundError, match="no model 'other' here; this server has 'digits'"):
            client.audio.transcriptions.create(file=DIGITS, model="other")
        with pytest.raises(openai.BadRequestError, match="is not audio") as caught:
            client.audio.transcriptions.create(file=("x.wav", b"nothing"), model="digits")
        assert (caught.value.param, caught.value.code) == ("file", "invalid_file")
        with pytest.raises(openai.BadRequestError, match="this model hears 'en'"):
            client.audio.transcriptions.create(file=DIGITS, model="digits", language="de")
        with pytest.raises(openai.APIError, match="is not audio"):
            list(client.audio.transcriptions.create(file=("x.wav", b"nothing"), model="digits", stream=True))

    def test_a_prompt_is_hot_words(self, client, server):
        answer = client.audio.transcriptions.create(file=DIGITS, model="digits", prompt="Eight, seven two")
        assert answer.text == SAID
        assert server.engine.find_recognizer(("Eight", "seven two")).recognizer.decoder.description[
            "phrases"
        ] == [
            "eight",
            "seven two",
        ]
        with pytest.raises(Exception, match="hot words"):
            client.audio.transcriptions.create(file=DIGITS, model="digits", prompt="Übermut")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "docx"}, "response_format"),
        ({"stream": "perhaps"}, "stream"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"timestamp_granularities[]": "year", "response_format": "verbose_json"}, "timestamp_granularities"),
        ({"include[]": "everything"}, "include"),
        ({"prompt": "x" * 101}, "prompt"),
        ({"prompt": ",".join(f"a{number}" for number in range(300))}, "prompt"),
    ],
)
def test_a_wrong_field_is_named(server, fields, param):
    answer = post(server, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_form_without_a_file(server):
    url = f"{server.url}/v1/audio/transcriptions"
    for answer in (httpx.post(url, data={"model": "digits"}), httpx.post(url, json={}), httpx.post(url)):
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = httpx.post(url, content=b"--x\r\nnothing", headers=broken)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_other_paths_and_methods(server):
    assert httpx.get(f"{server.url}/v1/other").json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{server.url}/v1/audio/transcriptions").status_code == 405


def test_the_page_gets_segments_and_progress(server):
    answer = post(server, stream="true", **{"include[]": ["segments", "progress"]})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    (segment,) = [event for event in events if event["type"] == "transcript.text.segment"]
    assert [word["word"] for word in segment["words"]] == SAID.split()
    assert all(0.5 < word["confidence"] <= 1 for word in segment["words"])
    progress = [event for event in events if event["type"] == "transcript.progress"][-1]
    assert progress["duration"] == pytest.approx(3.572, abs=0.01)
    assert 3.0 < progress["seconds"] <= progress["duration"]  # silence is not heard


def test_a_name_of_a_path_is_only_a_name(server, tmp_path):
    answer = post(server, name=f"../../{tmp_path}/x.wav", response_format="text")
    assert answer.text.strip() == SAID
    assert not list(tmp_path.iterdir())
