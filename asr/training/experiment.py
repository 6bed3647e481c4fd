"""A whole recipe as dataclasses: the data, the model, the augmentation, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from asr.core.config import ConfigError, check_bounds, option, section
from asr.model.acoustic import ModelConfig
from asr.model.attention import DecoderConfig
from asr.model.encoders import EncoderConfig
from asr.model.features import FeatureConfig
from asr.recognition.folder import FORMAT_VERSION
from asr.text.tokenizer import TextConfig
from asr.training.augment import AugmentConfig


@dataclass(frozen=True)
class DataConfig:
    """Which manifests to train on."""

    folder: str = option("data", "The folder of the manifests; --data overrides it.")
    train: tuple[str, ...] = option(("train.jsonl",), "Manifests to train on, within the folder.")
    valid: tuple[str, ...] = option(("dev.jsonl",), "Manifests whose WER chooses the weights.")


@dataclass(frozen=True)
class TrainingConfig:
    """How the weights are trained."""

    seed: int = option(
        1,
        "Decides initial weights, order, dropout and augmentation. A run that goes on from another one's "
        "weights ('initial') with the same recordings needs another seed, or it hears the same noises and "
        "masks again.",
    )
    initial: str = option(
        "",
        "A model folder, or a shipped model, whose weights to start from; with other tokens the output "
        "layer is new. '': random weights.",
    )
    take_over: bool = option(
        False,
        "Take over the vocabulary, the lexicon, the language model and the search of 'initial', too, which "
        "asr train --from does; new words get pronunciations like those of the lexicon.",
    )
    epochs: int = option(
        20, "Passes over the training data; cosine and onecycle end with the last.", minimum=1
    )
    batch_seconds: float = option(
        60.0, "Seconds of audio in a batch of one process, padding included.", above=0
    )
    accumulate: int = option(
        1,
        "Batches per update of the weights; more of them where a large batch does not fit into memory.",
        minimum=1,
    )
    sorted_first_epoch: bool = option(
        False,
        "Sort the first epoch from short to long (SortaGrad, Amodei et al. 2016); helps where training "
        "from random weights diverges or stays at blanks.",
    )
    optimiser: Literal["adamw", "adam", "rmsprop", "sgd"] = option(
        "adamw",
        "AdamW suits nearly everything; Adam to follow a recipe from before 2019; RMSprop where Adam's "
        "first steps diverge; SGD with Nesterov momentum for long runs that are tuned by hand.",
    )
    learning_rate: float = option(
        1e-3, "Highest learning rate; SGD needs 10 to 100 times that of Adam.", above=0
    )
    momentum: float = option(
        0.9, "Momentum of SGD (Nesterov) and RMSprop; the first beta of Adam and AdamW.", minimum=0, below=1
    )
    schedule: Literal["cosine", "constant", "onecycle"] = option(
        "cosine",
        "The learning rate after the warm-up: cosine falls to 0 by the last epoch, the safe choice when "
        "the epochs are known; constant for trials and with averaging; onecycle (Smith 2018) for few epochs "
        "at a high rate.",
    )
    warmup_steps: int = option(
        100, "Steps in which the rate rises from 0; onecycle rises for 30 % of the run.", minimum=0
    )
    weight_decay: float = option(
        0.01, "Decay of matrices towards 0; biases and norms do not decay.", minimum=0
    )
    clip_norm: float = option(5.0, "Gradients longer than this are shortened to it; 0: never.", minimum=0)
    average_decay: float = option(
        0.0,
        "Validate and keep an exponential moving average of the weights with this decay, e.g. 0.999; "
        "steadier in long runs, behind in short ones. 0: the weights themselves.",
        minimum=0,
        below=1,
    )
    choose_by: Literal["wer", "cer"] = option(
        "wer",
        "The errors by which validation tells good weights from better ones; cer where texts have no spaces, "
        "as in Japanese: there a sentence is one word.",
    )
    average_best: int = option(
        1,
        "At the end, average the weights of this many best validations and keep the average if it is "
        "better; 5 to 10 gain a little where the last epochs are about equally good.",
        minimum=1,
    )
    patience: int = option(
        0, "Stop after this many epochs in a row without improvement; 0: never.", minimum=0
    )
    objective: Literal["tokens", "predict"] = option(
        "tokens",
        "tokens: learn to transcribe; predict: learn to foresee features, without texts (autoregressive "
        "predictive coding, Chung et al. 2019), for an encoder that reads from the start. The model that "
        "comes out is for 'initial'.",
    )
    predict_frames: tuple[int, ...] = option(
        (3,),
        "How many of the encoder's frames ahead it is to foresee, all of them at once.",
        minimum=1,
        maximum=1000,
    )
    criterion: Literal["ctc", "ctc-crf"] = option(
        "ctc",
        "ctc-crf (Xiang & Ou 2019) makes the reference more probable than all other token sequences under an "
        "n-gram model of the training texts, for phones or characters. Experimental: no recipe uses it yet. "
        "Its greedy errors are high; judge it by a search with a language model, tuned anew.",
    )
    crf_order: int = option(3, "Length of the n-grams in the token model of ctc-crf.", minimum=2, maximum=5)
    crf_prune: tuple[int, ...] = option(
        (0,),
        "Leave out n-grams that occur this often or less, one number per order; the last one also holds for "
        "higher orders. Time and memory grow with the number of n-grams that remain.",
        minimum=0,
    )
    crf_ctc_weight: float = option(
        0.1, "Weight of the CTC loss that is added to ctc-crf; 0.01 to 0.1 is usual.", minimum=0
    )
    intermediate_layer: int = option(
        0,
        "Let this encoder layer (counted from 1) also predict the tokens (Tjandra et al. 2020; Lee & "
        "Watanabe 2021); helps deep encoders, the middle layer is usual. 0: none.",
        minimum=0,
    )
    intermediate_weight: float = option(0.3, "Share of that layer in the loss.", above=0, below=1)
    consistency_weight: float = option(
        0.0,
        "Above 0, every utterance is masked in two ways, and the network learns to predict the same for "
        "both (CR-CTC, Yao et al. 2024, who use 0.2 and 2.5 times as much time masking): for little data "
        "and long runs; a step takes about twice the time.",
        minimum=0,
    )
    consistency_shift_ms: float = option(
        0.0,
        "Let the second of the two ways begin up to this much later, so that the network learns that it does "
        "not matter where frames begin; half an output frame at most is sensible. 0: never.",
        minimum=0,
        maximum=100,
    )
    teacher: str = option(
        "",
        "A folder with what another model hears in the training recordings, frame by frame (asr teach, or "
        "any program); the network learns to hear the same under augmentation. Utterances without a text "
        "are learned from it alone. '': none.",
    )
    teacher_weight: float = option(
        1.0, "How much the teacher's loss weighs, which is added to the others.", above=0
    )
    teacher_lag: int = option(
        1,
        "By how many frames a spike of the teacher is moved at most, to where the network hears it.",
        minimum=0,
        maximum=20,
    )
    teacher_temperature: float = option(
        1.0,
        "Above 1, both are compared with their probabilities made flatter (Hinton et al. 2015).",
        minimum=1,
        maximum=20,
    )
    states: str = option(
        "",
        "A folder with the hidden states of another network in the training recordings (asr teach --encoder, "
        "or any program); a layer learns to predict them beside what it does (Romero et al. 2015). "
        "'': none.",
    )
    states_weight: float = option(
        1.0, "How much the error of predicted states weighs, which is added to the losses.", above=0
    )
    states_layer: int = option(
        0, "Which encoder layer predicts them, from 1, before the last; 0: the last.", minimum=0
    )
    label_smoothing: float = option(
        0.1,
        "Share of the probability that an attention decoder is taught to give to all tokens alike; nothing "
        "else has any.",
        minimum=0,
        below=1,
    )
    scheduled_sampling: float = option(
        0.0,
        "Share of the tokens that an attention decoder sees as it drew them itself instead of the right ones "
        "(Bengio et al. 2015).",
        minimum=0,
        maximum=1,
    )
    truncate_seconds: float = option(
        0.0,
        "Cut back-propagation through time at this interval in longer utterances (Williams & Peng 1990); "
        "against gradients that explode over minutes of speech. For rnn, gru and lstm cells. 0: never.",
        minimum=0,
    )
    precision: Literal["float32", "bfloat16"] = option(
        "float32", "bfloat16 is faster on GPUs and on CPUs with AMX or AVX-512 bf16; the loss stays float32."
    )
    checkpoint_steps: int = option(
        1000, "Save a checkpoint after this many steps; 0: by time alone.", minimum=0
    )
    checkpoint_minutes: float = option(
        10.0, "Save a checkpoint also after this time; the end of an epoch saves one anyway.", above=0
    )
    cache: str = option("", "Folder for decoded samples, 115 MB per hour of audio at 16 kHz; '': none.")
    cache_hours: float = option(
        4.0, "Without a cache folder, keep decoded samples in memory if all data is shorter than this."
    )
    window_tars: int = option(
        4,
        "Of recordings in tar files (asr pack): so many tar files are read, and their utterances shuffled, "
        "at a time; twice as many are in memory.",
        minimum=1,
    )
    workers: int = option(1, "Threads that read ahead of the model.", minimum=1)

    def __post_init__(self) -> None:
        check_bounds(self, "training")
        if self.take_over and not self.initial:
            raise ConfigError("'training.take_over' needs 'training.initial', the model to take over from")
        if not 1 <= len(self.crf_prune) <= self.crf_order or list(self.crf_prune) != sorted(self.crf_prune):
            raise ConfigError(
                f"'training.crf_prune' = {list(self.crf_prune)}: up to {self.crf_order} numbers are needed, "
                "none smaller than the one before it"
            )
        if not self.predict_frames or len(set(self.predict_frames)) < len(self.predict_frames):
            raise ConfigError("'training.predict_frames' needs one number or more, each once")
        if self.objective == "predict":
            keys = ("criterion", "intermediate_layer", "consistency_weight", "take_over", "teacher", "states")
            for key in keys:
                if getattr(self, key) != getattr(TrainingConfig, key):
                    raise ConfigError(f"'training.objective' = 'predict' does not go with 'training.{key}'")
        if self.consistency_shift_ms and not self.consistency_weight:
            raise ConfigError("'training.consistency_shift_ms' needs a 'training.consistency_weight' above 0")


@dataclass(frozen=True)
class Experiment:
    """A whole recipe: the config of the model and how it is trained."""

    format_version: int = option(FORMAT_VERSION, "Of the model folder that comes out.")
    features: FeatureConfig = section(FeatureConfig)
    text: TextConfig = section(TextConfig)
    encoder: EncoderConfig = section(EncoderConfig)
    decoder: DecoderConfig = section(DecoderConfig)
    data: DataConfig = section(DataConfig)
    augment: AugmentConfig = section(AugmentConfig)
    training: TrainingConfig = section(TrainingConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.format_version <= FORMAT_VERSION:
            raise ConfigError(
                f"'format_version' cannot be {self.format_version}: this program reads up to {FORMAT_VERSION}"
            )

    @property
    def model(self) -> ModelConfig:
        """The part that the model folder needs."""
        return ModelConfig(self.format_version, self.features, self.text, self.encoder, self.decoder)


def with_data_folder(experiment: Experiment, folder: str | None) -> Experiment:
    """The experiment with its manifests in ``folder``; ``None`` changes nothing."""
    if folder is None:
        return experiment
    return replace(experiment, data=replace(experiment.data, folder=folder))
