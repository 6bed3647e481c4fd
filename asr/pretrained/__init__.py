"""The models that ship with the package, a folder each, and what ``--model`` means.

In: a folder, or the name of a shipped model. Out: the path of a model folder.

Public face: ``find_model_folder``, ``list_shipped_models``, ``DEFAULT_MODEL``, ``ModelFolderError``.
"""

from __future__ import annotations

from pathlib import Path

from asr.errors import UserError

SHIPPED = Path(__file__).parent
DEFAULT_MODEL = "english"
CONFIG_FILE = "config.toml"


class ModelFolderError(UserError):
    """A model folder that is missing, damaged, or made by a later version."""


def list_shipped_models() -> list[str]:
    """List the names of the models inside the package."""
    return sorted(folder.parent.name for folder in SHIPPED.glob(f"*/{CONFIG_FILE}"))


def find_model_folder(model: str | Path) -> Path:
    """Find the folder that ``--model`` means: a folder, or else the name of a shipped model.

    Raises ``ModelFolderError`` where it is neither.
    """
    try:
        if (Path(model) / CONFIG_FILE).exists():
            return Path(model)
        if str(model) in list_shipped_models():
            return SHIPPED / str(model)
        is_folder = Path(model).is_dir()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        is_folder = False
    name = str(model) if str(model).isprintable() else repr(str(model))
    if is_folder:
        raise ModelFolderError(f"{name}: not a model folder (it has no {CONFIG_FILE})")
    shipped = ", ".join(list_shipped_models()) or "none"
    raise ModelFolderError(f"{name}: no such model folder; shipped models: {shipped}")
