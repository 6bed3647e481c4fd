"""A teacher: its folder, its rows at the student's frames, the loss, and what a student learns from it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from asr.cli import cli
from asr.core.config import ConfigError
from asr.model.ctc import CTCModel
from asr.model.encoders import ENCODERS, EncoderConfig
from asr.text.tokenizer import Tokenizer
from asr.training.checkpoints import list_checkpoints
from asr.training.distillation import move_spikes, place_states, states_loss, teach_batch, teacher_loss
from asr.training.experiment import Experiment, TrainingConfig
from asr.training.loop import train
from asr.training.monitoring import read_records
from asr.training.objective import Objective, ObjectiveError
from asr.training.teacher import (
    Heard,
    TeacherError,
    open_states,
    open_teacher,
    stretch_rows,
    stretch_states,
)
from tests.stand_in import SIZE, stand_in_for_whisper
from tests.tiny import tiny_experiment

CPU = torch.device("cpu")
TOKENS = Tokenizer(("<blank>", "<space>", "a", "b"))


def write_folder(folder: Path, **rows: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokens.txt").write_text("".join(f"{symbol}\n" for symbol in TOKENS.symbols))
    (folder / "teacher.toml").write_text("frame_seconds = 0.04\n")
    for name, array in rows.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def spikes(tokens: list[int], sure: float = 0.97) -> np.ndarray:
    """Log-probs of frames that are nearly sure of these tokens."""
    rows = np.full((len(tokens), len(TOKENS.symbols)), (1 - sure) / (len(TOKENS.symbols) - 1))
    rows[np.arange(len(tokens)), tokens] = sure
    return np.log(rows).astype(np.float32)


# --- at the student's frames ----------------------------------------------------------------------


def test_rows_of_the_same_frames_stay_as_they_are():
    rows = spikes([0, 2, 0, 3, 1, 0])
    np.testing.assert_allclose(stretch_rows(rows, 0.04, Heard(6), 0.04), np.exp(rows), rtol=1e-6)


def test_a_shift_moves_rows_to_later_frames_and_leaves_zeros_in_front():
    rows = spikes([2, 0, 3])
    moved = stretch_rows(rows, 0.04, Heard(6, shift_seconds=0.08), 0.04)
    np.testing.assert_allclose(moved[2:5], np.exp(rows), rtol=1e-6)
    assert not moved[:2].any()
    assert not moved[5:].any()


def test_a_student_with_longer_frames_gets_every_spike_and_the_blank_what_is_left():
    moved = stretch_rows(spikes([0, 2, 3, 0], sure=0.7), 0.02, Heard(2), 0.04)
    # Of blank 0.7 and a 0.7 (others 0.1) a keeps 0.7, the others 0.1, the blank the rest.
    np.testing.assert_allclose(moved, [[0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]], atol=1e-6)


@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    speed=st.sampled_from([0.5, 0.9, 1.0, 1.1, 2.0]),
    shift=st.floats(0, 0.2),
)
def test_each_frame_has_probabilities_or_nothing_and_no_spike_is_lost(tokens, speed, shift):
    rows = spikes(tokens)
    frames = int((len(tokens) * 0.04 / speed + shift) / 0.04) + 2
    moved = stretch_rows(rows, 0.04, Heard(frames, speed, shift), 0.04)
    sums = moved.sum(1)
    assert np.all((np.abs(sums - 1) < 1e-5) | (sums == 0))
    assert len(np.flatnonzero(sums)) <= len(tokens)
    for token in set(tokens) - {0}:
        assert moved[:, token].max() > 0.45  # two sure spikes in one frame have half of it each


def test_a_batch_has_zeros_where_the_teacher_says_nothing(tmp_path):
    teacher = open_teacher(write_folder(tmp_path / "t", x=spikes([2, 0]).astype(np.float16)), TOKENS)
    batch = teach_batch(teacher, ["x", "unknown"], [Heard(2), Heard(3)], 0.04)
    assert batch.shape == (2, 3, 4)
    torch.testing.assert_close(batch[0, :2], torch.from_numpy(np.exp(spikes([2, 0]))), atol=1e-3, rtol=0)
    assert not batch[0, 2].any()
    assert not batch[1].any()


# --- the loss -------------------------------------------------------------------------------------


def test_the_loss_is_the_divergence_from_the_teacher():
    torch.manual_seed(0)
    log_probs = F.log_softmax(torch.randn(2, 7, 4, dtype=torch.float64), 2).requires_grad_()
    taught = F.softmax(torch.randn(2, 7, 4, dtype=torch.float64), 2)
    taught[1, 2] = 0  # says nothing
    frames = torch.tensor([7, 4])
    loss = teacher_loss(log_probs, taught, frames)
    each = F.kl_div(log_probs.detach(), taught, reduction="none").sum(2)
    expected = [float(each[0].sum()), float(each[1, [0, 1, 3]].sum())]
    assert loss.tolist() == pytest.approx(expected, rel=1e-12)
    own = log_probs.detach().exp()
    assert teacher_loss(log_probs, own, frames).tolist() == pytest.approx([0, 0], abs=1e-12)
    (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
    torch.testing.assert_close(gradient[0], -taught[0])
    assert not gradient[1, 2].any()
    assert not gradient[1, 4:].any()


def test_a_temperature_makes_both_flatter():
    log_probs = torch.log(torch.tensor([[[0.7, 0.2, 0.1]]]))
    taught = torch.tensor([[[0.1, 0.8, 0.1]]])

    def flat(probabilities):
        powers = probabilities**0.5
        return powers / powers.sum(2, keepdim=True)

    expected = 4 * F.kl_div(flat(log_probs.exp()).log(), flat(taught), reduction="sum")
    loss = teacher_loss(log_probs, taught, torch.tensor([1]), temperature=2.0)
    torch.testing.assert_close(loss[0], expected)


@pytest.mark.parametrize("step", [-2, -1, 0, 1, 2])
def test_spikes_may_stand_beside_each_other(step):
    rows = torch.from_numpy(spikes([0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0])[None])
    taught = torch.from_numpy(np.exp(spikes(np.roll([0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0], step))[None]))
    frames = torch.tensor([14])
    each = (0.97 - 0.01) * math.log(0.97 / 0.01)  # a spike where the other has a blank, or a blank a spike
    for lag in (0, 1, 2, 3):
        expected = 0 if abs(step) <= lag else 4 * each
        assert float(teacher_loss(rows, taught, frames, lag=lag)[0]) == pytest.approx(expected, abs=1e-3)


def test_a_moved_spike_changes_places_and_keeps_the_order():
    student = torch.from_numpy(spikes([0, 2, 0, 0, 0, 3, 3, 0, 2, 0])[None])
    teacher = np.exp(spikes([0, 0, 2, 0, 0, 3, 0, 2, 0, 0])[None])
    teacher[0, :, 0] += np.linspace(0, 0.001, 10)  # which frame is which
    taught = torch.from_numpy(teacher)
    moved = move_spikes(taught, student, torch.tensor([10]), 3)
    order = [0, 2, 1, 3, 4, 5, 6, 8, 7, 9]
    assert torch.equal(moved, taught[:, order])
    # Never beyond half the way to the next one, nor out of the recording.
    greedy = torch.from_numpy(spikes([2, 0, 0, 3, 0, 2, 0])[None])
    taught = torch.from_numpy(np.exp(spikes([0, 0, 0, 2, 3, 0, 0])[None]))
    moved = move_spikes(taught, greedy, torch.tensor([7]), 6)
    assert moved.argmax(dim=2).tolist() == [[2, 0, 0, 0, 3, 0, 0]]
    short = move_spikes(taught, greedy, torch.tensor([5]), 6)
    assert torch.equal(short[:, 5:], taught[:, 5:])


def test_who_hedges_is_further_from_the_teacher_than_who_is_right():
    taught = torch.from_numpy(np.exp(spikes([0, 0, 0, 2, 0, 0, 0])[None]))
    frames = torch.tensor([7])
    right = torch.from_numpy(spikes([0, 0, 2, 0, 0, 0, 0])[None])
    hedging = taught.clone()
    hedging[0, 2:5] = torch.tensor([0.02, 0.02, 0.48, 0.48])  # two tokens all around instead of one
    losses = [float(teacher_loss(student, taught, frames, lag=1)[0]) for student in (right, hedging.log())]
    assert losses[0] == pytest.approx(0, abs=1e-3)
    assert losses[1] > 5


def test_a_spike_of_another_token_is_wrong_wherever_it_stands():
    rows = torch.from_numpy(spikes([0, 0, 0, 2, 0, 0, 0])[None])
    taught = torch.from_numpy(np.exp(spikes([0, 0, 0, 3, 0, 0, 0])[None]))
    missing = torch.from_numpy(spikes([0] * 7)[None])
    frames = torch.tensor([7])
    for student in (rows, missing):
        assert teacher_loss(student, taught, frames, lag=1)[0] > 3
    silent = torch.from_numpy(np.exp(spikes([0] * 7)[None]))
    assert teacher_loss(rows, silent, frames, lag=1)[0] > 3


def test_with_a_lag_alone_is_as_in_a_batch():
    torch.manual_seed(0)
    log_probs = F.log_softmax(torch.randn(2, 9, 4), 2)
    taught = F.softmax(torch.randn(2, 9, 4), 2)
    together = teacher_loss(log_probs, taught, torch.tensor([9, 5]), lag=2)
    alone = teacher_loss(log_probs[1:, :5], taught[1:, :5], torch.tensor([5]), lag=2)
    torch.testing.assert_close(together[1:], alone)


def test_the_objective_adds_the_teacher_and_takes_it_alone_without_a_text():
    torch.manual_seed(0)
    config = EncoderConfig(layers=2, size=8, front_end="conv2", channels=2)
    model = CTCModel(ENCODERS[config.kind](config, 10, 1), 4)
    features, lengths = torch.randn(3, 40, 10), torch.tensor([40, 30, 36])
    tokens, counts = torch.tensor([[2, 3], [2, 0], [0, 0]]), torch.tensor([2, 1, 0])
    taught = F.softmax(torch.randn(3, 20, 4), 2)
    plain = Objective(model)(features, lengths, tokens, counts)
    both = Objective(model, teacher_weight=0.5, teacher_lag=1)(features, lengths, tokens, counts, taught)
    distance = teacher_loss(plain.log_probs, taught, plain.frames, 1)
    torch.testing.assert_close(both.losses[:2], plain.losses[:2] + 0.5 * distance[:2])
    torch.testing.assert_close(both.losses[2], 0.5 * distance[2])
    taught[2] = 0  # neither a text nor a teacher: it is silence
    silent = Objective(model, teacher_weight=0.5)(features, lengths, tokens, counts, taught)
    torch.testing.assert_close(silent.losses[2], plain.losses[2])


# --- hidden states --------------------------------------------------------------------------------


def write_states(folder: Path, **states: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "teacher.toml").write_text("frame_seconds = 0.02\n")
    for name, array in states.items():
        np.save(folder / f"{name}.npy", array)
    return folder


@given(
    count=st.integers(1, 40),
    speed=st.sampled_from([0.5, 0.9, 1.0, 1.1, 2.0]),
    shift=st.floats(0, 0.2),
    frames=st.integers(0, 60),
)
def test_a_frame_has_what_lies_at_its_middle_in_time(count, speed, shift, frames):
    seconds = (np.arange(count) + 0.5) * 0.02  # of each state, which is that number twice
    moved = stretch_states(np.stack([seconds, 2 * seconds], 1), 0.02, Heard(frames, speed, shift), 0.04)
    for frame, (one, other) in enumerate(moved.tolist()):
        middle = ((frame + 0.5) * 0.04 - shift) * speed
        if seconds[0] + 1e-9 <= middle <= seconds[-1] - 1e-9:
            assert (one, other) == (pytest.approx(middle, abs=1e-6), pytest.approx(2 * middle, abs=1e-6))
        elif not seconds[0] - 1e-9 <= middle <= seconds[-1] + 1e-9:
            assert (one, other) == (0, 0)


def test_states_are_in_standard_deviations_and_cut_where_they_are_far_off(tmp_path):
    rows = np.array([[1.0, -4.0], [3.0, -4.0], [1.0, 4.0], [3.0, 4.0]])
    folder = write_states(tmp_path / "s", x=rows[:3].astype(np.float32), y=rows[3:].astype(np.float16))
    np.save(folder / "far.npy", np.array([[2.0, 4000.0]], np.float32))
    states = open_states(folder, ["unknown", "x", "y"])
    assert states.size == 2
    np.testing.assert_allclose(states.read("x"), (rows[:3] - [2, 0]) / [1, 4], atol=1e-5)
    np.testing.assert_allclose(states.read("far"), [[0, 5]], atol=1e-5)
    assert states.read("unknown") is None
    batch = place_states(states, ["y", "unknown", "x"], [Heard(1), Heard(2), Heard(2)], 0.02)
    assert batch.shape == (3, 2, 2)
    np.testing.assert_allclose(batch[2], states.read("x")[:2], atol=1e-6)
    assert not batch[1].any()
    assert not batch[0, 1].any()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2)), "type float64"),
        (np.zeros(4, np.float32), r"shape \(4,\)"),
        (np.full((3, 2), np.inf, np.float32), "infinite"),
        (np.full((3, 2), np.nan, np.float32), "NaN"),
    ],
)
def test_what_are_no_states_is_refused_by_name(tmp_path, array, message):
    with pytest.raises(TeacherError, match=rf"x\.npy.*{message}"):
        open_states(write_states(tmp_path / "s", x=array), ["x"])
    sizes = {"x": np.zeros((3, 2), np.float32), "y": np.zeros((3, 3), np.float32)}
    with pytest.raises(TeacherError, match=r"y\.npy.*shape \(3, 3\).*\(frames, 2\)"):
        open_states(write_states(tmp_path / "s", **sizes), ["x", "y"])
    with pytest.raises(TeacherError, match="none of the training utterances"):
        open_states(write_states(tmp_path / "s"), ["z"])


def test_the_error_of_states_is_a_mean_over_numbers_and_a_sum_over_known_frames():
    predicted = torch.zeros(2, 4, 3, requires_grad=True)
    states = torch.ones(2, 4, 3)
    states[0, 1] = 0  # not known
    states[1, 0, 0] = 4
    loss = states_loss(predicted, states, torch.tensor([4, 2]))
    assert loss.tolist() == pytest.approx([3, 1 + (16 + 1 + 1) / 3])
    (gradient,) = torch.autograd.grad(loss.sum(), predicted)
    assert not gradient[0, 1].any()
    assert not gradient[1, 2:].any()
    torch.testing.assert_close(gradient[1, 0], torch.tensor([-8 / 3, -2 / 3, -2 / 3]))


@pytest.mark.parametrize("layer", [0, 1])
def test_the_objective_adds_the_error_of_the_states_that_a_layer_predicts(layer):
    torch.manual_seed(0)
    config = EncoderConfig(layers=2, size=8, front_end="conv2", channels=2)
    model = CTCModel(ENCODERS[config.kind](config, 10, 1), 4)
    features, lengths = torch.randn(3, 40, 10), torch.tensor([40, 30, 36])
    tokens, counts = torch.tensor([[2, 3], [2, 0], [0, 0]]), torch.tensor([2, 1, 0])
    goals = torch.randn(3, 20, 5)
    plain = Objective(model)(features, lengths, tokens, counts)
    seen: list[torch.Tensor] = []
    if layer:
        model.encoder.outputs[0].register_forward_hook(lambda module, given, found: seen.append(found))
    objective = Objective(model, states_size=5, states_layer=layer, states_weight=0.5)
    found = objective(features, lengths, tokens, counts, None, goals)
    inner = seen[0] if layer else model.encode(features, lengths)[0]
    inner = inner[0] if isinstance(inner, tuple) else inner
    error = states_loss(objective.regression(inner), goals, plain.frames)
    torch.testing.assert_close(found.losses[:2], plain.losses[:2] + 0.5 * error[:2])
    torch.testing.assert_close(found.losses[2], 0.5 * error[2])  # no text: the states alone
    torch.testing.assert_close(found.log_probs, plain.log_probs)
    with pytest.raises(ObjectiveError, match=r"training\.states_layer' is 2"):
        Objective(model, states_size=5, states_layer=2)


# --- the folder -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 5), np.float16), r"shape \(3, 5\)"),
        (np.zeros(4, np.float32), r"shape \(4,\)"),
        (np.zeros((3, 4)), "type float64"),
        (np.full((3, 4), 0.5, np.float32), "no log-probs"),
        (np.full((3, 4), np.nan, np.float16), "NaN"),
        (np.array([[{}] * 4]), "no array that NumPy can read"),
    ],
)
def test_what_is_no_array_of_log_probs_is_refused_by_name(tmp_path, array, message):
    teacher = open_teacher(write_folder(tmp_path / "t", x=array), TOKENS)
    with pytest.raises(TeacherError, match=rf"x\.npy.*{message}"):
        teacher.read("x")


def test_other_tokens_and_ids_that_leave_the_folder_are_refused(tmp_path):
    folder = write_folder(tmp_path / "t")
    with pytest.raises(TeacherError, match=r"tokens\.txt"):
        open_teacher(folder, Tokenizer(("<blank>", "<space>", "b", "a")))
    teacher = open_teacher(folder, TOKENS)
    for name in ("../x", "a/../../x", "/x"):
        with pytest.raises(TeacherError, match="cannot have this name"):
            teacher.read(name)
    assert teacher.read("a/b") is None


@pytest.mark.parametrize("key", ["teacher", "states"])
def test_a_teacher_does_not_go_with_forecasting(key):
    with pytest.raises(ConfigError, match=rf"training\.{key}"):
        TrainingConfig(objective="predict", **{key: "folder"})


# --- from one model to another --------------------------------------------------------------------


def learning_experiment(data: Path, **training) -> Experiment:
    return tiny_experiment(data, batch_seconds=8.0, learning_rate=1e-2, warmup_steps=5, **training)


@pytest.fixture(scope="module")
def taught_by_a_run(tones, tmp_path_factory) -> Path:
    """A teacher's folder: what a model that was trained on the tones hears in all of them."""
    folder = tmp_path_factory.mktemp("teacher")
    train(learning_experiment(tones, epochs=30), folder / "run", CPU, lambda line: None)
    arguments = ["teach", str(tones / "train.jsonl"), str(tones / "dev.jsonl")]
    command = [*arguments, "--model", str(folder / "run"), "--out", str(folder / "rows"), "--threads", "1"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert "30 of 30 utterances written" in result.output
    again = CliRunner().invoke(cli, command)
    assert "0 of 30 utterances written" in again.output
    return folder / "rows"


def without_texts(tones: Path, folder: Path) -> Path:
    """The tones in manifests whose training utterances have no text, and a text with every symbol."""
    folder.mkdir()
    lines = [json.loads(line) for line in (tones / "train.jsonl").read_text().splitlines()]
    letters = set("".join(line["text"] for line in lines))
    for line in lines:
        if letters & set(line["text"]):  # the first ones keep theirs, which name the vocabulary
            letters -= set(line["text"])
        else:
            line["text"] = ""
        line["audio_filepath"] = str(tones / line["audio_filepath"])
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    dev = [json.loads(line) for line in (tones / "dev.jsonl").read_text().splitlines()]
    for line in dev:
        line["audio_filepath"] = str(tones / line["audio_filepath"])
    (folder / "dev.jsonl").write_text("".join(json.dumps(line) + "\n" for line in dev))
    return folder


@pytest.mark.slow
def test_a_student_learns_recordings_without_texts_from_a_teacher(tones, taught_by_a_run, tmp_path):
    data = without_texts(tones, tmp_path / "data")
    losses = {}
    for name, teacher in (("alone", ""), ("taught", str(taught_by_a_run))):
        news: list[str] = []
        experiment = learning_experiment(data, epochs=15, teacher=teacher)
        train(experiment, tmp_path / name, CPU, news.append)
        losses[name] = [r["valid_loss"] for r in read_records(tmp_path / name) if "valid_loss" in r][-1]
        assert ("the teacher knows 24 of 24 training utterances" in news) == bool(teacher)
    assert losses["taught"] < 0.7 * losses["alone"]


@pytest.fixture
def states_of_tones(tones, tmp_path, monkeypatch) -> Path:
    """The states of an encoder for all of the tones."""
    encoder = stand_in_for_whisper(tmp_path / "encoder", monkeypatch)
    manifests = [str(tones / name) for name in ("train.jsonl", "dev.jsonl")]
    command = ["teach", *manifests, "--encoder", str(encoder), "--out", str(tmp_path / "states")]
    for written in (30, 0):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
        assert f"{written} of 30 utterances written" in result.output
    return tmp_path / "states"


def test_states_and_log_probs_have_folders_of_their_own(tones, states_of_tones, taught_by_a_run, tmp_path):
    manifest = str(tones / "dev.jsonl")
    command = ["teach", manifest, "--encoder", str(tmp_path / "encoder"), "--out", str(taught_by_a_run)]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 1
    assert "has log-probs" in str(result.exception)
    for options in ([], ["--model", "digits", "--encoder", str(tmp_path / "encoder")]):
        result = CliRunner().invoke(cli, ["teach", manifest, *options, "--out", str(tmp_path / "o")])
        assert result.exit_code == 2
        assert "--model and --encoder" in result.output


def test_a_network_learns_to_predict_states_and_ships_without_what_it_did_that_with(
    tones, states_of_tones, tmp_path
):
    experiment = learning_experiment(tones, epochs=4, states=str(states_of_tones), states_weight=2.0)
    news: list[str] = []
    train(experiment, tmp_path / "run", CPU, news.append)
    assert "there are states of 24 of 24 training utterances" in news
    losses = [r["train_loss"] for r in read_records(tmp_path / "run") if "train_loss" in r]
    assert losses[-1] < losses[0]
    state = load_file(list_checkpoints(tmp_path / "run")[-1] / "state.safetensors")
    assert state["intermediate.states.weight"].shape[0] == SIZE
    shipped = load_file(tmp_path / "run" / "model.safetensors")
    assert not [name for name in shipped if "states" in name or "intermediate" in name]


@pytest.mark.parametrize("kind", ["teacher", "states", "both"])
def test_a_run_with_a_teacher_goes_on_as_if_it_had_not_stopped(
    tones, taught_by_a_run, states_of_tones, tmp_path, kind
):
    augment = {"speeds": (0.9, 1.0, 1.1), "shift_ms": 40.0}
    folders = {"teacher": str(taught_by_a_run), "states": str(states_of_tones)}
    others = {key: folder for key, folder in folders.items() if kind in (key, "both")}
    experiment = tiny_experiment(tones, epochs=3, batch_seconds=8.0, augment=augment, **others)
    train(experiment, tmp_path / "whole", CPU, lambda line: None)
    train(experiment, tmp_path / "parts", CPU, lambda line: None)
    whole = list_checkpoints(tmp_path / "whole")
    for checkpoint in list_checkpoints(tmp_path / "parts")[1:]:
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    train(experiment, tmp_path / "parts", CPU, lambda line: None)
    ends = [list_checkpoints(tmp_path / name)[-1] / "state.safetensors" for name in ("whole", "parts")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    untaught = replace(experiment, training=replace(experiment.training, teacher="", states=""))
    train(untaught, tmp_path / "untaught", CPU, lambda line: None)
    other = list_checkpoints(tmp_path / "untaught")[-1] / "state.safetensors"
    assert other.read_bytes() != ends[0].read_bytes()
    assert len(whole) >= 1
