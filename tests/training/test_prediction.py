"""Forecasting: what is to be foreseen, what the encoder must not see of it, and what comes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from asr.core.config import ConfigError
from asr.model.ctc import CTCModel
from asr.model.encoders import ENCODERS, EncoderConfig
from asr.model.folder import load_acoustic_model
from asr.training.experiment import TrainingConfig
from asr.training.loop import train
from asr.training.monitoring import read_records
from asr.training.objective import ObjectiveError
from asr.training.prediction import Prediction, join_frames
from asr.training.run import prepare_run
from tests.tiny import tiny_experiment

CPU = torch.device("cpu")
FEATURES = 8


def new_prediction(horizons=(2,), **options) -> Prediction:
    torch.manual_seed(0)
    config = EncoderConfig(
        **{"layers": 2, "size": 8, "bidirectional": False, "channels": 2, "front_end": "conv2"} | options
    )
    model = CTCModel(ENCODERS[config.kind](config, FEATURES, 1), 2)
    return Prediction(model, FEATURES, horizons).eval()


def test_the_loss_is_the_error_of_what_comes():
    prediction = new_prediction((2, 3))
    features = torch.randn(1, 21, FEATURES)
    result = prediction(features, torch.tensor([21]), torch.zeros(1, 0), torch.zeros(1))
    states, _ = prediction.model.encoder(features, torch.tensor([21]))
    said = prediction.intermediate(states)[0].detach().numpy().reshape(-1, 2, 2 * FEATURES)
    came = features[0, :20].numpy().reshape(10, 2 * FEATURES)  # the last frame is cut off
    errors = [np.abs(said[: 10 - n, i] - came[n:]).mean(1).sum() for i, n in enumerate((2, 3))]
    assert float(result.losses) == pytest.approx(sum(errors) / 2, rel=1e-5)


def test_alone_is_as_in_a_batch():
    prediction = new_prediction()
    features, lengths = torch.randn(3, 30, FEATURES), torch.tensor([30, 17, 3])
    features[1, 17:] = 1e4
    nothing = torch.zeros(3, 0), torch.zeros(3)
    together = prediction(features, lengths, *nothing).losses
    alone = prediction(features[1:2, :17], lengths[1:2], nothing[0][:1], nothing[1][:1]).losses
    torch.testing.assert_close(together[1:2], alone, atol=1e-4, rtol=1e-5)
    assert together[2] == 0  # nothing comes after its only frame


@pytest.mark.parametrize("front_end", ["none", "conv2", "conv4", "vgg2", "vgg4"])
@pytest.mark.parametrize("kind", ["recurrent", "tdnn"])
def test_no_state_depends_on_what_it_foresees(kind, front_end):
    least = {"none": 1, "conv2": 2, "conv4": 1, "vgg2": 4, "vgg4": 3}[front_end]
    prediction = new_prediction((least,), kind=kind, front_end=front_end)
    encoder = prediction.model.encoder
    features = torch.randn(1, 60, FEATURES)
    frame = 6
    changed = features.clone()
    changed[:, (frame + least) * encoder.subsampling :] += 1
    before, after = (encoder(each, torch.tensor([60]))[0][:, frame] for each in (features, changed))
    torch.testing.assert_close(before, after, atol=0, rtol=0)
    if least > 1:
        with pytest.raises(ObjectiveError, match=f"asked for {least} frames"):
            new_prediction((least - 1,), kind=kind, front_end=front_end)


@pytest.mark.parametrize(
    "options", [{"bidirectional": True}, {"bidirectional": True, "chunk": 4}, {"kind": "transformer"}]
)
def test_what_sees_the_future_is_refused(options):
    with pytest.raises(ObjectiveError, match="from the start only"):
        new_prediction(**options)


def test_frames_are_joined_in_their_order():
    joined = join_frames(torch.arange(5.0).reshape(1, 5, 1), 2, 3)
    assert joined.tolist() == [[[0, 1], [2, 3], [4, 0]]]


def test_a_forecaster_trains_resumes_and_begins_a_recogniser(tones, tmp_path):
    keys = {"batch_seconds": 8.0, "warmup_steps": 5, "learning_rate": 1e-2}
    plain = tiny_experiment(tones, encoder={"bidirectional": False}, **keys)
    foresee = replace(plain, training=replace(plain.training, objective="predict", predict_frames=(2, 4)))
    lines: list[str] = []
    train(foresee, tmp_path / "run", CPU, lines.append)
    errors = [r["valid_criterion"] for r in read_records(tmp_path / "run") if "valid_criterion" in r]
    assert len(errors) == 2
    assert errors[1] < errors[0]
    assert any("validation error" in line for line in lines)
    begun = load_acoustic_model(tmp_path / "run")
    options = replace(plain.training, initial=str(tmp_path / "run"))
    run = prepare_run(replace(plain, training=options), tmp_path / "tuned", CPU)
    for name, value in begun.ctc.encoder.state_dict().items():
        torch.testing.assert_close(run.model.ctc.encoder.state_dict()[name], value, atol=0, rtol=0)
    assert len(run.tokenizer) > 2


@pytest.mark.parametrize(
    "options", [{"intermediate_layer": 1}, {"criterion": "ctc-crf"}, {"predict_frames": ()}]
)
def test_options_that_do_not_go_together(options):
    with pytest.raises(ConfigError):
        TrainingConfig(objective="predict", **options)
