"""``Recognizer``: a network, a tokenizer and a search, ready to transcribe; ``open_recognizer`` makes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr.audio.arrays import to_wav
from asr.audio.sources import AudioError, Source
from asr.core.config import from_table, to_table
from asr.errors import UserError
from asr.longform.live import LiveConfig, LiveStream, SearchStream
from asr.longform.transcripts import (
    LongformConfig,
    compute_whole_log_probs,
    name_source,
    transcribe_recordings,
)
from asr.pretrained import DEFAULT_MODEL, find_model_folder
from asr.recognition.folder import find_language_model, read_search_config, read_text_config
from asr.recognition.model_files import check_model_folder
from asr.recognition.network import Network, open_network
from asr.search import SearchConfig, search_greedily
from asr.search.greedy import GreedyStream
from asr.text.tokenizer import NORMALISERS, TextConfig, Tokenizer, canonicalise, load_tokenizer
from asr.transcript.values import AlignedText, Hypothesis, Transcript

if TYPE_CHECKING:
    from asr.search.beam_search import BeamSearch

USUAL_BEAM = 64  # where a language model or hot words need a beam search and the config asks for none


@dataclass(frozen=True, eq=False)
class Recognizer:
    """A model ready to transcribe; any number of threads may use it at the same time."""

    name: str
    tokenizer: Tokenizer
    text: TextConfig
    network: Network
    search_config: SearchConfig = field(default_factory=SearchConfig)  # as asked for
    # Its beam may be wider than asked; without a decoder the search is greedy.
    decoder: BeamSearch | None = None

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self.network.sample_rate

    @property
    def frame_samples(self) -> int:
        """Samples from one row of log-probs to the next."""
        return self.network.frame_samples

    @property
    def threads(self) -> int:
        """Threads that it works on."""
        return self.network.threads

    @property
    def frame_seconds(self) -> float:
        """Seconds from one row of log-probs to the next."""
        return self.frame_samples / self.sample_rate

    @property
    def settings(self) -> dict[str, object]:
        """What results depend on besides the model."""
        return {**self.network.settings, "search": self.search_settings}

    @property
    def search_settings(self) -> dict[str, Any] | str:
        """How it searches, for people and result files; ``"greedy"`` or the settings of the beam search."""
        if self.decoder is None:
            return "greedy"
        settings = asdict(self.decoder.config) | self.decoder.description
        del settings["log_priors"]  # a number for each token, measured, not chosen
        return settings

    @property
    def unit(self) -> str:
        """What hypotheses consist of, ``words`` or ``phones``: greedy search over phones finds no words."""
        return "phones" if self.tokenizer.lexicon is not None and self.decoder is None else "words"

    def to_reference(self, text: str) -> str:
        """Convert a normalised text to the unit of hypotheses, so that they can be compared with it."""
        return self.tokenizer.to_phones(text) if self.unit == "phones" else text

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order."""
        return self.network.log_probs(batches)

    def search(self, log_probs: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Find the best hypothesis for each array of log-probs."""
        if self.decoder is not None:
            return self.decoder.search_batch(log_probs, self.frame_seconds, self.network.threads)
        return [search_greedily(array, self.tokenizer, self.frame_seconds) for array in log_probs]

    def transcribe_samples(self, samples: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Transcribe arrays of samples at ``sample_rate`` as one batch."""
        return self.search(next(self.log_probs([samples])))

    def transcribe(
        self, source: Source | np.ndarray, rate: int | None = None, *, vad: bool = LongformConfig.vad
    ) -> Transcript:
        """Transcribe a recording of any length; with ``vad``, only the parts with speech in them.

        An array of samples, ``(samples,)`` or ``(samples, channels)``, goes with its ``rate`` in hertz;
        floats have full scale 1, integers that of their type. Raises ``AudioError`` when the recording cannot
        be read.
        """
        if isinstance(source, np.ndarray):
            source = to_wav(source, rate)
        elif rate is not None:
            raise TypeError("a file tells its own rate; give one only with an array of samples")
        return next(self.transcribe_all([source], vad))

    def transcribe_all(
        self,
        sources: Iterable[Source],
        vad: bool = LongformConfig.vad,
        batch_size: int = LongformConfig.batch_size,
    ) -> Iterator[Transcript]:
        """Transcribe recordings, several at a time; yields their transcripts in the same order.

        Raises ``AudioError`` at the first recording that cannot be read;
        ``asr.longform.transcripts.transcribe_recordings`` skips it and continues.
        """
        if isinstance(sources, str | bytes | Path):
            raise TypeError("transcribe_all takes a list of recordings; transcribe takes one")
        for transcript in transcribe_recordings(self, sources, LongformConfig(vad, batch_size)):
            if isinstance(transcript, AudioError):
                raise transcript
            yield transcript

    def alternatives(self, source: Source, count: int) -> list[Hypothesis]:
        """Find the best ``count`` texts for a whole recording, best first, each with its score.

        The beam may hold fewer, and greedy search finds one. Meant for a sentence: the best texts of a
        long recording differ in a word or two. Raises ``AudioError`` when the recording cannot be read.
        """
        log_probs, _ = compute_whole_log_probs(self, source)
        if self.decoder is None:
            return self.search([log_probs])
        return self.decoder.find_hypotheses(log_probs, self.frame_seconds, count)

    def start_search(self) -> SearchStream:
        """Start a search that reads the log-probs of one recording block by block."""
        if self.decoder is not None:
            return self.decoder.start_stream(self.frame_seconds)
        return GreedyStream(self.tokenizer, self.frame_seconds)

    def stream(self, rate: int | None = None, **live: float) -> LiveStream:
        """Start to transcribe samples while they come: ``feed`` takes them and returns events.

        Args:
            rate: hertz of the samples, mono; ``None`` means ``sample_rate``.
            live: keys of ``asr.longform.live.LiveConfig``: ``pause_seconds``, ``partial_seconds``, ...

        Raises ``ConfigError`` for a key that does not exist or a value out of bounds.
        """
        return LiveStream(self, rate, from_table(LiveConfig, live))

    def add_hotwords(self, hotwords: Sequence[str]) -> Recognizer:
        """Return a recogniser that expects these words and phrases, too; both share the network.

        Raises ``SearchError`` for a phrase that the model cannot write, and ``UserError`` where the
        normaliser leaves nothing of one.
        """
        from asr.search.beam_search import make_beam_search  # imports numba

        phrases = [normalise_phrase(phrase, self.text) for phrase in hotwords]
        if self.decoder is None:
            config, model = replace(self.search_config, beam_size=USUAL_BEAM), None
        else:
            config, model = self.decoder.config, self.decoder.model
            before: list[str] = self.decoder.description["phrases"]  # type: ignore[assignment]
            phrases = [*before, *phrases]
        return replace(self, decoder=make_beam_search(config, self.tokenizer, model, phrases))

    def align(
        self, source: Source, text: str, progress: Callable[[float], object] = lambda seconds: None
    ) -> AlignedText:
        """Find when each word of ``text``, and each unit it is spelled with, is spoken in a recording.

        The recording may last hours; one of up to ``asr.longform.cutting.LONGEST_CHUNK_SECONDS`` goes through
        the network in one piece. Words that the lexicon lacks get pronunciations like those of its own
        words, which takes some seconds to learn. ``progress`` is called with the seconds of audio done
        since the last call.

        Raises ``AudioError`` for a recording that cannot be read, ``TextError``, ``G2PError`` or
        ``AlignmentError`` for a text that does not fit the model or the recording.
        """
        from asr.search.alignment import align_text  # imports numba

        text = NORMALISERS[self.text.normaliser](text)
        tokenizer = self._extend_tokenizer(text)
        log_probs, samples = compute_whole_log_probs(self, source, progress)
        duration = samples / self.sample_rate
        words = align_text(log_probs, text, tokenizer, self.frame_seconds, duration)
        return AlignedText(name_source(source), duration, words, tokenizer.unit, self.name)

    def _extend_tokenizer(self, text: str) -> Tokenizer:
        """Add pronunciations for the words of ``text`` that the lexicon lacks."""
        if self.tokenizer.lexicon is None or not self.tokenizer.find_unknown(text):
            return self.tokenizer
        from asr.g2p.model import add_pronunciations  # imports numba

        lexicon = add_pronunciations(self.tokenizer.lexicon, sorted(self.tokenizer.find_unknown(text)))
        return replace(self.tokenizer, lexicon=lexicon)


def open_recognizer(
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    *,
    lm: str | Path | None = None,
    hotwords: str | Sequence[str] = (),
    compute_type: str = "float32",
    threads: int | None = None,
    engine: str = "auto",
    **search: Any,
) -> Recognizer:
    """Open a model folder or a shipped model for ``asr.load`` and every verb; runs no code from the folder.

    With ``lm="none", beam_size=1`` the search is greedy, whatever the folder asks for.

    Args:
        model: a model folder, or the name of a shipped model.
        device: ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``.
        lm: a language model, an ARPA file or a binary one; ``None`` means the folder's own, where it has
            one, and ``"none"`` means none.
        hotwords: words and phrases as people write them, in a list or with commas between them.
        compute_type: one of ``COMPUTE_TYPES``.
        threads: processor threads to use; ``None`` means one a core, or what torch has.
        engine: ``onnx``, ``torch``, or ``auto``: ONNX Runtime on a CPU where the folder has ``model.onnx``.
        search: keys of ``SearchConfig`` with values instead of the folder's.

    Raises:
        ModelFolderError: a file of the folder is missing or does not fit; the error names it.
        ConfigError: there is no such setting of the search.
        LanguageModelError: the language model cannot be read.
        SearchError: the model cannot write the words of the language model, or a hot word.
        UserError: the device or the compute type is unknown or not available here, it takes torch and there
            is none, or the normaliser leaves nothing of a hot word.
    """
    folder = find_model_folder(model)
    check_model_folder(folder, lm)
    text = read_text_config(folder)
    tokenizer = load_tokenizer(folder)
    network = open_network(folder, device, compute_type, threads, engine)
    config = from_table(SearchConfig, to_table(read_search_config(folder, lm)) | search)
    language_model = find_language_model(folder) if lm is None else None if str(lm) == "none" else lm
    phrases = hotwords.split(",") if isinstance(hotwords, str) else hotwords
    phrases = [normalise_phrase(phrase, text) for phrase in phrases if phrase.strip()]
    decoder = _make_decoder(config, tokenizer, language_model, phrases, is_binary=lm is None)
    return Recognizer(folder.resolve().name, tokenizer, text, network, config, decoder)


def _make_decoder(
    config: SearchConfig,
    tokenizer: Tokenizer,
    language_model: str | Path | None,
    phrases: Sequence[str],
    is_binary: bool,
) -> BeamSearch | None:
    """Make the beam search that the config, a language model or phrases ask for; ``None`` means greedy.

    ``is_binary``: the language model is a model folder's, which has none in any other form.
    """
    if config.beam_size == 1:
        if language_model is None and not phrases:
            return None
        config = replace(config, beam_size=USUAL_BEAM)
    # Imported here because they import numba, which greedy search does not need.
    from asr.lm.storage import load_model, open_model
    from asr.search.beam_search import make_beam_search

    open_file = open_model if is_binary else load_model
    model = None if language_model is None else open_file(language_model)
    return make_beam_search(config, tokenizer, model, phrases)


def normalise_phrase(phrase: str, config: TextConfig) -> str:
    """Normalise a hot word or phrase like the model's texts; raises ``UserError`` where nothing is left."""
    text = canonicalise(NORMALISERS[config.normaliser](phrase))
    if not text:
        raise UserError(
            f"hot words: nothing is left of {phrase.strip()!r} in the form {config.normaliser}; "
            "write it as it is spoken"
        )
    return text
