"""The page in a browser: files, the microphone, words, edits and downloads."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio.reading import read_audio

SAMPLES = Path(__file__).parent.parent.parent / "samples"
PAGE = Path(__file__).parent.parent.parent / "asr" / "server" / "page"
DIGITS = SAMPLES / "digits-lucas.flac"
RATE = 48_000
SECONDS = 40_000  # milliseconds of patience on a busy machine


@pytest.fixture(scope="module")
def microphone(tmp_path_factory) -> Path:
    """A recording that the browser takes for the microphone: quiet, digits, quiet."""
    path = tmp_path_factory.mktemp("microphone") / "digits.wav"
    noise = np.random.default_rng(0).normal(0, 1e-4, 4 * RATE)
    parts = [noise, 0.9 * read_audio(DIGITS, RATE), noise]
    soundfile.write(path, np.concatenate(parts).astype(np.float32), RATE, "PCM_16")
    return path


@pytest.fixture(scope="module")
def browser(microphone):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed ([dev])")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}%noloop",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server):
    context = browser.new_context(permissions=["microphone"], accept_downloads=True)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on(
        "request", lambda r: faults.append(r.url) if not r.url.startswith((server.url, "blob:")) else None
    )
    page.set_default_timeout(SECONDS)
    page.goto(server.url)
    page.wait_for_selector("#model:has-text('digits')")
    yield page
    context.close()
    assert faults == []


def wait_until(page, expression: str) -> None:
    """Wait until an expression is true; the page's policy lets no library evaluate it inside."""
    end = time.monotonic() + SECONDS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def list_words(page) -> list[str]:
    return page.locator(".transcript").first.locator(".word").all_inner_texts()


@pytest.mark.slow
def test_files_words_edits_and_downloads(page, digits, tmp_path):
    transcript = digits.transcribe(DIGITS)
    words = [word for segment in transcript.segments for word in segment.words]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"nothing")
    page.set_input_files("#files", [DIGITS, broken])
    page.wait_for_selector(".state:has-text('4 words')")
    page.wait_for_selector(".state.fault:has-text('is not audio')")
    card = page.locator(".transcript", has_text="digits-lucas")
    buttons = card.locator(".word")
    assert buttons.all_inner_texts() == [word.text for word in words]
    assert float(buttons.nth(2).get_attribute("data-start")) == pytest.approx(words[2].start, abs=1e-3)
    assert buttons.nth(2).get_attribute("title").startswith(f"{words[2].start:.2f} s, ")
    buttons.nth(2).click()
    audio = "document.querySelectorAll('audio')[1]"  # the newest file stands first
    wait_until(page, f"{audio}.currentTime > 2")
    wait_until(page, f"{audio}.paused")
    assert page.evaluate(f"{audio}.currentTime") < words[2].end + 0.5

    card.locator(".edit").click()
    card.locator("textarea").first.press("End")
    card.locator("textarea").first.type(" hundred")
    card.locator(".edit").click()
    first = len(transcript.segments[0].words)
    assert buttons.all_inner_texts()[: first + 1] == [*(w.text for w in words[:first]), "hundred"]
    page.reload()  # edited text is kept
    assert "hundred" in card.locator(".word").all_inner_texts()

    contents = {}
    for kind in ("txt", "srt", "vtt", "json"):
        with page.expect_download() as download:
            card.locator(f"[data-format={kind}]").click()
        assert download.value.suggested_filename == f"digits-lucas.{kind}"
        contents[kind] = Path(download.value.path()).read_text(encoding="utf-8")
    text = " ".join(contents["txt"].split())
    assert text.replace(" hundred", "") == transcript.text
    assert contents["vtt"].startswith("WEBVTT\n\n00:00:00.")
    assert re.match(r"1\n00:00:00,\d{3} --> 00:00:0\d,\d{3}\none", contents["srt"])
    table = json.loads(contents["json"])
    assert table["text"] == text
    assert table["segments"][0]["words"][0]["end"] == pytest.approx(words[0].end, abs=1e-3)


@pytest.mark.slow
def test_what_is_spoken_is_shown_as_transcribe_has_it(page, digits, microphone):
    page.fill("#hotwords", "seven")
    page.press("#hotwords", "Tab")
    page.keyboard.press("r")  # the microphone by its key
    page.wait_for_selector("#speak[aria-pressed=true]")
    said = digits.transcribe(microphone).text.split()
    wait_until(page, "document.querySelector('#live-partial').textContent.trim() !== ''")
    expression = (
        f"document.querySelector('#live-finals').textContent.trim().split(' ').length === {len(said)}"
    )
    wait_until(page, expression)
    page.click("#speak")
    page.wait_for_selector(".transcript")
    assert list_words(page) == said
    page.locator(".word").last.click()  # what was spoken can be heard again
    wait_until(page, "document.querySelector('audio').currentTime > 1")
    assert page.locator("#live").is_hidden()


@pytest.mark.slow
def test_words_are_written_as_the_text_has_them(page):
    """With capitals and marks; so text that was looked at and not edited keeps every time."""
    words = [
        {"word": word, "start": i / 4, "end": i / 4 + 0.1, "confidence": 0.5} for i, word in enumerate("abc")
    ]
    written, times, other = page.evaluate(
        """async (segment) => {
            const { retime, writeWords } = await import("/page/formats.js");
            const written = writeWords(segment), text = { ...segment, text: "Two words." };
            return [written.words.map((word) => word.word),
                    retime(written, segment.text).words.map((word) => [word.start, word.confidence]),
                    writeWords(text).words.map((word) => word.word)];
        }""",
        {"start": 0, "end": 1, "text": "A, b c?", "words": words},
    )
    assert written == ["A,", "b", "c?"]
    assert times == [[0, 0.5], [0.25, 0.5], [0.5, 0.5]]
    assert other == ["a", "b", "c"]


def test_a_page_without_the_key_asks_for_it(browser, serve):
    with serve(api_key="a-long-key") as server:
        page = browser.new_page()
        page.set_default_timeout(SECONDS)
        page.goto(server.url)
        page.fill("#key", "wrong")
        page.press("#key", "Enter")
        page.wait_for_selector("#key-fault:has-text('not the key')")
        page.fill("#key", "a-long-key")
        page.press("#key", "Enter")
        page.wait_for_selector("#model:has-text('digits')")
        page.set_input_files("#files", [DIGITS])
        page.wait_for_selector(".state:has-text('4 words')")
        page.close()


def test_every_control_has_a_name():
    content = (PAGE / "index.html").read_text(encoding="utf-8")
    for control in re.findall(r"<input [^>]*>", content):
        name = re.search(r'id="(\w+)"', control)[1]
        assert f'<label for="{name}"' in content or "aria-hidden" in control
    assert 'lang="en"' in content
    assert not re.search(r"""(src|href)=["'](https?:)?//""", content)
