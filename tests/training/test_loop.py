"""Training: identical runs, resuming, signals, selection, what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from asr.core.config import ConfigError, to_toml
from asr.errors import UserError
from asr.model.encoders import EncoderConfig
from asr.model.folder import load_acoustic_model
from asr.recognition.recognizer import open_recognizer
from asr.training.augment import AugmentConfig
from asr.training.batching import plan_epoch
from asr.training.checkpoints import list_checkpoints
from asr.training.evaluation import evaluate
from asr.training.experiment import Experiment
from asr.training.folder import LOCK_FILE
from asr.training.loop import TrainingStopped, train
from asr.training.optimisation import average_weights
from asr.training.run import Run, TrainingError, epoch_updates, prepare_run
from asr.training.selection import rank_metrics
from asr.training.steps import accumulate_gradient, load_own_batches, mask_view, take_step
from tests.tiny import tiny_experiment

CPU = torch.device("cpu")


def experiment(data: Path, **training) -> Experiment:
    augment = {"speeds": (0.95, 1.0, 1.05), "noise_share": 0.5, "time_masks": 1, "time_width_ms": 50.0}
    options = {"batch_seconds": 8.0, "warmup_steps": 5} | training
    return tiny_experiment(data, encoder={"dropout": 0.1}, augment=augment, **options)


def quiet(line: str) -> None:
    pass


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(list_checkpoints(folder)[-1] / "state.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def first_step(run: Run, scale: float = 1.0) -> dict:
    """Take the first step of the epoch, its samples multiplied by ``scale``."""
    update = epoch_updates(run)[0]
    batch = next(load_own_batches(run, [update]))
    return take_step(run, update, [replace(batch, samples=batch.samples * scale)])[0]


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_runs_with_one_seed_are_identical(tones, tmp_path):
    for name in ("a", "b"):
        train(experiment(tones), tmp_path / name, CPU, quiet)
    train(experiment(tones, seed=2), tmp_path / "c", CPU, quiet)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))
    losses = [[r["loss"] for r in records(tmp_path / name) if "loss" in r] for name in ("a", "b")]
    assert losses[0] == losses[1]


def test_the_number_of_workers_changes_nothing(tones, tmp_path):
    for workers in (1, 3):
        train(experiment(tones, workers=workers, epochs=1), tmp_path / str(workers), CPU, quiet)
    assert same(weights(tmp_path / "1"), weights(tmp_path / "3"))


@pytest.fixture(scope="module")
def command(tones, tmp_path_factory) -> list[str]:
    """A run of some forty steps, as one types it, without ``--out``."""
    recipe = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    recipe.write_text(to_toml(experiment(tones, epochs=12)))
    return [sys.executable, "-m", "asr", "train", str(recipe), "--device", "cpu", "--threads", "1", "--out"]


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run([*command, str(folder)], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_it_never_stopped(command, undisturbed, tmp_path, signal_number):
    stopped = tmp_path / "stopped"
    first = subprocess.Popen([*command, str(stopped)], stderr=subprocess.PIPE, text=True)
    wait_for_steps(stopped, 7)
    first.send_signal(signal_number)
    time.sleep(0.02)
    first.send_signal(signal_number)  # as when both a terminal and a wrapper pass it on
    _, news = first.communicate(timeout=60)
    assert first.returncode == 128 + signal_number, news
    at = int(list_checkpoints(stopped)[-1].name.removeprefix("step-"))
    assert f"stopped at step {at}" in news
    assert "Traceback" not in news
    subprocess.run([*command, str(stopped)], check=True, capture_output=True)
    assert any(record.get("event") == "resumed" and record["step"] == at for record in records(stopped))
    assert same(weights(stopped), weights(undisturbed))
    assert (stopped / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


def wait_for_steps(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.01)
    raise AssertionError("the run never got going")


def rank(record: dict[str, float]) -> tuple[float, ...]:
    """What decides which epoch's weights are kept, the best first."""
    if record["valid_wer"] >= 1:
        return 1, 1, record["valid_loss"]
    return record["valid_wer"], record["valid_cer"], record["valid_loss"]


def test_a_ctc_crf_run_that_stopped_goes_on_as_if_it_never_had(tones, tmp_path, monkeypatch):
    asked = experiment(tones, criterion="ctc-crf", crf_order=2, consistency_weight=0.2)
    news: list[str] = []
    train(asked, tmp_path / "whole", CPU, news.append)
    assert any(re.fullmatch(r"denominator graph: \d+ states, \d+ arcs", line) for line in news)
    assert all(r["criterion"] < r["loss"] for r in records(tmp_path / "whole") if "criterion" in r)
    with monkeypatch.context() as patch:
        flag = SimpleNamespace(signal_number=0)
        patch.setattr("asr.training.loop.catch_stop_signals", lambda: nullcontext(flag))
        patch.setattr(
            "asr.training.loop.advance_bar", lambda *_: setattr(flag, "signal_number", signal.SIGTERM)
        )
        with pytest.raises(TrainingStopped):
            train(asked, tmp_path / "stopped", CPU, quiet)
    with monkeypatch.context() as patch:
        patch.setattr("asr.training.denominator.build_graph", None)  # the graph is that of the checkpoint
        train(asked, tmp_path / "stopped", CPU, quiet)
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    assert "denominator.weights" in weights(tmp_path / "whole")
    epochs = [r for r in records(tmp_path / "whole") if "valid_criterion" in r]
    assert len(epochs) == 2
    best = min(epochs, key=lambda record: record["valid_criterion"])
    run = prepare_run(asked, tmp_path / "whole", CPU)
    found = evaluate(
        open_recognizer(tmp_path / "whole", "cpu", engine="torch"),
        run.data.valid,
        run.data.read,
        denominator=run.objective.denominator,
    )
    assert found.criterion == pytest.approx(best["valid_criterion"], rel=1e-5)
    assert found.loss == pytest.approx(best["valid_loss"], rel=1e-5)


def test_where_no_word_is_right_the_loss_decides():
    def key(wer: float | None, cer: float | None, loss: float | None) -> list[float]:
        return rank_metrics({"valid_wer": wer, "valid_cer": cer, "valid_loss": loss})[0]

    assert key(1.0, 1.4, 129.0) < key(1.0, 0.99, 519.0) == key(1.7, 0.8, 519.0)
    assert key(0.99, 0.9, 600.0) < key(1.0, 0.2, 1.0)
    assert key(0.5, 0.2, 9.0) < key(0.5, 0.3, 1.0)
    by_criterion = rank_metrics({"valid_criterion": 3.0, "valid_wer": 1.2, "valid_loss": 7.0})
    assert by_criterion == ([3.0, 1.0, 1.0, 7.0], True)
    assert rank_metrics({}) == ([math.inf] * 3, False)
    unspaced = {"valid_wer": 1.0, "valid_cer": 0.2, "valid_loss": 7.0}  # every sentence has an error
    assert rank_metrics(unspaced, "cer") == ([math.inf, 0.2, 7.0], True)


def test_a_warm_up_without_an_end_is_told(tones, tmp_path):
    lines: list[str] = []
    for name, warmup_steps in (("short", 1), ("long", 100)):
        train(experiment(tones, epochs=1, warmup_steps=warmup_steps), tmp_path / name, CPU, lines.append)
    (told,) = [line for line in lines if "training.warmup_steps" in line]
    assert "(100) and will not reach" in told


def test_the_run_folder_is_a_model_folder_with_the_best_weights(tones, tmp_path):
    train(experiment(tones, epochs=3, learning_rate=5e-3), tmp_path / "run", CPU, quiet)
    epochs = [record for record in records(tmp_path / "run") if "valid_wer" in record]
    best = min(epochs, key=rank)
    recognizer = open_recognizer(tmp_path / "run", "cpu", engine="torch")
    run = prepare_run(experiment(tones), tmp_path / "other", CPU)
    evaluation = evaluate(recognizer, run.data.valid, run.data.read)
    assert evaluation.loss == pytest.approx(best["valid_loss"], rel=1e-5)
    assert evaluation.metrics["valid_wer"] == best["valid_wer"]


def test_tensorboard_has_scalars_texts_and_pictures(tones, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(experiment(tones, epochs=2), tmp_path / "run", CPU, quiet)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = [r["loss"] for r in records(tmp_path / "run") if "loss" in r]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)
    assert {
        *("loss", "train_loss", "valid_loss", "learning_rate", "gradient_norm", "blank_rate", "padding"),
        *("data_wait", "speed", "valid_wer", "valid_cer"),
        *("gradient_norms/model.encoder.layers.0", "gradient_norms/model.projection"),
    } <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Images("utterance/posteriors")] == [
        event.step for event in events.Scalars("valid_wer")
    ]
    picture = events.Images("utterance/features")[0]
    assert picture.height == 4 * 20  # mel bands
    (text,) = events.Tensors("validation/text_summary")[0].tensor_proto.string_val
    first = json.loads((tones / "dev.jsonl").read_text().splitlines()[0])
    assert f"| {first['id']} | {first['text']} |" in text.decode()


def test_the_share_of_blanks_padding_and_waiting_is_logged(tones, tmp_path):
    train(experiment(tones, epochs=1), tmp_path / "run", CPU, quiet)
    steps = [record for record in records(tmp_path / "run") if "loss" in record]
    for name in ("blank_rate", "padding", "data_wait"):
        assert all(0 <= record[name] <= 1 for record in steps)


@pytest.mark.parametrize(("bias", "expected"), [(9.0, 1.0), (-9.0, 0.0)])
def test_the_blank_rate_is_that_of_the_best_tokens(tones, tmp_path, bias, expected):
    run = prepare_run(experiment(tones), tmp_path, CPU)
    projection = run.model.ctc.projection
    projection.weight.data.zero_()
    projection.bias.data.zero_()[0] = bias
    assert first_step(run)["blank_rate"] == expected


def test_gradient_norms_of_layers_make_up_the_whole(tones, tmp_path):
    first = first_step(prepare_run(experiment(tones), tmp_path, CPU))
    whole = sum(norm**2 for norm in first["gradient_norms"].values()) ** 0.5
    assert whole == pytest.approx(first["gradient_norm"], rel=1e-4)


def test_another_config_is_refused_and_named(tones, tmp_path):
    train(experiment(tones, epochs=1), tmp_path / "run", CPU, quiet)
    with pytest.raises(TrainingError, match=r"training\.learning_rate"):
        train(experiment(tones, epochs=1, learning_rate=0.5), tmp_path / "run", CPU, quiet)


@pytest.mark.parametrize("change", ["text", "order", "fewer"])
def test_a_run_does_not_go_on_with_other_data(tones, tmp_path, change):
    shutil.copytree(tones, tmp_path / "data")
    config = experiment(tmp_path / "data", epochs=1)
    train(config, tmp_path / "run", CPU, quiet)
    assert train(config, tmp_path / "run", CPU, quiet).epoch == 1
    manifest = tmp_path / "data" / "train.jsonl"
    first, second, *rest = manifest.read_text().splitlines()
    changed = {
        "text": [re.sub('"text": "(.)', '"text": "\\1\\1', first), second],
        "order": [second, first],
        "fewer": [second],
    }
    manifest.write_text("\n".join([*changed[change], *rest]) + "\n")
    with pytest.raises(TrainingError, match=r"step-\d+: is of a run on other data"):
        train(config, tmp_path / "run", CPU, quiet)


def test_a_start_that_failed_over_its_data_does_not_hold_the_folder(tones, tmp_path):
    shutil.copytree(tones, tmp_path / "data")
    (tmp_path / "data" / "train.jsonl").rename(tmp_path / "data" / "later.jsonl")
    with pytest.raises(UserError, match=r"train\.jsonl"):
        train(experiment(tmp_path / "data", epochs=1), tmp_path / "run", CPU, quiet)
    assert {path.name for path in (tmp_path / "run").iterdir()} - {LOCK_FILE} == {"config.toml"}
    train(experiment(tones, epochs=1), tmp_path / "run", CPU, quiet)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_one_folder_is_trained_in_by_one_process(tones, tmp_path):
    """The lock is of the process: what a killed one leaves of it holds nobody up."""
    folder = tmp_path / "run"
    holder = (
        "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire();"
        "print('held', flush=True); time.sleep(60)"
    )
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(folder / LOCK_FILE)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another process is training there"):
            train(experiment(tones, epochs=1), folder, CPU, quiet)
        assert not (folder / "config.toml").exists()
        other.kill()
    assert (folder / LOCK_FILE).exists()
    assert train(experiment(tones, epochs=1), folder, CPU, quiet).epoch == 1
    assert train(experiment(tones, epochs=1), folder, CPU, quiet).epoch == 1


def test_training_strikes_a_band_out_of_its_deltas_too(tones, tmp_path):
    config = experiment(tones)
    config = replace(
        config,
        features=replace(config.features, deltas=1),
        augment=AugmentConfig(frequency_masks=1, frequency_width=10),
    )
    run = prepare_run(config, tmp_path, CPU)
    features, lengths = torch.ones(1, 5, 40), torch.tensor([5])
    for name in "abcdefgh":
        struck = mask_view(run, SimpleNamespace(ids=(name,)), features, lengths, 0)[0, 0] == 0
        assert struck[:20].tolist() == struck[20:].tolist()
        assert struck[:20].sum() <= 10


def test_a_recipe_that_somebody_wrote_is_not_replaced(tones, tmp_path):
    recipe = tmp_path / "config.toml"
    recipe.write_text("[training]\nepochs = 3 # mine\n")
    with pytest.raises(TrainingError, match="another config"):
        train(experiment(tones, epochs=1), tmp_path, CPU, quiet)
    assert recipe.read_text() == "[training]\nepochs = 3 # mine\n"


def test_a_folder_with_other_things_in_it_is_left_alone(tones, tmp_path):
    (tmp_path / "thesis.tex").write_text("all my work")
    with pytest.raises(TrainingError, match="choose another"):
        train(experiment(tones), tmp_path, CPU, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_half_written_line_does_not_spoil_the_next(tones, tmp_path):
    train(experiment(tones, epochs=1), tmp_path / "run", CPU, quiet)
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 3, "lo')
    train(experiment(tones, epochs=1), tmp_path / "run", CPU, quiet)
    broken = [line for line in path.read_text().splitlines() if not line.endswith("}")]
    assert broken == ['{"step": 3, "lo']


def test_utterances_without_enough_frames_are_listed_and_left_out(tones, tmp_path):
    lines = (tones / "train.jsonl").read_text().splitlines()
    crowded = {**json.loads(lines[0]), "id": "crowded", "text": "abcdefgh " * 40}
    crowded["audio_filepath"] = str(tones / crowded["audio_filepath"])
    (tmp_path / "train.jsonl").write_text(
        "\n".join([*lines, json.dumps(crowded)]).replace('"train/', f'"{tones}/train/')
    )
    (tmp_path / "dev.jsonl").write_text((tones / "dev.jsonl").read_text().replace('"dev/', f'"{tones}/dev/'))
    said: list[str] = []
    train(experiment(tmp_path, epochs=1), tmp_path / "run", CPU, said.append)
    assert any("1 utterances" in line and "crowded" in line for line in said)


def test_gradients_that_are_not_finite_are_skipped_and_counted(tones, tmp_path):
    run = prepare_run(experiment(tones), tmp_path, CPU)
    first_step(run, scale=math.nan)
    assert run.progress.skipped_steps == 1
    assert all(torch.isfinite(p).all() for p in run.model.ctc.parameters())
    first_step(run)
    assert run.progress.skipped_steps == 1
    assert run.progress.step == 2


def test_clipping_bounds_the_gradient(tones, tmp_path):
    run = prepare_run(experiment(tones, clip_norm=0.01), tmp_path, CPU)
    assert first_step(run)["gradient_norm"] > 0.01
    gradients = [p.grad for p in run.model.ctc.parameters() if p.grad is not None]
    assert float(torch.cat([g.flatten() for g in gradients]).norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("normalisation", ["speaker", "global"])
def test_normalisation_over_more_than_an_utterance_trains_and_reloads(tones, tmp_path, normalisation):
    config = experiment(tones, epochs=1)
    config = replace(config, features=replace(config.features, normalisation=normalisation))
    train(config, tmp_path / "run", CPU, quiet)
    run = prepare_run(config, tmp_path / "other", CPU)
    evaluation = evaluate(
        open_recognizer(tmp_path / "run", "cpu", engine="torch"), run.data.valid, run.data.read
    )
    (last,) = [record for record in records(tmp_path / "run") if "valid_loss" in record]
    assert evaluation.loss == pytest.approx(last["valid_loss"], rel=1e-5)


def test_bfloat16_trains(tones, tmp_path):
    train(experiment(tones, epochs=1, precision="bfloat16"), tmp_path / "run", CPU, quiet)
    assert all(math.isfinite(r["loss"]) for r in records(tmp_path / "run") if "loss" in r)


def test_a_missing_manifest_is_a_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"train\.jsonl"):
        train(experiment(tmp_path), tmp_path / "run", CPU, quiet)


def test_a_run_from_cached_samples_is_the_same_run(tones, tmp_path):
    train(experiment(tones, epochs=1), tmp_path / "decoded", CPU, quiet)
    train(experiment(tones, epochs=1, cache=str(tmp_path / "cache")), tmp_path / "cached", CPU, quiet)
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "cache").iterdir())
    assert names == ["dev", "train"]
    assert same(weights(tmp_path / "decoded"), weights(tmp_path / "cached"))  # the tones have 16 bits


# --- what a recipe can choose, seen in a run ------------------------------------------------------


def epochs_of(folder: Path) -> list[dict]:
    return [record for record in records(folder) if "train_loss" in record]


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_model_is_the_average_of_the_weights_where_one_is_asked_for(tones, tmp_path):
    train(experiment(tones, epochs=1, average_decay=0.9), tmp_path / "run", CPU, quiet)
    state, model = weights(tmp_path / "run"), model_of(tmp_path / "run")
    assert same(model, {name: state.get(f"average.{name}", state[name]) for name in model})
    assert not torch.equal(model["model.projection.weight"], state["model.projection.weight"])
    (epoch,) = epochs_of(tmp_path / "run")
    run = prepare_run(experiment(tones), tmp_path / "other", CPU)
    evaluation = evaluate(
        open_recognizer(tmp_path / "run", "cpu", engine="torch"), run.data.valid, run.data.read
    )
    assert evaluation.loss == pytest.approx(epoch["valid_loss"], rel=1e-5)


def test_the_best_few_are_averaged_in_the_end(tones, tmp_path):
    said: list[str] = []
    config = experiment(tones, epochs=4, average_best=2, learning_rate=5e-3)
    train(config, tmp_path / "run", CPU, said.append)
    by_rank = sorted(epochs_of(tmp_path / "run"), key=rank)
    best = [tmp_path / "run" / "best" / f"step-{record['step']:08d}.safetensors" for record in by_rank[:2]]
    assert sorted((tmp_path / "run" / "best").glob("*.safetensors")) == sorted(best)
    mean = average_weights([load_file(path) for path in best])
    run = prepare_run(config, tmp_path / "other", CPU)
    run.model.modules.load_state_dict(mean)
    evaluation = evaluate(run.recognizer, run.data.valid, run.data.read)
    (last,) = [record for record in records(tmp_path / "run") if "averaged" in record]
    assert evaluation.loss == pytest.approx(last["valid_loss"], rel=1e-5)
    kept = any("average of the best 2" in line and "(kept)" in line for line in said)
    assert same(model_of(tmp_path / "run"), mean if kept else load_file(best[0]))


def test_a_run_that_does_not_improve_stops_early(tones, tmp_path):
    said: list[str] = []
    stuck = experiment(tones, epochs=9, patience=2, learning_rate=1e-30)
    train(stuck, tmp_path / "run", CPU, said.append)
    assert len(epochs_of(tmp_path / "run")) == 3  # the first is the best, two are not better
    assert any("no improvement in 2 epochs" in line for line in said)
    train(stuck, tmp_path / "run", CPU, quiet)  # and stays stopped
    assert len(epochs_of(tmp_path / "run")) == 3


@pytest.mark.parametrize("key", [{"patience": 3}, {"average_best": 2}])
def test_what_goes_by_validation_needs_some(tones, tmp_path, key):
    config = experiment(tones, **key)
    config = replace(config, data=replace(config.data, valid=()))
    with pytest.raises(TrainingError, match=r"training\.\w+' = .* needs validation"):
        train(config, tmp_path / "run", CPU, quiet)


def test_the_first_epoch_can_go_from_short_to_long(tones, tmp_path):
    run = prepare_run(experiment(tones, sorted_first_epoch=True, batch_seconds=3.0), tmp_path, CPU)

    def lengths() -> list[float]:
        batches = [batch for update in epoch_updates(run) for batch in update]
        return [max(run.data.durations[i] for i in batch) for batch in batches]

    assert all(left < 1.1 * right for left, right in pairwise(lengths()))
    run.progress.epoch = 1
    assert not all(left < 1.1 * right for left, right in pairwise(lengths()))


def test_accumulated_batches_are_one_large_batch(tones, tmp_path):
    plain = replace(experiment(tones), augment=AugmentConfig(), encoder=EncoderConfig(layers=1, size=16))
    gradients = []
    for accumulate in (1, 3):
        config = replace(plain, training=replace(plain.training, accumulate=accumulate, batch_seconds=3.0))
        run = prepare_run(config, tmp_path / str(accumulate), CPU)
        parts = plan_epoch(run.data.durations, 3.0, 1, 0)[:3]
        update = parts if accumulate == 3 else [tuple(i for part in parts for i in part)]
        accumulate_gradient(run, update, list(load_own_batches(run, [update])))
        gradients.append(torch.cat([p.grad.flatten() for p in run.objective.parameters()]))
    assert float((gradients[0] - gradients[1]).norm()) < 1e-5 * float(gradients[0].norm())


@pytest.mark.parametrize(
    "keys",
    [
        {"optimiser": "sgd", "learning_rate": 0.01, "schedule": "onecycle"},
        {"optimiser": "rmsprop", "schedule": "constant", "accumulate": 2},
        {"optimiser": "adam", "truncate_seconds": 0.3},
        {"consistency_weight": 0.2},
    ],
)
def test_choices_train(tones, tmp_path, keys):
    run = prepare_run(experiment(tones, **{"learning_rate": 3e-3} | keys), tmp_path / "run", CPU)
    losses = []
    for _ in range(12):
        update = epoch_updates(run)[0]
        batches = list(load_own_batches(run, [update]))
        losses.append(take_step(run, update, batches)[0]["loss"])
    assert losses[-1] < 0.75 * losses[0]


def test_the_two_views_of_an_utterance_differ_in_their_masks_alone(tones, tmp_path):
    run = prepare_run(experiment(tones, consistency_weight=0.2), tmp_path / "run", CPU)
    seen = []
    run.objective.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    first_step(run)
    features, lengths, tokens, _, taught, learned = seen[0]
    assert taught is None and learned is None
    assert len(features) == len(lengths) == 2 * len(tokens)
    one, other = features.chunk(2)
    heard = (one != 0) & (other != 0)
    assert torch.equal(one[heard], other[heard])
    differing = (one != other).flatten(1).any(dim=1)
    assert differing.float().mean() > 0.5


def test_the_second_view_can_begin_later(tones, tmp_path):
    asked = experiment(tones, consistency_weight=0.2, consistency_shift_ms=30.0)
    asked = replace(asked, augment=replace(asked.augment, time_masks=0, frequency_masks=0))
    run = prepare_run(asked, tmp_path / "run", CPU)
    seen = []
    run.objective.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    first_step(run)
    one, other = seen[0][0].chunk(2)
    shifts = []
    for first, second in zip(one, other, strict=True):
        length = len(first)
        fitting = [k for k in range(4) if torch.equal(first[k:], second[: length - k])]
        assert fitting, "the second view is the first one, begun up to three feature frames later"
        assert torch.equal(second[length - fitting[0] :], first[-1:].expand(fitting[0], -1))
        shifts.append(fitting[0])
    assert len(set(shifts)) > 1


def test_a_shift_of_views_needs_two_of_them(tones):
    with pytest.raises(ConfigError, match="consistency_shift_ms"):
        experiment(tones, consistency_shift_ms=20.0)


def test_a_run_can_begin_with_the_weights_of_another(tones, tmp_path):
    train(experiment(tones, epochs=1), tmp_path / "first", CPU, quiet)
    given = load_acoustic_model(tmp_path / "first").modules.state_dict()
    later = experiment(tones, initial=str(tmp_path / "first"))
    begun = prepare_run(later, tmp_path / "later", CPU).model.modules.state_dict()
    assert same(given, begun)

    pieces = replace(later, text=replace(later.text, tokens="bpe", vocabulary_size=30))
    begun = prepare_run(pieces, tmp_path / "pieces", CPU).model.modules.state_dict()
    assert begun["model.projection.weight"].shape[0] == 30
    encoder = {name for name in given if not name.startswith("model.projection.")}
    assert all(torch.equal(given[name], begun[name]) for name in encoder)


def test_weights_of_another_network_are_refused(tones, tmp_path):
    train(experiment(tones, epochs=1), tmp_path / "first", CPU, quiet)
    later = experiment(tones, initial=str(tmp_path / "first"))
    wider = replace(later, encoder=replace(later.encoder, size=24))
    with pytest.raises(TrainingError, match=r"'training\.initial' = .*first.*its network differs"):
        prepare_run(wider, tmp_path / "later", CPU)
