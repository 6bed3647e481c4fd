"""The wheel holds all that is needed to transcribe from anywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import asr
from asr.pretrained import DEFAULT_MODEL
from tests.pretrained.test_pretrained import SAID

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installation(tmp_path_factory) -> Path:
    """A folder with nothing but the installed wheel."""
    pytest.importorskip("setuptools", reason="building the wheel needs setuptools, part of [dev]")
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy, because setuptools leaves its traces where it builds.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "asr", source / "asr", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def elsewhere(installation: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(installation)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_the_wheel_transcribes_from_outside_the_clone(installation, tmp_path):
    where = elsewhere(installation, tmp_path, "-c", "import asr; print(asr.__file__)").stdout
    assert Path(where.strip()).is_relative_to(installation)
    samples = sorted(map(str, (ROOT / "samples").glob("*.flac")))
    done = elsewhere(installation, tmp_path, "-m", "asr", "transcribe", "--no-punctuation", *samples)
    assert done.returncode == 0, done.stderr
    said = dict(line.split("\t") for line in done.stdout.splitlines())
    assert list(said) == samples
    for name, text in SAID[DEFAULT_MODEL].items():
        assert said[str(ROOT / "samples" / name)] == text
    assert not list(tmp_path.iterdir())


def test_the_console_script_is_there(installation):
    entry_points = next(installation.glob("asr-*.dist-info/entry_points.txt")).read_text()
    assert "asr = asr.cli:main" in entry_points


def test_the_version_is_stated_once(installation):
    metadata = next(installation.glob("asr-*.dist-info/METADATA")).read_text(encoding="utf-8")
    assert f"\nVersion: {asr.__version__}\n" in metadata
    assert f"\nversion: {asr.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    unreleased, newest = re.findall(r"^## \[(.+?)\]", changes, re.M)[:2]
    assert (unreleased, newest) == ("Unreleased", asr.__version__)


def test_the_wheel_says_that_it_is_typed(installation):
    assert (installation / "asr" / "py.typed").exists()


def test_one_bad_file_beside_a_good_one(installation, tmp_path):
    (tmp_path / "x.wav").write_text("not audio")
    good = str(ROOT / "samples" / "digit-7-jackson.flac")
    done = elsewhere(installation, tmp_path, "-m", "asr", "transcribe", "--model", "digits", "x.wav", good)
    assert done.returncode == 1
    assert done.stdout == f"{good}\tseven\n"
    assert len(done.stderr.splitlines()) == 1
    assert "x.wav" in done.stderr
