"""On a GPU the models hear what they hear on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import asr
from asr.audio.reading import read_audio
from asr.model.folder import load_acoustic_model

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "sample"), [("digits", "digits-lucas"), ("english", "english-1272")])
def test_log_probs_are_those_of_the_cpu(name, sample):
    here, there = (load_acoustic_model(name, device) for device in ("cpu", "cuda"))
    samples = torch.from_numpy(read_audio(SAMPLES / f"{sample}.flac", here.sample_rate))[None]
    lengths = torch.tensor([samples.shape[1]])
    expected = here.log_probs(samples, lengths)[0]
    found = there.log_probs(samples, lengths)[0].cpu()
    likely = expected > -5
    torch.testing.assert_close(found[likely], expected[likely], atol=0.05, rtol=0)


@pytest.mark.gpu
def test_transcripts_are_those_of_the_cpu():
    on_cpu, on_gpu = (asr.load("digits", device=device) for device in ("cpu", "cuda"))
    for path in sorted(SAMPLES.glob("digit*.flac")):
        assert on_gpu.transcribe(path).text == on_cpu.transcribe(path).text
