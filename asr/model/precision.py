"""Devices, and the numbers that a network computes in: float32, bfloat16 or int8."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from asr.core.provenance import describe_machine
from asr.errors import UserError
from asr.recognition.network import COMPUTE_TYPES

Module = TypeVar("Module", bound=nn.Module)


def choose_device(name: str) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps`` as a device of this machine.

    Raises ``UserError`` for another name and for a device that is not there.
    """
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


def describe_device(device: torch.device) -> str:
    """The name of a GPU, or the processor and how many threads work on it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return describe_machine(torch.get_num_threads())


def choose_compute_type(name: str, device: torch.device) -> str:
    """One of ``COMPUTE_TYPES`` but ``auto``, which is ``bfloat16`` on processors with instructions for it.

    Raises ``UserError`` for an unknown name, and for ``int8`` on another device than a processor.
    """
    if name not in COMPUTE_TYPES:
        raise UserError(f"compute type {name!r} is not one of {', '.join(COMPUTE_TYPES)}")
    if name == "int8" and device.type != "cpu":
        raise UserError("compute type int8 is for processors; give --device cpu, or another compute type")
    if name != "auto":
        return name
    native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if native else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """A context in which big products run in ``bfloat16``, where ``precision`` says so."""
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def quantise(module: Module) -> Module:
    """A copy whose linear layers, LSTMs and GRUs have weights in 8 bits and round their inputs on the fly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its move to another package
        kinds = {nn.LSTM, nn.GRU, nn.Linear}
        return torch.ao.quantization.quantize_dynamic(module, kinds, dtype=torch.qint8)
