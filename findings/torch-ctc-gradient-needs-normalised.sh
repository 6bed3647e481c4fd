#!/usr/bin/env bash
# torch 2.11.0, CPU: F.ctc_loss has a right value and a wrong gradient for scores that do not add up to one.
#
# Training with label priors subtracts log-priors from the log-probs before the loss, as the search does. The loss
# of such scores is what the sum over alignments says. Its gradient is not that of the loss: it is what would be
# right behind a softmax, exp(score) - occupancy instead of -occupancy, and log_softmax below takes it for the
# former. Nothing warns; the documentation asks for "logarithmized probabilities". Expected: the gradient of the
# value that is returned, which the same recursion in plain operations has.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.11.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(1)
logits = torch.randn(6, 1, 4, dtype=torch.float64, requires_grad=True)
priors = torch.log_softmax(torch.randn(4, dtype=torch.float64), 0)
tokens = [1, 2]


def score(weight: float) -> torch.Tensor:
    return torch.log_softmax(logits, 2) - weight * priors


def torch_loss(scores: torch.Tensor) -> torch.Tensor:
    return F.ctc_loss(scores, torch.tensor([tokens]), [6], [2], reduction="sum")


def plain_loss(scores: torch.Tensor) -> torch.Tensor:
    """Graves et al. 2006, equations 6 and 7, for tokens that differ from their neighbours."""
    extended = [0, tokens[0], 0, tokens[1], 0]
    rows = scores[:, 0].exp()
    states = [rows[0, 0], rows[0, tokens[0]], *[rows.new_zeros(())] * 3]
    for row in rows[1:]:
        states = [
            row[token]
            * (
                states[place]
                + (states[place - 1] if place > 0 else 0)
                + (states[place - 2] if place > 1 and token != 0 else 0)
            )
            for place, token in enumerate(extended)
        ]
    return -(states[3] + states[4]).log()


wrong = {}
for weight in (0.0, 1.0):
    values, gradients = [], []
    for loss in (torch_loss, plain_loss):
        value = loss(score(weight))
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, logits)[0])
    wrong[weight] = (gradients[0] - gradients[1]).abs().max().item()
    print(
        f"torch {torch.__version__}, priors times {weight:g}: losses {values[0]:.6f} and {values[1]:.6f}, "
        f"gradients up to {gradients[1].abs().max():.2f} differ by up to {wrong[weight]:.2g}"
    )
    if abs(values[0] - values[1]) > 1e-9:
        sys.exit(1)
sys.exit(0 if wrong[0.0] < 1e-9 and wrong[1.0] > 0.1 else 1)
PY
