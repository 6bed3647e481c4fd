"""States of a pretrained encoder as features: the encoder's contract, its errors, a model from end to end.

``tests/stand_in.py`` stands in for ctranslate2 and its model, so that nothing is fetched.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import asr
from asr.audio.reading import read_audio
from asr.cli import cli
from asr.core.config import ConfigError, to_toml
from asr.data.manifest import read_manifest
from asr.errors import UserError
from asr.model.features import FeatureConfig, Features, pad_batch
from asr.model.folder import load_acoustic_model
from asr.model.states import (
    N_FFT,
    STATE_SAMPLES,
    WINDOW,
    StoredStates,
    compute_log_mel,
    count_states,
    cut_into_windows,
    open_encoder,
)
from asr.training.export import ExportError, export_onnx
from tests.stand_in import SIZE, StandIn, stand_in_for_whisper
from tests.tiny import tiny_experiment


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for ``features.encoder``, and ctranslate2 in whose place ``StandIn`` stands."""
    return stand_in_for_whisper(tmp_path / "encoder", monkeypatch)


def states_config(encoder: Path, **options: object) -> dict[str, object]:
    return {"kind": "states", "encoder": str(encoder), "state_size": SIZE, "sample_rate": 16000} | options


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def test_spectra_are_whispers():
    samples = noise(16000)
    samples[8000:] *= 1e-6  # far below the loudest
    energies = librosa.feature.melspectrogram(
        y=samples,
        sr=16000,
        n_fft=400,
        hop_length=160,
        n_mels=80,
        htk=False,
        norm="slaney",
        pad_mode="reflect",
    )[:, :-1]
    logarithms = np.log10(np.maximum(energies, 1e-10))
    expected = (np.maximum(logarithms, logarithms.max() - 8) + 4) / 4
    filters = torch.from_numpy(librosa.filters.mel(sr=16000, n_fft=400, n_mels=80).T)
    ours = compute_log_mel(torch.from_numpy(samples), filters, torch.hann_window(N_FFT)).numpy()
    assert ours.shape == (80, 100)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_filters_are_whispers(encoder):
    ours = open_encoder(str(encoder)).filters.numpy().T
    np.testing.assert_allclose(ours, librosa.filters.mel(sr=16000, n_fft=400, n_mels=80), atol=1e-6)


@given(st.integers(0, 4 * WINDOW))
def test_windows_keep_every_state_once_and_in_order(samples):
    kept = []
    for part in cut_into_windows(samples):
        assert 0 <= part.begin < part.end <= samples
        assert part.end - part.begin <= WINDOW
        assert part.begin % STATE_SAMPLES == 0
        first = part.begin // STATE_SAMPLES
        kept += range(first, first + count_states(part.end - part.begin))[part.kept]
    assert kept == list(range(count_states(samples)))


def test_long_recordings_are_encoded_in_parts(encoder):
    long = noise(2 * WINDOW + 12345)
    model = open_encoder(str(encoder))
    states = model.encode(long)
    assert states.shape == (count_states(len(long)), SIZE)
    assert states.dtype == np.float16
    assert max(StandIn.calls) <= 3000
    # The stand-in looks no farther than a spectrum, so that its parts fit together without a seam.
    place = WINDOW // STATE_SAMPLES
    near = model.encode(long[WINDOW - 16000 : WINDOW + 16000])
    np.testing.assert_allclose(states[place - 25 : place + 25], near[25:75], atol=0.02)


@pytest.mark.parametrize("samples", [0, 1, STATE_SAMPLES, STATE_SAMPLES + 1, 5000])
def test_as_many_states_as_the_config_promises(encoder, samples):
    config = FeatureConfig(**states_config(encoder, normalisation="none"))
    frames, lengths = Features(config)(*pad_batch([noise(samples)]))
    assert lengths.tolist() == [frames.shape[1]] == [config.num_frames(samples)] == [count_states(samples)]


def test_an_utterance_has_the_same_states_alone_and_in_a_batch(encoder):
    features = Features(FeatureConfig(**states_config(encoder, stack=2, skip=2, normalisation="none")))
    batch = [noise(9000, 1), noise(30000, 2), noise(100, 3)]
    together, lengths = features(*pad_batch(batch))
    assert together.shape[2] == 2 * SIZE
    for row, length, samples in zip(together, lengths, batch, strict=True):
        alone, own = features(*pad_batch([samples]))
        assert own == length
        assert torch.equal(row[:length], alone[0])
        assert not row[length:].any()


def test_faults_are_told_in_one_line(encoder, monkeypatch):
    def message(folder: Path | str) -> str:
        with pytest.raises(UserError) as caught:
            open_encoder(str(folder))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "'features.encoder' is empty" in message("")
    assert f"{encoder / 'no'}/model.bin: is not there" in message(encoder / "no")
    (encoder / "model.bin").write_bytes(b"broken")
    assert message(encoder).endswith("CTranslate2 can read: Unsupported model binary version")
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert "pip install 'asr[whisper]'" in message(encoder)


def test_options_that_do_not_go_together(encoder):
    for wrong, key in [
        (states_config(encoder, sample_rate=8000), "features.sample_rate"),
        (states_config(encoder, n_mels=40), "features.n_mels"),
        (states_config(encoder, hop_ms=12.5), "features.hop_ms"),
        ({"encoder": str(encoder)}, "features.encoder"),
    ]:
        with pytest.raises(ConfigError, match=key):
            FeatureConfig(**wrong)
    with pytest.raises(ConfigError, match=r"'features.state_size' is 512, but .* have 20 numbers"):
        Features(FeatureConfig(**states_config(encoder, state_size=512)))


@pytest.mark.parametrize("on_disk", [True, False])
def test_states_are_kept_until_the_samples_change(encoder, tmp_path, on_disk):
    stored = StoredStates(open_encoder(str(encoder)), tmp_path / "cache" if on_disk else None)
    samples = noise(20000)
    expected = stored.encode(samples)
    stored.keep(samples)
    calls = len(StandIn.calls)
    stored.keep(samples)
    assert np.array_equal(stored.encode(samples), expected)
    assert len(StandIn.calls) == calls
    assert not np.array_equal(stored.encode(samples * 0.5), expected)
    assert len(StandIn.calls) == calls + 1


def test_damaged_files_are_made_anew(encoder, tmp_path):
    stored = StoredStates(open_encoder(str(encoder)), tmp_path)
    samples = noise(20000)
    stored.keep(samples)
    (path,) = tmp_path.rglob("*.npy")
    whole = path.read_bytes()
    for damaged in (whole[:-100], b"", b"\x80\x04pickle"):
        path.write_bytes(damaged)
        stored.keep(samples)
        assert path.read_bytes() == whole


# --- a model from end to end ------------------------------------------------------------------------


def train(folder: Path, out: Path, encoder: Path, **training: object) -> str:
    experiment = tiny_experiment(
        folder,
        {**states_config(encoder), "n_mels": 80, "normalisation": "global"},
        {"front_end": "none", "size": 48, "dropout": 0.1},
        **{"epochs": 14, "batch_seconds": 20.0, "learning_rate": 0.01, "warmup_steps": 20} | training,
    )
    recipe = out.parent / f"{out.name}.toml"
    recipe.write_text(to_toml(experiment))
    done = CliRunner().invoke(cli, ["train", str(recipe), "--out", str(out), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    return done.output


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_a_head_learns_transcribes_aligns_and_is_tuned(encoder, make_tones, tmp_path):
    tones = make_tones(train=160, dev=6)
    out, cache = tmp_path / "run", tmp_path / "cache"
    train(tones, out, encoder, cache=str(cache))
    utterances = [u for name in ("train", "dev") for u in read_manifest(tones / f"{name}.jsonl")]
    assert len(list(cache.rglob("*.npy"))) == len(utterances)
    dev = read_manifest(tones / "dev.jsonl")
    recogniser = asr.load(out, device="cpu")
    heard = [recogniser.transcribe(u.audio, vad=False).text for u in dev]
    right = sum(text == u.text for text, u in zip(heard, dev, strict=True))
    assert right >= 0.8 * len(dev)
    assert "WER" in invoke("evaluate", tones / "dev.jsonl", "--model", out, "--device", "cpu")
    invoke("tune", tones / "dev.jsonl", "--model", out, "--beam-size", 4)
    aligned = recogniser.align(dev[0].audio, dev[0].text)
    assert [word.word.text for word in aligned.words] == dev[0].text.split()
    with pytest.raises(ExportError, match="states of another encoder"):
        export_onnx(load_acoustic_model(out), recogniser.tokenizer, tmp_path / "model.onnx")


def test_kept_states_lead_to_the_same_weights_as_computed_ones(encoder, tones, tmp_path):
    news = train(tones, tmp_path / "kept", encoder, epochs=2)
    assert "computed anew" not in news
    calls = len(StandIn.calls)
    assert "states are computed anew in every epoch" in train(
        tones, tmp_path / "computed", encoder, epochs=2, cache_hours=0.0
    )
    assert len(StandIn.calls) - calls > calls
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("kept", "computed")]
    assert weights[0] == weights[1]


def test_another_encoder_is_noticed(encoder, tones, tmp_path):
    from asr.model.acoustic import ModelConfig, new_acoustic_model
    from asr.model.folder import save_config, save_weights
    from asr.text.tokenizer import TextConfig, learn_tokenizer, save_tokenizer

    tokenizer = learn_tokenizer(TextConfig(), ["a b"], tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    model = new_acoustic_model(ModelConfig(features=FeatureConfig(**states_config(encoder))), len(tokenizer))
    save_config(model.config, folder)
    save_tokenizer(tokenizer, folder)
    save_weights(model, folder, torch.int8)
    samples, lengths = pad_batch([read_audio(read_manifest(tones / "dev.jsonl")[0].audio, 16000)])
    assert load_acoustic_model(folder).log_probs(samples, lengths)[0].isfinite().all()
    other = encoder.parent / "other"
    shutil.copytree(encoder, other)
    text = (folder / "config.toml").read_text().replace(str(encoder), str(other))
    (folder / "config.toml").write_text(text)
    with pytest.raises(UserError, match="names another encoder than the one that the model learned from"):
        load_acoustic_model(folder)
