"""Fine-tuning: a recipe that goes on from a model and takes over more of it than its weights."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from asr.core.config import from_table
from asr.core.files import replace_file
from asr.errors import UserError
from asr.model.folder import read_model_config
from asr.pretrained import find_model_folder
from asr.recognition.folder import (
    LANGUAGE_MODEL_FILE,
    SEARCH_FILE,
    SEARCH_FILE_WITHOUT_LM,
    read_config_table,
)
from asr.recognition.model_files import check_model_folder
from asr.text.tokenizer import Tokenizer, canonicalise, load_tokenizer
from asr.training.augment import AugmentConfig
from asr.training.experiment import DataConfig, Experiment, TrainingConfig

EPOCHS = 10
LEARNING_RATE = 2e-4  # a fifth of what networks are trained with from nothing
WARMUP_STEPS = 10
TRAIN_FILES, VALID_FILES = ("train.jsonl", "all.jsonl"), ("dev.jsonl", "valid.jsonl")


def make_recipe(model: str, data: str) -> Experiment:
    """Make the recipe that goes on from ``model`` with the manifests in the folder ``data``.

    Features, network, vocabulary and search are the model's, and so is augmentation but for noise and rooms:
    the recordings have their own. Raises ``UserError`` where there is no manifest to train on.
    """
    folder = find_model_folder(model)
    check_model_folder(folder)
    config = read_model_config(folder)
    train = find_manifest(data, TRAIN_FILES)
    if train is None:
        raise UserError(
            f"{data}: has no {TRAIN_FILES[0]}; 'asr prepare folder RECORDINGS --out {data}' writes manifests"
        )
    valid = find_manifest(data, VALID_FILES)
    return Experiment(
        features=config.features,
        text=config.text,
        encoder=config.encoder,
        decoder=config.decoder,
        data=DataConfig(data, (train,), () if valid is None else (valid,)),
        augment=read_augmentation(folder),
        training=TrainingConfig(
            initial=model,
            take_over=True,
            epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            warmup_steps=WARMUP_STEPS,
        ),
    )


def find_manifest(data: str, names: Iterable[str]) -> str | None:
    """Find the first of ``names`` that is in the folder ``data``."""
    return next((name for name in names if (Path(data) / name).exists()), None)


def read_augmentation(folder: Path) -> AugmentConfig:
    """Read how a model's training data was augmented, without noise, rooms and telephones.

    The defaults where its ``config.toml`` does not tell, or tells it in words of another version.
    """
    table = read_config_table(folder).get("augment", {})
    try:
        config = from_table(AugmentConfig, table if isinstance(table, dict) else {}, "augment.")
    except UserError:
        config = AugmentConfig()
    return replace(
        config, reverb_share=0.0, reverb_folder="", noise_share=0.0, noise_folder="", telephone_share=0.0
    )


def adopt_tokenizer(model: str, texts: Iterable[str]) -> Tokenizer:
    """Take over the vocabulary of a model, with pronunciations for the words of ``texts`` that it lacks.

    These are like those of the lexicon's own words. Raises ``G2PError`` for a word that cannot be pronounced.
    """
    folder = find_model_folder(model)
    check_model_folder(folder)
    tokenizer = load_tokenizer(folder)
    if tokenizer.lexicon is None:
        return tokenizer
    from asr.g2p.model import add_pronunciations  # imports numba

    words = {word for text in texts for word in canonicalise(text).split()}
    return replace(tokenizer, lexicon=add_pronunciations(tokenizer.lexicon, sorted(words)))


def copy_search(model: str, folder: Path) -> None:
    """Copy a model's language model and its search settings into a run folder that lacks them."""
    for name in (LANGUAGE_MODEL_FILE, SEARCH_FILE, SEARCH_FILE_WITHOUT_LM):
        source = find_model_folder(model) / name
        if source.exists() and not (folder / name).exists():
            with replace_file(folder / name) as temporary:
                shutil.copyfile(source, temporary)
