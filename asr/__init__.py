"""Speech recognition with deep bidirectional LSTMs and CTC.

From a program::

    import asr

    model = asr.load()                        # or a model folder, or the name of a shipped model
    transcript = model.transcribe("x.flac")
    transcript.text                           # what was said
    transcript.readable                       # the same with capitals and punctuation
    transcript.segments[0].words              # with times in seconds and confidences

``asr.transcript.formats`` writes a transcript as srt, json and so on. Importing ``asr`` is cheap: the module
behind a name is imported when the name is first used, and torch when ``load`` needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from asr.errors import UserError
from asr.pretrained import DEFAULT_MODEL

if TYPE_CHECKING:
    from asr.recognition.recognizer import Recognizer
    from asr.transcript.values import AlignedText, Hypothesis, Segment, Transcript, Word

__version__ = "0.1.0"
__all__ = [
    "AlignedText",
    "Hypothesis",
    "Recognizer",
    "Segment",
    "Transcript",
    "UserError",
    "Word",
    "__version__",
    "load",
]
_HOMES = {
    "Recognizer": "asr.recognition.recognizer",
    **dict.fromkeys(["AlignedText", "Hypothesis", "Segment", "Transcript", "Word"], "asr.transcript.values"),
}

if not TYPE_CHECKING:  # or a type checker would take any name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def load(
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    *,
    lm: str | Path | None = None,
    rescore: str | Path | None = None,
    hotwords: str | Sequence[str] = (),
    compute_type: str = "usual",
    threads: int | None = None,
    engine: str = "auto",
    punctuation: bool = True,
    **search: float,
) -> Recognizer:
    """Open a model ready to transcribe, with the search that ``asr transcribe`` would use.

    Any number of threads may use it at the same time; the results are the same.

    Args:
        model: a model folder, or the name of a shipped model.
        device: ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``.
        lm: a language model, ARPA or what ``asr lm`` made; ``None`` means the model's own, where it
            has one, and ``"none"`` means none.
        rescore: a recurrent language model (``asr lm train --kind lstm``), which ranks the best texts anew;
            ``None`` means the model's own, where it has one and ``lm`` is left out; ``"none"`` means none.
        hotwords: words and phrases to listen for, in a list or as on the command line: ``"Ada, Mr Hyde"``.
        compute_type: ``float32``, faster and a little less exact ``bfloat16`` or ``int8``, or ``auto``;
            ``usual`` is ``int8`` on a processor where ``model.onnx`` has weights in 8 bits, else ``float32``.
        threads: processor threads to use; ``None`` means one a core.
        engine: what computes log-probs, ``onnx`` (ONNX Runtime) or ``torch``. ``auto`` is torch for a GPU,
            for ``bfloat16``, for ``int8`` where ``model.onnx`` has no such weights and for a folder without
            ``model.onnx``, and ``onnx`` for the rest.
        punctuation: write transcripts with capitals and punctuation, too (``Transcript.readable``), where the
            model can.
        search: ``beam_size``, ``lm_weight``, ``word_bonus`` and what else ``SearchConfig`` has; the
            model's own values where they are left out.

    Raises ``UserError``, whose message is one line, for anything that is missing or does not fit.
    """
    from asr.recognition.recognizer import open_recognizer

    return open_recognizer(
        model,
        device,
        lm=lm,
        rescore=rescore,
        hotwords=hotwords,
        compute_type=compute_type,
        threads=threads,
        engine=engine,
        punctuation=punctuation,
        **search,
    )
