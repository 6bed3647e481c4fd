"""Options that several verbs share, and the recogniser that they open."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from asr.errors import UserError
from asr.pretrained import DEFAULT_MODEL
from asr.recognition.network import COMPUTE_TYPES, INSTALL_TORCH

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer

Command = TypeVar("Command", bound=Callable[..., Any])
PathCallback = Callable[[click.Context, click.Parameter, Path | None], Path | None]

# --- the model and the machine --------------------------------------------------------------------

model_option = click.option(
    "--model", default=DEFAULT_MODEL, help="A model folder, or the name of a shipped model."
)
device_option = click.option("--device", default="auto", help="auto, cpu, cuda or mps.")
threads_option = click.option(
    "--threads", metavar="N", type=click.IntRange(0),
    help="Processor cores to use; 0: all there are.  [default: OMP_NUM_THREADS, or all cores]",
)  # fmt: skip
compute_type_option = click.option(
    "--compute-type",
    default="usual",
    type=click.Choice(COMPUTE_TYPES),
    help="Precision of the network; usual: int8 where model.onnx has such weights, or else float32.",
)

# --- libraries that are not there after every installation ----------------------------------------


def require_libraries(*names: str) -> Callable[[Command], Command]:
    """A decorator of commands: before any work is done, raise ``UserError`` where a library is missing.

    The libraries are those of the extra ``train``.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(*arguments: Any, **options: Any) -> Any:
            missing = [name for name in names if find_spec(name) is None]
            if missing:
                verb = click.get_current_context().info_name
                raise UserError(f"asr {verb} needs {', '.join(missing)}: {INSTALL_TORCH}")
            return command(*arguments, **options)

        return cast(Command, run)

    return decorate


# --- recipes --------------------------------------------------------------------------------------

recipe_argument = click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
data_option = click.option(
    "--data", metavar="DIR", type=str, help="Folder of the manifests, instead of the recipe's data.folder."
)
set_option = click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a recipe's key; repeatable."
)

# --- files to be written --------------------------------------------------------------------------

PICTURES = (".png", ".svg", ".pdf")


def require_ending(*endings: str) -> PathCallback:
    """A callback of click that refuses paths with another ending, before any work is done."""

    def check_ending(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
        if value is not None and value.suffix.lower() not in endings:
            raise click.BadParameter(f"{value} does not end in {' or '.join(endings)}")
        return value

    return check_ending


# --- search ---------------------------------------------------------------------------------------

SEARCH_OPTIONS = [
    click.option(
        "--beam-size", type=click.IntRange(1), metavar="N",
        help="Prefixes kept from frame to frame; 1 without a language model is greedy.  "
        "[default: the model's]",
    ),
    click.option(
        "--lm", metavar="FILE|none",
        help="A language model: ARPA, or made by asr lm.  [default: the model's own, where it has one]",
    ),
    click.option(
        "--lm-weight", type=click.FloatRange(0),
        help="Weight of the language model.  [default: the model's]",
    ),
    click.option(
        "--rescore", metavar="FILE|none",
        help="A recurrent language model (asr lm train --kind lstm) that ranks the best texts anew.  "
        "[default: the model's own, where it has one]",
    ),
    click.option(
        "--word-bonus", type=float, help="Added to the score for every word.  [default: the model's]"
    ),
    click.option(
        "--ctc-weight", type=click.FloatRange(0, 1), metavar="X",
        help="Of a model with an attention decoder: the share of CTC; 1: CTC alone.  [default: the model's]",
    ),
    click.option("--hotwords", default="", metavar='"A, B C"',
        help="Words and phrases to expect; @FILE has one a line, perhaps with a tab and a weight."),
    click.option(
        "--hotword-weight", type=click.FloatRange(0),
        help="Added for each of their words.  [default: the model's]",
    ),
]  # fmt: skip
SETTINGS = ("beam_size", "lm_weight", "word_bonus", "ctc_weight", "hotword_weight")


punctuation_option = click.option(
    "--punctuation/--no-punctuation", default=True,
    help="Capitals and punctuation in txt, srt and vtt, where the model has learned them.",
)  # fmt: skip


def search_options(command: Command) -> Command:
    """Add ``SEARCH_OPTIONS`` to a command, which takes them as keyword arguments."""
    for option in reversed(SEARCH_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Opening:
    """What a command line says of the recogniser that is to be opened; ``search`` has ``SEARCH_OPTIONS``."""

    model: str
    device: str
    compute_type: str
    threads: int | None
    search: dict[str, Any]

    def open(self) -> Recognizer:
        """Open it as ``open_with_options`` does."""
        return open_with_options(self.model, self.device, self.compute_type, self.threads, self.search)


def recognizer_options(command: Command) -> Command:
    """Add the options of a recogniser to a command, which takes them as one ``Opening`` named ``opening``."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        own = {key: options.pop(key) for key in ("model", "device", "compute_type", "threads")}
        search = {key: options.pop(key) for key in (*SETTINGS, "lm", "rescore", "hotwords", "punctuation")}
        return command(*arguments, opening=Opening(**own, search=search), **options)

    added = search_options(punctuation_option(run))
    for option in (threads_option, compute_type_option, device_option, model_option):
        added = option(added)
    return cast(Command, added)


def open_with_options(
    model: str,
    device: str,
    compute_type: str,
    threads: int | None,
    given: dict[str, Any],
    engine: str = "auto",
) -> Recognizer:
    """Open a recogniser with the search that the options and the model folder ask for.

    Torch's threads are set for the whole program. Prints a note on stderr for every option that has no
    effect or another one.
    """
    from asr.core.cores import choose_threads
    from asr.recognition.recognizer import open_recognizer

    settings = {key: given[key] for key in SETTINGS if given[key] is not None}
    cores = choose_threads(threads)
    recognizer = open_recognizer(
        model, device, lm=given["lm"], rescore=given.get("rescore"), hotwords=given["hotwords"],
        compute_type=compute_type, threads=cores, engine=engine,
        punctuation=given.get("punctuation", False), **settings,
    )  # fmt: skip
    set_torch_threads(cores)
    for note in note_differences(recognizer, settings):
        click.echo(note, err=True)
    return recognizer


def set_torch_threads(threads: int) -> None:
    """Set torch's threads for the whole program, where it has imported torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def note_differences(recognizer: Recognizer, given: dict[str, Any]) -> Iterator[str]:
    """Note where the search differs from the options ``given``."""
    decoder = recognizer.decoder
    if "ctc_weight" in given and not recognizer.spells and given["ctc_weight"] < 1:
        yield "--ctc-weight does nothing: the model has no attention decoder"
    if decoder is None:
        for key in ("lm_weight", "word_bonus"):
            if key in given:
                yield f"{option_name(key)} does nothing in a greedy search: give --lm or --beam-size, too"
    else:
        size, fused = decoder.config.beam_size, decoder.description["language_model"] is not None
        if fused and given.get("beam_size", size) != size:
            yield f"a language model needs a beam search: --beam-size {size} instead of greedy search"
        if not fused and recognizer.search_config.beam_size != size:
            yield f"hot words need a beam search: --beam-size {size} instead of greedy search"
        if not fused and "lm_weight" in given:
            yield "--lm-weight does nothing without a language model: give --lm, too"
    if "hotword_weight" in given and (decoder is None or not decoder.description["phrases"]):
        yield "--hotword-weight does nothing without hot words: give --hotwords, too"


def option_name(key: str) -> str:
    """The option of a setting, ``--beam-size`` for ``beam_size``."""
    return "--" + key.replace("_", "-")
