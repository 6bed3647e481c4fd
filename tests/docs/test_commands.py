"""Every command and every program in the documentation runs and prints what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.examples import (
    PAGES,
    ROOT,
    TRANSLATIONS,
    Block,
    ExampleError,
    is_alike,
    lay_out,
    read_blocks,
    run_page,
    write_outputs,
)


def relative_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


SLOW = {
    "README.md",
    "docs/family.md",
    "docs/how-to/train.md",
    "docs/how-to/train-on-several-machines.md",
    "docs/quick-start.md",
}


def mark_slow(page: Path) -> object:
    return pytest.param(page, marks=pytest.mark.slow) if relative_name(page) in SLOW else page


@pytest.mark.parametrize("page", [mark_slow(page) for page in PAGES], ids=relative_name)
def test_the_examples_of_a_page_run(page, tmp_path):
    lay_out(tmp_path)
    for block, actual in run_page(page.read_text(encoding="utf-8"), tmp_path):
        assert is_alike(block.body, actual), (block.title or block.body, actual)
    for picture in (tmp_path / "docs").rglob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert (ROOT / picture.relative_to(tmp_path)).exists(), f"{picture.name} is not committed"


@pytest.mark.parametrize("page", PAGES, ids=relative_name)
def test_every_fence_is_one_that_the_runner_sees(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("```") == 2 * len(read_blocks(text)), "an indented or unfinished block"
    for block in read_blocks(text):
        assert block.language in ("sh", "python", "text", "toml", "json", "jsonl", "mermaid"), block


@pytest.mark.parametrize("page", TRANSLATIONS, ids=relative_name)
def test_a_translation_has_the_commands_of_the_page(page):
    original = page.with_name(page.name.replace(".ja.md", ".md"))
    translated, blocks = (read_blocks(path.read_text(encoding="utf-8")) for path in (page, original))
    assert [leave_out_remarks(block) for block in translated] == [
        leave_out_remarks(block) for block in blocks
    ]


def leave_out_remarks(block: Block) -> tuple[str, list[str]]:
    """The lines of a block without what stands behind a #, which is translated."""
    return block.language, [line.partition(" #")[0].rstrip() for line in block.body.splitlines()]


# --- the runner itself ----------------------------------------------------------------------------


def test_a_command_that_fails_is_named(tmp_path):
    with pytest.raises(ExampleError, match=r"asr validate nothing\.jsonl: exit status 1"):
        run_page("```sh\nasr validate nothing.jsonl\n```\n", tmp_path)
    with pytest.raises(ExampleError, match="exit status 0"):
        run_page("<!-- fails -->\n```sh\nasr models\n```\n", tmp_path)
    with pytest.raises(ExampleError, match="only asr and python"):
        run_page("```sh\nrm x\n```\n", tmp_path)
    with pytest.raises(ExampleError, match="ZeroDivisionError"):
        run_page("```python\n1 / 0\n```\n", tmp_path)


def test_files_are_written_once_and_then_compared(tmp_path):
    page = (
        '```json title="one/x.json"\n{}\n```\n'
        "```sh\npython -c \"print(open('one/x.json').read())\" > y\n```\n"
        '```text title="y"\n[]\n```\n<!-- not run: it would fail -->\n```sh\nfalse\n```\n'
    )
    ((block, actual),) = run_page(page, tmp_path)
    assert (block.body, actual.strip()) == ("[]\n", "{}")
    assert not is_alike(block.body, actual)
    assert '\n```text title="y"\n{}\n```\n' in write_outputs(page, [(block, actual)])


def test_blocks_share_their_names_and_show_their_output(tmp_path):
    page = (
        "```python\nx = 0.5\n```\n```python\nprint('x is', x)\n```\n\nIt prints\n\n```text\nx is 0.52\n```\n"
    )
    (shown,) = run_page(page, tmp_path)
    assert shown == (read_blocks(page)[2], "x is 0.5\n")
    assert is_alike(shown[0].body, shown[1])


@pytest.mark.parametrize(
    ("shown", "alike"),
    [
        ("one 0.99\ntwo 1.5\n", True),
        ("one 0.97\ntwo 1.4\n", True),
        ("one 0.7\ntwo 1.5\n", False),
        ("one 0.99\n", False),
        ("two 0.99\ntwo 1.5\n", False),
        ("...\ntwo 1.5\n", True),
        ("...\nthree 1.5\n", False),
    ],
)
def test_numbers_may_differ_a_little_and_words_may_not(shown, alike):
    assert is_alike(shown, "one 0.99\ntwo 1.5\n") is alike


def test_a_block_that_elides_lines_is_not_rewritten():
    page = "```text\n...\n```\n"
    assert write_outputs(page, [(read_blocks(page)[0], "one\ntwo\n")]) == page
    assert not Block("text", "").is_run
