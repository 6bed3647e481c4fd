"""What happens inside a model, frame by frame: features, a layer's units, posteriors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from asr.audio.reading import read_audio
from asr.core.files import replace_file
from asr.errors import UserError
from asr.model.encoders import RecurrentLayer
from asr.model.engine import unwrap_model
from asr.model.features import pad_batch, unpad
from asr.recognition.recognizer import Recognizer
from asr.search.spelling_search import SpellingSearch
from asr.training.pictures import draw_frames
from asr.transcript.values import Word

LIKELY = 0.1  # a token whose probability never exceeds this is not drawn
MOST_NUMBERED = 60  # units whose numbers have room beside them; of more, every second or third has one
GATES = ("input", "forget", "output", "reset", "update")  # between 0 and 1; the rest has a sign


@dataclass(frozen=True)
class Inspection:
    """One recording on its way through a model."""

    audio: str
    duration: float  # seconds
    kind: str  # of features
    features: np.ndarray  # (frames, features)
    place: str  # which layer and direction the activations are from
    activations: dict[str, np.ndarray]  # by name, (frames', units); gates first, hidden state last
    log_probs: np.ndarray  # (frames'', vocabulary), natural logarithms
    tokens: tuple[str, ...]  # (vocabulary,), how each is written; the blank first
    words: tuple[Word, ...]
    unit: str  # what ``words`` are: words or phones
    # Where the decoder of a model with attention looked at each token and at the end: the tokens' texts, and
    # (tokens + 1, frames'') weights.
    spelled: tuple[str, ...] = ()
    attention: np.ndarray | None = None

    @property
    def size(self) -> int:
        """The number of units in the layer."""
        return self.activations["hidden"].shape[1]


@torch.no_grad()
def inspect_model(
    recognizer: Recognizer, audio: str | Path, layer: int = 0, backward: bool = False
) -> Inspection:
    """Run a recording through a model and keep what happens in one layer.

    Args:
        layer: counted from 1, the lowest; 0 is the topmost one.
        backward: of a recurrent layer, the direction that reads from the end.

    Raises:
        UserError: there is no such layer or direction, or the recording holds no samples.
        AudioError: the recording cannot be read.
    """
    model = unwrap_model(recognizer)
    layers = model.ctc.encoder.layers
    number = layer or len(layers)
    if not 1 <= number <= len(layers):
        raise UserError(f"--layer {layer}: the model {recognizer.name} has layers 1 to {len(layers)}")
    if model.config.encoder.chunk:
        raise UserError(f"the model {recognizer.name} hears chunk by chunk (encoder.chunk): nothing to draw")
    chosen = model.ctc.encoder.outputs[number - 1]
    if backward and not (isinstance(chosen, RecurrentLayer) and chosen.back is not None):
        raise UserError(f"--backward: the model {recognizer.name} reads from the start only")
    samples = read_audio(audio, recognizer.sample_rate)
    if not len(samples):
        raise UserError(f"{audio}: holds no samples")
    batch, lengths = pad_batch([samples])
    features, frames = model.features(batch.to(model.device), lengths.to(model.device))
    calls: list[tuple[Any, Any]] = []
    hook = chosen.register_forward_hook(lambda module, inputs, output: calls.append((inputs, output)))
    try:
        states, log_probs, steps = model.run_encoder(features, frames)
    finally:
        hook.remove()
    search = recognizer.decoder
    spelled: tuple[str, ...] = ()
    attention = None
    if isinstance(search, SpellingSearch):
        (rows,) = unpad(torch.cat([log_probs, states], dim=2), steps)
        (hypothesis,) = recognizer.search([rows])
        spelling = search.find_spellings(rows)[0]
        spelled = (*(recognizer.tokenizer.symbols[token] for token in spelling.tokens), "end")
        attention = spelling.weights
    else:
        (hypothesis,) = recognizer.search(unpad(log_probs, steps))
    direction = ""
    if isinstance(chosen, RecurrentLayer):
        direction = ", from the end" if backward else ", from the start"
    return Inspection(
        audio=Path(audio).name,
        duration=len(samples) / recognizer.sample_rate,
        kind=model.config.features.kind,
        features=features[0, : int(frames[0])].cpu().numpy(),
        place=f"layer {number} of {len(layers)}{direction}",
        activations=collect_activations(chosen, *calls[0], backward),
        log_probs=log_probs[0].cpu().numpy(),
        tokens=recognizer.tokenizer.symbols,
        words=hypothesis.words,
        unit=recognizer.unit,
        spelled=spelled,
        attention=attention,
    )


def collect_activations(
    layer: nn.Module, inputs: Sequence[Tensor], output: Tensor, backward: bool
) -> dict[str, np.ndarray]:
    """The activations of a layer's units by name, ``(frames, units)`` each.

    Gates, cell and hidden state of a recurrent layer; of any other, its output as the hidden state.
    """
    states = {"hidden": output}
    if isinstance(layer, RecurrentLayer):
        states = layer.trace(inputs[0], inputs[1], backward)
    names = [*(n for n in GATES if n in states), *(n for n in ("cell", "hidden") if n in states)]
    return {name: states[name][0].cpu().numpy() for name in names}


def choose_units(inspection: Inspection, count: int) -> list[int]:
    """Choose the ``count`` units whose hidden state changes most over the recording, in their order."""
    movement = inspection.activations["hidden"].std(0)
    return sorted(np.argsort(-movement, kind="stable")[:count].tolist())


def draw_inspection(inspection: Inspection, units: Sequence[int], path: Path) -> None:
    """Write the figure of ``draw_figure``; the ending of ``path`` chooses the format."""
    figure = draw_figure(inspection, units)
    with replace_file(path) as temporary:
        figure.savefig(temporary, dpi=120)


def draw_figure(inspection: Inspection, units: Sequence[int]) -> Any:
    """Draw features, the activations of ``units``, and posteriors with the words above them.

    Raises ``UserError`` for a unit that is not there.
    """
    from matplotlib.figure import Figure  # slow to import, and few commands need it

    for unit in units:
        if not 0 <= unit < inspection.size:
            raise UserError(f"--units {unit}: {inspection.place} has units 0 to {inspection.size - 1}")
    units = list(dict.fromkeys(units))
    rows = 0.5 + 0.11 * min(len(units), MOST_NUMBERED)
    looks = [] if inspection.attention is None else [0.4 + 0.14 * len(inspection.attention)]
    heights = [2.0, *[rows] * len(inspection.activations), *looks, 1.8]
    width = max(7.0, min(24.0, 2.5 * inspection.duration))
    figure = Figure(figsize=(width, 0.6 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    panels[0].set_title(f"{inspection.audio}: {inspection.place}")
    # An outlier would take all of the colours.
    darkest, brightest = np.percentile(inspection.features, [1, 99])
    draw_frames(
        panels[0], inspection.features, inspection.duration, f"{inspection.kind} feature",
        vmin=darkest, vmax=brightest, cmap="magma",
    )  # fmt: skip
    activations = panels[1 : 1 + len(inspection.activations)]
    for axes, (name, values) in zip(activations, inspection.activations.items(), strict=True):
        shown = values[:, units]
        if name in GATES:
            image = draw_frames(
                axes, shown, inspection.duration, f"{name} gate", vmin=0, vmax=1, cmap="viridis"
            )
        else:
            most = float(np.abs(shown).max()) or 1.0
            image = draw_frames(
                axes, shown, inspection.duration, f"{name} state", vmin=-most, vmax=most, cmap="RdBu_r"
            )
        every = -(-len(units) // MOST_NUMBERED)
        axes.set_yticks(range(0, len(units), every), map(str, units[::every]), fontsize=6)
        figure.colorbar(image, ax=axes, pad=0.01)
    if inspection.attention is not None:
        image = draw_frames(
            panels[-2], inspection.attention.T, inspection.duration, "attention", vmin=0, cmap="Greys"
        )
        panels[-2].invert_yaxis()  # the first token on top
        panels[-2].set_yticks(range(len(inspection.spelled)), inspection.spelled, fontsize=7)
        figure.colorbar(image, ax=panels[-2], pad=0.01)
    draw_posteriors(panels[-1], inspection)
    panels[-1].set(xlim=(0, inspection.duration), xlabel="seconds")
    return figure


def draw_posteriors(axes: Any, inspection: Inspection) -> None:
    """Draw the probability of every token that is likely somewhere, with its symbol at each peak.

    The blank is grey. Words stand above the times at which they were found.
    """
    probabilities = np.exp(inspection.log_probs)
    frames = len(probabilities)
    times = (np.arange(frames) + 0.5) * inspection.duration / frames
    marker = "o" if frames == 1 else None  # a line needs two
    axes.plot(times, probabilities[:, 0], color="0.75", linewidth=1, marker=marker, label="blank")
    for token in 1 + np.flatnonzero(probabilities[:, 1:].max(0) > LIKELY):
        colour = f"C{token % 10}"
        axes.plot(times, probabilities[:, token], color=colour, linewidth=1.2, marker=marker)
        for frame in find_peaks(probabilities[:, token]):
            symbol = inspection.tokens[token].replace("$", r"\$")
            height = probabilities[frame, token] + 0.02
            axes.text(times[frame], height, symbol, color=colour, ha="center", va="bottom", fontsize=7)
    for word in inspection.words:
        middle = (word.start + word.end) / 2
        axes.text(middle, 1.17, word.text.replace("$", r"\$"), ha="center", va="bottom", fontsize=9)
        axes.axvspan(word.start, word.end, color="0.5", alpha=0.08, linewidth=0)
    axes.set(ylim=(0, 1.4), yticks=(0, 0.5, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=6)  # beside the axes: no word is there
    axes.set_ylabel(f"posterior ({inspection.unit} above)", fontsize=8)


def find_peaks(values: np.ndarray) -> list[int]:
    """Find the highest frame of every span of ``values`` above ``LIKELY``."""
    above = np.flatnonzero(values > LIKELY)
    spans = np.split(above, 1 + np.flatnonzero(np.diff(above) > 1))
    return [int(span[values[span].argmax()]) for span in spans if len(span)]
