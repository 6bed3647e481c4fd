"""``Recognizer``: a network, a tokenizer and a search, ready to transcribe; ``open_recognizer`` makes one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from asr.audio.arrays import to_wav
from asr.audio.sources import AudioError, Source
from asr.core.config import from_table, to_table
from asr.errors import UserError
from asr.longform.live import LiveConfig, LiveStream, SearchStream
from asr.longform.transcripts import (
    LongformConfig,
    compute_whole_log_probs,
    name_recording,
    transcribe_recordings,
)
from asr.pretrained import DEFAULT_MODEL, find_model_folder
from asr.recognition.folder import (
    find_language_model,
    find_recurrent_model,
    find_tagger,
    has_decoder,
    read_search_config,
    read_text_config,
)
from asr.recognition.model_files import check_model_folder
from asr.recognition.network import Network, SpellingNetwork, open_network
from asr.search import SearchConfig, search_greedily
from asr.search.config import Phrases
from asr.search.greedy import GreedyStream
from asr.text.spoken import read_aloud, split_written
from asr.text.tokenizer import NORMALISERS, TextConfig, Tokenizer, canonicalise, load_tokenizer
from asr.transcript.values import AlignedText, Hypothesis, Transcript

if TYPE_CHECKING:
    from asr.search.beam_search import BeamSearch
    from asr.text.punctuation import Tagger

NO_HOTWORDS = "hot words: an attention decoder does not know them; --ctc-weight 1 transcribes with CTC alone"
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
    # Of a model that spells with attention, whose rows of log-probs have what its decoder looks at behind
    # them: the same model without the decoder, where it learned CTC, too.
    spells: bool = False
    ctc: Recognizer | None = None
    tagger: Tagger | None = None  # which punctuates the segments of transcripts

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
        settings = {**asdict(self.decoder.config), **self.decoder.description}
        del settings["log_priors"]  # a number for each token, measured, not chosen
        return settings

    @property
    def unit(self) -> str:
        """What hypotheses consist of, ``words`` or ``phones``: greedy search over phones finds no words."""
        has_words = self.decoder is not None and not self.spells
        return "phones" if self.tokenizer.lexicon is not None and not has_words else "words"

    def to_reference(self, text: str) -> str:
        """Convert a normalised text to the unit of hypotheses, so that they can be compared with it."""
        return self.tokenizer.to_phones(text) if self.unit == "phones" else text

    def log_probs(self, batches: Sequence[Sequence[np.ndarray]]) -> Iterator[list[np.ndarray]]:
        """Compute log-probs ``(frames, vocabulary)`` for each array in each batch of samples, in order.

        Where the model ``spells``, rows are longer.
        """
        return self.network.log_probs(batches)

    def without_decoder(self) -> Recognizer:
        """Return the same model without its attention decoder, for what takes log-probs of every frame.

        Raises ``UserError`` where it learned no CTC.
        """
        if not self.spells:
            return self
        if self.ctc is None:
            raise UserError(
                f"{self.name}: learned without CTC (decoder.ctc_weight = 0), which live transcripts and "
                "alignment need"
            )
        return self.ctc

    def search(self, log_probs: Sequence[np.ndarray], threads: int | None = None) -> list[Hypothesis]:
        """Find the best hypothesis for each array of log-probs, on its own number of threads or so many."""
        if self.decoder is not None:
            return self.decoder.search_batch(log_probs, self.frame_seconds, threads or self.threads)
        return [search_greedily(array, self.tokenizer, self.frame_seconds) for array in log_probs]

    def transcribe_samples(self, samples: Sequence[np.ndarray]) -> list[Hypothesis]:
        """Transcribe arrays of samples at ``sample_rate`` as one batch."""
        return self.search(next(self.log_probs([samples])))

    def transcribe(
        self, source: Source | np.ndarray, rate: int | None = None, *, vad: bool = LongformConfig.vad
    ) -> Transcript:
        """Transcribe a recording of any length; with ``vad``, only the parts with speech in them.

        An array of samples, ``(samples,)`` or ``(samples, channels)``, goes with its ``rate`` in hertz;
        floats have full scale 1, integers that of their type, and channels are mixed like those of a file.
        Raises ``AudioError`` when the recording cannot be read.
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
        log_probs, _ = compute_whole_log_probs(self, source, vad=not self.spells)
        if self.decoder is None:
            return self.search([log_probs])
        return self.decoder.find_hypotheses(log_probs, self.frame_seconds, count)

    def start_search(self) -> SearchStream:
        """Start a search that reads the log-probs of one recording block by block."""
        if self.spells:
            return self.without_decoder().start_search()
        if self.decoder is not None:
            return self.decoder.start_stream(self.frame_seconds)
        return GreedyStream(self.tokenizer, self.frame_seconds)

    def stream(self, rate: int | None = None, **live: float) -> LiveStream:
        """Start to transcribe samples while they come: ``feed`` takes them and returns events.

        Args:
            rate: hertz of the samples, mono; ``None`` means ``sample_rate``.
            live: keys of ``asr.longform.live.LiveConfig``: ``pause_seconds``, ``partial_seconds``, ...

        A model with an attention decoder hears with CTC alone here. Raises ``ConfigError`` for a key that
        does not exist or a value out of bounds.
        """
        return LiveStream(self.without_decoder(), rate, from_table(LiveConfig, live))

    def add_hotwords(self, hotwords: Sequence[str]) -> Recognizer:
        """Return a recogniser that expects these words and phrases, too; both share the network.

        Raises ``SearchError`` for a phrase that the model cannot write, and ``UserError`` where the
        normaliser leaves nothing of one.
        """
        from asr.search.beam_search import make_beam_search  # imports numba

        if self.spells:
            raise UserError(NO_HOTWORDS)
        added = dict.fromkeys(normalise_phrases(hotwords, self.text), self.search_config.hotword_weight)
        if self.decoder is None:
            config, model, recurrent = replace(self.search_config, beam_size=USUAL_BEAM), None, None
        else:
            config, model, recurrent = self.decoder.config, self.decoder.model, self.decoder.recurrent
            before = self.decoder.phrases
            weights = before if isinstance(before, Mapping) else dict.fromkeys(before, config.hotword_weight)
            added = {**weights, **added}
        return replace(self, decoder=make_beam_search(config, self.tokenizer, model, added, recurrent))

    def align(
        self, source: Source, text: str, progress: Callable[[float], object] = lambda seconds: None
    ) -> AlignedText:
        """Find when each word of ``text``, and each unit it is spelled with, is spoken in a recording.

        Words come back as ``text`` writes them. Figures are read as they are said in English, where the
        model's texts have none; what stands in brackets is no words. Words that the model cannot spell are
        ``unplaced``, and the others aligned without them.

        The recording may last hours; one of up to ``asr.longform.cutting.LONGEST_CHUNK_SECONDS`` goes through
        the network in one piece. Words that the lexicon lacks get pronunciations like those of its own
        words, which takes some seconds to learn. ``progress`` is called with the seconds of audio done
        since the last call.

        Raises ``AudioError`` for a recording that cannot be read, ``TextError``, ``G2PError`` or
        ``AlignmentError`` for a text that does not fit the model or the recording.
        """
        from asr.search.alignment import AlignmentError, align_text, join_spoken_words  # imports numba

        if self.spells:
            return self.without_decoder().align(source, text, progress)
        normalise = NORMALISERS[self.text.normaliser]
        written, remarks = split_written(text, lambda word: canonicalise(normalise(word)))
        tokenizer, unknown = self._extend_tokenizer({word for one in written for word in one.spoken})
        placed = [one for one in written if one.spoken and unknown.isdisjoint(one.spoken)]
        if unknown and not placed:
            raise AlignmentError(
                f"the model cannot spell a word of the text: {', '.join(sorted(unknown)[:5])}"
            )
        unplaced = [one.text for one in written if one.is_lost or not unknown.isdisjoint(one.spoken)]
        spoken = " ".join(word for one in placed for word in one.spoken)
        log_probs, samples = compute_whole_log_probs(self, source, progress)
        duration = samples / self.sample_rate
        words = align_text(log_probs, spoken, tokenizer, self.frame_seconds, duration)
        return AlignedText(
            name_recording(source),
            duration,
            join_spoken_words(words, [(one.text, len(one.spoken)) for one in placed]),
            tokenizer.unit,
            self.name,
            tuple(unplaced),
            tuple(remarks),
        )

    def _extend_tokenizer(self, words: Set[str]) -> tuple[Tokenizer, Set[str]]:
        """Add pronunciations for words that the lexicon lacks; also return those that nothing can spell."""
        if self.tokenizer.lexicon is None:
            return self.tokenizer, {word for word in words if not self.tokenizer.can_encode(word)}
        missing = sorted(word for word in words if word not in self.tokenizer.lexicon)
        if not missing:
            return self.tokenizer, set()
        from asr.g2p.model import add_pronounceable  # imports numba

        lexicon, unknown = add_pronounceable(self.tokenizer.lexicon, missing)
        return replace(self.tokenizer, lexicon=lexicon), unknown


def open_recognizer(
    model: str | Path = DEFAULT_MODEL,
    device: str = "auto",
    *,
    lm: str | Path | None = None,
    rescore: str | Path | None = None,
    hotwords: str | Phrases = (),
    compute_type: str = "usual",
    threads: int | None = None,
    engine: str = "auto",
    punctuation: bool = True,
    **search: Any,
) -> Recognizer:
    """Open a model folder or a shipped model for ``asr.load`` and every verb; runs no code from the folder.

    With ``lm="none", beam_size=1`` the search is greedy, whatever the folder asks for.

    Args:
        model: a model folder, or the name of a shipped model.
        device: ``auto``, ``cpu``, ``cuda`` (or ``cuda:1``) or ``mps``.
        lm: a language model, an ARPA file or a binary one; ``None`` means the folder's own, where it has
            one, and ``"none"`` means none.
        rescore: a recurrent language model, which ranks the best hypotheses anew; ``None`` means the folder's
            own, where it has one and ``lm`` is left out, and ``"none"`` means none.
        hotwords: words and phrases as people write them, in a list, with commas between them, in a file
            (``"@names.txt"``, one a line, perhaps with a tab and a weight), or a dictionary of weights.
        compute_type: one of ``COMPUTE_TYPES``.
        threads: processor threads to use; ``None`` means one a core, or what torch has.
        engine: ``onnx``, ``torch``, or ``auto``: ONNX Runtime on a CPU where the folder has ``model.onnx``.
        punctuation: write transcripts with capitals and punctuation, too, where the folder has a model of it.
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
    recurrent: str | Path | None = None if str(rescore) == "none" else rescore
    if rescore is None and lm is None:  # its weights are tuned for the folder's own
        recurrent = find_recurrent_model(folder)
    phrases = normalise_phrases(parse_hotwords(hotwords, config.hotword_weight), text)
    spells = has_decoder(folder) and config.ctc_weight < 1
    if spells and phrases:
        raise UserError(NO_HOTWORDS)
    decoder = _make_decoder(config, tokenizer, language_model, recurrent, phrases, is_binary=lm is None)
    path = find_tagger(folder) if punctuation else None
    tagger = None
    if path is not None:
        from asr.text.punctuation import open_tagger  # imports what few models need

        tagger = open_tagger(path)
    name = folder.resolve().name
    recognizer = Recognizer(name, tokenizer, text, network, config, decoder, tagger=tagger)
    if not spells:
        return recognizer
    return add_decoder(recognizer)


def add_decoder(recognizer: Recognizer) -> Recognizer:
    """Let a recogniser of CTC spell with the attention decoder of its model, too.

    Raises ``SearchError`` for a language model where tokens are phones.
    """
    from asr.search.spelling_search import SpellingSearch  # imports numba

    network = cast(SpellingNetwork, recognizer.network)
    fused = None if recognizer.decoder is None else recognizer.decoder.model
    search = SpellingSearch(
        recognizer.search_config, recognizer.tokenizer, network.start_spelling, network.knows_ctc, fused
    )
    return replace(
        recognizer,
        network=network.reveal_states(),
        decoder=search,
        spells=True,
        ctc=recognizer if network.knows_ctc else None,
    )


def _make_decoder(
    config: SearchConfig,
    tokenizer: Tokenizer,
    language_model: str | Path | None,
    recurrent_model: str | Path | None,
    phrases: Phrases,
    is_binary: bool,
) -> BeamSearch | None:
    """Make the beam search that the config, a language model or phrases ask for; ``None`` means greedy.

    ``is_binary``: the language model is a model folder's, which has none in any other form.
    """
    if config.beam_size == 1:
        if language_model is None and recurrent_model is None and not phrases:
            return None
        config = replace(config, beam_size=USUAL_BEAM)
    # Imported here because they import numba, which greedy search does not need.
    from asr.lm.storage import load_model, open_model
    from asr.search.beam_search import make_beam_search

    open_file = open_model if is_binary else load_model
    model = None if language_model is None else open_file(language_model)
    recurrent = None
    if recurrent_model is not None:
        from asr.lm.recurrent_file import open_recurrent_model

        recurrent = open_recurrent_model(recurrent_model)
    return make_beam_search(config, tokenizer, model, phrases, recurrent)


def parse_hotwords(hotwords: str | Phrases, weight: float) -> Phrases:
    """Parse what people give: phrases with commas between them, or ``@`` and the name of a file.

    Raises ``UserError`` for a file that cannot be read, and for its name without the ``@``.
    """
    if not isinstance(hotwords, str):
        return hotwords
    if hotwords.startswith("@"):
        from asr.search.hotwords import read_phrases

        return read_phrases(hotwords[1:], weight)
    phrases = [phrase.strip() for phrase in hotwords.split(",") if phrase.strip()]
    for phrase in phrases:
        if "." in phrase and os.path.isfile(phrase):  # noqa: PTH113 (a phrase may be too long for a path)
            raise UserError(f"hot words: {phrase} is a file: @{phrase} reads it")
    return phrases


def normalise_phrases(phrases: Phrases, config: TextConfig) -> Phrases:
    """Normalise hot words and phrases, each with its weight where they have weights."""
    if isinstance(phrases, Mapping):
        return {normalise_phrase(phrase, config): own for phrase, own in phrases.items() if phrase.strip()}
    return [normalise_phrase(phrase, config) for phrase in phrases if phrase.strip()]


def normalise_phrase(phrase: str, config: TextConfig) -> str:
    """Normalise a hot word or phrase like the model's texts, figures as they are said.

    Raises ``UserError`` for a word of which nothing is left.
    """
    normalise = NORMALISERS[config.normaliser]
    words = [(word, canonicalise(read_aloud(word, normalise))) for word in phrase.split()]
    text = " ".join(filter(None, (spoken for _, spoken in words)))
    lost = [word for word, spoken in words if not spoken and any(map(str.isalnum, word))]
    if lost or not text:
        name = lost[0] if lost else phrase.strip()
        raise UserError(
            f"hot words: nothing is left of {name!r} in the form {config.normaliser}; "
            "write it as it is spoken"
        )
    return text
