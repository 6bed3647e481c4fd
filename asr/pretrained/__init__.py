"""The models that ship with the package, a folder each, and what ``--model`` means."""

from __future__ import annotations

from pathlib import Path

from asr.errors import UserError

SHIPPED = Path(__file__).parent
DEFAULT_MODEL = "english"
CONFIG_FILE = "config.toml"


class ModelFolderError(UserError):
    """A model folder that is missing, damaged, or made by a later version."""


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(folder.parent.name for folder in SHIPPED.glob(f"*/{CONFIG_FILE}"))


def model_folder(model: str | Path) -> Path:
    """The folder that ``--model`` means: a folder, or else the name of a shipped model."""
    if (Path(model) / CONFIG_FILE).exists():
        return Path(model)
    if str(model) in shipped_models():
        return SHIPPED / str(model)
    if Path(model).is_dir():
        raise ModelFolderError(f"{model}: is not a model folder (it has no {CONFIG_FILE})")
    shipped = ", ".join(shipped_models()) or "none"
    raise ModelFolderError(f"{model}: no such model folder; shipped models: {shipped}")
