"""Where a result came from: command, version, commit, hardware, date."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from asr import __version__


def make_provenance(hardware: str, **versions: str) -> dict[str, str | None]:
    """All that it takes to get a result again; ``versions`` are those of libraries, by name."""
    return {
        "command": describe_command(),
        "version": __version__,
        "commit": find_source_commit(),
        "hardware": hardware,
        **versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


def describe_command() -> str:
    """The command line as it is typed: ``asr``, or a script of the source tree."""
    script, root = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parents[2]
    is_tool = script.suffix == ".py" and script.name != "__main__.py" and script.is_relative_to(root)
    program = ["python", script.relative_to(root).as_posix()] if is_tool else ["asr"]
    return " ".join([*program, *map(shlex.quote, sys.argv[1:])])


def find_source_commit() -> str | None:
    """The commit of the source tree that this runs from, with ``+`` when it has changes.

    ``None`` for a program that does not run from a clone.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _run_git(root, "rev-parse", "HEAD")
        changes = _run_git(root, "status", "--porcelain", "--untracked-files=no", "--", "asr")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes else "")


def _run_git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def describe_machine(threads: int) -> str:
    """The processor, its cores, and how many ``threads`` work on them."""
    return f"{find_processor()}, {os.cpu_count()} cores, {threads} threads"


def find_processor() -> str:
    """The processor's name as its maker writes it, where the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
