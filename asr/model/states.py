"""Hidden states of a pretrained encoder, one vector every 20 ms, in the place of spectra.

The encoder is that of a Whisper model (Radford et al. 2022) in CTranslate2's format, in a folder that the
user names; nothing of it is part of this package. ``StoredStates`` keeps states on disk, so that training
computes those of a recording once.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torchaudio.functional
from torch import Tensor

from asr.core.files import replace_file
from asr.errors import UserError

SAMPLE_RATE = 16000  # hertz: what Whisper hears
STATE_SAMPLES = 320  # samples from one state to the next: 20 ms
WINDOW = 1500 * STATE_SAMPLES  # the most samples that the encoder is given at once: 30 s
SILENCE = 50 * STATE_SAMPLES  # after the speech: Whisper expects silence up to the end of its window
CONTEXT = 100 * STATE_SAMPLES  # either side of a part of a recording that is longer than a window
N_FFT, HOP, TOP_HZ = 400, 160, 8000.0  # of Whisper's spectra
PROBE_SECONDS = 1.0
LEAST_LIKENESS = 0.95  # cosine: rounding differs from processor to processor, another encoder by far more


class StateEncoder(Protocol):
    """A pretrained encoder; any number of threads may call it at the same time."""

    @property
    def size(self) -> int:
        """Numbers in a state."""

    @property
    def name(self) -> str:
        """A digest of its weights: other weights, other states."""

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Compute the states of samples at ``SAMPLE_RATE``, full scale 1, as float16.

        ``(samples,)`` become ``(count_states(samples), size)``.
        """


def count_states(samples: int) -> int:
    """How many states a recording has; the last may reach beyond its end."""
    return -(-samples // STATE_SAMPLES)


def open_encoder(folder: str) -> StateEncoder:
    """Open the encoder in ``folder``; raises ``UserError`` where it or the library is missing."""
    if not folder:
        raise UserError(
            "'features.encoder' is empty: features of kind 'states' need the folder of a Whisper model for "
            "CTranslate2"
        )
    weights = Path(folder).expanduser() / "model.bin"
    if not weights.is_file():
        raise UserError(
            f"{weights}: is not there; 'features.encoder', which a model has in its config.toml, names the "
            "folder of a Whisper model for CTranslate2"
        )
    try:
        import ctranslate2
    except ImportError as error:
        raise UserError(
            "features of kind 'states' need ctranslate2, which is not installed: pip install 'asr[whisper]'"
        ) from error
    threads = torch.get_num_threads()
    try:
        model = ctranslate2.models.Whisper(
            str(weights.parent), "cpu", compute_type="int8", inter_threads=threads, intra_threads=1
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"{weights}: is no Whisper model that CTranslate2 can read: {first_line(error)}"
        ) from error
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WhisperEncoder(model, digest[:12])


def first_line(error: Exception) -> str:
    """The first line of a library's message."""
    return str(error).strip().partition("\n")[0]


class WhisperEncoder:
    """The encoder of a Whisper model that CTranslate2 runs, in 8 bits, on a processor."""

    def __init__(self, model: object, name: str) -> None:
        self.model = model  # ctranslate2.models.Whisper
        self.name = name
        mels = int(self.model.n_mels)  # type: ignore[attr-defined]
        self.filters = torchaudio.functional.melscale_fbanks(
            N_FFT // 2 + 1, 0.0, TOP_HZ, mels, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.window = torch.hann_window(N_FFT)
        self.size = self._encode(np.zeros(STATE_SAMPLES, np.float32)).shape[1]

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Compute states, as ``StateEncoder``; what does not fit into a window is encoded in parts."""
        samples = np.asarray(samples, np.float32)
        parts = [
            self._encode(samples[part.begin : part.end])[part.kept] for part in cut_into_windows(len(samples))
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.size), np.float16)

    def _encode(self, samples: np.ndarray) -> np.ndarray:
        """Compute the states of at most ``WINDOW`` samples."""
        import ctranslate2

        length = min(count_states(len(samples) + SILENCE) * STATE_SAMPLES, WINDOW)
        padded = np.zeros(length, np.float32)
        padded[: len(samples)] = samples
        spectra = compute_log_mel(torch.from_numpy(padded), self.filters, self.window)
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(spectra.numpy()[None]))
        states = np.array(self.model.encode(view, to_cpu=True))[0]  # type: ignore[attr-defined]
        return states[: count_states(len(samples))].astype(np.float16)


@dataclass(frozen=True)
class Part:
    """Samples of a recording that are encoded at once, and which of their states are kept."""

    begin: int
    end: int
    kept: slice


def cut_into_windows(samples: int) -> Iterator[Part]:
    """Cut a recording into parts of at most a window, which overlap by twice ``CONTEXT``."""
    if samples <= WINDOW:
        if samples:
            yield Part(0, samples, slice(None))
        return
    step = WINDOW - 2 * CONTEXT
    for begin in range(0, samples, step):  # of the states that are kept
        first = max(0, begin - CONTEXT)
        end = min(samples, begin + step)
        skipped = (begin - first) // STATE_SAMPLES
        yield Part(first, min(samples, end + CONTEXT), slice(skipped, skipped + count_states(end - begin)))


def compute_log_mel(samples: Tensor, filters: Tensor, window: Tensor) -> Tensor:
    """Whisper's spectra, ``(mels, samples / HOP)``: within 8 powers of ten of the loudest, near -1 to 1."""
    waves = torch.stft(samples, N_FFT, HOP, window=window, return_complex=True)
    energies = waves[:, :-1].abs().square().T @ filters
    logarithms = energies.clamp(min=1e-10).log10()
    return ((logarithms.maximum(logarithms.max() - 8.0) + 4.0) / 4.0).T


def make_probe(encoder: StateEncoder) -> Tensor:
    """What ``encoder`` makes of a sweep, ``(size,)``; a model knows by it which encoder it learned from."""
    seconds = np.arange(round(PROBE_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    sweep = 0.3 * np.sin(2 * math.pi * (200.0 + 1500.0 * seconds) * seconds)
    return torch.from_numpy(encoder.encode(sweep.astype(np.float32)).astype(np.float32).mean(0))


def is_same_probe(one: Tensor, other: Tensor) -> bool:
    """Whether two probes come from the same encoder, whatever a processor rounds."""
    if one.shape != other.shape:
        return False
    return torch.cosine_similarity(one, other, dim=0).item() >= LEAST_LIKENESS


# --- states that are kept ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class StoredStates:
    """An encoder that looks up the states of recordings it has kept: in ``folder``, or else in memory.

    A file holds the states of one recording, ``(frames, size)`` float16, and its name is a digest of the
    samples: whatever changes them, noise or another speed, misses it. Files are mapped, not read.
    """

    encoder: StateEncoder
    folder: Path | None = None
    memory: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Numbers in a state."""
        return self.encoder.size

    @property
    def name(self) -> str:
        """That of the encoder."""
        return self.encoder.name

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return the states that are kept of these samples; compute them where none are."""
        states = self.find(samples)
        return self.encoder.encode(samples) if states is None else states

    def keep(self, samples: np.ndarray) -> None:
        """Compute the states of samples and keep them, unless they are kept already."""
        if self.find(samples) is not None:
            return
        states = self.encoder.encode(samples)
        if self.folder is None:
            self.memory[digest_samples(samples)] = states
            return
        with replace_file(self.path(samples)) as temporary, temporary.open("wb") as file:
            np.save(file, states)

    def find(self, samples: np.ndarray) -> np.ndarray | None:
        """The states that are kept of these samples; ``None`` for none, or where their file is damaged."""
        if self.folder is None:
            return self.memory.get(digest_samples(samples))
        with suppress(OSError, ValueError, EOFError):
            states = np.load(self.path(samples), mmap_mode="r", allow_pickle=False)
            if states.shape == (count_states(len(samples)), self.size) and states.dtype == np.float16:
                return states
        return None

    def path(self, samples: np.ndarray) -> Path:
        """The file of these samples."""
        assert self.folder is not None
        digest = digest_samples(samples)
        return self.folder / f"states-{self.name}" / digest[:2] / f"{digest}.npy"


def digest_samples(samples: np.ndarray) -> str:
    """A digest of ``(samples,)`` float32."""
    return hashlib.blake2b(np.ascontiguousarray(samples, np.float32).tobytes(), digest_size=16).hexdigest()
