"""Learning from a teacher: its log-probs moved to the student's frames, and the loss.

The teacher hears recordings as they are, the student hears them changed: faster, later, with noise.
Distillation of CTC frame by frame: Takashima et al. 2018; where the spikes of two networks do not stand at
the same place: Kurata & Audhkhasi 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.model.features import length_mask
from asr.training.teacher import Heard, Teacher, stretch_rows


def teach_batch(
    teacher: Teacher, utterances: Sequence[str], heard: Sequence[Heard], frame_seconds: float
) -> Tensor:
    """What the teacher says of each utterance, as the student hears it: ``(batch, frames, tokens)``.

    Zeros where it says nothing, at the end of shorter utterances, and for utterances that it does not know.
    """
    frames = max((one.frames for one in heard), default=0)
    batch = torch.zeros(len(utterances), frames, teacher.tokens)
    for row, utterance, one in zip(batch, utterances, heard, strict=True):
        known = teacher.read(utterance)
        if known is not None:
            stretched = stretch_rows(known, teacher.frame_seconds, one, frame_seconds)
            row[: one.frames] = torch.from_numpy(stretched)
    return batch


def teacher_loss(
    log_probs: Tensor, taught: Tensor, frames: Tensor, lag: int = 0, temperature: float = 1.0
) -> Tensor:
    """How far a student is from its teacher, nats, summed over frames: ``(batch,)``.

    The Kullback-Leibler divergence of the student from the teacher (Hinton et al. 2015). The spikes of
    the two may stand beside each other: of all displacements up to ``lag`` frames, each utterance is given
    the one with which it is nearest.

    Args:
        log_probs: ``(batch, frames, tokens)`` of the student.
        taught: ``(batch, frames, tokens)`` probabilities of the teacher; frames of zeros do not count.
        frames: ``(batch,)`` integer, frames of each utterance.
        lag: largest displacement, in frames.
        temperature: both are made flatter by this power; the loss is multiplied by its square.
    """
    length = log_probs.shape[1]
    taught = F.pad(taught, (0, 0, 0, max(0, length - taught.shape[1])))[:, :length].to(log_probs)
    if temperature != 1.0:
        log_probs = F.log_softmax(log_probs / temperature, dim=2)
        flat = taught ** (1 / temperature)
        taught = flat / flat.sum(dim=2, keepdim=True).clamp(min=1e-20)
    inside = length_mask(frames, length)[:, :, None].to(taught)
    entropies = torch.xlogy(taught, taught)
    each = []
    for step in range(-lag, lag + 1):
        moved, surprise = (move_frames(values, step) * inside for values in (taught, entropies))
        each.append((surprise - moved * log_probs).sum(dim=(1, 2)))
    return temperature**2 * torch.stack(each).amin(dim=0)


def move_frames(values: Tensor, steps: int) -> Tensor:
    """Move ``(batch, frames, tokens)`` by so many frames to later ones; what comes in is zeros."""
    length = values.shape[1]
    if steps >= 0:
        return F.pad(values, (0, 0, steps, 0))[:, :length]
    return F.pad(values, (0, 0, 0, -steps))[:, -steps:]
