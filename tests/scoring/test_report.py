"""The page about a comparison: what is in it, and how it works in a browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from asr.cli import cli
from asr.data.manifest import Utterance
from asr.scoring.counts import align_items
from asr.scoring.report import find_word_times, merge_alignments
from asr.text.normalise import NORMALISERS

ROOT = Path(__file__).parents[2]
NASTY = "<script>document.title='run'</script> </script><img src=x onerror=\"document.title='run'\"> <!--"


def write_jsonl(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def report(tmp_path) -> Path:
    """A page about two systems, one recording, and words that would like to be mark-up."""
    shutil.copy(ROOT / "samples" / "digits-lucas.flac", tmp_path / "one #1.flac")
    texts = {"a": "one eight seven two", "b": f"go {NASTY}", "c": "שלום עולם", "d": "yes"}
    reference = [
        {"id": id, "text": text, "audio_filepath": audio, "speaker": speaker, "duration": 1.5}
        for (id, text), audio, speaker in zip(
            texts.items(), ["one #1.flac", *["gone.flac"] * 3], ["s1", "s1", "s2", "s2"], strict=True
        )
    ]
    said = ["one", "eight", "two"]
    times = [{"text": word, "start": 0.4 * n, "end": 0.4 * n + 0.3} for n, word in enumerate(said)]
    first = [
        {"id": "a", "text": "one eight two", "words": times},
        {"id": "b", "text": NASTY + " on"},
        {"id": "c", "text": "שלום"},
        {"id": "d", "text": "yes"},
    ]
    second = [{"id": id, "text": text} for id, text in texts.items()]
    paths = [
        write_jsonl(tmp_path / name, lines)
        for name, lines in (("ref.jsonl", reference), ("first.jsonl", first), ("second.jsonl", second))
    ]
    out = tmp_path / "report.html"
    options = ["--report", str(out), "--normaliser", "none-v1"]
    result = CliRunner().invoke(cli, ["score", *map(str, paths), *options])
    assert result.exit_code == 0, result.output
    return out


def read_data(text: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


# What is in it


def test_the_page_holds_the_totals_and_every_utterance(report):
    data = read_data(report.read_text())
    assert [row["id"] for row in data["rows"]] == ["a", "b", "c", "d"]
    assert data["rows"][0]["text"] == [["one", 1, 1], ["eight", 1, 1], ["seven", "", 1], ["two", 1, 1]]
    assert data["rows"][0]["times"] == [[0.0, 0.3], [0.4, 0.7], [0.7, 0.8], [0.8, 1.1]]
    assert (data["rows"][0]["audio"], data["rows"][0]["errors"]) == ("one%20%231.flac", [1, 0])
    assert "audio" not in data["rows"][1]  # its recording is not there
    first, second = data["systems"]
    assert (first["rates"]["del"], first["deletions"][0][1], second["rates"]["wer"]) == (3, 1, 0.0)
    assert {key: [group["name"] for group in found] for key, found in data["groups"].items()} == {
        "duration": [" 1 to 2 s"],
        "speaker": ["s1", "s2"],
    }
    assert len(data["differences"]) == 1


def test_the_page_asks_nobody_and_admits_no_script_but_its_own(report):
    text = report.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert text.count("<script") == text.count("</script>") == 2
    frame = text.replace(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1], "")
    assert not re.search(r"(?:src|href)=|https?://(?!www\.w3\.org/2000/svg)", frame)


def test_alignments_of_several_systems_share_columns():
    texts = ["a oh c", "a b x y c", "a b c"]
    alignments = [align_items(["a", "b", "c"], text.split()) for text in texts]
    columns = merge_alignments(alignments, [[None] * len(steps) for steps in alignments])
    assert [(c.reference, *c.hypotheses) for c in columns] == [
        ("a", "a", "a", "a"),
        ("b", "oh", "b", "b"),
        ("", "", "x", ""),
        ("", "", "y", ""),
        ("c", "c", "c", "c"),
    ]


def test_words_have_the_times_of_their_pieces_and_deleted_ones_those_between():
    words = [{"text": "Well-known", "start": 1.0, "end": 2.0}, {"text": "man.", "start": 2.5, "end": 3.0}]
    hypothesis = Utterance("u", "", extra={"words": words})
    steps = align_items(["a", "well", "known", "old", "man", "oh"], ["well", "known", "man"])
    assert find_word_times(hypothesis, steps, NORMALISERS["basic-v1"]) == [
        (0.0, 1.0), (1.0, 1.5), (1.5, 2.0), (2.0, 2.5), (2.5, 3.0), (3.0, 4.0)
    ]  # fmt: skip
    assert find_word_times(hypothesis, steps, str) == [None] * 6  # other words than those with times
    for broken in (None, "x", [{"text": "well"}], [{"text": "a", "start": "x", "end": 1}]):
        assert find_word_times(Utterance("u", "", extra={"words": broken}), steps, str) == [None] * 6
    assert find_word_times(None, steps, str) == [None] * 6


def test_a_page_is_made_where_there_is_nothing(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", [{"id": "a", "text": ""}])
    result = CliRunner().invoke(cli, ["score", str(path), str(path), "--report", str(tmp_path / "x.html")])
    assert result.exit_code == 1  # no words
    assert read_data((tmp_path / "x.html").read_text())["systems"][0]["rates"]["wer"] is None


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Debian's Chromium, with a profile of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed ([dev])")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    switches = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    switches += "--disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required"
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=program, args=switches.split(), headless=True
        )
        yield context
        context.close()


@pytest.fixture
def opened(browser, report):
    """The page in a tab, and whatever went wrong in it."""
    tab = browser.new_page()
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(report.as_uri())
    yield tab
    assert complaints == []
    assert all(url.startswith("file:") for url in requests)
    tab.close()


def ids(tab) -> list[str]:
    return tab.eval_on_selector_all(".utterance", "found => found.map((one) => one.dataset.id)")


def test_utterances_are_sorted_searched_and_filtered(opened):
    assert ids(opened) == ["b", "a", "c"]  # the worst first, and only with errors
    opened.uncheck("#wrong")
    assert ids(opened) == ["b", "a", "c", "d"]
    opened.select_option("#sort", "by id")
    assert ids(opened) == ["a", "b", "c", "d"]
    opened.select_option("#sort", "highest rate first")
    assert ids(opened)[-1] == "d"
    opened.fill("#search", "SEVEN")
    assert ids(opened) == ["a"]
    assert opened.text_content("#count") == "1 of 4 utterances"
    opened.fill("#search", "s2")
    assert sorted(ids(opened)) == ["c", "d"]
    opened.fill("#search", "nowhere")
    assert ids(opened) == []


def test_a_confusion_is_searched_for_at_a_click(opened):
    opened.click("#confusions button >> text=seven")
    assert (opened.input_value("#search"), ids(opened)) == ("seven", ["a"])


def test_errors_are_coloured_and_totals_shown(opened):
    assert opened.locator("[data-id=a] .del").count() == 1
    assert opened.locator("[data-id=b] .ins, [data-id=b] .del, [data-id=b] .sub").count() >= 2
    assert opened.locator(".system .big").all_text_contents()[1].startswith("0.00 %")
    assert opened.locator("#charts svg").count() == 2
    assert opened.locator(".verdict").count() == 1
    assert opened.get_attribute("[data-id=c] .text", "dir") == "rtl"


def test_what_stands_in_a_text_is_shown_and_not_run(opened):
    assert opened.title() == "Word errors"
    assert "<script>document.title='run'</script>" in opened.text_content("[data-id=b]")
    assert opened.locator("img").count() == 0


def wait_until(tab, condition: str, seconds: float = 10) -> bool:
    """Whether a condition on the player comes true; the page's policy forbids to wait for it inside."""
    for _ in range(int(seconds / 0.05)):
        if tab.evaluate(f"(({condition}))(document.getElementById('audio'))"):
            return True
        tab.wait_for_timeout(50)
    return False


def test_words_play_their_stretch(opened):
    opened.click("[data-id=a] .word >> text=eight >> nth=0")
    assert wait_until(opened, "(audio) => audio.currentTime > 0.39 && !audio.paused")
    assert opened.locator(".playing").count() == 1
    assert wait_until(opened, "(audio) => audio.paused")
    assert 0.65 <= opened.evaluate("document.getElementById('audio').currentTime") <= 1.2
    assert opened.locator(".playing").count() == 0
    opened.click("[data-id=a] .play")
    assert wait_until(opened, "(audio) => audio.currentTime < 0.4 && !audio.paused")


def test_five_thousand_utterances_are_no_trouble(browser, tmp_path):
    lines = [{"id": f"u{n:04}", "text": " ".join(f"w{(n * k) % 97}" for k in range(16))} for n in range(5000)]
    wrong = [line | {"text": line["text"].replace("w5", "oh")} for line in lines]
    paths = [write_jsonl(tmp_path / "ref.jsonl", lines), write_jsonl(tmp_path / "hyp.jsonl", wrong)]
    options = ["--report", str(tmp_path / "x.html"), "--alignments", "0"]
    assert CliRunner().invoke(cli, ["score", *map(str, paths), *options]).exit_code == 0
    assert (tmp_path / "x.html").stat().st_size < 4_000_000
    tab = browser.new_page()
    tab.goto((tmp_path / "x.html").as_uri())
    tab.uncheck("#wrong")
    assert (tab.text_content("#count"), len(ids(tab))) == ("5,000 of 5,000 utterances", 60)
    tab.click("#more")
    assert len(ids(tab)) == 120
    tab.fill("#search", "u4999")
    assert ids(tab) == ["u4999"]
    tab.close()
