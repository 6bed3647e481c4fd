"""The attention decoder: its equations, alone = batched, stepwise = teacher-forced; and a whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from asr.cli import cli
from asr.core.config import ConfigError, read_toml
from asr.data.manifest import read_manifest
from asr.errors import UserError
from asr.model.attention import END, Attention, AttentionDecoder, DecoderConfig, attention_loss
from asr.model.ctc import CTCModel
from asr.model.encoders import ENCODERS, EncoderConfig
from asr.recognition.recognizer import open_recognizer
from asr.search import SearchConfig
from asr.text.tokenizer import load_tokenizer
from asr.training.evaluation import evaluate
from asr.training.examples import evaluation_examples, new_sample_reader
from asr.training.loop import train
from asr.training.objective import Objective
from asr.training.run import load_initial_weights, prepare_run
from tests.synthetic import RATE, speak
from tests.tiny import estimate_bigrams, tiny_experiment

CPU = torch.device("cpu")
SMALL = DecoderConfig("attention", size=6, embedding=3, attention=5, filters=2, reach=2)
TOKENS = 6
ENCODER_SIZE = 4
TUNED = ("ctc_weight", "length_bonus", "coverage_weight", "beam_size")


def new_decoder(config: DecoderConfig = SMALL) -> AttentionDecoder:
    torch.manual_seed(0)
    return AttentionDecoder(config, ENCODER_SIZE, TOKENS)


@pytest.mark.parametrize("filters", [0, 2])
def test_attention_is_its_equations(filters):
    torch.manual_seed(0)
    attention = Attention(replace(SMALL, filters=filters), ENCODER_SIZE)
    decoder = new_decoder()
    decoder.attention = attention
    states, hidden, before = torch.randn(1, 7, ENCODER_SIZE), torch.randn(1, 6), torch.rand(1, 7)
    context, weights = attention(hidden, before, decoder.remember(states, torch.tensor([5])))
    named = {name: value.detach().numpy() for name, value in attention.named_parameters()}
    energies = []
    for frame in range(5):
        sums = named["query.weight"] @ hidden[0].numpy() + named["query.bias"]
        sums = sums + named["key.weight"] @ states[0, frame].numpy()
        if filters:
            around = np.pad(before[0].numpy(), 2)[frame : frame + 5]
            sums = sums + named["location.weight"] @ (named["filters.weight"][:, 0] @ around)
        energies.append(float(named["energy.weight"][0] @ np.tanh(sums)))
    expected = np.exp(energies) / np.exp(energies).sum()
    np.testing.assert_allclose(weights[0, :5].detach().numpy(), expected, atol=1e-6)
    assert (weights[0, 5:] == 0).all()
    np.testing.assert_allclose(context[0].detach().numpy(), expected @ states[0, :5].numpy(), atol=1e-6)


@pytest.mark.parametrize("filters", [0, 2])
def test_gradients_are_those_of_differences(filters):
    torch.manual_seed(0)
    decoder = AttentionDecoder(replace(SMALL, filters=filters), ENCODER_SIZE, TOKENS).double()
    lengths, tokens = torch.tensor([5, 3]), torch.tensor([[1, 2], [3, 0]])

    def losses(states: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        names = [name for name, _ in decoder.named_parameters()]
        call = (states, lengths, tokens)
        log_probs, _ = torch.func.functional_call(decoder, dict(zip(names, weights, strict=True)), call)
        return attention_loss(log_probs, tokens, torch.tensor([2, 1]), 0.1)

    states = torch.randn(2, 5, ENCODER_SIZE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses, (states, *decoder.parameters()))


def test_teacher_forced_is_stepwise():
    decoder = new_decoder().eval()
    states, lengths = torch.randn(2, 9, ENCODER_SIZE), torch.tensor([9, 4])
    tokens = torch.tensor([[1, 5, 2], [3, 3, 4]])
    forced, looked = decoder(states, lengths, tokens)
    memory = decoder.remember(states, lengths)
    state = decoder.initial_state(memory)
    for number, given in enumerate([torch.tensor([END, END]), *tokens.unbind(1)]):
        log_probs, state = decoder.step(given, state, memory)
        torch.testing.assert_close(log_probs, forced[:, number], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(state.weights, looked[:, number], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(forced.exp().sum(2), torch.ones(2, 4))
    torch.testing.assert_close(looked.sum(2), torch.ones(2, 4))


def test_hypotheses_of_one_utterance_share_its_memory():
    decoder = new_decoder().eval()
    states = torch.randn(2, 9, ENCODER_SIZE)
    both = decoder.remember(states, torch.tensor([9, 4]))
    alone = both.select(1)
    assert alone.states.shape == (1, 4, ENCODER_SIZE)
    start = decoder.initial_state(alone)
    many = start.select(torch.zeros(3, dtype=torch.long))
    several, _ = decoder.step(torch.tensor([1, 2, 1]), many, alone)
    one, _ = decoder.step(torch.tensor([2]), start, alone)
    torch.testing.assert_close(several[1:2], one)
    torch.testing.assert_close(several[0], several[2])


def test_the_loss_is_of_tokens_and_the_end_and_smoothing_has_its_share():
    log_probs = torch.randn(2, 4, TOKENS).log_softmax(2)
    tokens, lengths = torch.tensor([[1, 2, 3], [4, 5, 5]]), torch.tensor([3, 1])
    plain = [
        -float(log_probs[0, 0, 1] + log_probs[0, 1, 2] + log_probs[0, 2, 3] + log_probs[0, 3, END]),
        -float(log_probs[1, 0, 4] + log_probs[1, 1, END]),
    ]
    torch.testing.assert_close(attention_loss(log_probs, tokens, lengths), torch.tensor(plain))
    even = [-float(log_probs[0].mean(1).sum()), -float(log_probs[1, :2].mean(1).sum())]
    expected = 0.9 * torch.tensor(plain) + 0.1 * torch.tensor(even)
    torch.testing.assert_close(attention_loss(log_probs, tokens, lengths, 0.1), expected)


def test_scheduled_sampling_sees_what_the_decoder_drew():
    decoder = new_decoder().eval()
    states, lengths, tokens = torch.randn(1, 5, ENCODER_SIZE), torch.tensor([5]), torch.tensor([[1, 1, 1]])
    right, _ = decoder(states, lengths, tokens)
    torch.manual_seed(3)
    drawn, _ = decoder(states, lengths, tokens, sampling=1.0)
    torch.testing.assert_close(drawn[:, 0], right[:, 0])  # nothing is drawn before the first token
    assert not torch.allclose(drawn[:, 1:], right[:, 1:])


# --- with every encoder -----------------------------------------------------------------------------

EVERY = {
    f"{kind}-{both}": EncoderConfig(kind=kind, layers=2, size=8, bidirectional=both)
    for kind in ENCODERS
    for both in (True, False)
} | {"chunk": EncoderConfig(layers=2, size=8, chunk=4, lookahead=2)}
SHARES = {"ctc": (DecoderConfig(), 1.0), "attention": (SMALL, 0.0), "joint": (SMALL, 0.3)}


@pytest.mark.parametrize("encoder", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize(("decoder", "share"), SHARES.values(), ids=SHARES)
def test_losses_alone_are_those_in_a_batch(encoder, decoder, share):
    torch.manual_seed(0)
    model = CTCModel(ENCODERS[encoder.kind](encoder, 10, 1), TOKENS, decoder)
    objective = Objective(model, ctc_share=share, smoothing=0.1).eval()
    features, lengths = torch.randn(2, 40, 10), torch.tensor([40, 31])
    features[1, 31:] = 1e4
    tokens, counts = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    together = objective(features, lengths, tokens, counts)
    alone = objective(features[1:, :31], lengths[1:], tokens[1:, :2], counts[1:])
    torch.testing.assert_close(together.losses[1:], alone.losses, atol=1e-4, rtol=1e-5)
    together.losses.sum().backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        is_idle = share == 0 and name.startswith("model.projection")
        assert bool(parameter.grad.abs().sum() > 0) != is_idle, name
    if decoder.kind == "none":
        torch.testing.assert_close(together.losses, model_ctc(together))
        return
    states, _, frames = model.encode(features, lengths)
    spelled = attention_loss(model.decoder(states, frames, tokens)[0], tokens, counts, 0.1)
    torch.testing.assert_close(together.losses, share * together.ctc + (1 - share) * spelled)
    torch.testing.assert_close(together.criterion, together.losses)


def model_ctc(losses) -> torch.Tensor:
    return losses.ctc


def test_an_utterance_without_frames_spoils_nobody():
    decoder = new_decoder()
    log_probs, _ = decoder(torch.randn(2, 5, ENCODER_SIZE), torch.tensor([5, 0]), torch.tensor([[1], [2]]))
    log_probs.sum().backward()
    assert log_probs.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())


# --- the whole path ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joint(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a joint model that was trained a little."""
    experiment = tiny_experiment(tones, epochs=4, batch_seconds=8.0, warmup_steps=5, learning_rate=1e-2)
    folder = tmp_path_factory.mktemp("joint") / "run"
    lines: list[str] = []
    train(replace(experiment, decoder=replace(SMALL, size=32)), folder, CPU, lines.append)
    assert any("no " in line and "attention decoder cannot be exported" in line for line in lines)
    return folder


def test_a_joint_model_trains_and_what_is_loaded_is_what_was_validated(joint, tones):
    experiment = tiny_experiment(tones, epochs=4, batch_seconds=8.0, warmup_steps=5, learning_rate=1e-2)
    run = prepare_run(replace(experiment, decoder=replace(SMALL, size=32)), joint, CPU)
    load_initial_weights(run.model, run.tokenizer, str(joint))
    recognizer = open_recognizer(joint, "cpu")
    assert recognizer.spells
    assert recognizer.search_settings["decoder"] == "attention"
    results = [evaluate(each, run.data.valid, run.data.read) for each in (run.recognizer, recognizer)]
    assert results[0].hypotheses == results[1].hypotheses


def test_a_joint_model_transcribes_aligns_and_hears_live(joint):
    recognizer = open_recognizer(joint, "cpu", beam_size=3)
    generator = np.random.default_rng(0)
    samples = speak("ab", generator)
    transcript = recognizer.transcribe(samples, RATE, vad=False)
    (alone,) = recognizer.transcribe_samples([samples])
    assert transcript.text == alone.text
    assert all(0 <= word.confidence <= 1 and word.start <= word.end for word in alone.words)
    with_ctc = open_recognizer(joint, "cpu", ctc_weight=1.0)
    assert not with_ctc.spells
    plain = recognizer.without_decoder()
    assert plain.transcribe_samples([samples]).pop().text == with_ctc.transcribe_samples([samples]).pop().text
    stream = recognizer.stream()
    stream.feed(samples)
    stream.finish()
    with pytest.raises(UserError, match="ctc-weight 1"):
        recognizer.add_hotwords(["ab"])
    with pytest.raises(UserError, match="ONNX Runtime cannot"):
        open_recognizer(joint, "cpu", engine="onnx")


def test_a_language_model_listens(joint, tmp_path):
    from asr.lm.storage import save_model

    save_model(estimate_bigrams("ab", "ba ab"), tmp_path / "lm.bin")
    recognizer = open_recognizer(joint, "cpu", lm=tmp_path / "lm.bin", closed=True, lm_weight=2.0)
    assert recognizer.decoder.config.beam_size > 1
    hypothesis = recognizer.transcribe_samples([speak("ab", np.random.default_rng(0))]).pop()
    assert set(hypothesis.text.split()) <= {"ab", "ba"}


def test_a_model_without_ctc_says_what_it_cannot(joint, tmp_path):
    import shutil

    folder = tmp_path / "attention"
    shutil.copytree(joint, folder)
    config = (folder / "config.toml").read_text(encoding="utf-8")
    (folder / "config.toml").write_text(config.replace("ctc_weight = 0.3", "ctc_weight = 0.0"), "utf-8")
    recognizer = open_recognizer(folder, "cpu")
    assert recognizer.decoder.config.ctc_weight == 0
    recognizer.transcribe_samples([speak("ab", np.random.default_rng(0))])
    with pytest.raises(UserError, match="learned without CTC"):
        recognizer.stream()
    assert load_tokenizer(folder).symbols == recognizer.tokenizer.symbols


def test_the_share_of_ctc_is_tuned_and_no_setting_that_was_tried_is_better(joint, tones, tmp_path):
    import shutil

    from asr.training.tuning import Task, compute_log_probs, try_setting, tune_spelling

    folder = tmp_path / "tuned"
    shutil.copytree(joint, folder)
    recognizer = open_recognizer(folder, "cpu", ctc_weight=0.0)
    examples = evaluation_examples(read_manifest(tones / "dev.jsonl"), recognizer.tokenizer, recognizer.text)
    read = new_sample_reader(recognizer.sample_rate, keep=False)
    task = Task(
        compute_log_probs(recognizer, examples, read), recognizer.tokenizer, None, decoder=recognizer.network
    )
    trials = []
    best = tune_spelling(task, SearchConfig(), None, trials.append)
    assert {0.0, 0.3, 1.0} <= {trial.config.ctc_weight for trial in trials}
    assert best.wer == min(trial.wer for trial in trials)
    # Each trial is what the recogniser then does.
    for trial in (trials[0], best):
        opened = open_recognizer(folder, "cpu", **{key: getattr(trial.config, key) for key in TUNED})
        measured = evaluate(opened, examples, read).comparison.words.error_rate
        assert measured == pytest.approx(trial.wer)
    assert try_setting(task, best.config).wer == best.wer
    result = CliRunner().invoke(cli, ["tune", str(tones / "dev.jsonl"), "--model", str(folder)])
    assert result.exit_code == 0, result.output
    assert f"WER {100 * best.wer:.2f} %" in result.output.splitlines()[-2]
    assert read_toml(folder / "search.toml")["ctc_weight"] == best.config.ctc_weight


def test_weights_of_ctc_alone_can_begin_a_joint_model(tones, tmp_path):
    plain = tiny_experiment(tones, epochs=1, batch_seconds=8.0)
    train(plain, tmp_path / "ctc", CPU, lambda line: None)
    initial = replace(plain.training, initial=str(tmp_path / "ctc"))
    run = prepare_run(replace(plain, training=initial, decoder=SMALL), tmp_path / "joint", CPU)
    begun = open_recognizer(tmp_path / "ctc", "cpu", engine="torch").network.model.ctc
    torch.testing.assert_close(run.model.ctc.projection.weight, begun.projection.weight)
    assert run.model.ctc.decoder is not None


def test_bounds():
    with pytest.raises(ConfigError, match="ctc_weight"):
        DecoderConfig("attention", ctc_weight=1.5)
