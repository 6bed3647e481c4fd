"""How gradients change weights: optimisers, learning rates, clipping, averages of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asr.training.experiment import TrainingConfig

Groups = list[dict[str, Any]]


# --- optimisers -----------------------------------------------------------------------------------


def adamw(groups: Groups, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam with decay apart from the gradient (Loshchilov & Hutter 2019).

    Beside bfloat16's short steps on a CPU, torch's fused form saves three quarters of its time; it rounds
    differently, so float32 keeps the other one.
    """
    on_cpu = all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])
    fused = True if on_cpu and config.precision == "bfloat16" else None
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=fused)


def adam(groups: Groups, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015); decay is part of the gradient."""
    return torch.optim.Adam(groups, lr=config.learning_rate, betas=(config.momentum, 0.999))


def rmsprop(groups: Groups, config: TrainingConfig) -> torch.optim.Optimizer:
    """RMSprop (Tieleman & Hinton 2012) with momentum, as Graves (2013) trained LSTMs."""
    return torch.optim.RMSprop(groups, lr=config.learning_rate, alpha=0.95, momentum=config.momentum)


def sgd(groups: Groups, config: TrainingConfig) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov's momentum (Sutskever et al. 2013)."""
    momentum = config.momentum
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=momentum, nesterov=momentum > 0)


OPTIMISERS: dict[str, Callable[[Groups, TrainingConfig], torch.optim.Optimizer]] = {
    "adamw": adamw,
    "adam": adam,
    "rmsprop": rmsprop,
    "sgd": sgd,
}


def new_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser of the weights of ``module``; only matrices decay."""
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return OPTIMISERS[config.optimiser](groups, config)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of the optimiser under flat names."""
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state that ``optimizer_tensors`` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


# --- learning rates -------------------------------------------------------------------------------

ONE_CYCLE_RISE = 0.3  # share of the steps
ONE_CYCLE_START = 1 / 25  # of the highest rate


def cosine(step: int, total_steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then half a cosine down to 0 at the end of the run (Loshchilov & Hutter 2017)."""
    if step < warmup_steps:
        return constant(step, total_steps, warmup_steps)
    return half_cosine((step - warmup_steps) / max(1, total_steps - warmup_steps))


def constant(step: int, total_steps: int, warmup_steps: int) -> float:
    """Linear warm-up, then the whole rate to the end."""
    return min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0


def onecycle(step: int, total_steps: int, warmup_steps: int) -> float:
    """Up from 1/25 over 30 % of the run, then down to 0, in half cosines (Smith 2018)."""
    top = ONE_CYCLE_RISE * total_steps
    if step < top:
        return 1 - (1 - ONE_CYCLE_START) * half_cosine(step / top)
    return half_cosine((step - top) / (total_steps - top))


def half_cosine(share: float) -> float:
    """Half a cosine: 1 at 0, 0 at 1 and beyond."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "cosine": cosine,
    "constant": constant,
    "onecycle": onecycle,
}


def compute_learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """The learning rate of one step, counted from 0."""
    return config.learning_rate * SCHEDULES[config.schedule](step, total_steps, config.warmup_steps)


# --- gradients ------------------------------------------------------------------------------------


def gradient_norms(module: nn.Module) -> dict[str, float]:
    """The Euclidean norm of the gradient of each layer of ``module``."""
    squares: dict[str, list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            square = torch.linalg.vector_norm(parameter.grad.float()).square()
            squares.setdefault(layer_name(name), []).append(square)
    totals = torch.stack([torch.stack(values).sum() for values in squares.values()]).sqrt()
    return dict(zip(squares, totals.tolist(), strict=True))


def layer_name(parameter: str) -> str:
    """The layer of a parameter: its path down to the first number, or to its last dot."""
    parts = parameter.split(".")
    depth = next((i + 1 for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return ".".join(parts[:depth])


def clip_gradients(parameters: Sequence[nn.Parameter], config: TrainingConfig) -> float:
    """Shorten the gradient to ``clip_norm``; returns its norm before that, which may not be finite."""
    return float(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm or math.inf))


# --- averages of weights --------------------------------------------------------------------------


def update_averages(averages: Mapping[str, Tensor], module: nn.Module, decay: float, updates: int) -> None:
    """Move each average towards the present weight by ``1 - decay``, further in the first updates.

    Otherwise the random initial weights would count for long: after ``n`` updates the decay is at most
    ``(1 + n) / (10 + n)``.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            averages[name].lerp_(parameter, 1 - decay)


@contextmanager
def replace_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Give ``module`` other weights during the block."""
    parameters = {name: p for name, p in module.named_parameters() if name in weights}
    own = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    load_weights(parameters, weights)
    try:
        yield
    finally:
        load_weights(parameters, own)


def load_weights(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> None:
    """Copy ``weights`` into ``parameters``."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def average_weights(several: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Average the weights of several models; tensors of other than floating-point numbers are the first's."""
    return {
        name: torch.stack([weights[name].double() for weights in several]).mean(0).to(first.dtype)
        if first.is_floating_point()
        else first
        for name, first in several[0].items()
    }
