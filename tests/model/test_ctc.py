"""The CTC loss against the enumeration of all paths, and the model's contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.model.ctc import CTCModel, ctc_loss, frames_needed
from asr.model.encoders import EncoderConfig, RecurrentEncoder
from tests.reference import ctc_log_probability


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 5),
    tokens=st.lists(st.integers(1, 2), max_size=4),
    seed=st.integers(0, 1000),
)
def test_the_loss_is_that_of_all_paths(frames, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(1, frames, 3, generator=generator, dtype=torch.float64).log_softmax(2)
    loss = ctc_loss(
        log_probs,
        torch.tensor([frames]),
        torch.tensor([tokens], dtype=torch.long).reshape(1, len(tokens)),
        torch.tensor([len(tokens)]),
    )
    expected = -ctc_log_probability(log_probs[0].numpy(), tokens)
    if frames < frames_needed(tokens):
        assert np.isinf(expected)
        assert torch.isinf(loss[0])
    else:
        assert float(loss[0]) == pytest.approx(expected, abs=1e-9)


def test_the_loss_has_the_gradient_of_finite_differences():
    logits = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    tokens, lengths = torch.tensor([[1, 2], [2, 0]]), torch.tensor([4, 3])

    def loss(values: torch.Tensor) -> torch.Tensor:
        return ctc_loss(values.log_softmax(2), lengths, tokens, torch.tensor([2, 1])).sum()

    assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.parametrize(
    ("tokens", "needed"), [([], 0), ([1], 1), ([1, 2, 3], 3), ([1, 1], 3), ([1, 1, 1], 5), ([1, 2, 2, 1], 5)]
)
def test_frames_needed(tokens, needed):
    assert frames_needed(tokens) == needed


def test_the_model_gives_log_probs_and_ignores_padding():
    model = CTCModel(RecurrentEncoder(EncoderConfig(layers=1, size=4), 3), vocabulary_size=6).eval()
    features, lengths = torch.randn(2, 9, 3), torch.tensor([9, 5])
    log_probs, frames = model(features, lengths)
    assert log_probs.shape == (2, 9, 6)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(2, 9))
    features[1, 5:] = 100.0
    again, _ = model(features, lengths)
    torch.testing.assert_close(again[1, :5], log_probs[1, :5], atol=1e-6, rtol=1e-5)
    assert frames.tolist() == [9, 5]
