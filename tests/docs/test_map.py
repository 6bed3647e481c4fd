"""The map in CONTRIBUTING.md names every room and module, in the order in which they may be imported."""

from __future__ import annotations

import re

from tests.test_imports import ORDER, PACKAGE
from tools.examples import ROOT


def read_rows() -> dict[str, str]:
    """The rows of the map: the room, and what stands behind it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    chapter = text.partition("## The map\n")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `([a-z0-9]+)(?:/|\.py)` \| (.+)$", chapter, re.M))


def test_the_rooms_stand_in_the_order_of_imports():
    assert list(read_rows()) == ORDER


def test_every_module_is_named_beside_its_room():
    rows = read_rows()
    missing = [
        f"{room}/{path.name}"
        for room in ORDER
        if (PACKAGE / room).is_dir() and room != "cli"
        for path in sorted((PACKAGE / room).glob("*.py"))
        if path.stem != "__init__" and f"`{path.stem}`" not in rows[room]
    ]
    assert not missing, f"give them a place in the map of CONTRIBUTING.md: {', '.join(missing)}"


def test_every_room_says_what_goes_in_and_what_comes_out():
    for room in ORDER:
        folder = PACKAGE / room
        if folder.is_dir() and room != "cli":
            words = (folder / "__init__.py").read_text(encoding="utf-8").split()
            assert {"In:", "Out:"} <= set(words), room
