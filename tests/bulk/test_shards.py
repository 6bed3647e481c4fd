"""A manifest in shards: every utterance once, whoever is killed; what is done is left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from asr.bulk import output as output_module
from asr.bulk.batch_system import Part, parse_part
from asr.bulk.manifests import plan_shards, read_shard
from asr.bulk.output import Output, claim_output, list_finished, write_results
from asr.bulk.work import Job, transcribe_shard
from asr.cli import cli
from asr.core.places import expand_place, join_place, list_places, read_place, write_place
from asr.data.manifest import ManifestError, read_manifest, write_manifest
from asr.errors import UserError

SAMPLES = Path(__file__).parents[2] / "samples"
COUNT = 11


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def manifest(tmp_path) -> str:
    """Digits by two voices, a recording that is not there, and a stretch of a longer one."""
    four, seven = (str(SAMPLES / f"digit-{name}.flac") for name in ("4-george", "7-jackson"))
    rows = [{"audio_filepath": [four, seven][n % 2], "id": f"u{n}", "n": n} for n in range(COUNT - 2)]
    rows.insert(4, {"audio_filepath": "none.flac", "id": "gone", "n": -1})
    longer = {"audio_filepath": str(SAMPLES / "digits-lucas.flac"), "offset": 1.2, "duration": 1.0}
    return write_rows(tmp_path / "m.jsonl", [*rows, {**longer, "id": "stretch"}])


def read_output(folder: Path, kind: str = "results") -> list[dict]:
    files = sorted(folder.glob(f"{kind}-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["transcribe", *arguments])
    if isinstance(result.exception, UserError):
        return 1, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


# --- shards ---------------------------------------------------------------------------------------


def test_shards_follow_from_the_manifest_and_the_size_alone(manifest):
    plan = plan_shards(manifest, 4)
    assert [shard.rows for shard in plan.shards] == [4, 4, 3]
    assert plan == plan_shards(manifest, 4)
    names = [row.utterance.id for shard in plan.shards for row in read_shard(shard)]
    assert names == [row["id"] for row in map(json.loads, Path(manifest).read_text().splitlines())]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_parts_of_a_batch_system_have_every_shard_once(manifest, count):
    shards = plan_shards(manifest, 2).shards
    parts = [parse_part(f"{number}/{count}").choose(shards) for number in range(1, count + 1)]
    assert sorted(shard.number for part in parts for shard in part) == list(range(len(shards)))


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2", "1/3/4"])
def test_a_part_is_one_of_those_there_are(text):
    with pytest.raises(UserError, match="is not I/N"):
        parse_part(text)
    assert parse_part("3/3") == Part(3, 3)


def test_lines_that_are_blank_or_marked_do_not_move_a_shard(tmp_path):
    lines = [
        '{"audio_filepath": "a.wav"}',
        "",
        '{"audio_filepath": "b\u2028.wav"}',
        '{"audio_filepath": "c.wav"}',
    ]
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    rows = [row for shard in plan_shards(str(path), 1).shards for row in read_shard(shard)]
    assert [row.utterance.id for row in rows] == ["m-000001", "m-000003", "m-000004"]
    assert rows[1].utterance.audio == str(tmp_path / "b\u2028.wav")


def test_hours_of_audio_cut_a_shard(tmp_path):
    rows = [{"audio_filepath": f"{n}.wav", "duration": 5000.0} for n in range(6)]
    plan = plan_shards(write_rows(tmp_path / "m.jsonl", rows), 100)
    assert [shard.rows for shard in plan.shards] == [2, 2, 2]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"text": "a"}', "'audio_filepath' is missing"),
        ('{"audio_filepath": "a", "offset": -1}', "cannot be negative"),
        ('{"audio_filepath": "a", "duration": NaN}', "not a number of seconds"),
    ],
)
def test_a_row_that_is_none_is_named(tmp_path, line, says):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "a"}\n' + line + "\n")
    with pytest.raises(ManifestError, match=f"m.jsonl:2: .*{says}"):
        plan_shards(str(path), 4)


def test_a_manifest_that_changes_meanwhile_is_noticed(manifest):
    shard = plan_shards(manifest, 4).shards[1]
    Path(manifest).write_text(Path(manifest).read_text().replace("}\n", "}\n\n"))
    with pytest.raises(ManifestError):
        read_shard(shard)


def test_a_folder_of_manifests_is_one_manifest(tmp_path):
    for name in ("b", "a"):
        write_rows(tmp_path / f"{name}.jsonl", [{"audio_filepath": f"{name}{n}.wav"} for n in range(3)])
    plan = plan_shards(str(tmp_path), 2)
    assert [Path(shard.manifest).stem for shard in plan.shards] == ["a", "a", "b", "b"]
    assert plan == plan_shards(str(tmp_path / "*.jsonl"), 2)
    with pytest.raises(ManifestError, match="lists no utterances"):
        plan_shards(str(tmp_path / "*.none"), 2)


# --- results --------------------------------------------------------------------------------------


def test_parts_make_one_result_an_utterance_and_say_what_failed(manifest, tmp_path):
    out = tmp_path / "out"
    for number in (1, 2):
        status, said = run(
            manifest, "--shard", f"{number}/2", "-o", str(out), "--model", "digits", "--shard-size", "3"
        )
        assert status == (1 if "1 recordings could not be read" in said else 0)
    results = read_output(out)
    assert sorted(row["id"] for row in results) == sorted([*(f"u{n}" for n in range(COUNT - 2)), "stretch"])
    assert [row["n"] for row in results if "n" in row] == list(range(COUNT - 2)), "in the manifest's order"
    assert {row["pred_text"] for row in results if row.get("n", 1) % 2 == 0} == {"four"}
    (stretch,) = (row for row in results if row["id"] == "stretch")
    assert stretch["pred_text"] == "eight"
    (word,) = stretch["segments"][0]["words"]
    assert 1.2 <= word["start"] < word["end"] <= 2.2, "times are the recording's"
    (error,) = read_output(out, "errors")
    assert (error["id"], error["n"]) == ("gone", -1)
    assert "no such file" in error["error"]


def test_what_is_done_is_left_out(manifest, tmp_path):
    out = tmp_path / "out"
    command = [manifest, "--shard", "1/1", "-o", str(out), "--model", "digits", "--shard-size", "3"]
    assert run(*command)[0] == 1
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "results-00002.jsonl").unlink()
    assert "3 are done" in run(*command)[1]
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"results-00002.jsonl"}


def test_another_plan_is_refused(manifest, tmp_path):
    out = str(tmp_path / "out")
    command = [manifest, "--shard", "1/1", "-o", out, "--model", "digits"]
    run(*command)
    assert "another shard_size and another shards;" in run(*command, "--shard-size", "2")[1]
    assert "another search;" in run(*command, "--beam-size", "8")[1]
    assert "another format;" in run(*command, "-f", "parquet")[1]
    write_rows(Path(manifest), [{"audio_filepath": "x.wav"}])
    assert "another manifest and another utterances;" in run(*command)[1]


def test_errors_of_an_attempt_that_was_killed_do_not_stay(tmp_path, monkeypatch):
    output = Output(str(tmp_path))
    with monkeypatch.context() as broken:
        written = []
        broken.setattr(output_module, "write_place", lambda place, content: written.append(place))
        write_results(output, 0, [{"id": "a"}], [{"id": "b", "error": "the network was away"}])
    assert [Path(place).name for place in written] == ["errors-00000.jsonl", "results-00000.jsonl"], (
        "in this order"
    )
    write_place(output.name_errors(0), b'{"id": "b"}\n')
    assert list_finished(output) == set()
    write_results(output, 0, [{"id": "a"}, {"id": "b"}], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results-00000.jsonl"]
    assert list_finished(output) == {0}


def test_results_are_a_manifest_again_and_can_be_scored(tones, digits, tmp_path):
    plan = plan_shards(str(tones / "dev.jsonl"), 100)
    job = Job("digits", Output(str(tmp_path)))
    summary = transcribe_shard(digits, plan.shards[0], job)
    assert (summary.results, summary.errors) == (6, 0)
    again = read_manifest(tmp_path / "results-00000.jsonl")
    assert [u.id for u in again] == [u.id for u in read_manifest(tones / "dev.jsonl")]
    assert all("pred_text" in utterance.extra for utterance in again)
    command = [
        "score",
        str(tones / "dev.jsonl"),
        str(tmp_path / "results-00000.jsonl"),
        "--hyp-text",
        "pred_text",
    ]
    assert CliRunner().invoke(cli, command).exit_code == 0


def test_usage_that_cannot_be_is_refused(manifest, tmp_path):
    out = ["-o", str(tmp_path / "out")]
    assert run(manifest, "--shard", "1/1")[0] == 2
    assert run(manifest, manifest, "--shard", "1/1", *out)[0] == 2
    assert run(manifest, "--shard", "1/1", "--on", "ray", *out)[0] == 2
    assert run(manifest, "--shard", "1/1", "--n-best", "3", *out)[0] == 2
    assert run(manifest, "-f", "parquet", *out)[0] == 2
    assert "neither ray nor ray://" in run(manifest, "--on", "spark", *out)[1]
    assert "jsonl or parquet" in run(manifest, "--shard", "1/1", "-f", "srt", *out)[1]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is of POSIX")
def test_a_killed_process_costs_a_shard_and_nothing_else(tmp_path):
    """Ten deaths, each after another shard or so, in the middle of the next."""
    sound = np.concatenate([soundfile.read(SAMPLES / "digit-4-george.flac")[0]] * 8)
    soundfile.write(tmp_path / "a.wav", sound, 8000)
    rows = [{"audio_filepath": "a.wav", "id": f"u{n}"} for n in range(60)]
    path, out = write_rows(tmp_path / "m.jsonl", rows), tmp_path / "out"
    command = [sys.executable, "-m", "asr", "transcribe", path, "--shard", "1/1", "-o", str(out)]
    command += ["--model", "digits", "--shard-size", "3", "--threads", "1"]
    kept: Counter[str] = Counter()
    for _ in range(10):
        done = len(list(out.glob("results-*")))
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("results-*"))) == done:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.update(f"{path.name} {path.stat().st_mtime_ns}" for path in out.glob("results-*"))
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert sorted(row["id"] for row in read_output(out)) == sorted(row["id"] for row in rows)
    assert len(kept) == len({name.split()[0] for name in kept}), "no finished shard was written again"
    assert max(kept.values()) == 10


# --- other formats and places ---------------------------------------------------------------------


def test_parquet_goes_in_and_out(tmp_path, digits):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow, part of [cluster]")
    import pyarrow

    rows = [{"audio_filepath": str(SAMPLES / "digit-4-george.flac"), "key": n / 2} for n in range(7)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "m.parquet", row_group_size=3)
    plan = plan_shards(str(tmp_path / "m.parquet"), 2)
    assert [shard.rows for shard in plan.shards] == [2, 2, 2, 1]
    output = Output(str(tmp_path / "out"), "parquet")
    claim_output(output, plan, 2, {})
    for shard in plan.shards:
        transcribe_shard(digits, shard, Job("digits", output))
    table = pyarrow.concat_tables([parquet.read_table(output.name_results(number)) for number in range(4)])
    assert table["key"].to_pylist() == [row["key"] for row in rows]
    assert table["pred_text"].to_pylist() == ["four"] * 7
    assert table["id"].to_pylist()[-1] == "m-000007"
    assert table["segments"][0][0]["words"][0]["text"].as_py() == "four"


def test_a_parquet_file_that_is_none_is_named(tmp_path):
    pytest.importorskip("pyarrow", reason="needs pyarrow, part of [cluster]")
    (tmp_path / "m.parquet").write_bytes(b"PAR1 is not all")
    with pytest.raises(ManifestError, match=r"m\.parquet: is no Parquet file"):
        plan_shards(str(tmp_path / "m.parquet"), 2)


def test_everything_may_lie_behind_a_url(digits):
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec, part of [cluster]")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/in/sound/a.flac", (SAMPLES / "digit-7-jackson.flac").read_bytes())
    rows = [{"audio_filepath": "sound/a.flac"}, {"audio_filepath": "memory://in/sound/none.flac"}]
    memory.pipe_file("/in/m.jsonl", "\n".join(map(json.dumps, rows)).encode())
    plan = plan_shards("memory://in/m.jsonl", 10)
    output = Output("memory://out")
    claim_output(output, plan, 10, {})
    summary = transcribe_shard(digits, plan.shards[0], Job("digits", output))
    assert (summary.results, summary.errors) == (1, 1)
    assert set(list_places("memory://out")) == {"plan.json", "results-00000.jsonl", "errors-00000.jsonl"}
    assert json.loads(read_place("memory://out/results-00000.jsonl"))["pred_text"] == "seven"
    assert "no such file" in json.loads(read_place("memory://out/errors-00000.jsonl"))["error"]
    assert list_finished(output) == {0}
    assert expand_place("memory://in/*.jsonl", ".jsonl") == ["memory:///in/m.jsonl"]


def test_names_of_recordings_that_are_urls_stay_as_they_are(tmp_path):
    assert join_place("s3://bucket/folder/", "a/b.wav") == "s3://bucket/folder/a/b.wav"
    assert join_place("folder", "gs://bucket/b.wav") == "gs://bucket/b.wav"
    write_rows(tmp_path / "m.jsonl", [{"audio_filepath": "s3://bucket/a.wav", "text": "a"}])
    utterances = read_manifest(tmp_path / "m.jsonl")
    assert utterances[0].audio == "s3://bucket/a.wav"
    write_manifest(tmp_path / "n.jsonl", utterances)
    assert read_manifest(tmp_path / "n.jsonl")[0].audio == "s3://bucket/a.wav"


# --- Slurm ----------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
@pytest.mark.parametrize(
    ("task", "first", "step", "part"),
    [(1, 1, 1, "1/4"), (4, 1, 1, "4/4"), (0, 0, 1, "1/4"), (16, 10, 2, "4/4")],
)
def test_a_task_of_a_slurm_array_takes_its_part(tmp_path, task, first, step, part):
    program = tmp_path / "asr"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    slurm = {"TASK_ID": task, "TASK_MIN": first, "TASK_STEP": step, "TASK_COUNT": 4}
    environment = {f"SLURM_ARRAY_{name}": str(value) for name, value in slurm.items()}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "3"}
    script = Path(__file__).parents[2] / "deploy" / "slurm.sh"
    command = ["bash", str(script), "m.jsonl", "out", "--model", "digits"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    expected = f"transcribe m.jsonl -o out --shard {part} --threads 3 --model digits"
    assert done.stdout.split() == expected.split()
