"""On the site, links out of docs/ lead to the repository or say which file is meant."""

from __future__ import annotations

import pytest

pytest.importorskip("mkdocs", reason="the site is built with mkdocs, part of [docs]")

from mkdocs.exceptions import PluginError

from tools.site_links import ROOT, resolve_links

PAGE = ROOT / "docs" / "how-to" / "x.md"


def test_links_within_docs_stay():
    text = "[a](../family.md#x) ![b](../inside.png) [c](align.md)"
    assert resolve_links(text, PAGE, "") == text


def test_links_out_of_docs_name_the_file_or_lead_to_the_repository():
    text = "see [the cells](../../asr/model/cells.py#a) and [CONTRIBUTING.md](../../CONTRIBUTING.md)"
    assert resolve_links(text, PAGE, "") == "see the cells (`asr/model/cells.py`) and `CONTRIBUTING.md`"
    assert resolve_links(text, PAGE, "https://example.org/asr/").startswith(
        "see [the cells](https://example.org/asr/blob/main/asr/model/cells.py#a) and"
    )


def test_a_link_to_nothing_is_an_error():
    with pytest.raises(PluginError, match=r"docs/how-to/x\.md: \.\./\.\./nothing\.py does not exist"):
        resolve_links("[a](../../nothing.py)", PAGE, "")
