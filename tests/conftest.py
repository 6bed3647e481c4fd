"""Fixtures that several rooms share, none of which a test may change; ``tests/tiny.py`` makes small models.

Of the markers, ``slow`` is for tests that take more than about eight seconds of a core, and ``gpu`` for those
that skip where there is no CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.synthetic import write_tones

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a GPU with CUDA")


@pytest.fixture(scope="session")
def make_tones(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function of the utterances in each split: the folder of their manifests, to be read only.

    ``make_tones(train=24, dev=6)`` is the same folder whenever it is called.
    """

    @cache
    def make(**sizes: int) -> Path:
        folder = tmp_path_factory.mktemp("tones")
        write_tones(folder, sizes, seed=1)
        return folder

    return make


@pytest.fixture(scope="session")
def tones(make_tones: Callable[..., Path]) -> Path:
    """A folder with ``train.jsonl``, 24 utterances of tones, and ``dev.jsonl``, 6; to be read only."""
    return make_tones(train=24, dev=6)


@pytest.fixture(scope="session")
def digits() -> Recognizer:
    """The shipped model ``digits`` with greedy search, on the CPU."""
    from asr.recognition.recognizer import open_recognizer

    return open_recognizer("digits", "cpu")
