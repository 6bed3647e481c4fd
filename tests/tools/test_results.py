"""Tables of results are what the result files say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asr.training.monitoring import read_training_speed
from tools import results

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("recipes/*/results/*.json"))


def test_the_tables_are_made_from_the_files():
    check = [sys.executable, str(ROOT / "tools" / "results.py"), "--check"]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_result_says_how_to_get_it_again(path):
    result = json.loads(path.read_text())
    keys = ["command", "commit", "hardware", "hours", "rtf", "normaliser", "date"]
    for key in keys if "pocketsphinx" in path.stem else [*keys, "seed", "parameters"]:
        assert result[key] is not None, key
    counts = result["word_counts"]
    errors = counts["substitutions"] + counts["deletions"] + counts["insertions"]
    assert result["wer"] == pytest.approx(errors / counts["reference_length"])
    assert not result["missing"]


def test_the_curve_is_that_of_the_epochs_and_skips_half_lines(tmp_path):
    lines = [
        '{"step": 1, "epoch": 1, "loss": 9.0}',
        '{"step": 2, "epoch": 1, "train_loss": 9.0, "valid_loss": 8.0, "valid_wer": 1.0, "valid_cer": 0.5}',
        '{"step": 4, "epoch": 2, "train_loss": 5.0, "valid_wer": null}',
        '{"step": 4, "epo',
        '{"step": 4, "epoch": 2, "train_loss": 4.0, "valid_wer": 0.25}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    command = [sys.executable, str(ROOT / "tools" / "curve.py"), str(tmp_path), "-o", str(tmp_path / "out")]
    subprocess.run(command, check=True)
    kept = [json.loads(line) for line in (tmp_path / "out.curve.jsonl").read_text().splitlines()]
    assert [record["train_loss"] for record in kept] == [9.0, 4.0]
    assert (tmp_path / "out.curve.png").read_bytes().startswith(b"\x89PNG")


# --- systems side by side -------------------------------------------------------------------------


def write_result(folder: Path, name: str, errors: int, rtf: float, speed: float | None, **more: Any) -> None:
    """What is looked at of a result, with ``errors`` of 200 words wrong."""
    counts = {"substitutions": errors, "deletions": 0, "insertions": 0, "reference_length": 200}
    counts |= {"utterances": 10, "wrong_utterances": 1}
    result = {"word_counts": counts, "character_counts": counts, "hours": 0.1, "rtf": rtf, "parameters": 5}
    result |= {"hardware": "a machine", "commit": "c" * 40}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(
        json.dumps(result | ({} if speed is None else {"training_speed": speed}) | more)
    )


@pytest.fixture
def compared_folder(tmp_path, monkeypatch) -> Path:
    """A recipe with three seeds of one system and one seed of another, trained before speeds were kept."""
    folder = tmp_path / "recipes" / "r"
    for seed, errors, rtf, speed in (
        ("", 4, 0.01, 50.0),
        ("-seed2", 8, 0.02, 70.0),
        ("-seed3", 6, 0.04, None),
    ):
        write_result(folder / "results", f"gated{seed}.test", errors, rtf, speed)
    write_result(folder / "results", "plain.test", 100, 0.005, None)
    write_result(folder / "results", "plain.elsewhere", 1, 0.005, 9.0)
    (folder / "README.md").write_text(
        "before\n<!-- comparison: r test -->\n<!-- end of comparison -->\nafter\n"
    )
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["results.py"])
    return folder


def test_seeds_are_one_row_with_their_spread_and_one_point(compared_folder):
    results.main()
    text = (compared_folder / "README.md").read_text()
    rows = [line for line in text.splitlines() if "a machine" in line]
    assert [row.removesuffix(" | a machine | `ccccccccc` |") for row in rows] == [
        "| gated | 5 | 3 | **3.00 (2.00 to 4.00)** | 60.0 (50.0 to 70.0) | 58.3 (25.0 to 100)",
        "| plain | 5 | 1 | **50.0** |  | 200",
    ]
    assert "![WER over speed](results/test.png)" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    points = json.loads(results.read_drawing(compared_folder / "results" / "test.png"))
    assert [point["system"] for point in points] == ["gated", "plain"]
    assert points[0]["errors"] == {"mean": 3.0, "low": 2.0, "high": 4.0, "seeds": 3}
    assert points[1]["training"] is None


def test_a_summary_has_four_columns(compared_folder):
    path = compared_folder.parents[1] / "docs" / "how-to" / "x.md"
    path.parent.mkdir(parents=True)
    path.write_text("<!-- summary: r plain -->\n<!-- end of summary -->\n")
    results.main()
    assert path.read_text().splitlines()[1:] == [
        "| system | test set | WER | times real time |",
        "| --- | --- | --- | --- |",
        "| plain | elsewhere | **0.5 %** | 200 |",
        "| plain | test | **50.0 %** | 200 |",
        "<!-- end of summary -->",
    ]


def test_speeds_are_those_of_the_machine_that_most_ran_on(compared_folder):
    """Errors are of all seeds; what ran on the other machine alone has no speed beside theirs."""
    write_result(compared_folder / "results", "gated-seed4.test", 10, 0.001, 900.0, hardware="another one")
    write_result(compared_folder / "results", "fast.test", 20, 0.001, 900.0, hardware="another one")
    gated, fast, _ = results.compare_systems("r", "test")
    assert (gated.errors, gated.training, gated.recognition) == (
        results.Spread(3.5, 2.0, 5.0, 4),
        results.Spread(60.0, 50.0, 70.0, 2),
        results.Spread(pytest.approx(175 / 3), 25.0, 100.0, 3),
    )
    assert gated.hardware == "a machine"
    assert (fast.training, fast.recognition, fast.hardware) == (None, None, "another")
    results.main()
    assert "| fast | 5 | 1 | **10.0** |  |  | another |" in (compared_folder / "README.md").read_text()


def test_the_systems_that_are_named_stand_side_by_side_set_by_set(compared_folder):
    write_result(compared_folder / "results", "other.test", 50, 0.005, None)
    asked = "<!-- results: r plain other -->\n<!-- end of results -->\n"
    rows = results.fill_tables(asked, compared_folder).splitlines()[3:-1]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| plain", "elsewhere"],
        ["| other", "test"],
        ["| plain", "test"],
    ]
    everything = results.fill_tables("<!-- results: r -->\n<!-- end of results -->\n", compared_folder)
    assert len(everything.splitlines()) == 4 + len(list((compared_folder / "results").glob("*.json")))


def test_a_picture_of_other_results_is_found_and_only_that_one_drawn_anew(compared_folder, monkeypatch):
    results.main()
    picture = compared_folder / "results" / "test.png"
    before = picture.stat().st_mtime_ns
    results.main()
    assert picture.stat().st_mtime_ns == before
    write_result(compared_folder / "results", "plain.test", 50, 0.005, None)
    monkeypatch.setattr(sys, "argv", ["results.py", "--check"])
    with pytest.raises(SystemExit, match=r"recipes/r/README.md, recipes/r/results/test.png"):
        results.main()
    assert picture.stat().st_mtime_ns == before


@pytest.mark.parametrize(("search", "counted"), [("greedy", "phone errors"), ({"beam_size": 8}, "WER")])
def test_phones_are_called_phones_unless_words_were_searched_for(compared_folder, search, counted):
    write_result(compared_folder / "results", "heard.other", 50, 0.01, None, unit="phones", search=search)
    assert results.counted_unit("r", "other") == counted


def test_the_speed_of_training_is_that_of_the_middle_epoch_without_its_validation(tmp_path):
    lines = [
        '{"step": 0, "event": "started"}',
        '{"step": 1, "epoch": 1, "loss": 9.0, "speed": 5.0}',
        '{"step": 2, "epoch": 1, "loss": 8.0, "speed": 20.0}',
        '{"step": 2, "epoch": 1, "train_loss": 8.5, "speed": 1.0}',
        '{"step": 4, "epoch": 2, "loss": 7.0, "speed": 40.0}',
        '{"step": 4, "epoch": 2, "train_loss": 7.5, "speed": 2.0}',
        '{"step": 6, "epoch": 3, "loss": 7.0, "speed": 90.04}',
        '{"step": 6, "epo',
    ]
    assert read_training_speed(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "loss": 9.0}\n')
    assert read_training_speed(tmp_path) is None
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_training_speed(tmp_path) == 40.0


def test_other_figures_come_from_their_files(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    folder = tmp_path / "recipes/r/results/words"
    folder.mkdir(parents=True)
    marks = {"comma": {"f1": 0.25}, "capitals": {"f1": 1.0}}
    (folder / "marks.books.json").write_text(json.dumps({"marks": marks, "words": 1200, "commit": "0" * 40}))
    errors = {"network": {"1": 0.5, "20": 0.75}, "persistence": {"1": 0.25, "20": 1.0}}
    (folder / "forecast.test.json").write_text(json.dumps({"errors": errors, "frame_seconds": 0.05}))
    asked = "<!-- figures: r/results/words/{}.*.json -->\nold\n<!-- end of figures -->\n"
    found = results.fill_tables(asked.format("marks"), tmp_path).splitlines()
    assert found[1] == "| text | words | comma, F1 | capitals, F1 | commit |"
    assert found[3:5] == ["| books | 1,200 | 25.0 % | 100.0 % | `000000000` |", "<!-- end of figures -->"]
    found = results.fill_tables(asked.format("forecast"), tmp_path).splitlines()
    assert found[3:5] == ["| 1 | 0.05 | 0.500 | 0.250 |", "| 20 | 1.00 | 0.750 | 1.000 |"]
    row = {"words": 100, "wrong": 25, "phones": 600, "phone_errors": 30}
    other = {"words": 300, "wrong": 50, "phones": 1800, "phone_errors": 90}
    both = {"name": "both", "words": 100, "wrong": 20, "phones": 600, "phone_errors": 24}
    for draw, rows in enumerate([[{"name": "n-grams"} | row, both], [{"name": "n-grams"} | other]]):
        (folder / f"g2p.draw-{draw}.json").write_text(json.dumps({"rows": rows}))
    found = results.fill_tables(asked.format("g2p"), tmp_path).splitlines()
    assert found[3:5] == [
        "| n-grams | 2 | 400 | 18.8 % | 5.0 % |",  # 75 of 400, 120 of 2,400
        "| both | 1 | 100 | 20.0 % | 4.0 % |",
    ]
