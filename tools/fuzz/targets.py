"""What is fuzzed, by name; a target's libraries are loaded when it is used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from tools.fuzz.runner import Target

HOMES = {
    "audio": "recordings.fuzz_audio",
    "media": "recordings.fuzz_media",
    "language-models": "language_models.fuzz_language_models",
    "model-folders": "model_folders.fuzz_model_folders",
    "networks": "networks.fuzz_networks",
    "search-options": "searches.fuzz_searches",
    "manifests": "texts.fuzz_manifests",
    "score-files": "texts.fuzz_score_files",
    "lexicons": "texts.fuzz_lexicons",
    "kept-lexicons": "kept_lexicons.fuzz_kept_lexicons",
}


def find_loader(home: str) -> Callable[[], Target]:
    """A function that imports a target."""
    module, _, name = home.partition(".")
    return lambda: cast(Target, getattr(import_module(f"tools.fuzz.{module}"), name))


TARGETS = {name: find_loader(home) for name, home in HOMES.items()}
