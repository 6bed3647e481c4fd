#!/usr/bin/env python3
"""Draw how far back a recurrent network can learn: gradients vanishing and exploding.

    python tools/gradients.py -o docs/gradients.png

A loss at frame T pulls on the hidden state at T with a gradient of length 1, in a direction drawn at
random. Drawn is how long the gradient by the state (an LSTM's is hidden and cell state together) still is at
T - d, for cells with fresh weights that read random frames: left as it is, and right when it is shortened to
length 1 wherever it is longer, from frame to frame. Training clips less: the sum over frames, once a step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from asr.cli._options import PICTURES
from asr.core.files import replace_file
from asr.model.cells import CELLS, Cell, State

FRAMES, SIZE, INPUTS, BATCH = 120, 64, 40, 16


def gradient_norms(cell: Cell, inputs: Tensor, clip: float = 0.0) -> Tensor:
    """The length of the gradient of a loss at the last frame, ``(distances,)``, from distance 0 up.

    By the hidden state and, where there is one, the cell state together, the mean over a batch
    ``(batch, frames, input)``. The loss is ``v h_T`` with a random ``v`` of length 1. ``clip``
    shortens what is longer before it goes on to the frame before; 0 leaves it.
    """
    lengths = torch.full((len(inputs),), inputs.shape[1])
    projected = cell.project(inputs, lengths).detach()
    state = detached(cell, cell.initial_state(projected))
    links: list[tuple[State, State]] = []
    for frame in projected.unbind(1):
        after = cell.step(frame, state)
        links.append((state, after))
        state = detached(cell, after)
    gradient = {name: torch.zeros_like(state[name]) for name in cell.carried}
    gradient["hidden"] = torch.nn.functional.normalize(torch.randn_like(state["hidden"]), dim=1)
    norms = [norm(gradient).mean()]
    for before, after in reversed(links[1:]):
        names = list(cell.carried)
        passed = torch.autograd.grad(
            [after[name] for name in names], [before[name] for name in names], [gradient[n] for n in names]
        )
        gradient = dict(zip(names, passed, strict=True))
        if clip:
            scale = clip / norm(gradient).clamp(min=clip)
            gradient = {name: values * scale[:, None] for name, values in gradient.items()}
        norms.append(norm(gradient).mean())
    return torch.stack(norms)


def detached(cell: Cell, state: State) -> State:
    """What the next frame sees, as the beginning of a graph of its own."""
    return {name: state[name].detach().requires_grad_() for name in cell.carried}


def norm(gradient: State) -> Tensor:
    """The length of a gradient by all parts of a state, ``(batch,)``."""
    return torch.cat(list(gradient.values()), 1).norm(dim=1)


def networks() -> dict[str, Cell]:
    """The cells that are drawn: of the simple one two, its recurrent weights small and large."""
    cells = {name: CELLS[name](INPUTS, SIZE) for name in ("rnn", "gru", "lstm")}
    large = CELLS["rnn"](INPUTS, SIZE)
    with torch.no_grad():
        large.get_parameter("weight_hh").mul_(6.0)
    cells = {"RNN": cells["rnn"], "RNN, recurrent weights x 6": large} | {
        name.upper(): cells[name] for name in ("gru", "lstm")
    }
    remembering = CELLS["lstm"](INPUTS, SIZE)
    with torch.no_grad():  # what training arrives at for units that have to remember
        remembering.get_parameter("bias_ih")[SIZE : 2 * SIZE] = 5.0
    return cells | {"LSTM, forget gates opened (bias 5)": remembering}


def picture_path(text: str) -> Path:
    """A path whose ending says how to draw."""
    if Path(text).suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(PICTURES)}")
    return Path(text)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=picture_path, required=True, help="a .png, .svg or .pdf")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    cells, inputs = networks(), torch.randn(BATCH, FRAMES, INPUTS)

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, clip in zip(panels, (0.0, 1.0), strict=True):
        for name, cell in cells.items():
            axes.semilogy(gradient_norms(cell, inputs, clip).numpy(), label=name)
        axes.set(
            title=f"clipped to {clip:g} at every frame" if clip else "not clipped",
            xlabel="frames back from the loss",
            ylim=(1e-12, 1e12),
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("length of the gradient by the state")
    panels[1].legend(loc="upper right", fontsize=8)
    with replace_file(options.out) as temporary:
        figure.savefig(temporary, dpi=110)


if __name__ == "__main__":
    main()
