"""Features, model, tokenizer and search joined; model folders read and written."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asr.audio.reading import AudioError, Source
from asr.core.config import from_table, option, read_toml, section, to_table, to_toml
from asr.core.files import replace_file, write_text
from asr.errors import UserError
from asr.longform.transcripts import LongformConfig, name_of, transcripts, whole_log_probs
from asr.model.ctc import CTCModel
from asr.model.encoders import ENCODERS, EncoderConfig
from asr.model.features import FeatureConfig, Features, padded
from asr.pretrained import COMPUTE_TYPES, CONFIG_FILE, DEFAULT_MODEL, ModelFolderError, model_folder
from asr.search import SearchConfig, search_greedily
from asr.text.tokenizer import (
    NORMALISERS,
    TextConfig,
    Tokenizer,
    canonicalise,
    load_tokenizer,
    save_tokenizer,
)
from asr.transcript.values import AlignedText, Hypothesis, Transcript

if TYPE_CHECKING:
    from asr.search.lexicon_beam import LexiconBeamSearch
    from asr.search.prefix_beam import PrefixBeamSearch

FORMAT_VERSION = 1
WEIGHTS_FILE = "model.safetensors"
SEARCH_FILE = "search.toml"
SEARCH_FILE_WITHOUT_LM = "search-without-lm.toml"  # for `--lm none`, where the other was tuned with one
SCALE = ".scale"  # behind the name of a matrix in int8: what a step is in each row
LANGUAGE_MODEL_FILE = "language-model.bin"
USUAL_BEAM = 64  # where a language model or hot words ask for a beam and nobody says how wide


@dataclass(frozen=True)
class ModelConfig:
    """All that must be known to turn samples into text, besides weights and tokens."""

    format_version: int = option(FORMAT_VERSION, "Raised when an older program could not read this.")
    features: FeatureConfig = section(FeatureConfig)
    text: TextConfig = section(TextConfig)
    encoder: EncoderConfig = section(EncoderConfig)


@dataclass(frozen=True, eq=False)
class Recognizer:
    """A model ready to transcribe; made by ``new_recognizer`` or ``load_recognizer``."""

    name: str
    config: ModelConfig
    tokenizer: Tokenizer
    features: Features
    model: CTCModel
    decoder: PrefixBeamSearch | LexiconBeamSearch | None = None  # without one the search is greedy
    compute_type: str = "float32"  # of the network's big products; ``computing_in`` changes it

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so where the work is done."""
        return self.features.window.device

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self.config.features.sample_rate

    @property
    def frame_seconds(self) -> float:
        """Seconds from one row of log-probs to the next."""
        return self.config.features.frame_seconds * self.model.encoder.subsampling

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""
        return self.config.features.hop * self.config.features.skip * self.model.encoder.subsampling

    def num_frames(self, num_samples: int) -> int:
        """Rows of log-probs made of ``num_samples`` samples."""
        return -(-self.config.features.num_frames(num_samples) // self.model.encoder.subsampling)

    @torch.no_grad()
    def log_probs(
        self, samples: Tensor, lengths: Tensor, statistics: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """``(batch, samples)`` to log-probs ``(batch, frames, vocabulary)`` and frames per utterance.

        ``statistics`` as for ``Features.forward``. Dropout is off, whatever mode the model is in.
        """
        training = self.model.training
        self.model.eval()
        try:
            features, frames = self.features(samples.to(self.device), lengths.to(self.device), statistics)
            with precise(self.device, self.compute_type):
                log_probs, frames = self.model(features, frames)
        finally:
            self.model.train(training)
        return log_probs, frames

    def hypotheses(self, log_probs: Tensor, frames: Tensor) -> list[Hypothesis]:
        """Search each utterance of a batch of log-probs."""
        return self.search(unpadded(log_probs, frames))

    def score(self, samples: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probs ``(frames, vocabulary)`` for arrays of samples at ``sample_rate``, as one batch."""
        return unpadded(*self.log_probs(*padded(samples)))

    def scores(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """What ``score`` makes of each batch, in their order.

        A processor's threads share out the batches: the steps of a recurrent layer follow one another and
        are too small to be shared, so that two threads are hardly faster than one with a single batch.
        """
        threads = torch.get_num_threads()
        workers = min(threads, len(batches)) if self.device.type == "cpu" else 1
        if workers <= 1:
            yield from map(self.score, batches)
            return
        try:
            with ThreadPoolExecutor(workers, "asr", torch.set_num_threads, (threads // workers,)) as pool:
                yield from pool.map(self.score, batches)
        finally:
            torch.set_num_threads(threads)  # or threads that begin later would have as few as the workers
            give_memory_back()

    def search(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """The best hypothesis for each array of log-probs."""
        if self.decoder is not None:
            return self.decoder.batch(log_probs, self.frame_seconds, torch.get_num_threads())
        return [search_greedily(array, self.tokenizer, self.frame_seconds) for array in log_probs]

    @property
    def settings(self) -> dict[str, object]:
        """What results depend on besides the model."""
        return {
            "device": self.device.type,
            "compute_type": self.compute_type,
            "search": self.search_settings,
        }

    @property
    def search_settings(self) -> dict[str, Any] | str:
        """How it searches."""
        if self.decoder is None:
            return "greedy"
        settings = asdict(self.decoder.config) | self.decoder.description
        del settings["log_priors"]  # a number for each token, measured, not chosen
        return settings

    @property
    def unit(self) -> str:
        """What hypotheses consist of: greedy search for phones knows no words."""
        return "phones" if self.tokenizer.lexicon is not None and self.decoder is None else "words"

    def reference(self, text: str) -> str:
        """What to hold hypotheses against, in their unit."""
        return self.tokenizer.to_phones(text) if self.unit == "phones" else text

    def transcribe_samples(self, samples: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Transcribe arrays of samples at ``sample_rate`` as one batch."""
        return self.search(self.score(samples))

    def transcribe(self, source: Source, vad: bool = LongformConfig.vad) -> Transcript:
        """Transcribe a recording of any length; ``vad`` leaves out what is no speech.

        Raises ``AudioError`` when it cannot be read.
        """
        return next(self.transcribe_all([source], vad))

    def transcribe_all(
        self,
        sources: Iterable[Source],
        vad: bool = LongformConfig.vad,
        batch_size: int = LongformConfig.batch_size,
    ) -> Iterator[Transcript]:
        """Transcribe recordings, several at a time; their transcripts come in the same order.

        Raises ``AudioError`` in place of the first one that cannot be read;
        ``asr.longform.transcripts.transcripts`` goes on with the others.
        """
        if isinstance(sources, str | bytes | Path):
            raise TypeError("transcribe_all takes a list of recordings; transcribe takes one")
        for transcript in transcripts(self, sources, LongformConfig(vad, batch_size)):
            if isinstance(transcript, AudioError):
                raise transcript
            yield transcript

    def alternatives(self, source: Source, count: int) -> list[Hypothesis]:
        """The best ``count`` texts for a recording, the best first, each with its score; all of it is heard.

        The beam may hold fewer, and greedy search has no more than one. It is meant for a sentence: the best
        texts of a long recording differ in a word or two. Raises ``AudioError`` when it cannot be read.
        """
        log_probs, _ = whole_log_probs(self, source)
        if self.decoder is None:
            return self.search([log_probs])
        return self.decoder.hypotheses(log_probs, self.frame_seconds, count)

    def align(
        self, source: Source, text: str, progress: Callable[[float], object] = lambda seconds: None
    ) -> AlignedText:
        """Where the words of ``text``, and what they are spelled with, are in a recording that says it.

        The recording may last hours; one of up to ``asr.longform.transcripts.LONGEST_SECONDS`` is heard in
        one piece.
        Words that a lexicon lacks are pronounced as its own are, which takes some seconds to learn.
        ``progress`` is told how many seconds of it have been heard since last time.

        Raises ``AudioError`` for a recording that cannot be read, ``TextError``, ``G2PError`` or
        ``AlignmentError`` for a text that does not fit the model or the recording.
        """
        from asr.search.alignment import align_text  # brings a compiler

        text = NORMALISERS[self.config.text.normaliser](text)
        tokenizer = self.able_to_spell(text)
        log_probs, samples = whole_log_probs(self, source, progress)
        duration = samples / self.sample_rate
        words = align_text(log_probs, text, tokenizer, self.frame_seconds, duration)
        return AlignedText(name_of(source), duration, words, tokenizer.unit, self.name)

    def able_to_spell(self, text: str) -> Tokenizer:
        """The tokenizer, with pronunciations for the words of ``text`` that its lexicon lacks."""
        if self.tokenizer.lexicon is None or not self.tokenizer.find_unknown(text):
            return self.tokenizer
        from asr.g2p.model import add_pronunciations  # brings a compiler

        lexicon = add_pronunciations(self.tokenizer.lexicon, sorted(self.tokenizer.find_unknown(text)))
        return replace(self.tokenizer, lexicon=lexicon)


def give_memory_back() -> None:
    """Let the system have what is free: glibc keeps what each thread has let go, a tenth of a gigabyte."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def unpadded(rows: Tensor, lengths: Tensor) -> list[np.ndarray]:
    """The members of a batch ``(batch, frames, ...)`` as arrays of their own lengths."""
    return [array[:length] for array, length in zip(rows.cpu().numpy(), lengths.tolist(), strict=True)]


def new_recognizer(config: ModelConfig, tokenizer: Tokenizer, name: str = "") -> Recognizer:
    """A recogniser with fresh weights, drawn from torch's random state."""
    features = config.features
    encoder = ENCODERS[config.encoder.kind](config.encoder, features.size, features.planes)
    return Recognizer(name, config, tokenizer, Features(features), CTCModel(encoder, len(tokenizer)))


def to_device(recognizer: Recognizer, device: torch.device) -> Recognizer:
    """Move the modules in place; the same recogniser comes back."""
    recognizer.features.to(device)
    recognizer.model.to(device)
    return recognizer


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps`` as a device that is there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: is not one of auto, cpu, cuda, mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, False):
        raise UserError(f"--device {name}: there is none on this machine; use --device cpu or auto")
    return device


def precise(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which big products run in ``bfloat16``, where ``precision`` says so."""
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def computing_in(recognizer: Recognizer, compute_type: str) -> Recognizer:
    """The same recogniser, whose network computes in one of ``COMPUTE_TYPES``.

    ``int8``, for processors alone, keeps the weights of linear layers, LSTMs and GRUs in 8 bits and
    rounds their inputs on the fly. ``auto`` is ``bfloat16`` on processors that have instructions for
    it, else ``float32``. Raises ``UserError`` for ``int8`` on another device.
    """
    if compute_type == "auto":
        native = recognizer.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        compute_type = "bfloat16" if native else "float32"
    elif compute_type not in COMPUTE_TYPES:
        raise UserError(f"compute type {compute_type!r} is not one of {', '.join(COMPUTE_TYPES)}")
    if compute_type != "int8":
        return replace(recognizer, compute_type=compute_type)
    if recognizer.device.type != "cpu":
        raise UserError("compute type int8 is for processors; give --device cpu, or another compute type")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its move to another package
        kinds = {nn.LSTM, nn.GRU, nn.Linear}
        model = torch.ao.quantization.quantize_dynamic(recognizer.model, kinds, dtype=torch.qint8)
    return replace(recognizer, model=model, compute_type=compute_type)


def network(recognizer: Recognizer) -> nn.ModuleDict:
    """Everything that has weights or statistics, under the names it has in files."""
    return nn.ModuleDict({"features": recognizer.features, "model": recognizer.model})


def save_config(config: object, folder: Path) -> None:
    """Write ``config.toml``; a whole experiment may stand there, a model reads its own part of it."""
    write_text(folder / CONFIG_FILE, to_toml(config))


def save_weights(recognizer: Recognizer, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write ``model.safetensors`` and the tokens, all of each file or nothing.

    With int8, matrices become whole numbers from -127 to 127, each row with a scale of its own, and
    what is no matrix float16: half the size of float16.
    """
    save_tokenizer(recognizer.tokenizer, folder)
    weights: dict[str, Tensor] = {}
    for name, value in network(recognizer).state_dict().items():
        value = value.detach().cpu()
        if dtype == torch.int8 and value.is_floating_point() and value.dim() > 1:
            weights[name], weights[name + SCALE] = in_steps(value)
        elif value.is_floating_point():
            weights[name] = value.to(torch.float16 if dtype == torch.int8 else dtype)
        else:
            weights[name] = value
    with replace_file(folder / WEIGHTS_FILE) as temporary:
        save_file({name: value.contiguous() for name, value in weights.items()}, temporary)


def in_steps(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """``(rows, ...)`` as int8 of the same shape and what a step is in each row, ``(rows,)`` float32."""
    largest = matrix.abs().flatten(1).amax(1)
    scale = largest.clamp(min=torch.finfo(torch.float32).tiny) / 127
    return torch.round(matrix / along(scale, matrix)).to(torch.int8), scale


def along(scale: Tensor, matrix: Tensor) -> Tensor:
    """A number for each row, in a shape that goes with ``matrix``."""
    return scale.reshape(-1, *[1] * (matrix.dim() - 1))


def read_weights(path: Path) -> dict[str, Tensor]:
    """What ``save_weights`` wrote, in float32."""
    stored = load_file(path)
    weights = {name: value.float() for name, value in stored.items() if not name.endswith(SCALE)}
    for name, value in weights.items():
        if name + SCALE in stored:
            value *= along(stored[name + SCALE], value)
    return weights


def load_recognizer(model: str | Path = DEFAULT_MODEL, device: str = "cpu") -> Recognizer:
    """Read a model folder or a shipped model; runs no code from it.

    Raises ``ModelFolderError`` naming the folder or file when something is missing or does not fit.
    """
    # oneDNN keeps what it makes for each shape of a batch. Recordings have many; that was half a gigabyte.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    folder = model_folder(model)
    recognizer = new_recognizer(read_model_config(folder), load_tokenizer(folder), name=folder.resolve().name)
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise ModelFolderError(f"{path}: is missing; a training run writes it after its first epoch")
    try:
        network(recognizer).load_state_dict(read_weights(path))
    except (OSError, SafetensorError) as error:
        raise ModelFolderError(f"{path}: cannot be read: {error}") from error
    except RuntimeError as error:
        raise ModelFolderError(f"{path}: does not fit {folder / CONFIG_FILE} and the tokens") from error
    recognizer.model.eval()
    return to_device(recognizer, choose_device(device))


def with_search(
    recognizer: Recognizer,
    config: SearchConfig,
    language_model: str | Path | None,
    phrases: Sequence[str] = (),
) -> Recognizer:
    """The same recogniser with a beam search, where anything asks for one.

    Args:
        config: how to search; a ``beam_size`` of 1 with a language model or phrases means ``USUAL_BEAM``.
        language_model: an ARPA file or a binary one; ``None`` for none.
        phrases: hot words and phrases, as the model's text is written.

    Raises ``asr.lm.model.LanguageModelError`` for a language model that cannot be read, ``SearchError`` for
    one, or for a phrase, whose words the model cannot write.
    """
    if config.beam_size == 1:
        if language_model is None and not phrases:
            return replace(recognizer, decoder=None)
        config = replace(config, beam_size=USUAL_BEAM)
    # Here, because they bring a compiler, which greedy search does without.
    from asr.lm.storage import load_model
    from asr.search.lexicon_beam import make_beam_search

    model = None if language_model is None else load_model(language_model)
    return replace(recognizer, decoder=make_beam_search(config, recognizer.tokenizer, model, phrases))


def with_own_search(
    recognizer: Recognizer,
    model: str | Path,
    lm: str | Path | None = None,
    hotwords: Iterable[str] = (),
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Recognizer:
    """The same recogniser with the search that its folder or shipped ``model`` asks for.

    Args:
        lm: a language model instead of the folder's own, or ``"none"``.
        hotwords: words and phrases as people write them.
        settings: keys of ``SearchConfig`` with values instead of the folder's.

    Raises ``ConfigError`` for a setting that there is none of, ``UserError`` for a hot word without a letter
    that the model knows, and as ``with_search``.
    """
    folder = model_folder(model)
    config = from_table(SearchConfig, to_table(read_search_config(folder, lm)) | dict(settings))
    language_model = own_language_model(folder) if lm is None else None if str(lm) == "none" else lm
    phrases = [written(phrase, recognizer.config.text) for phrase in hotwords if phrase.strip()]
    return with_search(recognizer, config, language_model, phrases)


def written(phrase: str, config: TextConfig) -> str:
    """A hot word or phrase as the model's texts are written; raises ``UserError`` where nothing is left."""
    text = canonicalise(NORMALISERS[config.normaliser](phrase))
    if not text:
        raise UserError(
            f"hot words: nothing is left of {phrase.strip()!r} in the form {config.normaliser}; "
            "write it as it is spoken"
        )
    return text


def read_search_config(folder: Path, lm: str | Path | None = None) -> SearchConfig:
    """What ``asr tune`` wrote into a model folder, or the defaults; ``lm`` as for ``with_own_search``.

    A search that was tuned with a language model is of no use without one: nothing holds short words
    back. So ``"none"`` has a file of its own, and the other one's settings only where that is missing.
    """
    path = folder / SEARCH_FILE_WITHOUT_LM
    if str(lm) != "none" or not path.exists():
        path = folder / SEARCH_FILE
    if not path.exists():
        return SearchConfig()
    try:
        return from_table(SearchConfig, read_toml(path))
    except UserError as error:
        raise ModelFolderError(f"{path}: {error}") from error


def own_language_model(folder: Path) -> Path | None:
    """The language model in a model folder, where there is one."""
    path = folder / LANGUAGE_MODEL_FILE
    return path if path.exists() else None


def read_model_config(folder: Path) -> ModelConfig:
    """The model's part of a ``config.toml``; what else stands there says how the model was made."""
    path = folder / CONFIG_FILE
    table = read_toml(path)
    version = table.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ModelFolderError(
            f"{path}: format_version is {version!r}; this program reads up to {FORMAT_VERSION}"
        )
    own = {field.name: table[field.name] for field in fields(ModelConfig) if field.name in table}
    try:
        return from_table(ModelConfig, own)
    except UserError as error:
        raise ModelFolderError(f"{path}: {error}") from error
