"""The Japanese recipe: what is heard is what a network learns."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from asr.data.manifest import Utterance, read_manifest, write_manifest

SCRIPT = Path(__file__).parents[2] / "recipes/commonvoice/kana.py"
SENTENCES = {  # written by the authors of this test
    "今日は良い天気ですね。": "キョーワヨイテンキデスネ",
    "私は2016年に東京へ行きました。": "ワタシワニセンジューロクネンニトーキョーエイキマシタ",
    "「そうですか」と彼女は言った。": "ソーデスカトカノジョワイッタ",
    "Wi-Fiが使えますか?": "ワイファイガツカエマスカ",
    "彼は、手を洗う。": "カレワテヲアラウ",
    "CPUは100%です": "シーピーユーワヒャクパーセントデス",
    "……!": "",
}


@pytest.fixture(scope="module")
def kana():
    spec = importlib.util.spec_from_file_location("kana", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nothing_but_katakana_is_kept(kana):
    assert (
        kana.keep_kana("「ソーデスカ」 ト、カノジョワ・イッタ。？ ヴァイオリン")
        == "ソーデスカトカノジョワイッタヴァイオリン"
    )
    assert kana.keep_kana("漢字 ひらがな abc 12") == ""


@pytest.mark.parametrize(("written", "heard"), SENTENCES.items())
def test_a_sentence_is_read_aloud(kana, written, heard):
    pytest.importorskip("pyopenjtalk")
    assert kana.keep_kana(kana.open_reader()(written)) == heard


def test_manifests_are_converted_and_what_is_silent_is_named(kana, tmp_path):
    pytest.importorskip("pyopenjtalk")
    utterances = [
        Utterance(id=f"u{n}", audio=str(tmp_path / f"{n}.wav"), text=text, speaker="s", extra={"age": "20"})
        for n, text in enumerate(SENTENCES)
    ]
    write_manifest(tmp_path / "train.jsonl", utterances)
    command = [sys.executable, SCRIPT, tmp_path / "train.jsonl", "--out"]
    done = subprocess.run([*command, tmp_path / "kana"], capture_output=True, text=True, check=True)
    assert done.stderr == f"{tmp_path / 'train.jsonl'}: u6: has nothing to say and is left out\n"
    converted = read_manifest(tmp_path / "kana" / "train.jsonl")
    assert [u.text for u in converted] == [text for text in SENTENCES.values() if text]
    assert [u.extra for u in converted] == [{"age": "20", "written": u.text} for u in utterances[:-1]]
    assert [u.audio for u in converted] == [u.audio for u in utterances[:-1]]

    refused = subprocess.run([*command, tmp_path], capture_output=True, text=True)
    assert (refused.returncode, "would be overwritten" in refused.stderr) == (1, True)
    (tmp_path / "train.jsonl").write_text(json.dumps({"id": "a"}) + "\n")
    refused = subprocess.run([*command, tmp_path / "kana"], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
