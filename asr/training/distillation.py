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

    Without ``lag``, the Kullback-Leibler divergence of the student from the teacher (Hinton et al. 2015).
    With it, spikes of the two may stand beside each other: what the teacher gives a token in a frame is
    compared with all that the student gives it within ``lag`` frames of that one, and a blank counts as much
    as the teacher is sure that there is no spike so near.

    Args:
        log_probs: ``(batch, frames, tokens)`` of the student.
        taught: ``(batch, frames, tokens)`` probabilities of the teacher; frames of zeros do not count.
        frames: ``(batch,)`` integer, frames of each utterance.
        lag: largest distance of spikes, in frames.
        temperature: both are made flatter by this power; the loss is multiplied by its square.
    """
    length = log_probs.shape[1]
    taught = F.pad(taught, (0, 0, 0, max(0, length - taught.shape[1])))[:, :length].to(log_probs)
    if temperature != 1.0:
        log_probs = F.log_softmax(log_probs / temperature, dim=2)
        flat = taught ** (1 / temperature)
        taught = flat / flat.sum(dim=2, keepdim=True).clamp(min=1e-20)
    taught = taught * length_mask(frames, length)[:, :, None].to(taught)
    near = log_probs
    weights = torch.ones_like(taught)
    if lag:
        inside = length_mask(frames, length)[:, :, None].to(taught)
        moved = [move_frames(log_probs.exp() * inside, step) for step in range(-lag, lag + 1)]
        near = torch.stack(moved).sum(dim=0).clamp(min=1e-10, max=1.0).log()
        near = torch.cat([log_probs[:, :, :1], near[:, :, 1:]], dim=2)
        spoken = taught[:, :, 1:].sum(dim=2, keepdim=True)
        steps = [step for step in range(-lag, lag + 1) if step]
        weights[:, :, :1] = 1 - torch.stack([move_frames(spoken, step) for step in steps]).amax(dim=0)
    divergence = (torch.xlogy(taught, taught) - taught * near) * weights
    return temperature**2 * divergence.sum(dim=(1, 2))


def move_frames(values: Tensor, steps: int) -> Tensor:
    """Move ``(batch, frames, tokens)`` by so many frames to later ones; what comes in is zeros."""
    length = values.shape[1]
    if steps >= 0:
        return F.pad(values, (0, 0, steps, 0))[:, :length]
    return F.pad(values, (0, 0, 0, -steps))[:, -steps:]
