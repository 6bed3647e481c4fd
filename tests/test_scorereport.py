"""The page that ``asr score --report`` writes: one file, harmless, and working in a browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from asr.cli import cli

CHROMIUM = shutil.which("chromium")
BROWSER = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
EVIL = "<script>document.title='run'</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A report on two systems, with a recording, word times, and a hypothesis that is a script."""
    folder = tmp_path_factory.mktemp("report")
    generator = np.random.default_rng(0)
    soundfile.write(folder / "u1.wav", 0.1 * generator.standard_normal(16000), 8000)
    references = [
        {"id": "u1", "audio_filepath": "u1.wav", "duration": 2.0, "text": "the cat sat", "speaker": "ann"},
        {"id": "u2", "audio_filepath": "no.wav", "duration": 4.0, "text": "go on", "speaker": "bob"},
        {"id": "u3", "audio_filepath": "no.wav", "duration": 9.0, "text": "all right here", "speaker": "bob"},
    ]
    words = [{"text": w, "start": 0.5 * n, "end": 0.5 * n + 0.4} for n, w in enumerate(["the", "bat", "sat"])]
    first = [
        {"id": "u1", "text": "the bat sat", "words": words},
        {"id": "u2", "text": f"go {EVIL} {EVIL}"},
        {"id": "u3", "text": "all right here"},
    ]
    second = [
        {"id": "u1", "text": "the cat sat"},
        {"id": "u2", "text": "go"},
        {"id": "u3", "text": "all here"},
    ]
    for name, lines in (("ref", references), ("one", first), ("two", second)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = [str(folder / f"{name}.jsonl") for name in ("ref", "one", "two")]
    command = ["score", *files, "--normaliser", "none-v1", "--report", str(folder / "page.html")]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    return folder / "page.html"


def test_the_page_needs_no_network_and_runs_no_script_but_its_own(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    assert EVIL not in text
    assert "Content-Security-Policy" in text
    assert len(re.findall(r"<script", text)) == 2  # the data and the program


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=CHROMIUM, args=BROWSER, headless=True
        )
        yield context
        context.close()


@pytest.fixture
def opened(browser, page):
    tab = browser.new_page()
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    tab.goto(page.as_uri())
    yield tab
    tab.close()
    assert not problems


def ids(tab) -> list[str]:
    return tab.eval_on_selector_all("article.utterance", "list => list.map(a => a.dataset.id)")


def test_the_worst_come_first_and_the_order_can_be_changed(opened):
    assert ids(opened) == ["u2", "u1", "u3"]
    opened.select_option("#sort", "as in the file")
    assert ids(opened) == ["u1", "u2", "u3"]
    opened.select_option("#sort", "longest first")
    assert ids(opened) == ["u3", "u2", "u1"]


def test_words_ids_and_speakers_are_searched(opened):
    for wanted, found in (("bat", ["u1"]), ("u3", ["u3"]), ("bob", ["u2", "u3"]), ("zebra", [])):
        opened.fill("#search", wanted)
        assert ids(opened) == found
    opened.fill("#search", "")
    opened.uncheck("#wrong")
    assert opened.inner_text("#count").startswith("3 of 3")


def test_a_script_is_shown_and_not_run(opened):
    assert opened.title() != "run"
    assert EVIL in opened.inner_text("article[data-id=u2]")


def wait_until(tab, condition: str) -> None:
    """Wait for a property of the player; asked from outside, since the page forbids eval inside."""
    for _ in range(100):
        if tab.eval_on_selector("#audio", condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never came true: {condition}")


def test_a_word_plays_its_stretch_of_the_recording(opened):
    opened.click("article[data-id=u1] .hearable >> nth=1")
    wait_until(opened, "audio => audio.currentTime > 0.45")
    assert opened.eval_on_selector("#audio", "audio => audio.src").endswith("/u1.wav")
    wait_until(opened, "audio => audio.paused")
    assert 0.8 < opened.eval_on_selector("#audio", "audio => audio.currentTime") < 1.3


def test_both_systems_stand_side_by_side(opened):
    text = opened.inner_text("#systems")
    assert "one.jsonl" in text and "two.jsonl" in text
    assert opened.inner_text("#verdicts")
