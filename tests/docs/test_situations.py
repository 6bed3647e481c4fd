"""docs/situations.md names tests that there are, and the README gives the same count."""

from __future__ import annotations

import re

from tools.examples import ROOT

PAGE = (ROOT / "docs" / "situations.md").read_text(encoding="utf-8")


def test_every_kind_is_held_by_tests_that_there_are():
    rows = re.findall(r"^\| (?!kind|---).+$", PAGE, re.M)
    assert len(rows) > 20
    for row in rows:
        held = row.split(" | ")[-1]
        named = re.findall(r"`(tests/[\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", held)
        assert named, row
        for file, tests in named:
            text = (ROOT / file).read_text(encoding="utf-8")
            missing = [test for test in re.findall(r"test_\w+", tests) if f"def {test}(" not in text]
            assert not missing, f"{file}: {missing}"


def test_the_readme_gives_the_count_of_the_page():
    count = re.search(r"\*\*(\d+ of 114)\*\*", PAGE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert count is not None and f"[{count[1]} situations](docs/situations.md)" in readme
