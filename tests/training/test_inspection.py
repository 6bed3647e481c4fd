"""What is drawn is what the model does; memory is where the pictures say it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from click.testing import CliRunner
from matplotlib.figure import Figure
from torch import nn

import asr
from asr.cli import cli
from asr.errors import UserError
from asr.model.acoustic import ModelConfig, new_acoustic_model
from asr.model.cells import CELLS, new_fused
from asr.model.encoders import EncoderConfig
from asr.model.engine import unwrap_model, wrap_model
from asr.model.features import FeatureConfig
from asr.recognition.recognizer import Recognizer, open_recognizer
from asr.text.tokenizer import BLANK
from asr.training.inspection import (
    choose_units,
    draw_figure,
    draw_inspection,
    draw_posteriors,
    find_peaks,
    inspect_model,
)
from asr.training.pictures import draw_features, find_mel_edges
from tools.gradients import measure_gradients

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "digits-lucas.flac"


@pytest.fixture(scope="module")
def digits() -> Recognizer:
    """The shipped model with its tensors."""
    return open_recognizer("digits", "cpu", engine="torch")


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("layer", [1, 2])
def test_the_hidden_states_are_those_that_the_model_computes(digits, layer, backward):
    inside = inspect_model(digits, SAMPLE, layer, backward)
    outputs = []
    encoder = unwrap_model(digits).ctc.encoder
    hook = encoder.layers[layer - 1].register_forward_hook(lambda m, i, o: outputs.append(o))
    inspect_model(digits, SAMPLE)
    hook.remove()
    half = outputs[0][0, :, 128:] if backward else outputs[0][0, :, :128]
    np.testing.assert_allclose(inside.activations["hidden"], half.numpy(), atol=1e-5)
    assert list(inside.activations) == ["input", "forget", "output", "cell", "hidden"]
    assert [word.text for word in inside.words] == ["one", "eight", "seven", "two"]


SHOWN = {  # gates first, hidden state last
    "rnn": ["hidden"],
    "rnn-relu": ["hidden"],
    "gru": ["reset", "update", "hidden"],
    "lstm": ["input", "forget", "output", "cell", "hidden"],
    "peephole": ["input", "forget", "output", "cell", "hidden"],
    "lnlstm": ["input", "forget", "output", "cell", "hidden"],
    "cifg": ["input", "forget", "output", "cell", "hidden"],
    "ligru": ["update", "hidden"],
    "convlstm": ["input", "forget", "output", "cell", "hidden"],
}


def with_options(config: ModelConfig, recognizer: Recognizer) -> Recognizer:
    """Fresh weights of another shape behind the same tokens."""
    return wrap_model(new_acoustic_model(config, len(recognizer.tokenizer)), recognizer.tokenizer)


@pytest.mark.parametrize("cell", CELLS)
def test_the_gates_of_every_cell_are_shown(digits, tmp_path, cell):
    config = ModelConfig(
        features=FeatureConfig(sample_rate=8000, n_mels=40),
        encoder=EncoderConfig(cell=cell, layers=1, size=20, front_end="conv4", channels=4),
    )
    inside = inspect_model(with_options(config, digits), SAMPLE, backward=True)
    assert list(inside.activations) == SHOWN[cell]
    for name in SHOWN[cell][:-1]:
        if name != "cell":
            assert 0 < inside.activations[name].min() < inside.activations[name].max() < 1
    draw_inspection(inside, [0, 19], tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_a_model_without_gates_shows_its_outputs(digits):
    config = ModelConfig(
        features=FeatureConfig(sample_rate=8000, n_mels=40), encoder=EncoderConfig(kind="tdnn", size=8)
    )
    inside = inspect_model(with_options(config, digits), SAMPLE)
    assert {name: values.shape[1] for name, values in inside.activations.items()} == {"hidden": 8}


def test_the_liveliest_units_move_most(digits):
    inside = inspect_model(digits, SAMPLE)
    chosen = choose_units(inside, 5)
    movement = inside.activations["hidden"].std(0)
    assert len(chosen) == 5
    assert chosen == sorted(chosen)
    assert movement[chosen].min() >= np.delete(movement, chosen).max()


def test_words_come_from_the_models_own_search_and_posteriors_are_of_phones():
    recognizer = asr.load("english", "cpu", engine="torch")
    inside = inspect_model(recognizer, ROOT / "samples" / "english-1272.flac")
    assert inside.unit == "words"
    assert (
        " ".join(word.text for word in inside.words)
        == recognizer.transcribe(ROOT / "samples" / "english-1272.flac").text
    )
    assert inside.tokens[0] == BLANK
    assert "AH" in inside.tokens
    assert len(inside.tokens) == inside.log_probs.shape[1]
    assert (
        inspect_model(open_recognizer("english", "cpu", lm="none", beam_size=1, engine="torch"), SAMPLE).unit
        == "phones"
    )


@pytest.fixture
def axes():
    return Figure().subplots()


def test_symbols_stand_at_the_peaks_and_words_above_them(digits, axes):
    inside = inspect_model(digits, SAMPLE)
    draw_posteriors(axes, inside)
    written = {text.get_text(): text.get_position()[1] for text in axes.texts}
    for word in ("one", "eight", "seven", "two"):
        assert written[word] > written[f"▁{word}"] > 1


def test_an_outlier_leaves_the_others_their_colours(digits):
    inside = inspect_model(digits, SAMPLE)
    inside.features[0, 0] = 1e6
    (image,) = draw_figure(inside, [0]).axes[0].collections
    assert image.norm.vmax < 10


def test_a_unit_is_drawn_once_and_all_of_them_fit_a_page(digits):
    inside = inspect_model(digits, SAMPLE)
    for units, rows in (([3, 3, 3], 1), (range(1, inside.size), inside.size - 1)):
        figure = draw_figure(inside, units)
        for row, label in zip(figure.axes[1].get_yticks(), figure.axes[1].get_yticklabels(), strict=True):
            assert label.get_text() == str(list(dict.fromkeys(units))[int(row)])
        assert figure.axes[1].collections[0].get_array().shape[0] == rows
        assert figure.get_figheight() < 50


def test_a_token_is_a_row_of_attention_over_the_seconds(digits):
    weights = np.eye(3, 5)  # the first token looks at the first of five frames
    inside = replace(inspect_model(digits, SAMPLE), spelled=("a", "b", "end"), attention=weights)
    (axes,) = (axes for axes in draw_figure(inside, [0]).axes if axes.get_ylabel() == "attention")
    (picture,) = axes.collections
    np.testing.assert_array_equal(picture.get_array(), weights)
    seconds = picture.get_coordinates()[0, :, 0]
    np.testing.assert_allclose(seconds, np.linspace(0, inside.duration, 6), atol=1e-9)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "end"]


def test_one_frame_is_seen(digits, axes):
    inside = inspect_model(digits, SAMPLE)
    single = replace(inside, log_probs=inside.log_probs[:1], words=())
    draw_posteriors(axes, single)
    assert {line.get_marker() for line in axes.lines} == {"o"}


def test_a_peak_is_the_highest_frame_of_a_stretch():
    assert find_peaks(np.array([0.2, 0.9, 0.3, 0.0, 0.05, 0.5])) == [1, 5]
    assert find_peaks(np.zeros(3)) == []


@pytest.mark.parametrize(("options", "named"), [({"layer": 3}, "--layer"), ({"layer": -1}, "--layer")])
def test_a_layer_that_is_not_there_is_named(digits, options, named):
    with pytest.raises(UserError, match=named):
        inspect_model(digits, SAMPLE, **options)


def test_a_unit_that_is_not_there_is_named(digits, tmp_path):
    with pytest.raises(UserError, match="--units 128"):
        draw_inspection(inspect_model(digits, SAMPLE), [0, 128], tmp_path / "x.png")


@pytest.mark.parametrize(
    "command", [["inspect", "nothing.wav", "-o", "x.doc"], ["features", "nothing.wav", "--plot", "x"]]
)
def test_how_to_draw_is_asked_before_anything_is_done(command):
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 2
    assert "does not end in .png or .svg or .pdf" in done.stderr


def test_no_direction_from_the_end_where_there_is_none(digits):
    config = ModelConfig(encoder=EncoderConfig(layers=1, size=4, bidirectional=False))
    with pytest.raises(UserError, match="--backward"):
        inspect_model(with_options(config, digits), SAMPLE, backward=True)


# --- gradients over distance ----------------------------------------------------------------------


def test_gradient_norms_are_those_of_back_propagation():
    torch.manual_seed(0)
    cell = CELLS["lstm"](3, 5).double()
    inputs = torch.randn(1, 6, 3, dtype=torch.float64)
    torch.manual_seed(1)
    norms = measure_gradients(cell, inputs)
    torch.manual_seed(1)
    pull = nn.functional.normalize(torch.randn(1, 5, dtype=torch.float64), dim=1)
    state = cell.initial_state(inputs)
    nudges = []  # zeros added to each state as the next frame sees it
    for frame in cell.project(inputs, torch.tensor([6])).unbind(1):
        state = cell.step(frame, state)
        nudges.append(torch.zeros(2, 1, 5, dtype=torch.float64, requires_grad=True))
        state = {"hidden": state["hidden"] + nudges[-1][0], "cell": state["cell"] + nudges[-1][1]}
    gradients = torch.autograd.grad((state["hidden"] * pull).sum(), nudges)
    for distance in range(6):
        assert float(norms[distance]) == pytest.approx(float(gradients[5 - distance].norm()), abs=1e-12)


def test_clipped_gradients_are_no_longer_than_that():
    torch.manual_seed(0)
    cell = CELLS["rnn"](3, 20)
    with torch.no_grad():
        cell.weight_hh.mul_(6.0)
    inputs = torch.randn(4, 40, 3)
    assert measure_gradients(cell, inputs).max() > 100
    assert measure_gradients(cell, inputs, clip=1.0).max() <= 1 + 1e-5


# --- the adding problem ---------------------------------------------------------------------------


def adding_problem(count: int, frames: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random numbers, two of them marked, and the sum of these (Hochreiter & Schmidhuber 1997, task 4)."""
    numbers = torch.rand(count, frames, generator=generator)
    marks = torch.zeros(count, frames)
    rows = torch.arange(count)
    marks[rows, torch.randint(0, frames // 2, (count,), generator=generator)] = 1
    marks[rows, torch.randint(frames // 2, frames, (count,), generator=generator)] = 1
    return torch.stack([numbers, marks], 2), (numbers * marks).sum(1)


@pytest.mark.parametrize(
    ("cell", "steps", "low", "high"),
    # Always to say 1, the mean, has an error of 1/6.
    [("rnn", 900, 0.12, 0.22), ("lstm", 900, 0.0, 0.02), ("gru", 450, 0.0, 0.02)],
)
def test_over_forty_frames_gates_learn_to_add_and_the_simple_network_does_not(cell, steps, low, high):
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    network, out = new_fused(cell, 2, 32), nn.Linear(32, 1)
    parameters = [*network.parameters(), *out.parameters()]
    optimizer = torch.optim.Adam(parameters)
    errors = []
    for step in range(steps):
        inputs, sums = adding_problem(32, 40, generator)
        error = (out(network(inputs)[0][:, -1])[:, 0] - sums).square().mean()
        optimizer.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        optimizer.step()
        errors.append(error.item())
    assert low <= np.mean(errors[-50:]) < high


def test_seconds_stand_below_the_lowest_picture_alone(digits):
    figure = draw_figure(inspect_model(digits, SAMPLE), [0])
    panels = [axes for axes in figure.axes if axes.get_xlabel() or axes.get_ylabel()]
    assert [axes.get_xlabel() for axes in panels if axes.get_xlabel()] == ["seconds"]
    assert len(panels[-1].get_xticks())


def test_log_mel_energies_stand_at_their_frequencies():
    config = FeatureConfig(n_mels=4, low_hz=0.0, high_hz=4000.0)
    edges = find_mel_edges(config, 4)
    filters = torchaudio.functional.melscale_fbanks(4001, 0.0, 4000.0, 4, 8000)  # a line for each hertz
    for number, peak in enumerate(filters.argmax(dim=0).tolist()):
        assert edges[number] < peak < edges[number + 1]
    middle = edges[2]  # where the second filter and the third meet
    assert filters[round(middle), 1].item() == pytest.approx(filters[round(middle), 2].item(), abs=0.1)
    assert find_mel_edges(config, 8) is None  # with deltas
    assert find_mel_edges(replace(config, kind="mfcc", n_mfcc=4), 4) is None


def test_a_picture_of_features_is_written(tmp_path):
    frames = np.random.default_rng(0).normal(size=(30, 80))
    draw_features(frames, FeatureConfig(), "noise", tmp_path / "x.png")
    draw_features(frames[:1], FeatureConfig(kind="mfcc"), "one frame", tmp_path / "y.svg")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "y.svg").read_bytes()
