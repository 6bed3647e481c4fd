"""Learning from a teacher: its log-probs or hidden states moved to the student's frames, and the losses.

The teacher hears recordings as they are, the student hears them changed: faster, later, with noise.
Distillation of CTC frame by frame: Takashima et al. 2018; the spikes of two networks need not stand at the
same place (Kurata & Audhkhasi 2018). Hidden states of a larger network as targets: Romero et al. 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from asr.model.features import length_mask
from asr.training.teacher import Heard, States, Teacher, stretch_rows, stretch_states


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


def place_states(
    source: States, utterances: Sequence[str], heard: Sequence[Heard], frame_seconds: float
) -> Tensor:
    """The hidden states of each utterance, as the student hears it: ``(batch, frames, size)``.

    Zeros where nothing is known, at the end of shorter utterances, and for utterances without states.
    """
    frames = max((one.frames for one in heard), default=0)
    batch = torch.zeros(len(utterances), frames, source.size)
    for row, utterance, one in zip(batch, utterances, heard, strict=True):
        known = source.read(utterance)
        if known is not None:
            moved = stretch_states(known, source.frame_seconds, one, frame_seconds)
            row[: one.frames] = torch.from_numpy(moved)
    return batch


def states_loss(predicted: Tensor, states: Tensor, frames: Tensor) -> Tensor:
    """The squared error of predicted states, mean over their numbers, summed over frames: ``(batch,)``.

    Args:
        predicted: ``(batch, frames, size)``.
        states: ``(batch, frames, size)``; frames of zeros do not count.
        frames: ``(batch,)`` integer, frames of each utterance.
    """
    length = predicted.shape[1]
    states = F.pad(states, (0, 0, 0, max(0, length - states.shape[1])))[:, :length].to(predicted)
    is_known = states.any(dim=2) & length_mask(frames, length).to(states.device)
    return ((predicted - states).square().mean(dim=2) * is_known).sum(dim=1)


def teacher_loss(
    log_probs: Tensor, taught: Tensor, frames: Tensor, lag: int = 0, temperature: float = 1.0
) -> Tensor:
    """How far a student is from its teacher, nats, summed over frames: ``(batch,)``.

    The Kullback-Leibler divergence of the student from the teacher (Hinton et al. 2015). With ``lag``, each
    spike of the teacher is first moved to where the student itself hears it.

    Args:
        log_probs: ``(batch, frames, tokens)`` of the student.
        taught: ``(batch, frames, tokens)`` probabilities of the teacher; frames of zeros do not count.
        frames: ``(batch,)`` integer, frames of each utterance.
        lag: by how many frames a spike is moved at most.
        temperature: both are made flatter by this power; the loss is multiplied by its square.
    """
    length = log_probs.shape[1]
    taught = F.pad(taught, (0, 0, 0, max(0, length - taught.shape[1])))[:, :length].to(log_probs)
    taught = taught * length_mask(frames, length)[:, :, None].to(taught)
    if lag:
        taught = move_spikes(taught, log_probs.detach(), frames, lag)
    if temperature != 1.0:
        log_probs = F.log_softmax(log_probs / temperature, dim=2)
        flat = taught ** (1 / temperature)
        taught = flat / flat.sum(dim=2, keepdim=True).clamp(min=1e-20)
    divergence = torch.xlogy(taught, taught) - taught * log_probs
    return temperature**2 * divergence.sum(dim=(1, 2))


def move_spikes(taught: Tensor, log_probs: Tensor, frames: Tensor, lag: int) -> Tensor:
    """Move each spike of a teacher to the frame, at most ``lag`` away, where the student gives it the most.

    A spike is a frame in which some token has more than half of the probability; it changes places with
    the frame that it is moved to. None goes further than half the way to the next one, so that their order
    stays. The arguments are those of ``teacher_loss``; returns another ``taught``.
    """
    batch, length, _ = taught.shape
    tokens = taught[:, :, 1:].argmax(dim=2) + 1
    rows, places = torch.nonzero(taught[:, :, 1:].amax(dim=2) > 0.5, as_tuple=True)
    if not len(rows):
        return taught
    same = rows[1:] == rows[:-1]
    middles = (places[1:] + places[:-1]) // 2  # the last frame of the earlier one of two neighbours
    begins, ends = torch.zeros_like(places), frames[rows] - 1
    begins[1:] = torch.where(same, middles + 1, begins[1:])
    ends[:-1] = torch.where(same, middles, ends[:-1])
    steps = torch.arange(-lag, lag + 1, device=taught.device)
    reached = places[:, None] + steps
    is_open = (reached >= begins[:, None]) & (reached <= ends[:, None])
    said = log_probs[rows[:, None], reached.clamp(0, length - 1), tokens[rows, places][:, None]]
    said = said.masked_fill(~is_open, -torch.inf)
    said[:, lag] += 1e-6  # where all are alike it stays
    best = reached.gather(1, said.argmax(dim=1, keepdim=True))[:, 0]
    order = torch.arange(length, device=taught.device).repeat(batch, 1)
    order[rows, best] = places
    order[rows, places] = torch.where(best == places, places, best)
    return taught.gather(1, order[:, :, None].expand_as(taught))
