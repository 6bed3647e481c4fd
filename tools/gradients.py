#!/usr/bin/env python3
"""Draw how far back a recurrent network can learn: gradients vanishing and exploding.

    python tools/gradients.py -o docs/gradients.png

A loss at frame T has a gradient of length 1 with respect to the hidden state at T, in a random direction. The
picture shows its length with respect to the state (for an LSTM, hidden and cell state together) at T - d, for
cells with fresh weights that read random frames: unclipped on the left, and on the right shortened to
length 1 at every frame where it is longer. Training clips less: the sum over frames, once a step.
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


def measure_gradients(cell: Cell, inputs: Tensor, clip: float = 0.0) -> Tensor:
    """Measure the gradient of a loss at the last frame, ``(distances,)`` lengths from distance 0 up.

    It is taken with respect to the hidden state and, where there is one, the cell state together, and
    averaged over a batch ``(batch, frames, input)``. The loss is ``v h_T`` with a random ``v`` of length 1.
    ``clip`` shortens a longer gradient before it passes to the frame before; 0 does not.
    """
    lengths = torch.full((len(inputs),), inputs.shape[1])
    projected = cell.project(inputs, lengths).detach()
    state = detach(cell, cell.initial_state(projected))
    links: list[tuple[State, State]] = []
    for frame in projected.unbind(1):
        after = cell.step(frame, state)
        links.append((state, after))
        state = detach(cell, after)
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


def detach(cell: Cell, state: State) -> State:
    """Detach the part of a state that the next frame sees, to start a graph of its own."""
    return {name: state[name].detach().requires_grad_() for name in cell.carried}


def norm(gradient: State) -> Tensor:
    """The length of a gradient over all parts of a state, ``(batch,)``."""
    return torch.cat(list(gradient.values()), 1).norm(dim=1)


def make_cells() -> dict[str, Cell]:
    """Make the cells to draw: the simple one twice, with small and with large recurrent weights."""
    cells = {name: CELLS[name](INPUTS, SIZE) for name in ("rnn", "gru", "lstm")}
    large = CELLS["rnn"](INPUTS, SIZE)
    with torch.no_grad():
        large.get_parameter("weight_hh").mul_(6.0)
    cells = {"RNN": cells["rnn"], "RNN, recurrent weights x 6": large} | {
        name.upper(): cells[name] for name in ("gru", "lstm")
    }
    remembering = CELLS["lstm"](INPUTS, SIZE)
    with torch.no_grad():  # as training leaves them in units that must remember
        remembering.get_parameter("bias_ih")[SIZE : 2 * SIZE] = 5.0
    return cells | {"LSTM, forget gates opened (bias 5)": remembering}


def parse_picture_path(text: str) -> Path:
    """Parse a path that ends like a picture."""
    if Path(text).suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(f"{text} does not end in {' or '.join(PICTURES)}")
    return Path(text)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=parse_picture_path, required=True, help="a .png, .svg or .pdf")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    cells, inputs = make_cells(), torch.randn(BATCH, FRAMES, INPUTS)

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, clip in zip(panels, (0.0, 1.0), strict=True):
        for name, cell in cells.items():
            axes.semilogy(measure_gradients(cell, inputs, clip).numpy(), label=name)
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
