"""Links of the documentation that lead out of docs/, for the site; a hook of mkdocs.

In a clone `[cells](../asr/model/cells.py)` opens the file. The site has no such page: there the link leads to
`repo_url`, where mkdocs.yml has one, and is the name of the file otherwise. A link to a file that does not
exist is an error, as those within docs/ are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).resolve().parent.parent
OUTWARD = re.compile(r"(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<target>\.\./[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """The page's Markdown with every link to a file outside docs/ replaced."""
    return resolve_links(markdown, Path(page.file.abs_src_path), config.get("repo_url") or "")


def resolve_links(markdown: str, source: Path, repo_url: str) -> str:
    """``markdown`` of the page at ``source`` with links out of docs/ as they are on the site."""

    def replace(link: re.Match[str]) -> str:
        path = (source.parent / link["target"]).resolve()
        if path.is_relative_to(ROOT / "docs"):
            return link[0]
        if not path.exists() or not path.is_relative_to(ROOT):
            raise PluginError(f"{source.relative_to(ROOT)}: {link['target']} does not exist")
        name = path.relative_to(ROOT).as_posix()
        if repo_url:
            return f"[{link['text']}]({repo_url.rstrip('/')}/blob/main/{name}{link['anchor'] or ''})"
        shown = link["text"].strip("`")
        return f"`{name}`" if shown in (name, path.name) else f"{link['text']} (`{name}`)"

    return OUTWARD.sub(replace, markdown)
