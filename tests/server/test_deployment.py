"""The files for containers, nginx and systemd fit the program that they run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from asr.cli.serve import serve

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
OPTIONS = {name for parameter in serve.params for name in parameter.opts}


def start_nothing(monkeypatch, *options: str) -> str:
    """What ``asr serve`` says before it would open a model."""
    monkeypatch.setattr("asr.cli._options.Opening.open", lambda self: None)
    monkeypatch.setattr("asr.server.running.run_server", lambda *arguments: None)
    result = CliRunner().invoke(serve, list(options))
    assert result.exit_code == 0, result.output
    return result.stderr


def test_a_public_address_without_a_key_is_told(monkeypatch, tmp_path):
    assert start_nothing(monkeypatch) == start_nothing(monkeypatch, "--host", "localhost") == ""
    assert start_nothing(monkeypatch, "--wyoming-port", "0") == ""
    said = start_nothing(monkeypatch, "--host", "0.0.0.0")
    assert "whoever reaches 0.0.0.0" in said and "--api-key-file" in said and "Wyoming" not in said
    assert "Wyoming" in start_nothing(monkeypatch, "--host", "0.0.0.0", "--wyoming-port", "0")
    (tmp_path / "key").write_text("a-long-enough-key")
    assert start_nothing(monkeypatch, "--host", "0.0.0.0", "--api-key-file", str(tmp_path / "key")) == ""


def list_options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def test_what_the_container_copies_is_there_and_what_it_runs_has_these_options():
    lines = (DEPLOY / "Containerfile").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line.startswith("COPY") and "--from" not in line:
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
    start = [line for line in lines if line.startswith(("ENTRYPOINT", "CMD"))]
    assert len(start) == 2
    assert list_options(" ".join(start)) <= OPTIONS
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER asr"]


def test_compose_names_files_and_options_that_exist():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML, which mkdocs brings")
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]["asr"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert list_options(" ".join(service["command"])) <= OPTIONS
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_unit_starts_the_server():
    text = (DEPLOY / "asr.service").read_text(encoding="utf-8")
    command = shlex.split(re.search(r"^ExecStart=(.+)$", text, re.M)[1])
    assert command[1] == "serve"
    assert list_options(" ".join(command)) <= OPTIONS
    analyse = shutil.which("systemd-analyze")
    if analyse is not None:
        done = subprocess.run(
            [analyse, "verify", "--man=no", str(DEPLOY / "asr.service")], capture_output=True, text=True
        )
        unknown = [line for line in done.stderr.splitlines() if "Unknown" in line]
        assert not unknown


def test_nginx_takes_what_the_server_takes():
    text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    size = int(re.search(r"client_max_body_size (\d+)m", text)[1])
    default = next(parameter.default for parameter in serve.params if "--max-upload" in parameter.opts)
    assert size >= default
    assert "Upgrade $http_upgrade" in text
