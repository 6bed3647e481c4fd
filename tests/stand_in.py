"""A stand-in for ctranslate2 and a Whisper model: an "encoder" that adds up neighbouring mel filters."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

SIZE = 20  # numbers in a state


class StandIn:
    """What is used of ``ctranslate2.models.Whisper``."""

    n_mels = 80
    calls: ClassVar[list[int]] = []  # spectra of each call, of all of them

    def __init__(self, folder: str, device: str, **options: object) -> None:
        if Path(folder, "model.bin").read_bytes() == b"broken":
            raise RuntimeError("Unsupported model binary version\nand more")
        self.sign = -1 if Path(folder).name == "other" else 1  # another encoder

    def encode(self, spectra: np.ndarray, to_cpu: bool) -> np.ndarray:
        """``(batch, mels, spectra)`` to ``(batch, spectra / 2, SIZE)``."""
        batch, mels, frames = spectra.shape
        assert mels == self.n_mels
        assert frames % 2 == 0 and frames <= 3000
        self.calls.append(frames)
        return self.sign * spectra.reshape(batch, SIZE, -1, frames // 2, 2).mean((2, 4)).transpose(0, 2, 1)


def stand_in_for_whisper(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``folder`` one for ``features.encoder``, and let ``StandIn`` read it while a test lasts."""
    library = ModuleType("ctranslate2")
    library.models = SimpleNamespace(Whisper=StandIn)  # type: ignore[attr-defined]
    library.StorageView = SimpleNamespace(from_array=lambda array: array)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ctranslate2", library)
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"weights")
    StandIn.calls.clear()
    return folder
