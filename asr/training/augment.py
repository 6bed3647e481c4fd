"""Changes to training utterances that leave their words alone.

The threads that read ahead draw what happens to each utterance and read the recordings that it takes
(``sample_augmentation``); the model's device does it (``augment_samples``, ``spec_augment``). Every draw
comes from a generator made for one utterance, one epoch and one purpose. So neither the number of threads
nor an interruption changes the training data, and switching one change off leaves the others as they were.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from asr.audio import reading as audio
from asr.audio.sources import is_recording
from asr.core.config import ConfigError, check_bounds, option
from asr.data.manifest import Utterance
from asr.errors import UserError
from asr.model.features import mask_padding, pad_batch
from asr.training.rooms import prepare_response, sample_room

Noise = Literal["white", "pink", "babble", "recorded"]


# What telephones transmit, hertz: 300 to 3400 by the book, with some more or less of it.
LOWEST_HEARD = (50.0, 350.0)
HIGHEST_HEARD = (3000.0, 3900.0)
SLOPE_HZ = 100.0


class AugmentError(UserError):
    """Recordings to augment with that are missing or cannot be used."""


@dataclass(frozen=True)
class AugmentConfig:
    """How training utterances are changed; the defaults do nothing."""

    speeds: tuple[float, ...] = option(
        (1.0,),
        "Tempo and pitch factors, drawn with equal chance; 0.9, 1.0, 1.1 are usual (Ko et al. 2015).",
        minimum=0.5,
        maximum=2,
    )
    reverb_share: float = option(
        0.0, "Share of utterances that are put into a room (Ko et al. 2017).", minimum=0, maximum=1
    )
    reverb_folder: str = option("", "Recorded impulse responses to draw rooms from; '': rooms are simulated.")
    rooms: int = option(200, "How many rooms are simulated.", minimum=1)
    room_seconds: tuple[float, ...] = option(
        (0.1, 0.5), "Shortest and longest reverberation time (T60) of simulated rooms.", above=0
    )
    noise_share: float = option(0.0, "Share of utterances that get noise.", minimum=0, maximum=1)
    noise_kinds: tuple[Noise, ...] = option(
        ("white",), "Drawn with equal chance: white, pink, babble (other training utterances), recorded."
    )
    noise_snr_db: tuple[float, ...] = option((10.0, 40.0), "Lowest and highest signal-to-noise ratio drawn.")
    noise_folder: str = option("", "The recordings of noise, looked for in all its subfolders.")
    babble_voices: tuple[int, ...] = option((3, 7), "Fewest and most utterances in babble.", minimum=1)
    telephone_share: float = option(
        0.0,
        "Share of utterances that are heard over the telephone: a narrow band in mu-law (ITU-T G.711).",
        minimum=0,
        maximum=1,
    )
    shift_ms: float = option(
        0.0,
        "Up to this much silence in front of an utterance; as long as a frame, it hides where frames begin.",
        minimum=0,
    )
    gain_db: float = option(0.0, "Loudness changes by up to this many decibels either way.", minimum=0)
    frequency_masks: int = option(
        0, "Bands of features set to zero (SpecAugment, Park et al. 2019).", minimum=0
    )
    frequency_width: int = option(0, "Widest band, in features.", minimum=0)
    time_masks: int = option(0, "Spans of frames set to zero.", minimum=0)
    time_masks_per_second: float = option(
        0.0,
        "Fewer spans where an utterance is short: this many a second, time_masks at most (adaptive masks, "
        "Park et al. 2020); 0: always time_masks.",
        minimum=0,
    )
    time_width_ms: float = option(0.0, "Longest span.", minimum=0)
    time_width_share: float = option(
        0.2, "Longest span as a share of the utterance; the shorter limit holds.", minimum=0, maximum=1
    )

    def __post_init__(self) -> None:
        check_bounds(self, "augment")
        for key in ("speeds", "noise_kinds"):
            if not getattr(self, key):
                raise ConfigError(f"'augment.{key}' cannot be empty")
        for key in ("room_seconds", "noise_snr_db", "babble_voices"):
            values = getattr(self, key)
            if len(values) != 2 or values[0] > values[1]:
                raise ConfigError(
                    f"'augment.{key}' cannot be {values!r}: it must be a lowest and a highest value"
                )
        for count, width in {"frequency_masks": "frequency_width", "time_masks": "time_width_ms"}.items():
            if getattr(self, count) and not getattr(self, width):
                raise ConfigError(f"'augment.{count}' does nothing without 'augment.{width}'")
        if ("recorded" in self.noise_kinds) != bool(self.noise_folder):
            raise ConfigError("'augment.noise_folder' goes with \"recorded\" in 'augment.noise_kinds'")


def changes_samples(config: AugmentConfig) -> bool:
    """Whether recordings are changed at all; masks change features."""
    shares = (
        config.reverb_share,
        config.noise_share,
        config.telephone_share,
        config.shift_ms,
        config.gain_db,
    )
    return any(shares) or any(speed != 1 for speed in config.speeds)


# --- what to draw from ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Sources:
    """What augmentation draws from: the config and the recordings and rooms that it names."""

    config: AugmentConfig
    rate: int  # hertz
    voices: Sequence[Utterance]  # for babble
    read: Callable[[Utterance], np.ndarray]
    noises: Sequence[tuple[Path, float]]  # recordings and their seconds
    recorded_responses: Sequence[np.ndarray]

    @property
    def rooms(self) -> int:
        """How many rooms there are to draw from."""
        return len(self.recorded_responses) or self.config.rooms

    @cached_property
    def response(self) -> Callable[[int], np.ndarray]:
        """The impulse response of a room by its number; a simulated one is computed when first drawn."""
        if self.recorded_responses:
            return self.recorded_responses.__getitem__
        return cache(lambda room: sample_room(room, self.config.room_seconds, self.rate))


def find_sources(
    config: AugmentConfig,
    rate: int,
    voices: Sequence[Utterance] = (),
    read: Callable[[Utterance], np.ndarray] = lambda utterance: np.zeros(0, np.float32),
) -> Sources:
    """Find the recordings that ``config`` names; ``voices`` are the training utterances.

    Raises ``AugmentError`` when there are none and ``AudioError`` when one cannot be read.
    """
    if config.noise_share and "babble" in config.noise_kinds and len(voices) < 2:
        raise AugmentError("'augment.noise_kinds' has babble, which needs other training utterances")
    noises = [
        (path, audio.measure_duration(path)) for path in find_recordings("noise_folder", config.noise_folder)
    ]
    responses = [
        prepare_response(audio.read_audio(path, rate), rate)
        for path in find_recordings("reverb_folder", config.reverb_folder)
    ]
    return Sources(config, rate, voices, read, noises, responses)


def find_recordings(key: str, folder: str) -> list[Path]:
    """The audio files anywhere below ``folder``, in an order that does not depend on the machine."""
    if not folder:
        return []
    paths = sorted(path for path in Path(folder).rglob("*") if is_recording(path))
    if not paths:
        raise AugmentError(f"'augment.{key}': there are no recordings in {folder}")
    return paths


def utterance_generator(seed: int, epoch: int, utterance: str) -> np.random.Generator:
    """The generator of all draws of one kind for one utterance in one epoch."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{utterance}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


# --- drawing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for the utterances of a batch; ``augment_samples`` applies it."""

    speeds: tuple[float, ...]  # of each utterance
    reverberant: tuple[int, ...]  # utterances put into a room
    responses: Tensor  # (reverberant, taps) their impulse responses, of energy 1
    noisy: tuple[int, ...]  # utterances with noise
    noise: Tensor  # (noisy, samples) at any level, as long as the utterances at their new speed
    snr_db: Tensor  # (noisy,)
    telephoned: tuple[int, ...]  # utterances heard over the telephone
    bands: Tensor  # (telephoned, 2) lowest and highest frequency of each, hertz
    gains: Tensor  # (batch,) factors
    shifts: tuple[int, ...]  # samples of silence in front of each utterance
    rate: int  # hertz

    def to(self, device: torch.device) -> Augmentation:
        """The same on ``device``."""
        names = ("responses", "noise", "snr_db", "bands", "gains")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def sample_augmentation(
    sources: Sources, seed: int, epoch: int, utterances: Sequence[Utterance], lengths: Sequence[int]
) -> Augmentation:
    """Draw what happens in this epoch to utterances of ``lengths`` samples."""
    config = sources.config

    def generators(purpose: str) -> list[np.random.Generator]:
        return [utterance_generator(seed, epoch, f"{purpose}/{u.id}") for u in utterances]

    speeds = tuple(config.speeds[g.integers(len(config.speeds))] for g in generators("speed"))
    gains = [10 ** (g.uniform(-config.gain_db, config.gain_db) / 20) for g in generators("gain")]
    reverberant, responses = [], []
    if config.reverb_share:
        for index, generator in enumerate(generators("reverb")):
            if generator.random() < config.reverb_share:
                reverberant.append(index)
                responses.append(sources.response(int(generator.integers(sources.rooms))))
    noisy, noise, snr_db = [], [], []
    if config.noise_share:
        for index, generator in enumerate(generators("noise")):
            if generator.random() < config.noise_share:
                noisy.append(index)
                snr_db.append(generator.uniform(config.noise_snr_db[0], config.noise_snr_db[1]))
                size = length_at_speed(lengths[index], speeds[index])
                noise.append(sample_noise(sources, size, generator, utterances[index]))
    telephoned, bands = [], []
    if config.telephone_share:
        for index, generator in enumerate(generators("telephone")):
            if generator.random() < config.telephone_share:
                telephoned.append(index)
                bands.append([generator.uniform(*LOWEST_HEARD), generator.uniform(*HIGHEST_HEARD)])
    longest = config.shift_ms * sources.rate / 1000
    shifts = tuple(int(g.uniform(0, longest)) for g in generators("shift"))
    return Augmentation(
        speeds=speeds,
        reverberant=tuple(reverberant),
        responses=pad_batch(responses)[0],
        noisy=tuple(noisy),
        noise=pad_batch(noise)[0],
        snr_db=torch.tensor(snr_db),
        telephoned=tuple(telephoned),
        bands=torch.tensor(bands).reshape(-1, 2),
        gains=torch.tensor(gains),
        shifts=shifts,
        rate=sources.rate,
    )


def sample_noise(
    sources: Sources, size: int, generator: np.random.Generator, utterance: Utterance
) -> np.ndarray:
    """Draw a kind of noise and ``size`` samples of it, to be added to ``utterance``."""
    kinds = sources.config.noise_kinds
    match kinds[generator.integers(len(kinds))]:
        case "white":
            return generator.standard_normal(size, dtype=np.float32)
        case "pink":
            return sample_pink_noise(size, generator)
        case "babble":
            return sample_babble(sources, size, generator, utterance)
        case _:
            return sample_recorded_noise(sources, size, generator)


def sample_pink_noise(size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw noise with the same power in every octave: its power falls with 1 / frequency."""
    whole = -(-size // 4096) * 4096 or 4096  # a length that Fourier transforms are fast at
    parts = generator.standard_normal((2, whole // 2 + 1), dtype=np.float32)
    frequencies = np.arange(1, len(parts[0]), dtype=np.float32)
    spectrum = np.zeros(len(parts[0]), np.complex64)
    spectrum[1:] = (parts[0, 1:] + 1j * parts[1, 1:]) / np.sqrt(frequencies)
    return np.fft.irfft(spectrum, whole)[:size].astype(np.float32)


def sample_babble(
    sources: Sources, size: int, generator: np.random.Generator, utterance: Utterance
) -> np.ndarray:
    """Mix a few other training utterances, equally loud, each from a drawn position on."""
    fewest, most = sources.config.babble_voices
    count = min(int(generator.integers(fewest, most + 1)), len(sources.voices) - 1)
    drawn = generator.choice(len(sources.voices), count + 1, replace=False)
    others = [voice for voice in (sources.voices[i] for i in drawn) if voice.id != utterance.id]
    mixed = np.zeros(size, np.float32)
    for voice in others[:count]:
        samples = sources.read(voice)
        power = float(np.mean(np.square(samples)))
        place = int(generator.integers(len(samples)))
        if power:
            mixed += np.resize(np.roll(samples, -place), size) / np.float32(math.sqrt(power))
    return mixed


def sample_recorded_noise(sources: Sources, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a recording and a part of it, repeated where the recording is too short."""
    path, seconds = sources.noises[int(generator.integers(len(sources.noises)))]
    start = generator.uniform(0, max(0.0, seconds - size / sources.rate))
    wanted = min(size / sources.rate, seconds - start)
    return np.resize(audio.read_audio(path, sources.rate, start, wanted), size)


# --- on the device --------------------------------------------------------------------------------


@torch.no_grad()
def augment_samples(
    samples: Tensor, lengths: Tensor, augmentation: Augmentation | None
) -> tuple[Tensor, Tensor]:
    """Apply what was drawn to a batch: speed, room, noise, telephone, gain and shift, in this order.

    ``samples``, ``(batch, samples)``, must be zero beyond ``lengths``, as are those returned. All tensors are
    on one device.
    """
    if augmentation is None:
        return samples, lengths
    samples, lengths = change_speeds(samples, lengths, augmentation.speeds)
    if augmentation.reverberant:
        rows = list(augmentation.reverberant)
        reverberant = reverberate(samples[rows], augmentation.responses)
        samples = replace_rows(samples, rows, mask_padding(reverberant, lengths[rows]))
    if augmentation.noisy:
        rows = list(augmentation.noisy)
        mixed = add_noise(samples[rows], lengths[rows], augmentation.noise, augmentation.snr_db)
        samples = replace_rows(samples, rows, mixed)
    if augmentation.telephoned:
        rows = list(augmentation.telephoned)
        heard = transmit_by_telephone(samples[rows], augmentation.bands, augmentation.rate)
        samples = replace_rows(samples, rows, mask_padding(heard, lengths[rows]))
    return delay(samples * augmentation.gains[:, None].to(samples), lengths, augmentation.shifts)


def replace_rows(samples: Tensor, rows: list[int], new: Tensor) -> Tensor:
    """Replace some rows of ``samples``, ``(batch, samples)``."""
    return samples.index_copy(0, torch.tensor(rows, device=samples.device), new)


def change_speeds(samples: Tensor, lengths: Tensor, speeds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Play each utterance at its speed: shorter and higher for a speed above 1.

    Returns ``(batch, samples)`` and the new lengths.
    """
    if all(speed == 1 for speed in speeds):
        return samples, lengths
    new_lengths = [length_at_speed(n, speed) for n, speed in zip(lengths.tolist(), speeds, strict=True)]
    changed = samples.new_zeros(len(samples), max(new_lengths))
    for speed in sorted(set(speeds)):
        rows = [row for row, own in enumerate(speeds) if own == speed]
        played = samples[rows] if speed == 1 else new_resampler(speed, samples.device)(samples[rows])
        played = played[:, : changed.shape[1]]
        changed[rows, : played.shape[1]] = played
    moved = torch.tensor(new_lengths, device=lengths.device)
    return mask_padding(changed, moved), moved


def length_at_speed(length: int, speed: float) -> int:
    """Samples that ``length`` samples become at a speed."""
    ratio = speed_ratio(speed)
    return math.ceil(length * ratio.denominator / ratio.numerator)


def speed_ratio(speed: float) -> Fraction:
    """A speed as a ratio of small numbers, exact for every speed that people write: 0.9 is 9 / 10."""
    return Fraction(speed).limit_denominator(100)


@cache
def new_resampler(speed: float, device: torch.device) -> Resample:
    """A resampler whose output, played at the old rate, is faster by ``speed``."""
    ratio = speed_ratio(speed)
    return Resample(ratio.numerator, ratio.denominator).to(device)


def reverberate(samples: Tensor, responses: Tensor) -> Tensor:
    """Convolve ``(batch, samples)`` with ``(batch, taps)`` and keep the samples' length."""
    size = -(-(samples.shape[1] + responses.shape[1] - 1) // 4096) * 4096
    spectrum = torch.fft.rfft(samples, size) * torch.fft.rfft(responses, size)
    return torch.fft.irfft(spectrum, size)[:, : samples.shape[1]]


def add_noise(samples: Tensor, lengths: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """Add ``noise``, scaled to be ``snr_db`` decibels below the mean power of ``samples``.

    Both are ``(batch, samples)``, zero beyond the lengths; ``noise`` may be shorter or longer. Silence stays
    silent.
    """
    noise = torch.nn.functional.pad(noise, (0, max(0, samples.shape[1] - noise.shape[1])))
    noise = mask_padding(noise[:, : samples.shape[1]], lengths)
    speech_power, noise_power = samples.square().sum(1), noise.square().sum(1)
    level = (speech_power / noise_power.clamp(min=1e-20) * 10 ** (-snr_db / 10)).sqrt()
    return samples + level[:, None] * noise


def transmit_by_telephone(samples: Tensor, bands: Tensor, rate: int) -> Tensor:
    """What a telephone leaves of ``(batch, samples)``: a band of frequencies, 8 bits a sample.

    ``bands``, ``(batch, 2)``, are the lowest and highest frequency in hertz; each ends in a slope of
    ``SLOPE_HZ``. The samples, 1 at full scale, are then rounded on the scale of mu-law (ITU-T G.711).
    """
    size = -(-samples.shape[1] // 4096) * 4096 or 4096  # a length that Fourier transforms are fast at
    frequencies = torch.fft.rfftfreq(size, 1 / rate, device=samples.device)
    lowest, highest = bands.to(samples)[:, :1], bands.to(samples)[:, 1:]
    above = ((frequencies - lowest) / SLOPE_HZ + 0.5).clamp(0, 1)
    below = ((highest - frequencies) / SLOPE_HZ + 0.5).clamp(0, 1)
    narrow = torch.fft.irfft(torch.fft.rfft(samples, size) * above * below, size)
    narrow = narrow[:, : samples.shape[1]].clamp(-1, 1)
    level = (127 * torch.log1p(255 * narrow.abs()) / math.log(256)).round() / 127
    return narrow.sign() * torch.expm1(level * math.log(256)) / 255


def delay(samples: Tensor, lengths: Tensor, shifts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Put silence in front of each utterance, as many samples as ``shifts`` says."""
    if not any(shifts):
        return samples, lengths
    later = lengths + torch.tensor(shifts, device=lengths.device)
    moved = samples.new_zeros(len(samples), int(later.max()))
    for row, (shift, length) in enumerate(zip(shifts, lengths.tolist(), strict=True)):
        moved[row, shift : shift + length] = samples[row, :length]
    return moved, later


def spec_augment(
    features: Tensor,
    lengths: Tensor,
    config: AugmentConfig,
    hop_ms: float,
    generators: list[np.random.Generator],
    planes: int = 1,
) -> Tensor:
    """Set drawn bands and spans to 0, the mean of normalised features (SpecAugment, Park et al. 2019).

    Args:
        features: ``(batch, frames, features)``.
        lengths: ``(batch,)`` integer, frames per utterance.
        hop_ms: milliseconds from frame to frame.
        generators: one per utterance.
        planes: parts of a frame with the same frequencies, such as deltas, which are masked alike.
    """
    size = features.shape[2] // planes
    bands, spans = [], []
    for length, generator in zip(lengths.tolist(), generators, strict=True):
        bands.append(sample_spans(generator, config.frequency_masks, size, config.frequency_width))
        count, widest = time_mask_limits(config, length, hop_ms)
        spans.append(sample_spans(generator, count, length, widest))
    masked_bands = mask_spans(bands, size, features.device).repeat(1, planes)
    masked_frames = mask_spans(spans, features.shape[1], features.device)
    return features.masked_fill(masked_bands[:, None] | masked_frames[:, :, None], 0.0)


def time_mask_limits(config: AugmentConfig, frames: int, hop_ms: float) -> tuple[int, int]:
    """How many spans an utterance of ``frames`` frames gets, and the most frames of one."""
    count = config.time_masks
    if config.time_masks_per_second:
        count = min(count, int(config.time_masks_per_second * frames * hop_ms / 1000))
    return count, int(min(config.time_width_ms / hop_ms, config.time_width_share * frames))


Span = tuple[int, int]  # where it begins, how wide it is


def sample_spans(generator: np.random.Generator, count: int, size: int, widest: int) -> list[Span]:
    """Draw ``count`` spans within ``size``."""
    spans = []
    for _ in range(count):
        width = int(generator.integers(0, min(widest, size) + 1))
        spans.append((int(generator.integers(0, size - width + 1)), width))
    return spans


def mask_spans(spans: Sequence[Sequence[Span]], size: int, device: torch.device) -> Tensor:
    """``(batch, size)`` booleans, true inside any span of each utterance."""
    most = max(map(len, spans), default=0)
    filled = [[*own, *[(0, 0)] * (most - len(own))] for own in spans]
    table = torch.tensor(filled, dtype=torch.long).reshape(len(spans), most, 2).to(device)
    first, width = table[:, :, :1], table[:, :, 1:]
    places = torch.arange(size, device=device)
    return ((places >= first) & (places < first + width)).any(1)
