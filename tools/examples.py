#!/usr/bin/env python3
"""Run the examples in the documentation, page by page, and write what they print into the pages.

    python tools/examples.py                            # README.md and all of docs/
    python tools/examples.py docs/how-to/align.md       # one page

A page runs in a folder of its own that has what a clone has, `recordings/` (digits, a text beside each) and
`texts.txt` (a sentence a line). Its fenced blocks run in their order:

- `sh`: every line is a command, `asr` or `python`; `> FILE` keeps what it prints.
- `python`: is executed; the blocks of a page share their names.
- any language with `title="FILE"`: what is in that file. A file that is not there yet is written.
- `text` straight after a block that runs: what that block prints. A line `...` stands for any lines.

`<!-- not run: REASON -->` before a block leaves it out; `<!-- fails -->` says that its last command must end
with an error, and what it prints is the message. Training takes one epoch, and `asr doctor` a small network.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from asr.cli import cli
from asr.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# Pages in Japanese have the blocks of those in English, which stand for them.
TRANSLATIONS = [ROOT / "README.ja.md", ROOT / "docs/family.ja.md"]
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - {*TRANSLATIONS})
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>not run: [^\n]+|fails) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"\n]+)\")?\n(?P<body>.*?)^```$",
    re.M | re.S,
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
TOLERANCE = 0.05  # of a confidence, or of seconds, between two machines
QUICK = {  # before the options of the page, which go first
    "train": ("--set", "training.epochs=1"),
    "doctor": (
        "--set",
        "encoder.layers=1",
        "--set",
        "encoder.size=48",
        "--set",
        "training.learning_rate=1e-2",
    ),
}
SPLITS = {"train": 12, "dev": 3, "test": 3}
DIGITS = {
    "digit-4-george": "four",
    "digit-7-jackson": "seven",
    "digits-lucas": "one eight seven two",
}


class ExampleError(Exception):
    """A block that does not do what the page says."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and where its body begins and ends in the page's text."""

    language: str
    body: str
    title: str = ""
    note: str = ""
    begin: int = 0
    end: int = 0

    @property
    def is_run(self) -> bool:
        """Whether the block is commands or a program, and no note leaves it out."""
        return self.language in ("sh", "python") and not self.note.startswith("not run")


def read_blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    return [
        Block(
            language=match["language"],
            body=match["body"],
            title=match["title"] or "",
            note=match["note"] or "",
            begin=match.start("body"),
            end=match.end("body"),
        )
        for match in BLOCK.finditer(text)
    ]


def lay_out(folder: Path) -> None:
    """Put into ``folder`` what the pages take for granted: a clone, recordings and texts."""
    for part in ("asr", "recipes", "samples", "tools"):
        (folder / part).symlink_to(ROOT / part)
    (folder / "docs").mkdir()
    names = list(DIGITS)
    for split, size in SPLITS.items():
        (folder / "recordings" / split).mkdir(parents=True)
        for number in range(size):
            name = names[number % len(names)]
            path = folder / "recordings" / split / f"{split}-{number:02d}"
            shutil.copy(ROOT / "samples" / f"{name}.flac", path.with_suffix(".flac"))
            path.with_suffix(".txt").write_text(DIGITS[name] + "\n", encoding="utf-8")
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    draw = random.Random(1)
    lines = [" ".join(draw.choices(words, k=draw.randint(1, 6))) for _ in range(500)]
    (folder / "texts.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def run_page(text: str, folder: Path) -> list[tuple[Block, str]]:
    """Run the blocks of a page in ``folder``: each block that shows something, with what it should show.

    Raises ``ExampleError`` for a command that fails where it should not, or the other way round.
    """
    shown: list[tuple[Block, str]] = []
    names: dict[str, object] = {"__name__": "example"}
    printed: str | None = None  # by the block before
    with contextlib.chdir(folder):
        for block in read_blocks(text):
            if block.title:
                path = Path(block.title)
                if path.exists():
                    shown.append((block, path.read_text(encoding="utf-8")))
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.body, encoding="utf-8")
                continue
            if block.language == "text" and printed is not None:
                shown.append((block, printed))
            printed = None
            if block.is_run and block.language == "sh":
                printed = run_commands(block)
            elif block.is_run:
                printed = run_program(block, names)
    return shown


def run_commands(block: Block) -> str:
    """Run the lines of an ``sh`` block one after the other; what they print, or the error of the last."""
    printed = ""
    commands = [shlex.split(line, comments=True) for line in block.body.replace("\\\n", " ").splitlines()]
    commands = [command for command in commands if command]
    for command in commands:
        must_fail = block.note == "fails" and command is commands[-1]
        words, _, kept = (command, "", []) if ">" not in command else split_at(command, ">")
        status, output, errors = run_command(expand(words))
        if (status != 0) != must_fail:
            raise ExampleError(f"{shlex.join(command)}: exit status {status}\n{output}{errors}")
        if must_fail:
            return errors
        if kept:
            Path(kept[0]).write_text(output, encoding="utf-8")
        else:
            printed += output
    return printed


def split_at(words: list[str], word: str) -> tuple[list[str], str, list[str]]:
    """The words before and after ``word``."""
    index = words.index(word)
    return words[:index], word, words[index + 1 :]


def expand(words: list[str]) -> list[str]:
    """The words with patterns replaced by the files that they mean, as a shell does."""
    expanded: list[str] = []
    for word in words:
        found = sorted(str(path) for path in Path().glob(word)) if "*" in word else []
        expanded += found or [word]
    return expanded


def run_command(words: list[str]) -> tuple[int, str, str]:
    """Exit status, output and errors of ``asr ...``, within this process, or of ``python ...``."""
    program, *arguments = words
    if program == "python":
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, encoding="utf-8", env=environment
        )
        return done.returncode, done.stdout, done.stderr
    if program != "asr":
        raise ExampleError(f"{shlex.join(words)}: only asr and python run on every system")
    arguments[1:1] = QUICK.get(arguments[0], ())
    result = CliRunner().invoke(cli, arguments, prog_name="asr")
    if isinstance(result.exception, UserError):
        return 1, result.stdout, f"asr: {result.exception}\n"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise ExampleError(f"{shlex.join(words)}: {result.exception!r}") from result.exception
    return result.exit_code, result.stdout, result.stderr


def run_program(block: Block, names: dict[str, object]) -> str:
    """Execute a ``python`` block with the names of those before it; what it prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            exec(compile(block.body, "<example>", "exec"), names)
        except Exception as error:
            raise ExampleError(f"{error!r} in\n{block.body}") from error
    return output.getvalue()


# --- what is shown --------------------------------------------------------------------------------


def is_alike(shown: str, actual: str) -> bool:
    """Whether a page shows what was printed, numbers within a tolerance, ``...`` being any lines."""
    pattern = ""
    for line in shown.strip().splitlines():
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += re.escape(NUMBER.sub("0", line.rstrip())) + r"\n"
    lines = [line.rstrip() for line in actual.strip().splitlines()]
    plain = "".join(NUMBER.sub("0", line) + "\n" for line in lines)
    if re.fullmatch(pattern, plain) is None:
        return False
    if "..." in shown:
        return True
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(actual), strict=True)
    return all(abs(float(one) - float(other)) <= max(TOLERANCE, 0.1 * float(other)) for one, other in pairs)


def write_outputs(text: str, shown: list[tuple[Block, str]]) -> str:
    """The page with what was printed in the place of what it shows; blocks with ``...`` stay as they are."""
    for block, actual in reversed(shown):
        if "..." not in block.body:
            text = text[: block.begin] + actual.strip("\n") + "\n" + text[block.end :]
    return text


def main() -> None:
    """Run the pages that are named, or all, and write their outputs into them."""
    named = [Path(name).resolve() for name in sys.argv[1:]]
    for page in named or PAGES:
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as name:
            lay_out(Path(name))
            shown = run_page(text, Path(name))
        for block, actual in shown:
            if not is_alike(block.body, actual):
                print(f"{page.relative_to(ROOT)}: now shows\n{actual}")
        page.write_text(write_outputs(text, shown), encoding="utf-8")


if __name__ == "__main__":
    main()
